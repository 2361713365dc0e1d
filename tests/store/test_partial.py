"""Partial files: what a later run may believe of them, and what it clears away."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.store import Content, Partial
from mirror.store.partial import clear_leftovers

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)
ORIGIN = "0123abcd"
NAME = f"sha256-{DIGEST.hex}-{ORIGIN}"
BOOT = "this boot"


def begun(folder: Path, *spans: tuple[int, int], size: int | None = len(DATA), boot: str = BOOT) -> None:
    """Leave a partial file behind, as a fill that was killed does."""
    partial = Partial(folder, DIGEST, ORIGIN, boot)
    partial.size = size
    for start, end in spans:
        partial.write(start, [DATA[start:end]])
        partial.added(start, end)
    partial.save(partial.segments.spans)
    partial.close()


def found(folder: Path) -> tuple[list[tuple[int, int]], int | None]:
    """Return what a new run believes: spans and size."""
    partial = Partial(folder, DIGEST, ORIGIN, BOOT)
    spans = partial.segments.spans
    assert partial.resumed == partial.segments.total
    for start, end in spans:
        assert partial.read(start, end) == DATA[start:end]
    partial.close()
    return spans, partial.size


class TestResuming:
    def test_believes__the_map_of_this_boot(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100), (4000, 5000))
        assert found(tmp_path) == ([(0, 100), (4000, 5000)], len(DATA))

    def test_believes__a_map_without_a_size(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100), size=None)
        assert found(tmp_path) == ([(0, 100)], None)

    def test_begins_anew__with_the_map_of_another_boot(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100), boot="the boot before a power loss")
        assert found(tmp_path) == ([], None)
        assert (tmp_path / f"{NAME}.data").stat().st_size == 0

    def test_begins_anew__without_a_map(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        (tmp_path / f"{NAME}.map").unlink()
        assert found(tmp_path) == ([], None)

    def test_begins_anew__without_data(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        (tmp_path / f"{NAME}.data").unlink()
        assert found(tmp_path) == ([], None)

    @pytest.mark.parametrize(("length", "spans"), [(50, [(0, 50)]), (4500, [(0, 100), (4000, 4500)]), (0, [])])
    def test_believes_no_byte__beyond_the_end_of_the_file(
        self, length: int, spans: list[tuple[int, int]], tmp_path: Path
    ) -> None:
        begun(tmp_path, (0, 100), (4000, 5000))
        with (tmp_path / f"{NAME}.data").open("r+b") as file:
            file.truncate(length)
        assert found(tmp_path)[0] == spans

    @pytest.mark.parametrize(
        "change",
        [
            {"spans": [[-5, 10]]},
            {"spans": [[10, 5], [0, 10], [3, 7]]},
            {"spans": [[0, 10], [10**18, 2**62]]},
        ],
    )
    def test_believes_no_more_than_there_is__whatever_the_map_says(
        self, change: dict[str, Any], tmp_path: Path
    ) -> None:
        begun(tmp_path, (0, 10))
        path = tmp_path / f"{NAME}.map"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        assert found(tmp_path)[0] == [(0, 10)]

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\xff", b'{"boot_id": "\xff"}', b"[]", b'{"boot_id": "this boot"}', b"[" * 10_000],
        ids=range(7),
    )
    def test_begins_anew__with_a_damaged_map(self, content: bytes, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        (tmp_path / f"{NAME}.map").write_bytes(content)
        assert found(tmp_path) == ([], None)

    def test_counts_all_written__without_being_told(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        partial = Partial(tmp_path, DIGEST, ORIGIN, BOOT)
        partial.write(100, [DATA[100:200]])
        partial.close()
        assert found(tmp_path)[0] == [(0, 200)]


class TestWriting:
    @pytest.mark.parametrize("count", [1, 512, 513, 2000])
    def test_writes__any_number_of_pieces(self, count: int, tmp_path: Path) -> None:
        partial = Partial(tmp_path, DIGEST, ORIGIN, BOOT)
        pieces = [bytes([number % 256]) * 3 for number in range(count)]
        partial.write(7, pieces)
        assert partial.read(7, 7 + 3 * count) == b"".join(pieces)
        partial.close()

    def test_restarts__with_nothing(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        partial = Partial(tmp_path, DIGEST, ORIGIN, BOOT)
        partial.restart()
        assert (partial.segments.total, partial.resumed, partial.path.stat().st_size) == (0, 0, 0)
        partial.close()
        assert found(tmp_path)[0] == []

    def test_discards__data_and_map(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        partial = Partial(tmp_path, DIGEST, ORIGIN, BOOT)
        partial.discard()
        partial.close()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_publishes__under_its_final_name_alone(self, algorithm: str, tmp_path: Path) -> None:
        digest = Digest.of(DATA, algorithm)
        content = Content(tmp_path / "content")
        (tmp_path / "partial").mkdir()
        partial = Partial(tmp_path / "partial", digest, ORIGIN, BOOT)
        partial.size = len(DATA)
        partial.write(0, [DATA, b"beyond the end"])
        partial.save([(0, len(DATA))])
        partial.publish(content)
        partial.close()
        value = hashlib.new(algorithm, DATA).hexdigest()
        assert (tmp_path / "content" / algorithm / value[:2] / value).read_bytes() == DATA
        assert list((tmp_path / "partial").iterdir()) == []


class TestLeftovers:
    def test_keep__what_can_be_resumed_and_count_its_bytes(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100), (8192, 9000))
        taken = clear_leftovers(tmp_path, BOOT, Content(tmp_path.parent / "content"))
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == [f"{NAME}.data", f"{NAME}.map"]
        assert taken == 100 + 808
        assert found(tmp_path)[0] == [(0, 100), (8192, 9000)]

    def test_clear__what_nothing_can_be_made_of(self, tmp_path: Path) -> None:
        begun(tmp_path, (0, 100))
        other = f"sha256-{'a' * 64}"
        for name in (f"{other}.data", f"sha256-{'b' * 64}.map", f"{NAME}.new", "0123456789abcdef.manifest", "stray"):
            (tmp_path / name).write_bytes(b"x")
        clear_leftovers(tmp_path, BOOT, Content(tmp_path.parent / "content"))
        assert sorted(file.name for file in tmp_path.iterdir()) == [f"{NAME}.data", f"{NAME}.map"]
