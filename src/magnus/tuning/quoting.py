"""Names and values as SQL and as lines of a configuration file; the only place of the optimizer that builds such text.

No value reaches SQL or a file unquoted. The name of a setting is checked, not quoted, because ALTER SYSTEM takes
`a.b` as two words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError
from magnus.tuning.setting import LIST_SETTINGS, split_list

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?", re.ASCII)
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^\s".]+)')
_WRITTEN: Final = re.compile(rf"({_PART.pattern})(\.({_PART.pattern}))?")
_LINE_ENDS: Final = re.compile(r"[\0\n\r]")


def setting_name(name: str) -> str:
    """
    Return the name of a setting after checking that it is one.

    Raises:
        ConfigError: it is not made of letters, digits and _, with one dot at most.
    """
    if not _NAME.fullmatch(name) or len(name) > 127:
        raise ConfigError("setting", name, "is no name of a setting")
    return name


def identifier(name: str) -> str:
    """
    Quote a role, database, schema, table or extension.

    Raises:
        ConfigError: empty, or with a NUL character.
    """
    if not name or "\0" in name:
        raise ConfigError("name", name, "must be a name without NUL characters")
    return '"' + name.replace('"', '""') + '"'


def written(name: str) -> str:
    """
    Return a name as people write it in SQL: quoted only where it must be.
    """
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else identifier(name)


def requoted(name: str) -> str:
    """
    Return a name with its schema, both quoted, of how people write it; without a schema it is in public.

    Raises:
        ConfigError: it is no such name.
    """
    if not _WRITTEN.fullmatch(name):
        raise ConfigError("name", name, "is no name with its schema")
    parts = [quoted.replace('""', '"') or plain for quoted, plain in _PART.findall(name)]
    return ".".join(identifier(part) for part in (parts if len(parts) > 1 else ["public", *parts]))


def literal(value: str) -> str:
    """
    Quote a value for SQL, whatever standard_conforming_strings says.

    Raises:
        ConfigError: it holds a line end or a NUL character.
    """
    quoted = _single_line(value).replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in quoted else f"'{quoted}'"


def sql_value(name: str, value: str) -> str:
    """
    Quote a setting's value for ALTER SYSTEM, ALTER ROLE or SET: a list becomes one literal an item.

    `'a,b'` as a single literal would be stored as one library of that name, and the next start would fail.
    """
    if name not in LIST_SETTINGS:
        return literal(value)
    return ", ".join(literal(item) for item in split_list(value)) or "''"


def alter_system(name: str, value: str | None) -> str:
    """
    Return ALTER SYSTEM SET, or RESET for None.

    Raises:
        ConfigError: an impossible name, or a value of several lines.
    """
    if value is None:
        return f"ALTER SYSTEM RESET {setting_name(name)}"
    return f"ALTER SYSTEM SET {setting_name(name)} = {sql_value(name, value)}"


def alter_role(role: str, name: str, value: str | None, *, database: str | None = None) -> str:
    """
    Return ALTER ROLE … SET, or RESET for None.

    Raises:
        ConfigError: an impossible name, or a value of several lines.
    """
    where = f" IN DATABASE {identifier(database)}" if database else ""
    head = f"ALTER ROLE {identifier(role)}{where}"
    if value is None:
        return f"{head} RESET {setting_name(name)}"
    return f"{head} SET {setting_name(name)} = {sql_value(name, value)}"


def conf_line(name: str, value: str) -> str:
    """
    Return `name = 'value'` for postgresql.conf, where a list is one quoted text.

    Raises:
        ConfigError: an impossible name, or a value of several lines.
    """
    quoted = _single_line(value).replace("\\", "\\\\").replace("'", "''")
    return f"{setting_name(name)} = '{quoted}'"


def comment(text: str) -> str:
    """
    Return a text that cannot leave the line of its comment.
    """
    return " ".join(text.split())


def joined(items: Sequence[str]) -> str:
    """
    Return a list setting's value of its items.
    """
    return ", ".join(items)


def _single_line(value: str) -> str:
    if _LINE_ENDS.search(value):
        raise ConfigError("value", value, "must be a single line")
    return value
