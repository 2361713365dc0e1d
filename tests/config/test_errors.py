"""What is said of a wrong configuration: one line with its source, the key, and what is allowed."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from mirror.config import ConfigError, load

DURATION = "write 500ms, 10s, 5m, 2h, 30d or forever"
SIZE = "write a number with B, KiB, MiB, GiB, TiB or %"
ADDRESS = "write HOST:PORT"
PLATFORM = "write os/architecture, such as linux/amd64"
UNKNOWN = "there is no such setting"

VALUES = [
    ("SERVER__LISTEN", "localhost", "server.listen", ADDRESS),
    ("SERVER__LISTEN", "5000", "server.listen", ""),
    ("SERVER__LISTEN", '["0.0.0.0:1", "x"]', "server.listen[1]", ADDRESS),
    ("SERVER__LISTEN", '["0.0.0.0:1"', "", "written as JSON"),
    ("SERVER__LISTEN", "[]", "server.listen", ""),
    ("SERVER__ADMIN_LISTEN", "localhost", "server.admin_listen", ADDRESS),
    ("SERVER__WORKERS", "many", "server.workers", "int"),
    ("SERVER__WORKERS", "-1", "server.workers", ">= 0"),
    ("SERVER__WORKERS", "65", "server.workers", "<= 64"),
    ("SERVER__WORKERS", "true", "server.workers", "int"),
    ("SERVER__SHUTDOWN_GRACE", "30", "server.shutdown_grace", DURATION),
    ("LOG__LEVEL", "loud", "log.level", "debug, info, warning, error"),
    ("LOG__FORMAT", "xml", "log.format", "auto, text, json"),
    ("STORE__PATH", "", "store.path", ""),
    ("STORE__SIZE", "500", "store.size", SIZE),
    ("STORE__SIZE", "120%", "store.size", "at most 100%"),
    ("STORE__SIZE", f"{'9' * 400}TiB", "store.size", ""),
    ("STORE__MIN_FREE", "lots", "store.min_free", SIZE),
    ("FRESHNESS__TAG_TTL", "5 minutes", "freshness.tag_ttl", DURATION),
    ("ACCESS__ALLOW", "docker.io/*", "access.allow", "list"),
    ("ACCESS__DENY", "[1]", "access.deny[0]", "text"),
    ("PREFETCH__ENABLED", "yes", "prefetch.enabled", "bool"),
    ("PREFETCH__PLATFORMS", "linux/amd64", "prefetch.platforms", "list"),
    ("PREFETCH__PLATFORMS", '["linux"]', "prefetch.platforms[0]", PLATFORM),
    ("PREFETCH__PLATFORMS", '["linux/amd64", 1]', "prefetch.platforms[1]", PLATFORM),
    ("PREFETCH__PLATFORM", "[]", "prefetch.platform", UNKNOWN),
    ("SERVER", "x", "server", "table"),
    ("UPSTREAMS", "x", "upstreams", "table"),
    ("UPSTREAMS", "[1]", "upstreams", "table"),
    ("UPSTREAMS", "{", "", "written as JSON"),
    ("UPSTREAMS", '{"a.example": 1}', 'upstreams."a.example"', "table"),
    ("UPSTREAMS", '{"a.example": {"url": 1}}', 'upstreams."a.example".url', "text"),
    ("UPSTREAMS", '{"a.example": {"url": "a.example"}}', "a.example", "https://a.example"),
    ("UPSTREAMS", '{"a.example": {"urll": "x"}}', 'upstreams."a.example".urll', UNKNOWN),
    ("UPSTREAMS", '{"a/b": {}}', "a/b", "such as ghcr.io"),
    ("SERVER__WORKER", "1", "server.worker", UNKNOWN),
    ("SERVER__TLS__CIPHER", "x", "server.tls", UNKNOWN),
    ("FLEET__REDISURL", "x", "fleet.redisurl", UNKNOWN),
    ("LISTEN", "x", "listen", UNKNOWN),
    ("NOPE__LISTEN", "x", "nope", UNKNOWN),
    ("SERVER__LISTEN__PORT", "5000", "server.listen", ""),
    ("", "x", "", UNKNOWN),
]
FILES = [
    ("workers = 1", "workers", UNKNOWN),
    ('[server]\nlistn = ""', "server.listn", UNKNOWN),
    ("[server]\nworkers = 1.5", "server.workers", "int"),
    ("[server]\nlisten = 5000", "server.listen", ""),
    ("[freshness]\ntag_ttl = 300", "freshness.tag_ttl", DURATION),
    ("[store]\nsize = 0.8", "store.size", SIZE),
    ("[store]\npath = 1", "store.path", ""),
    ("[access]\nallow = '*'", "access.allow", "list"),
    ('[prefetch]\nplatforms = ["linux/amd64/v1/x"]', "prefetch.platforms[0]", PLATFORM),
    ("server = 1", "server", "table"),
    ("upstreams = 1", "upstreams", "table"),
    ("[[upstreams]]\nurl = 'x'", "upstreams", "table"),
    ('[upstreams."a.example"]\nbandwith = "1"', 'upstreams."a.example".bandwith', UNKNOWN),
    ("[server", "", "is not TOML"),
    ("a = 1\na = 2", "", "is not TOML"),
    ('"a\\nb" = 1', "", UNKNOWN),
    (f"[server]\nworkers = {'9' * 5000}", "", ""),
    (f"a = {'[' * 20_000}", "", ""),
]


@pytest.fixture(autouse=True)
def _no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("mirror.config.load"), "DEFAULT_FILE", tmp_path / "none.toml")


def refusal(file: Path | None, environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        load(file, environment)
    text = str(refused.value)
    assert len(text.splitlines()) == 1, text
    assert len(text) < 1000
    return text


@pytest.mark.parametrize(
    ("variable", "value", "key", "allowed"), VALUES, ids=[f"{row[0]}={row[1]:.24}" for row in VALUES]
)
def test_names_the_variable__for_a_wrong_one(variable: str, value: str, key: str, allowed: str) -> None:
    text = refusal(None, {f"LAYOVER_{variable}": value})
    assert text.startswith(f"LAYOVER_{variable}: ")
    assert key in text
    assert allowed in text


@pytest.mark.parametrize(("content", "key", "allowed"), FILES, ids=[row[0][:24] for row in FILES])
def test_names_the_file__for_a_wrong_one(content: str, key: str, allowed: str, tmp_path: Path) -> None:
    file = tmp_path / "layover.toml"
    file.write_text(content)
    text = refusal(file, {})
    assert text.startswith(f"{file}: ")
    assert key in text
    assert allowed in text


def test_names_the_file__that_is_not_there_or_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(missing, {}) == f"{missing}: cannot be read: No such file or directory"
    assert refusal(None, {"LAYOVER_CONFIG": str(missing)}).startswith(f"{missing}: cannot be read")
    assert refusal(tmp_path, {}) == f"{tmp_path}: cannot be read: Is a directory"


def test_names_the_file__that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "layover.toml"
    file.write_bytes(b"a = '\xff'")
    assert refusal(file, {}).startswith(f"{file}: is not TOML")


def test_names_the_file_s_value__though_variables_stand_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "layover.toml"
    file.write_text("[server]\nworkers = -1\n")
    text = refusal(file, {"LAYOVER_SERVER__SHUTDOWN_GRACE": "1s", "LAYOVER_LOG__LEVEL": "debug"})
    assert text.startswith(f"{file}: server.workers: ")


def test_names_the_file__where_a_variable_meets_its_wrong_table(tmp_path: Path) -> None:
    file = tmp_path / "layover.toml"
    file.write_text("server = 1\n")
    assert refusal(file, {"LAYOVER_SERVER__WORKERS": "1"}).startswith(f"{file}: server: ")


def test_refuses__json_that_is_too_deep() -> None:
    assert refusal(None, {"LAYOVER_UPSTREAMS": "[" * 20_000}).startswith("LAYOVER_UPSTREAMS: ")
    assert refusal(None, {"LAYOVER_UPSTREAMS": json.dumps({"a.example": {}})[:-1]}).startswith("LAYOVER_UPSTREAMS: ")
