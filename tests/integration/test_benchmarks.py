"""Every benchmark runs to its end, and says of each row what it measured or why it could not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = {"psycopg_pool", "SQLAlchemy engine", "magnus.create_pool"}

POOLS = (
    "LIFO", "FIFO hand-off", "asyncpg.Pool", "asyncpg.Pool, reset=noop", "magnus.Database", "magnus.create_pool",
)  # fmt: skip
ROWS = {
    "bench_pool": [
        "bare", "LIFO", "LIFO again (A/A)", "FIFO hand-off", "asyncpg.Pool", "asyncpg.Pool, reset=noop", "psycopg_pool",
        "SQLAlchemy engine", "magnus.Database", "magnus.create_pool",
    ],
    "bench_lanes": [
        f"{pool}, {flood}"
        for pool in ("magnus.Database", "asyncpg.Pool")
        for flood in ("calm", "flood of pg_sleep(0.2)", "flood that burns CPU")
    ],
    "bench_limits": ["an idle one that has it", "any idle one"],
    "bench_waiters": [
        f"{pool}, {tasks} tasks"
        for pool in POOLS
        for tasks in (100, 500)
    ],
    "bench_shedding": [
        f"{load}: {mode}"
        for load in (
            "10,000 at once", "2,000 clients in a loop", "0.95 x for 60 s", "2 x for 120 s",
            "burst, limit 30 s", "2 x capacity, limit 3 s",
        )
        for mode in ("off", "on", "wait_target")
    ],
    "bench_observers": [
        "off", "off again (A/A)", "logs", "Prometheus", "OpenTelemetry metrics", "OpenTelemetry spans",
        "OpenTelemetry spans, trace not sampled",
    ],
    "bench_scrape": ["fresh", "fresh, OpenMetrics", "kept"],
    "bench_check": ["100 tables, 300 indexes"],
    "bench_aa": ["A against A", "A against A, resampled", "B a tenth slower"],
    "bench_scale": ["magnus", "plain pool"],
    "bench_fleet": [
        "started at once", "0.5 seconds of work", "2 killed (-9) and replaced", "all restarted, 2 at once", "stopped",
    ],
    "bench_warm": [
        "magnus.Database, warmed", "magnus.Database, warmed, prepared", "magnus.Database, cold", "asyncpg.Pool, filled",
        "asyncpg.Pool, cold",
    ],
}  # fmt: skip
GOALS = {
    "bench_pool": 6,
    "bench_observers": 2,
    "bench_scrape": 2,
    "bench_check": 3,
    "bench_lanes": 8,
    "bench_limits": 2,
    "bench_waiters": 2,
    "bench_shedding": 7,
    "bench_aa": 3,
    "bench_scale": 3,
    "bench_fleet": 4,
    "bench_warm": 4,
}


@pytest.mark.slow
@pytest.mark.xdist_group("benchmarks")
@pytest.mark.parametrize("name", ROWS)
def test_a_quick_run_prints_every_row(name, tmp_path):
    """
    Rows of peers that are not installed may lack figures, then they say so; all others have them.
    """
    saved = tmp_path / "found.json"
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--quick", "--json", saved]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(saved.read_text())
    assert {"python", "asyncpg", "cores"} <= found["environment"].keys()
    assert ("PostgreSQL" in found["environment"]) == (name != "bench_scale")  # that one has a model of a server
    assert found["tables"]
    for table in found["tables"]:
        assert table["title"] in done.stdout
        assert [row["name"] for row in table["rows"]] == ROWS[name]
        for row in table["rows"]:
            assert row["name"] in done.stdout
            is_optional = row["name"].startswith(tuple(OPTIONAL))
            assert row["cells"] or (is_optional and row["note"].startswith("not measured: ")), row
    assert len(found["goals"]) == GOALS[name]
    assert all(goal["measured"] is not None for goal in found["goals"])


@pytest.mark.slow
@pytest.mark.xdist_group("benchmarks")
def test_the_generator_says_how_late_it_was_and_what_pgbench_measured(tmp_path):
    """Where pgbench is not installed it says that instead."""
    saved = tmp_path / "found.json"
    command = [sys.executable, ROOT / "benchmarks" / "bench_generator.py", "--quick", "--json", saved]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(saved.read_text())
    assert [row["name"] for row in found["tables"][0]["rows"]] == ["1 process at 500/s", "2 processes at 500/s"]
    if "pgbench is not installed" not in done.stdout:
        assert {row["name"] for row in found["tables"][1]["rows"]} == {
            "pgbench", "magnus bench, no pool", "magnus bench, no pool, evenly", "magnus bench, its pool",
            "magnus bench, asyncpg's",
        }  # fmt: skip


EXACT = {
    "bench_outage": ["statements that nothing was said of"],
    "bench_slow_log": ["rows lost below the rate"],
    "bench_fingerprints": ["no shape holds two queryids (% merged)"],
    "bench_reports": ["calls that a report has too many or too few"],
}


@pytest.mark.slow
@pytest.mark.xdist_group("benchmarks")
@pytest.mark.parametrize("name", EXACT)
def test_a_quick_run_about_the_slow_query_log_is_exact(name, tmp_path):
    """
    What is no time is as it should be in a short run too.
    """
    saved = tmp_path / "found.json"
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--quick", "--json", saved]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    measured = {goal["claim"]: goal["measured"] for goal in json.loads(saved.read_text())["goals"]}
    assert [measured[claim] for claim in EXACT[name]] == [0.0]
    if name == "bench_fingerprints":
        assert measured["groups that are the server's, own scanner (%)"] >= 95
        assert measured["groups that are the server's, pgparse (%)"] >= 95


def test_the_page_of_peers_says_what_was_measured(monkeypatch):
    """Every table, every goal and its verdict, of the results that are kept beside the scripts."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import peers

    shown = peers.PAGE.read_text()
    assert shown == peers.page()
    for name in peers.SCRIPTS:
        found = json.loads((peers.RESULTS / f"{name}.json").read_text())
        assert not found["options"]["quick"]
        assert all(goal["claim"] in shown for goal in found["goals"])


def test_the_page_of_the_cache_says_what_was_measured(monkeypatch):
    """Every table and goal of the results that are kept beside the scripts, and none was stale in 100,000 histories."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import cache

    shown = cache.PAGE.read_text()
    assert shown == cache.page(shown)
    histories, measured = (json.loads((cache.RESULTS / f"{name}.json").read_text()) for name in cache.NAMES)
    assert histories["options"]["histories"] == 100_000
    assert not measured["options"]["quick"]
    assert all(goal["claim"] in shown for goal in (*histories["goals"], *measured["goals"]))
