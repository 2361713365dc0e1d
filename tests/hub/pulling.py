"""Pulls by tag through a replica, and what they cost the upstream."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance.wire import Answer, Door
from tests.programs import require
from tests.replica import Replica
from tests.upstream import Upstream

POLL_SECONDS = 0.05


def pull(replica: Replica, image: str, method: str = "GET") -> Answer:
    """Ask for the manifest of `host/name:tag` or `host/name@digest`."""
    repository, reference = image.split("@") if "@" in image else image.rsplit(":", 1)
    return Door(replica.port).ask(method, f"/v2/{repository}/manifests/{reference}")


def digest(answer: Answer) -> str:
    """Return the digest that a successful answer names."""
    assert answer.status == 200, (answer.status, answer.body[:500])
    return str(answer.headers["Docker-Content-Digest"])


def status(answer: Answer) -> str:
    """Return Cache-Status; the seconds of its ttl, which are not the same in every run, are N."""
    return re.sub(r"ttl=(-?)\d+", r"ttl=\1N", answer.headers["Cache-Status"])


def stale(why: str) -> str:
    """Return the `status` of a stale answer."""
    return f"layover; hit; ttl=-N; detail=stale-{why}"


def asked(upstream: Upstream, repository: str) -> list[tuple[str, str]]:
    """Return method and reference of each request for a manifest that reached the upstream."""
    received = [each for each in upstream.counters.headers if f"/{repository}/manifests/" in each.path]
    return [(each.method, each.path.rpartition("/")[2]) for each in received]


def logged(replica: Replica, image: str) -> list[dict[str, Any]]:
    """Return every line of the replica's log that names an image and is no request's."""
    lines = [json.loads(line) for line in replica.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("image") == image]


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(POLL_SECONDS)


def wait_for(moment: float) -> None:
    """Wait for a moment on the monotonic clock."""
    wait_until(lambda: time.monotonic() > moment, "that moment comes", moment - time.monotonic() + 5)


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that signed itself, and return it with its key as one PEM file."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    words = "req -x509 -nodes -newkey rsa:2048 -subj /CN=upstream -days 1 -addext subjectAltName=IP:127.0.0.1"
    command = (require("openssl"), *words.split(), "-keyout", str(key), "-out", str(certificate))
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both
