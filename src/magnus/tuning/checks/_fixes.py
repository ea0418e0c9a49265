"""Commands that change a setting, with what really takes them back; pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from magnus.tuning.quoting import alter_system
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.checks._snapshot import Snapshot

_LONGEST: Final = 63
NOTHING_TO_UNDO: Final = "nothing: it only reads or repeats what the server does by itself"


def set_to(seen: Snapshot, name: str, value: str) -> tuple[str, str]:
    """
    Return the commands that give the server another value, and those that bring back the one it has.

    RESET is right only where postgresql.auto.conf does not hold the present value: else it would lose it.
    """
    setting = seen.setting(name)
    is_in_file = setting.source == "configuration file" and (setting.in_auto_conf or setting.sourcefile is None)
    then = "; then restart" if setting.when is Context.RESTART else "; SELECT pg_reload_conf()"
    earlier = alter_system(name, setting.text if is_in_file else None)
    return f"{alter_system(name, value)}{then}", f"{earlier}{then}"


def index_name(table: str, columns: Sequence[str]) -> str:
    """
    Return a name of ours for an index: 63 bytes at most, as PostgreSQL keeps no more, and another for other columns.
    """
    name = f"magnus_{table}_{'_'.join(columns)}"
    if len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST - 9].decode(errors='ignore')}_{digest}"


def percent(share: float) -> str:
    """
    Return a share for people.
    """
    if share in {0.0, 1.0} or share >= 0.1:
        return f"{share:.0%}"
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
