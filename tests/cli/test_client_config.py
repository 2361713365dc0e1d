from __future__ import annotations

import argparse
import json
import tomllib

import pytest
import yaml

from mirror.cli import client_config
from mirror.cli.client_config import KINDS, parse_address, render
from mirror.config import BUILT_IN

PLAIN = "http://mirror.example:5000"
TLS = "https://mirror.example"
UPSTREAMS = ("docker.io", "ghcr.io", "*.gcr.io")
HOST_NAMES = [name for name in BUILT_IN if "*" not in name]


def files(kind: str, url: str = PLAIN) -> dict[str, str]:
    """The rendered files by path."""
    return {file.path: file.content for file in render(kind, parse_address(url), UPSTREAMS)}


def run(*words: str) -> int:
    """What `layover client-config …` returns."""
    parser = argparse.ArgumentParser()
    client_config.add(parser.add_subparsers())
    arguments = parser.parse_args(["client-config", *words])
    code: int = arguments.run(arguments)
    return code


@pytest.mark.parametrize("url", [PLAIN, TLS, "http://[2001:db8::1]:5000", "http://mirror", "http://10.0.0.1:80"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_renders_what_its_reader_can_parse__every_kind(kind: str, url: str) -> None:
    for path, content in files(kind, url).items():
        assert content.endswith("\n")
        assert "ca" not in content.split()
        assert "skip_verify" not in content
        match path.rpartition(".")[2]:
            case "toml" | "conf":
                assert tomllib.loads(content)
            case "yaml":
                assert all(yaml.safe_load_all(content))
            case "json":
                assert json.loads(content)
            case ending:
                assert ending == "sh"
                assert content.startswith("#!/bin/sh\n")


def test_knows_every_kind_that_is_promised() -> None:
    assert " ".join(KINDS) == "docker containerd containerd1 podman k3s buildkit kind talos microk8s minikube regctl"


def test_renders_docker() -> None:
    rendered = files("docker")
    assert json.loads(rendered["/etc/docker/daemon.json"]) == {"registry-mirrors": [PLAIN]}
    assert "host" in tomllib.loads(rendered["/etc/docker/certs.d/_default/hosts.toml"])


@pytest.mark.parametrize(
    ("kind", "version", "plugin"),
    [("containerd", 3, "io.containerd.cri.v1.images"), ("containerd1", 2, "io.containerd.grpc.v1.cri")],
)
def test_renders_containerd(kind: str, version: int, plugin: str) -> None:
    main = tomllib.loads(files(kind)["/etc/containerd/config.toml"])
    assert main == {
        "version": version,
        "plugins": {plugin: {"registry": {"config_path": "/etc/containerd/certs.d"}}},
    }


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("containerd", "/etc/containerd/certs.d"),
        ("containerd1", "/etc/containerd/certs.d"),
        ("kind", "certs.d"),
        ("microk8s", "/var/snap/microk8s/current/args/certs.d"),
        ("minikube", "~/.minikube/files/etc/containerd/certs.d"),
    ],
)
@pytest.mark.parametrize("url", [PLAIN, TLS])
def test_renders_hosts_of_containerd(kind: str, folder: str, url: str) -> None:
    rendered = files(kind, url)
    host = {url: {"capabilities": ["pull", "resolve"]}}
    assert tomllib.loads(rendered[f"{folder}/_default/hosts.toml"]) == {"host": host}
    assert tomllib.loads(rendered[f"{folder}/docker.io/hosts.toml"]) == {
        "server": "https://registry-1.docker.io",
        "host": host,
    }


@pytest.mark.parametrize(
    ("url", "host", "more"), [(PLAIN, "mirror.example:5000", {"insecure": True}), (TLS, TLS[8:], {})]
)
def test_renders_podman(url: str, host: str, more: dict[str, bool]) -> None:
    content = files("podman", url)["/etc/containers/registries.conf.d/mirror.conf"]
    assert tomllib.loads(content)["registry"] == [
        {"location": name, "mirror": [{"location": f"{host}/{name}", **more}]} for name in ("docker.io", "ghcr.io")
    ]


def test_says_what_is_not_mirrored__podman_cannot_match_by_glob() -> None:
    content = files("podman")["/etc/containers/registries.conf.d/mirror.conf"]
    assert "# Not mirrored: *.gcr.io." in content


def test_renders_k3s() -> None:
    assert yaml.safe_load(files("k3s")["/etc/rancher/k3s/registries.yaml"]) == {
        "mirrors": {"docker.io": {"endpoint": [PLAIN]}, "*": {"endpoint": [PLAIN]}}
    }


def test_renders_buildkit() -> None:
    upstreams = {name: {"mirrors": ["mirror.example:5000"]} for name in ("docker.io", "ghcr.io")}
    plain = tomllib.loads(files("buildkit")["/etc/buildkit/buildkitd.toml"])
    assert plain == {"registry": {**upstreams, "mirror.example:5000": {"http": True}}}
    tls = tomllib.loads(files("buildkit", TLS)["/etc/buildkit/buildkitd.toml"])
    assert tls == {"registry": {name: {"mirrors": ["mirror.example"]} for name in upstreams}}


def test_renders_kind() -> None:
    cluster = yaml.safe_load(files("kind")["kind.yaml"])
    assert cluster["apiVersion"] == "kind.x-k8s.io/v1alpha4"
    [node] = cluster["nodes"]
    assert node["extraMounts"] == [{"hostPath": "certs.d", "containerPath": "/etc/containerd/certs.d"}]
    [patch] = cluster["containerdConfigPatches"]
    assert tomllib.loads(patch)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["config_path"]


def test_renders_talos() -> None:
    documents = list(yaml.safe_load_all(files("talos")["registry-mirrors.yaml"]))
    assert documents == [
        {"apiVersion": "v1alpha1", "kind": "RegistryMirrorConfig", "name": name, "endpoints": [{"url": PLAIN}]}
        for name in ("docker.io", "ghcr.io", "*")
    ]


def test_renders_minikube() -> None:
    assert f"minikube start --registry-mirror={PLAIN} " in files("minikube")["minikube-start.sh"]


@pytest.mark.parametrize(
    ("url", "host", "tls"), [(PLAIN, "mirror.example:5000", "disabled"), (TLS, TLS[8:], "enabled")]
)
def test_renders_regctl(url: str, host: str, tls: str) -> None:
    assert json.loads(files("regctl", url)["~/.regctl/config.json"]) == {
        "hosts": {"docker.io": {"mirrors": [host]}, "ghcr.io": {"mirrors": [host]}, host: {"tls": tls}}
    }


@pytest.mark.parametrize(
    ("url", "normalised", "host", "is_plain"),
    [
        (PLAIN, PLAIN, "mirror.example:5000", True),
        ("HTTP://Mirror.Example:5000/", PLAIN, "mirror.example:5000", True),
        (TLS, TLS, "mirror.example", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "127.0.0.1:5000", True),
        ("http://[::1]:5000", "http://[::1]:5000", "[::1]:5000", True),
        ("http://localhost", "http://localhost", "localhost", True),
        ("http://mirror", "http://mirror:80", "mirror:80", True),
        ("https://mirror", "https://mirror:443", "mirror:443", False),
    ],
)
def test_parses_address(url: str, normalised: str, host: str, is_plain: bool) -> None:
    assert parse_address(url) == (normalised, host, is_plain)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mirror.example:5000",
        "ftp://mirror.example",
        "http://",
        "http://mirror.example:port",
        "http://mirror.example:70000",
        "http://mirror.example:",
        "http://mirror.example/path",
        "http://mirror.example?ns=x",
        "http://mirror.example#x",
        "http://user:secret@mirror.example",
        "http://mirror.exam ple",
        'http://mirror"example',
        "http://[::1",
    ],
)
def test_refuses_address__not_a_plain_origin(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("docker", "--url", url) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1
    assert "http://mirror.example:5000" in printed.err


def test_prints_paths_and_contents(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("containerd", "--url", PLAIN) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("# ")] == [
        "# /etc/containerd/config.toml",
        "# /etc/containerd/certs.d/_default/hosts.toml",
        "# /etc/containerd/certs.d/docker.io/hosts.toml",
    ]
    assert 'config_path = "/etc/containerd/certs.d"' in printed


def test_prints_json__for_the_built_in_upstreams(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("podman", "--url", PLAIN, "--json") == 0
    [file] = json.loads(capsys.readouterr().out)
    assert file.keys() == {"path", "content"}
    assert [table["location"] for table in tomllib.loads(file["content"])["registry"]] == HOST_NAMES


def test_refuses_kind__unknown() -> None:
    with pytest.raises(SystemExit) as ended:
        run("rkt", "--url", PLAIN)
    assert ended.value.code == 2
