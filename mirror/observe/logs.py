"""Structured logs on standard error: text on a terminal, else one JSON object a line."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, TextIO

import orjson
import structlog

from mirror import config


def set_up(settings: config.LogSettings, stream: TextIO = sys.stderr) -> None:
    """Send the process's logs, and those of its libraries, to `stream`."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    as_text = settings.format == "text" or (settings.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    factory: Any
    if as_text:
        shared.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
        factory = _LineFactory(stream)
    else:
        shared.append(structlog.processors.format_exc_info)
        shared.append(structlog.processors.JSONRenderer(serializer=orjson.dumps))
        shared.append(lambda _logger, _method, line: line.decode())
        factory = _LineFactory(stream)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


class _Lines:
    """Writes lines. A log that cannot be written must not fail what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write one line."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = log = msg


class _LineFactory:
    """Gives every logger the one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = _Lines(stream)

    def __call__(self, *_: Any) -> _Lines:
        return self._lines


class _ToStructlog(logging.Handler):
    """Passes what libraries log on, without a traceback: that is for developers, at level debug."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        facts = {"error": f"{type(error).__name__}: {error}"} if error is not None else {}
        logger.log(record.levelno, record.getMessage(), **facts)
        if error is not None:
            logger.debug("traceback", exc_info=error)
