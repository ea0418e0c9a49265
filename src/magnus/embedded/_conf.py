"""The server's settings as the text of a configuration file; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "server.conf"
INCLUDE = (
    f"\n# Written at every start by the cluster's owner; ALTER SYSTEM outranks it.\ninclude_if_exists = '../{FILE}'\n"
)

# Where the server listens is decided at every start and given on the command line, which ALTER SYSTEM cannot outrank:
# whoever holds the cluster always knows how to reach it.
_FIXED = frozenset({"port", "listen_addresses", "unix_socket_directories", "data_directory", "config_file", "hba_file"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*\Z")

DEFAULTS: Mapping[str, str] = {
    "shared_preload_libraries": "pg_stat_statements,auto_explain",
    "unix_socket_permissions": "0700",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}

# A power cut may destroy such a cluster; a killed process does not.
THROWAWAY: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


def check(settings: Mapping[str, str]) -> None:
    """
    Refuse what cannot be written into a configuration file, or is not the caller's to set.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if not _NAME.match(name):
            raise ConfigError("settings", name, "not the name of a PostgreSQL setting")
        if name.lower() in _FIXED:
            raise ConfigError(name, value, "decided by the cluster itself at every start")
        if any(character in value for character in "\n\r\0"):
            raise ConfigError(name, value, "a setting's value must be a single line")


def render(settings: Mapping[str, str]) -> str:
    """
    One `name = 'value'` line a setting, sorted by name.
    """
    return "".join(f"{name} = '{_quoted(settings[name])}'\n" for name in sorted(settings))


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
