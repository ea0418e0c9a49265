"""One plan, several outputs, one file each: Plan -> text; pure. Another one is another file and a line in `_RENDER`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from magnus.tuning.targets import alter_system, conf, patroni, rds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magnus.tuning.plan import Plan

__all__ = ["Name", "render"]


class Name(enum.StrEnum):
    """
    The forms that a plan can be written in.
    """

    ALTER_SYSTEM = "alter-system"
    CONF = "conf"
    PATRONI = "patroni"
    RDS = "rds"


_RENDER: Final[Mapping[Name, Callable[[Plan], str]]] = {
    Name.ALTER_SYSTEM: alter_system.render,
    Name.CONF: conf.render,
    Name.PATRONI: patroni.render,
    Name.RDS: rds.render,
}


def render(plan: Plan, name: Name) -> str:
    """
    Write a plan for whoever sets the server's values. Every value is quoted for the form that it is written in.

    Raises:
        ConfigError: a change has an impossible name or a value of several lines.
    """
    return _RENDER[name](plan)
