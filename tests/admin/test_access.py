"""Who may use the API: never a web page of somebody else, and beyond this machine nobody without the token."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.admin.access import Access
from mirror.admin.problem import Problem
from mirror.config.settings import Server
from mirror.config.units import Address, Secret

LOOPBACK = Address("127.0.0.1", 5001)
EVERYWHERE = Address("10.1.2.3", 5001)


def refusal(settings: Server, method: str = "GET", **headers: str) -> tuple[int, str] | None:
    """Return how a request is refused, None if it is let in."""
    own = {"Host": "127.0.0.1:5001", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        Access(settings).check(make_mocked_request(method, "/api/v1/purge", own))
    except Problem as problem:
        return problem.status, problem.text
    return None


@pytest.mark.parametrize("host", ["127.0.0.1:5001", "localhost:5001", "[::1]:5001", "127.0.0.1", "LOCALHOST"])
def test_lets_in__this_machine__by_its_own_names(host: str) -> None:
    assert refusal(Server(admin_listen=LOOPBACK), Host=host) is None


@pytest.mark.parametrize("host", ["evil.example.com:5001", "127.0.0.1.evil.example.com", "", "10.0.0.1"])
def test_refuses__names_that_a_page_may_have_made_lead_here(host: str) -> None:
    refused = refusal(Server(admin_listen=LOOPBACK), Host=host)
    assert refused is not None
    assert refused[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize("token", ["", "secret"])
def test_refuses__pages_of_others(headers: dict[str, str], token: str) -> None:
    settings = Server(admin_listen=LOOPBACK, admin_token=Secret(token))
    refused = refusal(settings, "POST", Authorization="Bearer secret", **headers)
    assert refused == (403, "web pages of others may not use the API")


def test_lets_in__its_own_page() -> None:
    own = {"Origin": "http://127.0.0.1:5001", "Sec_Fetch_Site": "same-origin"}
    assert refusal(Server(admin_listen=LOOPBACK), "POST", **own) is None


@pytest.mark.parametrize("listen", [LOOPBACK, EVERYWHERE])
@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("Bearer secret", None),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("secret", 401),
        ("", 401),
        ("Bearer sécret", 401),
    ],
)
def test_asks__for_the_token_where_there_is_one(listen: Address, given: str, status: int | None) -> None:
    settings = Server(admin_listen=listen, admin_token=Secret("secret"))
    refused = refusal(settings, Host="mirror.example.com:5001", Authorization=given)
    assert (refused and refused[0]) == status


@pytest.mark.parametrize("host", ["::", "10.1.2.3", "mirror.example.com"])
def test_is_closed__beyond_this_machine_without_a_token(host: str) -> None:
    refused = refusal(Server(admin_listen=Address(host, 5001)))
    assert refused is not None
    assert refused[0] == 403
    assert "server.admin_token" in refused[1]


def test_reads__the_token_again_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = Server(admin_listen=EVERYWHERE, admin_token_file=str(file))
    closed = refusal(settings, Authorization="Bearer ")
    assert closed == (403, "server.admin_token_file cannot be read, or is empty")
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert refusal(settings, Authorization=f"Bearer {token}") is None
    assert refusal(settings, Authorization="Bearer first") is not None
