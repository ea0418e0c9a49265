"""SQL in named files beside this module; it opens no connection."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """
    Return the text of `name`.sql; a folder is part of the name ("audit/trades").

    Raises:
        FileNotFoundError: there is no such file.
    """
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
