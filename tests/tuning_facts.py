"""Facts for tests of the optimizer: the real rows of pg_settings of PostgreSQL 15 and 18, with what a test changes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from magnus.tuning.facts import (
    Extension,
    Facts,
    Host,
    Permissions,
    Pooler,
    Profile,
    Role,
    Server,
    Setting,
    Storage,
    Workload,
)
from magnus.tuning.units import GB

if TYPE_CHECKING:
    import random

FOLDER = Path(__file__).parent / "unit" / "tuning"
PROFILES = tuple(Profile)
SOURCES = ("default", "configuration file", "configuration file", "command line", "user")


@cache
def defaults(version: int) -> dict[str, Setting]:
    """
    The settings as initdb leaves them.
    """
    rows = json.loads((FOLDER / f"settings_{version}.json").read_text())
    return {
        row["name"]: Setting(value=row.pop("setting"), enumvals=tuple(row.pop("enumvals", ())), **row) for row in rows
    }


def settings(version: int = 18, **values: str | Setting) -> MappingProxyType[str, Setting]:
    """
    The defaults with other values, as a person writes them ("64MB"); a Setting takes the place of the whole row.
    """
    found = dict(defaults(version))
    for name, value in values.items():
        if isinstance(value, Setting):
            found[name] = value
            continue
        setting = found[name]
        amount = setting.read(value)
        raw = value if amount is None else f"{_count(setting, amount):.15g}"
        found[name] = replace(setting, value=raw, source="configuration file", sourcefile="/data/postgresql.auto.conf")
    return MappingProxyType(found)


def _count(setting: Setting, amount: float) -> float:
    one = setting.read(f"1{setting.unit}") if setting.unit and setting.unit[0].isalpha() else None
    if one is None and setting.unit:
        one = float(setting.unit.rstrip("kMB")) * 1024
    return amount / (one or 1.0)


def server(version: int = 18, **changes: Any) -> Server:
    """
    A server of its own machine, fresh; `settings` are values that differ from the defaults.
    """
    values = changes.pop("settings", {})
    basis = Server(
        version_num={15: 150020, 18: 180006}[version],
        system_identifier="7711940350274437419",
        host="db1",
        database="ava",
        data_directory="/var/lib/postgresql/data",
        is_local=True,
        permissions=Permissions(role="postgres", is_superuser=True, is_monitor=True),
        settings=settings(version, **values),
        roles=(Role("postgres", is_superuser=True), Role("app")),
        available_extensions=MappingProxyType({"pg_stat_statements": "1.12"}),
        extensions=MappingProxyType({"ava": (Extension("pg_stat_statements", None, "1.12"),)}),
        databases=MappingProxyType({"ava": 5 * GB}),
        tables=MappingProxyType({"ava": frozenset()}),
        uptime=3600.0,
        stats_age=3600.0,
        wal_bytes_per_15min=0.1 * GB,
    )
    return replace(basis, **changes)


def host(memory: float = 8 * GB, cpus: int = 4, storage: Storage | None = Storage.SSD, **changes: Any) -> Host:
    """
    A machine.
    """
    return Host(memory=int(memory), cpus=cpus, storage=storage, storage_source="told", **changes)


def facts(
    machine: Host | None = None,
    profile: Profile | str = "oltp",
    pooler: Pooler | None = None,
    version: int = 18,
    **changes: Any,
) -> Facts:
    """
    Facts of a fresh server on 8 GB, 4 CPUs and flash, with what differs.
    """
    return Facts(server(version, **changes), machine or host(), Workload(Profile(profile)), pooler)


def random_facts(chance: random.Random) -> Facts:
    """
    Any server on any machine: settings from absurdly small to absurdly large, some of them out of reach.

    It has the settings that take memory and no others, because there are a hundred thousand of them.
    """
    values = {
        "max_connections": int(2 ** chance.uniform(0, 14)),
        "shared_buffers": int(2 ** chance.uniform(4, 25)),
        "work_mem": int(2 ** chance.uniform(6, 24)),
        "maintenance_work_mem": int(2 ** chance.uniform(10, 25)),
        "autovacuum_work_mem": chance.choice((-1, int(2 ** chance.uniform(10, 25)))),
        "autovacuum_max_workers": chance.randint(1, 20),
        "hash_mem_multiplier": round(chance.uniform(1, 8), 3),
    }
    rows = defaults(chance.choice((15, 18)))
    found = {}
    for name, value in values.items():
        setting = rows[name]
        if chance.random() < 0.7:
            setting = replace(setting, value=str(value), source=chance.choice(SOURCES))
            if chance.random() < 0.05:
                setting = replace(setting, pending_restart=True, pending_value=str(value * 2))
        found[name] = setting
    pooler = Pooler("pgbouncer", chance.choice((None, chance.randint(1, 500)))) if chance.random() < 0.4 else None
    data = None if chance.random() < 0.3 else int(2 ** chance.uniform(23, 42))
    made = Server(
        version_num=180006,
        settings=found,
        databases={"ava": data},
        stats_age=chance.choice((None, 100.0, 10.0**7)),
        shared_memory_size=None if chance.random() < 0.5 else int(2 ** chance.uniform(27, 36)),
    )
    machine = Host(memory=int(2 ** chance.uniform(26, 41)), cpus=chance.randint(1, 128))
    return Facts(made, machine, Workload(chance.choice(PROFILES)), pooler)
