"""Plans that are wrong: refused with the reason, before anything is changed, and the server notices nothing of it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from magnus.embedded import throwaway
from magnus.tuning import quoting
from magnus.tuning.change import Change, Kind
from magnus.tuning.service import wait_until
from magnus.tuning.setting import Context
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

INJECTED = "archive_command to 'touch /tmp/x' --"


def raw(name: str, after: str, **more: Any) -> Change:
    """
    A change that no rule would make.
    """
    sql = more.pop("sql", None) or (f"ALTER SYSTEM SET {name} = '{after}'",)
    return Change(f"setting:{name}", Kind.SETTING, name, more.pop("before", None), after, sql, (), **more)


CAMPAIGN = bool(os.environ.get("MAGNUS_CAMPAIGN"))

# What is planned, what the refusal must say, and whether it takes the scratch cluster to find out.
BAD = {
    "more memory than there is": ("shared_buffers", "900GB", r"shared memory|not start", True),
    "more memory than is wise": ("shared_buffers", "HALF", r"40%", True),
    "work_mem times sessions": ("work_mem", "8GB", r"100 sessions x 8 GB", True),
    "sessions times work_mem": ("max_connections", "200000", r"sessions x|not start", True),
    "a value out of range": ("random_page_cost", "-3", r"random_page_cost.*must be from 0", False),
    "a word for a number": ("work_mem", "plenty", r"work_mem.*must be a number", False),
    "a unit that it does not know": ("checkpoint_timeout", "5MB", r"checkpoint_timeout.*unit of", False),
    "a word that this build does not know": ("wal_compression", "brotli", r"must be one of", False),
    "no bool": ("log_lock_waits", "perhaps", r"must be on or off", False),
    "a missing library": ("shared_preload_libraries", "no_such_library", r"no_such_library", True),
    "a list in one literal": ("shared_preload_libraries", '"pg_stat_statements,auto_explain"', r"auto_explain", True),
    "an empty list": ("shared_preload_libraries", "", r"empty list", False),
    "reserved sessions above all": ("superuser_reserved_connections", "100", r"superuser_reserved_connections", True),
    "senders without wal": ("wal_level", "minimal", r"wal_level", True),
    "huge pages that are not there": ("huge_pages", "on", r"huge pages", True),
    "a setting of another version": ("vacuum_defer_cleanup_age_x", "1", r"knows no such setting", False),
    "a value with a line end": ("log_line_prefix", "%m\nshared_buffers = 1TB", r"single line", False),
    "what says where the server is": ("port", "5433", r"set it by hand", False),
    "what runs programs": ("archive_command", "touch /tmp/x", r"set it by hand", False),
    "what cannot be set": ("block_size", "4096", r"cannot be set|may not|set it by hand", False),
}


# A trial takes a second or two, so that one of each way to fail is tried on every version, and all by the campaign.
TRIED = ["more memory than is wise", "work_mem times sessions", "a list in one literal", "senders without wal"]
KINDS = [kind for kind, (*_, is_tried) in BAD.items() if CAMPAIGN or not is_tried or kind in TRIED]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_plan_is_refused_with_the_reason(bench: Bench, kind: str):
    """Exit code 4, the setting and the reason in one line, nothing journalled as made, the server never down."""
    name, after, reason, is_tried = BAD[kind]
    if after == "HALF":
        total = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
        after = f"{total // 2}kB"
    started, before = bench.sql("SELECT pg_postmaster_start_time()"), bench.auto_conf.read_bytes()
    if is_tried:
        change = bench.setting(name, after)
        assert "exit_code" in bench.magnus("history").data
    else:
        found = bench.server().settings.get(name)
        change = raw(name, after, before=found.text if found else None, context=found.when if found else Context.NOW)
    said = bench.apply(bench.plan(change), "--restart", code=4, is_tried=True)
    assert re.search(reason, said.err, re.DOTALL), said.err
    assert name in said.err
    assert bench.auto_conf.read_bytes() == before
    assert not list(bench.journal.glob("*.jsonl"))
    assert bench.sql("SELECT pg_postmaster_start_time()") == started


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("name", "sql"),
    [
        (INJECTED, (f"ALTER SYSTEM SET {INJECTED} = '1'",)),
        ("work_mem", ("ALTER SYSTEM SET work_mem = '9MB'; DROP TABLE x",)),
        ("work_mem", ("ALTER SYSTEM SET archive_command = 'touch /tmp/x'",)),
        ("work_mem", ("ALTER SYSTEM SET work_mem = '9MB'", "DROP DATABASE postgres")),
    ],
)
def test_sql_in_a_name_or_beside_the_change_is_refused(bench: Bench, name: str, sql: tuple[str, ...]):
    """What is carried out is derived from name and value; a plan's own text must be that."""
    said = bench.apply(bench.plan(raw(name, "9MB", before="4MB", sql=sql)), code=4)
    assert "is no name of a setting" in said.err or "its SQL does not do what the change says" in said.err


@pytest.mark.one_version
@pytest.mark.parametrize(
    "script", ["DROP TABLE x", "CREATE TABLE y (i int); DELETE FROM x", "GRANT ALL ON SCHEMA public TO x", "DO $$$$"]
)
def test_a_tables_script_may_only_make_things(bench: Bench, script: str):
    """A script that is none of ours is read word for word."""
    change = Change("table:y@postgres", Kind.TABLE, "y", None, "created", (script,), (), database="postgres")
    assert "more than make a table" in bench.apply(bench.plan(change), code=4).err


def test_an_extension_that_the_server_lacks_is_refused(bench: Bench):
    """And the text says what to install."""
    sql = ('CREATE EXTENSION "timescaledb"',)
    change = Change("extension:timescaledb@postgres", Kind.EXTENSION, "timescaledb", None, "2", sql, (), "postgres")
    assert "install its package" in bench.apply(bench.plan(change), code=4).err


@pytest.mark.one_version
def test_a_stale_plan_says_what_differs(bench: Bench):
    """The value that the plan was made from is not the one that is there."""
    plan = bench.plan(bench.setting("work_mem", "9MB"))
    bench.sql("ALTER SYSTEM SET work_mem = '6MB'", "SELECT pg_reload_conf()")
    assert wait_until(lambda: bench.sql("SHOW work_mem") == "6MB", 60.0)
    said = bench.apply(plan, code=4)
    assert "work_mem was '4MB' when the plan was made and is '6MB' now" in said.err


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("system_identifier", "123", "system identifier"),
        ("version_num", 120000, "major version"),
        ("is_standby", True, "role: planned for standby, found primary"),
        ("cluster_name", "other", "cluster name"),
        ("data_directory", "/elsewhere", "data directory"),
    ],
)
def test_a_plan_for_another_server_is_refused(bench: Bench, part: str, value: object, words: str):
    """The identity that differs is named."""
    plan = bench.plan(bench.setting("work_mem", "9MB"), **{part: value})
    assert words in bench.apply(plan, code=4).err


@pytest.mark.one_version
def test_a_plan_that_was_edited_is_refused(bench: Bench):
    """Its digest does not hold any more."""
    plan = replace(bench.plan(bench.setting("work_mem", "9MB")), created="later")
    assert "changed after it was made" in bench.apply(plan, code=2).err


def test_a_broken_configuration_file_is_named_before_anything_is_made(bench: Bench):
    """A reload with an error in any file applies nothing at all, and answers true."""
    conf = bench.cluster.data / "postgresql.conf"
    good = conf.read_bytes()
    plan = bench.plan(bench.setting("work_mem", "9MB"))
    conf.write_bytes(good + b"\nno_such_setting_at_all = 1\n")
    try:
        said = bench.apply(plan, code=4)
        assert "no_such_setting_at_all" in said.err
        assert not list(bench.journal.glob("*.jsonl"))
    finally:
        conf.write_bytes(good)


def test_a_role_without_the_right_is_told_the_grant(bench: Bench):
    """42501 is foreseen."""
    bench.sql("CREATE ROLE app LOGIN IN ROLE pg_monitor", "SELECT 1")
    file = bench.folder / "plan.json"
    file.write_text(bench.plan(bench.setting("work_mem", "9MB")).dumps())
    said = bench.magnus("apply", str(file), "--yes", code=4, dsn=bench.cluster.dsn(user="app"))
    assert "GRANT ALTER SYSTEM ON PARAMETER work_mem TO app" in said.err
    assert "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO app" in said.err


def test_without_preflight_the_dead_man_brings_the_old_server_back(bench: Bench):
    """A library that is not there: the old file and the old server are back, and the log's words are told."""
    before, started = bench.auto_conf.read_bytes(), bench.sql("SELECT pg_postmaster_start_time()")
    plan = bench.plan(bench.setting("shared_preload_libraries", "no_such_library"), bench.setting("work_mem", "9MB"))
    said = bench.apply(plan, "--restart", code=4)
    assert "the old ones were put back" in said.err
    assert 'could not access file "no_such_library"' in said.err
    assert bench.sql("SELECT pg_postmaster_start_time()") > started
    assert bench.auto_conf.read_bytes() == before
    assert bench.magnus("history").data["runs"][0]["status"] == "restored"
    assert bench.magnus("rollback", "--yes").data == bench.magnus("rollback", "--dry-run").data


def test_the_dead_man_also_takes_back_what_waited_for_the_restart(bench: Bench):
    """The bad setting was written by an earlier run; the restart that brings it into force is another one."""
    before = bench.auto_conf.read_bytes()
    plan = bench.plan(bench.setting("shared_preload_libraries", "no_such_library"))
    assert bench.apply(plan).data["outcome"] == "waiting"
    assert "the old ones were put back" in bench.apply(plan, "--restart", code=4).err
    assert bench.auto_conf.read_bytes() == before
    assert [run["standing"] for run in bench.magnus("history").data["runs"]] == [0, 0]


def test_a_server_that_does_not_start_is_put_right_without_it(bench: Bench):
    """The option --offline edits the file on disk: exact bytes when nobody else changed it, else our settings only."""
    before = bench.auto_conf.read_bytes()
    bench.apply(bench.plan(bench.setting("shared_preload_libraries", "no_such_library")))
    assert "runs (process" in bench.magnus("rollback", "--offline", str(bench.cluster.data), "--yes", code=4).err
    bench.cluster.stop_blocking()
    shown = bench.magnus("rollback", "--offline", str(bench.cluster.data), "--dry-run").data["steps"]
    assert shown[0]["verdict"] == "put back"
    bench.magnus("rollback", "--offline", str(bench.cluster.data), "--yes")
    assert bench.auto_conf.read_bytes() == before
    bench.cluster.start_blocking()
    assert bench.magnus("history").data["runs"][0]["standing"] == 0


@pytest.mark.one_version
def test_offline_somebody_elses_line_stays(bench: Bench):
    """Three-way without a server."""
    bench.apply(bench.plan(bench.setting("jit", "off"), bench.setting("work_mem", "9MB")))
    bench.cluster.stop_blocking()
    bench.auto_conf.write_bytes(bench.auto_conf.read_bytes().replace(b"'9MB'", b"'12MB'") + b"# mine\n")
    found = bench.magnus("rollback", "--offline", str(bench.cluster.data), "--yes", code=1).data
    assert [item["id"] for item in found["conflicts"]] == ["setting:work_mem"]
    left = bench.auto_conf.read_bytes()
    assert b"work_mem = '12MB'" in left
    assert b"# mine" in left
    assert b"jit" not in left


@pytest.fixture
def archiving(pg_version: int, tmp_path: Path) -> Iterator[Bench]:
    """
    A server that archives for real, with a command that would be run by whatever has its configuration.
    """
    binaries = binaries_or_skip(pg_version)
    with throwaway(binaries) as cluster:
        archive = cluster.folder / "data" / "archive"
        archive.mkdir()
        os.chown(archive, cluster.data.stat().st_uid, cluster.data.stat().st_gid)
        found = Bench(cluster, tmp_path)
        command = f"echo %f >> {archive}/calls && cp %p {archive}/%f"
        found.sql(
            "ALTER SYSTEM SET archive_mode = 'on'",
            f"ALTER SYSTEM SET archive_command = {quoting.literal(command)}",
            "ALTER SYSTEM SET cluster_name = 'archiving'",
            "SELECT 1",
        )
        cluster.restart_blocking()
        found.sql("SELECT pg_switch_wal()")
        assert wait_until((archive / "calls").exists, 60.0)
        yield found


def test_the_trial_leaves_archive_wal_log_and_memory_as_they_were(archiving: Bench):
    """A real archive_command, and nothing of it is called; no byte of log or WAL is written for the trial."""
    bench = archiving
    plan = bench.plan(bench.setting("shared_buffers", "256MB"), bench.setting("work_mem", "9MB"))
    file = bench.folder / "plan.json"
    file.write_text(plan.dumps())
    bench.magnus("apply", str(file), "--dry-run", "--skip-preflight")  # what looking alone leaves
    archive, data = bench.cluster.data / "archive", bench.cluster.data

    def state() -> dict[str, object]:
        return {
            "archive": sorted((path.name, path.stat().st_size) for path in archive.iterdir()),
            "calls": (archive / "calls").read_text(),
            "wal": sorted(path.name for path in (data / "pg_wal").iterdir()),
            "lsn": bench.sql("SELECT pg_current_wal_lsn()"),
            "log": bench.cluster.log.read_text(),
            "pid": bench.cluster.pid,
            "buffers": bench.sql("SHOW shared_buffers"),
            "files": sorted(path.name for path in data.iterdir()),
        }

    before = state()
    found = bench.magnus("apply", str(file), "--dry-run").data
    assert found["preflight"]["status"] == "passed"
    assert found["preflight"]["shared_memory"] > 256 * 1024**2
    assert state() == before


def test_a_library_outside_the_short_list_is_only_checked(bench: Bench):
    """It never runs in a scratch server, and the report says so."""
    name = "pg_visibility" if bench.server().major < 16 else "pg_walinspect"
    plan = bench.plan(bench.setting("shared_preload_libraries", name))
    file = bench.folder / "plan.json"
    file.write_text(plan.dumps())
    found = bench.magnus("apply", str(file), "--dry-run").data["preflight"]
    assert found["status"] == "partly checked"
    assert f"library {name} was loaded for a check only" in found["notes"][0]
