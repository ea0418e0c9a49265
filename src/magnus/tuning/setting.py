"""One setting as pg_settings shows it: its value, when a change takes effect, which values the server would take."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus.tuning import units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LIST_SETTINGS: Final = frozenset({
    "DateStyle", "createrole_self_grant", "listen_addresses", "local_preload_libraries", "log_connections",
    "log_destination", "oauth_validator_libraries", "output_plugin_libraries", "restrict_nonsystem_relation_kind",
    "search_path", "session_preload_libraries",
    "shared_preload_libraries", "synchronous_standby_names", "synchronized_standby_slots", "temp_tablespaces",
    "unix_socket_directories", "wal_consistency_checking", "debug_io_direct",
})  # fmt: skip
"""Settings whose value is a list of names (GUC_LIST_INPUT in guc_tables): one literal an item in ALTER SYSTEM."""


class Context(enum.StrEnum):
    """
    When a change takes effect.
    """

    NOW = "now"
    NEW_SESSIONS = "new_sessions"
    RESTART = "restart"


_WHEN: Final[Mapping[str, Context]] = MappingProxyType({
    "postmaster": Context.RESTART,
    "internal": Context.RESTART,
    "backend": Context.NEW_SESSIONS,
    "superuser-backend": Context.NEW_SESSIONS,
})


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One row of pg_settings, as there: `value` counts in `unit`. `sourcefile` is None without the right to see it, and
    `pending_value` is what the files say for the next start.
    """

    name: str
    value: str
    unit: str | None = None
    context: str = "user"
    vartype: str = "string"
    source: str = "default"
    sourcefile: str | None = None
    sourceline: int | None = None
    boot_val: str | None = None
    reset_val: str | None = None
    min_val: str | None = None
    max_val: str | None = None
    enumvals: tuple[str, ...] = ()
    pending_restart: bool = False
    pending_value: str | None = None

    @property
    def when(self) -> Context:
        """
        When a change of this setting takes effect.
        """
        return _WHEN.get(self.context, Context.NOW)

    @property
    def is_list(self) -> bool:
        """
        Whether the value is a list of names, which ALTER SYSTEM wants as one literal each.
        """
        return self.name in LIST_SETTINGS and self.vartype == "string"

    @property
    def is_number(self) -> bool:
        """
        Whether the value is a number, with or without a unit.
        """
        return self.vartype in {"integer", "real"} and self.name not in _OCTAL

    @property
    def in_auto_conf(self) -> bool:
        """
        Whether the value in force comes from postgresql.auto.conf, so that RESET would lose it.
        """
        return self.sourcefile is not None and self.sourcefile.endswith("postgresql.auto.conf")

    @property
    def is_outranked(self) -> bool:
        """
        Whether ALTER SYSTEM cannot change the value in force: the command line or the environment gives it.
        """
        return self.source in {"command line", "environment variable", "override"}

    @property
    def next(self) -> Setting:
        """
        The setting as it will be after the next restart, when that is already written.
        """
        if not self.pending_restart or self.pending_value is None:
            return self
        found = units.number(self.pending_value, self.unit) if self.is_number else None
        value = self.pending_value if found is None else f"{found:.15g}"
        return replace(self, value=value, pending_restart=False, pending_value=None)

    @property
    def amount(self) -> float | None:
        """
        The value as bytes, milliseconds or a plain number; None for a word.
        """
        return self.read(self.value)

    @property
    def text(self) -> str:
        """
        The value with its unit, fit for people and for ALTER SYSTEM: "128MB".
        """
        found = self.amount
        if found is None or not self.unit:
            return self.value
        if self.vartype == "real":
            return f"{self.value}{self.unit}" if found > 0 else self.value
        return self.write(found)

    def read(self, text: str) -> float | None:
        """
        Read a value of this setting as bytes, milliseconds or a plain number.
        """
        return units.amount(text, self.unit) if self.is_number else None

    def write(self, amount: float) -> str:
        """
        Write bytes, milliseconds or a plain number as a value of this setting.
        """
        return units.written(amount, self.unit)

    def is_same(self, text: str) -> bool:
        """
        Say whether a text means the value in force: "64MB" and "65536kB" do.
        """
        return self.is_same_as(text, self.value)

    def is_same_as(self, text: str, other: str) -> bool:
        """
        Say whether two texts mean the same for this setting.
        """
        return self.means(text) == self.means(other)

    def means(self, text: str) -> object:
        """
        Return what a text means for this setting, in a form that can be compared.
        """
        if self.is_number:
            found = units.number(text, self.unit)
            return text if found is None else round(found, 9) if self.vartype == "real" else round(found)
        if self.vartype == "bool":
            return _FLAGS.get(text.strip().lower(), text)
        if self.is_list:
            return split_list(text)
        return text.lower() if self.vartype == "enum" else text

    def refusal(self, text: str) -> str | None:
        """
        Say why the server would refuse a value, None when it would take it, as far as pg_settings tells.
        """
        if "\0" in text or "\n" in text or "\r" in text:
            return "must be a single line"
        if self.context == "internal":
            return "cannot be set"
        if self.is_number:
            return self._number_refusal(text)
        if self.vartype == "bool" and text.strip().lower() not in _FLAGS:
            return "must be on or off"
        if self.vartype == "enum" and text.lower() not in self.enumvals:
            return f"must be one of {', '.join(self.enumvals)} (this build of the server knows no other)"
        return None

    def _number_refusal(self, text: str) -> str | None:
        found = units.number(text, self.unit)
        if found is None:
            known = ", ".join(units.base(self.unit)[1])
            return f"must be a number, with a unit of {known}" if known else "must be a number without a unit"
        if self.vartype == "integer":
            found = round(found)
        for bound, is_outside in ((self.min_val, float.__lt__), (self.max_val, float.__gt__)):
            if bound is not None and is_outside(float(found), float(bound)):
                return f"must be from {self._bound(self.min_val)} to {self._bound(self.max_val)}"
        return None

    def _bound(self, text: str | None) -> str:
        return "any" if text is None else f"{text}{f' ({self.unit})' if self.unit else ''}"


_OCTAL: Final = frozenset({"data_directory_mode", "log_file_mode", "unix_socket_permissions"})  # shown as 0700
_FLAGS: Final[Mapping[str, bool]] = MappingProxyType({
    **dict.fromkeys(("on", "true", "yes", "1", "t", "y"), True),
    **dict.fromkeys(("off", "false", "no", "0", "f", "n"), False),
})


def split_list(text: str) -> tuple[str, ...]:
    """
    Take a list setting apart: names between commas. A name in double quotes may hold commas, and doubled quotes.
    """
    return tuple(
        match[1].replace('""', '"') if match[1] is not None else match[2].strip()
        for match in _ITEM.finditer(text)
        if match[1] or (match[2] or "").strip()
    )


_ITEM: Final = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|\Z)|([^,]+)')


def join_list(items: Iterable[str]) -> str:
    """
    Return names as the value of a list setting, those in double quotes that need them.
    """
    return ", ".join(item if _PLAIN.fullmatch(item) else '"' + item.replace('"', '""') + '"' for item in items)


_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$/.-]*")
