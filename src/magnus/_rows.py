"""A row as the type that the caller asked for; knows no server and imports no validation library."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

T = TypeVar("T")


def mapper(row: Callable[..., T]) -> Callable[[asyncpg.Record], T]:
    """
    Return the function that makes a `row` of a record.

    A dataclass gets the columns as keywords; a class with `model_validate` (pydantic) validates a dict of them; any
    other callable gets the record.
    """
    make = row
    if dataclasses.is_dataclass(row):
        return lambda record: make(**record)
    validate: Any = getattr(row, "model_validate", None)
    if validate is not None:
        return lambda record: validate(dict(record))
    return row
