"""The checks as tables: what a snapshot holds -> what each check says. No server."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from magnus.tuning.checks import CHECKS, Missing, Severity, Snapshot, State, run, select
from tests.unit.tuning.snapshots import (
    DAY,
    HIDDEN,
    SERVER,
    client,
    database,
    file_setting,
    foreign_key,
    healthy,
    index,
    index_widths,
    integer_key,
    primary_key,
    role,
    role_setting,
    sequence,
    sequence_value,
    settings,
    slot,
    standby,
    table,
    waiting,
    widths,
)

BY_CODE = {check.code: check for check in CHECKS}
SERVICE_ONLY = {"Q003", "Q007", "Q008", "Q009"}
GB = 1024**3
INFO, WARN, FAIL = Severity.INFO, Severity.WARNING, Severity.ERROR


def server(**changes: Any) -> tuple[dict[str, Any]]:
    return (SERVER | changes,)


YOUNG = server(up_s=3600.0)

FINDINGS: list[tuple[str, Severity, str, dict[str, Any]]] = [
    ("S001", WARN, "PostgreSQL 18.5", {"server": server(version_num=180005)}),
    ("S001", FAIL, "PostgreSQL 13", {"server": server(version_num=130023)}),
    ("S001", FAIL, "PostgreSQL 15", {"server": server(version_num=150020, taken_at=1_900_000_000.0)}),
    ("S002", WARN, "shared_buffers", {"settings": settings(shared_buffers={"pending_restart": True})}),
    ("S003", FAIL, "/etc/postgresql.conf:12", {"file_settings": (file_setting("wrok_mem", "4", error="unknown"),)}),
    ("S004", WARN, "work_mem", {
        "file_settings": (file_setting("work_mem", "64MB"),),
        "settings": settings(work_mem={"source": "command line"}),
    }),
    ("S004", INFO, "work_mem", {"role_settings": (role_setting("work_mem", "64MB"),)}),
    ("S005", FAIL, "fsync", {"settings": settings(fsync="off")}),
    ("S005", FAIL, "full_page_writes", {"settings": settings(full_page_writes="off")}),
    ("S005", FAIL, "zero_damaged_pages", {"settings": settings(zero_damaged_pages="on")}),
    ("S006", WARN, "data_checksums", {"settings": settings(data_checksums="off")}),
    ("S006", FAIL, "database ava", {"databases": (database(checksum_failures=1),)}),
    ("S007", FAIL, "autovacuum", {"settings": settings(autovacuum="off")}),
    ("S007", FAIL, "track_counts", {"settings": settings(track_counts="off")}),
    ("P001", WARN, "shared_preload_libraries", {"settings": settings(shared_preload_libraries="auto_explain")}),
    ("P001", WARN, "pg_stat_statements", {"extensions": ()}),
    ("P001", WARN, "pg_stat_statements in ava", {
        "extensions": ({"name": "pg_stat_statements", "version": None, "default_version": "1.12", "schema": None},),
    }),
    ("P001", WARN, "pg_stat_statements in ava", {
        "extensions": ({"name": "pg_stat_statements", "version": "1.8", "default_version": "1.12", "schema": "x"},),
    }),
    ("P002", WARN, "pg_stat_statements", {"statements_info": ({"dealloc": 51, "age_s": 7200.0, "entries": 100},)}),
    ("P002", WARN, "pg_stat_statements", {"statements_info": ({"dealloc": 0, "age_s": DAY, "entries": 4751},)}),
    # The mission's own values on its 8 GB: 200 x 64 MB.
    ("M001", FAIL, "work_mem and max_connections", {"settings": settings(work_mem="65536", max_connections="200")}),
    ("M001", WARN, "work_mem and max_connections", {"settings": settings(work_mem="32768", hash_mem_multiplier="3")}),
    ("M002", WARN, "shared_buffers", {"settings": settings(shared_buffers="16384"), "planned": Missing("no")}),
    ("M002", WARN, "shared_buffers", {"settings": settings(shared_buffers="524288")}),
    ("M002", WARN, "shared_buffers", {"settings": settings(shared_buffers="16384"), "host": Missing("remote")}),
    ("M003", WARN, "effective_cache_size", {"settings": settings(effective_cache_size="16384")}),
    ("M003", WARN, "effective_cache_size", {"settings": settings(effective_cache_size=str(9 * GB // 8192))}),
    ("M004", INFO, "huge_pages", {"settings": settings(shared_buffers=str(8 * GB // 8192))}),
    ("C001", WARN, "max_connections", {"activity": tuple(client(pid=n) for n in range(70))}),
    ("C001", FAIL, "max_connections", {"activity": tuple(client(pid=n) for n in range(90))}),
    ("C001", FAIL, "database ava", {"databases": (database(connection_limit=5),)}),
    ("C001", WARN, "role app", {"roles": (role(connection_limit=6),)}),
    ("C002", WARN, "pid 4711 (app@ava 'ava_trading_platform')", {
        "activity": (client(state="idle in transaction", state_s=301.0, transaction_s=310.0),),
    }),
    ("C002", FAIL, "pid 4711 (app@ava 'ava_trading_platform')", {
        "activity": (client(state="idle in transaction (aborted)", state_s=3601.0, transaction_s=3700.0),),
    }),
    ("C003", WARN, "pid 4711 (app@ava 'ava_trading_platform')", {
        "activity": (client(state="active", transaction_s=901.0),),
    }),
    ("C003", FAIL, "pid 4711 (app@ava 'ava_trading_platform')", {
        "activity": (client(state="active", transaction_s=3601.0),),
    }),
    ("C004", WARN, "pid 4711 (app@ava 'ava_trading_platform')", {"activity": (client(xmin_age=10_000_001),)}),
    ("C004", FAIL, "slot old", {"slots": (slot(name="old", catalog_xmin_age=100_000_001),)}),
    ("C004", WARN, "standby db2", {"standbys": (standby(xmin_age=20_000_000),)}),
    ("C004", FAIL, "prepared transaction x", {
        "prepared": ({"gid": "x", "role": "app", "database": "ava", "age_s": 1.0, "xid_age": 200_000_000},),
    }),
    ("C005", WARN, "pid 7", {"blocked": (waiting(wait_s=11.0),)}),
    ("C005", FAIL, "pid 7", {"blocked": (waiting(kind="transactionid", schema=None, name=None, wait_s=61.0),)}),
    ("C006", WARN, "prepared transaction g'x", {
        "prepared": ({"gid": "g'x", "role": "app", "database": "ava", "age_s": 301.0, "xid_age": 1},),
    }),
    ("C006", FAIL, "prepared transaction x", {
        "prepared": ({"gid": "x", "role": "app", "database": "ava", "age_s": 3601.0, "xid_age": 1},),
    }),
    ("C007", WARN, "database ava", {"databases": (database(sessions_abandoned=60),)}),
    ("C007", FAIL, "database ava", {"databases": (database(sessions_fatal=300),)}),
    ("C008", WARN, "database ava", {"databases": (database(deadlocks=31),)}),
    ("C008", FAIL, "database ava", {"databases": (database(deadlocks=301),)}),
    ("C008", FAIL, "database ava", {"databases": (database(deadlocks=11, stats_age_s=60.0),)}),
    ("C009", WARN, "database ava", {"databases": (database(xact_rollback=60_000),)}),
    ("C009", FAIL, "database ava", {"databases": (database(xact_rollback=300_000),)}),
    ("C010", WARN, "max_connections", {
        "activity": tuple(client(pid=n, application="ava (magnus 30+2)") for n in range(4)),
    }),
    ("C010", WARN, "database ava", {
        "activity": (client(application="ava (magnus 30+2)"),), "databases": (database(connection_limit=31),),
    }),
    ("C010", WARN, "role app", {
        "activity": (client(application="ava (magnus 30+2)"), client(application="psql", pid=9)),
        "roles": (role(name="app", connection_limit=32),),
    }),
    ("V001", WARN, "database ava", {"databases": (database(xid_age=1_060_000_000),)}),
    ("V001", FAIL, "database ava", {"databases": (database(mxid_age=1_600_000_000),)}),
    ("V001", WARN, "public.trades", {"tables": (table(toast_xid_age=300_000_001),)}),
    ("V001", WARN, "pg_catalog.pg_class", {
        "tables": (table(schema="pg_catalog", name="pg_class", is_system=True, mxid_age=600_000_001),),
    }),
    ("V002", WARN, "public.trades", {"tables": (table(dead=300_000),)}),
    ("V003", WARN, "public.trades", {"tables": (table(modified=250_000),)}),
    ("V003", WARN, "public.trades", {"tables": (table(analyzed_s=None, tuples=-1.0, modified=0, live=1000),)}),
    ("V003", INFO, "public.trades", {"tables": (table(kind="p", analyzed_s=None, tuples=-1.0, has_parts=True),)}),
    ("V004", WARN, "public.trades", {"table_widths": (widths(bytes=300 * 1024**2),)}),
    ("V004", INFO, "public.trades", {"table_widths": (widths(bytes=220 * 1024**2, tuples=900_000.0, width=100.0),)}),
    ("V005", WARN, "public.trades_account", {
        "index_widths": (index_widths(bytes=200 * 1024**2, tuples=1e6),),
    }),
    ("V006", WARN, "public.trades", {"tables": (table(options=["fillfactor=80", "autovacuum_enabled=false"]),)}),
    ("V006", WARN, "public.trades", {"tables": (table(toast_options=["autovacuum_enabled=off"]),)}),
    ("V007", WARN, "autovacuum workers", {
        "activity": tuple(client(pid=n, backend_type="autovacuum worker", session_s=61.0 + n) for n in range(3)),
    }),
    ("I001", FAIL, "public.trades_account", {"indexes": (index(is_valid=False),)}),
    ("I001", FAIL, "public.trades_account", {"indexes": (index(is_valid=False, is_ready=False),)}),
    ("I001", FAIL, "public.trades_account", {"indexes": (index(is_valid=False, is_partitioned=True),)}),
    ("I002", WARN, "public.b", {"indexes": (index(), index(oid=20009, name="b", scans=0))}),
    ("I002", INFO, "public.trades_account", {"indexes": (index(), index(
        oid=20009, name="b", keys=2, columns="2 3", classes="3124 3124", collations="0 0", options="0 0"
    ))}),
    ("I002", WARN, "public.trades_account", {"indexes": (index(columns="1"), primary_key())}),
    ("I003", INFO, "public.trades_account", {"indexes": (index(scans=0),)}),
    ("I004", WARN, "public.trades.trades_account_id_fkey", {"indexes": (primary_key(),)}),
    ("I004", INFO, "public.trades.trades_account_id_fkey", {
        "indexes": (), "foreign_keys": (foreign_key(tuples=9_999.0),),
    }),
    ("I005", WARN, "public.trades", {"tables": (table(seq_scans=20, seq_rows=20_000_000),)}),
    ("T001", WARN, "public.trades.id", {
        "sequences": (sequence(column_type="integer", column_most=2**31 - 1),),
        "sequence_values": (sequence_value(last_value=1_600_000_000),),
    }),
    ("T001", FAIL, "public.trades.id", {
        "sequences": (sequence(column_type="smallint", column_most=32767),),
        "sequence_values": (sequence_value(last_value=30_000),),
    }),
    ("T001", FAIL, "public.trades_id_seq", {
        "sequences": (sequence(column_name=None, column_parts=None, column_type=None, column_most=None, most=100),),
        "sequence_values": (sequence_value(last_value=99),),
    }),
    ("T001", FAIL, "public.trades.id", {
        "sequences": (sequence(step=-1, least=-(2**63), most=-1, column_type="integer", column_most=2**31 - 1),),
        "sequence_values": (sequence_value(last_value=-2_000_000_000),),
    }),
    ("T001", WARN, "public.legacy.id", {"integer_keys": (integer_key(highest=1_600_000_000),)}),
    ("T002", WARN, "public.trades", {"tables": (table(has_primary_key=False),)}),
    ("T002", WARN, "public.trades", {"tables": (table(has_primary_key=False, kind="p"),)}),
    ("T003", WARN, "public.trades", {"tables": (table(is_unlogged=True),), "standbys": (standby(),)}),
    ("T003", WARN, "public.trades", {"tables": (table(is_unlogged=True),), "slots": (slot(),)}),
    ("W001", WARN, "max_wal_size", {
        "checkpoints": ({"timed": 70, "requested": 30, "age_s": DAY, "wal_bytes": 1e11, "wal_age_s": DAY},),
    }),
    ("W001", FAIL, "max_wal_size", {
        "checkpoints": ({"timed": 1, "requested": 9, "age_s": DAY, "wal_bytes": 1e11, "wal_age_s": DAY},),
    }),
    ("W002", WARN, "database ava", {"databases": (database(temp_bytes=31 * GB),)}),
    ("W003", WARN, "database ava", {"databases": (database(blks_read=3_000_000_000, blks_hit=9_000_000_000),)}),
    ("R001", WARN, "slot standby_1", {"slots": (slot(active=False, inactive_s=600.0),)}),
    ("R001", WARN, "slot standby_1", {"slots": (slot(retained=2.0 * GB),)}),
    ("R001", FAIL, "slot standby_1", {"slots": (slot(retained=6.0 * GB),)}),
    ("R001", FAIL, "slot standby_1", {"slots": (slot(wal_status="lost", invalidation="wal_removed"),)}),
    ("R001", INFO, "max_slot_wal_keep_size", {"slots": (slot(),), "settings": settings(max_slot_wal_keep_size="-1")}),
    ("R002", WARN, "standby db2 (10.0.0.2/32)", {"standbys": (standby(lag_s=21.0),)}),
    ("R002", FAIL, "standby db2 (10.0.0.2/32)", {"standbys": (standby(behind=6.0 * GB),)}),
    ("R003", FAIL, "archive_command", {"archiver": (
        {"archived_count": 1, "failed_count": 4, "last_failed_wal": "0001", "archived_s": 99.0, "failed_s": 3.0},
    )}),
    ("R003", FAIL, "archive_command", {"archiver": (
        {"archived_count": 0, "failed_count": 4, "last_failed_wal": "0001", "archived_s": None, "failed_s": 3.0},
    )}),
    ("A001", WARN, "role app", {"passwords": ({"name": "app"},)}),
    ("A002", WARN, "role app", {"roles": (role(is_superuser=True),)}),
    ("A003", WARN, "schema public", {"open_schemas": ({"name": "public"},)}),
    ("A004", WARN, "ssl", {"settings": settings(ssl="off")}),
    ("A005", INFO, "log_lock_waits", {"settings": settings(log_lock_waits="off")}),
    ("A005", INFO, "log_temp_files", {"settings": settings(log_temp_files="-1")}),
    ("A006", INFO, "role app", {"role_settings": (role_setting("statement_timeout", "120s"),)}),
    ("A006", INFO, "role app", {"role_settings": (
        role_setting("statement_timeout", "0"), role_setting("idle_in_transaction_session_timeout", "60s"),
    )}),
    ("A007", INFO, "extension postgis", {"extensions": (
        {"name": "postgis", "version": "3.3", "default_version": "3.5", "schema": "public"},
    )}),
    ("A007", INFO, "extension gone", {"extensions": (
        {"name": "gone", "version": "3.3", "default_version": None, "schema": "public"},
    )}),
    ("A008", WARN, "volume of the data", {"disks": ({"name": "data", "path": "/d", "free": 14, "total": 100},)}),
    ("A008", FAIL, "volume of the wal", {"disks": ({"name": "wal", "path": "/w", "free": 4, "total": 100},)}),
    ("Q001", INFO, "pg_stat_statements", {"planned": (
        {"id": "x", "name": "pg_stat_statements", "quick_win": ("quick-win-1",), "before": None, "after": "1"},
    )}),
    ("Q004", WARN, "work_mem", {"applied": (
        {"id": "w", "name": "work_mem", "quick_win": ("quick-win-4",), "after": "8MB", "now": "4MB", "run": "r1"},
    )}),
    ("Q002", INFO, "warm pool", {"activity": (client(),)}),
    ("Q006", INFO, "pool size", {"activity": tuple(client(pid=n) for n in range(31))}),
    ("Q005", INFO, "slow_query_log", {"slow_log": ()}),
    ("Q005", WARN, "public.slow_query_log", {"slow_log": (
        {"schema": "public", "name": "slow_query_log", "columns": ["id bigint", "query text"], "live": 0},
    )}),
    ("Q010", INFO, "jit", {"planned": (
        {"id": "setting:jit", "name": "jit", "quick_win": ("quick-win-10",), "before": "on", "after": "off"},
    )}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "severity", "name", "parts"), FINDINGS)
def test_a_check_fires(code, severity, name, parts):
    """Above its threshold it names the object, says what was measured, and how to repair and undo it."""
    result = run(BY_CODE[code], healthy(**parts))
    assert result.state is State.FINDING, result.verdict
    named = [finding for finding in result.verdict.findings if finding.object == name]
    assert [finding.severity for finding in named] == [severity], result.verdict.findings
    assert all(finding.evidence and finding.fix and finding.undo for finding in result.verdict.findings)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_healthy_server_has_nothing_to_find(check):
    """Each check is ok on it, except what only the service can know."""
    result = run(check, healthy())
    wanted = State.UNKNOWN if check.code in SERVICE_ONLY else State.OK
    assert result.state is wanted, result.verdict


def test_every_check_has_a_case_that_fires():
    """None of them was forgotten in the table above."""
    assert {code for code, *_ in FINDINGS} == BY_CODE.keys() - SERVICE_ONLY


QUIET: list[tuple[str, dict[str, Any]]] = [
    ("S003", {
        "file_settings": (file_setting("shared_buffers", "1GB", error="setting could not be applied"),),
        "settings": settings(shared_buffers={"pending_restart": True}),
    }),
    ("S004", {
        "file_settings": (file_setting("work_mem", "4096kB"),),
        "settings": settings(work_mem={"source": "command line"}),
    }),
    ("M002", {"settings": settings(shared_buffers="16384")}),  # the plan sees no gain: the data are small
    ("M004", {"settings": settings(shared_buffers=str(8 * GB // 8192), huge_pages_status="on")}),
    ("C001", {"activity": tuple(client(pid=n, backend_type="parallel worker") for n in range(90))}),
    ("C002", {"activity": (client(state="idle", state_s=9e9),)}),
    ("C003", {"activity": (client(state="active", transaction_s=9e9, backend_type="walsender"),)}),
    ("V002", {"tables": (table(dead=9_999, live=100, tuples=100.0),)}),
    ("V002", {"tables": (table(dead=300_000, options=["autovacuum_vacuum_scale_factor=0.5"]),)}),
    ("V003", {"tables": (table(modified=250_000, options=["autovacuum_analyze_scale_factor=0.4"]),)}),
    ("V003", {"tables": (table(analyzed_s=None, tuples=-1.0, modified=0, live=999),)}),
    ("V003", {"tables": (table(kind="p", analyzed_s=None, tuples=-1.0),)}),
    ("I001", {"indexes": (index(is_valid=False),), "index_builds": ({"pid": 1, "table_oid": 20000, "oid": 20001},)}),
    # A row in a descending index, another collation, class, predicate or expression is another index.
    ("I002", {"indexes": (index(), index(oid=20009, name="b", options="3"))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", collations="950"))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", classes="10002"))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", predicate="{X}"))}),
    ("I002", {"indexes": (index(columns="0", expressions="{A}"), index(oid=20009, columns="0", expressions="{B}"))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", method="hash"))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", is_valid=False))}),
    ("I002", {"indexes": (index(is_unique=True), index(oid=20009, name="b", is_unique=True))}),
    ("I002", {"indexes": (index(is_partition=True), index(oid=20009, name="b", is_partition=True))}),
    ("I002", {"indexes": (index(is_replica_identity=True), index(oid=20009, name="b", is_clustered=True))}),
    ("I002", {"indexes": (index(), index(oid=20009, name="b", table_oid=7))}),
    ("I003", {"indexes": (index(scans=0, bytes=9 * 1024**2), index(oid=3, scans=0, is_unique=True))}),
    ("I003", {"indexes": (index(scans=0, is_partitioned=True),)}),
    ("I004", {"foreign_keys": (foreign_key(deleted=0),), "indexes": ()}),
    ("I004", {
        "foreign_keys": (foreign_key(columns=[3, 2], names=["a", "b"]),), "indexes": (index(keys=2, columns="2 3"),),
    }),
    ("T001", {"sequences": (sequence(is_cycle=True, most=10),), "sequence_values": (sequence_value(last_value=10),)}),
    ("T001", {"sequence_values": (sequence_value(last_value=2**63 - 1, is_called=False),)}),
    ("T002", {"tables": (table(has_primary_key=False, is_partition=True), table(has_primary_key=False, kind="m"))}),
    ("T002", {"tables": (table(has_primary_key=False, is_extensions=True),)}),
    ("T003", {"tables": (table(is_unlogged=True),)}),
    ("W003", {"databases": (database(blks_read=100_000, blks_hit=10),)}),
    ("R001", {"slots": (slot(active=False, temporary=True),)}),
    ("R003", {"settings": settings(archive_mode="off"), "archiver": (
        {"archived_count": 0, "failed_count": 1, "last_failed_wal": "1", "archived_s": None, "failed_s": 9.0},
    )}),
    ("A004", {"settings": settings(ssl="off", listen_addresses="localhost, 127.0.0.1")}),
    ("A006", {"role_settings": (
        role_setting("statement_timeout", "1min", role=None, database="ava"),
        role_setting("idle_in_transaction_session_timeout", "1min", role=None),
    )}),
    ("A006", {"role_settings": (), "activity": ()}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "parts"), QUIET)
def test_a_check_stays_quiet(code, parts):
    """What looks like a finding and is none: the trap of each check."""
    result = run(BY_CODE[code], healthy(**parts))
    assert result.state is State.OK, result.verdict


UNKNOWN: list[tuple[str, str, dict[str, Any]]] = [
    ("S002", "hidden", {"server": server(sees_all_settings=False)}),
    ("S003", "GRANT", {"file_settings": Missing("GRANT it")}),
    ("P001", 'GRANT pg_monitor TO "operator"', {"settings": settings(shared_preload_libraries=None)}),
    ("P002", "an hour", {"statements_info": ({"dealloc": 0, "age_s": 60.0, "entries": 4},)}),
    ("M001", "--memory", {"host": Missing("--memory 8GB")}),
    ("M004", "before version 17", {
        "server": server(version_num=160016), "settings": settings(shared_buffers="2000000"),
    }),
    ("C001", "which of them are clients", {
        "server": server(sees_all_stats=False), "databases": (database(sessions_now=80),),
    }),
    ("C002", "5 sessions of other roles are hidden", {"activity": tuple(client(pid=n, **HIDDEN) for n in range(5))}),
    ("C003", "hidden", {"activity": (client(**HIDDEN),)}),
    ("C004", "hidden", {"activity": (client(**HIDDEN),)}),
    ("C004", "standbys", {"standbys": (standby(state=None, behind=None),)}),
    ("C007", "100 sessions", {"databases": (database(sessions=99),)}),
    ("C008", "a day is needed", {"databases": (database(deadlocks=0, stats_age_s=60.0),)}),
    ("C009", "1,000 transactions", {"databases": (database(xact_commit=500),)}),
    ("V004", "stale or hidden", {"table_widths": (widths(columns_seen=3),)}),
    ("V004", "stale or hidden", {"tables": (table(modified=900_000),)}),
    ("V005", "stale or hidden", {"index_widths": (index_widths(columns_seen=0),)}),
    ("V007", "pg_monitor", {"server": server(sees_all_stats=False)}),
    ("I001", "an index is being built", {
        "indexes": (index(is_valid=False),), "index_builds": ({"pid": 1, "table_oid": None, "oid": None},),
    }),
    ("I003", "14 days", {"server": YOUNG, "indexes": (index(scans=0),)}),
    ("I003", "14 days", {"database_age": ({"age_s": DAY},), "indexes": (index(scans=0),)}),
    ("I003", "standbys may use them", {"indexes": (index(scans=0),), "standbys": (standby(),)}),
    ("I003", "standbys may use them", {"indexes": (index(scans=0),), "slots": (slot(active=False),)}),
    ("I003", "primary", {"server": server(is_standby=True)}),
    ("I004", "7 days", {"server": YOUNG, "foreign_keys": (foreign_key(deleted=0),), "indexes": ()}),
    ("I005", "7 days", {"server": YOUNG}),
    ("T001", "hidden", {"sequence_values": ()}),
    ("T001", "hidden", {"integer_keys": (integer_key(highest=None),)}),
    ("W001", "10 are needed", {
        "checkpoints": ({"timed": 9, "requested": 0, "age_s": 60.0, "wal_bytes": 1.0, "wal_age_s": 60.0},),
    }),
    ("W002", "a day", {"databases": (database(stats_age_s=60.0),)}),
    ("W003", "an hour", {"databases": (database(stats_age_s=60.0),)}),
    ("R002", "hidden", {"standbys": (standby(state=None, behind=None, lag_s=None),)}),
    ("R003", "nothing was archived yet", {"archiver": (
        {"archived_count": 0, "failed_count": 0, "last_failed_wal": None, "archived_s": None, "failed_s": None},
    )}),
    ("Q002", "no session", {"activity": ()}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "reason", "parts"), UNKNOWN)
def test_what_was_not_seen_is_unknown(code, reason, parts):
    """Without permission, or on young statistics, it is not ok; it says what is missing."""
    result = run(BY_CODE[code], healthy(**parts))
    assert result.state is State.UNKNOWN, result.verdict
    assert reason in result.verdict.missing


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_part_that_is_missing_is_never_ok(check):
    """Whatever a check needs: when that one part could not be read, the check says so."""
    for part in check.reads:
        result = run(check, healthy(**{part: Missing(f"no {part}")}))
        assert result.state is State.UNKNOWN
        assert result.verdict.missing == f"no {part}"
    assert run(check, Snapshot()).state is State.UNKNOWN


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_check_without_any_hidden_setting_does_not_crash(check):
    """A setting that this role is not shown makes it unknown, or is not needed; nothing else."""
    result = run(check, healthy(settings=()))
    assert result.state in State


def test_what_was_found_in_a_part_counts_although_the_rest_is_hidden():
    """One session is seen idle in transaction; two others are hidden: a finding, with how many were examined."""
    idle = client(state="idle in transaction", state_s=400.0, transaction_s=400.0)
    result = run(BY_CODE["C002"], healthy(activity=(idle, client(pid=1, **HIDDEN), client(pid=2, **HIDDEN))))
    assert result.state is State.FINDING
    assert result.examined == "examined 1 of 3"
    assert "2 sessions" in result.verdict.missing


def test_of_a_chain_of_equal_indexes_one_stays():
    """Three equal ones: two go, and the one that stays is the one in use."""
    rows = (index(scans=9), index(oid=20008, name="b", scans=0), index(oid=20009, name="c", scans=5))
    result = run(BY_CODE["I002"], healthy(indexes=rows))
    assert [finding.object for finding in result.verdict.findings] == ["public.b", "public.c"]
    assert all("public.trades_account" in finding.evidence for finding in result.verdict.findings)


def test_expressions_are_compared_without_the_place_where_they_were_written():
    """The catalogue's form of an expression holds positions in the text of CREATE INDEX."""
    rows = (
        index(columns="0", expressions="({FUNCEXPR :funcid 870 :location 31})"),
        index(oid=20009, name="b", columns="0", scans=0, expressions="({FUNCEXPR :funcid 870 :location 47})"),
    )
    assert [f.object for f in run(BY_CODE["I002"], healthy(indexes=rows)).verdict.findings] == ["public.b"]


def test_a_partial_index_that_only_leaves_nulls_out_serves_a_foreign_key():
    """A lookup by a key never asks for NULL; another predicate does not serve."""
    not_null = (
        "{NULLTEST :arg {VAR :varno 1 :varattno 2 :vartype 20 :location 5} :nulltesttype 1 :argisrow false :location 9}"
    )
    is_null = not_null.replace(":nulltesttype 1", ":nulltesttype 0")
    assert run(BY_CODE["I004"], healthy(indexes=(index(predicate=not_null),))).state is State.OK
    for predicate in (is_null, not_null.replace("varattno 2", "varattno 3"), "{OPEXPR}"):
        assert run(BY_CODE["I004"], healthy(indexes=(index(predicate=predicate),))).state is State.FINDING


def test_undo_brings_back_what_was_set_and_not_the_default():
    """RESET would lose a value that ALTER SYSTEM gave; where the file is hidden, the value itself is the way back."""
    auto = {"value": "off", "source": "configuration file", "sourcefile": "/d/postgresql.auto.conf"}
    by_hand = auto | {"sourcefile": "/d/postgresql.conf"}
    hidden = auto | {"sourcefile": None}
    undo = [
        run(BY_CODE["A005"], healthy(settings=settings(log_lock_waits=dict(row)))).verdict.findings[0].undo
        for row in (auto, by_hand, hidden)
    ]
    assert undo[0] == undo[2] == "ALTER SYSTEM SET log_lock_waits = 'off'; SELECT pg_reload_conf()"
    assert undo[1] == "ALTER SYSTEM RESET log_lock_waits; SELECT pg_reload_conf()"


def test_names_with_quotes_and_capitals_stay_what_they_are():
    """Every command quotes them; a literal doubles its quotes."""
    odd = table(schema='Odd "s"', name="Ünï tab", has_primary_key=False)
    assert '"Odd ""s"""."Ünï tab"' in run(BY_CODE["T002"], healthy(tables=(odd,))).verdict.findings[0].fix
    gid = ({"gid": "g'x\\", "role": "app", "database": "ava", "age_s": 400.0, "xid_age": 1},)
    assert r"E'g''x\\'" in run(BY_CODE["C006"], healthy(prepared=gid)).verdict.findings[0].fix


def test_the_name_of_an_index_fits_and_differs():
    """63 bytes whatever the letters are, and another name for other columns."""
    keys = (foreign_key(table="ü" * 40, names=["a"]), foreign_key(table="ü" * 40, names=["b"]))
    found = run(BY_CODE["I004"], healthy(foreign_keys=keys, indexes=())).verdict.findings
    names = [finding.fix.split('"')[1] for finding in found]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 63 and name.startswith("magnus_") for name in names)


def test_a_drifted_quick_win_is_not_listed_as_not_done_too():
    """What was applied and then changed by somebody is drift, with the run that applied it."""
    change = {"id": "setting:jit", "name": "jit", "quick_win": ("quick-win-10",)}
    planned, applied = change | {"before": "on", "after": "off"}, change | {"after": "off", "now": "on", "run": "r7"}
    found = run(BY_CODE["Q010"], healthy(planned=(planned,), applied=(applied,))).verdict.findings
    assert [finding.undo for finding in found] == ["magnus rollback r7"]


def test_checks_are_chosen_by_the_beginning_of_their_code():
    """`--only I,S001 --ignore I003`: groups and single ones; a word that names none is returned."""
    found, unknown = select(["i,S001"], ["I003", "X"])
    assert [check.code for check in found] == ["S001", "I001", "I002", "I004", "I005"]
    assert unknown == ("X",)
    assert select([], [])[0] == CHECKS


def test_a_snapshot_cannot_be_changed():
    """Rows are read by all checks; none of them may change what the next one sees."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        healthy().parts = {}


def test_codes_are_unique_and_never_reused():
    """A letter and three digits; scripts and pipelines name them."""
    assert len(BY_CODE) == len(CHECKS)
    assert all(len(code) == 4 and code[0].isupper() and code[1:].isdigit() for code in BY_CODE)
