"""Reads single values of settings: durations, counts, numbers, texts, flags.

Whoever asks names the field, and the error says it; which fields there are is `config`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final[Mapping[str, float]] = MappingProxyType({
    "": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0,
})  # fmt: skip
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")
_LONGEST: Final = 2_147_483.0  # the server keeps a limit as 32-bit milliseconds


def seconds(name: str, value: object, *, least: float = 0.001) -> float:
    """
    Return a duration as float seconds, from a number or a text with a PostgreSQL unit.

    Raises:
        ConfigError: not a duration, below `least`, or more than the server can keep (2,147,483 s).
    """
    found: float | None = None
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match and match.group(2) in _UNITS:
            found = float(match.group(1)) * _UNITS[match.group(2)]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    if found is None or not least <= found <= _LONGEST:
        raise ConfigError(name, value, f"must be a duration from {least:g} to {_LONGEST:.0f} seconds")
    return found


def milliseconds(duration: float) -> str:
    """
    Return a duration in seconds as the server reads it: whole milliseconds, never 0 (which would mean no limit).
    """
    return str(max(1, round(duration * 1000)))


def whole(name: str, value: object, least: int) -> None:
    """
    Refuse what is no whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(name, value, f"must be a whole number of at least {least}")


def text(name: str, value: object, *, secret: bool = False) -> str:
    """
    Return a text as the server can take it; one that is `secret` is not shown in the error.
    """
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(name, "***" if secret else value, "must be a text without NUL characters")
    return value


def flag(name: str, value: object) -> None:
    """
    Refuse what is neither true nor false.
    """
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be true or false")


def factor(name: str, value: object) -> float:
    """
    Return a factor that does not shrink.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise ConfigError(name, value, "must be a number of at least 1")
    return float(value)


def number(name: str, value: object) -> float:
    """
    Return a number that is not negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(name, value, "must be a number of at least 0")
    return float(value)


def expressions(name: str, found: object) -> tuple[str, ...]:
    """
    Return regular expressions, each of which compiles.
    """
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError(name, found, "must be a sequence of regular expressions")
    rules = tuple(found)
    for rule in rules:
        try:
            re.compile(text(name, rule))
        except re.error as error:
            raise ConfigError(name, rule, f"is no regular expression: {error}") from None
    return rules
