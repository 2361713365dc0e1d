"""Docker's credential helpers: `docker-credential-<helper> get` is asked for a registry's credentials."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time

import msgspec

from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable
from mirror.source.upstream.credentials.docker_config import HelperCall
from mirror.source.upstream.credentials.leases import Lease

_LIMIT_SECONDS = 10.0
# The protocol knows no lifetime: so long a program's answer is used, and so long its having none.
_KEPT_SECONDS = 600.0
_NONE_KEPT_SECONDS = 60.0
_LONGEST_ANSWER = 2**18
_TICK_SECONDS = 0.02
_NOT_FOUND = "credentials not found"
# What holds the mirror's own secrets.
_OWN_VARIABLES = "LAYOVER_"


class _Answer(msgspec.Struct):
    username: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


class Helpers:
    """Runs helpers, each within a bounded time; blocks, so it is for threads."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End every program that runs."""
        self._stopping.set()

    def get(self, call: HelperCall) -> Lease[Credential | None]:
        """Return what a helper has; None if it knows no credentials for the server.

        Raises:
            CredentialError: the program is missing, fails, hangs, or answers with something else.
        """
        program = f"docker-credential-{call.helper}"
        code, said = self._run(program, call.server)
        if code == 0:
            try:
                answer = msgspec.json.decode(said, type=_Answer)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                raise CredentialError(f"{program}: answered with something other than credentials") from None
            return Lease(usable(program, answer.username, answer.secret), _KEPT_SECONDS)
        message = said.decode(errors="replace").strip()
        if _NOT_FOUND in message.lower():
            return Lease(None, _NONE_KEPT_SECONDS)
        reason = f"ended with status {code}" if code > 0 else f"was ended by signal {-code}"
        raise CredentialError(f"{program}: {reason}", message)

    def _run(self, program: str, server: str) -> tuple[int, bytes]:
        """Run a program to its end and return its exit code and what it wrote.

        It gets a group of its own, so that what it started ends with it and cannot keep its output open.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        try:
            process = subprocess.Popen(  # noqa: S603 - the name was checked, and is the administrator's
                (program, "get"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
        except FileNotFoundError:
            raise CredentialError(f"{program}: is not there: no such program on PATH") from None
        except OSError as error:
            raise CredentialError(f"{program}: cannot be run: {error.strerror}") from None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(server.encode())
            said = self._follow(program, process.pid, process.stdout.fileno())
        finally:
            # Until it is waited for, its number names nothing else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            code = process.wait()
        return code, said

    def _follow(self, program: str, pid: int, output: int) -> bytes:
        """Return all that a program wrote when it ended, though others may hold its output open.

        Raises:
            CredentialError: it writes too much, or does not end.
        """
        began = time.monotonic()
        os.set_blocking(output, False)
        said = bytearray()
        is_open = True
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                has_ended = _has_ended(pid)
                if not is_open and not has_ended:
                    time.sleep(_TICK_SECONDS)
                if is_open and (selector.select(_TICK_SECONDS) or has_ended):
                    is_open = _read(output, said)
                if len(said) > _LONGEST_ANSWER:
                    raise CredentialError(f"{program}: answered with more than {_LONGEST_ANSWER} bytes")
                if has_ended:
                    return bytes(said)
                if self._stopping.is_set():
                    raise CredentialError(f"{program}: was ended with the mirror")
                if time.monotonic() - began > _LIMIT_SECONDS:
                    raise CredentialError(f"{program}: did not end within {_LIMIT_SECONDS:g} s")


def _has_ended(pid: int) -> bool:
    """Say whether a child has ended, and leave it to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # whoever started the mirror had it ignore its children's ends


def _read(output: int, said: bytearray) -> bool:
    """Add what a pipe holds; return whether more may come."""
    while len(said) <= _LONGEST_ANSWER:
        try:
            piece = os.read(output, 2**16)
        except BlockingIOError:
            return True
        if not piece:
            return False
        said += piece
    return True
