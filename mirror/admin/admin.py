"""The admin port: `/metrics`, `/healthz`, `/readyz`, and the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from importlib.metadata import version

from aiohttp import web

from mirror.admin.api import Api
from mirror.config.units import Address
from mirror.hub import LocalHub
from mirror.observe import metrics
from mirror.store import Store


class Admin:
    """One HTTP server on the admin port."""

    def __init__(
        self,
        hub: LocalHub,
        store: Store,
        registry: metrics.Registry,
        counted: metrics.HubMetrics,
        pool: Executor,
        api: Api,
    ) -> None:
        self._hub = hub
        self._store = store
        self._registry = registry
        self._counted = counted
        self._pool = pool
        self._api = api
        self._is_ready = False
        self.on_shown: Callable[[], None] = lambda: None  # called in a thread, before metrics are sent
        self._runner: web.AppRunner | None = None
        counted.build_info.labels(version("layover")).set(1)

    async def start(self, address: Address) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        app = web.Application(middlewares=[self._api.guard])
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                *self._api.routes,
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, address.host, address.port).start()

    def open_api(self) -> None:
        """Let the API be used: the hub has begun."""
        self._api.is_open = True

    def set_ready(self, *, is_ready: bool) -> None:
        """Say whether the replica can serve what it holds."""
        self._is_ready = is_ready

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self._gauge()
        await self._hub.gather_reports()
        body = await asyncio.get_running_loop().run_in_executor(self._pool, self._render)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    def _render(self) -> bytes:
        body = metrics.render(self._registry, self._hub.tally.groups())
        self.on_shown()
        return body

    def _gauge(self) -> None:
        """Read the store's gauges; everything else is counted where it happens."""
        if not self._store.is_open or not self._store.room.is_counted:
            return
        self._counted.store_bytes.set(self._store.room.used)
        self._counted.store_capacity.set(self._store.room.capacity)
        for kind, count in self._store.objects.items():
            self._counted.store_objects.labels(kind).set(count)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self._is_ready else web.Response(status=503, text="not ready\n")
