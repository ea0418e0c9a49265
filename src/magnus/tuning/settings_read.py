"""Rows of pg_settings and pg_file_settings as settings, and what they say of who runs the server; pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from magnus.tuning.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A value of one session, role or database. The server's own is in the files, or the built-in one.
_OF_SESSION: Final = frozenset({"session", "client", "user", "database", "database user", "interactive"})
_MANAGED_ROLES: Final[Mapping[str, str]] = {
    "rds_superuser": "rds",
    "cloudsqlsuperuser": "cloudsql",
    "azure_pg_admin": "azure",
    "supabase_admin": "supabase",
    "neon_superuser": "neon",
}
# Patroni gives these on the command line, always all of them.
_OF_PATRONI: Final = (
    "max_connections",
    "max_locks_per_transaction",
    "max_wal_senders",
    "max_worker_processes",
    "wal_level",
)


def settings_of(rows: Iterable[Mapping[str, Any]], files: Sequence[Mapping[str, Any]] | None) -> Mapping[str, Setting]:
    """
    Return the server's settings by name.

    `files` (None: may not be read) gives what a session's own value hides, and what waits for a restart.
    """
    by_name = None if files is None else {row["name"]: row for row in files}
    return MappingProxyType({row["name"]: _server_wide(_setting(row), by_name) for row in rows})


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(
        name=row["name"],
        value=row["setting"] or "",
        unit=row["unit"],
        context=row["context"],
        vartype=row["vartype"],
        source=row["source"],
        sourcefile=row["sourcefile"],
        sourceline=row["sourceline"],
        boot_val=row["boot_val"],
        reset_val=row["reset_val"],
        min_val=row["min_val"],
        max_val=row["max_val"],
        enumvals=tuple(row["enumvals"] or ()),
        pending_restart=row["pending_restart"],
    )


def _server_wide(setting: Setting, files: Mapping[str, Mapping[str, Any]] | None) -> Setting:
    if setting.source == "session":  # the reader's own limits: the value before them is the one to reset to
        is_built_in = setting.reset_val == setting.boot_val
        setting = replace(
            setting, value=setting.reset_val or "", source="default" if is_built_in else "configuration file"
        )
    if files is None:
        return setting
    line = files.get(setting.name.lower())
    if setting.pending_restart:
        # Without a line the setting was taken out of the files, and the built-in value comes back.
        return replace(setting, pending_value=line["setting"] if line else setting.boot_val)
    if setting.source not in _OF_SESSION:
        return setting
    if line is None:
        value = setting.boot_val if setting.boot_val is not None else ""
        return replace(setting, value=value, source="default", sourcefile=None, sourceline=None)
    found = replace(setting, pending_value=line["setting"], pending_restart=True).next  # counted in its own unit
    return replace(found, source="configuration file", sourcefile=line["sourcefile"], sourceline=line["sourceline"])


def size(settings: Mapping[str, Setting], name: str) -> int | None:
    """
    Return a setting in bytes, None when it is not there or not known.
    """
    setting = settings.get(name)
    found = None if setting is None else setting.amount
    return int(found) if found is not None and found > 0 else None


def managed_by(roles: Iterable[str], settings: Mapping[str, Setting], is_superuser: bool) -> str | None:  # noqa: FBT001
    """
    Return the service that runs the server, None when its owner does.

    A true superuser is its owner, whatever its roles are called; Patroni and CloudNativePG override even that one.
    """
    given = (settings.get(name) for name in _OF_PATRONI)
    if all(setting is not None and setting.source == "command line" for setting in given):
        return "patroni"
    names = frozenset(roles)
    allowed = settings.get("allow_alter_system")
    if "streaming_replica" in names and allowed is not None and allowed.value == "off":
        return "cnpg"
    if is_superuser:
        return None
    found = next((service for role, service in _MANAGED_ROLES.items() if role in names), None)
    return "aurora" if found == "rds" and any(name.startswith("aurora") for name in settings) else found
