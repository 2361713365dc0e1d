"""The servers that are compared: each one process tree, in front of one origin, on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.replica import Replica, free_port

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_START_SECONDS = 10.0
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
        }}
    }}
}}
"""


class Server(NamedTuple):
    """A server under measurement, by the root of its process tree."""

    name: str
    url: str
    pid: int


def find(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS)))


@contextlib.contextmanager
def layover(origin: str, folder: Path) -> Iterator[Server]:
    """Run a replica with one door and no request lines in its log."""
    settings = {"LAYOVER_SERVER__WORKERS": "1", "LAYOVER_LOG__LEVEL": "warning"}
    with Replica(folder / "layover", upstreams={"docker.io": origin}, settings=settings) as replica:
        yield Server("layover", replica.url, replica.pid)


@contextlib.contextmanager
def nginx(origin: str, folder: Path) -> Iterator[Server]:
    """Run nginx as a caching proxy with two workers and no access log; FileNotFoundError where it is not installed."""
    program = find("nginx")
    if program is None:
        raise FileNotFoundError("nginx")
    place = folder / "nginx"
    place.mkdir()
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = place / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=place, port=port, origin=origin, user=user))
    process = subprocess.Popen((program, "-p", str(place), "-c", str(configuration)))
    server = Server("nginx", f"http://127.0.0.1:{port}", process.pid)
    try:
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_START_SECONDS)
        finally:
            process.kill()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{server.url}/v2/", timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{server.name} did not start")
