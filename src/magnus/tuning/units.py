"""A setting's value in the units of pg_settings: read, compared, written; pure.

Source of the units: PostgreSQL documentation, "Setting Parameters": memory in powers of 1024, time from us to d.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KB: Final = 1024
MB: Final = KB * 1024
GB: Final = MB * 1024
TB: Final = GB * 1024

_MEMORY: Final[Mapping[str, int]] = MappingProxyType({"B": 1, "kB": KB, "MB": MB, "GB": GB, "TB": TB})
_TIME: Final[Mapping[str, float]] = MappingProxyType({
    "us": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0,
})  # fmt: skip
_NUMBER: Final = re.compile(
    r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]*)\s*", re.ASCII
)
_UNIT: Final = re.compile(r"([0-9]*)([A-Za-z]+)", re.ASCII)
_LENIENT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", re.ASCII | re.IGNORECASE)
_EXTREME: Final = 1e300


def base(unit: str | None) -> tuple[float, Mapping[str, float]]:
    """
    Return how many bytes or milliseconds one of a setting's own unit is ("8kB" is 8192), and the units it may be
    written in. A setting without a unit has factor 1 and none.
    """
    match = _UNIT.fullmatch(unit or "")
    if match is None:
        return 1.0, MappingProxyType({})
    units: Mapping[str, float] = _MEMORY if match[2] in _MEMORY else _TIME
    if match[2] not in units:
        return 1.0, MappingProxyType({})
    return float(match[1] or 1) * units[match[2]], units


def number(text: str, unit: str | None) -> float | None:
    """
    Read a number as the server would, in the setting's own unit: "64MB" in kB is 65536.

    None: not a number, or with a unit that this setting does not know.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = float(match[1])
    if not math.isfinite(value) or abs(value) > _EXTREME:
        return None
    if not match[2]:
        return value
    factor, units = base(unit)
    return value * units[match[2]] / factor if match[2] in units else None


def amount(text: str, unit: str | None) -> float | None:
    """
    Read a number in bytes or milliseconds, whatever the setting's own unit is; plain for one without a unit.
    """
    found = number(text, unit)
    return None if found is None else found * base(unit)[0]


def written(value: float, unit: str | None) -> str:
    """
    Write bytes or milliseconds with the largest unit that keeps them whole: "2GB", not "262144".

    Rounded down to the setting's own unit. -1 and 0, which mean something else than an amount, stay as they are.
    """
    factor, units = base(unit)
    if not units:
        return f"{value:g}" if value != int(value) else str(int(value))
    count = math.floor(value / factor + 1e-9)
    if value <= 0:
        return str(int(value)) if value in {0, -1} else str(count)
    whole = max(1, count) * factor
    for name in sorted(units, key=units.__getitem__, reverse=True):
        if whole >= units[name] and whole % units[name] == 0:
            return f"{int(whole / units[name])}{name}"
    return str(max(1, count))


def shown(bytes_: float) -> str:
    """
    Write bytes for people: three figures at most, "1.5 GB".
    """
    for name, size in (("TB", TB), ("GB", GB), ("MB", MB), ("kB", KB)):
        if abs(bytes_) >= size:
            return f"{bytes_ / size:.3g} {name}" if abs(bytes_) < 1000 * size else f"{bytes_ / size:.0f} {name}"
    return f"{bytes_:.0f} B"


def memory(text: str) -> int | None:
    """
    Read a size as a person types it for a machine: "8GB", "8g", "512 MiB", "1073741824". None: none of these.
    """
    match = _LENIENT.fullmatch(text)
    if match is None:
        return None
    size = float(match[1]) * {"": 1, "k": KB, "m": MB, "g": GB, "t": TB}[match[2].lower()]
    return int(size) if size >= 1 else None
