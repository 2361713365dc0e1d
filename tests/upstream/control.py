"""Steering from another process: JSON over HTTP, under `/_control/`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
from aiohttp import web

from tests.upstream.dials import Dials

if TYPE_CHECKING:
    from tests.upstream.server import Upstream

Handler = Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]
Arguments = dict[str, Any]
Action = Callable[[Arguments], object]

_PREFIX = "/_control/"


class Control:
    """The control API.

    `GET`, `PATCH` and `DELETE dials`: look, change the fields named, reset. `GET counters?method=&kind=&repository=
    &digest=`: how many `requests`, the blob bytes `sent`, `failed_logins`, and for a digest its `spans` and `overlaps`;
    `DELETE counters`: clear. `GET headers`: every request received. `POST push_image`, `push_random_blob` with the
    arguments of the methods of `Upstream`; `POST release`, `pause`, `resume`. Use the control port for those two: a
    pause ends what came in by the registry's own.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._actions: dict[tuple[str, str], Action] = {
            ("GET", "dials"): lambda _: upstream.dials,
            ("PATCH", "dials"): self._turn,
            ("DELETE", "dials"): lambda _: upstream.reset(),
            ("GET", "counters"): self._counters,
            ("DELETE", "counters"): lambda _: upstream.counters.clear(),
            ("GET", "headers"): lambda _: [
                (one.origin, one.method, one.path, list(one.headers.items())) for one in upstream.counters.headers
            ],
            ("POST", "push_image"): lambda arguments: upstream.push_image(**arguments),
            ("POST", "push_random_blob"): lambda arguments: {"digest": upstream.push_random_blob(**arguments)},
            ("POST", "release"): lambda _: upstream.release(),
            ("POST", "pause"): lambda _: upstream.pause(),
            ("POST", "resume"): lambda _: upstream.resume(),
        }

    def before(self, handler: Handler) -> Handler:
        """Return a handler that answers control requests itself and leaves the others to `handler`."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await (self.answer if request.path.startswith(_PREFIX) else handler)(request)

        return handle

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one control request: 400 says what was wrong with it, 404 that there is no such action."""
        action = self._actions.get((request.method, request.path.removeprefix(_PREFIX)))
        if action is None:
            return web.Response(status=404)
        body = await request.content.read()
        try:
            arguments = msgspec.json.decode(body, type=Arguments) if body else dict(request.query)
            result = await asyncio.to_thread(action, arguments)
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            return web.Response(status=400, text=str(error))
        document = {} if result is None else result
        return web.Response(body=msgspec.json.encode(document), content_type="application/json")

    def _turn(self, arguments: Arguments) -> object:
        hints = get_type_hints(Dials)
        values = {name: msgspec.convert(value, hints[name]) for name, value in arguments.items()}
        for name, value in values.items():
            setattr(self._upstream.dials, name, value)
        return self._upstream.dials

    def _counters(self, arguments: Arguments) -> object:
        counters = self._upstream.counters
        digest = arguments.get("digest")
        result: dict[str, object] = {
            "requests": counters.requests(**arguments),
            "sent": counters.sent(digest),
            "failed_logins": counters.failed_logins,
        }
        if digest is not None:
            result["spans"] = counters.spans(digest)
            result["overlaps"] = counters.overlaps(digest)
        return result
