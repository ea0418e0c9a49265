"""How many bytes a value takes in memory, as far as Python can say. Pure."""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_SHARED: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def size_of(value: Any, *, most: int) -> int:
    """
    Return the bytes of a value with everything that it alone leads to; counting ends above `most`.

    Classes, modules and functions belong to the program and are not counted.
    """
    seen: set[int] = set()
    pending = [value]
    total = 0
    while pending and total <= most:
        found = pending.pop()
        if id(found) in seen or isinstance(found, _SHARED):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        pending += gc.get_referents(found)
    return total
