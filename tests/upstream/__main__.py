"""Run the server as a process: `python -m tests.upstream --port P`.

Its addresses go to stdout as one line of JSON once it accepts connections. SIGTERM or SIGINT ends it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from tests.upstream.server import Upstream


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream")
    parser.add_argument("--port", type=int, default=0, help="the registry's port (default: any free one)")
    parser.add_argument("--cdn-port", type=int, default=0, help="the port blobs are redirected to")
    parser.add_argument("--control-port", type=int, default=0, help="a port for /_control/ that pauses do not close")
    options = parser.parse_args()
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with Upstream(options.port, options.cdn_port, options.control_port) as upstream:
        addresses = {"url": upstream.url, "cdn_url": upstream.cdn_url, "control_url": upstream.control_url}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
