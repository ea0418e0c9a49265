"""What becomes of extensions, tables and indexes of ours when their change is taken back; reads, and drops nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning import look, quoting
from magnus.tuning.ledger import Decision, Made, Verdict
from magnus.tuning.steps import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.session import Connection, Session

_GONE: Final = "gone"


async def decide_extension(session: Session, made: Made) -> Step:
    con = await session.on(made.change["database"])
    name, before = made.change["name"], made.image["version"]
    now = next((item.version for item in await look.extensions(con) if item.name == name), None)
    if now == before:
        return Step(made, Decision(Verdict.IS_BACK, now), now)
    if before is not None:
        return Step(made, Decision(Verdict.CONFLICT, now), now, why="an extension's update cannot be taken back")
    hangs = await con.fetch(_DEPENDENTS, name)
    if hangs:
        why = f"others use it: {', '.join(row[0] for row in hangs)}"
        return Step(made, Decision(Verdict.CONFLICT, now), now, why=why)
    return Step(made, Decision(Verdict.PUT_BACK), now, (f"DROP EXTENSION {quoting.identifier(name)}",))


# What depends on a member of the extension and is no member itself; a rule stands for its view.
_DEPENDENTS: Final = """
WITH members AS (SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                 AND refobjid = (SELECT oid FROM pg_extension WHERE extname = $1)),
hanging AS (
    SELECT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass::oid END AS classid,
           coalesce(w.ev_class, d.objid) AS objid
    FROM members m JOIN pg_depend d ON (d.refclassid, d.refobjid) = (m.classid, m.objid) AND d.deptype IN ('n', 'a')
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid)
SELECT DISTINCT pg_describe_object(classid, objid, 0) FROM hanging
WHERE (classid, objid) NOT IN (SELECT classid, objid FROM members)
"""


async def decide_table(session: Session, made: Made) -> Step:
    """
    Drop what the change made and what is still there, unless it holds rows or others hang on it.
    """
    con = await session.on(made.change["database"])
    sql = []
    for name in made.image["absent"]:
        oid = await con.fetchval("SELECT to_regclass($1)::oid", name)
        if oid is None:
            continue
        if why := await _why_kept(con, name, oid, made.image["absent"]):
            return Step(made, Decision(Verdict.CONFLICT, _GONE), "in use", why=why)
        sql.append(f"DROP TABLE {_qualified(name)}")
    if not sql:
        return Step(made, Decision(Verdict.IS_BACK), None)
    return Step(made, Decision(Verdict.PUT_BACK), "there", tuple(reversed(sql)))


async def decide_index(session: Session, made: Made) -> Step:
    """
    Drop the indexes that the change made, the one of a partitioned table first; bring back one that it dropped.
    """
    con = await session.on(made.change["database"])
    if made.change["after"] is None:
        is_there = await con.fetchval("SELECT to_regclass($1)", quoting.requoted(made.change["name"])) is not None
        definition = made.image["definition"]
        if is_there or definition is None:
            return Step(made, Decision(Verdict.IS_BACK), None)
        return Step(made, Decision(Verdict.PUT_BACK, definition), None, (definition,))
    sql = []
    for name in reversed(made.image["absent"]):
        row = await con.fetchrow(_INDEX, name)
        if row is None or (row["parent"] is not None and row["parent"] in made.image["absent"]):
            continue  # gone, or it goes with the one that took it in
        if row["used_by"] is not None:
            why = f"{row['used_by']} uses it now"
            return Step(made, Decision(Verdict.CONFLICT, _GONE), "in use", why=why)
        sql.append(f"DROP INDEX {'' if row['is_partitioned'] else 'CONCURRENTLY '}IF EXISTS {name}")
    if not sql:
        return Step(made, Decision(Verdict.IS_BACK), None)
    return Step(made, Decision(Verdict.PUT_BACK), "there", tuple(sql))


_INDEX: Final = """
SELECT c.relkind = 'I' AS is_partitioned,
       (SELECT format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(p.relname, '"', '""'))
          FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace
         WHERE h.inhrelid = c.oid) AS parent,
       coalesce((SELECT 'constraint ' || k.conname FROM pg_constraint k WHERE k.conindid = c.oid LIMIT 1),
                CASE WHEN i.indisreplident THEN 'replication' WHEN i.indisclustered THEN 'CLUSTER' END) AS used_by
FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = to_regclass($1)
"""


async def _why_kept(con: Connection, name: str, oid: int, ours: Sequence[str]) -> str:
    if await con.fetchval(f"SELECT EXISTS (SELECT FROM {_qualified(name)})"):  # noqa: S608 - quoted
        return f"{name} holds rows, which are never dropped; empty it, or drop it by hand"
    hanging = [row[0] for row in await con.fetch(_HANGING, oid) if row[0] not in ours]
    return f"others use it: {', '.join(hanging)}" if hanging else ""


_HANGING: Final = """
SELECT DISTINCT pg_describe_object('pg_class'::regclass, w.ev_class, 0) FROM pg_depend d
JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND w.ev_class <> $1
UNION SELECT conrelid::regclass::text FROM pg_constraint WHERE confrelid = $1 AND conrelid <> $1
"""


def _qualified(name: str) -> str:
    return ".".join(quoting.identifier(part) for part in look.place(name).split("."))
