"""The server itself: three listeners on one event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.upstream.control import Control, Handler
from tests.upstream.counters import Counters
from tests.upstream.dials import Dials
from tests.upstream.images import Image, ImageFactory, Style
from tests.upstream.listener import ADDRESS, Listener
from tests.upstream.registry import Registry
from tests.upstream.routes import Origin
from tests.upstream.site import Site

_WAIT_SECONDS = 120.0

T = TypeVar("T")


class Upstream:
    """A registry on loopback, an origin that blobs are redirected to and one for tokens, when the dials say so.

    It starts at once; `with` stops it. Every method may be called from any thread but the server's own. With a
    control port (0: any free one) the dials can be turned from another process, by the paths of `Control`. With a
    certificate (a PEM file with its key) all origins speak TLS.
    """

    def __init__(
        self, port: int = 0, cdn_port: int = 0, control_port: int | None = None, certificate: Path | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._site = self._run(self._make_site())
        registry = Registry(self._site)
        handler = _handler(registry, "registry")
        self._control: Listener | None = None
        if control_port is not None:
            control = Control(self)
            handler = control.before(handler)
            self._control = Listener(control.answer, control_port)
            self._run(self._control.open())
        tls = None
        if certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(certificate)
        self._registry = registry
        self._listeners = [
            Listener(handler, port, tls),
            Listener(_handler(registry, "cdn"), cdn_port, tls),
            Listener(_handler(registry, "auth"), 0, tls),
        ]
        self._images = ImageFactory(self._site.storage)
        scheme = "https" if tls else "http"
        self.url, self.cdn_url, self.auth_url = (f"{scheme}://{ADDRESS}:{each.port}" for each in self._listeners)
        self._site.registry_url, self._site.cdn_url, self._site.auth_url = self.url, self.cdn_url, self.auth_url
        self.resume()

    @property
    def address(self) -> str:
        """Return host and port, as an image reference needs them."""
        return self.url.partition("://")[2]

    @property
    def control_url(self) -> str:
        """Return the address of the control API; it answers through pauses. Empty when there is none."""
        return f"http://{ADDRESS}:{self._control.port}" if self._control else ""

    @property
    def counters(self) -> Counters:
        """Return what was asked and sent so far."""
        return self._site.counters

    @property
    def dials(self) -> Dials:
        """Return the dials; a change counts from the next request on, that of a rate or a stall at once."""
        return self._site.dials

    def reset(self) -> None:
        """Put every dial back to its default and let stalled answers go on; content and counters stay."""
        self._site.dials = Dials()
        self.release()

    def release(self) -> None:
        """Let the answers that are stalled now go on."""
        self._loop.call_soon_threadsafe(self._site.release_stalled)

    def expire_tokens(self) -> None:
        """Have every token that was given out so far be expired."""
        self._registry.tokens.expire()

    def push_image(
        self, repository: str, tag: str, platforms: Sequence[str] = ("linux/amd64", "linux/arm64"),
        layers: Sequence[int] = (300_000, 5 * 2**20), seed: int = 0, *, raw: bool = False, style: Style = "oci",
    ) -> Image:  # fmt: skip
        """Push an image whose layers have about these sizes; exactly these, and no archives, if `raw`."""
        return self._images.image(repository, tag, platforms, layers, seed=seed, raw=raw, style=style)

    def push_random_blob(self, repository: str, size: int, seed: int = 0) -> str:
        """Push a blob of `size` pseudo-random bytes and return its digest."""
        return self._images.blob(repository, size, str(seed)).digest

    def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """Push a blob and return its digest."""
        return self._site.storage.add(repository, data, algorithm)

    def push_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Push a manifest under a tag, or under its digest (`sha256:` and `sha512:` are enough); return its digest."""
        return self._site.storage.put(repository, reference, body, media_type).digest

    def remove(self, repository: str, reference: str) -> None:
        """Remove a tag, or a manifest and its tags; KeyError when it is not there."""
        if not self._site.storage.remove(repository, reference):
            raise KeyError(reference)

    def content(self, digest: str) -> bytes:
        """Return the bytes of a blob or a manifest; KeyError when nobody pushed it."""
        return self._site.storage.content(digest)

    def pause(self) -> None:
        """Refuse connections on every origin and end the open ones."""
        for listener in self._listeners:
            self._run(listener.close())

    def resume(self) -> None:
        """Accept connections again, on the same ports."""
        for listener in self._listeners:
            self._run(listener.open())

    def stop(self) -> None:
        """End the server and remove its content. It does not come back."""
        if not self._thread.is_alive():
            return
        self.pause()
        if self._control is not None:
            self._listeners.append(self._control)
            self._run(self._control.close())
        for listener in self._listeners:
            listener.release()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        self._loop.close()
        self._site.storage.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)

    async def _make_site(self) -> Site:
        return Site()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _handler(registry: Registry, origin: Origin) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await registry.answer(request, origin)

    return handle
