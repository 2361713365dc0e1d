"""Durations, sizes, addresses and names, as users write them."""

from __future__ import annotations

import math
import re
from typing import Self

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB|%)")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?/?")
_MAX_PORT = 65535
_LONGEST = 20


class Duration(float):
    """Seconds; `forever` is infinity."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the duration that `text` spells, such as `500ms`, `10s`, `5m`, `2h`, `30d` or `forever`.

        Raises:
            ValueError: `text` is anything else.
        """
        if text == "forever":
            return cls(math.inf)
        match = _DURATION.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None:
            raise ValueError(f"{text!r} is not a duration: write 500ms, 10s, 5m, 2h, 30d or forever")
        return cls(float(match[1]) * _SECONDS[match[2]])


class Size:
    """A number of bytes, or a share of something whose size is known later."""

    __slots__ = ("amount", "is_share")

    def __init__(self, amount: float, *, is_share: bool) -> None:
        self.amount = amount
        self.is_share = is_share

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the size that `text` spells, such as `500GiB` or `80%`.

        Raises:
            ValueError: `text` is anything else, or more than 100 %.
        """
        match = _SIZE.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None or (match[2] == "%" and float(match[1]) > 100):
            raise ValueError(f"{text!r} is not a size: write a number with B, KiB, MiB, GiB, TiB or % (at most 100%)")
        if match[2] == "%":
            return cls(float(match[1]) / 100, is_share=True)
        return cls(float(match[1]) * _BYTES[match[2]], is_share=False)

    def of(self, whole: int) -> int:
        """Return the size in bytes, a share being taken of `whole` bytes."""
        return int(self.amount * whole) if self.is_share else int(self.amount)


class Rate(int):
    """Bytes a second; 0 where there is no limit."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the rate that `text` spells, such as `50MiB`; nothing is no limit.

        Raises:
            ValueError: `text` is anything else, a share, or less than a byte.
        """
        if text == "":
            return cls(0)
        try:
            size = Size.parse(text)
        except ValueError:
            size = Size(0, is_share=True)
        if size.is_share or size.amount < 1:
            raise ValueError(f"{text!r} is not a rate: write what may pass in a second, such as 50MiB")
        return cls(size.amount)


class Secret(str):
    """Text that no log, error or traceback shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(...)"


class Region(str):
    """What replicas near one another have in common; a word, as it stands on metrics."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the region that `text` names.

        Raises:
            ValueError: `text` is not a word.
        """
        if not isinstance(text, str) or _WORD.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not a region: write at most 63 letters, digits, '.', '_' or '-', as in eu-1")
        return cls(text)


class Origin(str):
    """Scheme, host and port of an HTTP server, or nothing."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the origin that `text` spells, without a slash at its end.

        Raises:
            ValueError: `text` has more or less than that.
        """
        found = _ORIGIN.fullmatch(text) if isinstance(text, str) else None
        if text != "" and (found is None or int(found[1] or 1) not in range(1, _MAX_PORT + 1)):
            raise ValueError(f"{text!r} is not an origin: write http://HOST:PORT, such as http://10.0.0.1:5000")
        return cls(str(text).rstrip("/"))


class Address:
    """Where to listen; IPv6 hosts are written in brackets."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the address that `text` spells, such as `0.0.0.0:5000` or `[::]:5000`.

        Raises:
            ValueError: `text` is anything else.
        """
        host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or (":" in bare) != (bare != host) or not port.isascii() or not port.isdecimal():
            raise ValueError(f"{text!r} is not an address: write HOST:PORT, such as 0.0.0.0:5000 or [::]:5000")
        if int(port) > _MAX_PORT:
            raise ValueError(f"{text!r}: a port is at most {_MAX_PORT}")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
