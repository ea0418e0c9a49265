"""The named SQL texts that are shipped as files; opens no connection."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

_OLDEST: Final = 15


@cache
def text(name: str) -> str:
    """
    Return the text of `<name>.sql`.

    Raises:
        FileNotFoundError: there is none.
    """
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


@cache
def for_version(name: str, major: int) -> str:
    """
    Return the text of `<name>_<version>.sql` for the highest version up to `major`, else of `<name>.sql`.

    Raises:
        FileNotFoundError: there is none.
    """
    for version in range(major, _OLDEST, -1):
        if resources.files(__name__).joinpath(f"{name}_{version}.sql").is_file():
            return text(f"{name}_{version}")
    return text(name)
