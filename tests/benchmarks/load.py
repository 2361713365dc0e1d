"""Small requests as fast as they go, by wrk."""

from __future__ import annotations

import re
import subprocess

from tests.benchmarks.clients import ACCEPT
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.servers import Missing, Server, find

_CONNECTIONS = 32


def requests_per_second(server: Server, path: str, seconds: int) -> tuple[float, float]:
    """Return requests per second over 32 connections, and the server's CPU µs for each.

    RuntimeError when any answer was not the one asked for; Missing when wrk is not installed.
    """
    program = find("wrk")
    if program is None:
        raise Missing("wrk is not installed")
    command = (program, "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-H", f"Accept: {ACCEPT}", server.url + path)
    before = cpu_seconds(server.pid)
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30, text=True).stdout
    used = cpu_seconds(server.pid) - before
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", output), re.search(r"(\d+) requests in", output)
    if rate is None or count is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk: {output}")
    return float(rate[1]), used / int(count[1]) * 1e6
