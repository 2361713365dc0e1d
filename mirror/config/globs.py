"""Globs over names: `*` also crosses `/`, case matters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def compile_globs(globs: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether a name matches any of `globs`."""
    alternatives = "|".join(".*".join(re.escape(part) for part in glob.split("*")) for glob in globs)
    if not alternatives:
        return lambda _: False
    pattern = re.compile(alternatives, re.DOTALL)
    return lambda name: pattern.fullmatch(name) is not None
