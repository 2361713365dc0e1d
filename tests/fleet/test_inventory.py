"""A fleet that forgot who holds what is told again."""

from __future__ import annotations

import time
from pathlib import Path

from tests.fleet.losing import told
from tests.fleet.replicas import SECRET
from tests.fleet.servers import Valkey, until
from tests.replica import NO_PREFETCH, Replica
from tests.store.large import lay

_OBJECTS = 10_000


def test_tell__everything__at_the_start_and_when_redis_restarts_empty(valkey: Valkey, tmp_path: Path) -> None:
    store = tmp_path / "store"
    lay(store, _OBJECTS)
    fleet = {"LAYOVER_FLEET__REDIS_URL": valkey.url, "LAYOVER_FLEET__SECRET": SECRET, "LAYOVER_SERVER__WORKERS": "1"}
    with Replica(store, upstreams={"docker.io": "http://127.0.0.1:1"}, settings={**NO_PREFETCH, **fleet}):
        until(lambda: told(valkey) == _OBJECTS, "all is told after the start", 60.0)
        valkey.restart()
        began = time.monotonic()
        until(lambda: told(valkey) == _OBJECTS, "all is told again", 60.0)
        assert time.monotonic() < began + 60.0
