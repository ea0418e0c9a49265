"""Finds settings in environment variables and reads them as the fields' types; what they may be is judged elsewhere.

Which fields there are is said by who asks.
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from magnus._lane_settings import from_json
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping
    from dataclasses import Field

_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType({
    "dsn": "DATABASE_URL",
    "min_pool_size": "DB_POOL_MIN",
    "max_pool_size": "DB_POOL_MAX",
    "command_timeout": "DB_QUERY_TIMEOUT",
    "connect_timeout": "DB_CONNECT_TIMEOUT",
    "transaction_timeout": "DB_TRANSACTION_TIMEOUT",
})
_FLAGS: Final[Mapping[str, bool]] = MappingProxyType({
    "1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False,
})  # fmt: skip
# What reads the value of each lane.
_BY_LANE: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType({
    "lanes": from_json, "lane_timeouts": lambda _, limit: limit,
})  # fmt: skip
# Whether what they hold may be secret.
_AS_LIST: Final = MappingProxyType({"slow_log_redact": False, "replicas": True})


def read(
    fields: Iterable[Field[Any]],
    environ: Mapping[str, str],
    given: Container[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """
    Return the values by field, and by field the variable that each came from.

    Args:
        fields: What may be set; those whose default is a text, a number or nothing have a variable of their own.
        environ: The environment.
        given: Fields that somebody else has said already.

    Raises:
        ConfigError: a text is not of the field's type; `field` is the variable's name.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for item in fields:
        if item.name in given or not isinstance(item.default, str | int | float | None) or item.name == "password":
            continue
        for name in (f"MAGNUS_{item.name.upper()}", _OTHER_NAMES.get(item.name, "")):
            if name in environ and item.name not in found and (environ[name] or item.name != "dsn"):
                found[item.name] = _from_text(name, environ[name], type(item.default))
                origin[item.name] = name
    for field, make in _BY_LANE.items():
        name = f"MAGNUS_{field.upper()}"
        if field not in given and environ.get(name):
            found[field] = {lane: make(f"{name}[{lane}]", own) for lane, own in _json(name, environ[name])}
            origin[field] = name
    for field, is_secret in _AS_LIST.items():
        name = f"MAGNUS_{field.upper()}"
        if field not in given and environ.get(name):
            found[field] = _json_list(name, environ[name], secret=is_secret)
            origin[field] = name
    return found, origin


def _from_text(name: str, text: str, kind: type) -> object:
    """
    Read an environment variable for a field whose default is of type `kind`; NoneType is a duration's.
    """
    if kind is str:
        return text
    if kind is bool:
        return _FLAGS.get(text.strip().lower(), text)
    if kind is int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text, re.ASCII):
            raise ConfigError(name, text, "must be a whole number")
        return int(text)
    return float(text) if re.fullmatch(r"\s*[0-9]{1,18}(\.[0-9]{1,18})?\s*", text, re.ASCII) else text


def _json(name: str, text: str) -> Iterable[tuple[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(name, text, 'must be JSON like {"low": …}')
    return found.items()


def _json_list(name: str, text: str, *, secret: bool) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ConfigError(name, "***" if secret else text, 'must be a JSON list like ["one", "another"]')
    return found
