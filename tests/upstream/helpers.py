"""Credential helpers that behave in every way that those of the field do; each notes what it was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

Behaviour = Literal["answers", "identity token", "not found", "hangs", "garbage", "noise", "fails"]
"""A name and a password; `<token>` and a refresh token; "credentials not found" on stdout and exit 1; no end; no JSON;
the right answer beside noise on stderr; a message on stdout and exit 1."""

_NOT_FOUND = "credentials not found in native keychain"


class HelperProgram:
    """A `docker-credential-<name>` in a folder; `turn` writes it anew, as the protocol has no state."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / f"docker-credential-{name}"
        self._asked = folder / f"{name}.asked"

    @property
    def asked(self) -> list[str]:
        """Return the action and the server's name of each call, in order."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []

    def turn(self, behaviour: Behaviour, username: str = "", secret: str = "") -> None:
        """Have the program behave so from its next call on."""
        user = "<token>" if behaviour == "identity token" else username
        answer = json.dumps({"ServerURL": "registry.example", "Username": user, "Secret": secret})
        ending = {
            "answers": _print(answer),
            "identity token": _print(answer),
            "not found": f"{_print(_NOT_FOUND)}\nexit 1",
            "hangs": "exec sleep 600",
            "garbage": _print("This is no JSON: {]"),
            "noise": f"{_print('warning: a plugin is out of date', 2)}\n{_print(answer)}",
            "fails": f"{_print('cannot open the keychain')}\nexit 1",
        }[behaviour]
        script = f"#!/bin/sh\nserver=$(cat)\nprintf '%s %s\\n' \"$1\" \"$server\" >> '{self._asked}'\n{ending}\n"
        fresh = self._path.with_suffix(".new")
        fresh.write_text(script)
        fresh.chmod(0o755)
        fresh.replace(self._path)


def _print(text: str, channel: int = 1) -> str:
    quoted = text.replace("'", "'\\''")
    return f"printf '%s\\n' '{quoted}' >&{channel}"
