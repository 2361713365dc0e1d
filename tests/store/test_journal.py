"""The journal: every line that was written is read again, and no damage costs more than the lines it hits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.store.journal import Journal, Position
from mirror.store.records import Entry, Link, Linked, TagDropped, TagSet, TagState

REPOSITORY = "docker.io/library/app"


def tag(name: str, seed: int = 0) -> TagSet:
    return TagSet(REPOSITORY, name, TagState(Digest.of(b"%d" % seed), "text/plain", seed, float(seed)))


def link(seed: int, media_type: str | None = None, *, is_blob: bool = True, size: int | None = None) -> Linked:
    return Linked(REPOSITORY, Digest.of(b"%d" % seed), Link(media_type, is_blob, size))


def written(path: Path, *batches: list[Entry]) -> Position:
    """Append to the journal at `path`, and return the position behind the last entry."""
    journal = Journal(path)
    for batch in batches:
        journal.append(batch)
    end = journal.end
    journal.close()
    return end


def entries(path: Path, since: Position | None = None) -> list[Entry]:
    journal = Journal(path)
    try:
        return list(journal.replay(since))
    finally:
        journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


ALL: list[Entry] = [tag("a", 1), link(2, "text/plain", size=3), TagDropped(REPOSITORY, "a"), tag("ä b\n", 4), link(5)]


class TestReplay:
    def test_yields__what_was_appended_in_order(self, path: Path) -> None:
        written(path, ALL[:2], [], ALL[2:])
        assert entries(path) == ALL

    def test_yields__what_came_after_a_position(self, path: Path) -> None:
        journal = Journal(path)
        middle = journal.append(ALL[:3])
        end = journal.append(ALL[3:])
        assert middle != end == journal.end
        journal.close()
        assert entries(path, Position.parse(str(middle))) == ALL[3:]
        assert entries(path, Position.parse(str(end))) == []

    def test_yields_everything__since_a_position_of_another_journal(self, path: Path) -> None:
        written(path, ALL)
        assert entries(path, Position("other", 100)) == ALL

    @pytest.mark.parametrize("text", ["", ":", "a:", "a:-1", "a:b", "a:1.5", "a"])
    def test_knows__what_is_no_position(self, text: str) -> None:
        assert Position.parse(text) is None


class TestDamage:
    @pytest.mark.parametrize("piece", [400, 401, 450, 500, 1000, 10_000])
    def test_yields__one_repository_alone(self, path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
        monkeypatch.setattr("mirror.store.journal._PIECE_BYTES", piece)
        state = tag("b").state
        others: list[Entry] = [TagSet(f"{REPOSITORY}{number}", REPOSITORY, state) for number in range(5)]
        written(path, others[:2], ALL, others[2:], ALL)
        content = path.read_bytes()
        # What is damaged may be longer than any line, and end in one that is torn.
        path.write_bytes(content + b"x" * 3 * piece + b"\n" + content.partition(b"\n")[2] + b'00000000 {"repository":')
        journal = Journal(path)
        assert list(journal.entries_of(REPOSITORY)) == ALL * 4
        assert list(journal.entries_of(f"{REPOSITORY}3")) == [others[3]] * 2
        journal.close()

    def test_loses_only_the_torn_line__and_goes_on_behind_it(self, path: Path) -> None:
        written(path, ALL)
        whole = path.read_bytes()
        last = len(whole.splitlines(keepends=True)[-1])
        for cut in range(1, last + 1):
            path.write_bytes(whole[: len(whole) - cut])
            written(path, [tag("new", 9)])
            assert entries(path) == [*ALL[:-1], tag("new", 9)]

    def test_loses_only_the_damaged_line(self, path: Path) -> None:
        written(path, ALL)
        lines = path.read_bytes().splitlines(keepends=True)
        for number in range(1, len(lines)):
            for place in (0, 5, 12, len(lines[number]) - 2):
                line = bytearray(lines[number])
                line[place] ^= 1
                path.write_bytes(b"".join([*lines[:number], bytes(line), *lines[number + 1 :]]))
                assert entries(path) == [*ALL[: number - 1], *ALL[number:]]

    def test_loses_only_its_identity__with_the_header(self, path: Path) -> None:
        before = written(path, ALL)
        path.write_bytes(b"x" + path.read_bytes()[1:])
        after = written(path, [tag("new", 9)])
        assert after.identity != before.identity
        assert entries(path, before) == [*ALL, tag("new", 9)]

    def test_starts_anew__in_an_empty_file(self, path: Path) -> None:
        path.touch()
        written(path, ALL)
        assert entries(path) == ALL

    def test_keeps_every_entry__behind_a_file_without_a_line(self, path: Path) -> None:
        path.write_bytes(b"torn")
        written(path, ALL)
        assert entries(path) == ALL

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_takes_any_garbage__and_every_entry_behind_it(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        path = tmp_path_factory.mktemp("garbage") / "journal"
        written(path, ALL)
        whole = path.read_bytes()
        start = data.draw(st.integers(0, len(whole)))
        garbage = data.draw(st.binary(max_size=80))
        path.write_bytes(whole[:start] + garbage + whole[start + len(garbage) :])
        written(path, [tag("new", 9)])
        found = entries(path)
        assert all(entry in [*ALL, tag("new", 9)] for entry in found)
        assert found[-1] == tag("new", 9)


class TestCompaction:
    def compacted(self, path: Path, *all_entries: Entry) -> list[Entry]:
        journal = Journal(path)
        journal.append(all_entries)
        before = journal.end
        journal.compact()
        assert journal.end.identity != before.identity
        journal.append([tag("later", 99)])
        journal.close()
        found = entries(path)
        assert found.pop() == tag("later", 99)
        return found

    def test_keeps__the_last_state_of_each_tag(self, path: Path) -> None:
        kept = self.compacted(path, tag("a", 1), tag("b", 2), tag("a", 3), tag("b", 1))
        assert sorted(kept, key=repr) == sorted([tag("a", 3), tag("b", 1)], key=repr)

    def test_forgets__a_dropped_tag_but_not_one_that_came_back(self, path: Path) -> None:
        drop = [TagDropped(REPOSITORY, "a"), TagDropped(REPOSITORY, "b")]
        assert self.compacted(path, tag("a", 1), tag("b", 1), *drop, tag("b", 2)) == [tag("b", 2)]

    def test_keeps__everything_that_links_allowed_together(self, path: Path) -> None:
        parts = (link(1, "text/plain", is_blob=False), link(1, None, size=7), link(2))
        kept = self.compacted(path, *parts)
        assert sorted(kept, key=repr) == sorted([link(1, "text/plain", is_blob=True, size=7), link(2)], key=repr)

    def test_keeps_apart__repositories_with_the_same_names(self, path: Path) -> None:
        other = TagSet("ghcr.io/library/app", "a", tag("a", 5).state)
        assert len(self.compacted(path, tag("a", 1), other, link(1))) == 3

    def test_is_wanted__once_most_of_it_was_replaced(self, path: Path) -> None:
        journal = Journal(path)
        before = [journal.wants_compaction]
        for _ in range(20):
            journal.append([tag("a", seed) for seed in range(2000)])
            before.append(journal.wants_compaction)
        assert before == sorted(before)
        assert {False, True} == set(before)
        journal.compact()
        assert not journal.wants_compaction
        assert journal.end.offset < 1000
        journal.close()

    def test_leaves_the_journal_usable__when_it_fails(self, path: Path) -> None:
        journal = Journal(path)
        journal.append(ALL)
        (path.parent / "journal.new").mkdir()
        with pytest.raises(OSError, match="directory"):
            journal.compact()
        journal.append([tag("new", 9)])
        journal.close()
        (path.parent / "journal.new").rmdir()
        assert entries(path) == [*ALL, tag("new", 9)]
