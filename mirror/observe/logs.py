"""Structured logs on standard error: text on a terminal, else one JSON object a line."""

from __future__ import annotations

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
        factory = structlog.PrintLoggerFactory(stream)
    else:
        shared.append(structlog.processors.format_exc_info)
        shared.append(structlog.processors.JSONRenderer(serializer=orjson.dumps))
        factory = structlog.BytesLoggerFactory(stream.buffer)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


class _ToStructlog(logging.Handler):
    """Passes what libraries log on, without a traceback: that is for developers, at level debug."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        facts = {"error": f"{type(error).__name__}: {error}"} if error is not None else {}
        logger.log(record.levelno, record.getMessage(), **facts)
        if error is not None:
            logger.debug("traceback", exc_info=error)
