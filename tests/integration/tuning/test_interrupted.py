"""Apply, killed with SIGKILL at every line of its journal: both ways on end in a right state."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from magnus.embedded import processes_of, running
from magnus.tuning import quoting
from magnus.tuning.change import Change, Kind
from magnus.tuning.service import wait_until
from tests.tuning_cluster import statements_extension
from tests.tuning_faults import run_and_kill

if TYPE_CHECKING:
    from magnus.tuning.plan import Plan
    from tests.tuning_cluster import Bench

NAME = "idle_in_transaction_session_timeout"
# begin, then step and done of each of five changes, reload, end.
LINES = 13


def mixed_plan(bench: Bench) -> Plan:
    sql = (quoting.alter_role("app", NAME, "60s"),)
    table = ("CREATE TABLE slow_query_log (id bigint)", "CREATE INDEX ON slow_query_log (id)")
    return bench.plan(
        bench.setting("work_mem", "9MB"),
        bench.setting("random_page_cost", "1.1"),
        statements_extension(bench.server()),
        Change("table:slow_query_log@postgres", Kind.TABLE, "slow_query_log", None, "created", table, (), "postgres"),
        Change(f"role_setting:app.{NAME}", Kind.ROLE_SETTING, NAME, None, "60s", sql, (), role="app"),
    )


def words(bench: Bench, plan: Plan, *more: str) -> list[str]:
    file = bench.folder / "plan.json"
    file.write_text(plan.dumps())
    own = ["--yes", "--skip-preflight", "--journal", str(bench.journal), *more]
    return ["--dsn", bench.cluster.dsn(), "apply", str(file), *own]


@pytest.fixture
def mixed(bench: Bench) -> Bench:
    """
    A server with a role and with an earlier value of one of the settings.
    """
    bench.sql("CREATE ROLE app LOGIN", "ALTER SYSTEM SET work_mem = '5MB'", "SELECT pg_reload_conf()")
    return bench


# Before a line: the change that it reports is made. After a line: the change that it announces is not.
POINTS = [*((line, False) for line in range(1, LINES + 1)), *((line, True) for line in (1, 2, 4, 6, 8, 10, 12))]
# Every line of the journal by the campaign; a line of each kind in the suite.
CAMPAIGN = bool(os.environ.get("MAGNUS_CAMPAIGN"))
SHORT = [(1, True), (2, True), (3, False), (6, True), (8, True), (9, False), (12, True), (13, False)]


@pytest.mark.one_version
@pytest.mark.parametrize(("line", "is_after"), POINTS if CAMPAIGN else SHORT)
def test_killed_at_a_line_of_the_journal(mixed: Bench, line: int, is_after: bool):  # noqa: FBT001
    """Resume finishes exactly the plan; rollback, instead of it or after it, brings back what was there."""
    bench = mixed
    before, objects = bench.auto_conf.read_bytes(), bench.objects()
    plan = mixed_plan(bench)
    assert run_and_kill(words(bench, plan), line, is_after=is_after) == -signal.SIGKILL
    if (line + is_after + bench.server().major) % 2:
        bench.magnus("rollback", "--all", "--yes")
        assert (bench.auto_conf.read_bytes(), bench.objects()) == (before, objects)
        return
    if (2, True) <= (line, is_after) < (LINES, False):  # before the last line nothing is left to do
        assert "--resume" in bench.apply(plan, code=4).err
    if (line, is_after) > (1, False):
        bench.magnus("apply", "--resume", "--yes")
    else:
        bench.apply(plan)
    found = bench.magnus("verify", code=None).data["findings"]
    assert sorted(f["id"] for f in found) == sorted(change.id for change in plan.changes)
    assert {f["state"] for f in found} <= {"in force", "waits for a restart"}
    bench.magnus("rollback", "--all", "--yes")
    assert (bench.auto_conf.read_bytes(), bench.objects()) == (before, objects)


@pytest.mark.one_version
def test_the_list_of_lines_is_complete(mixed: Bench):
    """One line more than a run writes kills nobody."""
    assert run_and_kill(words(mixed, mixed_plan(mixed)), LINES + 1, is_after=False) == 0
    mixed.magnus("rollback", "--all", "--yes")


@pytest.mark.one_version
@pytest.mark.parametrize("line", range(1, LINES) if CAMPAIGN else (2, 5, 11))
def test_a_rollback_that_is_killed_is_finished_by_the_next(mixed: Bench, line: int):
    """Every line of the rollback's own: an undo and an undone for each change, and the bytes at the end."""
    bench = mixed
    before, objects = bench.auto_conf.read_bytes(), bench.objects()
    bench.apply(mixed_plan(bench))
    own = ["--dsn", bench.cluster.dsn(), "rollback", "--all", "--yes", "--journal", str(bench.journal)]
    run_and_kill(own, line, is_after=bool(line // 2 % 2))
    bench.magnus("rollback", "--all", "--yes")
    assert (bench.auto_conf.read_bytes(), bench.objects()) == (before, objects)


RESTART_LINE = 5  # begin, step, done, reload, restart


@pytest.mark.parametrize("end", ["resume", "rollback"] if CAMPAIGN else ["resume"])
def test_killed_at_the_restart_with_nobody_left_the_server_comes_back(bench: Bench, end: str):
    """The intention is on disk, the dead-man not yet started, and then the server stops, too."""
    before = bench.auto_conf.read_bytes()
    plan = bench.plan(bench.setting("max_connections", "90"))
    line = RESTART_LINE
    assert run_and_kill(words(bench, plan, "--restart"), line, is_after=True) == -signal.SIGKILL
    found = running(bench.cluster.data)
    assert found is not None
    os.kill(found.pid, signal.SIGINT)
    assert wait_until(lambda: not processes_of(bench.cluster.data), 60.0)
    if end == "resume":
        assert bench.magnus("apply", "--resume", "--yes").data["outcome"] == "applied"
        assert bench.sql("SHOW max_connections") == "90"
    bench.magnus("rollback", "--all", "--yes", "--restart")
    assert bench.sql("SHOW max_connections") == "100"
    assert bench.auto_conf.read_bytes() == before


def test_the_dead_man_goes_on_when_magnus_is_killed(bench: Bench):
    """It survives the command: the restart is finished, and its verdict is in the journal."""
    plan = bench.plan(bench.setting("max_connections", "90"))
    own = words(bench, plan, "--restart")
    # The next line after the restart's would be the end, which is only reached with a verdict.
    assert run_and_kill(own, RESTART_LINE + 1, is_after=False) == -signal.SIGKILL
    assert bench.magnus("apply", "--resume", "--yes").data["outcome"] == "applied"
    assert bench.sql("SHOW max_connections") == "90"
    bench.magnus("rollback", "--all", "--yes", "--restart")
