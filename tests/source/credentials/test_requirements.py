"""What would not mend itself is said before anything starts."""

from __future__ import annotations

import sys

import pytest

from mirror.config import ConfigError, Secret, Upstream, Upstreams
from mirror.source.upstream.credentials import check
from tests.source.credentials.conftest import upstream

ECR = upstream("public.ecr.aws", provider="ecr")


def refused(asked: Upstream) -> str:
    """Return why a configuration with an upstream does not start."""
    with pytest.raises(ConfigError) as error:
        check([*Upstreams().all, asked])
    text = str(error.value)
    assert text.isprintable()
    return text


def test_is_met__by_what_is_right() -> None:
    check(Upstreams().all)
    check([ECR, upstream("*.dkr.ecr.*.amazonaws.com", provider="ecr"), upstream("images.*", provider="ecr")])
    check([upstream(provider="google"), upstream(provider="azure"), upstream(docker_config="/missing")])
    check([upstream(username="org|name", password_file="/missing"), upstream(username="u", password=Secret("p: ä"))])


@pytest.mark.parametrize(
    ("provider", "module"),
    [("ecr", "boto3"), ("google", "google.auth"), ("google", "requests"), ("azure", "azure.identity")],
)
def test_is_an_installed_library(provider: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    text = refused(upstream("public.ecr.aws", provider=provider))
    expected = (
        f'upstreams."public.ecr.aws".provider: needs {module}, which is not installed: install layover[{provider}]'
    )
    assert text == expected


def test_is_an_installed_library__though_even_its_name_space_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure", None)
    monkeypatch.delitem(sys.modules, "azure.identity", raising=False)
    assert "needs azure.identity" in refused(upstream(provider="azure"))


def test_is_a_name_of_amazon_s__for_ecr() -> None:
    text = refused(upstream(provider="ecr"))
    assert text.startswith('upstreams."registry.example".provider: ecr is for public.ecr.aws and names such as')


@pytest.mark.parametrize(
    ("key", "username", "password"),
    [
        ("username", "a:hush", "x"),
        ("username", "a\nhush", ""),
        ("password", "u", "hush\nhush"),
        ("password", "u", "hush\0"),
    ],
)
def test_is_what_can_be_sent(key: str, username: str, password: str) -> None:
    text = refused(upstream(username=username, password=Secret(password)))
    assert text.startswith(f'upstreams."registry.example".{key}: ')
    assert "hush" not in text
