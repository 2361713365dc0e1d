"""From flags, environment and file to `Settings`, or to one clear sentence about what is wrong."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from mirror.config.redis_url import RedisUrl
from mirror.config.settings import PLANNED, PLANNED_PRIVATE, Fleet, Server, Settings
from mirror.config.units import Address, Duration, Origin, Rate, Region, Secret, Size
from mirror.config.upstreams import Upstreams, UpstreamTable
from mirror.oci.errors import LayoverError
from mirror.oci.platform import Platform

DEFAULT_FILE = Path("/etc/layover/layover.toml")
_PREFIX = "LAYOVER_"
# Kubernetes puts these into every pod beside a Service that is named layover; they are nobody's settings.
_KUBERNETES = re.compile(
    r"LAYOVER_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
_TABLES = frozenset({"server", "server.tls", "log", "store", "fleet", "freshness", "prefetch", "access", "upstreams"})
_PATH_IN_MESSAGE = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([^`]*)`")
_JSON = frozenset(
    {
        "server.listen",
        "server.workers",
        "fleet.min_copies",
        "freshness.rules",
        "prefetch.enabled",
        "prefetch.platforms",
        "access.allow",
        "access.deny",
    }
)

Tree = dict[str, Any]


class ConfigError(LayoverError):
    """The configuration is wrong; the text, one line, names the source, the key and what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(each if each.isprintable() else ascii(each)[1:-1] for each in text))


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Return the configuration from `file` (the `--config` flag), `environment` and the default file, in that order.

    Raises:
        ConfigError: a file cannot be read or parsed, a key is unknown or not available yet, or a value is not allowed.
    """
    origins: dict[str, str] = {}
    tree = _read_file(file, environment, origins)
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name != "LAYOVER_CONFIG" and _KUBERNETES.fullmatch(name) is None:
            _apply_variable(tree, name, environment[name], origins)
    _take_planned(tree, origins)
    server = tree.get("server")
    if isinstance(server, dict) and isinstance(server.get("listen"), str):
        server["listen"] = [server["listen"]]
    tables = tree.pop("upstreams", {})
    try:
        upstreams = _upstreams(tables, origins)
        settings = msgspec.convert(tree, Settings, dec_hook=_decode)
        _check_fleet(settings.fleet, origins)
        _check_admin(settings.server, origins)
        return msgspec.structs.replace(settings, upstreams=upstreams)
    except msgspec.ValidationError as error:
        raise _explain(error, origins) from None


def _read_file(file: Path | None, environment: Mapping[str, str], origins: dict[str, str]) -> Tree:
    named = file or (Path(environment["LAYOVER_CONFIG"]) if environment.get("LAYOVER_CONFIG") else None)
    path = named or DEFAULT_FILE
    if named is None and not path.exists():
        return {}
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    origins[""] = str(path)
    return tree


def _apply_variable(tree: Tree, name: str, text: str, origins: dict[str, str]) -> None:
    keys = name.removeprefix(_PREFIX).lower().split("__")
    path = ".".join(keys)
    value: Any = text
    if path in PLANNED or path in _JSON or path in _TABLES:
        value = _json_or_text(name, text)
    for place, key in enumerate(keys[:-1], start=1):
        table = tree.setdefault(key, {})
        if not isinstance(table, dict):
            above = ".".join(keys[:place])
            raise ConfigError(f"{_origin(above, origins)}{above}: Expected a table, got {type(table).__name__}")
        tree = table
    if isinstance(value, dict) and isinstance(tree.get(keys[-1]), dict):
        for key, table in value.items():
            old = tree[keys[-1]].get(key)
            both = isinstance(old, dict) and isinstance(table, dict)
            tree[keys[-1]][key] = {**old, **table} if both else table
    else:
        tree[keys[-1]] = value
    origins[path] = name


def _json_or_text(name: str, text: str) -> Any:
    """Lists, tables, numbers and booleans come as JSON; what is none of these is the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        is_address = name == "LAYOVER_SERVER__LISTEN" and "]:" in text
        if text.lstrip()[:1] in {"[", "{"} and not is_address:
            raise ConfigError(f"{name}: is not JSON: lists and tables are written as JSON") from None
        return text


def _take_planned(tree: Tree, origins: dict[str, str]) -> None:
    """Remove what is written at the default of a feature to come; refuse anything else that is written of it."""
    for path, harmless in PLANNED.items():
        _take(tree, tuple(path.split(".")), harmless, origins)
    _drop_planned(tree, ("server", "tls"), origins)
    upstreams = tree.get("upstreams")
    for name, table in upstreams.items() if isinstance(upstreams, dict) else ():
        if isinstance(table, dict) and table.get("private") in PLANNED_PRIVATE:
            path = _spell(("upstreams", name, "private"))
            raise ConfigError(f"{_origin(path, origins)}{path}: {table['private']!r} is not available yet")


def _take(tree: Tree, keys: tuple[str, ...], harmless: tuple[object, ...], origins: dict[str, str]) -> None:
    table: Any = tree
    for key in keys[:-1]:
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict) or keys[-1] not in table:
        return
    if table.pop(keys[-1]) not in harmless:
        path = _spell(keys)
        raise ConfigError(f"{_origin(path, origins)}{path}: not available yet; remove it")


def _drop_planned(tree: Tree, keys: tuple[str, ...], origins: dict[str, str]) -> None:
    """Remove a table all of whose keys are planned ones, and were taken."""
    table: Any = tree
    for key in keys[:-1]:
        table = table.get(key) if isinstance(table, dict) else None
    left = table.get(keys[-1]) if isinstance(table, dict) else None
    if not isinstance(left, dict):
        return
    for key in left:
        path = _spell((*keys, key))
        raise ConfigError(f"{_origin(path, origins)}{path}: there is no such setting")
    del table[keys[-1]]


def _check_admin(server: Server, origins: dict[str, str]) -> None:
    if server.admin_token and server.admin_token_file:
        path = "server.admin_token"
        raise ConfigError(f"{_origin(path, origins)}{path}: stands beside {path}_file; remove one")


def _check_fleet(fleet: Fleet, origins: dict[str, str]) -> None:
    """Refuse a Redis without the secret by which replicas know one another, and secrets that are given twice."""
    for key in ("redis_url", "secret"):
        if getattr(fleet, key) and getattr(fleet, f"{key}_file"):
            path = f"fleet.{key}"
            raise ConfigError(f"{_origin(path, origins)}{path}: stands beside {path}_file; remove one")
    if fleet.is_shared and not (fleet.secret or fleet.secret_file):
        path = f"fleet.redis_url{'' if fleet.redis_url else '_file'}"
        raise ConfigError(
            f"{_origin(path, origins)}{path}: needs fleet.secret or fleet.secret_file, the same on every replica"
        )


def _upstreams(tables: object, origins: dict[str, str]) -> Upstreams:
    if not isinstance(tables, dict):
        kind = "a list" if isinstance(tables, list) else type(tables).__name__
        raise ConfigError(f"{_origin('upstreams', origins)}upstreams: Expected a table, got {kind}")
    for name, table in tables.items():
        try:
            checked = msgspec.convert(table, UpstreamTable, dec_hook=_decode)
            tables[name] = {key: getattr(checked, key) for key in table}
        except msgspec.ValidationError as error:
            raise _explain(error, origins, _spell(("upstreams", name))) from None
    try:
        return Upstreams(tables)
    except ValueError as error:
        raise ConfigError(f"{_origin('upstreams', origins)}upstreams: {error}") from None


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("a secret is text: write it in quotes")
        return Secret(value)
    parse: Callable[[object], object] | None = {
        Duration: Duration.parse,
        Size: Size.parse,
        Rate: Rate.parse,
        Address: Address.parse,
        Region: Region.parse,
        Origin: Origin.parse,
        RedisUrl: RedisUrl.parse,
        Platform: Platform.parse,
    }.get(kind)
    if parse is None:
        raise ValueError(f"{value!r} is not allowed here")
    return parse(value)


def _explain(error: msgspec.ValidationError, origins: dict[str, str], table: str = "") -> ConfigError:
    text = str(error)
    where = _PATH_IN_MESSAGE.search(text)
    said = _PATH_IN_MESSAGE.sub("", text)
    unknown = _UNKNOWN_FIELD.search(said)
    path = ".".join(filter(None, (table, where[1] if where else "", unknown[1] if unknown else "")))
    if unknown:
        said = "there is no such setting"
    elif said.startswith("Invalid enum value"):
        said = f"{said.removeprefix('Invalid enum value ')} is not one of {', '.join(filter(None, _allowed(path)))}"
    said = said.replace("`object`", "a table").replace("`array`", "a list").replace("`str`", "text")
    return ConfigError(f"{_origin(path, origins)}{path}: {said}")


def _allowed(path: str) -> tuple[str, ...]:
    if path.startswith("upstreams."):
        return get_args(get_type_hints(UpstreamTable)[path.rpartition(".")[2]])
    kind: Any = Settings
    for key in re.sub(r"\[.*?\]", "", path).split("."):
        kind = get_type_hints(kind)[key]
    return get_args(kind)


def _origin(path: str, origins: dict[str, str]) -> str:
    """Return where `path` was written, or else something below it, as a prefix for a message."""
    known = [name for name in origins if name and (path == name or path.startswith((f"{name}.", f"{name}[")))]
    below = [name for name in origins if name.startswith((f"{path}.", f"{path}["))]
    source = origins[max(known, key=len)] if known else origins.get(min(below, default=""), "")
    return f"{source}: " if source else ""


def _spell(keys: tuple[str, ...]) -> str:
    return ".".join(f'"{key}"' if "." in key else key for key in keys)
