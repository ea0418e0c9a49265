"""Apply, verify, rollback on a real server, by the command line: what was there before comes back, to the byte."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from magnus.tuning import quoting
from magnus.tuning.change import Change, Kind
from magnus.tuning.service import wait_until
from magnus.tuning.session import LOCK_KEY
from tests.tuning_cluster import statements_extension

if TYPE_CHECKING:
    from tests.tuning_cluster import Bench


def test_the_whole_plan_goes_in_is_verified_and_comes_out_without_a_trace(bench: Bench):
    """auto.conf byte for byte, every row of pg_settings, every object: as on the stock server."""
    bench.sql("CREATE ROLE app LOGIN", "SELECT 1")
    bytes_before, rows_before, objects_before = bench.auto_conf.read_bytes(), bench.rows(), bench.objects()
    plan = bench.whole_plan()
    assert len(plan.changes) >= 20
    done = bench.apply(plan, "--restart", "--reason", "CHG-4711", is_tried=True)
    assert done.data["outcome"] == "applied"
    assert sorted(done.data["made"]) == sorted(change.id for change in plan.changes)
    assert bench.sql("SHOW shared_buffers") == "2GB"
    assert bench.sql("SELECT count(*) >= 0 FROM pg_stat_statements")

    seen = bench.magnus("verify", "--app-dsn", bench.cluster.dsn(user="app")).data
    assert all(seen["quick_wins"].values())
    assert {"quick-win-1", "quick-win-4", "quick-win-5", "quick-win-10"} <= set(seen["quick_wins"])
    assert {finding["state"] for finding in seen["findings"]} == {"in force"}
    assert bench.magnus("drift").data["drifted"] == []
    assert bench.apply(plan).data["changes"] == []

    undone = bench.magnus("rollback", "--all", "--yes", "--restart").data
    assert undone["conflicts"] == []
    assert undone["auto_conf_is_exact"]
    assert bench.auto_conf.read_bytes() == bytes_before
    assert bench.rows() == rows_before
    assert bench.objects() == objects_before
    run = bench.magnus("history").data["runs"][0]
    assert (run["reason"], run["status"], run["standing"]) == ("CHG-4711", "applied", 0)


def test_earlier_values_order_and_comments_come_back(bench: Bench):
    """ALTER SYSTEM moves what it sets and drops comments; the very bytes return all the same."""
    odd = (
        b"# by hand\n\nwork_mem = '5MB' # a note\nLog_Temp_Files='1MB'\nrandom_page_cost 3\n"
        b"log_line_prefix = '%m ''x'' \\\\ '\n"
    )
    bench.auto_conf.write_bytes(odd)
    bench.sql("SELECT pg_reload_conf()")
    rows = _settled(bench, "work_mem", "5MB")
    bench.apply(
        bench.plan(
            bench.setting("work_mem", "9MB"),
            bench.setting("random_page_cost", "1.1"),
            bench.setting("log_lock_waits", "on"),
            bench.setting("log_line_prefix", "%m 'y' \\ "),
        )
    )
    assert bench.sql("SHOW log_line_prefix") == "%m 'y' \\ "
    assert bench.magnus("rollback", "--yes").data["auto_conf_is_exact"]
    assert bench.auto_conf.read_bytes() == odd
    assert bench.rows() == rows


def _settled(bench: Bench, name: str, value: str) -> list[tuple[object, ...]]:
    """
    The rows once a reload has come through.
    """
    for _ in range(600):
        if bench.sql(f"SHOW {name}") == value:
            return bench.rows()
    raise AssertionError(f"{name} never became {value}")


def test_somebody_elses_later_change_is_a_conflict_and_stays(bench: Bench):
    """Three-way: was, ours, now. Exit code 1 names it; the rest is taken back; once more changes nothing."""
    bench.apply(bench.plan(bench.setting("work_mem", "9MB"), bench.setting("random_page_cost", "1.1")))
    bench.sql(
        "ALTER SYSTEM SET work_mem = '11MB'", "ALTER SYSTEM SET log_temp_files = '7MB'", "SELECT pg_reload_conf()"
    )
    drifted = bench.magnus("drift", code=1).data["drifted"]
    assert [item["id"] for item in drifted] == ["setting:work_mem"]
    shown = bench.magnus("rollback", "--dry-run", code=1).data["steps"]
    assert {step["id"]: step["verdict"] for step in shown} == {
        "setting:work_mem": "conflict", "setting:random_page_cost": "put back",
    }  # fmt: skip
    found = bench.magnus("rollback", "--yes", code=1).data
    assert [item["id"] for item in found["conflicts"]] == ["setting:work_mem"]
    assert b"work_mem = '11MB'" in bench.auto_conf.read_bytes()
    assert b"log_temp_files = '7MB'" in bench.auto_conf.read_bytes()
    assert b"random_page_cost" not in bench.auto_conf.read_bytes()
    assert bench.magnus("rollback", "--yes", code=1).data["undone"] == []


def test_the_checks_know_what_was_applied(bench: Bench):
    """A quick win from which somebody's later change leads away is drifted; an unreadable journal makes it unknown."""

    def judged() -> dict[str, Any]:
        (record,) = bench.magnus("check", "--only", "Q010", code=None).data["checks"]
        return record

    def drifted() -> list[str]:
        return [f["evidence"] for f in judged()["findings"] if f["evidence"].startswith("drifted")]

    run = bench.apply(bench.plan(bench.setting("work_mem", "9MB", quick_win=("quick-win-10",)))).data["run"]
    assert drifted() == []
    bench.sql("ALTER SYSTEM SET work_mem = '11MB'", "SELECT pg_reload_conf()")
    assert wait_until(lambda: bench.sql("SHOW work_mem") == "11MB", 60.0)
    assert drifted() == [f"drifted: 9MB was applied by run {run}, now it is 11MB"]
    path = next(bench.journal.glob("*.jsonl"))
    good = path.read_bytes()
    path.write_bytes(good.replace(b"9MB", b"8MB"))
    assert judged()["state"] == "unknown"
    path.write_bytes(good)
    bench.sql("ALTER SYSTEM SET work_mem = '9MB'", "SELECT pg_reload_conf()")
    bench.magnus("rollback", "--yes")
    assert drifted() == []


def test_a_library_that_somebody_added_stays_loaded(bench: Bench):
    """A list is taken apart: our item goes, theirs stays."""
    bench.apply(bench.plan(bench.setting("shared_preload_libraries", "pg_stat_statements")))
    bench.sql("ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements, auto_explain", "SELECT 1")
    assert not bench.magnus("rollback", "--yes").data["conflicts"]
    assert bench.auto_conf.read_bytes().endswith(b"shared_preload_libraries = 'auto_explain'\n")


@pytest.mark.one_version
def test_runs_come_out_last_first_and_an_older_one_alone_is_a_conflict(bench: Bench):
    """What a later run of ours set stands in the way of taking back only the earlier one, and the message says so."""
    before = bench.auto_conf.read_bytes()
    first = bench.apply(bench.plan(bench.setting("work_mem", "9MB"))).data["run"]
    second = bench.apply(bench.plan(bench.setting("work_mem", "10MB"))).data["run"]
    found = bench.magnus("rollback", first, "--yes", code=1).data["conflicts"]
    assert second in found[0]["why"]
    assert bench.magnus("rollback", "--all", "--yes").data["auto_conf_is_exact"]
    assert bench.auto_conf.read_bytes() == before


@pytest.mark.one_version
def test_one_change_of_a_run_can_be_taken_back(bench: Bench):
    """By its id; the others stand."""
    bench.apply(bench.plan(bench.setting("work_mem", "9MB"), bench.setting("random_page_cost", "1.1")))
    assert bench.magnus("rollback", "setting:work_mem", "--yes").data["undone"] == ["setting:work_mem"]
    assert b"random_page_cost" in bench.auto_conf.read_bytes()
    assert "is no run or change" in bench.magnus("rollback", "setting:nope", "--yes", code=2).err


def test_an_extension_that_others_use_is_kept(bench: Bench):
    """Ours, but a view hangs on it: a conflict that names the view, without CASCADE."""
    bench.apply(bench.plan(statements_extension(bench.server())))
    bench.sql("CREATE VIEW public.slowest AS SELECT query FROM public.pg_stat_statements", "SELECT 1")
    found = bench.magnus("rollback", "--yes", code=1).data["conflicts"]
    assert "view public.slowest" in found[0]["why"]
    assert "pg_stat_statements" in bench.objects()
    bench.sql("DROP VIEW public.slowest", "SELECT 1")
    bench.magnus("rollback", "--yes")
    assert "pg_stat_statements" not in bench.objects()


def test_a_table_with_rows_is_never_dropped(bench: Bench):
    """What was logged is somebody's data; an empty table goes."""
    sql = ("CREATE TABLE slow_query_log (id bigint, query text)",)
    change = Change("table:slow_query_log@postgres", Kind.TABLE, "slow_query_log", None, "created", sql, (), "postgres")
    bench.apply(bench.plan(change))
    bench.sql("INSERT INTO slow_query_log VALUES (1, 'x')", "SELECT 1")
    assert "holds rows" in bench.magnus("rollback", "--yes", code=1).data["conflicts"][0]["why"]
    bench.sql("DELETE FROM slow_query_log", "SELECT 1")
    bench.magnus("rollback", "--yes")
    assert "slow_query_log" not in bench.objects()


def test_what_was_there_before_is_not_ours_to_drop(bench: Bench):
    """An extension that existed is neither made nor dropped."""
    bench.sql("CREATE EXTENSION pg_stat_statements SCHEMA public", "SELECT 1")
    plan = bench.plan(statements_extension(bench.server()), bench.setting("work_mem", "9MB"))
    assert bench.apply(plan).data["made"] == ["setting:work_mem"]
    bench.magnus("rollback", "--all", "--yes")
    assert "pg_stat_statements" in bench.objects()


def test_restart_level_settings_wait_until_a_restart_is_asked_for(bench: Bench):
    """Without --restart nothing is restarted; what needs it is said; the same plan finishes it later."""
    started = bench.sql("SELECT pg_postmaster_start_time()")
    change = bench.setting("max_connections", "90")
    plan = bench.plan(change, bench.setting("work_mem", "9MB"))
    found = bench.apply(plan).data
    assert (found["outcome"], found["waiting_for_restart"]) == ("waiting", ["max_connections"])
    assert bench.sql("SELECT pg_postmaster_start_time()") == started
    assert bench.magnus("verify", code=1).data["findings"][0]["state"] == "waits for a restart"
    assert bench.apply(plan, "--restart").data["made"] == []
    assert bench.sql("SHOW max_connections") == "90"
    assert bench.sql("SELECT pg_postmaster_start_time()") != started
    assert bench.magnus("rollback", "--all", "--yes").data["waiting_for_restart"] == ["max_connections"]
    assert bench.magnus("rollback", "--all", "--yes", "--restart").data["waiting_for_restart"] == []
    assert bench.sql("SHOW max_connections") == "100"


def test_what_needs_a_loaded_library_is_made_after_the_restart(bench: Bench):
    """Two waves: the library, then its setting and its extension; both are gone after the rollback."""
    before = bench.auto_conf.read_bytes()
    preload = bench.setting("shared_preload_libraries", "pg_stat_statements")
    late = bench.setting("pg_stat_statements.track", "all", needs=(preload.id,))
    plan = bench.plan(preload, late, statements_extension(bench.server(), preload.id))
    assert bench.apply(plan).data["deferred"] == [late.id, "extension:pg_stat_statements@postgres"]
    assert bench.apply(plan, "--restart").data["outcome"] == "applied"
    assert bench.sql("SHOW pg_stat_statements.track") == "all"
    bench.magnus("rollback", "--all", "--yes", "--restart")
    assert bench.auto_conf.read_bytes() == before


def test_a_value_that_a_role_outranks_is_not_called_in_force(bench: Bench):
    """Verified as the application sees it: its role keeps a value of its own."""
    bench.sql("CREATE ROLE app LOGIN", "ALTER ROLE app SET work_mem = '3MB'", "SELECT 1")
    said = bench.apply(bench.plan(bench.setting("work_mem", "9MB")))
    assert "sessions of role app keep '3MB'" in said.err
    found = bench.magnus("verify", "--app-dsn", bench.cluster.dsn(user="app"), code=1).data["findings"]
    assert (found[0]["state"], found[0]["found"]) == ("outranked", "3MB")
    assert bench.magnus("verify").data["findings"][0]["state"] == "in force"
    bench.magnus("rollback", "--yes")


def test_a_role_setting_comes_back_to_its_former_value(bench: Bench):
    """ALTER ROLE SET has a before-image too."""
    name = "idle_in_transaction_session_timeout"
    bench.sql("CREATE ROLE app LOGIN", f"ALTER ROLE app SET {name} = '10min'", "SELECT 1")
    sql = (quoting.alter_role("app", name, "60s"),)
    change = Change(f"role_setting:app.{name}", Kind.ROLE_SETTING, name, "10min", "60s", sql, (), role="app")
    bench.apply(bench.plan(change))
    value = "SELECT setconfig[1] FROM pg_db_role_setting"
    assert bench.sql(value) == f"{name}=60s"
    bench.magnus("rollback", "--yes")
    assert bench.sql(value) == f"{name}=10min"


@pytest.mark.one_version
def test_one_operator_at_a_time(bench: Bench):
    """A held lock refuses, from whatever database, and nothing is changed."""
    plan = bench.plan(bench.setting("work_mem", "9MB"))
    before = bench.auto_conf.read_bytes()
    taken, release = threading.Event(), threading.Event()

    async def hold() -> None:
        async with bench.cluster.connect(database="template1") as con:
            await con.execute(f"SELECT pg_advisory_lock_shared({LOCK_KEY})")
            taken.set()
            await asyncio.to_thread(release.wait, 60)

    other = threading.Thread(target=lambda: asyncio.run(hold()))
    other.start()
    try:
        assert taken.wait(60)
        said = bench.apply(plan, code=4)
        assert "another magnus is changing this server" in said.err
        assert bench.auto_conf.read_bytes() == before
    finally:
        release.set()
        other.join()


@pytest.mark.one_version
def test_nothing_is_changed_without_agreement(bench: Bench):
    """No terminal and no --yes, or another name: exit code 4."""
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(bench.setting("work_mem", "9MB")).dumps())
    before = bench.auto_conf.read_bytes()
    assert "--yes" in bench.magnus("apply", str(file), code=4).err
    assert "this server is postgres" in bench.magnus("apply", str(file), "--yes", "--confirm", "other", code=4).err
    assert bench.auto_conf.read_bytes() == before
    assert not bench.journal.exists()


def test_a_dry_run_tries_and_changes_nothing(bench: Bench):
    """The scratch cluster runs, the server and the journal stay as they are."""
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(bench.setting("work_mem", "9MB")).dumps())
    before = bench.auto_conf.read_bytes()
    found = bench.magnus("apply", str(file), "--dry-run").data
    assert found["preflight"]["status"] == "passed"
    assert [change["id"] for change in found["changes"]] == ["setting:work_mem"]
    assert bench.auto_conf.read_bytes() == before
    assert not bench.journal.exists()


def test_the_tuner_role_is_enough(bench: Bench):
    """No superuser: apply, verify and rollback with what `magnus role tuner` grants."""
    bench.cluster_role("tuner")
    try:
        plan = bench.plan(bench.setting("work_mem", "9MB"), bench.setting("log_lock_waits", "on"))
        file, before = bench.folder / "plan.json", bench.auto_conf.read_bytes()
        file.write_text(plan.dumps())
        dsn = bench.cluster.dsn(user="magnus_tuner")
        assert len(bench.magnus("apply", str(file), "--yes", dsn=dsn).data["made"]) == 2
        assert {f["state"] for f in bench.magnus("verify", dsn=dsn).data["findings"]} == {"in force"}
        assert not bench.magnus("rollback", "--yes", dsn=dsn).data["conflicts"]
        assert bench.auto_conf.read_bytes() == before
    finally:
        bench.sql("DROP OWNED BY magnus_tuner", "DROP ROLE magnus_tuner", "SELECT 1")


def test_without_a_file_it_plans_on_the_spot(bench: Bench):
    """With everything that this version of magnus would plan, its own script for the slow-query log included."""
    before, objects = bench.auto_conf.read_bytes(), bench.objects()
    found = bench.magnus("apply", "--yes", "--skip-preflight", "--only", "quick-win-5").data
    assert len(found["made"]) == 1
    assert "slow_query_log" in bench.objects()
    bench.magnus("rollback", "--yes")
    assert (bench.auto_conf.read_bytes(), bench.objects()) == (before, objects)


@pytest.mark.one_version
def test_a_file_that_is_no_plan_is_a_mistake(bench: Bench):
    """Exit code 2 and the file's name."""
    assert "cannot be read" in bench.magnus("apply", str(bench.folder / "none.json"), "--yes", code=2).err
    (bench.folder / "odd.json").write_bytes(b"\xff\xfe")
    assert "cannot be read" in bench.magnus("apply", str(bench.folder / "odd.json"), "--yes", code=2).err


@pytest.mark.one_version
def test_only_some_of_a_plan(bench: Bench):
    """--only takes ids, settings, groups and quick wins."""
    plan = bench.plan(bench.setting("work_mem", "9MB"), bench.setting("random_page_cost", "1.1", group="planner"))
    assert bench.apply(plan, "--only", "planner").data["made"] == ["setting:random_page_cost"]
    assert "names nothing in this plan" in bench.apply(plan, "--only", "nope", code=2).err
    bench.magnus("rollback", "--yes")


@pytest.mark.one_version
def test_a_journal_that_cannot_be_written_changes_nothing(bench: Bench):
    """No folder, no change: the error names the folder and the way out."""
    bench.journal = bench.folder / "plan.json" / "journal"
    before = bench.auto_conf.read_bytes()
    said = bench.apply(bench.plan(bench.setting("work_mem", "9MB")), code=4)
    assert "--journal" in said.err
    assert bench.auto_conf.read_bytes() == before


@pytest.mark.one_version
def test_a_full_disk_stops_before_the_next_change(bench: Bench, monkeypatch):
    """The journal's line for the second change finds no room: the first stands, is named, and can be taken back."""
    real, calls = os.write, []

    def full(descriptor: int, content: bytes) -> int:
        if b'"kind":"step"' in bytes(content):
            calls.append(1)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        return real(descriptor, content)

    before = bench.auto_conf.read_bytes()
    monkeypatch.setattr("magnus.tuning.journal.os.write", full)
    said = bench.apply(bench.plan(bench.setting("work_mem", "9MB"), bench.setting("jit", "off")), code=5)
    monkeypatch.undo()
    assert "No space left" in said.err
    assert b"jit" not in bench.auto_conf.read_bytes()
    bench.magnus("rollback", "--yes")
    assert bench.auto_conf.read_bytes() == before


@pytest.mark.one_version
def test_a_tampered_journal_is_refused(bench: Bench):
    """A changed reason breaks the chain."""
    bench.apply(bench.plan(bench.setting("work_mem", "9MB")), "--reason", "CHG-1")
    path = next(bench.journal.glob("*.jsonl"))
    good = path.read_bytes()
    path.write_bytes(good.replace(b"CHG-1", b"CHG-2"))
    assert "does not fit" in bench.magnus("rollback", "--yes", code=4).err
    path.write_bytes(good)
    bench.magnus("rollback", "--yes")


@pytest.mark.one_version
def test_a_torn_last_line_is_tolerated_and_said(bench: Bench):
    """Half of a line that a crash left: what it meant is looked up on the server."""
    bench.apply(bench.plan(bench.setting("work_mem", "9MB")))
    path = next(bench.journal.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b'{"seq":99,"kind":"st')
    said = bench.magnus("rollback", "--yes")
    assert "never finished" in said.err
    assert bench.magnus("history").data["torn"] == [str(path)]
    assert bench.magnus("history").data["runs"][0]["standing"] == 0
