"""How much an upstream still lets the mirror ask for: what it told of its limits, and what it refused for a while."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import structlog

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.failures import LONGEST_RETRY_AFTER, RETRY_AFTER, UpstreamError
from mirror.source.upstream.quota_news import News, Pause, QuotaNews, Reading

_LOW = 0.20
_CRITICAL = 0.05
# A mark that was crossed downwards counts as crossed upwards only here, so that nothing is logged to and fro.
_RECOVERED = 0.25
# A limit without a window is one of requests a minute, as proxies in front of registries have them.
_USUAL_WINDOW = 60.0
_PROBE_SECONDS = 60.0
# So many HEADs in a row must each have cost something before they count as costly: others may share the quota.
_PROOF = 3
_MOST_ACCOUNTS = 1000
# Of two replicas that learn so soon after one another nobody can tell who was answered first.
_CLOSE_SECONDS = 1.0
_NUMBER = re.compile(r"\s*(\d{1,12})\s*(?:[;,].*)?", re.ASCII | re.DOTALL)
_WINDOW = re.compile(r";\s*w\s*=\s*(\d{1,9})", re.ASCII)


class Level(IntEnum):
    """How much of a quota is left: LOW is less than 20 %, CRITICAL less than 5 %."""

    CRITICAL = 0
    LOW = 1
    PLENTY = 2


class _Account:
    """What is known of one upstream as it treats one caller. Times are of `time.monotonic`."""

    def __init__(self, upstream: Upstream, scope: str) -> None:
        self.upstream = upstream
        self.scope = scope
        self.limit: int | None = None
        self.remaining = 0
        self.learnt_at = 0.0
        self.forgotten_at = 0.0
        self.under_way = 0
        self.probed_at = -math.inf
        self.gets = 0
        # How many GETs had been made when all of them had been answered, as far as what is known tells; None if not.
        self.gets_told: int | None = None
        self.costly_heads = 0
        self.told = Level.PLENTY
        # Until when a kind of request is not made.
        self.pauses: dict[tuple[str, str], float] = {}

    @property
    def left(self) -> int | None:
        """How many manifests may still be asked for, beside those under way; None if nobody knows."""
        if self.limit is None or time.monotonic() >= self.forgotten_at:
            return None
        return max(0, self.remaining - self.under_way)

    def level(self, left: int | None) -> Level:
        """What it means that so much is left."""
        if left is None or self.limit is None or left >= self.limit * _LOW:
            return Level.PLENTY
        return Level.LOW if left >= self.limit * _CRITICAL else Level.CRITICAL

    def adopt(self, reading: Reading) -> bool:
        """Take in what another replica learnt; return whether this one knows that less is left."""
        remaining, is_lower = reading.remaining, False
        if self.left is not None:
            if reading.learnt_at < self.learnt_at - _CLOSE_SECONDS:
                return False
            if reading.learnt_at < self.learnt_at + _CLOSE_SECONDS:
                is_lower = self.remaining < remaining
                remaining = min(remaining, self.remaining)
        self.limit, self.remaining, self.forgotten_at = reading.limit, remaining, reading.until
        self.learnt_at = max(self.learnt_at, reading.learnt_at)
        # What others fetched tells nothing of what this replica's HEADs cost.
        self.gets_told = None
        if not remaining:
            self.probed_at = max(self.probed_at, reading.learnt_at)
        return is_lower

    def pause(self, pause: Pause) -> None:
        """Make no more requests of a kind for a while."""
        self.probed_at = time.monotonic()
        self.pauses[pause.kind, pause.method] = pause.until


class Allowance(NamedTuple):
    """One request that may be made."""

    account: _Account
    upstream: Upstream
    is_counted: bool
    began_at: float


class Quotas:
    """The limits of every upstream, by who asks: this replica, and those that ask as the same caller."""

    def __init__(self, metrics: HubMetrics, news: QuotaNews | None = None) -> None:
        """Export what is known in `metrics`; hear `news` from the others, and tell them."""
        self._metrics = metrics
        self._news = news or QuotaNews.none()
        self._news.on_news(self._hear)
        self._accounts: dict[tuple[str, str, str], _Account] = {}
        self._callers: dict[tuple[str, str], str] = {}
        self._log = structlog.get_logger("layover.upstream")

    def level(self, upstream: Upstream) -> Level:
        """Return how much is left; PLENTY where nothing is known."""
        account = self._own(upstream)
        return Level.PLENTY if account is None else account.level(account.left)

    def remaining(self, upstream: Upstream) -> int | None:
        """Return how many manifests may still be fetched; None if that is unknown."""
        account = self._own(upstream)
        return None if account is None else account.left

    def limit(self, upstream: Upstream) -> int | None:
        """Return how many manifests may be fetched in a whole window; None if that is unknown."""
        account = self._own(upstream)
        return None if account is None or account.left is None else account.limit

    def is_limited(self, upstream: Upstream) -> bool:
        """Say whether the upstream limited requests of some kind, and that is not over."""
        account = self._own(upstream)
        return account is not None and max(account.pauses.values(), default=0.0) > time.monotonic()

    def heads_are_free(self, upstream: Upstream) -> bool:
        """Say whether a HEAD leaves the quota alone, as far as is known."""
        account = self._own(upstream)
        return account is None or account.costly_heads < _PROOF

    def admit(self, ask: Ask, identity: str) -> Allowance:
        """Let a request be made as `identity`; `learn` or `leave` has to follow.

        Raises:
            RegistryError: the upstream limited requests of its kind, and that is not over, or the quota is used up.
        """
        account = self._account(ask, identity)
        now = time.monotonic()
        until = account.pauses.get((ask.kind, ask.method), 0.0)
        if now < until:
            raise _limited(ask.upstream, until - now)
        is_counted = ask.kind == "manifest" and ask.method == "GET"
        if is_counted and account.left == 0 and now < account.probed_at + _PROBE_SECONDS:
            raise _limited(ask.upstream, RETRY_AFTER if account.remaining else account.forgotten_at - now)
        if is_counted:
            if account.left == 0:
                # Whether the account has more by now, only asking can tell.
                account.probed_at = now
            account.under_way += 1
            account.gets += 1
        return Allowance(account, ask.upstream, is_counted, now)

    def leave(self, allowance: Allowance) -> None:
        """Note that a request is over."""
        if allowance.is_counted:
            allowance.account.under_way -= 1

    def learn(self, allowance: Allowance, ask: Ask, headers: Mapping[str, str]) -> None:
        """Take in what the head of an answer tells of the limit."""
        if ask.kind != "manifest":
            return
        limit = _number(headers.get("RateLimit-Limit"))
        remaining = _number(headers.get("RateLimit-Remaining"))
        if not limit or remaining is None:
            return
        account, now = allowance.account, time.monotonic()
        if ask.method == "HEAD" and account.left is not None and account.gets == account.gets_told:
            # Nothing else that the mirror did can have cost anything since.
            account.costly_heads = account.costly_heads + 1 if remaining == account.remaining - 1 else 0
        if account.left is not None and allowance.began_at < account.learnt_at:
            # Answers overtake one another: of two that were under way together the lower one is the later one.
            remaining = min(remaining, account.remaining)
        account.limit, account.remaining, account.learnt_at = limit, remaining, now
        account.forgotten_at = now + _window(headers)
        account.gets_told = account.gets if account.under_way == allowance.is_counted else None
        self._news.tell(account.scope, Reading(limit, remaining, now, account.forgotten_at))
        self._tell(account)

    def is_used_up(self, allowance: Allowance) -> bool:
        """Say whether the upstream told that nothing is left."""
        return allowance.account.left is not None and not allowance.account.remaining

    def limited(self, ask: Ask, identity: str, error: UpstreamError) -> None:
        """Make no more requests of a kind for as long as a 429 asks for."""
        account = self._account(ask, identity)
        pause = Pause(ask.kind, ask.method, time.monotonic() + (error.retry_after or 0))
        account.pause(pause)
        self._news.tell(account.scope, pause)

    def asked_as(self, upstream: Upstream, identity: str) -> None:
        """Note as whom an upstream is asked from now on, or would be if no other replica had asked."""
        key = (upstream.name, upstream.url)
        self._callers.pop(key, None)
        self._callers[key] = identity
        while len(self._callers) > _MOST_ACCOUNTS:
            del self._callers[next(iter(self._callers))]
        if (*key, identity) not in self._accounts:
            self._new(upstream, upstream.url, identity)

    def _own(self, upstream: Upstream) -> _Account | None:
        key = (upstream.name, upstream.url)
        identity = self._callers.get(key, None if upstream.has_credentials else "")
        if identity is None:
            return None
        account = self._accounts.get((*key, identity))
        if account is None and self._news.known(self._news.scope(upstream.url, identity)):
            account = self._new(upstream, upstream.url, identity)
        if account is not None and account.limit is not None and account.left is None:
            self._forget(upstream, account)
        return account

    def _account(self, ask: Ask, identity: str) -> _Account:
        key = (ask.upstream.name, ask.base or ask.upstream.url)
        if not ask.base and not ask.is_anonymous:
            self.asked_as(ask.upstream, identity)
        account = self._accounts.get((*key, identity))
        return account or self._new(ask.upstream, key[1], identity)

    def _new(self, upstream: Upstream, url: str, identity: str) -> _Account:
        while len(self._accounts) >= _MOST_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        scope = self._news.scope(url, identity)
        account = self._accounts[upstream.name, url, identity] = _Account(upstream, scope)
        for news in self._news.known(scope):
            self._hear(scope, news)
        return account

    def _hear(self, scope: str, news: News) -> None:
        """Take in what another replica told."""
        for account in list(self._accounts.values()):
            if account.scope != scope:
                continue
            if isinstance(news, Pause):
                account.pause(news)
                continue
            if account.adopt(news):
                self._news.tell(scope, news._replace(remaining=account.remaining, learnt_at=time.monotonic()))
            self._tell(account)

    def _tell(self, account: _Account) -> None:
        """Export what is left, and log once that a mark was crossed."""
        upstream = account.upstream
        if account is not self._own(upstream) or account.limit is None:
            return
        self._metrics.upstream_quota_remaining.labels(upstream.label).set(account.remaining)
        self._metrics.upstream_quota_limit.labels(upstream.label).set(account.limit)
        level = account.level(account.remaining)
        facts = {"upstream": upstream.name, "remaining": account.remaining, "limit": account.limit}
        if level < account.told:
            account.told = level
            mark = _LOW if level is Level.LOW else _CRITICAL
            self._log.warning("an upstream's quota runs short", mark=f"{mark:.0%}", **facts)
        elif account.told is not Level.PLENTY and account.remaining >= account.limit * _RECOVERED:
            account.told = Level.PLENTY
            self._log.info("an upstream's quota has recovered", **facts)

    def _forget(self, upstream: Upstream, account: _Account) -> None:
        account.limit, account.told = None, Level.PLENTY
        for gauge in (self._metrics.upstream_quota_remaining, self._metrics.upstream_quota_limit):
            with contextlib.suppress(KeyError):
                gauge.remove(upstream.label)


def _limited(upstream: Upstream, seconds: float) -> RegistryError:
    after = max(1, min(math.ceil(seconds), LONGEST_RETRY_AFTER))
    text = f"upstream {upstream.name} limits its rate; try again in {after} s"
    return RegistryError(ErrorCode.TOOMANYREQUESTS, text, failure=Failure.TOO_MANY, retry_after=after)


def _number(text: str | None) -> int | None:
    match = _NUMBER.fullmatch(text or "")
    return int(match[1]) if match is not None else None


def _window(headers: Mapping[str, str]) -> float:
    """Return for how many seconds what the headers tell may be believed."""
    match = _WINDOW.search(headers.get("RateLimit-Remaining", "")) or _WINDOW.search(headers.get("RateLimit-Limit", ""))
    return float(match[1]) if match is not None else _USUAL_WINDOW
