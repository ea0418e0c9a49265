"""Verify by measurement on a real server: a setting that makes queries slower is found out, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from magnus.embedded import throwaway
from magnus.tuning.change import Change, Kind
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "postgres"
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


@pytest.mark.parametrize(("order", "pays"), [("i", False), ("pad", True)])
def test_an_index_that_does_not_pay_is_proposed_to_be_dropped(measured: Bench, order: str, pays: bool):  # noqa: FBT001
    """By the statements that it was made for, not by those beside it; and that drop is a command."""
    query = "SELECT i FROM wide WHERE pad = 'p77'"
    measured.sql(
        "CREATE TABLE wide AS SELECT i, 'p' || i AS pad FROM generate_series(1, 20000) i", "VACUUM ANALYZE wide"
    )
    measured.sql(*[query] * 40)
    queryid = measured.sql("SELECT queryid::text FROM pg_stat_statements WHERE query LIKE 'SELECT i FROM wide%'")
    name = f"index:public.magnus_wide@{DATABASE}"
    change = Change(
        id=name, kind=Kind.INDEX, name="public.magnus_wide", database=DATABASE, before=None,
        after=f'"public"."wide" ("{order}")', group="indexes", reason="a test", source="a test",
        sql=(f'CREATE INDEX CONCURRENTLY "magnus_wide" ON "public"."wide" ("{order}")',),
        undo=('DROP INDEX CONCURRENTLY IF EXISTS "public"."magnus_wide"',), evidence={"statements": queryid},
    )  # fmt: skip
    measured.apply(measured.plan(change))
    measured.sql(*[query] * 40)

    found = measured.magnus("verify", code=None).data  # on a busy machine one may also look slower

    ((each, verdict),) = [(index["id"], index["verdict"]) for index in found["indexes"]]
    assert each == name
    assert (verdict == "better") is pays
    assert pays or verdict in {"same", "worse"}
    measured.magnus("rollback", name, "--yes")
    assert measured.sql("SELECT to_regclass('magnus_wide')::text") is None
