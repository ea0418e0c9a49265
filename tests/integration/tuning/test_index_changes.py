"""Indexes, from what is missing to the verdict: built beside the service, valid, measured, and taken back."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from magnus import cli
from magnus.embedded import throwaway
from magnus.tuning.change import Change, Kind
from magnus.tuning.plan import Plan
from magnus.tuning.service import wait_until
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench
from tests.tuning_faults import run_and_kill, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

QUERY = "SELECT count(*) FROM trades WHERE account = {}"
NAME = "public.magnus_trades_account"
ID = "index:public.magnus_trades_account@postgres"


@pytest.fixture(scope="session")
def counting(pg_version: int) -> Iterator[Any]:
    """
    A server with pg_stat_statements, and a table whose queries read all of it.
    """
    with throwaway(binaries_or_skip(pg_version), settings={"autovacuum": "off"}) as cluster:
        yield cluster


@pytest.fixture
def trading(counting: Any, tmp_path: Path) -> Iterator[Bench]:
    """
    A table of 30,000 rows without the index that its query needs.
    """
    bench = Bench(counting, tmp_path)
    bench.sql(
        "CREATE EXTENSION IF NOT EXISTS pg_stat_statements",
        "CREATE TABLE trades (id bigint PRIMARY KEY, account int, side int, note text)",
        "INSERT INTO trades SELECT i, i % 2000, i % 3, 'n' FROM generate_series(1, 30000) i",
        "VACUUM ANALYZE trades",
        "SELECT pg_stat_statements_reset()::text",
    )
    yield bench
    bench.sql("DROP TABLE IF EXISTS trades, ev CASCADE", "SELECT 1")


def run_queries(bench: Bench, number: int = 40) -> None:
    bench.sql(*(QUERY.format(number) for number in range(number)))


def proposed(bench: Bench) -> Path:
    """
    The plan that `magnus indexes` saves.
    """
    path = bench.folder / "indexes.json"
    assert cli.main(["--dsn", bench.cluster.dsn(), "indexes", "--out", str(path)]) == 0
    return path


def making(table: str = "trades", column: str = "account", **more: Any) -> Change:
    name = f"magnus_{table}_{column}"
    sql = (f'CREATE INDEX CONCURRENTLY "{name}" ON "public"."{table}" ("{column}")',)
    undo = (f'DROP INDEX CONCURRENTLY IF EXISTS "public"."{name}"',)
    parts = {"before": None, "after": f'"public"."{table}" ("{column}")', "sql": sql, "undo": undo, **more}
    return Change(
        id=f"index:public.{name}@postgres", kind=Kind.INDEX, name=f"public.{name}", database="postgres", **parts
    )


def is_valid(bench: Bench, name: str = NAME) -> bool | None:
    return bench.sql(f"SELECT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}'))")


@contextmanager
def older_transaction(bench: Bench) -> Iterator[None]:
    """
    A transaction that has written the table and idles: every build waits for it.
    """
    holding, release = threading.Event(), threading.Event()

    async def hold() -> None:
        async with bench.cluster.connect() as con, con.transaction():
            await con.execute("UPDATE trades SET note = 'm' WHERE id = 1")
            holding.set()
            await asyncio.to_thread(release.wait, 120)

    other = threading.Thread(target=lambda: asyncio.run(hold()))
    other.start()
    try:
        assert holding.wait(60)
        yield
    finally:
        release.set()
        other.join()


BUILDER = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%' LIMIT 1"


def in_a_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_missing_index_is_found_built_measured_and_taken_back(trading: Bench):
    """The plan of `magnus indexes`, applied: valid, and its statements are faster; a rollback leaves nothing of it."""
    bench, before = trading, trading.objects()
    run_queries(bench)
    file = str(proposed(bench))
    assert bench.magnus("apply", file, "--yes", "--reason", "M104").data["made"] == [ID]
    assert is_valid(bench)
    assert bench.magnus("apply", file, "--yes").data["changes"] == []
    assert bench.magnus("verify").data["indexes"][0]["verdict"] == "not enough data"
    run_queries(bench)
    (payoff,) = bench.magnus("verify").data["indexes"]
    assert (payoff["id"], payoff["verdict"], payoff["statements"]["verdict"]) == (ID, "pays", "better")
    assert payoff["saved_ms"] > 0
    assert wait_until(lambda: bench.magnus("verify").data["indexes"][0]["scans"] >= 40, 60.0)
    assert bench.magnus("drift").data["drifted"] == []
    assert bench.magnus("rollback", ID, "--yes").data["undone"] == [ID]
    assert bench.objects() == before


def test_an_index_that_does_not_pay_is_proposed_to_be_dropped(trading: Bench):
    """Its statements, which it does not serve, are slower by now: the verdict names the command, and drops nothing."""
    bench = trading
    run_queries(bench)
    queryid = bench.sql("SELECT queryid::text FROM pg_stat_statements WHERE query LIKE '%FROM trades WHERE account%'")
    change = making(column="side", evidence={"statements": queryid})
    bench.apply(bench.plan(change))
    bench.sql("INSERT INTO trades SELECT i, i % 2000, 1, 'n' FROM generate_series(30001, 200000) i", "SELECT 1")
    run_queries(bench)
    (payoff,) = bench.magnus("verify", code=1).data["indexes"]
    assert payoff["statements"]["verdict"] == "worse"
    assert payoff["verdict"] == "does not pay"
    assert payoff["drop"] == f"magnus rollback {change.id}"
    assert is_valid(bench, change.name)
    bench.magnus("rollback", change.id, "--yes")
    assert is_valid(bench, change.name) is None


def test_a_build_that_fails_leaves_no_index(trading: Bench):
    """Cancelled while it waits, it would stay behind invalid: written on every change, never read."""
    bench = trading
    with older_transaction(bench):
        thread, answers = in_a_thread(lambda: bench.apply(bench.plan(making()), code=None))
        assert wait_until(lambda: bench.sql(BUILDER) is not None, 60.0)
        bench.sql(f"SELECT pg_cancel_backend(({BUILDER}))")
        assert wait_until(lambda: bench.sql(BUILDER) is None, 60.0)
    thread.join(60)
    assert answers[0].code == 4
    assert "canceling statement due to user request" in answers[0].err
    assert "nothing of this run stands" in answers[0].err
    assert is_valid(bench) is None
    assert bench.magnus("verify").data["findings"] == []


def test_what_a_build_waits_for_is_told(trading: Bench):
    """No lock time-out cuts it: it waits for the older transaction, says for whose, and goes on after that."""
    bench = trading
    with older_transaction(bench):
        thread, answers = in_a_thread(lambda: bench.apply(bench.plan(making()), code=None))
        assert wait_until(lambda: bench.sql(BUILDER) is not None, 60.0)
        told = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_blocking_pids%' AND pid <> pg_backend_pid()"
        assert wait_until(lambda: bench.sql(told) > 0, 60.0)
        assert thread.is_alive()
    thread.join(60)
    assert answers[0].code == 0
    assert "waits for process" in answers[0].err
    assert is_valid(bench)
    bench.magnus("rollback", "--yes")


@pytest.mark.one_version
@pytest.mark.parametrize("end", ["resume", "rollback"])
def test_killed_in_the_middle_of_a_build(trading: Bench, end: str):
    """The server goes on building, and its lock keeps a second magnus out; afterwards both ways are right."""
    bench = trading
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(making()).dumps())
    with older_transaction(bench):
        words = ["--dsn", bench.cluster.dsn(), "apply", str(file), "--yes", "--journal", str(bench.journal)]
        child = started(words)
        assert wait_until(lambda: bench.sql(BUILDER) is not None, 60.0)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert "another magnus is changing this server" in bench.magnus("apply", "--resume", "--yes", code=4).err
    assert wait_until(lambda: bench.sql("SELECT count(*) FROM pg_stat_progress_create_index") == 0, 60.0)
    if end == "resume":
        assert bench.magnus("apply", "--resume", "--yes").data["outcome"] == "applied"
        assert is_valid(bench)
    bench.magnus("rollback", "--all", "--yes")
    assert is_valid(bench) is None


@pytest.mark.one_version
@pytest.mark.parametrize(("line", "is_after"), [(2, True), (3, False)])
def test_killed_before_or_after_a_build(trading: Bench, line: int, is_after: bool):  # noqa: FBT001
    """Only intended, or made and not noted: resume makes it once, rollback drops it."""
    bench = trading
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(making()).dumps())
    words = ["--dsn", bench.cluster.dsn(), "apply", str(file), "--yes", "--journal", str(bench.journal)]
    assert run_and_kill(words, line, is_after=is_after) == -signal.SIGKILL
    bench.magnus("apply", "--resume", "--yes")
    assert is_valid(bench)
    bench.magnus("rollback", "--all", "--yes")
    assert is_valid(bench) is None


def left_invalid(bench: Bench, name: str = "magnus_trades_account") -> None:
    """
    An index that a failed build left, as an earlier magnus might have.
    """
    with pytest.raises(asyncpg.UniqueViolationError):
        bench.sql(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON trades (account)", "SELECT 1")
    assert is_valid(bench, name) is False


def test_an_invalid_one_of_ours_is_built_anew(trading: Bench):
    """IF NOT EXISTS would take it for the index; and a rollback still leaves nothing."""
    left_invalid(trading)
    assert trading.apply(trading.plan(making())).data["made"] == [ID]
    assert is_valid(trading)
    trading.magnus("rollback", "--yes")
    assert is_valid(trading) is None


def test_one_of_ours_that_is_left_over_is_dropped_and_another_is_not(trading: Bench):
    """The plan of `magnus indexes` drops what a build of ours left; what was never valid is nothing to bring back."""
    left_invalid(trading)
    left_invalid(trading, "theirs")
    plan = Plan.loads(proposed(trading).read_text())
    assert [(change.id, change.after) for change in plan.changes] == [(ID, None)]
    trading.apply(plan)
    assert (is_valid(trading), is_valid(trading, "theirs")) == (None, False)
    assert trading.magnus("verify").data["findings"][0]["state"] == "in force"
    trading.magnus("rollback", "--yes")
    assert is_valid(trading) is None


def test_a_dropped_index_comes_back_as_it_was(trading: Bench):
    """With its order, its condition and its options."""
    head = "CREATE INDEX magnus_trades_account ON public.trades USING btree (account DESC)"
    made = f"{head} WITH (fillfactor='70') WHERE (side > 1)"
    trading.sql(made, "SELECT 1")
    drop = ('DROP INDEX CONCURRENTLY IF EXISTS "public"."magnus_trades_account"',)
    trading.apply(trading.plan(making(before=made, after=None, sql=drop, undo=())))
    assert is_valid(trading) is None
    trading.magnus("rollback", "--yes")
    assert trading.sql(f"SELECT pg_get_indexdef('{NAME}'::regclass)") == made


def test_a_partitioned_table_gets_its_index_by_its_partitions(trading: Bench):
    """Each CONCURRENTLY, then the parent takes them in; a rollback drops all of them."""
    bench = trading
    bench.sql(
        "CREATE TABLE ev (id bigint, at date, k int) PARTITION BY RANGE (at)",
        "CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
        "CREATE TABLE ev2 PARTITION OF ev DEFAULT",
        "INSERT INTO ev SELECT i, date '2020-01-01' + (i % 700), i % 4000 FROM generate_series(1, 20000) i",
        "VACUUM ANALYZE ev",
        *["SELECT count(*) FROM ev WHERE k = 9"] * 3,
    )
    before = bench.objects()
    file = str(proposed(bench))
    bench.magnus("apply", file, "--yes")
    leaves = "SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits WHERE inhparent = $$"
    assert bench.sql(leaves.replace("$$", "'magnus_ev_k'::regclass")) == ["magnus_ev1_k", "magnus_ev2_k"]
    assert is_valid(bench, "magnus_ev_k")
    bench.magnus("rollback", "--yes")
    assert bench.objects() == before


def test_odd_names_are_quoted_on_every_way(trading: Bench):
    """Capitals, a quote and a dot in schema, table and column."""
    bench = trading
    bench.sql(
        'CREATE SCHEMA "Odd.s"',
        'CREATE TABLE "Odd.s"."T""x" ("Ä" int)',
        'INSERT INTO "Odd.s"."T""x" SELECT i % 5000 FROM generate_series(1, 20000) i',
        'ANALYZE "Odd.s"."T""x"',
        *['SELECT count(*) FROM "Odd.s"."T""x" WHERE "Ä" = 7'] * 3,
    )
    try:
        file = str(proposed(bench))
        made = bench.magnus("apply", file, "--yes").data["made"]
        assert made == ['index:Odd.s.magnus_T"x_Ä@postgres']
        assert bench.magnus("apply", file, "--yes").data["changes"] == []
        assert bench.magnus("verify").data["findings"][0]["state"] == "in force"
        bench.magnus("rollback", "--yes")
        assert bench.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'magnus%'") == 0
    finally:
        bench.sql('DROP SCHEMA "Odd.s" CASCADE', "SELECT 1")


def test_what_uses_the_index_by_now_is_kept(trading: Bench):
    """The table is clustered on it now: a conflict that says so."""
    bench = trading
    bench.apply(bench.plan(making()))
    bench.sql("ALTER TABLE trades CLUSTER ON magnus_trades_account", "SELECT 1")
    assert "CLUSTER uses it now" in bench.magnus("rollback", "--yes", code=1).data["conflicts"][0]["why"]
    bench.sql("ALTER TABLE trades SET WITHOUT CLUSTER", "SELECT 1")
    bench.magnus("rollback", "--yes")


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (('DROP INDEX CONCURRENTLY IF EXISTS "public"."trades_pkey"',), "is none of ours"),
        (
            ('CREATE INDEX CONCURRENTLY "magnus_trades_account" ON "public"."trades" (f("account"))',),
            "no statement that",
        ),
        (('CREATE INDEX "magnus_a" ON "public"."trades" ("account")',) * 2, "CONCURRENTLY"),
        (('CREATE INDEX CONCURRENTLY "magnus_b" ON "public"."trades" ("account")',), "is not the one"),
        (("DROP TABLE trades",), "no statement that"),
    ],
)
def test_a_plan_may_only_touch_indexes_of_ours(trading: Bench, sql: Sequence[str], words: str):
    """Whatever its file says: refused before anything is made."""
    is_drop = sql[0].startswith("DROP INDEX")
    change = making(sql=tuple(sql), after=None if is_drop else "x", before="x" if is_drop else None)
    said = trading.apply(trading.plan(change), code=4)
    assert words in said.err
    assert "magnus indexes" in said.err


def test_what_stands_in_the_way_is_said_before_anything_is_made(trading: Bench):
    """A role that does not own the table, a column that is gone, an index that somebody made meanwhile."""
    bench = trading
    bench.sql("CREATE ROLE app LOGIN IN ROLE pg_monitor", "SELECT 1")
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(making()).dumps())
    try:
        said = bench.magnus("apply", str(file), "--yes", code=4, dsn=bench.cluster.dsn(user="app"))
        assert "role app does not own" in said.err
        assert "GRANT postgres TO app" in said.err
    finally:
        bench.sql("DROP ROLE app", "SELECT 1")
    assert "has no column gone" in bench.apply(bench.plan(making(column="gone")), code=4).err
    bench.sql("CREATE INDEX theirs ON trades (account, side)", "SELECT 1")
    assert "index public.theirs begins with these columns by now" in bench.apply(bench.plan(making()), code=4).err
    assert not list(bench.journal.glob("*.jsonl"))
