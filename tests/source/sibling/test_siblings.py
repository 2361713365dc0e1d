"""What siblings are asked beside blobs, and what becomes of those that fail, lie, or are somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from aiohttp import web

from mirror.fleet.signature import PROOF, SIGNATURE, parse, prove
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Tag
from mirror.source.sibling import SiblingError
from tests.replica import free_port
from tests.source.sibling.conftest import Bench, eventually, read
from tests.source.sibling.impostor import Handler, lying, posing
from tests.source.sibling.member import SECRET, sibling_at

# Blobs are read over both transports; what is asked here passes through in one piece.
pytestmark = pytest.mark.parametrize("bench", ["over the socket"], indirect=True)
_SIZE = 300_000
_NOWHERE = Digest.of(b"nobody has this")


# Manifests


async def test_manifest__that_is_held__its_type_and_bytes(bench: Bench) -> None:
    image = bench.push_image(100)
    await bench.app.hub.manifest(bench.repository, Tag("1"))
    digest = Digest(image.index.digest)
    # Just fetched, it is not on disk yet.
    found = await bench.siblings.manifest(bench.b, bench.repository, digest)
    assert found == (image.index.media_type, bench.upstream.content(digest))
    await eventually(lambda: bench.holds(digest))
    requests = bench.upstream.counters.requests()
    elsewhere = type(bench.repository)("registry.example", "some/where")
    assert await bench.siblings.manifest(bench.b, elsewhere, digest) == found
    assert bench.upstream.counters.requests() == requests
    assert bench.metric("layover_requests_total") == 0


async def test_manifest__that_is_not_held__is_told_and_asked_of_nobody(bench: Bench) -> None:
    image = bench.push_image(100)
    with pytest.raises(RegistryError) as refused:
        await bench.siblings.manifest(bench.b, bench.repository, Digest(image.index.digest))
    assert (refused.value.code, refused.value.failure) == (ErrorCode.MANIFEST_UNKNOWN, None)
    assert bench.member.missed == [("b", image.index.digest)]
    assert bench.upstream.counters.requests() == 0


async def test_manifest__of_a_blobs_digest__is_none(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    with pytest.raises(RegistryError, match="does not have"):
        await bench.siblings.manifest(bench.b, bench.repository, digest)


async def test_manifest__other_bytes__are_refused_and_the_liar_left_alone(bench: Bench) -> None:
    async with posing(lying(b"{}")) as liar:
        with pytest.raises(SiblingError, match="does not have the digest"):
            await bench.siblings.manifest(liar, bench.repository, _NOWHERE)
    assert bench.siblings.order([liar]) == []


# Presence


async def test_has__what_is_held__it_is_kept_for_so_long(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    coordinator = type(bench.member)("b")
    bench.app.hub._supplier._coordinator = coordinator
    assert await bench.siblings.has(bench.b, digest, 0)
    assert not bench.app.store.holds.is_held(digest)
    assert await bench.siblings.has(bench.b, digest, 60)
    assert bench.app.store.holds.is_held(digest)
    assert coordinator.held == [(digest, 60)]


async def test_has__what_is_not_held__no(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    assert not await bench.siblings.has(bench.b, digest, 60)
    assert bench.member.missed == [("b", digest)]
    assert not bench.app.store.holds.is_held(digest)


async def test_has__what_is_only_on_its_way__no(bench: Bench) -> None:
    bench.upstream.dials.blob_stall = _SIZE - 1
    digest = bench.push(_SIZE)
    await bench.begin(digest)
    assert not await bench.siblings.has(bench.b, digest, 60)


async def test_has__what_a_power_loss_could_take__no(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    bench.app.store.naming.add(digest)
    assert not await bench.siblings.has(bench.b, digest, 60)
    assert bench.member.missed == []


async def test_has__what_just_leaves__is_promised_to_nobody(bench: Bench) -> None:
    digest = bench.push(_SIZE)
    await bench.hold(digest)
    with bench.app.store.holds.leaving(digest) as may_go:
        assert may_go
        assert not await bench.siblings.has(bench.b, digest, 60)


@pytest.mark.parametrize("status", [200, 404])
async def test_has__somebody_else_answers__is_not_believed(bench: Bench, status: int) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={PROOF: "0" * 64})

    async with posing(answer) as impostor:
        assert not await bench.siblings.has(impostor, _NOWHERE, 60)
        assert bench.siblings.order([impostor]) == [impostor]
        with pytest.raises(SiblingError, match="is not who answers"):
            await bench.siblings.blobs(impostor).open(bench.repository, _NOWHERE, 0)
    assert bench.member.missed == []
    assert bench.siblings.order([impostor]) == []


async def test_check__the_replica_that_is_meant__yes(bench: Bench) -> None:
    assert await bench.siblings.check(bench.b)


async def test_check__it_has_started_since__no(bench: Bench) -> None:
    assert not await bench.siblings.check(msgspec.structs.replace(bench.b, boot="an earlier one"))
    assert bench.siblings.order([bench.b]) == [bench.b], "it is who it is"


async def test_check__another_replica_answers_there__no(bench: Bench) -> None:
    wrong = sibling_at(bench.url, "c", boot="boot-c")
    assert not await bench.siblings.check(wrong)
    assert bench.metric("layover_sibling_refused_total", reason="redirected") == 1


async def test_check__nobody_answers_there__no(bench: Bench) -> None:
    assert not await bench.siblings.check(sibling_at(f"http://127.0.0.1:{free_port()}", "b"))


async def test_check__a_redirect__is_not_followed(bench: Bench) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": bench.url + request.raw_path})

    async with posing(answer) as impostor:
        assert not await bench.siblings.check(impostor)


class _Silent:
    """A sibling that takes every request and answers none, until it speaks."""

    def __init__(self) -> None:
        self.speaks = asyncio.Event()
        self.asked = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        await self.speaks.wait()
        return await lying(b"")(request)


async def test_check__a_silent_one__is_left_alone_until_it_answers(bench: Bench) -> None:
    mute = _Silent()
    async with posing(mute.answer) as silent:
        try:
            assert not await bench.siblings.check(silent)
            assert bench.siblings.order([silent]) == []
        finally:
            mute.speaks.set()
        assert await bench.siblings.check(silent)
        assert bench.siblings.order([silent]) == [silent]


async def test_has__a_silent_one__is_not_waited_for(bench: Bench) -> None:
    mute = _Silent()
    async with posing(mute.answer) as silent:
        try:
            assert not await bench.siblings.has(silent, _NOWHERE, 60)
            assert not await bench.siblings.has(silent, _NOWHERE, 60)
            assert mute.asked == 1
        finally:
            mute.speaks.set()


async def test_open__a_silent_one__is_given_up_without_a_sign_of_life(bench: Bench) -> None:
    mute = _Silent()
    async with posing(mute.answer) as silent:
        try:
            with pytest.raises(SiblingError, match="gives no sign of life") as refused:
                await bench.siblings.blobs(silent).open(bench.repository, _NOWHERE, 0)
            assert refused.value.failure is Failure.TIMEOUT
            assert bench.siblings.order([silent]) == []
        finally:
            mute.speaks.set()


async def test_manifest__a_slow_one__is_waited_for_while_it_lives(bench: Bench) -> None:
    body = b'{"schemaVersion": 2}'
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.method)
        if request.method == "GET":
            await eventually(lambda: asked.count("HEAD") > 1)
        return await lying(body)(request)

    async with posing(answer) as slow:
        assert (await bench.siblings.manifest(slow, bench.repository, Digest.of(body)))[1] == body
        assert bench.siblings.order([slow]) == [slow]


async def _half(request: web.BaseRequest) -> web.StreamResponse:
    """Answer with a proof and the first half of 100 bytes."""
    signature = parse(request.headers[SIGNATURE])
    assert signature is not None
    response = web.StreamResponse(headers={PROOF: prove(signature, SECRET, None)})
    response.content_length = 100
    await response.prepare(request)
    await response.write(bytes(50))
    return response


def _halting(sign: Handler, goes_on: Callable[[], Awaitable[object]]) -> Handler:
    """Return a sibling that stands still amid a blob of 100 bytes, and gives a sign of life or none."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "HEAD":
            return await sign(request)
        response = await _half(request)
        await goes_on()
        await response.write(bytes(50))
        return response

    return answer


async def test_read__it_stands_still__is_waited_for_while_it_lives(bench: Bench) -> None:
    lively = _Silent()
    lively.speaks.set()
    async with posing(_halting(lively.answer, lambda: eventually(lambda: lively.asked > 1))) as slow:
        stream = await bench.siblings.blobs(slow).open(bench.repository, _NOWHERE, 0)
        assert await read(stream) == bytes(100)


async def test_read__it_falls_silent__is_a_timeout(bench: Bench) -> None:
    mute = _Silent()
    async with posing(_halting(mute.answer, mute.speaks.wait)) as silent:
        stream = await bench.siblings.blobs(silent).open(bench.repository, _NOWHERE, 0)
        try:
            assert await stream.read() == bytes(50)
            with pytest.raises(SiblingError) as refused:
                await stream.read()
            assert refused.value.failure is Failure.TIMEOUT
            assert bench.siblings.order([silent]) == []
        finally:
            await stream.close()
            mute.speaks.set()


async def test_measure__one_falls_silent__all_are_asked_and_again_until_they_answer(bench: Bench) -> None:
    mutes = [_Silent(), _Silent()]
    async with posing(mutes[0].answer) as first, posing(mutes[1].answer) as there:
        both = [first, msgspec.structs.replace(there, identity="c")]
        for each in mutes:
            each.speaks.set()
        bench.member.siblings = {each.identity: each for each in both}
        bench.siblings.start()
        await eventually(lambda: all(bench.siblings._client.standings.of(each.identity).latency < 60 for each in both))
        try:
            for each in mutes:
                each.speaks.clear()
            assert not await bench.siblings.check(first)
            await eventually(lambda: bench.siblings.order(both) == [])
            asked = [each.asked for each in mutes]
            await eventually(lambda: all(each.asked > before + 1 for each, before in zip(mutes, asked, strict=True)))
        finally:
            for each in mutes:
                each.speaks.set()
        await eventually(lambda: len(bench.siblings.order(both)) == 2)


async def test_ask__proxies_of_the_environment__are_passed_by(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert await bench.siblings.check(bench.b)


async def test_open__other_bytes__come_as_they_are_for_the_fill_to_judge(bench: Bench) -> None:
    async with posing(lying(b"not that")) as liar:
        stream = await bench.siblings.blobs(liar).open(bench.repository, _NOWHERE, 0)
        assert await read(stream) == b"not that"
        bench.siblings.failed("b")
        assert bench.siblings.order([liar]) == []


async def test_read__cut_before_it_was_read__every_byte_that_came(bench: Bench) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await _half(request)
        assert request.transport is not None
        request.transport.close()
        return response

    async with posing(answer) as cut:
        stream = await bench.siblings.blobs(cut).open(bench.repository, _NOWHERE, 0)
        await eventually(lambda: stream._answer.content.exception() is not None)
        assert await stream.read() == bytes(50)
        with pytest.raises(SiblingError):
            await stream.read()
    await stream.close()
