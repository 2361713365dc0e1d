"""What is streamed through for one reader: from where it wants, its end only once it verified, and little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from mirror.fill.fill import DigestMismatch, Misled
from mirror.fill.lender import TAIL
from mirror.fill.passage import LONGEST_READ, Passage
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from tests.channel.transports import eventually
from tests.fill.origin import Origin, opened
from tests.upstream import Upstream

_SIZE = 2**20


@pytest.fixture
async def origin(registry: Upstream) -> AsyncIterator[Origin]:
    async with opened(registry) as found:
        yield found


@pytest.fixture
def hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class _Passing:
    """Opens a passage, and keeps what was read of it."""

    def __init__(self, origin: Origin, hashing: ThreadPoolExecutor) -> None:
        self.got = bytearray()
        self._origin = origin
        self._hashing = hashing

    @asynccontextmanager
    async def open(self, digest: Digest, start: int = 0, size: int | None = None) -> AsyncIterator[Passage]:
        """Open one."""
        origin = self._origin
        supply = origin.supply(digest)
        passage = Passage(digest, origin.repository, supply, size, start, self._hashing, origin.metrics)
        try:
            await passage.open()
            yield passage
        finally:
            await passage.close()

    async def read(self, passage: Passage, end: int | None = None) -> None:
        """Read up to the end, or until so many bytes are there.

        Raises:
            RegistryError: there is no more.
        """
        async with asyncio.timeout(20):
            while (end is None or len(self.got) < end) and (piece := await passage.read()):
                assert len(piece) <= LONGEST_READ
                self.got += piece


@pytest.fixture
def passing(origin: Origin, hashing: ThreadPoolExecutor) -> _Passing:
    return _Passing(origin, hashing)


@pytest.mark.parametrize("start", [0, 1, _SIZE - TAIL - 1, _SIZE - TAIL, _SIZE - 1, _SIZE])
async def test_read__from_where_it_is_wanted__to_the_end(origin: Origin, passing: _Passing, start: int) -> None:
    digest = origin.push(_SIZE)
    async with passing.open(digest, start, _SIZE) as passage:
        await passing.read(passage)
        assert (passage.size, passage.was_opened) == (_SIZE, True)
    assert passing.got == origin.upstream.content(digest)[start:]


@pytest.mark.parametrize("length", ["announced", "chunked"])
async def test_read__the_source_has_yet_to_send_the_last_byte__the_tail_is_withheld(
    origin: Origin, passing: _Passing, length: str
) -> None:
    digest = origin.push(_SIZE)
    origin.upstream.dials.blob_length = length  # type: ignore[assignment]
    origin.upstream.dials.blob_stall = _SIZE - 1
    # Of a body whose end nobody told the last byte that came may always be the last of all.
    there = _SIZE - TAIL if length == "announced" else _SIZE - 1 - TAIL
    async with passing.open(digest) as passage:
        await passing.read(passage, there)
        assert len(passing.got) == there
        origin.upstream.release()
        await passing.read(passage)
    assert passing.got == origin.upstream.content(digest)


@pytest.mark.parametrize("size", [1, TAIL, TAIL + 1, _SIZE])
async def test_read__other_bytes__the_tail_never_comes(origin: Origin, passing: _Passing, size: int) -> None:
    digest = origin.push(size)
    origin.upstream.dials.blob_corrupt = True
    async with passing.open(digest, 0, size) as passage:
        with pytest.raises(DigestMismatch):
            await passing.read(passage)
    assert len(passing.got) == max(0, size - TAIL)
    assert origin.mismatches() == 1


async def test_read__other_bytes_of_a_sibling__it_is_blamed_and_not_the_upstream(
    origin: Origin, passing: _Passing
) -> None:
    digest = origin.push(_SIZE)
    async with origin.lending(bytes(_SIZE)), passing.open(digest, 0, _SIZE) as passage:
        with pytest.raises(Misled):
            await passing.read(passage)
        assert not passage.was_opened
        assert origin.siblings.order(origin.member.siblings.values()) == []
    assert len(passing.got) == _SIZE - TAIL
    assert (origin.mismatches(""), origin.mismatches()) == (1, 0)


@pytest.mark.parametrize("is_right", [True, False])
async def test_open__an_empty_answer__is_verified_before_its_head_goes_out(
    origin: Origin, passing: _Passing, is_right: bool
) -> None:
    nothing = Digest(origin.upstream.push_blob(origin.repository.name, b""))
    if is_right:
        async with passing.open(nothing) as passage:
            assert passage.size == 0
            await passing.read(passage)
    else:
        async with origin.lending(b""):
            with pytest.raises(RegistryError):
                async with passing.open(Digest.of(b"something")):
                    pass
    assert passing.got == b""


async def test_read__from_far_ahead__what_comes_before_is_not_kept(origin: Origin, passing: _Passing) -> None:
    size = 8 * _SIZE
    digest = origin.push(size)
    origin.upstream.dials.blob_stall = size - 1
    async with passing.open(digest, size - 1, size) as passage:
        reading = asyncio.ensure_future(passing.read(passage))
        await eventually(lambda: passage._transfer.offset == size - 1)
        assert len(passage._kept) < LONGEST_READ
        origin.upstream.release()
        await reading
    assert passing.got == origin.upstream.content(digest)[-1:]
