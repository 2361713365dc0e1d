"""One attack as a value, and the kinds of attack that are made alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from tests.chaos.hostile_answers import (
    MIB,
    OCI_MANIFEST,
    PLAIN,
    Image,
    head,
    in_turn,
    manifest,
    says,
    with_manifest,
)
from tests.chaos.hostile_server import Script

Ask = Literal["manifest", "digest", "blob", "layer", "head", "tags", "referrers"]
Scheme = Literal["http", "https", "plain"]
PROMPT = 10.0
CUT_SECONDS = 20.0
# A connection that brings next to nothing is waited for, and so are the next few.
CRAWL_SECONDS = 100.0


class Case(NamedTuple):
    """One attack.

    `outcomes` are statuses, or "cut": an answer that ends before its end; "200" is what was asked for, "other" a 200
    with anything else. A `layer` is a blob whose manifest was pulled before. `scheme` "plain" is https without TLS.
    `is_alone`: an attack on the processor, made when nothing else is under way. `crawls`: bytes come, or might, but
    next to none.
    """

    name: str
    script: Script
    ask: Ask = "manifest"
    outcomes: tuple[str, ...] = ("503",)
    image: Image = PLAIN
    scheme: Scheme = "http"
    is_alone: bool = False
    crawls: bool = False

    @property
    def seconds(self) -> float:
        """How long its client may wait: longer where the head of an answer may be out already."""
        if self.crawls:
            return CRAWL_SECONDS
        return CUT_SECONDS if "cut" in self.outcomes else PROMPT


def blob_case(name: str, script: Script, ask: Ask = "blob", outcomes: tuple[str, ...] = ("503",)) -> Case:
    """Return the case of a registry that attacks by its blobs alone, which no other one has."""
    image = Image(name)
    return Case(name, with_manifest(image, script), ask, outcomes, image)


def layer_case(name: str, *make: Callable[[bytes], Script], outcomes: tuple[str, ...] = ("503", "cut")) -> Case:
    """Return the same, of one that knows the layer: what it does with it the first time, and later."""
    image = Image(name)
    return Case(name, with_manifest(image, in_turn(*(each(image.layer) for each in make))), "layer", outcomes, image)


CHUNKED = head(200, {"Content-Type": OCI_MANIFEST, "Transfer-Encoding": "chunked"})
CHUNK = b"100000\r\n" + b" " * MIB + b"\r\n"
WITH_LENGTH = {"Content-Length": str(MIB)}
GZIP = {"Content-Encoding": "gzip", "Content-Type": OCI_MANIFEST}
OK = says(manifest())
