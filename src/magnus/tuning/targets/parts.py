"""What every output has in common: its head, and which changes go where; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magnus.tuning.change import Kind
from magnus.tuning.quoting import comment
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.plan import Change, Plan


def head(plan: Plan, mark: str) -> Iterator[str]:
    """
    Yield comment lines that say which plan this is, of which server.
    """
    target = plan.target
    yield f"{mark} Plan {plan.digest[:12]} of magnus {comment(plan.magnus_version)}, {comment(plan.created)}"
    where = f"{target.cluster_name or target.database} {target.host}:{target.port}"
    yield f"{mark} for {comment(where)}, system {comment(target.system_identifier)}"
    for warning in plan.warnings:
        yield f"{mark} warning: {comment(warning)}"


def settings(plan: Plan) -> list[Change]:
    """
    Return the changes of the server's own settings.
    """
    return [change for change in plan.changes if change.kind is Kind.SETTING]


def others(plan: Plan) -> list[Change]:
    """
    Return the changes that are SQL wherever the server runs: extensions, tables, roles' settings.
    """
    return [change for change in plan.changes if change.kind is not Kind.SETTING]


def why(change: Change, mark: str) -> str:
    """
    Return the comment of a change: before, when it takes effect, why.
    """
    if change.kind is not Kind.SETTING:
        return f"{mark} {comment(change.reason)}"
    when = {Context.NOW: "reload", Context.NEW_SESSIONS: "new sessions", Context.RESTART: "restart"}[change.context]
    before = "nothing" if change.before in {None, ""} else change.before
    return f"{mark} was {comment(before or '')}; {when}; {comment(change.reason)}"


def statements(plan: Plan, mark: str) -> Iterator[str]:
    """
    Yield the other changes as comments with their SQL, to be run by hand.
    """
    for change in others(plan):
        where = f" in database {comment(change.database)}" if change.database else ""
        yield f"{mark} run as SQL{where}: {comment(change.reason)}"
        for text in change.sql:
            for line in text.strip().splitlines():
                yield f"{mark}   {line}"
