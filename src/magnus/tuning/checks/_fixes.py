"""Commands that change a setting, with what really takes them back; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.quoting import alter_system
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Snapshot

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


def percent(share: float) -> str:
    """
    Return a share for people.
    """
    if share in {0.0, 1.0} or share >= 0.1:
        return f"{share:.0%}"
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
