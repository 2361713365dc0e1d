"""`[fleet]`: where the shared state is, and who a replica is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.config import ConfigError, FleetSettings, Host, RedisUrl, load

SECRET = {"LAYOVER_FLEET__SECRET": "s"}


def fleet(**values: str) -> FleetSettings:
    return load(None, {f"LAYOVER_FLEET__{key.upper()}": value for key, value in values.items()}).fleet


def refusal(**values: str) -> str:
    with pytest.raises(ConfigError) as refused:
        fleet(**values)
    assert "\n" not in str(refused.value)
    return str(refused.value)


class TestRedisUrl:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("redis://h", RedisUrl("single", (Host("h", 6379),))),
            ("redis://h:1/2", RedisUrl("single", (Host("h", 1),), database=2)),
            ("rediss://[::1]:2/", RedisUrl("single", (Host("::1", 2),), has_tls=True)),
            (
                "redis+sentinel://a,b:3/m/4",
                RedisUrl("sentinel", (Host("a", 26379), Host("b", 3)), service="m", database=4),
            ),
            ("redis+sentinel://a/my-master", RedisUrl("sentinel", (Host("a", 26379),), service="my-master")),
            ("rediss+sentinel://a/m/0", RedisUrl("sentinel", (Host("a", 26379),), service="m", has_tls=True)),
            ("redis+cluster://a,b:3", RedisUrl("cluster", (Host("a", 6379), Host("b", 3)))),
            ("rediss+cluster://a/0", RedisUrl("cluster", (Host("a", 6379),), has_tls=True)),
        ],
    )
    def test_reads__every_form(self, text: str, found: RedisUrl) -> None:
        assert fleet(redis_url=text, secret="s").redis_url == found
        assert RedisUrl.parse(str(found)) == found

    def test_reads__user_and_password_and_shows_neither(self) -> None:
        url = fleet(redis_url="redis://me:p%40ss:w@rd@h:1/2", secret="s").redis_url
        assert (url.username, str(url.password), url.hosts) == ("me", "p@ss:w@rd", (Host("h", 1),))
        assert repr(url) == str(url) == "redis://h:1/2"
        assert "p@ss" not in repr(fleet(redis_url="redis://:p%40ss@h", secret="s"))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("localhost", "such as redis://redis.example:6379/0"),
            ("http://:hunter2@h", "such as redis://redis.example:6379/0"),
            ("redis://:hunter2@", "write it as redis://redis.example"),
            ("redis://:hunter2@a,b", "write it as redis://redis.example"),
            ("redis://:hunter2@h:0", "1 to 65535"),
            ("redis://:hunter2@h:70000", "1 to 65535"),
            ("redis://:hunter2@h/x", "names no database"),
            ("redis://:hunter2@h/0/1", "write it as redis://"),
            ("redis://:hunter2@h?db=1", "write it as redis://"),
            ("redis+sentinel://:hunter2@a", "write it as redis+sentinel://"),
            ("redis+sentinel://:hunter2@a/m/x", "names no database"),
            ("redis+cluster://:hunter2@a/1", "a Cluster has only number 0"),
        ],
    )
    def test_refuses__what_is_none_without_the_password(self, text: str, said: str) -> None:
        told = refusal(redis_url=text, secret="s")
        assert told.startswith("LAYOVER_FLEET__REDIS_URL: fleet.redis_url: ")
        assert said in told
        assert "hunter2" not in told


class TestFleet:
    def test_is_alone__without_a_url(self) -> None:
        assert not fleet(secret="s", region="eu").is_shared
        assert fleet(redis_url="redis://h", secret_file="/s").is_shared
        assert fleet(redis_url_file="/u", secret="s").is_shared

    @pytest.mark.parametrize("key", ["redis_url", "redis_url_file"])
    def test_refuses__a_redis_without_the_secret(self, key: str) -> None:
        told = refusal(**{key: "redis://h"})
        assert told.startswith(f"LAYOVER_FLEET__{key.upper()}: fleet.{key}: needs fleet.secret or fleet.secret_file")

    def test_refuses__a_secret_twice(self) -> None:
        assert "fleet.secret: stands beside fleet.secret_file" in refusal(secret="a", secret_file="b")
        told = refusal(redis_url="redis://h", redis_url_file="b", secret="s")
        assert "fleet.redis_url: stands beside fleet.redis_url_file" in told

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("region", "", "is not a region"),
            ("region", "a b", "is not a region"),
            ("region", "a" * 64, "is not a region"),
            ("advertise_url", "h:1", "is not an origin"),
            ("advertise_url", "http://h:1/path", "is not an origin"),
            ("advertise_url", "http://h:0", "is not an origin"),
            ("min_copies", "-1", ">= 0"),
            ("min_copies", "many", "int"),
            ("nope", "x", "there is no such setting"),
        ],
    )
    def test_refuses__a_bad_value(self, key: str, value: str, said: str) -> None:
        told = refusal(**{key: value})
        assert told.startswith(f"LAYOVER_FLEET__{key.upper()}: fleet.{key}: ")
        assert said in told

    def test_reads__the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.toml"
        file.write_text(
            '[fleet]\nredis_url = "rediss://h"\nregion = "eu-1"\nreplica = "one"\nsecret = "s"\n'
            'advertise_url = "http://10.0.0.1:5000/"\nmin_copies = 2\n'
        )
        found = load(file, {}).fleet
        assert (found.region, found.replica, found.advertise_url, found.min_copies) == (
            "eu-1", "one", "http://10.0.0.1:5000", 2,
        )  # fmt: skip
        assert "'s'" not in repr(found)
