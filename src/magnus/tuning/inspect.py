"""Where each change of ours stands on the server now: in force, waiting, outranked, or changed by somebody else."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from magnus.tuning import look
from magnus.tuning.change import Kind
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from magnus.tuning.ledger import Made, Run
    from magnus.tuning.session import Connection, Session
    from magnus.tuning.setting import Setting


class State(enum.StrEnum):
    """
    How a change stands.
    """

    IN_FORCE = "in force"
    WAITING = "waits for a restart"
    OUTRANKED = "outranked"
    CHANGED = "changed by somebody else"
    GONE = "gone"
    BROKEN = "does not work"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One change and how it stands; `why` says by what it is outranked, or what is there instead.
    """

    run: str
    id: str
    expected: str
    found: str
    state: State
    quick_win: tuple[str, ...] = ()
    why: str = ""

    @property
    def is_good(self) -> bool:
        return self.state is State.IN_FORCE


def last_of_each(runs: Iterable[Run]) -> list[Made]:
    """
    Return the changes that should stand: of several on one thing, the last.
    """
    found: dict[str, Made] = {}
    for run in runs:
        for made in run.open_changes:
            found.pop(made.id, None)
            found[made.id] = made
    return list(found.values())


async def findings(session: Session, made: Sequence[Made], app: Connection | None = None) -> list[Finding]:
    """
    Look at every change: settings as a session of `app` sees them (its role, its way in), files by the operator's.

    What the application's role may not see is looked up with the operator's.
    """
    own = await look.settings(session.con)
    seen = {**own, **(await look.settings(app) if app is not None else {})}
    entries = await look.entries(session.con, session.site, own)
    roles = {(s.role, s.database, s.name): s.value for s in await look.role_settings(session.con)}
    found = []
    for item in made:
        kind = item.change["kind"]
        if kind == Kind.SETTING:
            found.append(_of_setting(item, seen.get(item.change["name"]), entries, own))
        elif kind == Kind.ROLE_SETTING:
            place = (item.change["role"], item.change["database"], item.change["name"])
            found.append(_of_role(item, roles.get(place), own.get(item.change["name"])))
        else:
            found.append(await _of_object(session, item))
    return found


def _finding(made: Made, found: str | None, state: State, why: str = "") -> Finding:
    wins = tuple(made.change.get("quick_win", ()))
    expected = made.change["after"]
    return Finding(made.run, made.id, _shown(expected), _shown(found), state, wins, why)


def _shown(value: str | None) -> str:
    return "-" if value is None else value


def _of_setting(made: Made, seen: Setting | None, entries: Mapping[str, str], own: Mapping[str, Setting]) -> Finding:
    name, after = made.change["name"], made.change["after"]
    entry, server = entries.get(name.lower()), own.get(name)
    if seen is None or server is None:
        return _finding(made, None, State.GONE, "the server knows no such setting any more")
    if entry is None and after is not None:
        return _finding(made, seen.text, State.GONE, "it is in postgresql.auto.conf no more")
    if entry is not None and after is not None and server.means(entry) != server.means(after):
        return _finding(made, entry, State.CHANGED, "postgresql.auto.conf holds another value")
    if after is None or seen.means(after) == seen.means(seen.value):
        return _finding(made, seen.text, State.IN_FORCE)
    if server.pending_restart and server.when is Context.RESTART:
        return _finding(made, seen.text, State.WAITING)
    return _finding(made, seen.text, State.OUTRANKED, f"the value comes from: {seen.source}")


def _of_role(made: Made, now: str | None, setting: Setting | None) -> Finding:
    after = made.change["after"]
    means = setting.means if setting is not None else str
    if now is None:
        return _finding(made, None, State.GONE, "the role has no such setting any more")
    if means(now) == means(after):
        return _finding(made, now, State.IN_FORCE)
    return _finding(made, now, State.CHANGED, "the role has another value")


async def _of_object(session: Session, made: Made) -> Finding:
    con = await session.on(made.change["database"])
    if made.change["kind"] == Kind.EXTENSION:
        return await _of_extension(con, made)
    missing = [name for name in made.image["absent"] if await con.fetchval("SELECT to_regclass($1)", name) is None]
    if missing:
        return _finding(made, None, State.GONE, f"not there: {', '.join(missing)}")
    if made.change["kind"] == Kind.INDEX:
        is_valid = await con.fetchval(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", look.place(made.change["name"])
        )
        return _finding(made, "there", State.IN_FORCE if is_valid else State.BROKEN)
    return _finding(made, "there", State.IN_FORCE)


async def _of_extension(con: Connection, made: Made) -> Finding:
    """
    An extension that exists but whose library is not loaded fails on every read.
    """
    name = made.change["name"]
    known = {item.name: item for item in await look.extensions(con)}
    version = known[name].version if name in known else None
    if version is None:
        return _finding(made, None, State.GONE, "it was dropped")
    if name != "pg_stat_statements":
        return _finding(made, version, State.IN_FORCE)
    schema = known[name].schema or "public"
    try:
        await con.fetch(f'SELECT 1 FROM "{schema}".pg_stat_statements LIMIT 1')  # noqa: S608 - the catalogue's name
    except asyncpg.ObjectNotInPrerequisiteStateError:
        return _finding(made, version, State.WAITING, "its library is loaded at the next restart")
    return _finding(made, version, State.IN_FORCE)
