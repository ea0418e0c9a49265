"""What is known of a server, its host and its workload: frozen, without advice and without I/O.

None always means "not known", never zero. Sizes are bytes, durations float seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from magnus.tuning.setting import Context, Setting, split_list

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Context", "Extension", "Facts", "Host", "Permissions", "Pooler", "Profile", "Role", "RoleSetting", "Server",
    "Setting", "Standby", "Storage", "Workload", "split_list",
]  # fmt: skip


class Profile(enum.StrEnum):
    """
    The kind of work a server is for.
    """

    OLTP = "oltp"
    MIXED = "mixed"
    WAREHOUSE = "warehouse"


class Storage(enum.StrEnum):
    """
    How the data's storage answers a random read.
    """

    SSD = "ssd"
    HDD = "hdd"


@dataclass(frozen=True, slots=True)
class RoleSetting:
    """
    One ALTER ROLE … [IN DATABASE …] SET, or ALTER DATABASE … SET: None stands for all.
    """

    role: str | None
    database: str | None
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Role:
    """
    A role that may log in.
    """

    name: str
    is_superuser: bool = False
    is_replication: bool = False
    is_monitor: bool = False
    connection_limit: int = -1
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Extension:
    """
    An extension: the version that a database has (None: not created), and the one that it would get now.
    """

    name: str
    version: str | None
    default_version: str | None = None
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class Standby:
    """
    A row of pg_stat_replication: who follows this server.
    """

    name: str
    address: str | None = None
    state: str = "streaming"
    sync_state: str = "async"


@dataclass(frozen=True, slots=True)
class Permissions:
    """
    What the role that reads may do. `alter_system` holds names granted one by one (PostgreSQL 15+).
    """

    role: str = ""
    is_superuser: bool = False
    is_monitor: bool = False
    alter_system: frozenset[str] = frozenset()
    can_reload: bool = False
    can_create: bool = False
    can_see_files: bool = False
    memberships: frozenset[str] = frozenset()

    def can_alter(self, name: str) -> bool:
        """
        Say whether ALTER SYSTEM SET of this setting would be allowed.
        """
        return self.is_superuser or name in self.alter_system


@dataclass(frozen=True, slots=True)
class Server:
    """
    One PostgreSQL server as one session saw it, at one moment.

    Attributes:
        host: As the session reached it: a name, an address, or a socket's folder.
        database: The database of the session that read.
        is_local: A socket or loopback, so that host facts may be read here.
        managed: "rds", "aurora", "cloudsql", "azure", "supabase", "neon", "patroni" or "cnpg"; None when self-run.
        allow_alter_system: False only where the setting of that name (17+) is off.
        extensions: By database; only databases that were looked into are there.
        available_extensions: Name -> version that CREATE EXTENSION would give.
        databases: Name -> size in bytes (None without the right to ask).
        schema: Where this session would make a table.
        tables: Our own, as "schema.table": database -> those that exist there.
        indexes: Those with a name of ours, as SQL -> whether valid: database -> those that exist there.
        wal_bytes_per_15min: Measured between two looks, or since the last reset of statistics.
        read_latency: Mean seconds of one block read, measured by the server; None when it does not time its reads.
        requested_checkpoints: Share of checkpoints that WAL forced before their time, 0 to 1.
        stats_age: Seconds for which the server is known to have been at work: since its start, or since the statistics
            of the database began.
        shared_memory_size: Bytes, as the server computed it for its settings at start.
    """

    version_num: int
    system_identifier: str = ""
    host: str = ""
    port: int = 5432
    database: str = "postgres"
    schema: str = "public"
    data_directory: str | None = None
    config_file: str | None = None
    cluster_name: str = ""
    is_standby: bool = False
    standbys: tuple[Standby, ...] = ()
    sessions: int = 0
    is_local: bool = False
    managed: str | None = None
    allow_alter_system: bool = True
    permissions: Permissions = Permissions()
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    role_settings: tuple[RoleSetting, ...] = ()
    roles: tuple[Role, ...] = ()
    extensions: Mapping[str, tuple[Extension, ...]] = field(default_factory=lambda: MappingProxyType({}))
    available_extensions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    databases: Mapping[str, int | None] = field(default_factory=lambda: MappingProxyType({}))
    tables: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    indexes: Mapping[str, Mapping[str, bool]] = field(default_factory=lambda: MappingProxyType({}))
    wal_bytes_per_15min: float | None = None
    read_latency: float | None = None
    requested_checkpoints: float | None = None
    temp_bytes_per_day: float | None = None
    stats_age: float | None = None
    uptime: float | None = None
    shared_memory_size: int | None = None
    postmaster_started: str = ""

    @property
    def major(self) -> int:
        """
        The major version, 18.
        """
        return self.version_num // 10_000

    @property
    def version(self) -> str:
        """
        The version as people write it, "18.6".
        """
        return f"{self.major}.{self.version_num % 10_000}"

    @property
    def preload(self) -> tuple[str, ...]:
        """
        The libraries of shared_preload_libraries, in order.
        """
        setting = self.settings.get("shared_preload_libraries")
        return () if setting is None else split_list(setting.value)

    @property
    def data_size(self) -> int | None:
        """
        Bytes of all databases together; None unless every one is known.
        """
        sizes = [size for size in self.databases.values() if size is not None]
        return sum(sizes) if sizes and len(sizes) == len(self.databases) else None

    def amount(self, name: str) -> float | None:
        """
        Return a setting, as it will be after the next restart, as bytes, milliseconds or a plain number; None when this
        version lacks it.
        """
        setting = self.settings.get(name)
        return None if setting is None else setting.next.amount

    def extension(self, name: str, database: str | None = None) -> Extension | None:
        """
        Return an extension that exists in a database, the session's own by default.
        """
        found = self.extensions.get(database or self.database, ())
        return next((item for item in found if item.name == name and item.version is not None), None)


@dataclass(frozen=True, slots=True)
class Host:
    """
    The machine, or the part of it, that the server may use; each part None when neither seen nor told.

    Attributes:
        memory: Bytes: the least of the machine's memory and of every limit above the server.
        memory_source: Where that came from, for people: "cgroup v2 /system.slice/…", "MemTotal", "--memory".
        cpus: CPUs by count, affinity and quota.
        wal_free: Free bytes on the volume of pg_wal.
    """

    memory: int | None = None
    cpus: int | None = None
    memory_source: str = "told"
    cpus_source: str = "told"
    storage: Storage | None = None
    storage_source: str = ""
    read_latency: float | None = None
    wal_free: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """
    What the server is for, as told (`profile`) and as measured.
    """

    profile: Profile = Profile.OLTP
    source: str = "assumed"


@dataclass(frozen=True, slots=True)
class Pooler:
    """
    What stands in front of the server. `limit`: server connections that it opens at most; None when not told.
    """

    kind: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """
    All that rules and checks look at. `host` is None for a remote server of whose machine nothing was told.
    """

    server: Server
    host: Host | None = None
    workload: Workload = Workload()
    pooler: Pooler | None = None
