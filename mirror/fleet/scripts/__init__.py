"""What Redis decides atomically: Lua, of Redis 6.2 and later. All keys of a script have the one hash tag."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script with what all begin with."""

    name: str
    source: str
    sha: str


def _load(name: str) -> Script:
    folder = files(__name__)
    source = (folder / "common.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


BEAT = _load("beat")
CLAIM = _load("claim")
CONSULT = _load("consult")
COPIES = _load("copies")
GOODBYE = _load("goodbye")
ORDER = _load("order")
ORDERS = _load("orders")
POPULARITY = _load("popularity")
POST = _load("post")
RELEASE = _load("release")
RENEW = _load("renew")
RESTORE = _load("restore")
SEND = _load("send")
SHARE = _load("share")
TELL = _load("tell")
USED = _load("used")
VOUCH = _load("vouch")
