"""An entry as a row: its columns, what is learned about statements, and which errors mean what."""

import re
from datetime import UTC, datetime

import asyncpg
import pytest

from magnus.errors import ConnectError
from magnus.slowlog._entry import Entry
from magnus.slowlog._known import Known
from magnus.slowlog._plans import plan_of
from magnus.slowlog._rows import COLUMNS, Constants, record_of, row_of, writable
from magnus.slowlog._table import Unusable, is_passing, reason_of

CONSTANTS = Constants(0.1, "app", (re.compile("never"),))
WHOLE = dict.fromkeys(COLUMNS, "text")


def entry(text="SELECT 1", **changes):
    found = Entry(
        text,
        datetime(2026, 1, 1, tzinfo=UTC),
        0.25,
        0.001,
        "high",
        2,
        3,
        "ok",
        None,
        "m:f:1",
        "GET /x",
        "r-1",
        "t",
        None,
    )
    return found._replace(**changes)


def test_a_row_has_a_value_for_every_column():
    """Milliseconds are exact decimals, to the microsecond."""
    known = Known()
    known.learned(known.normal("SELECT 1"), 42)
    row = row_of(entry(), known, {known.normal("SELECT 1").fingerprint: 7})
    record = dict(zip(COLUMNS, record_of(row, COLUMNS, CONSTANTS), strict=True))
    assert record["query"] == "SELECT $1"
    assert (str(record["duration_ms"]), str(record["threshold_ms"])) == ("250.000", "100.000")
    assert (record["lane"], record["attempts"], record["rows"], record["outcome"]) == ("high", 2, 3, "ok")
    assert (record["queryid"], record["skipped"], record["application"]) == (42, 7, "app")
    assert (record["caller"], record["route"], record["request_id"]) == ("m:f:1", "GET /x", "r-1")


def test_what_the_server_refuses_in_a_text_is_taken_out():
    """NUL characters and lone surrogates would cost the whole batch."""
    row = row_of(entry(caller="a\0b\ud800"), Known(), {})
    assert record_of(row, ("caller",), CONSTANTS) == ("ab?",)


def test_an_older_table_gets_the_columns_that_it_has():
    """A newer one too; a table that is none of ours gets nothing."""
    old = {
        "query": "text",
        "duration_ms": "numeric",
        "threshold_ms": "numeric",
        "timestamp": "timestamp with time zone",
    }
    assert writable({**old, "more": "text"}) == ("query", "duration_ms", "threshold_ms", "timestamp")
    assert "timestamp" not in writable({**old, "timestamp": "timestamp without time zone"})
    assert writable(WHOLE) == COLUMNS
    assert writable({"query": "text"}) == ()


def test_statements_of_a_fingerprint_are_shown_by_one_text():
    """The first that was seen, so that reports can group by it."""
    known = Known()
    shown = {
        known.shown(known.normal(text)) for text in ("SELECT a FROM t", "select  A from T", "SELECT a FROM t -- x")
    }
    assert shown == {"SELECT a FROM t"}


def test_what_is_known_is_bounded():
    """What was seen longest ago is forgotten."""
    known = Known()
    for number in range(6_000):
        normal = known.normal(f"SELECT a{number}")
        known.shown(normal)
        known.learned(normal, number)
        known.planned(normal)
    assert max(map(len, (known._texts, known._shown, known._queryids, known._planned))) <= 5_000
    assert known.queryid(known.normal("SELECT a5999")) == 5999
    assert known.is_new(known.normal("SELECT a0"))


def test_a_plan_is_kept_without_constants():
    """In every expression, at every depth; names stay."""
    document = [{
        "Plan": {
            "Node Type": "Index Scan", "Index Name": "trades_2_idx", "Total Cost": 8.5,
            "Index Cond": "(email = 'canary'::text)", "Output": ["'canary'::text", "id"],
            "Plans": [{"Node Type": "Seq Scan", "Filter": "(x > 42)", "Alias": "t_1"}],
        },
        "Query Identifier": -5,
    }]  # fmt: skip
    plan = plan_of(document)
    assert (plan.queryid, plan.cost) == (-5, 8.5)
    assert "canary" not in repr(plan)
    assert plan.plan[0]["Plan"]["Index Name"] == "trades_2_idx"
    assert plan.plan[0]["Plan"]["Plans"][0] == {"Node Type": "Seq Scan", "Filter": "(x > ?)", "Alias": "t_1"}


@pytest.mark.parametrize(
    ("error", "passes", "reason"),
    [
        (ConnectError("gone", reason="unreachable"), True, None),
        (ConnectionResetError(), True, None),
        (TimeoutError(), True, None),
        (asyncpg.InterfaceError("connection is closed"), True, None),
        (asyncpg.DiskFullError("full"), True, None),
        (asyncpg.LockNotAvailableError("busy"), True, None),
        (asyncpg.QueryCanceledError("limit"), True, None),
        (asyncpg.UndefinedTableError("dropped"), True, None),
        (asyncpg.CheckViolationError("constraint"), False, None),
        (asyncpg.DataError("cannot encode"), False, None),
        (asyncpg.InsufficientPrivilegeError("no"), False, "no_permission"),
        (asyncpg.ReadOnlySQLTransactionError("standby"), False, "read_only"),
        (Unusable("no_table"), False, "no_table"),
    ],
)
def test_an_error_means_later_never_or_events(error, passes, reason):
    """What passes is tried again, what does not loses its batch, what needs a person becomes events."""
    assert (is_passing(error), reason_of(error)) == (passes, reason)
