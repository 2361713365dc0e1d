"""Small requests as fast as they go, by wrk."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence

from tests.benchmarks.clients import ACCEPT
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.servers import Missing, Server, find

_CONNECTIONS = 32
_AT_RANDOM = """
local requests = {}
function init(arguments)
  for path in io.lines(arguments[1]) do requests[#requests + 1] = wrk.format("GET", path) end
end
function request() return requests[math.random(#requests)] end
"""


def requests_per_second(server: Server, path: str, seconds: int) -> tuple[float, float]:
    """Return requests per second over 32 connections, and the server's CPU µs for each.

    RuntimeError when any answer was not the one asked for; Missing when wrk is not installed.
    """
    return _load(server, seconds, server.url + path)


def random_requests_per_second(server: Server, paths: Sequence[str], seconds: int) -> tuple[float, float]:
    """Return the same for requests that each ask for one of many paths."""
    with tempfile.NamedTemporaryFile("w") as script, tempfile.NamedTemporaryFile("w") as wanted:
        script.write(_AT_RANDOM)
        wanted.write("\n".join(paths))
        for file in (script, wanted):
            file.flush()
        return _load(server, seconds, "-s", script.name, server.url, "--", wanted.name)


def _load(server: Server, seconds: int, *arguments: str) -> tuple[float, float]:
    """Run wrk with these arguments.

    RuntimeError when any answer was not the one asked for; Missing when wrk is not installed.
    """
    program = find("wrk")
    if program is None:
        raise Missing("wrk is not installed")
    command = (program, "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-H", f"Accept: {ACCEPT}", *arguments)
    before = cpu_seconds(server.pid)
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30, text=True).stdout
    used = cpu_seconds(server.pid) - before
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", output), re.search(r"(\d+) requests in", output)
    if rate is None or count is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk: {output}")
    return float(rate[1]), used / int(count[1]) * 1e6
