"""Verify by measurement on a real server: a setting that makes queries slower is found out, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from magnus.embedded import throwaway
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERY = "SELECT sum(b.i) FROM numbers a JOIN numbers b USING (i)"


@pytest.fixture
def measured(pg_version: int, tmp_path: Path) -> Iterator[Bench]:
    """
    A server with pg_stat_statements, and a query that has run often enough to be known.
    """
    with throwaway(binaries_or_skip(pg_version)) as cluster:
        found = Bench(cluster, tmp_path)
        found.sql(
            "CREATE EXTENSION pg_stat_statements",
            "CREATE TABLE numbers AS SELECT i FROM generate_series(1, 300) i",
            "VACUUM ANALYZE numbers",
            "SELECT 1",
        )
        found.sql(*[QUERY] * 40)
        yield found


def slower(bench: Bench) -> None:
    """
    Without hash and merge joins the same query is a loop in a loop: a hundred times the work.
    """
    plan = bench.plan(*(bench.setting(name, "off") for name in ("enable_hashjoin", "enable_mergejoin")))
    bench.apply(plan)


def test_a_regression_is_found_and_taken_back_on_request(measured: Bench):
    """Exit code 1 and the query's name; with --rollback-if-worse the reload-level changes of the run are gone."""
    before = measured.auto_conf.read_bytes()
    slower(measured)
    measured.sql(*[QUERY] * 40)
    found = measured.magnus("verify", code=1).data
    assert found["effect"]["verdict"] == "worse"
    assert found["queries"][0]["verdict"] == "worse"
    assert "JOIN numbers b" in found["queries"][0]["query"]
    assert found["taken_back"] is None
    taken = measured.magnus("verify", "--rollback-if-worse", code=1).data["taken_back"]
    assert sorted(taken["undone"]) == ["setting:enable_hashjoin", "setting:enable_mergejoin"]
    assert measured.auto_conf.read_bytes() == before


def test_too_little_is_no_verdict(measured: Bench):
    """Nothing ran since: not enough data, and that is no failure."""
    slower(measured)
    assert measured.magnus("verify").data["effect"]["verdict"] == "not enough data"
    measured.magnus("rollback", "--yes")


def test_a_reset_of_the_statistics_is_noticed(measured: Bench):
    """Somebody else's reset makes the comparison impossible, not wrong."""
    slower(measured)
    measured.sql("SELECT pg_stat_statements_reset()")
    measured.sql(*[QUERY] * 40)
    assert measured.magnus("verify").data["effect"]["verdict"] == "not enough data"
