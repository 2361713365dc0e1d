"""Clients that pull images as often as a Zipf distribution says, at a steady pace, looking at every byte."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.upstream import Image

_EXPONENT = 0.9
_PATIENCE = 60.0
# Pulls that a verdict may still ask for: of the last minutes.
_KEPT_PULLS = 20_000


class Pull(NamedTuple):
    """A blob or manifest that was pulled through a replica, until a moment in seconds since the epoch."""

    at: float
    replica: int
    digest: str


class Churn:
    """Clients of several replicas, one thread each; every one of them draws from the same images."""

    def __init__(self, ports: Sequence[int], images: Sequence[Image], pace: float, clients: int, seed: int) -> None:
        """Prepare `clients` for each of the `ports`, each of whom begins a pull every `pace` seconds."""
        self.pulls: deque[Pull] = deque(maxlen=_KEPT_PULLS)
        self.errors: list[str] = []
        self.received = 0
        self.count = 0
        self._ports = ports
        self._images = images
        self._weights = list(itertools.accumulate(1 / rank**_EXPONENT for rank in range(1, len(images) + 1)))
        self._pace = pace
        self._clients = clients
        self._seed = seed
        self._lock = threading.Lock()

    def run(self, rounds: int) -> None:
        """Have each client pull so many images."""
        clients = [(place, number) for place in range(len(self._ports)) for number in range(self._clients)]
        with ThreadPoolExecutor(len(clients)) as pool:
            list(pool.map(lambda client: self._go_on(client[0], client[1], rounds), clients))

    def _go_on(self, place: int, number: int, rounds: int) -> None:
        chance = random.Random(f"{self._seed} {place} {number}")
        begin = time.monotonic() + chance.random() * self._pace
        for turn in range(rounds):
            time.sleep(max(0.0, begin + turn * self._pace - time.monotonic()))
            (image,) = chance.choices(self._images, cum_weights=self._weights)
            try:
                self._pull(place, image)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with self._lock:
                    self.errors.append(f"{image.repository} through replica {place}: {error!r}")

    def _pull(self, place: int, image: Image) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[place], timeout=_PATIENCE)
        try:
            received = self._get(connection, image, f"manifests/{image.tag}", image.index.digest, place)
            for each in image.manifests:
                received += self._get(connection, image, f"manifests/{each.digest}", each.digest, place)
            for blob in image.blobs:
                received += self._get(connection, image, f"blobs/{blob.digest}", blob.digest, place)
        finally:
            connection.close()
        with self._lock:
            self.count += 1
            self.received += received

    def _get(self, connection: http.client.HTTPConnection, image: Image, path: str, digest: str, place: int) -> int:
        connection.request("GET", f"/v2/{image.repository}/{path}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{path}: {answer.status} {body[:200]!r}"
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest, f"{path}: {len(body)} wrong bytes"
        self.pulls.append(Pull(time.time(), place, digest))
        return len(body)
