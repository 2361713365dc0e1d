"""Files that hold secrets, and that someone may replace at any time."""

from __future__ import annotations

import stat
from pathlib import Path

from mirror.source.upstream.credentials.credential import CredentialError

_LONGEST = 2**20


def read(key: str, name: str) -> str:
    """Return the text of the file that a configuration key names; `~` is the home folder.

    Raises:
        CredentialError: it cannot be read, or is no text.
    """
    what = f"{key} {name}"
    try:
        path = Path(name).expanduser()
        # Opening a pipe would wait for whoever writes to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CredentialError(f"{what}: is not a file")
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise CredentialError(f"{what}: is longer than {_LONGEST} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise CredentialError(f"{what}: is not text in UTF-8") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CredentialError(f"{what}: cannot be read: {reason}") from None
