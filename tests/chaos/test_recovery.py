"""A store that lost its index, or more, while the replica was down."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.reader import Client, Reader, assert_nothing_wrong, get
from tests.chaos.scene import MIB, eventually
from tests.replica import Replica
from tests.upstream import Upstream


def _delete_index(store: Path) -> None:
    shutil.rmtree(store / "index")


def _overwrite_databases(store: Path) -> None:
    for file in _databases(store):
        file.write_bytes(b"not a database " * 1000)


def _empty_databases(store: Path) -> None:
    for file in _databases(store):
        file.write_bytes(b"")


def _halve_databases(store: Path) -> None:
    for file in _databases(store):
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size // 2)


def _scribble_over_databases(store: Path) -> None:
    for file in _databases(store):
        with file.open("r+b") as opened:
            opened.seek(4096)
            opened.write(b"\xff" * (file.stat().st_size - 4096))


def _delete_one_database(store: Path) -> None:
    shutil.rmtree(store / "index" / "records")


def _tear_the_last_line_of_the_journal(store: Path) -> None:
    with (store / "journal").open("ab") as file:
        file.write(b'12345678 {"type":"tag","repository":"docker.io/library/al')
    _delete_index(store)


def _scribble_over_the_first_line_of_the_journal(store: Path) -> None:
    with (store / "journal").open("r+b") as file:
        file.write(b"?????")
    _delete_index(store)


def _leave_halves_behind(store: Path) -> None:
    for name in ("sha256-0.data", "sha256-1.map", "sha256-2.new", "3.manifest", "other"):
        (store / "partial" / name).write_bytes(b"half")
    (store / "journal.new").write_bytes(b"half")


def _databases(store: Path) -> list[Path]:
    found = list((store / "index").rglob("cache.db"))
    assert found
    for file in found:
        for beside in ("-wal", "-shm"):
            file.with_name(file.name + beside).unlink(missing_ok=True)
    return found


@pytest.mark.parametrize(
    "damage",
    [
        _delete_index,
        _overwrite_databases,
        _empty_databases,
        _halve_databases,
        _scribble_over_databases,
        _delete_one_database,
        _tear_the_last_line_of_the_journal,
        _scribble_over_the_first_line_of_the_journal,
        _leave_halves_behind,
    ],
    ids=lambda damage: damage.__name__.strip("_").replace("_", " "),
)
def test_start__the_store_was_damaged__what_was_pulled_keeps_pulling(
    upstream: Upstream, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    image = upstream.push_image("library/held", "1", layers=[10_000, 2 * MIB])
    other = upstream.push_image("team/other", "2", ["linux/amd64"], [20_000], seed=1)
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url})
    try:
        replica.start()
        for client in (
            Client(replica.url, image),
            Client(replica.url, image, "linux/arm64"),
            Client(replica.url, other),
        ):
            client.wait().assert_whole()
        assert replica.stop() == 0
        damage(replica.store)
        upstream.pause()
        replica.start()
        for client in (
            Client(replica.url, image),
            Client(replica.url, image, "linux/arm64"),
            Client(replica.url, other),
        ):
            client.wait().assert_whole()
        # An index that is built anew tells of all repositories once it is whole, and of what is asked for at once.
        whole = b'{"repositories":["docker.io/library/held","docker.io/team/other"]}'
        eventually(lambda: get(replica.url, "/v2/_catalog").beginning == whole, "the catalog is whole")
        assert replica.stop() == 0
        assert list((replica.store / "partial").iterdir()) == []
        upstream.counters.clear()
        replica.start()
        Client(replica.url, image).wait().assert_whole()
    finally:
        replica.kill()


def test_start__the_index_was_deleted_after_a_kill(upstream: Upstream, tmp_path: Path) -> None:
    image = upstream.push_image("library/held", "1", ["linux/amd64"], [10_000, 2 * MIB])
    replica = Replica(tmp_path / "store", upstreams={"docker.io": upstream.url})
    try:
        replica.start()
        Client(replica.url, image).wait().assert_whole()
        assert replica.stop() == 0
        replica.start()
        moved = upstream.push_image("library/held", "2", ["linux/amd64"], [10_000, MIB], seed=1)
        Client(replica.url, moved).wait().assert_whole()
        held = replica.store / "content" / "sha256"
        names = [blob.digest.partition(":")[2] for blob in (*moved.blobs, moved.index, *moved.manifests)]
        _wait_until_held(held, names)
        replica.kill()
        _delete_index(replica.store)
        upstream.pause()
        replica.start()
        Client(replica.url, image).wait().assert_whole()
        Client(replica.url, moved).wait().assert_whole()
    finally:
        replica.kill()


def test_serve__the_index_is_damaged_while_it_runs__pulls_go_on(upstream: Upstream, tmp_path: Path) -> None:
    image = upstream.push_image("library/held", "1", ["linux/amd64"], [10_000, 2 * MIB])
    later = upstream.push_image("library/later", "1", ["linux/amd64"], [20_000], seed=1)
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}) as replica:
        Client(replica.url, image).wait().assert_whole()
        assert replica.stop() == 0
        replica.start()
        for file in (replica.store / "index").rglob("cache.db*"):
            with file.open("r+b") as damaged:  # in place: SQLite itself removes the log of an empty database
                damaged.write(b"\xff" * file.stat().st_size)
        Client(replica.url, image).wait().assert_whole()
        Client(replica.url, later).wait().assert_whole()
        assert replica.stop() == 0
        upstream.pause()
        replica.start()
        Client(replica.url, image).wait().assert_whole()
        Client(replica.url, later).wait().assert_whole()
        assert replica.stop() == 0


def test_start__a_partial_file_without_its_bytes__they_are_fetched(upstream: Upstream, tmp_path: Path) -> None:
    """The map says more than the file has: the fill must not take holes for bytes."""
    size = 8 * MIB
    digest = upstream.push_random_blob("library/short", size)
    target = f"/v2/library/short/blobs/{digest}"
    upstream.dials.blob_stall = size // 2
    replica = Replica(
        tmp_path / "store", upstreams={"docker.io": upstream.url}, settings={"LAYOVER_SERVER__SHUTDOWN_GRACE": "1ms"}
    )
    try:
        replica.start()
        Reader(replica.url, target).wait_for(size // 2)
        assert replica.stop() == 0
        upstream.reset()
        (data,) = (replica.store / "partial").glob("*.data")
        with data.open("r+b") as file:
            file.truncate(size // 4)
        replica.start()
        reader = get(replica.url, target)
        assert reader.is_complete, reader
        assert reader.digest == digest
        assert_nothing_wrong(replica.store)
    finally:
        replica.kill()


def test_start__a_partial_file_was_damaged__one_clean_try_comes_at_once(upstream: Upstream, tmp_path: Path) -> None:
    size = 8 * MIB
    digest = upstream.push_random_blob("library/damaged", size)
    target = f"/v2/library/damaged/blobs/{digest}"
    upstream.dials.blob_stall = size // 2
    replica = Replica(
        tmp_path / "store", upstreams={"docker.io": upstream.url}, settings={"LAYOVER_SERVER__SHUTDOWN_GRACE": "1ms"}
    )
    try:
        replica.start()
        Reader(replica.url, target).wait_for(size // 2)
        assert replica.stop() == 0
        upstream.reset()
        (data,) = (replica.store / "partial").glob("*.data")
        with data.open("r+b") as file:
            file.seek(MIB)
            file.write(b"damage")
        replica.start()
        assert not get(replica.url, target).is_complete
        again = get(replica.url, target, seconds=5)
        assert again.is_complete, again
        assert again.digest == digest
        assert_nothing_wrong(replica.store)
    finally:
        replica.kill()


def _wait_until_held(content: Path, names: list[str]) -> None:
    eventually(lambda: all((content / name[:2] / name).exists() for name in names), "all of it is held")
