"""From a plan to an index: which columns, in which order, and when none is the right answer."""

from __future__ import annotations

from typing import Any

import pytest

from magnus.tuning.change import Kind
from magnus.tuning.index_change import change_of, drop_of, judged
from magnus.tuning.indexing import Key, Proposal, Scan, Statement, merged, scans, why_not
from tests.unit.tuning.snapshots import index, table


def plan(
    filter_: str, *, alias: str = "t", sort: list[str] | None = None, rows: int = 10, **node: Any
) -> dict[str, Any]:
    scan = {
        "Node Type": "Seq Scan", "Schema": "public", "Relation Name": "trades", "Alias": "t", "Filter": filter_,
        "Plan Rows": rows, "Total Cost": 1000.0,
    } | node  # fmt: skip
    if sort is None:
        return {"Plan": scan}
    return {"Plan": {"Node Type": "Limit", "Plans": [{"Node Type": "Sort", "Sort Key": sort, "Plans": [scan]}]}}


COLUMNS = [
    ("(t.a = $1)", None, ["a"]),
    ("((t.a = $1) AND (t.b = $2))", None, ["a", "b"]),
    ("((t.at > $2) AND (t.a = $1))", None, ["a", "at"]),  # equality first, whatever the text says
    ("((t.at > $2) AND (t.at <= $3) AND (t.a = $1))", None, ["a", "at"]),
    ("((t.x > $2) AND (t.y < $3))", None, ["x"]),  # one bound only: the second would not be used
    ("(t.a = $1)", ["t.at DESC"], ["a", "at"]),  # read backwards
    ("(t.a = $1)", ["t.at DESC", "t.id DESC"], ["a", "at", "id"]),
    ("(t.a = $1)", ["t.at DESC", "t.id"], ["a", "at DESC", "id"]),
    ("(t.a = $1)", ["t.at DESC NULLS LAST"], ["a", "at DESC NULLS LAST"]),
    ("((t.a = $1) AND (t.at > $2))", ["t.at"], ["a", "at"]),
    ("((t.a = $1) AND (t.q > $2))", ["t.at"], ["a", "q"]),  # a bound on another column: the sort cannot follow it
    ("(t.a = $1)", ["t.a", "t.at"], ["a", "at"]),
    ("(t.a = $1)", ["lower(t.b)", "t.at"], ["a"]),  # what cannot be an index's column ends the sort
    ("((t.name)::text = $1)", None, ["name"]),
    ("(t.a = ANY ($1))", None, ["a"]),
    ("(t.a IS NULL)", None, ["a"]),
    ('(t."Order Id" = $1)', None, ["Order Id"]),
    ('(t."say ""AND"" (" = $1)', None, ['say "AND" (']),
    ("((t.a = $1) AND ((t.b)::text = ') AND (t.c = 1'::text))", None, ["a", "b"]),
    ("(t.a = o.id)", None, ["a"]),
    ("((t.a = $1) AND (t.b = $2) AND (t.c = $3) AND (t.d = $4))", None, ["a", "b", "c"]),
    ("((t.a = 1) OR (t.b = 2))", None, []),
    ("((t.a = $1) AND ((t.b = 2) OR (t.c = 3)))", None, ["a"]),
    ("(lower(t.a) = $1)", None, []),
    ("(t.a <> $1)", None, []),
    ("(t.a IS NOT NULL)", None, []),
    ("(t.a = t.b)", None, []),
    ("(t.a ~~ $1)", None, []),
    ("(NOT t.flag)", None, []),
    ("((t.a + 1) = $1)", None, []),
    ("(tt.a = $1)", None, []),
]


@pytest.mark.parametrize(("filter_", "sort", "wanted"), COLUMNS)
def test_the_columns_of_an_index_and_their_order(filter_, sort, wanted):
    """Equality, then the sort or a bound; nothing that a btree cannot serve."""
    (scan,) = scans(plan(filter_, sort=sort))
    assert [f"{key.column} {key.direction}".strip() for key in scan.keys] == wanted


def test_a_sort_above_something_else_is_not_the_scans():
    """A join or an aggregate between them: the order of the index would be lost."""
    inner = plan("(t.a = $1)")["Plan"]
    found = scans({
        "Plan": {"Node Type": "Sort", "Sort Key": ["t.at"], "Plans": [{"Node Type": "Aggregate", "Plans": [inner]}]}
    })
    assert found[0].keys == (Key("a"),)


def test_rows_of_a_parallel_scan_are_those_of_all_workers():
    """The plan counts for one of them, and the leader helps."""
    scan = plan("(t.a = $1)", rows=100, **{"Parallel Aware": True})["Plan"]
    gather = {"Plan": {"Node Type": "Gather", "Workers Planned": 2, "Plans": [scan]}}
    assert scans(gather)[0].rows == pytest.approx(240)


def test_an_index_scan_or_a_scan_without_filter_asks_for_nothing():
    """Reading all of a table for all of it is right."""
    assert scans({"Plan": {"Node Type": "Index Scan", "Filter": "(t.a = $1)"}}) == []
    assert scans({"Plan": {"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t", "Alias": "t"}}) == []


SCAN = Scan("public", "trades", ("a",), (), (), 10.0)
NUMBERS = {"a": 2, "at": 3}


@pytest.mark.parametrize(
    ("scan", "row", "indexes", "reason"),
    [
        (SCAN, table(), [], ""),
        (SCAN, table(), [index(columns="3")], ""),
        (SCAN, table(), [index(columns="2", is_valid=False)], ""),
        (SCAN, table(), [index(columns="2")], "on purpose"),
        (SCAN, table(), [index(columns="2 3", keys=2)], "on purpose"),
        (SCAN, table(tuples=9_999.0), [], "fewer than 10,000 rows"),
        (SCAN, table(tuples=-1.0), [], "ANALYZE"),
        (SCAN, table(is_system=True), [], "catalogue"),
        (SCAN, None, [], "catalogue"),
        (Scan("public", "trades", ("a",), (), (), 200_000.0), table(), [], "reading all of it is right"),
        (Scan("public", "trades", (), (), (), 1.0), table(), [], "no condition"),
        (Scan("public", "trades", (), ("at",), (), 1.0), table(), [index(columns="3")], "on purpose"),
    ],
)
def test_when_a_scan_asks_for_an_index(scan, row, indexes, reason):
    """Few rows of a large table, and no index that begins with the columns."""
    why = why_not(scan, row, indexes, NUMBERS)
    assert reason in why
    assert bool(why) is bool(reason)


def statement(queryid: str = "1", total: float = 2.0) -> Statement:
    return Statement(queryid, 10, total, "select * from trades where a = $1 and at > $2")


def test_proposals_for_the_same_columns_become_one():
    """The wider one serves both, and the one that saves more time comes first."""
    narrow = Proposal(table(), (Key("a"),), (statement("1"),), 10.0)
    wide = Proposal(table(), (Key("a"), Key("at")), (statement("2"),), 20.0)
    again = Proposal(table(), (Key("a"), Key("at")), (statement("2"),), 20.0)
    other = Proposal(table(), (Key("b"),), (statement("3", total=99.0),), 1.0)
    elsewhere = Proposal(table(oid=7), (Key("a"),), (statement("4"),), 1.0)
    found = merged([narrow, wide, again, other, elsewhere])
    assert [(one.columns, [s.queryid for s in one.statements]) for one in found] == [
        ('"b"', ["3"]), ('"a", "at"', ["2", "1"]), ('"a"', ["4"]),
    ]  # fmt: skip


def test_the_change_makes_it_without_stopping_writes_and_takes_it_back():
    """CONCURRENTLY, under a name of ours, quoted; the reverse drops exactly that."""
    row = table(schema="Odd", name='T"x')
    change = change_of(Proposal(row, (Key("Ä"), Key("at", "DESC")), (statement(),), 10.0), "ava")
    assert change.kind is Kind.INDEX
    assert change.sql == ('CREATE INDEX CONCURRENTLY "magnus_T""x_Ä_at_desc" ON "Odd"."T""x" ("Ä", "at" DESC)',)
    assert change.undo == ('DROP INDEX CONCURRENTLY IF EXISTS "Odd"."magnus_T""x_Ä_at_desc"',)
    assert (change.before, change.database, change.id) == (None, "ava", 'index:Odd.magnus_T"x_Ä_at_desc@ava')
    assert change.evidence["statements"] == "1"
    assert "without HypoPG" in change.source


def test_a_partitioned_table_gets_it_partition_by_partition():
    """The parent cannot have one CONCURRENTLY; it takes in those of its partitions."""
    proposal = Proposal(
        table(kind="p", name="ev"), (Key("k"),), (statement(),), 10.0, leaves=(("public", "ev1"), ("x", "ev2"))
    )
    change = change_of(proposal, "ava")
    assert change.sql == (
        'CREATE INDEX CONCURRENTLY "magnus_ev1_k" ON "public"."ev1" ("k")',
        'CREATE INDEX CONCURRENTLY "magnus_ev2_k" ON "x"."ev2" ("k")',
        'CREATE INDEX "magnus_ev_k" ON "public"."ev" ("k")',
    )
    assert change.undo == ('DROP INDEX IF EXISTS "public"."magnus_ev_k"',)
    assert "partitioned" in judged(proposal)


def test_a_drop_can_be_taken_back():
    """Its reverse is the definition that was there, CONCURRENTLY too."""
    change = drop_of(index(name="magnus_x"), "CREATE UNIQUE INDEX magnus_x ON public.t USING btree (a)", "left", "ava")
    assert change.sql == ('DROP INDEX CONCURRENTLY IF EXISTS "public"."magnus_x"',)
    assert change.undo == ("CREATE UNIQUE INDEX CONCURRENTLY magnus_x ON public.t USING btree (a)",)
    assert change.after is None


def test_a_statement_knows_its_parameters():
    """As many NULLs are given to its plan."""
    assert statement().parameters == 2
    assert Statement("1", 1, 1.0, "select 1").parameters == 0
