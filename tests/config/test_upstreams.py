"""Which upstream a name means: looked up, never dialled from the request."""

from __future__ import annotations

import pytest

from mirror.config import BUILT_IN, Upstream, Upstreams
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
