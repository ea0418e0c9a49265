"""YAML for `patronictl edit-config`, which brings it to every member, standbys first where that matters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from magnus.tuning import quoting
from magnus.tuning.targets import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.plan import Plan


def render(plan: Plan) -> str:
    """
    Write a plan as the part of Patroni's dynamic configuration that it changes.

    Raises:
        ConfigError: an impossible name or value.
    """
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield from parts.head(plan, "#")
    yield "# patronictl edit-config CLUSTER --apply THIS; then, for what needs it: patronictl restart CLUSTER --pending"
    found = [change for change in parts.settings(plan) if change.after is not None]
    if found:
        yield "postgresql:"
        yield "  parameters:"
    for change in found:
        yield parts.why(change, "    #")
        quoting.conf_line(
            change.name, change.after or ""
        )  # Patroni writes such lines: what they refuse is refused here
        yield f"    {change.name}: {json.dumps(change.after)}"  # a JSON text is a YAML text
    yield from parts.statements(plan, "#")
