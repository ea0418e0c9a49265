"""Numbers as people read them in a column, and a trend as a line of blocks. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)?")
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def span(name: str, text: str) -> float:
    """
    Return the seconds of a text like "90", "15m", "1h" or "7d".

    Raises:
        ConfigError: it is none, or not positive.
    """
    found = _SPAN.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if not 0 < seconds <= 366 * 86_400:
        raise ConfigError(name, text, "must be a duration such as 30s, 15m, 1h or 7d")
    return seconds


def time(seconds: float | None) -> str:
    """
    Return a duration with three digits and a unit that fits: 0.042ms, 41.2ms, 12m38s, 3d4h.
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    for big, small, size in (("m", "s", 60), ("h", "m", 3600)):
        if seconds < size * (60 if big == "m" else 24):
            whole, rest = divmod(round(seconds), size)
            return f"{whole}{big}{rest // (size // 60):02d}{small}"
    whole, rest = divmod(round(seconds), 86_400)
    return f"{whole}d{rest // 3600}h" if rest >= 3600 else f"{whole}d"


def count(number: float) -> str:
    """
    Return a count in groups of three digits.
    """
    return f"{number:,.0f}".replace(",", " ")


def size(number: float) -> str:
    """
    Return a number of bytes with a unit that fits.
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TB"


def trend(parts: Sequence[int]) -> str:
    """
    Return counts as blocks, the tallest for the largest; a dot for nothing.
    """
    most = max(parts, default=0)
    return "".join(_BLOCKS[-(-part * len(_BLOCKS) // most) - 1] if part else "·" for part in parts)


def short(text: str, width: int) -> str:
    """
    Return a text in one line of at most `width` characters.
    """
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def options(given: Sequence[str]) -> dict[str, str]:
    """
    Read NAME=VALUE arguments.

    Raises:
        ConfigError: one has no "=".
    """
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError("--option", text, "must be NAME=VALUE")
        found[name] = value
    return found
