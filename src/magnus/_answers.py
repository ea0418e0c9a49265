"""Values as JSON and back by their type, and the fingerprint of a request; pure, and without a validation library.

Exact: decimals, times and identifiers are texts, a float must be finite. A request's fingerprint is of its values and
not of how they were written: Decimal("10") and Decimal("10.0") are the same, and so are two orders of a mapping's keys.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache
from typing import Any, Final, TypeVar

T = TypeVar("T")

UNREADABLE: Final = (TypeError, ValueError, ArithmeticError, KeyError)
"""What `decode` raises."""

_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_PLAIN: Final = frozenset({str, int, bool, type(None)})  # these very types, no subclasses: JSON has them
_TEXTS: Final = (dt.datetime, dt.date, dt.time)


def fingerprint(request: object) -> bytes:
    """
    Return the SHA-256 of a request; bytes are taken as they are.

    Raises:
        TypeError: it holds something that has no JSON form here.
    """
    if isinstance(request, bytes):
        return hashlib.sha256(request).digest()
    plain = to_plain(request, is_canonical=True)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def encode(value: object) -> str:
    """
    Return a value as JSON text.

    Raises:
        TypeError: it holds something that has no JSON form here.
    """
    return json.dumps(to_plain(value), separators=(",", ":"), allow_nan=False)


def decode(text: str, kind: Any) -> Any:
    """
    Return the value of a type that a text holds.

    Raises:
        TypeError, ValueError, ArithmeticError, KeyError: it holds no such value.
    """
    return from_plain(json.loads(text), kind)


def to_plain(value: Any, *, is_canonical: bool = False) -> Any:  # noqa: C901, PLR0911, PLR0912  # one branch a kind
    """
    Return a value in the types of JSON. `is_canonical`: equal values give equal results.
    """
    if type(value) in _PLAIN:  # most of what there is in an answer
        return value
    if isinstance(value, enum.Enum):
        return to_plain(value.value, is_canonical=is_canonical)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError("a float that is not finite has no JSON form")
        return value
    if isinstance(value, Decimal):
        return f"{_normal(value):f}" if is_canonical else str(value)
    if isinstance(value, _TEXTS):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "model_dump"):
        # A canonical form needs the fields' own values; the model's JSON keeps the zeros of a decimal.
        return to_plain(value.model_dump(mode="python" if is_canonical else "json"), is_canonical=is_canonical)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (name for name, _, _ in _fields(type(value)))
        return {name: to_plain(getattr(value, name), is_canonical=is_canonical) for name in names}
    if isinstance(value, Mapping):
        return {_key(name): to_plain(each, is_canonical=is_canonical) for name, each in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((to_plain(each, is_canonical=is_canonical) for each in value), key=json.dumps)
    if isinstance(value, Sequence):
        return [to_plain(each, is_canonical=is_canonical) for each in value]
    raise TypeError(f"{type(value).__name__} has no JSON form: use a dataclass, a pydantic model or plain values")


def _normal(value: Decimal) -> Decimal:
    if not value.is_finite():
        raise TypeError("a decimal that is not finite has no JSON form")
    return Decimal(0) if value == 0 else value.normalize(_EXACT)


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError("the keys of a mapping must be texts")
    return name


def from_plain(found: Any, kind: Any) -> Any:  # noqa: C901, PLR0911  # one branch a kind
    """
    Return the value of a type that JSON's types hold.
    """
    if type(found) is kind and kind in _PLAIN:
        return found
    read = _READERS.get(kind) if isinstance(kind, type) else None
    if read is not None:
        return read(_checked(found, str))
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return found
    if origin is typing.Annotated:
        return from_plain(found, typing.get_args(kind)[0])
    if origin in {typing.Union, types.UnionType}:
        return _first(found, typing.get_args(kind))
    if origin is typing.Literal:
        return _one_of(found, typing.get_args(kind))
    if origin is not None:
        return _container(found, origin, typing.get_args(kind))
    if kind is None or kind is type(None):
        return _one_of(found, (None,))
    if hasattr(kind, "model_validate"):
        return kind.model_validate(found)
    if dataclasses.is_dataclass(kind):
        return _record(found, kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(found)
    return kind(_checked(found, kind)) if kind in {list, dict} else _simple(found, kind)


def _simple(found: Any, kind: Any) -> Any:
    if kind is float:
        return float(_checked(found, int | float))
    if kind in {tuple, set, frozenset}:
        return kind(_checked(found, list))
    if kind in {str, int, bool}:
        return _checked(found, kind)
    raise TypeError(f"{getattr(kind, '__name__', kind)} cannot be read from JSON")


def _checked(found: Any, kind: Any) -> Any:
    if not isinstance(found, kind) or (kind is not bool and isinstance(found, bool)):
        raise TypeError(f"found {type(found).__name__} in place of {getattr(kind, '__name__', kind)}")
    return found


def _first(found: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return from_plain(found, kind)
        except UNREADABLE:
            continue
    raise TypeError("found none of the types that it may be")


def _one_of(found: Any, values: tuple[Any, ...]) -> Any:
    if found not in values:
        raise ValueError("found none of the values that it may be")
    return found


def _container(found: Any, origin: Any, kinds: tuple[Any, ...]) -> Any:
    if issubclass(origin, Mapping):
        return {name: from_plain(each, kinds[1]) for name, each in _checked(found, dict).items()}
    values = _checked(found, list)
    if origin is tuple and kinds[-1] is not Ellipsis:
        return tuple(from_plain(each, kind) for each, kind in zip(values, kinds, strict=True))
    read = (from_plain(each, kinds[0]) for each in values)
    return tuple(read) if origin is tuple else origin(read) if origin in {set, frozenset} else list(read)


def _record(found: Any, kind: Any) -> Any:
    values, hints = _checked(found, dict), _hints(kind)
    return kind(**{
        name: from_plain(values[name], hints[name])
        for name, is_given, is_needed in _fields(kind)
        if is_given and (is_needed or name in values)
    })


@lru_cache(256)
def _fields(kind: type) -> tuple[tuple[str, bool, bool], ...]:
    """
    Return of each field of a dataclass: its name, whether its constructor takes it, and whether it must have it.
    """
    missing = dataclasses.MISSING
    return tuple(
        (item.name, item.init, item.default is missing and item.default_factory is missing)
        for item in dataclasses.fields(kind)
    )


@lru_cache(256)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _decimal(text: str) -> Decimal:
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError("no finite decimal")
    return found


_READERS: Final[Mapping[Any, Any]] = types.MappingProxyType({
    Decimal: _decimal,
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    uuid.UUID: uuid.UUID,
    bytes: lambda text: base64.b64decode(text, validate=True),
})
