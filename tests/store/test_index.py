"""The index: text to bytes, all or nothing, and never a pickle in or out."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mirror.store.index import DATABASE, Index


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    found = Index(tmp_path / "index")
    yield found
    found.close()


def craft(tmp_path: Path, statement: str, *values: object) -> None:
    """Change the index behind its back."""
    with closing(sqlite3.connect(tmp_path / "index" / DATABASE)) as database, database:
        changed = database.execute(statement, values)
        assert changed.rowcount >= 1


class TestRows:
    def test_are_kept__over_a_close(self, index: Index, tmp_path: Path) -> None:
        index.write({"b": b"2", "a": b"", "ä": bytes(range(256))})
        index.close()
        again = Index(tmp_path / "index")
        assert list(again.keys()) == ["a", "b", "ä"]
        assert [again.get(key) for key in ("a", "b", "ä", "none")] == [b"", b"2", bytes(range(256)), None]
        again.close()

    def test_are_replaced_and_deleted(self, index: Index) -> None:
        index.write({"a": b"1", "b": b"1"})
        index.write({"a": b"2", "b": None, "never": None})
        assert [index.get(key) for key in ("a", "b")] == [b"2", None]

    def test_are_written__all_or_none(self, index: Index) -> None:
        index.write({"a": b"1"})
        with pytest.raises(TypeError):
            index.write({"a": b"2", "b": "text"})  # type: ignore[dict-item]
        assert [index.get(key) for key in ("a", "b")] == [b"1", None]

    def test_stay__however_many_there_are(self, index: Index) -> None:
        rows = {f"{number:05}": bytes(2000) for number in range(3000)}
        for _ in range(3):
            index.write(rows)
        assert list(index.keys()) == list(rows)


class TestPickles:
    @pytest.mark.parametrize("value", [1, 1.5, "text", [b"x"], object(), bytearray(b"x")])
    def test_are_never_written__as_values(self, value: object, index: Index) -> None:
        with pytest.raises(TypeError, match="index values are bytes"):
            index.write({"a": value})  # type: ignore[dict-item]

    @pytest.mark.parametrize("key", [1, b"a", None, ("a",)])
    def test_are_never_written__as_keys(self, key: object, index: Index) -> None:
        with pytest.raises(TypeError, match="index keys are text"):
            index.write({key: b"x"})  # type: ignore[dict-item]

    @pytest.mark.parametrize("mode", [0, 2, 3, 4, 5])
    def test_are_never_read__as_values(self, mode: int, index: Index, tmp_path: Path) -> None:
        index.write({"a": b"x"})
        trap = pickle.dumps(Trap(tmp_path / "sprung"))
        craft(tmp_path, "UPDATE Cache SET mode = ?, value = ?", mode, trap)
        with pytest.raises(sqlite3.DatabaseError, match="not plain bytes"):
            index.get("a")
        assert not (tmp_path / "sprung").exists()

    def test_are_never_read__from_files(self, index: Index, tmp_path: Path) -> None:
        index.write({"a": b"x"})
        (tmp_path / "index" / "trap").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        for mode in (1, 2, 4):
            craft(tmp_path, "UPDATE Cache SET mode = ?, value = NULL, filename = 'trap'", mode)
            with pytest.raises(sqlite3.DatabaseError, match="not plain bytes"):
                index.get("a")
        assert not (tmp_path / "sprung").exists()

    def test_are_never_read__as_keys(self, index: Index, tmp_path: Path) -> None:
        index.write({"a": b"x"})
        craft(tmp_path, "UPDATE Cache SET raw = 0, key = ? WHERE key = 'a'", pickle.dumps(Trap(tmp_path / "sprung")))
        with pytest.raises(sqlite3.DatabaseError, match="pickled key"):
            list(index.keys())
        assert not (tmp_path / "sprung").exists()


class TestOpening:
    @pytest.mark.parametrize("content", [b"no database" * 1000, b"\xff" * 4096])
    def test_refuses__what_is_no_database(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / DATABASE).write_bytes(content)
        with pytest.raises(sqlite3.DatabaseError):
            Index(tmp_path / "index")

    @pytest.mark.parametrize("name", ["a b", "a?b=c", "a#b", "a%20b", "ä", "a'b\"c"])
    def test_opens__under_any_name(self, name: str, tmp_path: Path) -> None:
        for content in (None, b"1"):
            index = Index(tmp_path / name)
            assert index.get("a") == content
            index.write({"a": b"1"})
            index.close()
        assert [path.name for path in tmp_path.iterdir()] == [name]
