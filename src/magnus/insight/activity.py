"""Sessions as they are now, and who blocks whom as a tree; cancelling one is the only thing done to a server here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import sql
from magnus._normalise import normalised
from magnus.insight._errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.insight._source import Source

_LIMIT: Final = 5.0
_PREPARED: Final = 0  # the server's pid for a prepared transaction, which has no session


@dataclass(frozen=True, slots=True)
class Session:
    """
    One session; durations in seconds, `query` without constants.

    Attributes:
        pid: Of its process; 0 stands for prepared transactions, which hold locks and have none.
        blocked_by: Pids that it waits for.
        waits_for: The lock that it waits for, "ShareLock on trades".
    """

    pid: int
    database: str | None
    role: str | None
    application: str
    client: str | None
    state: str | None
    wait: str | None
    backend_type: str
    queryid: int | None
    query: str
    session_seconds: float | None
    transaction_seconds: float | None
    query_seconds: float | None
    state_seconds: float | None
    blocked_by: tuple[int, ...]
    waits_for: str | None

    def as_dict(self) -> dict[str, Any]:
        """
        Return it ready for JSON; `queryid` as a text, which JavaScript would round.
        """
        found = asdict(self)
        for name in ("session_seconds", "transaction_seconds", "query_seconds", "state_seconds"):
            found[name] = None if found[name] is None else round(found[name], 3)
        return {
            **found,
            "queryid": None if self.queryid is None else str(self.queryid),
            "blocked_by": list(self.blocked_by),
        }


@dataclass(frozen=True, slots=True)
class Blocker:
    """
    A session and those that wait for it, directly.
    """

    session: Session
    waiters: tuple[Blocker, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"pid": self.session.pid, "waiters": [waiter.as_dict() for waiter in self.waiters]}


async def sessions(con: Source, *, with_own: bool = False) -> list[Session]:
    """
    Return the client sessions of a server. Of other roles' sessions little is shown without pg_read_all_stats.
    """
    rows = await con.fetch(sql.text("insight_sessions"), with_own, timeout=_LIMIT)
    return [_session(dict(row)) for row in rows]


def _session(row: dict[str, Any]) -> Session:
    kind, event = row["wait_event_type"], row["wait_event"]
    return Session(
        pid=row["pid"],
        database=row["database"],
        role=row["role"],
        application=row["application"] or "",
        client=row["client"],
        state=row["state"],
        wait=None if kind is None else f"{kind}:{event}",
        backend_type=row["backend_type"] or "",
        queryid=row["query_id"],
        query=_shown(row["query"] or ""),
        session_seconds=row["session_seconds"],
        transaction_seconds=row["transaction_seconds"],
        query_seconds=row["query_seconds"],
        state_seconds=row["state_seconds"],
        blocked_by=tuple(dict.fromkeys(row["blocked_by"])),
        waits_for=row["waits_for"],
    )


def _shown(query: str) -> str:
    return query if query.startswith("<insufficient privilege>") else normalised(query).text


def blocking_tree(found: Sequence[Session]) -> list[Blocker]:
    """
    Return the sessions that block others and wait for nobody, each with those that wait for it below it.

    In a deadlock everybody waits: then its first session stands at the root, and appears only once.
    """
    by_pid = {session.pid: session for session in found}
    for session in found:
        for pid in session.blocked_by:
            by_pid.setdefault(pid, _unseen(pid))
    waiting = {pid: [other for other in by_pid.values() if pid in other.blocked_by] for pid in by_pid}
    placed: set[int] = set()

    def below(session: Session) -> Blocker:
        placed.add(session.pid)
        return Blocker(session, tuple(below(other) for other in waiting[session.pid] if other.pid not in placed))

    roots = [session for session in by_pid.values() if waiting[session.pid] and not session.blocked_by]
    trees = [below(session) for session in roots]
    trees += [below(session) for session in by_pid.values() if session.blocked_by and session.pid not in placed]
    return trees


def _unseen(pid: int) -> Session:
    """
    Return what stands for a blocker that is no session, or has ended meanwhile.
    """
    kind = "prepared transaction" if pid == _PREPARED else "ended"
    nothing = Session(
        pid, None, None, "", None, None, None, kind, None, "", None, None, None, None, (), None
    )  # fmt: skip
    return replace(nothing, query=f"<{kind}>")


async def end(con: Source, pid: int, *, whole_session: bool) -> bool:
    """
    Cancel what a session runs, or end the session; return whether the server sent the signal.

    Raises:
        Unavailable: this role may not.
    """
    function = "pg_terminate_backend" if whole_session else "pg_cancel_backend"
    try:
        return bool(await con.fetchval(f"SELECT pg_catalog.{function}($1)", pid, timeout=_LIMIT))
    except asyncpg.InsufficientPrivilegeError:
        raise Unavailable(
            "not_permitted",
            f"this role may not signal session {pid}",
            "connect as its role or a member of it, or: GRANT pg_signal_backend TO this role",
        ) from None
