"""Snapshots for tests of the checks: a healthy server's rows in the shape that the queries return, and changes."""

from __future__ import annotations

from typing import Any

from magnus.tuning.checks import Missing, Snapshot

Rows = tuple[dict[str, Any], ...]
DAY = 86_400.0
NOW = 1_795_000_000.0  # 18 November 2026

SERVER: dict[str, Any] = {
    "version_num": 180006,
    "version": "18.6",
    "is_standby": False,
    "database": "ava",
    "role": "operator",
    "is_superuser": False,
    "is_monitor": True,
    "sees_all_stats": True,
    "sees_all_settings": True,
    "block_size": 8192,
    "up_s": 40 * DAY,
    "stats_age_s": 30 * DAY,
    "server_stats_age_s": 30 * DAY,
    "taken_at": NOW,
}

# value, unit and kind of each
_SETTINGS: dict[str, tuple[str, str | None, str]] = {
    "fsync": ("on", None, "bool"),
    "full_page_writes": ("on", None, "bool"),
    "zero_damaged_pages": ("off", None, "bool"),
    "ignore_checksum_failure": ("off", None, "bool"),
    "data_checksums": ("on", None, "bool"),
    "autovacuum": ("on", None, "bool"),
    "track_counts": ("on", None, "bool"),
    "shared_preload_libraries": ("auto_explain, pg_stat_statements", None, "string"),
    "pg_stat_statements.max": ("5000", None, "integer"),
    "shared_buffers": ("262144", "8kB", "integer"),
    "effective_cache_size": ("786432", "8kB", "integer"),
    "work_mem": ("4096", "kB", "integer"),
    "maintenance_work_mem": ("65536", "kB", "integer"),
    "autovacuum_work_mem": ("-1", "kB", "integer"),
    "hash_mem_multiplier": ("2", None, "real"),
    "huge_pages": ("try", None, "enum"),
    "huge_pages_status": ("off", None, "enum"),
    "shared_memory_size_in_huge_pages": ("1100", None, "integer"),
    "max_connections": ("100", None, "integer"),
    "superuser_reserved_connections": ("3", None, "integer"),
    "reserved_connections": ("0", None, "integer"),
    "autovacuum_max_workers": ("3", None, "integer"),
    "autovacuum_freeze_max_age": ("200000000", None, "integer"),
    "autovacuum_multixact_freeze_max_age": ("400000000", None, "integer"),
    "autovacuum_vacuum_threshold": ("50", None, "integer"),
    "autovacuum_vacuum_scale_factor": ("0.2", None, "real"),
    "autovacuum_vacuum_max_threshold": ("100000000", None, "integer"),
    "autovacuum_analyze_threshold": ("50", None, "integer"),
    "autovacuum_analyze_scale_factor": ("0.1", None, "real"),
    "autovacuum_vacuum_cost_limit": ("-1", None, "integer"),
    "vacuum_cost_limit": ("200", None, "integer"),
    "max_wal_size": ("1024", "MB", "integer"),
    "checkpoint_timeout": ("300", "s", "integer"),
    "max_slot_wal_keep_size": ("10240", "MB", "integer"),
    "archive_mode": ("on", None, "enum"),
    "ssl": ("on", None, "bool"),
    "listen_addresses": ("*", None, "string"),
    "log_lock_waits": ("on", None, "bool"),
    "log_temp_files": ("4096", "kB", "integer"),
    "idle_in_transaction_session_timeout": ("0", "ms", "integer"),
    "statement_timeout": ("0", "ms", "integer"),
}
_ENUMS = {"huge_pages": ["off", "on", "try"], "archive_mode": ["always", "on", "off"]}
_RESTART = {"shared_preload_libraries", "pg_stat_statements.max", "shared_buffers", "max_connections", "huge_pages"}


def setting(name: str, value: str, **changes: Any) -> dict[str, Any]:
    _, unit, vartype = _SETTINGS[name]
    row = {
        "name": name,
        "value": value,
        "unit": unit,
        "context": "postmaster" if name in _RESTART else "sighup",
        "vartype": vartype,
        "source": "default",
        "sourcefile": None,
        "sourceline": None,
        "boot_val": value,
        "reset_val": value,
        "min_val": None,
        "max_val": None,
        "enumvals": _ENUMS.get(name),
        "pending_restart": False,
    }
    return row | changes


def settings(**values: str | dict[str, Any] | None) -> Rows:
    """
    All settings, with some changed: another value, a row's columns, or None to leave the row out.

    A double underscore in a name stands for a dot.
    """
    changed = {name.replace("__", "."): value for name, value in values.items()}
    rows = []
    for name, (value, _, _) in _SETTINGS.items():
        other = changed.get(name, value)
        if isinstance(other, dict):
            rows.append(setting(name, other.pop("value", value), **other))
        elif other is not None:
            rows.append(setting(name, other))
    return tuple(rows)


def database(**changes: Any) -> dict[str, Any]:
    return {
        "name": "ava",
        "can_connect": True,
        "is_template": False,
        "connection_limit": -1,
        "xid_age": 1000,
        "mxid_age": 10,
        "sessions_now": 5,
        "xact_commit": 1_000_000,
        "xact_rollback": 100,
        "blks_read": 10_000,
        "blks_hit": 90_000_000,
        "temp_files": 3,
        "temp_bytes": 30_000_000,
        "deadlocks": 2,
        "checksum_failures": 0,
        "sessions": 5000,
        "sessions_abandoned": 1,
        "sessions_fatal": 1,
        "sessions_killed": 1,
        "stats_age_s": 30 * DAY,
        "is_current": True,
    } | changes


def client(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 4711,
        "database": "ava",
        "role": "app",
        "application": "ava_trading_platform",
        "client": "10.0.0.7/32",
        "backend_type": "client backend",
        "state": "idle",
        "wait_event_type": "Client",
        "wait_event": "ClientRead",
        "is_visible": True,
        "session_s": 3000.0,
        "transaction_s": None,
        "state_s": 5.0,
        "xid_age": None,
        "xmin_age": None,
    } | changes


HIDDEN = {
    "client": None,
    "backend_type": None,
    "state": None,
    "wait_event_type": None,
    "wait_event": None,
    "is_visible": False,
    "session_s": None,
    "state_s": None,
}


def table(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 20000,
        "schema": "public",
        "name": "trades",
        "kind": "r",
        "is_unlogged": False,
        "is_partition": False,
        "has_parts": False,
        "is_system": False,
        "bytes": 80 * 1024**2,
        "tuples": 1_000_000.0,
        "xid_age": 1000,
        "mxid_age": 10,
        "toast_xid_age": None,
        "toast_mxid_age": None,
        "options": None,
        "toast_options": None,
        "replica_identity": "d",
        "has_primary_key": True,
        "is_extensions": False,
        "has_id": True,
        "live": 1_000_000,
        "dead": 100,
        "modified": 1000,
        "seq_scans": 3,
        "seq_rows": 3_000_000,
        "inserted": 1_000_000,
        "updated": 0,
        "deleted": 0,
        "vacuumed_s": 3600.0,
        "analyzed_s": 3600.0,
    } | changes


def index(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 20001,
        "table_oid": 20000,
        "schema": "public",
        "name": "trades_account",
        "table": "trades",
        "is_partitioned": False,
        "is_partition": False,
        "method": "btree",
        "keys": 1,
        "columns": "2",
        "classes": "3124",
        "collations": "0",
        "options": "0",
        "expressions": None,
        "predicate": None,
        "is_unique": False,
        "is_primary": False,
        "is_exclusion": False,
        "is_immediate": True,
        "is_valid": True,
        "is_ready": True,
        "is_live": True,
        "is_replica_identity": False,
        "is_clustered": False,
        "nulls_not_distinct": False,
        "is_constraint": False,
        "is_system": False,
        "bytes": 30 * 1024**2,
        "tuples": 1_000_000.0,
        "scans": 500,
        "table_writes": 1_000_000,
    } | changes


def primary_key(**changes: Any) -> dict[str, Any]:
    return index(
        oid=20002, name="trades_pkey", columns="1", is_unique=True, is_primary=True, is_constraint=True, **changes
    )


def foreign_key(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 30000,
        "schema": "public",
        "table": "trades",
        "name": "trades_account_id_fkey",
        "table_oid": 20000,
        "columns": [2],
        "referenced": "public.accounts",
        "is_referenced_partitioned": False,
        "is_partitioned": False,
        "tuples": 1_000_000.0,
        "bytes": 80 * 1024**2,
        "names": ["account_id"],
        "deleted": 20,
        "updated": 0,
    } | changes


def sequence(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 40000,
        "schema": "public",
        "name": "trades_id_seq",
        "start": 1,
        "least": 1,
        "most": 2**63 - 1,
        "step": 1,
        "is_cycle": False,
        "column_name": "public.trades.id",
        "column_parts": ["public", "trades", "id"],
        "column_type": "bigint",
        "column_most": 2**63 - 1,
        "is_readable": True,
    } | changes


def sequence_value(**changes: Any) -> dict[str, Any]:
    return {"oid": 40000, "last_value": 1_000_000, "is_called": True} | changes


def integer_key(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 20000,
        "schema": "public",
        "name": "legacy",
        "column": "id",
        "type": "integer",
        "most": 2**31 - 1,
        "tuples": 1000.0,
        "is_readable": True,
        "highest": 1000,
    } | changes


def widths(**changes: Any) -> dict[str, Any]:
    return {
        "oid": 20000,
        "schema": "public",
        "name": "trades",
        "tuples": 1_000_000.0,
        "bytes": 130 * 1024**2,
        "columns": 4,
        "columns_seen": 4,
        "width": 80.0,
        "has_nulls": False,
        "options": None,
    } | changes


def index_widths(**changes: Any) -> dict[str, Any]:
    own = {"oid": 20001, "name": "trades_account", "table_oid": 20000, "columns": 1, "columns_seen": 1}
    return widths() | own | {"width": 8.0, "tuples": 5e6} | changes


def waiting(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 7,
        "kind": "relation",
        "mode": "ShareLock",
        "schema": "public",
        "name": "trades",
        "wait_s": 1.0,
        "blockers": [8],
    } | changes


def slot(**changes: Any) -> dict[str, Any]:
    return {
        "name": "standby_1",
        "kind": "physical",
        "active": True,
        "wal_status": "reserved",
        "safe_wal_size": None,
        "temporary": False,
        "database": None,
        "xmin_age": None,
        "catalog_xmin_age": None,
        "retained": 16.0 * 1024**2,
        "inactive_s": None,
        "invalidation": None,
    } | changes


def standby(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 99,
        "name": "db2",
        "client": "10.0.0.2/32",
        "state": "streaming",
        "sync_state": "async",
        "behind": 1000.0,
        "lag_s": 0.01,
        "xmin_age": None,
    } | changes


def role(**changes: Any) -> dict[str, Any]:
    return {
        "name": "app",
        "is_superuser": False,
        "can_login": True,
        "connection_limit": -1,
        "is_replication": False,
        "is_bootstrap": False,
    } | changes


def role_setting(name: str, value: str, role: str | None = "app", database: str | None = None) -> dict[str, Any]:
    return {"role": role, "database": database, "name": name, "value": value}


def file_setting(name: str, value: str, **changes: Any) -> dict[str, Any]:
    return {
        "sourcefile": "/etc/postgresql.conf",
        "sourceline": 12,
        "seqno": 1,
        "name": name,
        "setting": value,
        "applied": True,
        "error": None,
    } | changes


def healthy(**parts: Rows | Missing) -> Snapshot:
    """
    A server with nothing to find, with some parts exchanged.
    """
    usual: dict[str, Rows | Missing] = {
        "server": (SERVER,),
        "database_age": ({"age_s": 300 * DAY},),
        "settings": settings(),
        "file_settings": (file_setting("work_mem", "4MB"),),
        "role_settings": (
            role_setting("idle_in_transaction_session_timeout", "60s"),
            role_setting("statement_timeout", "120s"),
        ),
        "databases": (database(),),
        "activity": tuple(client(pid=4711 + number) for number in range(5)),
        "blocked": (),
        "prepared": (),
        "slots": (),
        "standbys": (),
        "archiver": (
            {"archived_count": 12, "failed_count": 0, "last_failed_wal": None, "archived_s": 30.0, "failed_s": None},
        ),
        "checkpoints": (
            {"timed": 1000, "requested": 10, "age_s": 30 * DAY, "wal_bytes": 1e10, "wal_age_s": 30 * DAY},
        ),
        "extensions": (
            {"name": "pg_stat_statements", "version": "1.12", "default_version": "1.12", "schema": "public"},
        ),
        "statements_info": ({"dealloc": 1, "age_s": 30 * DAY, "entries": 400},),
        "statements_temp": ({"queryid": "6156775673107494367", "calls": 10, "blocks": 1000},),
        "index_builds": (),
        "roles": (role(), role(name="postgres", is_superuser=True, is_bootstrap=True)),
        "passwords": (),
        "open_schemas": (),
        "slow_log": (
            {
                "schema": "public",
                "name": "slow_query_log",
                "columns": [
                    "id bigint",
                    "query text",
                    "duration_ms numeric",
                    "threshold_ms numeric",
                    "timestamp timestamp with time zone",
                    "query_signature text",
                ],
                "live": 3,
            },
        ),
        "tables": (table(),),
        "indexes": (index(), primary_key()),
        "foreign_keys": (foreign_key(),),
        "sequences": (sequence(),),
        "sequence_values": (sequence_value(),),
        "integer_keys": (integer_key(),),
        "table_widths": (widths(),),
        "index_widths": (index_widths(),),
        "definitions": (),
        "host": ({"memory": 8 * 1024**3, "source": "MemTotal"},),
        "disks": tuple({"name": name, "path": f"/{name}", "free": 50, "total": 100} for name in ("data", "wal")),
        "service": ({"application_name": "ava_trading_platform", "min_pool_size": 5, "max_pool_size": 30},),
        "planned": (),
        "applied": (),
    }  # fmt: skip
    return Snapshot({**usual, **parts})
