"""`/api/v1/…`: what operators ask and order, as one table from which the routes and their description follow."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.admin.access import Access
from mirror.admin.endpoint import Asked, Endpoint, What
from mirror.admin.openapi import describe
from mirror.admin.problem import Problem, answer
from mirror.hub import LocalHub
from mirror.hub.inspection import Images, Inspection, NotHeld, Report
from mirror.hub.orders import Given, NotPinned, Orders
from mirror.hub.overview import Fleet, Overview, Status
from mirror.hub.pins import Pins
from mirror.hub.selection import SelectionError

BASE = "/api/v1"
DOCUMENT = f"{BASE}/openapi.json"
_LONGEST_BODY = 64 * 1024
_PAGE = 200


class Done(msgspec.Struct, frozen=True):
    """An order that was carried out on this replica.

    `what` is the full form of what was named. `reach`: the whole `fleet`, this replica `alone`, or the others `later`,
    once Redis is back. A purge took so many tags, manifests and blobs (`digests`), and `bytes` of the disk.
    """

    order: str
    what: str
    reach: str
    tags: int = 0
    digests: int = 0
    bytes: int = 0


class PinRule(msgspec.Struct, frozen=True):
    """What a pin names, and when it was ordered, in seconds since the epoch."""

    what: str
    at: float


class PinRules(msgspec.Struct, frozen=True):
    """Every pin, by name."""

    pins: list[PinRule]


class Api:
    """The endpoints. What they answer and do is the hub's."""

    def __init__(
        self,
        access: Access,
        hub: LocalHub,
        orders: Orders,
        pins: Pins,
        inspection: Inspection,
        overview: Overview,
        pool: Executor,
    ) -> None:
        self._access = access
        self._hub = hub
        self._orders = orders
        self._pins = pins
        self._inspection = inspection
        self._overview = overview
        self._pool = pool
        self.is_open = False
        self._log = structlog.get_logger("layover.admin")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All there is."""
        what = {"what": "An image, a digest or a glob."}
        page = {
            "after": "The `next` of the answer before.",
            "most": "How many at once, at most 1000; 200 if not given.",
        }
        needs = frozenset({"what"})
        return (
            Endpoint("GET", "/status", "How the replica does, and the fleet", Status, self._status),
            Endpoint("GET", "/fleet", "The replicas", Fleet, self._fleet),
            Endpoint("GET", "/images", "The images that are held", Images, self._images, {**what, **page}),
            Endpoint("GET", "/inspect", "All that is known of an image", Report, self._inspect, what, needs),
            Endpoint("POST", "/purge", "Purge on every replica", Done, self._purge, takes_body=True),
            Endpoint("GET", "/pins", "What is pinned", PinRules, self._list_pins),
            Endpoint("POST", "/pins", "Pin on every replica", Done, self._pin, takes_body=True),
            Endpoint("DELETE", "/pins", "Unpin on every replica", Done, self._unpin, what, needs),
        )

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the admin port's server routes."""
        found = [web.route(each.method, f"{BASE}{each.path}", self._handler(each)) for each in self.endpoints]
        return [*found, web.get(DOCUMENT, self._document)]

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may, and give every error its one shape; what is not the API's passes by."""
        if not request.path.startswith("/api"):
            return await handler(request)
        try:
            self._access.check(request)
            return await handler(request)
        except Problem as problem:
            return problem.response
        except web.HTTPException as error:
            text = f"{request.method} {request.path[:200]}: {error.reason}; see {DOCUMENT}"
            return Problem(error.status, text).response
        except Exception as error:  # noqa: BLE001 - a defect too is told in the one shape
            self._log.error("the API met a defect", path=request.path, error=repr(error))
            return Problem(500, "the replica met a defect; its log says more").response

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            asked = await _read(request, endpoint)
            if not self.is_open:
                raise Problem(503, "the replica is just starting; try again")
            try:
                return answer(await endpoint.ask(asked))
            except SelectionError as error:
                raise Problem(400, str(error)) from None
            except (NotHeld, NotPinned) as error:
                raise Problem(404, str(error)) from None
            except OSError as error:
                raise Problem(500, f"the store cannot be used: {error.strerror or error}") from None

        return handle

    async def _document(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(describe(BASE, self.endpoints))

    async def _status(self, _: Asked) -> Status:
        await self._hub.gather_reports()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._overview.status)

    async def _fleet(self, _: Asked) -> Fleet:
        return self._overview.fleet()

    async def _images(self, asked: Asked) -> Images:
        most = asked.query.get("most", str(_PAGE))
        if not most.isascii() or not most.isdecimal():
            raise Problem(400, "most is not a number")
        what, after = asked.query.get("what", ""), asked.query.get("after", "")
        await self._hub.gather_reports()
        return await self._inspection.images(what, after, int(most[:9]))

    async def _inspect(self, asked: Asked) -> Report:
        await self._hub.gather_reports()
        return await self._inspection.report(asked.query["what"])

    async def _list_pins(self, _: Asked) -> PinRules:
        return PinRules([PinRule(*pin) for pin in self._pins.all])

    async def _purge(self, asked: Asked) -> Done:
        return await self._order("purge", asked)

    async def _pin(self, asked: Asked) -> Done:
        return await self._order("pin", asked)

    async def _unpin(self, asked: Asked) -> Done:
        return await self._order("unpin", asked)

    async def _order(self, verb: str, asked: Asked) -> Done:
        what = asked.query["what"] if asked.body is None else asked.body.what
        # Who asked may leave: what was begun is done.
        given: Given = await asyncio.shield(asyncio.ensure_future(self._orders.give(verb, what)))
        reach = "fleet" if given.is_shared else "later" if given.is_due else "alone"
        return Done(verb, given.what, reach, *given.purged)


async def _read(request: web.Request, endpoint: Endpoint) -> Asked:
    """Return what a request asks.

    Raises:
        Problem: it is not as the document says.
    """
    for name in request.query:
        if name not in endpoint.query or len(request.query.getall(name)) > 1:
            raise Problem(400, f"{name[:100]!r} is not to be given, or only once; see {DOCUMENT}")
    for name in endpoint.needed:
        if not request.query.get(name):
            raise Problem(400, f"{name!r} has to be given; see {DOCUMENT}")
    if not endpoint.takes_body:
        return Asked(dict(request.query), None)
    if request.content_type != "application/json":
        raise Problem(415, "the body has to be JSON, with Content-Type: application/json")
    body = await request.content.read(_LONGEST_BODY)
    try:
        return Asked(dict(request.query), msgspec.json.decode(body, type=What))
    except (msgspec.MsgspecError, ValueError) as error:
        raise Problem(400, f"the body is not as it has to be: {error}") from None
