"""Reads a connection string in every form that libpq accepts; opens nothing and reads no environment.

The text of an error never holds a piece of the string: it may be a password that was not percent-encoded.
Source of the grammar: PostgreSQL documentation, "Connection Strings" (34.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES: Final = ("postgresql://", "postgres://")
_PORT_MAX: Final = 65_535
_VALUE: Final = r"(?:'((?:[^'\\]|\\.)*)'|((?:[^'\s\\]|\\.)*))"
_PAIR: Final = re.compile(rf"\s*([A-Za-z_][A-Za-z_0-9.]*)\s*=\s*{_VALUE}(?=\s|$)", re.DOTALL)

# What the driver understands as such; the rest of a string's parameters are settings of the server.
_DRIVER: Final = frozenset({
    "gsslib", "krbsrvname", "passfile", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version", "target_session_attrs",
})  # fmt: skip
# Harmless to leave out: sockets are tuned by the pool, and the driver never compresses or negotiates GSS encryption.
_IGNORED: Final = frozenset({
    "client_encoding", "connect_timeout", "fallback_application_name", "gssdelegation", "gssencmode", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "sslcompression", "sslsni", "tcp_user_timeout",
})  # fmt: skip
# Promises the driver cannot keep. Dropping them would weaken what the user asked for.
_REFUSED: Final = frozenset({
    "channel_binding", "hostaddr", "load_balance_hosts", "oauth_client_id", "oauth_issuer", "replication",
    "require_auth", "requirepeer", "requiressl", "sslcertmode", "sslcrldir",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dsn:
    """
    A connection string taken apart. Parts that it does not name are None: the environment fills them at connect.

    Attributes:
        hosts: (host, port) in the order to try; a host that starts with "/" is a socket directory.
        parameters: TLS files, sslmode, passfile, service and such, for the driver.
        settings: Server settings to start the session with.
        connect_timeout: Seconds, when the string names them.
    """

    hosts: tuple[tuple[str, int | None], ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    connect_timeout: float | None = None

    def uri(self) -> str:
        """
        Return the string as a URI without password and without server settings, fit for logs and for the driver.
        """
        query = dict(self.parameters)
        authority = f"{quote(self.user, safe='')}@" if self.user else ""
        if any(host.startswith("/") for host, _ in self.hosts):
            query["host"] = ",".join(host for host, _ in self.hosts)
            if any(port for _, port in self.hosts):
                query["port"] = ",".join(str(port or 5432) for _, port in self.hosts)
        else:
            authority += ",".join(_host_port(host, port) for host, port in self.hosts)
        path = f"/{quote(self.database, safe='')}" if self.database else ""
        text = "&".join(f"{key}={quote(value, safe='/,:')}" for key, value in query.items())
        return f"postgresql://{authority}{path}{'?' + text if text else ''}"


def parse(text: str) -> Dsn:
    """
    Take a connection string apart: a URI, `key=value` pairs, or nothing (the environment decides all).

    Raises:
        ConfigError: with field "dsn"; it names the part at fault, never its text.
    """
    if "\0" in text:
        _refuse("holds a NUL character")
    scheme = next((scheme for scheme in _SCHEMES if text.startswith(scheme)), None)
    if scheme is not None:
        return _from_uri(text[len(scheme) :])
    if "://" in text.split("=", 1)[0]:
        _refuse("must start with postgresql:// or postgres://, or be key=value pairs")
    return _from_pairs(text)


def in_database(text: str, name: str) -> str:
    """
    Return a connection string that leads to another database of the same server.
    """
    if text.startswith(_SCHEMES):
        return f"{text}{'&' if '?' in text else '?'}dbname={quote(name, safe='')}"
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"{text} dbname='{escaped}'".lstrip()


def _from_uri(rest: str) -> Dsn:
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, spec = authority.partition("@")
    if not at:
        user, spec = "", authority
    if "@" in spec or "@" in path:
        _refuse("has more than one @; write an @ in the user or password as %40, and a / as %2F")
    user, colon, password = user.partition(":")
    found = {key: _decode(value, key) for key, value in (("user", user), ("dbname", path)) if value}
    if colon:
        found["password"] = _decode(password, "password")
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            _refuse("has a query part that is not key=value")
        name = _decode(key, "query part")
        found["dbname" if name == "database" else name] = _decode(value, name)
    hosts = _hosts_of(spec)
    return _assemble(found, hosts or None)


def _from_pairs(text: str) -> Dsn:
    found: dict[str, str] = {}
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _PAIR.match(stripped, position)
        if match is None:
            _refuse(f"cannot be read near character {position + 1}: expected key=value, with quotes round spaces")
        quoted, plain = match.group(2), match.group(3)
        found[match.group(1)] = re.sub(r"\\(.)", r"\1", plain if quoted is None else quoted, flags=re.DOTALL)
        position = match.end()
    return _assemble(found, None)


def _assemble(found: dict[str, str], hosts: tuple[tuple[str, int | None], ...] | None) -> Dsn:
    refused = sorted(_REFUSED & found.keys())
    if refused:
        _refuse(f"parameter {refused[0]} is not supported by the driver; remove it or use a proxy that honours it")
    timeout = found.get("connect_timeout")
    ports = [_port(port) for port in found.pop("port", "").split(",") if port]
    if "host" in found:
        names = found.pop("host").split(",")
        if len(ports) not in {0, 1, len(names)}:
            _refuse("names another number of ports than of hosts")
        spread: list[int | None] = [*ports] * len(names) if len(ports) == 1 else [*ports] or [None] * len(names)
        hosts = tuple(zip(names, spread, strict=True))
    elif ports:
        hosts = tuple((host, port or ports[0]) for host, port in hosts or (("localhost", None),))
    rest = {key: value for key, value in found.items() if key not in {"user", "password", "dbname"}}
    return Dsn(
        hosts=tuple(pair for pair in hosts or () if pair[0]),
        user=found.get("user"),
        password=found.get("password"),
        database=found.get("dbname"),
        parameters=MappingProxyType({key: value for key, value in rest.items() if key in _DRIVER}),
        settings=MappingProxyType({k: v for k, v in rest.items() if k not in _DRIVER and k not in _IGNORED}),
        connect_timeout=None if timeout is None else _timeout(timeout),
    )


def _hosts_of(spec: str) -> tuple[tuple[str, int | None], ...]:
    hosts: list[tuple[str, int | None]] = []
    for part in spec.split(",") if spec else ():
        if part.startswith("["):
            host, bracket, port = part[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                _refuse("has an IPv6 address without its closing bracket")
            port = port[1:]
        else:
            host, _, port = part.partition(":")
        hosts.append((_decode(host, "host") or "localhost", _port(port) if port else None))
    return tuple(hosts)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _PORT_MAX:
        _refuse(f"has a port that is no number from 1 to {_PORT_MAX}; write a : in the password as %3A")
    return int(text)


def _timeout(text: str) -> float | None:
    if not text.isascii() or not text.isdigit():
        _refuse("has a connect_timeout that is no whole number of seconds")
    return float(text) or None


def _decode(text: str, name: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        _refuse(f"has a % in {name} that is not followed by two hexadecimal digits; write % as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        _refuse(f"has percent-encoded bytes in {name} that are no UTF-8")


def _host_port(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else quote(host, safe="")
    return name if port is None else f"{name}:{port}"


def _refuse(reason: str) -> NoReturn:
    raise ConfigError("dsn", "***", reason)
