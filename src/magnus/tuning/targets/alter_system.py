"""SQL for psql: one statement each, outside of a transaction block, then a reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magnus.tuning import quoting
from magnus.tuning.targets import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.plan import Plan


def render(plan: Plan) -> str:
    """
    Write a plan as SQL.

    Raises:
        ConfigError: an impossible name or value.
    """
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield from parts.head(plan, "--")
    yield "-- psql -X -v ON_ERROR_STOP=1 -f THIS; not with --single-transaction: ALTER SYSTEM refuses that"
    for change in parts.settings(plan):
        yield parts.why(change, "--")
        yield f"{quoting.alter_system(change.name, change.after)};"
    if parts.settings(plan):
        yield "-- does not wait, and is true even if a file has an error: read pg_settings and pg_file_settings.error"
        yield "SELECT pg_catalog.pg_reload_conf();"
    for change in parts.others(plan):
        yield parts.why(change, "--")
        for text in change.sql:
            statement = text.strip()
            yield statement if statement.endswith(";") else f"{statement};"
