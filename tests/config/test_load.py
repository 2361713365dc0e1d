"""Where each setting comes from: flag, environment, file, default, in that order."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path

import pytest

from mirror.config import ConfigError, Upstream, load

EVERY_DEFAULT = """
[server]
listen = "0.0.0.0:5000"
admin_listen = "127.0.0.1:5001"
admin_token = ""
workers = 0
shutdown_grace = "30s"
[server.tls]
certificate = ""
key = ""
client_ca = ""
[log]
level = "info"
format = "auto"
[store]
path = "layover-data"
size = "80%"
low_mark = "90%"
min_free = "5%"
unused_for = "forever"
verify_every = "30d"
[fleet]
redis_url = ""
region = "local"
replica = ""
advertise_url = ""
secret = ""
min_copies = 1
[freshness]
tag_ttl = "5m"
revalidate_timeout = "1s"
stale_if_error = "forever"
negative_ttl = "5s"
on_deleted = "refuse"
rules = []
[prefetch]
enabled = true
platforms = []
[access]
anonymous = true
allow = ["*"]
deny = []
[upstreams."docker.io"]
url = "https://registry-1.docker.io"
endpoints = []
username = ""
password = ""
private = "refuse"
ca_file = ""
bandwidth = ""
max_connections = 32
"""

# Each key of a feature to come, by its environment variable, with a value that asks something of the feature.
NOT_YET = {
    "SERVER__TLS__CERTIFICATE": "/x",
    "SERVER__TLS__KEY": "/x",
    "SERVER__TLS__CLIENT_CA": "/x",
    "STORE__VERIFY_EVERY": "1d",
    "ACCESS__ANONYMOUS": "false",
    "ACCESS__HTPASSWD": "/x",
    "ACCESS__ISSUERS": '["https://issuer.example"]',
}


@pytest.fixture(autouse=True)
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path that stands for the file under `/etc`; it does not exist yet."""
    path = tmp_path / "default.toml"
    monkeypatch.setattr(import_module("mirror.config.load"), "DEFAULT_FILE", path)
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class TestDefaults:
    def test_need_no_file_and_no_environment(self) -> None:
        settings = load(None, {"PATH": "/bin", "layover_server__workers": "2"})
        assert [str(address) for address in settings.server.listen] == ["0.0.0.0:5000"]
        assert str(settings.server.admin_listen) == "127.0.0.1:5001"
        assert (settings.server.workers, float(settings.server.shutdown_grace)) == (0, 30)
        assert (settings.log.level, settings.log.format) == ("info", "auto")
        assert settings.store.path == Path("layover-data")
        assert (settings.store.size.of(1000), settings.store.min_free.of(1000)) == (800, 50)
        assert list(map(float, (settings.freshness.tag_ttl, settings.freshness.revalidate_timeout))) == [300, 1]
        assert (settings.access.allow, settings.access.deny) == (("*",), ())
        assert settings.upstreams.lookup("docker.io") == Upstream(
            "docker.io", "docker.io", "https://registry-1.docker.io"
        )

    def test_can_be_spelled_out__every_promised_key(self, tmp_path: Path) -> None:
        spelled, plain = load(write(tmp_path / "a.toml", EVERY_DEFAULT), {}), load(None, {})
        assert [str(address) for address in spelled.server.listen] == [str(each) for each in plain.server.listen]
        assert spelled.store.size.of(1000) == plain.store.size.of(1000)
        assert (spelled.log, spelled.freshness, spelled.access) == (plain.log, plain.freshness, plain.access)
        assert spelled.upstreams.lookup("docker.io") == plain.upstreams.lookup("docker.io")


LEVELS = {name: f'[log]\nlevel = "{name}"\n' for name in ("debug", "warning", "error")}


class TestOrder:
    def test_takes_default_file__if_it_is_there(self, default_file: Path) -> None:
        write(default_file, LEVELS["debug"])
        assert load(None, {}).log.level == "debug"

    def test_takes_named_file__instead_of_the_default_one(self, default_file: Path, tmp_path: Path) -> None:
        write(default_file, LEVELS["debug"] + 'format = "json"')
        named = write(tmp_path / "named.toml", LEVELS["warning"])
        settings = load(None, {"LAYOVER_CONFIG": str(named)})
        assert (settings.log.level, settings.log.format) == ("warning", "auto")

    def test_takes_flag__before_the_variable_that_names_a_file(self, tmp_path: Path) -> None:
        flag = write(tmp_path / "flag.toml", LEVELS["error"])
        named = write(tmp_path / "named.toml", LEVELS["warning"])
        assert load(flag, {"LAYOVER_CONFIG": str(named)}).log.level == "error"

    def test_takes_default_file__if_the_variable_is_empty(self, default_file: Path) -> None:
        write(default_file, LEVELS["debug"])
        assert load(None, {"LAYOVER_CONFIG": ""}).log.level == "debug"

    def test_takes_variable__before_the_file(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.toml", LEVELS["error"] + 'format = "json"')
        settings = load(file, {"LAYOVER_LOG__LEVEL": "debug"})
        assert (settings.log.level, settings.log.format) == ("debug", "json")


class TestAdminToken:
    def test_takes__text_or_a_file(self) -> None:
        settings = load(None, {"LAYOVER_SERVER__ADMIN_TOKEN": "123"}).server
        assert (settings.admin_token, settings.admin_token_file) == ("123", "")
        assert "123" not in repr(settings)
        assert load(None, {"LAYOVER_SERVER__ADMIN_TOKEN_FILE": "/run/token"}).server.admin_token_file == "/run/token"

    def test_refuses__both(self) -> None:
        environment = {"LAYOVER_SERVER__ADMIN_TOKEN": "x", "LAYOVER_SERVER__ADMIN_TOKEN_FILE": "/x"}
        with pytest.raises(ConfigError, match=r"^LAYOVER_SERVER__ADMIN_TOKEN.*stands beside .*_file; remove one$"):
            load(None, environment)


class TestVariables:
    def test_spell__every_plain_key(self) -> None:
        environment = {
            "LAYOVER_SERVER__LISTEN": "127.0.0.1:1",
            "LAYOVER_SERVER__ADMIN_LISTEN": "[::1]:2",
            "LAYOVER_SERVER__WORKERS": "3",
            "LAYOVER_SERVER__SHUTDOWN_GRACE": "500ms",
            "LAYOVER_LOG__LEVEL": "error",
            "LAYOVER_LOG__FORMAT": "text",
            "LAYOVER_STORE__PATH": "/data",
            "LAYOVER_STORE__SIZE": "1GiB",
            "LAYOVER_STORE__MIN_FREE": "0B",
            "LAYOVER_FRESHNESS__TAG_TTL": "forever",
            "LAYOVER_FRESHNESS__REVALIDATE_TIMEOUT": "2s",
        }
        settings = load(None, environment)
        assert [str(address) for address in settings.server.listen] == ["127.0.0.1:1"]
        assert (str(settings.server.admin_listen), settings.server.workers) == ("[::1]:2", 3)
        assert (settings.server.shutdown_grace, settings.log.level, settings.log.format) == (0.5, "error", "text")
        assert (settings.store.path, settings.store.size.of(1), settings.store.min_free.of(9)) == (
            Path("/data"),
            2**30,
            0,
        )
        assert settings.freshness.tag_ttl == math.inf
        assert float(settings.freshness.revalidate_timeout) == 2

    def test_spell_lists__as_json(self) -> None:
        environment = {
            "LAYOVER_SERVER__LISTEN": '["127.0.0.1:1", "[::1]:1"]',
            "LAYOVER_ACCESS__ALLOW": '["docker.io/*"]',
            "LAYOVER_ACCESS__DENY": "[]",
            "LAYOVER_PREFETCH__PLATFORMS": '["linux/amd64", "Linux/ARM64/v8"]',
            "LAYOVER_PREFETCH__ENABLED": "false",
        }
        settings = load(None, environment)
        assert [str(address) for address in settings.server.listen] == ["127.0.0.1:1", "[::1]:1"]
        assert (settings.access.allow, settings.access.deny) == (("docker.io/*",), ())
        assert (settings.prefetch.platforms, settings.prefetch.enabled) == (("linux/amd64", "linux/arm64"), False)

    def test_spell_tables__as_json_over_the_file_s(self, tmp_path: Path) -> None:
        text = '[upstreams."a.example"]\nurl = "https://a.example"\nca_file = "/ca"\n[upstreams."b.example"]\n'
        tables = {"a.example": {"url": "http://127.0.0.1:1"}, "*.c.example": {}}
        settings = load(write(tmp_path / "a.toml", text), {"LAYOVER_UPSTREAMS": json.dumps(tables)})
        found = settings.upstreams.lookup("a.example")
        assert found == Upstream("a.example", "a.example", "http://127.0.0.1:1", "/ca")
        assert settings.upstreams.lookup("b.example") == Upstream("b.example", "b.example", "https://b.example")
        assert settings.upstreams.lookup("x.c.example") is not None

    def test_take_text_for_text__even_if_it_looks_like_json(self) -> None:
        assert load(None, {"LAYOVER_STORE__PATH": "[1]"}).store.path == Path("[1]")


class TestNotYet:
    @pytest.mark.parametrize(("variable", "value"), NOT_YET.items())
    def test_refuses__in_the_environment(self, variable: str, value: str) -> None:
        key = variable.lower().replace("__", ".")
        with pytest.raises(ConfigError, match=f"^LAYOVER_{variable}: {key}: not available yet"):
            load(None, {f"LAYOVER_{variable}": value})

    @pytest.mark.parametrize("policy", ["authenticated", "upstream"])
    def test_refuses__a_policy_that_needs_client_access(self, policy: str) -> None:
        tables = json.dumps({"ghcr.io": {"private": policy}})
        with pytest.raises(ConfigError, match=r'^LAYOVER_UPSTREAMS: upstreams\."ghcr\.io"\.private: .* not available'):
            load(None, {"LAYOVER_UPSTREAMS": tables})

    def test_refuses__in_the_file(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.toml", '[store]\nverify_every = "1d"')
        with pytest.raises(ConfigError) as refused:
            load(file, {})
        assert str(refused.value) == f"{file}: store.verify_every: not available yet; remove it"

    def test_refuses__even_beside_the_file_s_harmless_value(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.toml", '[store]\nverify_every = "30d"')
        with pytest.raises(ConfigError, match=r"^LAYOVER_STORE__VERIFY_EVERY: store\.verify_every: not available yet"):
            load(file, {"LAYOVER_STORE__VERIFY_EVERY": "1d"})


class TestFreshness:
    def test_reads__every_key(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.toml",
            """
            [freshness]
            tag_ttl = "2m"
            revalidate_timeout = "500ms"
            stale_if_error = "1d"
            negative_ttl = "9s"
            on_deleted = "serve"
            [[freshness.rules]]
            match = "docker.io/library/*:latest"
            ttl = "1m"
            [[freshness.rules]]
            match = "*@release"
            ttl = "forever"
            """,
        )
        found = load(file, {}).freshness
        times = (found.tag_ttl, found.revalidate_timeout, found.stale_if_error, found.negative_ttl)
        assert tuple(map(float, times)) == (120, 0.5, 86400, 9)
        assert found.on_deleted == "serve"
        assert [(rule.match, float(rule.ttl)) for rule in found.rules] == [
            ("docker.io/library/*:latest", 60),
            ("*@release", math.inf),
        ]

    @pytest.mark.parametrize(
        ("variable", "value", "text"),
        [
            ("ON_DELETED", "keep", "LAYOVER_FRESHNESS__ON_DELETED: freshness.on_deleted: 'keep' is not one of"),
            ("NEGATIVE_TTL", "5", "LAYOVER_FRESHNESS__NEGATIVE_TTL: freshness.negative_ttl: '5' is not a duration"),
            ("RULES", '[{"match": "*"}]', "LAYOVER_FRESHNESS__RULES: freshness.rules[0]: Object missing required"),
            ("RULES", '[{"match": "*", "ttl": 5}]', "LAYOVER_FRESHNESS__RULES: freshness.rules[0].ttl: 5 is not"),
            ("RULES", "*", "LAYOVER_FRESHNESS__RULES: freshness.rules: Expected a list"),
        ],
    )
    def test_refuses__what_is_not_allowed(self, variable: str, value: str, text: str) -> None:
        with pytest.raises(ConfigError) as refused:
            load(None, {f"LAYOVER_FRESHNESS__{variable}": value})
        assert str(refused.value).startswith(text)


class TestUpstreamTable:
    def test_reads__every_key(self) -> None:
        table = {
            "url": "https://near.example",
            "endpoints": ["https://parent.example/"],
            "username": "me",
            "password": "secret",
            "private": "anyone",
            "bandwidth": "50MiB",
            "max_connections": 8,
        }
        found = load(None, {"LAYOVER_UPSTREAMS": json.dumps({"ghcr.io": table})}).upstreams.lookup("ghcr.io")
        assert found is not None
        assert (found.url, found.endpoints) == ("https://near.example", ("https://parent.example",))
        assert (found.username, found.password, found.private) == ("me", "secret", "anyone")
        assert (found.bandwidth, found.max_connections) == (50 * 2**20, 8)

    @pytest.mark.parametrize(
        ("key", "value", "text"),
        [
            ("private", "nobody", "upstreams.\"ghcr.io\".private: 'nobody' is not one of refuse, anyone"),
            ("bandwidth", "50%", "upstreams.\"ghcr.io\".bandwidth: '50%' is not a rate"),
            ("bandwidth", 50, 'upstreams."ghcr.io".bandwidth: 50 is not a rate'),
            ("max_connections", 0, 'upstreams."ghcr.io".max_connections: Expected `int` >= 1'),
            ("provider", "aws", "upstreams.\"ghcr.io\".provider: 'aws' is not one of"),
            ("endpoints", ["parent.example"], "upstreams: endpoints of 'ghcr.io' is 'parent.example'"),
            ("username", "me", 'upstreams: "ghcr.io".username: needs either password or password_file'),
        ],
    )
    def test_refuses__what_is_not_allowed(self, key: str, value: object, text: str) -> None:
        with pytest.raises(ConfigError) as refused:
            load(None, {"LAYOVER_UPSTREAMS": json.dumps({"ghcr.io": {key: value}})})
        assert str(refused.value).startswith(f"LAYOVER_UPSTREAMS: {text}")
