"""What makes two calls of a cached function the same call. Pure; it knows no database and no value."""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

# Equal, and yet not the same question: 0.0 and -0.0, "1.0" and "1.00", one moment in two zones.
_BY_WRITING: Final = frozenset({float, complex, Decimal, datetime, time})


def key_of(function: str, arguments: Sequence[Any], settings: Mapping[str, str]) -> Hashable:
    """
    Return the key of a call: the function's name, every argument with its type, and the settings that it reads under.

    Raises:
        ConfigError: an argument cannot be told apart from others, because it can be changed (a list, a dict).
    """
    found = (function, tuple(_identity(value) for value in arguments), tuple(sorted(settings.items())))
    try:
        hash(found)
    except TypeError:
        wrong = next(value for value in arguments if not _is_hashable(value))
        reason = f"is an argument of the cached function {function} and can be changed; pass a tuple or a frozen value"
        raise ConfigError("cached", type(wrong).__name__, reason) from None
    return found


def _identity(value: Any) -> Hashable:
    kind = type(value)
    if kind is str:
        return kind, value
    if kind in _BY_WRITING:
        return kind, repr(value)
    if kind is tuple or kind is frozenset:
        parts = map(_identity, value)
        return kind, tuple(parts) if kind is tuple else frozenset(parts)
    return kind, value


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
