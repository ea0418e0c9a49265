"""Tools that break a database on purpose, and tell whether anything was lost. Nothing that is shipped imports them.

They work on servers of one's own (`magnus.embedded`) and on any address (`FaultProxy`); never on a server of others.
"""

from __future__ import annotations

from magnus.testing._fake_server import RefusingServer
from magnus.testing._flow import COMMIT, Action, Direction, Rule, Shape
from magnus.testing._ledger import Journal, Verdict, Word, compare, read
from magnus.testing._points import Point, Step, fault_at
from magnus.testing._processes import (
    Process,
    brown_out,
    crash,
    frozen,
    kill,
    processes,
    promote,
    restart_immediately,
    send,
)
from magnus.testing._proxy import FaultProxy, Link, socket_of
from magnus.testing._simloop import SimLoop, Stuck, simulate
from magnus.testing._standby import release_commits, require, standby_name, standby_of, until_replayed

__all__ = [
    "COMMIT",
    "Action",
    "Direction",
    "FaultProxy",
    "Journal",
    "Link",
    "Point",
    "Process",
    "RefusingServer",
    "Rule",
    "Shape",
    "SimLoop",
    "Step",
    "Stuck",
    "Verdict",
    "Word",
    "brown_out",
    "compare",
    "crash",
    "fault_at",
    "frozen",
    "kill",
    "processes",
    "promote",
    "read",
    "release_commits",
    "require",
    "restart_immediately",
    "send",
    "simulate",
    "socket_of",
    "standby_name",
    "standby_of",
    "until_replayed",
]
