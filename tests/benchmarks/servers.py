"""The servers that are compared: each one process tree, in front of one origin, on a free port of loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.programs import PINNED_FOLDER
from tests.replica import Replica, free_port

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_START_SECONDS = 20.0
_NGINX = """
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log crit;
{user}
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=content:16m max_size=16g inactive=1d use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass {origin};
            proxy_http_version 1.1;
            proxy_cache content;
            proxy_cache_valid 200 1d;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 1h;
            proxy_cache_lock_age 1h;
        }}
    }}
}}
"""


class Missing(RuntimeError):
    """A program without which a row cannot be measured is not installed."""


class Server(NamedTuple):
    """A server under measurement, by the root of its process tree."""

    name: str
    url: str
    pid: int


def find(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    folders = (os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS, str(PINNED_FOLDER))
    return shutil.which(program, path=os.pathsep.join(folders))


def installed(names: Iterable[str]) -> list[str]:
    """Return those of these servers that can be started here."""
    return [name for name in names if name not in _PROGRAMS or find(_PROGRAMS[name]) is not None]


def start(name: str, origin: str, folder: Path) -> AbstractContextManager[Server]:
    """Run a server with its cache in `folder`, which must be there."""
    return _SERVERS[name](origin, folder)


@contextlib.contextmanager
def layover(origin: str, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a replica as it comes, but for the request lines in its log and these settings."""
    settings = {"LAYOVER_LOG__LEVEL": "warning"} | dict(settings or {})
    with Replica(folder / "layover", upstreams={"docker.io": origin}, settings=settings) as replica:
        yield Server("layover", replica.url, replica.pid)


@contextlib.contextmanager
def _nginx(origin: str, folder: Path) -> Iterator[Server]:
    """Run nginx as a caching proxy with two workers."""
    place, port = folder / "nginx", free_port()
    place.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = place / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=place, port=port, origin=origin, user=user))
    with _running("nginx", port, ("-p", str(place), "-c", str(configuration)), place) as server:
        yield server


@contextlib.contextmanager
def _distribution(origin: str, folder: Path) -> Iterator[Server]:
    """Run distribution's registry as a pull-through cache."""
    place, port = folder / "distribution", free_port()
    place.mkdir()
    configuration = place / "config.json"
    document = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "store")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "proxy": {"remoteurl": origin},
    }
    configuration.write_text(json.dumps(document))  # JSON is YAML
    with _running("distribution", port, ("serve", str(configuration)), place) as server:
        yield server


@contextlib.contextmanager
def _zot(origin: str, folder: Path) -> Iterator[Server]:
    """Run zot, which brings images on demand."""
    place, port = folder / "zot", free_port()
    place.mkdir()
    configuration = place / "config.json"
    registry = {"urls": [origin], "onDemand": True, "tlsVerify": False, "content": [{"prefix": "**"}]}
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": str(place / "store"), "gc": False},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "error", "output": str(place / "log")},
        "extensions": {"sync": {"enable": True, "registries": [registry]}},
    }
    configuration.write_text(json.dumps(document))
    with _running("zot", port, ("serve", str(configuration)), place) as server:
        yield server


_SERVERS: Mapping[str, Callable[[str, Path], AbstractContextManager[Server]]] = MappingProxyType(
    {"layover": layover, "nginx": _nginx, "distribution": _distribution, "zot": _zot}
)
NAMES = tuple(_SERVERS)
"""Every server that can be compared; ours first."""

_PROGRAMS = MappingProxyType({"nginx": "nginx", "distribution": "registry", "zot": "zot"})


@contextlib.contextmanager
def _running(name: str, port: int, arguments: tuple[str, ...], place: Path) -> Iterator[Server]:
    program = find(_PROGRAMS[name])
    assert program is not None, f"{name} is not installed"
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (place / "output").open("wb") as output:
        process = subprocess.Popen((program, *arguments), stdout=output, stderr=output, env=environment)
    server = Server(name, f"http://127.0.0.1:{port}", process.pid)
    try:
        _wait(server, process, place / "output")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_START_SECONDS)
        finally:
            process.kill()


def _wait(server: Server, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{server.url}/v2/", timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{server.name} did not start: {output.read_text(errors='replace')[-1000:]}")
