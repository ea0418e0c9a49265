"""The configuration as it would be after a plan: what the files, the changes and the command line say. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    The configuration as it would be: settings of the files with the changes in them, and of the command line.

    Attributes:
        settings: Name -> value, the files' last word.
        given: Name -> value from the command line.
        changed: The names that the plan changes.
        known: Every setting of this server's version.
    """

    settings: Mapping[str, str]
    given: Mapping[str, str]
    changed: frozenset[str]
    known: frozenset[str]

    def value(self, name: str) -> str:
        return self.given.get(name, self.settings.get(name, ""))


def candidate(
    files: Iterable[tuple[str, str]],
    changes: Mapping[str, str | None],
    *,
    entries: Mapping[str, str],
    given: Mapping[str, str],
    known: Iterable[str],
) -> Candidate:
    """
    Return the resulting configuration.

    Args:
        files: Every setting of every file in the order that counts, those of postgresql.auto.conf last.
        changes: Name -> new value; None takes it out of postgresql.auto.conf.
        entries: What postgresql.auto.conf holds now.
        given: What the command line gives.
        known: Every setting of this version.
    """
    rows = list(files)
    found: dict[str, str] = {}
    for name, value in rows:
        found[name.lower()] = value
    for name, value_or_none in changes.items():
        key = name.lower()
        if value_or_none is not None:
            found[key] = value_or_none
        elif key in entries:
            below = [value for other, value in rows if other.lower() == key][:-1]
            found.pop(key, None)
            found.update({key: below[-1]} if below else {})
    changed = frozenset(name.lower() for name in changes)
    return Candidate(found, dict(given), changed, frozenset(name.lower() for name in known))
