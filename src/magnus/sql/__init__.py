"""The named SQL texts that are shipped as files; opens no connection."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def text(name: str) -> str:
    """
    Return the text of `<name>.sql`.

    Raises:
        FileNotFoundError: there is none.
    """
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
