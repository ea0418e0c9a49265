"""A file for postgresql.conf's include_dir."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magnus.tuning import quoting
from magnus.tuning.targets import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.plan import Plan


def render(plan: Plan) -> str:
    """
    Write a plan as lines of a configuration file; what is no setting stands there as a comment.

    Raises:
        ConfigError: an impossible name or value.
    """
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield from parts.head(plan, "#")
    yield "# Include it last: include_if_exists = 'magnus.conf'. postgresql.auto.conf (ALTER SYSTEM) outranks it."
    for change in parts.settings(plan):
        if change.after is not None:
            yield parts.why(change, "#")
            yield quoting.conf_line(change.name, change.after)
    yield from parts.statements(plan, "#")
