"""What a plan is made of: changes with their reverse, refusals, the server's identity, assumptions and memory proof."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.facts import Server


class Kind(enum.StrEnum):
    """
    What a change touches.
    """

    SETTING = "setting"
    EXTENSION = "extension"
    TABLE = "table"
    ROLE_SETTING = "role_setting"
    INDEX = "index"


class Risk(enum.StrEnum):
    """
    How much can go wrong: low (as good as none), medium (watch it), high (read the reason twice).
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Change:
    """
    One change with its reverse.

    Attributes:
        id: Unique in the plan and stable between plans: "setting:work_mem", "extension:pg_stat_statements@ava".
        name: The setting, extension, table ("schema.table") or index.
        database: Where, for what belongs to one database.
        role: Whose, for a role's setting.
        before: What is there, as text that could be set again; None: nothing.
        after: What will be there; None: nothing.
        before_source: For a setting: pg_settings.source at planning time, "default", "configuration file", …
        before_file: For a setting: the file that gives `before`, when it can be seen.
        sql: In order, each sent on its own and outside of a transaction block; one may be a script of several.
        undo: The same, to take the change back.
        context: When it takes effect.
        reason: Why, in one sentence.
        source: The formula or the document that the value comes from.
        unit: For a setting: the unit that pg_settings counts it in.
        cost: What it costs, in words: memory, disk, log volume.
        group: "memory", "wal", "planner", …
        quick_win: Names of the groups that it belongs to: "quick-win-10".
        evidence: Name -> what was seen.
        needs: Ids that must be done first.
    """

    id: str
    kind: Kind
    name: str
    before: str | None
    after: str | None
    sql: tuple[str, ...]
    undo: tuple[str, ...]
    database: str | None = None
    role: str | None = None
    unit: str = ""
    context: Context = Context.NOW
    reason: str = ""
    source: str = ""
    risk: Risk = Risk.LOW
    cost: str = ""
    group: str = ""
    quick_win: tuple[str, ...] = ()
    before_source: str = ""
    before_file: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    What was considered and is not planned, and why. `instead` says what to do, where there is something.
    """

    name: str
    current: str
    considered: str
    reason: str
    instead: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """
    The server that a plan was made for; `system_identifier` is what makes it this one.
    """

    system_identifier: str
    host: str
    port: int
    database: str
    version_num: int
    data_directory: str | None = None
    config_file: str | None = None
    cluster_name: str = ""
    is_standby: bool = False
    is_local: bool = False
    standbys: tuple[str, ...] = ()
    sessions: int = 0
    managed: str | None = None

    @classmethod
    def of(cls, server: Server) -> Self:
        """
        Return the identity of a server.
        """
        return cls(
            system_identifier=server.system_identifier,
            host=server.host,
            port=server.port,
            database=server.database,
            version_num=server.version_num,
            data_directory=server.data_directory,
            config_file=server.config_file,
            cluster_name=server.cluster_name,
            is_standby=server.is_standby,
            is_local=server.is_local,
            standbys=tuple(standby.name for standby in server.standbys),
            sessions=server.sessions,
            managed=server.managed,
        )


@dataclass(frozen=True, slots=True)
class Assumptions:
    """
    What the values were computed from, each with where it came from.
    """

    memory: int | None = None
    memory_source: str = ""
    cpus: int | None = None
    cpus_source: str = ""
    storage: str | None = None
    storage_source: str = ""
    profile: str = "oltp"
    connections: int = 0
    connections_source: str = ""
    pooler: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """
    The worst case of memory, term by term, against the limit. Bytes.
    """

    limit: int
    terms: tuple[tuple[str, int], ...]
    before: int

    @property
    def total(self) -> int:
        """
        The sum of the terms.
        """
        return sum(size for _, size in self.terms)

    @property
    def holds(self) -> bool:
        """
        Whether the worst case fits.
        """
        return self.total <= self.limit
