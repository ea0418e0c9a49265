"""The generic plan of a statement and the server's id for it, asked on the log's own connection."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from magnus._normalise import spelled_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus._driver import Connection

_LIMIT: Final = 3.0
_PREPARE: Final = """
SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '2s'
"""
_LABEL: Final = "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder LIMIT 1"
_names: Final = count(1)

_NUMBERS: Final = dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8", "oid", "money"), "1")
_TEXTS: Final = dict.fromkeys(("text", "varchar", "bpchar", "name", "char", "tsvector", "tsquery", "citext"), "a")
_TIMES: Final = dict.fromkeys(("date", "timestamp", "timestamptz"), "2020-01-01")
_SAMPLES: Final[dict[str, str]] = {
    **_NUMBERS, **_TEXTS, **_TIMES, "time": "00:00", "timetz": "00:00Z", "interval": "1 s", "bool": "true",
    "uuid": "00000000-0000-0000-0000-000000000000", "json": "{}", "jsonb": "{}", "bytea": "", "xml": "<a/>",
    "inet": "127.0.0.1", "cidr": "127.0.0.0/8", "macaddr": "08:00:2b:01:02:03", "bit": "1", "varbit": "1",
    "point": "(0,0)", "regclass": "pg_class", "regtype": "int4", "pg_lsn": "0/0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What EXPLAIN said: the server's id of the statement, the plan without constants, its estimated cost.
    """

    queryid: int | None
    plan: Any
    cost: float


async def explained(con: Connection, text: str) -> Plan | None:
    """
    Return the generic plan of one statement, None for one whose parameters are of a type that nothing is known of.

    It is prepared and EXPLAINed, never executed. Its arguments are not looked at under force_generic_plan, yet they
    are never NULL, for which partitions would be pruned.

    Raises:
        Exception: whatever the driver raises; the transaction is rolled back.
    """
    transaction = con.transaction(readonly=True)
    await transaction.start()
    try:
        await con.execute(_PREPARE, timeout=_LIMIT)
        name = f"magnus_plan_{next(_names)}"
        statement = await con.prepare(text, name=name, timeout=_LIMIT)
        arguments = [await _sample(con, parameter) for parameter in statement.get_parameters()]
        if any(argument is None for argument in arguments):
            return None
        given = f"({', '.join(map(str, arguments))})" if arguments else ""
        found = await con.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE {name}{given}", timeout=_LIMIT)
        return plan_of(json.loads(found))
    finally:
        await transaction.rollback()


async def _sample(con: Connection, parameter: Any) -> str | None:
    found = "{}" if parameter.kind == "array" else "empty" if parameter.kind == "range" else None
    found = found or _SAMPLES.get(parameter.name)
    if found is None:
        found = await con.fetchval(_LABEL, parameter.oid, timeout=_LIMIT)
    return None if found is None else "'" + found.replace("'", "''") + "'"


# --- what may be kept of it ------------------------------------------------------------------------------------------

_NAMES: Final = frozenset({
    "Node Type", "Relation Name", "Schema", "Alias", "Index Name", "CTE Name", "Subplan Name", "Parent Relationship",
    "Join Type", "Strategy", "Partial Mode", "Operation", "Scan Direction", "Command", "Function Name",
    "Trigger Name", "Tuplestore Name", "Cache Mode",
})  # fmt: skip


def plan_of(document: Sequence[Any]) -> Plan:
    """
    Return what EXPLAIN's JSON says, expressions without their constants.
    """
    found = document[0]
    return Plan(found.get("Query Identifier"), masked(document), float(found["Plan"]["Total Cost"]))


def masked(part: Any, key: str = "") -> Any:
    """
    Return a part of a plan in which no text holds a constant; names stay as they are.
    """
    if isinstance(part, dict):
        return {name: masked(inner, name) for name, inner in part.items()}
    if isinstance(part, list):
        return [masked(inner, key) for inner in part]
    return spelled_out(part) if isinstance(part, str) and key not in _NAMES else part
