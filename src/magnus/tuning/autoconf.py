"""The text of postgresql.auto.conf: read, edited and compared without a server; it opens no file.

ALTER SYSTEM rewrites the whole file, drops comments and moves a changed setting to the end, so equal settings do not
mean equal bytes. Undoing has to bring both back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magnus.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "postgresql.auto.conf"

# Lists whose items PostgreSQL quotes one by one (GUC_LIST_QUOTE; no view shows the flag, pg_dump has the same table):
# for an empty one ALTER SYSTEM SET writes a list of one empty name, and the next start fails.
QUOTED_LISTS = frozenset({
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
})

_LINE = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w$.]*)\s*=?\s*(?:'(?P<quoted>(?:[^'\\\n]|''|\\.)*)'|(?P<bare>[^\s'#]+))\s*(?:#.*)?\Z"
)


class AutoConfUnreadable(TuningError):
    """
    A line of postgresql.auto.conf cannot be read, so nothing is changed in it.
    """

    def __init__(self, number: int, line: str) -> None:
        super().__init__(f"{FILE} line {number} cannot be read: {line[:80]!r}; repair it by hand, nothing was changed")
        self.number = number


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One setting of the file: its name in lower case and the value without quotes.
    """

    name: str
    value: str


def parse(content: bytes) -> tuple[Entry, ...]:
    """
    Return the settings in the order of the file, repeated ones included; the last one counts.

    Raises:
        AutoConfUnreadable: a line is neither empty, a comment nor a setting.
    """
    found = []
    for number, line in enumerate(content.decode(errors="surrogateescape").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line.rstrip("\r"))
        if match is None:
            raise AutoConfUnreadable(number, line)
        quoted = match["quoted"]
        value = match["bare"] if quoted is None else _unquoted(quoted)
        found.append(Entry(match["name"].lower(), value))
    return tuple(found)


def values(content: bytes) -> dict[str, str]:
    """
    Return what each setting of the file ends up as.
    """
    return {entry.name: entry.value for entry in parse(content)}


def edit(content: bytes, wanted: Mapping[str, str | None]) -> bytes:
    """
    Return the file with these settings changed (None: removed) and every other line left as it is.

    A setting that is there keeps its place; a new one goes to the end. This is what undoing without a server writes.
    """
    left = {name.lower(): value for name, value in wanted.items()}
    lines = []
    for line in content.decode(errors="surrogateescape").split("\n"):
        match = None if line.lstrip().startswith("#") else _LINE.match(line.rstrip("\r"))
        name = match["name"].lower() if match else None
        if name is None or name not in wanted:
            lines.append(line)
            continue
        value = left.pop(name, None)
        if value is not None:
            lines.append(line_of(name, value))
    fresh = [line_of(name, value) for name, value in left.items() if value is not None]
    if fresh:
        tail = [""] if lines and not lines[-1] else []
        lines = [*(lines[:-1] if tail else lines), *fresh, ""]
    return "\n".join(lines).encode(errors="surrogateescape")


def line_of(name: str, value: str) -> str:
    """
    Return the line that ALTER SYSTEM writes for a setting.
    """
    return f"{name} = '{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(39) * 2)}'"


def _unquoted(text: str) -> str:
    """
    Undo the quoting of configuration files: doubled quotes and backslash escapes.
    """
    simple = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

    def meant(match: re.Match[str]) -> str:
        found = match[0]
        if found == "''":
            return "'"
        code = found[1:]
        return chr(int(code, 8)) if code[0] in "01234567" else simple.get(code, code)

    return re.sub(r"''|\\[0-7]{1,3}|\\.", meant, text)
