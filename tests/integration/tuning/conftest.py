"""A stock server to apply plans to: nothing preloaded, one a version and process, the same before and after a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from magnus.embedded import throwaway
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from magnus.embedded import Cluster


@pytest.fixture(scope="session")
def stock(pg_version: int) -> Iterator[Cluster]:
    """
    A running server as initdb made it.
    """
    with throwaway(binaries_or_skip(pg_version), settings={"shared_preload_libraries": ""}) as cluster:
        yield cluster


@pytest.fixture
def bench(stock: Cluster, tmp_path: Path) -> Iterator[Bench]:
    """
    The stock server with a journal of the test's own. Whatever the test left is put right, and noticed.
    """
    before = (stock.data / "postgresql.auto.conf").read_bytes()
    found = Bench(stock, tmp_path)
    if not stock.is_running:
        stock.start_blocking()
    yield found
    if found.auto_conf.read_bytes() != before:
        found.auto_conf.write_bytes(before)
        stock.restart_blocking()
    elif not stock.is_running:
        stock.start_blocking()
    found.sql("DROP OWNED BY app", "DROP ROLE app", "SELECT 1") if found.sql(
        "SELECT count(*) FROM pg_roles WHERE rolname = 'app'"
    ) else None
    found.sql(
        "DROP EXTENSION IF EXISTS pg_stat_statements CASCADE",
        "DROP TABLE IF EXISTS slow_query_log, slow_query_plan CASCADE",
        "SELECT 1",
    )
