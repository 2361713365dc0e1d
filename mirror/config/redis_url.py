"""Where the state that a fleet shares is found, as `fleet.redis_url` spells it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, Self
from urllib.parse import unquote

from mirror.config.units import Secret

Form = Literal["single", "sentinel", "cluster"]
_SCHEME = re.compile(r"(redis|rediss)(?:\+(sentinel|cluster))?://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_EXAMPLES = {
    "single": "redis://redis.example:6379/0",
    "sentinel": "redis+sentinel://one.example:26379,two.example:26379/master/0",
    "cluster": "redis+cluster://one.example:6379,two.example:6379",
}
_ANY = "redis://, rediss://, redis+sentinel:// or redis+cluster:// (rediss+… with TLS)"
_MOST_DATABASES = 1 << 16
_NO_PASSWORD = Secret()


class Host(NamedTuple):
    """A server's name and port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class RedisUrl:
    """One Redis or Valkey, the sentinels that know where it is, or some nodes of a Cluster. Prints without password.

    `service` is what the sentinels call it.
    """

    __slots__ = ("database", "form", "has_tls", "hosts", "password", "service", "username")

    def __init__(
        self,
        form: Form = "single",
        hosts: tuple[Host, ...] = (),
        *,
        has_tls: bool = False,
        service: str = "",
        database: int = 0,
        login: tuple[str, Secret] = ("", _NO_PASSWORD),
    ) -> None:
        self.form: Form = form
        self.hosts = hosts
        self.has_tls = has_tls
        self.service = service
        self.database = database
        self.username, self.password = login

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the address that `text` spells; nothing is no Redis, and false.

        Raises:
            ValueError: `text` is anything else; the error does not show the password.
        """
        if text == "":
            return cls()
        found = _SCHEME.match(text) if isinstance(text, str) else None
        if not isinstance(text, str) or found is None:
            raise ValueError(f"is not a Redis URL: write {_ANY}, such as {_EXAMPLES['single']}")
        form: Form = {"sentinel": "sentinel", "cluster": "cluster"}.get(found[2], "single")  # type: ignore[assignment]
        login, _, rest = text[found.end() :].rpartition("@")
        authority, *path = rest.split("/")
        hosts = [_HOST.fullmatch(each) for each in authority.split(",")]
        names = [each for each in path if each]
        service = names.pop(0) if form == "sentinel" and names else ""
        database = names.pop(0) if names else "0"
        is_whole = all(hosts) and not names and (form != "single" or len(hosts) == 1)
        if not is_whole or (form == "sentinel") != bool(_NAME.fullmatch(service)):
            raise ValueError(f"is not a Redis URL of this kind: write it as {_EXAMPLES[form]}")
        if not database.isdecimal() or len(database) > 5 or int(database) >= _MOST_DATABASES:
            raise ValueError(f"names no database: write its number at the end, as in {_EXAMPLES[form]}")
        if form == "cluster" and int(database):
            raise ValueError("names a database: a Cluster has only number 0")
        username, _, password = login.partition(":")
        return cls(
            form,
            tuple(_host(each, _PORTS[form]) for each in hosts if each),
            has_tls=found[1] == "rediss",
            service=service,
            database=int(database),
            login=(unquote(username), Secret(unquote(password))),
        )

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisUrl) and all(getattr(self, key) == getattr(other, key) for key in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.form, self.hosts, self.service, self.database))

    def __str__(self) -> str:
        if not self:
            return ""
        scheme = ("rediss" if self.has_tls else "redis") + ("" if self.form == "single" else f"+{self.form}")
        service = f"/{self.service}" if self.service else ""
        database = f"/{self.database}" if self.form != "cluster" else ""
        return f"{scheme}://{','.join(map(str, self.hosts))}{service}{database}"

    __repr__ = __str__


def _host(found: re.Match[str], port: int) -> Host:
    number = int(found[2] or port)
    if not 0 < number < 1 << 16:
        raise ValueError(f"names port {number}: a port is 1 to 65535")
    return Host(found[1].strip("[]"), number)
