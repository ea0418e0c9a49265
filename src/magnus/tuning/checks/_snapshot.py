"""What was read from a server, as frozen rows under the names of the queries; it knows no connection and no opinion."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from magnus.tuning.quoting import identifier
from magnus.tuning.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    Row: TypeAlias = Mapping[str, Any]

DAY: Final = 86_400.0


class Unseen(Exception):
    """
    A check cannot judge, because something it needs was not seen. `reason` says what, and what would show it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Missing:
    """
    A part that could not be read, and why.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The rows of one reading, by the name of the query that returned them.

    Attributes:
        parts: Rows, or why there are none.
    """

    parts: Mapping[str, tuple[Row, ...] | Missing] = field(default_factory=lambda: MappingProxyType({}))

    def rows(self, part: str) -> tuple[Row, ...]:
        """
        Return the rows of a part.

        Raises:
            Unseen: it could not be read.
        """
        found = self.parts.get(part, Missing(f"{part} was not read"))
        if isinstance(found, Missing):
            raise Unseen(found.reason)
        return found

    def row(self, part: str) -> Row:
        """
        Return the only row of a part.

        Raises:
            Unseen: it could not be read.
        """
        rows = self.rows(part)
        if not rows:
            raise Unseen(f"{part} has no row")
        return rows[0]

    @property
    def server(self) -> Row:
        """
        Version, role and ages: the row that every reading has.
        """
        return self.row("server")

    @property
    def major(self) -> int:
        """
        The server's major version.
        """
        return int(self.server["version_num"]) // 10_000

    @property
    def is_standby(self) -> bool:
        """
        Whether the server is in recovery.
        """
        return bool(self.server["is_standby"])

    def setting(self, name: str) -> Setting:
        """
        Return a setting as a new session of this role would have it.

        Raises:
            Unseen: the server does not have it, or does not show it to this role.
        """
        found = next((row for row in self.rows("settings") if row["name"] == name), None)
        if found is None:
            raise Unseen(f"{name} is not shown to {self.server['role']}: {self.grant()}")
        return setting_of(found)

    def flag(self, name: str) -> bool:
        """
        Return a boolean setting's value.
        """
        return self.setting(name).value == "on"

    def number(self, name: str) -> float:
        """
        Return a numeric setting: bytes, or a plain number. -1 and 0 stay what they are.
        """
        found = self.setting(name)
        value = float(found.value)
        return value if value <= 0 else found.amount or 0.0

    def seconds(self, name: str) -> float:
        """
        Return a duration in seconds. -1 and 0, which mean "never", stay what they are.
        """
        found = self.number(name)
        return found if found <= 0 else found / 1000

    def grant(self, role: str = "pg_monitor") -> str:
        """
        Return the command that lets this role see more.
        """
        return f"GRANT {role} TO {identifier(self.server['role'])}"

    def needs_monitor(self) -> None:
        """
        Refuse to judge what only members of pg_read_all_stats see of other users' sessions.

        Raises:
            Unseen: this role is none.
        """
        if not self.server["sees_all_stats"]:
            raise Unseen(f"sessions of other roles are hidden from {self.server['role']}: {self.grant()}")

    def statistics_age(self) -> float:
        """
        Return for how many seconds the cumulative statistics of this database can have been collected.

        The database's own reset, else that of the whole server, but never longer than the server is up: what an idle
        time before a restart says is not known.
        """
        server = self.server
        known = self.parts.get("database_age", ())
        own = known[0]["age_s"] if known and not isinstance(known, Missing) else None
        ages = (server["up_s"], own, server["stats_age_s"] or server["server_stats_age_s"])
        return min(float(age) for age in ages if age is not None)

    def needs_old_statistics(self, days: float = 7.0) -> float:
        """
        Return the statistics' age in seconds.

        Raises:
            Unseen: they are younger than `days`: what was not used in them may be used all the same.
        """
        age = self.statistics_age()
        if age < days * DAY:
            raise Unseen(f"statistics are {duration(age)} old, {days:g} days are needed to judge use")
        return age


def qualified(row: Row, name: str = "name") -> str:
    """
    Return schema and name of an object, quoted.
    """
    return f"{identifier(row['schema'])}.{identifier(row[name])}"


def plain(row: Row, name: str = "name") -> str:
    """
    Return schema and name of an object as people write them.
    """
    return f"{row['schema']}.{row[name]}"


def setting_of(row: Row) -> Setting:
    """
    Return a row of pg_settings as the optimizer's own shape.
    """
    return Setting(**{**row, "enumvals": tuple(row["enumvals"] or ())})


def duration(seconds: float) -> str:
    """
    Return a duration for people.
    """
    for unit, factor in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def share(part: float, whole: float) -> float:
    """
    Return a part of a whole, 0 when there is no whole.
    """
    return part / whole if whole else 0.0
