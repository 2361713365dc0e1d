"""Many clients that pull one image at once, in a process of their own, looking at every byte.

`python -m tests.fleet.crowd` reads a `Task` as JSON from its standard input, prints `begun` once the first bytes of a
layer came, and at its end one `Pulled` a client. Nobody tries anything twice.
"""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import msgspec

from mirror.oci.media_types import OCI_INDEX, OCI_MANIFEST

_PATIENCE = 90.0
_READ = 256 * 2**10
# As many layers at a time as Docker pulls.
_AT_ONCE = 3
_ACCEPTED = f"{OCI_INDEX}, {OCI_MANIFEST}"


class Task(msgspec.Struct):
    """Each URL is where one client pulls `reference` of `repository`."""

    urls: list[str]
    repository: str
    reference: str


class Pulled(msgspec.Struct):
    """How one client fared: `error` is empty if every digest was right; `received` are the bytes of its blobs."""

    url: str
    seconds: float
    received: int
    error: str


class _Descriptor(msgspec.Struct):
    digest: str
    size: int = 0


class _Manifest(msgspec.Struct):
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] = []


class Crowd:
    """Clients that pull, from the moment on at which the context is entered."""

    def __init__(self, urls: Sequence[str], repository: str, reference: str) -> None:
        self._task = Task(list(urls), repository, reference)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Crowd:
        """Begin to pull."""
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._task))
        self._process.stdin.close()
        return self

    def begun(self) -> Crowd:
        """Wait until the first bytes of a layer came."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"begun\n"
        return self

    def result(self) -> list[Pulled]:
        """Wait until everybody has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            text = self._process.stdout.read()
            assert self._process.wait(_PATIENCE) == 0
        finally:
            self.kill()
        return msgspec.json.decode(text.removeprefix(b"begun\n"), type=list[Pulled])

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait(10)
            self._process.stdout.close()


def pull(urls: Sequence[str], repository: str, reference: str) -> list[Pulled]:
    """Pull an image from each of the URLs at once, and return how it went."""
    return Crowd(urls, repository, reference).start().result()


class _Client:
    """One client; `begun` is called when bytes of a layer came."""

    def __init__(self, url: str, task: Task, begun: Callable[[], None]) -> None:
        self.received = 0
        self._address = urlsplit(url).netloc
        self._task = task
        self._begun = begun

    def pull(self) -> None:
        manifest = self._manifest(self._task.reference)
        if manifest.manifests:
            manifest = self._manifest(manifest.manifests[0].digest)
        blobs = [each for each in (manifest.config, *manifest.layers) if each is not None]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self.received = sum(pool.map(self._blob, blobs))

    def _manifest(self, reference: str) -> _Manifest:
        body = b"".join(self._get(f"manifests/{reference}"))
        if reference.startswith("sha256:") and f"sha256:{hashlib.sha256(body).hexdigest()}" != reference:
            raise ValueError(f"{reference} is something else")
        return msgspec.json.decode(body, type=_Manifest)

    def _blob(self, blob: _Descriptor) -> int:
        hasher, received = hashlib.sha256(), 0
        for piece in self._get(f"blobs/{blob.digest}"):
            hasher.update(piece)
            received += len(piece)
            self._begun()
        if f"sha256:{hasher.hexdigest()}" != blob.digest:
            raise ValueError(f"{received} bytes for {blob.digest} of {blob.size}")
        return received

    def _get(self, path: str) -> list[bytes] | _Body:
        connection = http.client.HTTPConnection(self._address, timeout=_PATIENCE)
        connection.request("GET", f"/v2/{self._task.repository}/{path}", headers={"Accept": _ACCEPTED})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {answer.read(500)!r}")
        return _Body(connection, answer)


class _Body:
    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._answer = answer

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        piece = self._answer.read1(_READ)
        if not piece:
            missing = self._answer.length
            self._connection.close()
            if missing:
                raise ValueError(f"cut off with {missing} bytes missing")
            raise StopIteration
        return piece


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    told = threading.Event()
    lock = threading.Lock()

    def begun() -> None:
        if not told.is_set():
            with lock:
                if not told.is_set():
                    told.set()
                    sys.stdout.write("begun\n")
                    sys.stdout.flush()

    def one(url: str) -> Pulled:
        started, error = time.monotonic(), ""
        client = _Client(url, task, begun)
        try:
            client.pull()
        except (OSError, ValueError, http.client.HTTPException) as failed:
            error = f"{type(failed).__name__}: {failed}"
        return Pulled(url, time.monotonic() - started, client.received, error)

    with ThreadPoolExecutor(len(task.urls)) as pool:
        results = list(pool.map(one, task.urls))
    sys.stdout.buffer.write(msgspec.json.encode(results))


if __name__ == "__main__":
    _main()
