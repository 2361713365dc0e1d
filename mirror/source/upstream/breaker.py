"""Endpoints that fail are left alone for a moment, and asked now and then whether they are back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.errors import Failure, RegistryError
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.failures import UpstreamError

_FIRST_PAUSE = 0.5
_PAUSE = 1.0
# Whoever has nobody else to ask waits so long for the one that finds out.
_LONGEST_WAIT = 1.0
# Failures of the address itself: whatever else is asked there fails as well.
_AT_ONCE = frozenset({Failure.REFUSED, Failure.DNS, Failure.TLS})
_MOST_TIMEOUTS = 2
_MOST_ERRORS = 5
# One repository that fails says little of the others.
_MANY_REPOSITORIES = 2
_MOST_BREAKERS = 1000


class Breaker:
    """Whether one endpoint is asked. It opens after failures in a row, and closes with the first usable answer.

    Open, it lets one request at a time find out, now and then, and gives its answer to all others, or after a moment
    the failure that is known. Where only one repository failed, others pass.
    """

    def __init__(self, told: Callable[[RegistryError | None], None], *, is_patient: bool) -> None:
        """Tell `told` of the error that opens it, and None once it closes.

        `is_patient`: one timeout does not open it, nor does what is wrong with blobs, and who comes waits for a moment.
        """
        self._told = told
        self._is_patient = is_patient
        self._timeouts = 0
        self._errors = 0
        self._repositories: set[str] = set()
        self._error: UpstreamError | None = None
        self._pause_until = 0.0
        self._is_probed = False
        self._findings = 0
        self._found = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether requests are held back."""
        return self._error is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self.is_open or self._timeouts or self._errors)

    @property
    def is_due(self) -> bool:
        """Whether it is time to see if the endpoint is back, and nobody does yet."""
        return self.is_open and not self._is_probed and time.monotonic() >= self._pause_until

    async def enter(self, ask: Ask) -> bool:
        """Let a request pass, and say whether it is the one that finds out; `leave` has to follow.

        Raises:
            RegistryError: it may not pass: how the endpoint failed.
        """
        is_probe = await self.ready(ask)
        self._is_probed |= is_probe
        return is_probe

    async def ready(self, ask: Ask) -> bool:
        """Wait until a request may pass, and say whether it would be the one that finds out.

        Raises:
            RegistryError: it may not pass: how the endpoint failed.
        """
        findings = self._findings
        give_up = time.monotonic() + (_LONGEST_WAIT if self._is_patient and not ask.is_quick else 0.0)
        while self._error is not None and not ask.is_probe and not self._spares(self._error, ask):
            if self.is_due:
                return True
            now = time.monotonic()
            if now >= give_up or findings != self._findings:
                raise self._error.again()
            until = give_up if self._is_probed else min(give_up, self._pause_until)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - now):
                    await self._found.wait()
        return False

    def leave(self, ask: Ask, error: BaseException | None, *, was_probe: bool) -> None:
        """Take in how a request that passed ended; None is a success."""
        if was_probe:
            self._is_probed = False
            self._pause_until = time.monotonic() + _PAUSE
            self._findings += isinstance(error, RegistryError)
        if error is None or (isinstance(error, RegistryError) and not self._is_held_against(error, ask)):
            self._close()
        elif isinstance(error, UpstreamError) and error.host == ask.url.authority:
            self._fail(error, ask)
        self._found.set()
        self._found = asyncio.Event()

    def _spares(self, error: UpstreamError, ask: Ask) -> bool:
        is_whole = error.failure in _AT_ONCE or len(self._repositories) >= _MANY_REPOSITORIES
        return not is_whole and ask.repository.name not in self._repositories

    def _is_held_against(self, error: RegistryError, ask: Ask) -> bool:
        """Say whether the endpoint may not have answered at all. Where it led to is another's concern."""
        if not isinstance(error, UpstreamError) or not error.host:
            return error.failure in {Failure.TIMEOUT, Failure.TOO_MANY}
        if error.host != ask.url.authority or error.failure in {None, Failure.CREDENTIALS, Failure.TOO_MANY}:
            return False
        return error.answered == 0 or error.answered >= 500

    def _fail(self, error: UpstreamError, ask: Ask) -> None:
        if self._is_patient and ask.kind == "blob" and error.failure not in _AT_ONCE:
            return
        self._timeouts += error.failure is Failure.TIMEOUT
        self._errors += error.failure in {Failure.SERVER, Failure.RESET}
        self._repositories.add(ask.repository.name)
        most_timeouts = _MOST_TIMEOUTS if self._is_patient else 1
        is_enough = error.failure in _AT_ONCE or self._timeouts >= most_timeouts or self._errors >= _MOST_ERRORS
        if not (self.is_open or is_enough):
            return
        if not self.is_open:
            self._pause_until = time.monotonic() + _FIRST_PAUSE
            self._told(error)
        self._error = error

    def _close(self) -> None:
        self._timeouts = self._errors = 0
        self._repositories.clear()
        if self._error is not None:
            self._error = None
            self._told(None)


class Breakers:
    """The breakers of every endpoint of every upstream."""

    def __init__(self, metrics: HubMetrics) -> None:
        """Export in `metrics` which upstreams are asked."""
        self._metrics = metrics
        # By the upstream's name, too: a mirror of many may fail for one of them.
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._open: dict[str, set[str]] = {}
        self._log = structlog.get_logger("layover.upstream")

    def of(self, upstream: Upstream, base: str) -> Breaker:
        """Return the breaker of an endpoint, or of the upstream itself if `base` is empty."""
        key = (upstream.name, base or upstream.url)
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= _MOST_BREAKERS:
                self._breakers = {key: each for key, each in self._breakers.items() if not each.is_idle}
            breaker = Breaker(lambda error: self._told(upstream, base, error), is_patient=not base)
            self._breakers[key] = breaker
            if not base and upstream.label not in self._open:
                self._metrics.upstream_up.labels(upstream.label).set(1)
        return breaker

    def _told(self, upstream: Upstream, base: str, error: RegistryError | None) -> None:
        facts = {"upstream": upstream.name, "endpoint": base or upstream.url}
        if error is not None:
            self._log.warning("an upstream is left alone", why=error.failure, error=error.message, **facts)
        else:
            self._log.info("an upstream answers again", **facts)
        if not base:
            failing = self._open.setdefault(upstream.label, set())
            if error is None:
                failing.discard(upstream.name)
            else:
                failing.add(upstream.name)
            self._metrics.upstream_up.labels(upstream.label).set(not failing)
