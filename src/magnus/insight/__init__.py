"""What a server tells of its statements and sessions, as read-only views for the command line and for web pages.

`snapshot`, `total`, `delta` and `statements` read pg_stat_statements; `sessions` and `blocking_tree` what goes on now;
`groups` the slow-query log. They take a connection of any kind, or a `Database`; `plan_mode`, which measures whether a
statement wants a plan for each call, takes a connection.
"""

from magnus.insight._counters import (
    ORDERS,
    Counters,
    Delta,
    Entry,
    Key,
    Snapshot,
    Statement,
    calls_of,
    delta,
    seconds_of,
    total,
)
from magnus.insight._errors import Unavailable
from magnus.insight._plan_mode import PlanMode, plan_mode
from magnus.insight._source import Source
from magnus.insight.activity import Blocker, Session, blocking_tree, end, sessions
from magnus.insight.reader import Extension, extension, is_own, snapshot, statements
from magnus.insight.slow import SORTS, Group, groups, plan

__all__ = [  # noqa: RUF022  # plain order, as sorted() has it
    "Blocker",
    "Counters",
    "Delta",
    "Entry",
    "Extension",
    "Group",
    "Key",
    "ORDERS",
    "PlanMode",
    "SORTS",
    "Session",
    "Snapshot",
    "Source",
    "Statement",
    "Unavailable",
    "blocking_tree",
    "calls_of",
    "delta",
    "end",
    "extension",
    "groups",
    "is_own",
    "plan",
    "plan_mode",
    "seconds_of",
    "sessions",
    "snapshot",
    "statements",
    "total",
]
