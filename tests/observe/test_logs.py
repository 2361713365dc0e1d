"""Logs: one line an event, for machines or for people, and never in the way of a pull."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import pytest
import structlog

from mirror.config import LogSettings
from mirror.observe import logs

LEVELS: tuple[Literal["debug", "info", "warning", "error"], ...] = ("debug", "info", "warning", "error")


class Stream(io.TextIOWrapper):
    """A stream that may be a terminal."""

    def __init__(self, *, is_terminal: bool = False, raw: BinaryIO | None = None) -> None:
        super().__init__(raw if raw is not None else io.BytesIO(), encoding="utf-8", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def lines(self) -> list[str]:
        """Everything written so far."""
        self.seek(0)
        return self.read().splitlines()


class FullDisk(io.BytesIO):
    """Takes nothing."""

    def write(self, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def fail() -> None:
    raise ValueError("what went wrong")


class TestJson:
    def test_is_one_object_a_line(self) -> None:
        stream = Stream()
        logs.set_up(LogSettings(), stream)
        structlog.get_logger("layover").info("an event", text='a "b"\nc', number=3, name="ä")
        structlog.get_logger("layover").error("another")
        first, second = (json.loads(line) for line in stream.lines)
        assert (first["event"], first["level"], first["text"], first["number"]) == ("an event", "info", 'a "b"\nc', 3)
        assert first["time"].endswith("Z")
        assert (second["event"], second["level"]) == ("another", "error")

    @pytest.mark.parametrize("value", [b"\xff", object(), float("inf"), {"a"}], ids=range(4))
    def test_takes__any_value(self, value: object) -> None:
        stream = Stream()
        logs.set_up(LogSettings(), stream)
        structlog.get_logger("layover").info("an event", value=value)
        (line,) = stream.lines
        assert json.loads(line)["event"] == "an event"

    @pytest.mark.parametrize("level", LEVELS)
    def test_leaves_out__what_is_below_its_level(self, level: Literal["debug", "info", "warning", "error"]) -> None:
        stream = Stream()
        logs.set_up(LogSettings(level=level), stream)
        for each in LEVELS:
            getattr(structlog.get_logger("layover"), each)("an event")
        assert [json.loads(line)["level"] for line in stream.lines] == list(LEVELS[LEVELS.index(level) :])


class TestText:
    @pytest.mark.parametrize(
        ("form", "is_terminal", "is_json"),
        [("auto", True, False), ("auto", False, True), ("text", False, False), ("json", True, True)],
    )
    def test_is_for_terminals__or_where_it_is_asked_for(
        self, form: Literal["auto", "text", "json"], is_terminal: bool, is_json: bool
    ) -> None:
        stream = Stream(is_terminal=is_terminal)
        logs.set_up(LogSettings(format=form), stream)
        structlog.get_logger("layover").info("an event", number=3)
        (line,) = stream.lines
        assert line.startswith("{") is is_json
        assert "an event" in line
        assert ("\x1b[" in line) is (is_terminal and not is_json)


class TestLibraries:
    def test_are_passed_on__without_a_traceback(self) -> None:
        stream = Stream()
        logs.set_up(LogSettings(level="info"), stream)
        try:
            fail()
        except ValueError:
            logging.getLogger("asyncio").exception("it failed for %s", "a reason")
        (line,) = stream.lines
        found = json.loads(line)
        assert (found["event"], found["level"]) == ("it failed for a reason", "error")
        assert found["error"] == "ValueError: what went wrong"
        assert "Traceback" not in line

    def test_are_passed_on__with_their_traceback_at_debug(self) -> None:
        stream = Stream()
        logs.set_up(LogSettings(level="debug"), stream)
        try:
            fail()
        except ValueError:
            logging.getLogger("asyncio").exception("it failed")
        assert "Traceback" in stream.lines[-1]
        assert len([json.loads(line) for line in stream.lines]) == 2

    @pytest.mark.parametrize("number", [logging.WARNING, logging.ERROR, logging.CRITICAL])
    def test_are_passed_on__at_any_level(self, number: int) -> None:
        stream = Stream()
        logs.set_up(LogSettings(), stream)
        logging.getLogger("a.library").log(number, "an event")
        (line,) = stream.lines
        assert json.loads(line)["event"] == "an event"

    def test_say_nothing__below_a_warning(self) -> None:
        stream = Stream()
        logs.set_up(LogSettings(level="debug"), stream)
        logging.getLogger("a.library").info("chatter")
        assert stream.lines == []


@pytest.mark.parametrize("form", ["json", "text"])
def test_never_fails__where_nothing_can_be_written(form: Literal["json", "text"]) -> None:
    logs.set_up(LogSettings(format=form), Stream(raw=FullDisk()))
    structlog.get_logger("layover").info("an event")
    logging.getLogger("a.library").error("another")
