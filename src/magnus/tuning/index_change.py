"""The changes that make or drop an index: written from a proposal, and read back out of a plan; pure.

Only an index with a name of ours is ever made or dropped, and only one on plain columns is made: an expression would
run somebody's function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError
from magnus.tuning.change import Change, Kind, Risk
from magnus.tuning.checks import index_name
from magnus.tuning.quoting import identifier, requoted, written
from magnus.tuning.units import shown

if TYPE_CHECKING:
    from magnus.tuning.checks import Row
    from magnus.tuning.indexing import Proposal

OURS: Final = "magnus_"

_QUOTED: Final = r'"((?:[^"]|"")+)"'
_COLUMN: Final = rf"{_QUOTED}(?: (?:ASC|DESC))?(?: NULLS (?:FIRST|LAST))?"
_CREATE: Final = re.compile(
    rf"CREATE INDEX (CONCURRENTLY )?{_QUOTED} ON {_QUOTED}\.{_QUOTED} \(({_COLUMN}(?:, {_COLUMN})*)\)"
)
_DROP: Final = re.compile(rf"DROP INDEX CONCURRENTLY IF EXISTS {_QUOTED}\.{_QUOTED}")


@dataclass(frozen=True, slots=True)
class Work:
    """
    One statement of a change: an index to make, or (no columns) to drop.

    Attributes:
        table: Schema and name.
        is_concurrent: False for the index of a partitioned table, which takes in those of its partitions.
    """

    sql: str
    schema: str
    name: str
    table: tuple[str, str] = ("", "")
    columns: tuple[str, ...] = ()
    is_concurrent: bool = True

    @property
    def index(self) -> str:
        """
        The index as SQL.
        """
        return f"{identifier(self.schema)}.{identifier(self.name)}"


def works(sql: tuple[str, ...]) -> tuple[Work, ...]:
    """
    Read what a change's statements do.

    Raises:
        ConfigError: something else than making or dropping an index.
    """
    return tuple(_work(statement) for statement in sql)


def check(change: Change) -> None:
    """
    See that a change does what it says, and only what it may.

    Raises:
        ConfigError: it does not.
    """
    found = works(change.sql)
    said = " ".join(change.sql)[:120]
    if change.after is None and (len(found) != 1 or found[0].columns):
        raise ConfigError("sql", said, "must drop one index and no more")
    if change.after is not None and not (found and all(work.columns for work in found)):
        raise ConfigError("sql", said, "must only make indexes")
    if any(not work.is_concurrent for work in found[:-1]):
        raise ConfigError("sql", said, "must make its indexes CONCURRENTLY")
    strange = next((work.name for work in found if not is_ours(work.name)), None)
    if strange is not None:
        raise ConfigError("index", strange, f"is none of ours (a name with {OURS}), and others are never touched")
    if found[-1].index != requoted(change.name):
        raise ConfigError("index", found[-1].index, f"is not the one that the change names ({change.name})")


def _work(sql: str) -> Work:
    if found := _CREATE.fullmatch(sql):
        concurrently, name, schema, table, columns = found.groups()[:5]
        names = tuple(_plain(column) for column in re.findall(_QUOTED, columns))
        place = (_plain(schema), _plain(table))
        return Work(sql, place[0], _plain(name), place, names, concurrently is not None)
    if found := _DROP.fullmatch(sql):
        return Work(sql, _plain(found[1]), _plain(found[2]))
    raise ConfigError("sql", sql[:120], "is no statement that makes or drops an index as magnus does")


def _plain(text: str) -> str:
    return text.replace('""', '"')


def change_of(proposal: Proposal, database: str) -> Change:
    """
    Return the change that makes an index.

    A partitioned table cannot have one made CONCURRENTLY: each partition's is, and the parent's then takes them in,
    which is a matter of milliseconds. Source: PostgreSQL documentation, CREATE INDEX, "Partitioned tables" (5.12.2).
    """
    schema, name = proposal.table["schema"], proposal.name
    table = f"{identifier(schema)}.{identifier(proposal.table['name'])}"
    index = f"{identifier(schema)}.{identifier(name)}"
    if proposal.table["kind"] == "p":
        made = tuple(_leaf(proposal, *leaf) for leaf in proposal.leaves)
        sql = (*made, f"CREATE INDEX {identifier(name)} ON {table} ({proposal.columns})")
        undo = f"DROP INDEX IF EXISTS {index}"
    else:
        sql = (f"CREATE INDEX CONCURRENTLY {identifier(name)} ON {table} ({proposal.columns})",)
        undo = f"DROP INDEX CONCURRENTLY IF EXISTS {index}"
    calls = sum(statement.calls for statement in proposal.statements)
    total = sum(statement.total for statement in proposal.statements)
    return Change(
        id=f"index:{schema}.{name}@{database}",
        kind=Kind.INDEX,
        name=f"{written(schema)}.{written(name)}",
        database=database,
        before=None,
        after=f"{table} ({proposal.columns})",
        sql=sql,
        undo=(undo,),
        reason=f"{_counted(len(proposal.statements))} all of {table} for {proposal.rows:,.0f} rows",
        source=judged(proposal),
        risk=Risk.LOW,
        cost=f"about {shown(proposal.size)} of disk, and every write of {table}",
        group="indexes",
        evidence={
            "statements": ", ".join(statement.queryid for statement in proposal.statements),
            "calls": f"{calls:,}",
            "time": f"{total:,.3g} s",
            "writes": f"{sum(proposal.table[name] or 0 for name in ('inserted', 'updated', 'deleted')):,} rows",
        },
    )


def _counted(number: int) -> str:
    return "1 statement reads" if number == 1 else f"{number} statements read"


def _leaf(proposal: Proposal, schema: str, table: str) -> str:
    name = index_name(table, [key.word for key in proposal.keys])
    on = f"{identifier(schema)}.{identifier(table)}"
    return f"CREATE INDEX CONCURRENTLY {identifier(name)} ON {on} ({proposal.columns})"


def judged(proposal: Proposal) -> str:
    """
    Say how a proposal was judged.
    """
    if proposal.costs is None:
        why = "it knows no partitioned tables" if proposal.leaves else "it is not installed"
        return f"judged from plans and statistics, without HypoPG ({why}): the planner was not asked"
    before, after = proposal.costs
    return f"the planner's cost falls from {before:,.0f} to {after:,.0f} (HypoPG; a cost, no time)"


def drop_of(row: Row, definition: str, reason: str, database: str) -> Change:
    """
    Return the change that drops an index of ours.
    """
    index = f"{identifier(row['schema'])}.{identifier(row['name'])}"
    return Change(
        id=f"index:{row['schema']}.{row['name']}@{database}",
        kind=Kind.INDEX,
        name=f"{written(row['schema'])}.{written(row['name'])}",
        database=database,
        before=definition,
        after=None,
        sql=(f"DROP INDEX CONCURRENTLY IF EXISTS {index}",),
        undo=(concurrently(definition),),
        reason=reason,
        source="it is one of ours",
        group="indexes",
    )


def concurrently(definition: str) -> str:
    """
    Return the statement that makes an index again beside a working service, of what pg_get_indexdef says.
    """
    return re.sub(r"^CREATE( UNIQUE)? INDEX ", r"CREATE\1 INDEX CONCURRENTLY ", definition)


def is_ours(name: str) -> bool:
    """
    Say whether an index bears a name of ours.
    """
    return name.startswith(OURS)
