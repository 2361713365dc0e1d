"""`layover client-config KIND`: the files that point a client at the mirror, with nothing left to fill in."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.config import load

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_IPV6 = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")


class ConfigFile(NamedTuple):
    """One file of a client's configuration: where it goes, and what it holds."""

    path: str
    content: str


class MirrorAddress(NamedTuple):
    """The mirror as clients reach it: a normalised URL without a path, and the host as it stands in image names."""

    url: str
    host: str
    is_plain: bool


def parse_address(url: str) -> MirrorAddress:
    """Return the address that `url` spells.

    Raises:
        ValueError: it is no http or https URL, or has more than a host and a port.
    """
    expected = f"{url!r} is not the mirror's address: write it as http://mirror.example:5000"
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(expected) from None
    is_ipv6 = _IPV6.fullmatch(name) is not None
    has_more = parts.path.strip("/") or "?" in url or "#" in url or "@" in parts.netloc or parts.netloc.endswith(":")
    if parts.scheme not in {"http", "https"} or has_more or not (is_ipv6 or _HOST_NAME.fullmatch(name)):
        raise ValueError(expected)
    host = f"[{name}]" if is_ipv6 else name
    # In an image's name `mirror/docker.io/…` would be a repository of Docker Hub: a port makes the name a host.
    if port is None and "." not in host and not is_ipv6 and host != "localhost":
        port = 443 if parts.scheme == "https" else 80
    host = host if port is None else f"{host}:{port}"
    return MirrorAddress(f"{parts.scheme}://{host}", host, parts.scheme == "http")


def render(kind: str, address: MirrorAddress, upstreams: Sequence[str]) -> list[ConfigFile]:
    """Return the files that make a client of `kind`, one of `KINDS`, pull images of `upstreams` through the mirror.

    `upstreams` are names and globs; a client that cannot match by glob gets the names alone.
    """
    return KINDS[kind](address, upstreams)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("client-config", help="print the configuration that points a client at the mirror")
    parser.add_argument("kind", metavar="KIND", choices=tuple(KINDS), help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--url", required=True, help="the mirror's address as clients see it")
    parser.add_argument("--json", action="store_true", help="print a list of objects with path and content")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the files, and return the exit code."""
    try:
        address = parse_address(arguments.url)
    except ValueError as error:
        print(f"layover client-config: --url: {error}", file=sys.stderr)
        return 2
    files = render(arguments.kind, address, load(None, os.environ).upstreams.names)
    if arguments.json:
        print(json.dumps([file._asdict() for file in files], indent=2))
    else:
        print("\n".join(f"# {file.path}\n{file.content}" for file in files), end="")
    return 0


def _exact(upstreams: Sequence[str]) -> list[str]:
    return [name for name in upstreams if "*" not in name]


def _globs(upstreams: Sequence[str]) -> list[str]:
    return [name for name in upstreams if "*" in name]


def _hosts(address: MirrorAddress, folder: str) -> list[ConfigFile]:
    """Without "resolve" the mirror would never see a tag; `ca` or `skip_verify` would make http start as https."""
    host = f'[host."{address.url}"]\n  capabilities = ["pull", "resolve"]\n'
    hub = f'server = "https://registry-1.docker.io"\n\n{host}'
    return [ConfigFile(f"{folder}/_default/hosts.toml", host), ConfigFile(f"{folder}/docker.io/hosts.toml", hub)]


def _docker(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    """`registry-mirrors` serves Docker Hub alone; the containerd image store also reads hosts.toml, for the others."""
    daemon = json.dumps({"registry-mirrors": [address.url]}, indent=2)
    others, _hub = _hosts(address, "/etc/docker/certs.d")
    return [ConfigFile("/etc/docker/daemon.json", f"{daemon}\n"), others]


def _containerd(address: MirrorAddress, version: int, plugin: str) -> list[ConfigFile]:
    folder = "/etc/containerd/certs.d"
    main = f'version = {version}\n\n[plugins."{plugin}".registry]\n  config_path = "{folder}"\n'
    return [ConfigFile("/etc/containerd/config.toml", main), *_hosts(address, folder)]


def _containerd2(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    return _containerd(address, 3, "io.containerd.cri.v1.images")


def _containerd1(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    return _containerd(address, 2, "io.containerd.grpc.v1.cri")


def _podman(address: MirrorAddress, upstreams: Sequence[str]) -> list[ConfigFile]:
    insecure = "insecure = true\n" if address.is_plain else ""
    tables = [
        f'[[registry]]\nlocation = "{name}"\n[[registry.mirror]]\nlocation = "{address.host}/{name}"\n{insecure}'
        for name in _exact(upstreams)
    ]
    if globs := _globs(upstreams):
        tables.append(
            f"# Not mirrored: {' '.join(globs)}. A mirror of such a pattern would not be told which host was meant;\n"
            "# a host of them that is listed here by its own name, like those above, is.\n"
        )
    return [ConfigFile("/etc/containers/registries.conf.d/mirror.conf", "\n".join(tables))]


def _k3s(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    entries = "".join(f'  "{name}":\n    endpoint: ["{address.url}"]\n' for name in ("docker.io", "*"))
    return [ConfigFile("/etc/rancher/k3s/registries.yaml", f"mirrors:\n{entries}")]


def _buildkit(address: MirrorAddress, upstreams: Sequence[str]) -> list[ConfigFile]:
    tables = [f'[registry."{name}"]\n  mirrors = ["{address.host}"]\n' for name in _exact(upstreams)]
    if address.is_plain:
        tables.append(f'[registry."{address.host}"]\n  http = true\n')
    return [ConfigFile("/etc/buildkit/buildkitd.toml", "\n".join(tables))]


def _kind(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    cluster = (
        "# From the folder with this file and certs.d: kind create cluster --config kind.yaml\n"
        "kind: Cluster\n"
        "apiVersion: kind.x-k8s.io/v1alpha4\n"
        "containerdConfigPatches: # nodes older than kind 0.27 need it\n"
        "  - |-\n"
        '    [plugins."io.containerd.grpc.v1.cri".registry]\n'
        '      config_path = "/etc/containerd/certs.d"\n'
        "nodes:\n"
        "  - role: control-plane\n"
        "    extraMounts:\n"
        "      - hostPath: certs.d\n"
        "        containerPath: /etc/containerd/certs.d\n"
    )
    return [ConfigFile("kind.yaml", cluster), *_hosts(address, "certs.d")]


def _talos(address: MirrorAddress, upstreams: Sequence[str]) -> list[ConfigFile]:
    """One document for each upstream, and one for the rest, among them the hosts that only globs name."""
    documents = [
        f'apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: "{name}"\nendpoints:\n  - url: {address.url}\n'
        for name in (*_exact(upstreams), "*")
    ]
    return [ConfigFile("registry-mirrors.yaml", "---\n".join(documents))]


def _microk8s(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    return _hosts(address, "/var/snap/microk8s/current/args/certs.d")


def _minikube(address: MirrorAddress, _: Sequence[str]) -> list[ConfigFile]:
    """The flag reaches the docker runtime alone; what lies under `files` is copied into the node, for containerd."""
    start = f'#!/bin/sh\nexec minikube start --registry-mirror={address.url} "$@"\n'
    return [
        ConfigFile("minikube-start.sh", start),
        *_hosts(address, "~/.minikube/files/etc/containerd/certs.d"),
    ]


def _regctl(address: MirrorAddress, upstreams: Sequence[str]) -> list[ConfigFile]:
    hosts: dict[str, object] = {name: {"mirrors": [address.host]} for name in _exact(upstreams)}
    hosts[address.host] = {"tls": "disabled" if address.is_plain else "enabled"}
    return [ConfigFile("~/.regctl/config.json", json.dumps({"hosts": hosts}, indent=2) + "\n")]


KINDS: Mapping[str, Callable[[MirrorAddress, Sequence[str]], list[ConfigFile]]] = MappingProxyType(
    {
        "docker": _docker,
        "containerd": _containerd2,
        "containerd1": _containerd1,
        "podman": _podman,
        "k3s": _k3s,
        "buildkit": _buildkit,
        "kind": _kind,
        "talos": _talos,
        "microk8s": _microk8s,
        "minikube": _minikube,
        "regctl": _regctl,
    }
)
