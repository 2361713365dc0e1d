"""Which upstream a name means: looked up, never dialled from the request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from mirror.config import BUILT_IN, ConfigError, Secret, Settings, Upstream, Upstreams, load
from mirror.config.globs import compile_globs


def upstream(name: str, tables: dict[str, dict[str, str]] | None = None) -> Upstream:
    found = Upstreams(tables or {}).lookup(name)
    assert found is not None, name
    return found


class TestGlobs:
    @pytest.mark.parametrize(
        ("glob", "name", "matches"),
        [
            ("*", "", True),
            ("*", "docker.io/library/alpine", True),
            ("docker.io/*", "docker.io/library/alpine", True),
            ("docker.io/*:latest", "docker.io/a/b:latest", True),
            ("docker.io/*", "docker.io", False),
            ("docker.io", "docker.io/a", False),
            ("a*c", "abbc", True),
            ("a*c", "abcd", False),
            ("docker.io/a", "dockerXio/a", False),
            ("Docker.io/*", "docker.io/a", False),
            ("a*", "a\nb", True),
            ("[a]", "a", False),
            ("a|b", "a", False),
            ("a?", "ab", False),
        ],
    )
    def test_match__only_stars_are_special(self, glob: str, name: str, matches: bool) -> None:
        assert compile_globs([glob])(name) is matches

    def test_match__any_of_several_and_none_of_none(self) -> None:
        assert compile_globs(["a", "b*"])("bc")
        assert not compile_globs(["a", "b*"])("c")
        assert not compile_globs([])("")


class TestLookup:
    @pytest.mark.parametrize("name", [name for name in BUILT_IN if "*" not in name])
    def test_finds__every_built_in_host(self, name: str) -> None:
        found = upstream(name)
        assert (found.name, found.label, found.url) == (name, name, BUILT_IN[name])

    @pytest.mark.parametrize("alias", ["docker.io", "index.docker.io", "registry-1.docker.io"])
    def test_finds_docker_hub__by_each_of_its_names(self, alias: str) -> None:
        assert upstream(alias) == Upstream("docker.io", "docker.io", "https://registry-1.docker.io")

    @pytest.mark.parametrize(
        ("host", "label"),
        [
            ("eu.gcr.io", "*.gcr.io"),
            ("europe-docker.pkg.dev", "*.pkg.dev"),
            ("a.b.azurecr.io", "*.azurecr.io"),
            ("1234.dkr.ecr.eu-west-1.amazonaws.com", "*.dkr.ecr.*.amazonaws.com"),
        ],
    )
    def test_dials_the_host_itself__behind_a_glob(self, host: str, label: str) -> None:
        assert upstream(host) == Upstream(host, label, f"https://{host}")

    @pytest.mark.parametrize(
        "host",
        [
            "",
            "ghcr.io.evil.example",
            "evil-ghcr.io",
            "GHCR.IO",
            "ghcr.io:443",
            "ghcr.io.",
            "azurecr.io",
            ".azurecr.io",
            "EVIL.azurecr.io",
            "evil.example/x.azurecr.io",
            "evil.example?.azurecr.io",
            "evil.example#.azurecr.io",
            "user@x.azurecr.io",
            "evil\n.azurecr.io",
            "x.azurecr.io\n",
            "-.azurecr.io",
            f"{'a' * 256}.azurecr.io",
            "*.azurecr.io",
            "localhost",
            "127.0.0.1",
        ],
    )
    def test_finds_nothing__by_any_other_name(self, host: str) -> None:
        assert Upstreams().lookup(host) is None

    def test_finds__what_is_added_with_port_and_path(self) -> None:
        tables = {"registry.example:5000": {"url": "http://10.0.0.1:5000/mirror/"}}
        found = upstream("registry.example:5000", tables)
        assert found.url == "http://10.0.0.1:5000/mirror"
        assert Upstreams(tables).lookup("registry.example") is None

    def test_overrides_built_in__key_by_key(self) -> None:
        assert upstream("ghcr.io", {"ghcr.io": {"ca_file": "/ca"}}) == Upstream(
            "ghcr.io", "ghcr.io", "https://ghcr.io", "/ca"
        )
        assert upstream("docker.io", {"docker.io": {"url": "http://near.example"}}).url == "http://near.example"

    def test_dials_one_place__for_a_glob_with_a_url(self) -> None:
        found = upstream("team.registry.example", {"*.registry.example": {"url": "https://one.example"}})
        assert found == Upstream("team.registry.example", "*.registry.example", "https://one.example")

    def test_prefers__the_name_to_the_glob(self) -> None:
        found = upstream("eu.gcr.io", {"eu.gcr.io": {"url": "https://near.example"}})
        assert (found.label, found.url) == ("eu.gcr.io", "https://near.example")

    def test_prefers__a_glob_of_the_user_s_to_a_built_in_one(self) -> None:
        found = upstream("eu-1.gcr.io", {"eu-*.gcr.io": {"url": "https://near.example"}})
        assert (found.label, found.url) == ("eu-*.gcr.io", "https://near.example")


class TestHostHeader:
    def test_is_a_configured_name__to_the_letter(self) -> None:
        upstreams = Upstreams({"registry.example:5000": {"url": "http://10.0.0.1"}})
        assert upstreams.exact("registry.example:5000") is not None
        assert upstreams.exact("ghcr.io") is not None

    @pytest.mark.parametrize(
        "host", ["eu.gcr.io", "*.gcr.io", "index.docker.io", "GHCR.io", "ghcr.io:5000", "", "mirror"]
    )
    def test_is_no_upstream__by_glob_alias_or_case(self, host: str) -> None:
        assert Upstreams().exact(host) is None


class TestTables:
    @pytest.mark.parametrize(
        "name", ["", "a/b", "https://a.example", "A.example", "a b", "a_b.example", "a.", "ä.example"]
    )
    def test_refuses__name_that_is_no_host(self, name: str) -> None:
        with pytest.raises(ValueError, match="is not a registry's host"):
            Upstreams({name: {"url": "https://a.example"}})

    @pytest.mark.parametrize(
        "url",
        [
            "a.example",
            "ftp://a.example",
            "https://",
            "https:///path",
            "https://a.example?x=1",
            "https://a.example#x",
            "https://user:secret@a.example",
            "https://a.example:port",
            "https://a.example:99999",
            "https://[::1",
            "https://a b.example",
        ],
    )
    def test_refuses__url_that_is_no_origin(self, url: str) -> None:
        with pytest.raises(ValueError, match="write an origin such as"):
            Upstreams({"a.example": {"url": url}})

    def test_names_every_ca_file__of_hosts_and_globs(self) -> None:
        tables = {"a.example": {"ca_file": "/one"}, "*.b.example": {"ca_file": "/two"}}
        assert Upstreams(tables).ca_files == {"/one", "/two"}


class TestCredentials:
    KEYS = "username", "password", "password_file", "docker_config", "provider"

    @pytest.fixture(autouse=True)
    def _no_default_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(import_module("mirror.config.load"), "DEFAULT_FILE", tmp_path / "none.toml")

    def settings(self, table: Mapping[str, object]) -> Settings:
        """Return the configuration with one upstream."""
        return load(None, {"LAYOVER_UPSTREAMS": json.dumps({"a.example": table})})

    def refusal(self, table: Mapping[str, object]) -> str:
        """Return why an upstream is refused."""
        with pytest.raises(ConfigError) as refused:
            self.settings(table)
        text = str(refused.value)
        assert len(text.splitlines()) == 1
        assert text.startswith("LAYOVER_UPSTREAMS: upstreams")
        assert "a.example" in text
        assert "hush" not in text
        return text

    @pytest.mark.parametrize(
        "table",
        [
            {"username": "user", "password": "hush"},
            {"username": "user", "password": "", "password_file": "/file"},
            {"docker_config": "~/.docker/config.json"},
            {"provider": "ecr"},
            {"provider": "google"},
            {"provider": "azure", "username": "", "password": ""},
        ],
    )
    def test_are_of_one_kind(self, table: dict[str, str]) -> None:
        found = self.settings(table).upstreams.lookup("a.example")
        assert found is not None
        assert found.has_credentials
        assert {key: getattr(found, key) for key in self.KEYS} == {key: table.get(key, "") for key in self.KEYS}

    def test_are_none__where_nothing_is_said(self) -> None:
        found = self.settings({"username": "", "password": "", "provider": ""}).upstreams.lookup("a.example")
        assert found is not None
        assert not found.has_credentials

    def test_are_of_every_host__behind_a_glob(self) -> None:
        tables = {"*.azurecr.io": {"provider": "azure"}}
        found = upstream("team.azurecr.io", tables)
        assert (found.label, found.provider) == ("*.azurecr.io", "azure")

    @pytest.mark.parametrize(
        ("table", "reason"),
        [
            ({"username": "user"}, "username: needs either password or password_file"),
            ({"username": "user", "password": "hush", "password_file": "/f"}, "needs either password or password_file"),
            ({"password": "hush"}, "password: needs a username beside it"),
            ({"password_file": "/f"}, "password_file: needs a username beside it"),
            ({"password": "hush", "provider": "ecr"}, "password: needs a username beside it"),
            ({"password_file": "/f", "docker_config": "/f"}, "password_file: needs a username beside it"),
            ({"docker_config": "/f", "provider": "ecr"}, "has docker_config and provider: keep one"),
            ({"username": "u", "password": "hush", "provider": "ecr"}, "has username and provider: keep one"),
            ({"username": "u", "password": "hush", "docker_config": "/f"}, "has username and docker_config: keep one"),
            ({"provider": "aws"}, "'aws' is not one of ecr, google, azure"),
            ({"docker_config": True}, "docker_config: Expected text"),
            ({"username": "u", "password": 5550123}, "password: a secret is text: write it in quotes"),
            ({"username": "u", "password": ["hush"]}, "password: a secret is text"),
            ({"username": "u", "passwort": "hush"}, "passwort: there is no such setting"),
        ],
    )
    def test_are_refused__in_any_other_form(self, table: dict[str, object], reason: str) -> None:
        text = self.refusal(table)
        assert reason in text
        assert "5550123" not in text

    def test_are_shown__by_no_repr(self) -> None:
        settings = self.settings({"username": "user", "password": "hush"})
        found = settings.upstreams.lookup("a.example")
        assert found is not None
        for text in (repr(settings), str(settings), repr(found), str(found), repr(settings.upstreams.all)):
            assert "hush" not in text
        assert found.password == Secret("hush")

    def test_are_had__as_the_documentation_writes_them(self, tmp_path: Path) -> None:
        text = (Path(__file__).parents[2] / "docs" / "credentials.md").read_text()
        samples = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        assert len(samples) == 3
        for sample in samples:
            file = tmp_path / "layover.toml"
            file.write_text(sample)
            assert any(each.has_credentials for each in load(file, {}).upstreams.all)
