"""A shell script for Amazon RDS and Aurora: the parameter group, changed through its API."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Final

from magnus.tuning import quoting, units
from magnus.tuning.setting import LIST_SETTINGS, Context, split_list
from magnus.tuning.targets import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from magnus.tuning.plan import Change, Plan

_MOST: Final = 20
"""Parameters that one call of ModifyDBParameterGroup takes."""


def render(plan: Plan) -> str:
    """
    Write a plan as calls of `aws rds modify-db-parameter-group`, values in the units that RDS counts in.

    Raises:
        ConfigError: an impossible name or value.
    """
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield "#!/bin/sh"
    yield from parts.head(plan, "#")
    yield "# sh THIS PARAMETER-GROUP; for Aurora the cluster's settings are in modify-db-cluster-parameter-group."
    yield "set -eu"
    found = [change for change in parts.settings(plan) if change.after is not None]
    for start in range(0, len(found), _MOST):
        yield from _call(found[start : start + _MOST])
    if any(change.context is Context.RESTART for change in found):
        yield "# What is pending-reboot waits for: aws rds reboot-db-instance"
    yield from parts.statements(plan, "#")


def _call(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        yield parts.why(change, "#")
    parameters = json.dumps([_parameter(change) for change in changes])
    group = 'aws rds modify-db-parameter-group --db-parameter-group-name "${1:?name the parameter group}"'
    yield f"{group} --parameters {shlex.quote(parameters)}"


def _parameter(change: Change) -> dict[str, str]:
    is_static = change.context is Context.RESTART
    return {
        "ParameterName": quoting.setting_name(change.name),
        "ParameterValue": _value(change),
        "ApplyMethod": "pending-reboot" if is_static else "immediate",
    }


def _value(change: Change) -> str:
    """
    A list without spaces; a number in the setting's own unit, as RDS knows no others.
    """
    value = change.after or ""
    quoting.conf_line(change.name, value)
    if change.name in LIST_SETTINGS:
        return ",".join(split_list(value))
    count = units.number(value, change.unit) if change.unit else None
    return value if count is None else f"{count:.15g}"
