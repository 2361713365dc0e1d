"""Durations, sizes and addresses, each in every spelling that is allowed, and in none that is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.config.units import Address, Duration, Size

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("500ms", 0.5),
            ("10s", 10),
            ("5m", 300),
            ("2h", 7200),
            ("30d", 2_592_000),
            ("1.5s", 1.5),
            ("0s", 0),
            ("forever", math.inf),
        ],
    )
    def test_parses__every_unit(self, text: str, seconds: float) -> None:
        assert Duration.parse(text) == seconds

    @pytest.mark.parametrize(
        "value",
        ["", "5", "s", "5 s", "5S", "5sec", "-5s", "+5s", "5s ", "1e3s", ".5s", "1m30s", "Forever", "5w", 6, 6.5],
    )
    def test_refuses__anything_else_and_says_what_is_allowed(self, value: object) -> None:
        with pytest.raises(ValueError, match="is not a duration: write 500ms, 10s, 5m, 2h, 30d or forever"):
            Duration.parse(value)


class TestSize:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0B", 0),
            ("7B", 7),
            ("3KiB", 3 * 2**10),
            ("1.5MiB", 3 * 2**19),
            ("500GiB", 500 * 2**30),
            ("2TiB", 2**41),
        ],
    )
    def test_parses__every_unit(self, text: str, size: int) -> None:
        assert Size.parse(text).of(10) == size

    @pytest.mark.parametrize(("text", "size"), [("80%", 800), ("100%", 1000), ("0%", 0), ("12.5%", 125), ("0.05%", 0)])
    def test_takes_share__of_the_whole(self, text: str, size: int) -> None:
        assert Size.parse(text).of(1000) == size

    @pytest.mark.parametrize(
        "value", ["", "5", "5KB", "5 KiB", "5kib", "5GB", "-1B", "101%", "100.1%", "%", "1e3B", 6, 0.8, None]
    )
    def test_refuses__anything_else_and_says_what_is_allowed(self, value: object) -> None:
        with pytest.raises(ValueError, match="is not a size: write a number with B, KiB, MiB, GiB, TiB or %"):
            Size.parse(value)


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            ("0.0.0.0:5000", "0.0.0.0", 5000),  # noqa: S104 - parsed, not listened on
            ("localhost:1", "localhost", 1),
            ("[::]:5000", "::", 5000),
            ("[::1]:65535", "::1", 65535),
        ],
    )
    def test_parses_and_prints_the_same(self, text: str, host: str, port: int) -> None:
        address = Address.parse(text)
        assert (address.host, address.port) == (host, port)
        assert str(address) == text

    @pytest.mark.parametrize(
        "value",
        ["", "5000", ":5000", "localhost", "localhost:", "::1:5000", "[localhost]:1", "a:b", "a:-1", "a:²", 5001],
    )
    def test_refuses__what_is_no_host_and_port(self, value: object) -> None:
        with pytest.raises(ValueError, match="is not an address: write HOST:PORT"):
            Address.parse(value)

    def test_refuses__port_that_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="at most 65535"):
            Address.parse("localhost:65536")


@settings(deadline=None)
@given(ANYTHING)
def test_parses_or_refuses__whatever_is_written(value: object) -> None:
    for parse in (Duration.parse, Size.parse, Address.parse):
        try:
            parse(value)
        except ValueError as error:
            refusal = str(error)
        else:
            continue
        assert refusal
