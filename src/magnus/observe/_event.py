"""What every event is, and who is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """
    Base of all events. `name` is the name in logs, `level` the severity word of a log line.
    """

    name: ClassVar[str] = ""
    level: ClassVar[str] = "info"

    def fields(self) -> dict[str, object]:
        """
        Return the event's data as a plain dict, for a log line.
        """
        return asdict(self)


class Observer(Protocol):
    """
    Anything that takes an event.
    """

    def __call__(self, event: Event, /) -> None: ...
