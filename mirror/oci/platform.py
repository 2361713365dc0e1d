"""Platforms that images are made for (OCI image specification, *Image Index*)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Self

_PLATFORM = re.compile(r"([a-z0-9_.-]+)(?:\(([0-9.]+)\))?/([a-z0-9_.-]+)(?:/([a-z0-9_.-]+))?", re.ASCII)
_LONGEST = 100
# What else an architecture is called, and which variant of it goes without saying.
_ARCHITECTURES = MappingProxyType(
    {
        "x86_64": ("amd64", ""),
        "x86-64": ("amd64", ""),
        "aarch64": ("arm64", ""),
        "i386": ("386", ""),
        "armhf": ("arm", "v7"),
        "armel": ("arm", "v6"),
    }
)
_UNSAID = MappingProxyType({("amd64", "v1"): "", ("arm64", "v8"): "", ("arm", ""): "v7"})
# Windows runs what was made for the same build of it, whatever its revision.
_BUILD_PARTS = 3


class Platform(str):
    """`os/architecture` and the variant, unless that goes without saying: `linux/amd64`, `linux/arm/v7`.

    Of Windows the build stands behind its name: `windows(10.0.20348)/amd64`. What means the same is equal.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the platform that `text` spells.

        Raises:
            ValueError: it spells none.
        """
        match = _PLATFORM.fullmatch(text.lower()) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None:
            raise ValueError(f"{text!r} is not a platform: write os/architecture, such as linux/amd64 or linux/arm/v7")
        system, version, architecture, variant = match.groups(default="")
        return cls.of(system, architecture, variant, version)

    @classmethod
    def of(cls, system: str, architecture: str, variant: str = "", version: str = "") -> Self:
        """Return the platform with these parts; `version` counts for Windows alone."""
        system, architecture, variant = system.lower(), architecture.lower(), variant.lower()
        architecture, usual = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant or usual
        if variant.isdecimal():
            variant = f"v{variant}"
        variant = _UNSAID.get((architecture, variant), variant)
        build = ".".join(version.split(".")[:_BUILD_PARTS]) if system == "windows" else ""
        return cls("/".join(filter(None, (f"{system}({build})" if build else system, architecture, variant))))

    @property
    def is_known(self) -> bool:
        """Whether it is a platform at all: what goes along with an image, such as attestations, has none."""
        return not self.startswith("unknown") and "/" in self and "/unknown" not in self

    def best(self, offered: Iterable[Platform]) -> Platform | None:
        """Return which of `offered` runs here best: the same variant or the next lower one; None if none does."""
        runs = [each for each in offered if self._runs(each)]
        return max(runs, key=lambda each: _parts(each)[3], default=None)

    def _runs(self, other: Platform) -> bool:
        system, build, architecture, variant = _parts(self)
        other_system, other_build, other_architecture, other_variant = _parts(other)
        is_same = (system, architecture) == (other_system, other_architecture)
        return is_same and build in {"", other_build} and other_variant <= variant


def _parts(platform: Platform) -> tuple[str, str, str, str]:
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    system, _, build = system.partition("(")
    return system, build.rstrip(")"), architecture, variant
