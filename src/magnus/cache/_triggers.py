"""The SQL that makes tables tell of their changes, and that takes it back. Pure; it runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus import sql
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST: Final = 200  # bytes of a tag; a notification takes 8,000


def install(tables: Sequence[str]) -> str:
    """
    Return the SQL that makes the table of versions, its function, and a trigger on each table; without tables, only the
    first two. `TABLE=TAG` gives a tag another name than the table's.

    Raises:
        ConfigError: a table's or a tag's name is none.
    """
    parts = [sql.text("cache_versions")]
    for asked in tables:
        table, tag = _named(asked)
        parts.append(
            f"\nINSERT INTO magnus_cache (tag) VALUES ({_text(tag)}) ON CONFLICT DO NOTHING;\n"
            f"CREATE OR REPLACE TRIGGER magnus_cache AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}\n"
            f"    FOR EACH STATEMENT EXECUTE FUNCTION magnus_cache_changed({_text(tag)});\n"
        )
    return "".join(parts)


def remove(tables: Sequence[str]) -> str:
    """
    Return the SQL that takes the triggers off these tables; without tables, everything that `install` made.

    Raises:
        ConfigError: a name is none.
    """
    if not tables:
        return (
            "DROP FUNCTION IF EXISTS magnus_cache_changed() CASCADE;  -- and the triggers with it\n"
            "DROP TABLE IF EXISTS magnus_cache;\n"
        )
    parts = []
    for asked in tables:
        table, tag = _named(asked)
        parts += [
            f"DROP TRIGGER IF EXISTS magnus_cache ON {table};\n",
            f"DELETE FROM magnus_cache WHERE tag = {_text(tag)};\n",  # noqa: S608  # quoted by _text
        ]
    return "".join(parts)


def _named(asked: str) -> tuple[str, str]:
    table, equals, tag = asked.partition("=")
    tag = tag if equals else table
    parts = table.split(".")
    if not all(parts) or len(parts) > 2 or "\0" in asked or not tag or len(tag.encode()) > _LONGEST:
        raise ConfigError("TABLE", asked, "must be a table, schema.table or table=tag")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts), tag


def _text(value: str) -> str:
    quoted = value.replace("'", "''")
    return f"E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in quoted else f"'{quoted}'"
