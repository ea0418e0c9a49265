"""What the dashboard shows: a service's own figures, and a server's through `magnus.insight`; it decides nothing."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from magnus import insight, sql
from magnus.web.dashboard import _findings
from magnus.web.dashboard._panels import Panels, Unavailable
from magnus.web.dashboard._routes import is_id
from magnus.web.dashboard._server import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus.config import DatabaseConfig
    from magnus.web.dashboard._recorder import Recorder

Json = dict[str, Any]

_LIMIT: Final = 200
_MOST: Final = 500
_FOLLOWED: Final = 200  # statements whose course is kept
_COURSE: Final = 60  # points of it
_BETWEEN: Final = 5.0  # seconds between two readings of all statements
_DAY: Final = 86_400.0
_BLOCK: Final = 8192
_TEXT: Final = 2000


class Server:
    """
    A server's panels, asked on one connection of the dashboard's own, only while somebody looks.
    """

    def __init__(self, config: Callable[[], DatabaseConfig]) -> None:
        self._config = config
        self._watch = Watch(config)
        self._panels = Panels()
        self._counted = Panels(kept=_BETWEEN)
        self._examined = Panels(kept=_findings.KEPT, limit=_findings.LIMIT)
        self._before: insight.Snapshot | None = None
        self._now: insight.Snapshot | None = None
        self._extension: insight.Extension | None = None
        self._course: dict[int, deque[Json]] = {}
        self._transactions: tuple[float, int] | None = None

    async def panel(self, name: str, arguments: Mapping[str, str]) -> Json | None:
        """
        Return one panel's data; None when there is no panel of that name.
        """
        asked: dict[str, Callable[[], Awaitable[Json]]] = {
            "server": self._server,
            "activity": self._activity,
            "slow": self._slow,
        }
        if name in asked:
            return await self._panels.get(name, asked[name])
        if name == "findings":
            return await self._examined.get(name, lambda: _findings.findings(self._config(), os.environ))
        if name == "queries":
            return await self._queries(arguments)
        if name == "query":
            return await self._query(arguments.get("id", ""))
        return None

    async def close(self) -> None:
        """
        End what is being asked, and the connection.
        """
        await self._panels.close()
        await self._counted.close()
        await self._examined.close()
        await self._watch.close()

    # --- panels

    async def _server(self) -> Json:
        row = dict(await self._watch.run(lambda con: con.fetchrow(sql.text("dashboard_server"))))
        now, transactions = row.pop("now"), row.pop("transactions")
        before, self._transactions = self._transactions, (now, transactions)
        row["tps"] = None if before is None or now <= before[0] else (transactions - before[1]) / (now - before[0])
        row["connections"] = {"used": row.pop("used"), "max": row.pop("max")}
        return {**row, "started_at": row["started_at"].isoformat()}

    async def _activity(self) -> Json:
        found = await _told(self._watch.run(insight.sessions))
        tree = insight.blocking_tree(found)
        return {"sessions": [_session(session) for session in found], "locks": [_blocker(root) for root in tree]}

    async def _slow(self) -> Json:
        async def ask(con: Any) -> Json:
            groups = await insight.groups(con, since=_DAY, limit=50)
            return {"grouped": [_group(group) for group in groups], "latest": await latest(con)}

        found: Json = await _told(self._watch.run(ask))
        return found

    # --- statements

    async def _queries(self, arguments: Mapping[str, str]) -> Json:
        order = arguments.get("sort", "total")
        if order not in insight.ORDERS:
            return {"unavailable": f"statements are not sorted by that; by {', '.join(insight.ORDERS)}"}
        given = arguments.get("limit", "")
        limit = min(int(given), _MOST) if given.isdecimal() and len(given) < 6 else _LIMIT
        wanted = arguments.get("text", "")[:_TEXT].casefold()
        return await self._counted.get(("queries", order, limit, wanted), lambda: self._listed(order, limit, wanted))

    async def _listed(self, order: str, limit: int, wanted: str) -> Json:
        await self._count()
        now, extension = self._now, self._extension
        assert now is not None
        assert extension is not None
        counted = insight.total(now)
        most = len(counted.counted) if wanted else limit
        statements = await _told(
            self._watch.run(lambda con: insight.statements(con, extension, counted, order=order, limit=most))
        )
        matching = [found for found in statements if wanted in found.query.casefold()] if wanted else statements
        return {
            "since": None if now.reset_at is None else now.reset_at.isoformat(),
            "total": len(counted.counted),
            "matching": len(matching) if wanted else len(counted.counted),
            "shown": len(matching[:limit]),
            "rows": [self._row(statement) for statement in matching[:limit]],
        }

    async def _query(self, found_id: str) -> Json:
        if not is_id(found_id) or not found_id.lstrip("-").isdecimal():
            return {"unavailable": "there is no statement of that id"}
        return await self._counted.get(("query", found_id), lambda: self._one(int(found_id)))

    async def _one(self, queryid: int) -> Json:
        await self._count()
        now, extension = self._now, self._extension
        assert now is not None
        assert extension is not None
        counted = {key: entry.counters for key, entry in now.entries.items() if key.queryid == queryid}
        if not counted:
            raise Unavailable("pg_stat_statements does not know this statement (any more)")
        whole = insight.seconds_of(insight.total(now))
        alone = insight.Delta(None, counted)
        (statement, *_) = await _told(
            self._watch.run(lambda con: insight.statements(con, extension, alone, limit=len(counted)))
        ) or [None]
        if statement is None:
            raise Unavailable("this statement is the dashboard's own")
        return {
            **self._row(statement),
            "share": statement.counters.seconds / whole if whole else 0.0,
            "rows_per_call": statement.counters.rows / statement.counters.calls if statement.counters.calls else None,
            "history": list(self._course.get(queryid, ())),
            **await self._logged(queryid),
        }

    async def _logged(self, queryid: int) -> Json:
        """
        What the slow-query log knows of a statement: who calls it, and its plan. Its absence is no failure.
        """

        async def ask(con: Any) -> Json:
            found = await insight.groups(con, since=30 * _DAY, limit=_MOST)
            groups = [group for group in found if group.queryid == queryid]
            plan = await insight.plan(con, groups[0].fingerprint) if groups else None
            return {"callers": [_caller(group) for group in groups], "plan": plan}

        try:
            return await self._watch.run(ask)  # type: ignore[no-any-return]
        except insight.Unavailable as missing:
            why = f"{missing}; {missing.advice}"
            return {"callers": [], "callers_missing": why, "plan": None, "plan_missing": why}

    async def _count(self) -> None:
        found = await self._counted.get("count", self._take)
        if "unavailable" in found:
            raise Unavailable(found["unavailable"])

    async def _take(self) -> Json:
        """
        Read all counters, and add what happened since the reading before to the statements' courses.
        """

        async def ask(con: Any) -> insight.Snapshot:
            self._extension = await insight.extension(con)
            return await insight.snapshot(con, self._extension)

        self._before, self._now = self._now, await _told(self._watch.run(ask))
        if self._before is not None:
            self._follow(insight.delta(self._before, self._now))
        return {}

    def _follow(self, happened: insight.Delta) -> None:
        assert self._now is not None
        entries = self._now.entries
        busiest = sorted(entries, key=lambda key: -entries[key].counters.seconds)[:_FOLLOWED]
        kept: dict[int, deque[Json]] = {}
        for key in busiest:
            counters = happened.counted.get(key)
            course = kept.setdefault(key.queryid, self._course.get(key.queryid, deque(maxlen=_COURSE)))
            mean = 1000 * counters.mean if counters is not None and counters.calls else None
            course.append({"at": time.time(), "calls": 0 if counters is None else counters.calls, "mean_ms": mean})
        self._course = kept

    def _row(self, statement: insight.Statement) -> Json:
        counters = statement.counters
        blocks = counters.blocks_hit + counters.blocks_read
        return {
            "id": str(statement.queryid),
            "query": statement.query,
            "database": statement.database,
            "role": statement.role,
            "share": statement.share,
            "calls": counters.calls,
            "total_ms": 1000 * counters.seconds,
            "mean_ms": 1000 * counters.mean,
            "rows": counters.rows,
            "hit": counters.blocks_hit / blocks if blocks else None,
            "temp_bytes": _BLOCK * (counters.temp_read + counters.temp_written),
            "wal_bytes": counters.wal_bytes,
            "spark": [point["calls"] for point in self._course.get(statement.queryid, ())],
        }


class Service:
    """
    A service's figures beside its server's.
    """

    def __init__(
        self, recorder: Recorder, stats: Callable[[], Json], report: Callable[[], Any], server: Server, title: str
    ) -> None:
        self._recorder = recorder
        self._stats = stats
        self._report = report
        self._server = server
        self._head = head(title)

    def snapshot(self, since: int) -> Json:
        """
        Return what has happened since number `since`, and how it stands.
        """
        points, events = self._recorder.points(since), self._recorder.events(since)
        report = self._report()
        return {
            **self._head,
            "has_pool": True,
            "seq": max([since, *(point["seq"] for point in points), *(event["seq"] for event in events)]),
            "points": points,
            "events": events,
            "stats": self._stats(),
            "health": {"reason": None if report.reason is None else str(report.reason)},
        }

    async def panel(self, name: str, arguments: Mapping[str, str]) -> Json | None:
        return await self._server.panel(name, arguments)


class Alone:
    """
    A server without a service: the dashboard that runs by itself.
    """

    def __init__(self, server: Server, title: str) -> None:
        self._server = server
        self._head = head(title)

    def snapshot(self, since: int) -> Json:
        return {**self._head, "has_pool": False, "seq": since, "points": [], "events": []}

    async def panel(self, name: str, arguments: Mapping[str, str]) -> Json | None:
        return await self._server.panel(name, arguments)


def head(title: str) -> Json:
    """
    Return what tells this run of the program from the next one.
    """
    return {"title": title, "started": f"{os.getpid()}-{time.time():.3f}"}


async def latest(con: Any) -> list[Json]:
    """
    Return the newest rows of the slow-query log, whichever of its columns there are.
    """
    rows = await con.fetch(
        "SELECT to_jsonb(l) AS entry FROM slow_query_log l ORDER BY l.timestamp DESC, l.id DESC LIMIT 50"
    )
    entries = [_json(row["entry"]) for row in rows]
    return [
        {
            "at": entry["timestamp"],
            "duration_ms": entry["duration_ms"],
            "query": entry["query"],
            **{name: entry.get(name) for name in ("lane", "outcome", "caller", "route")},
        }
        for entry in entries
    ]


def _json(text: str) -> Json:
    found: Json = json.loads(text)
    return found


async def _told(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except insight.Unavailable as missing:
        raise Unavailable(f"{missing}; {missing.advice}") from None


def _session(session: insight.Session) -> Json:
    return {
        "pid": session.pid,
        "application": session.application,
        "user": session.role,
        "state": session.state,
        "since": session.state_seconds,
        "wait": session.waits_for or session.wait,
        "query": session.query,
    }


def _blocker(blocker: insight.Blocker) -> Json:
    session = blocker.session
    return {
        "pid": session.pid,
        "user": session.role,
        "application": session.application,
        "state": session.state,
        "since": session.state_seconds,
        "waited": session.query_seconds if session.blocked_by else None,
        "waits_for": session.waits_for,
        "query": session.query,
        "blocks": [_blocker(waiter) for waiter in blocker.waiters],
    }


def _group(group: insight.Group) -> Json:
    return {
        "id": None if group.queryid is None else str(group.queryid),
        "count": group.occurrences,
        "mean_ms": group.avg_ms,
        "max_ms": group.max_ms,
        "last": group.last_at.isoformat(),
        "trend": list(group.trend),
        "query": group.query,
    }


def _caller(group: insight.Group) -> Json:
    return {
        "caller": group.caller, "route": group.route, "lane": None, "count": group.occurrences, "mean_ms": group.avg_ms,
    }  # fmt: skip
