"""Who is told of every statement, and not of events alone: the statement as it ended, and the instruments; pure.

Nobody is told by default, and then a statement costs one look at an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from magnus.lanes import QueryPriority


class Statement(NamedTuple):
    """
    One statement that was sent and has ended.

    Attributes:
        text: As the caller wrote it: literals are in it.
        method: The driver's, "fetch" or "copy_from_query"; "commit" for a COMMIT.
        lane: Where it ran.
        seconds: From sending to the answer, waiting for a connection not included.
        wait: Seconds from the call to having a connection; 0.0 on one that was held already.
        attempt: Of its unit, from 1.
        unit: The same object for all attempts at a unit that was repeated, or may be; None for one that was not.
        error: What ended it, or None.
        place: The server's address as it was given, its port (None: a socket's path is the address), the database.
    """

    text: str
    method: str
    lane: QueryPriority
    seconds: float
    wait: float
    attempt: int
    unit: object | None
    error: BaseException | None
    place: tuple[str, int | None, str]


@runtime_checkable
class Instrument(Protocol):
    """
    An observer that also sees every statement. It is called on the event loop and must not block; what it raises is
    reported once and never disturbs the statement.
    """

    def __call__(self, event: Any, /) -> None: ...

    def saw(self, statement: Statement, /) -> None:
        """
        Take note of a statement, in the task that ran it.
        """

    def comment(self) -> str:
        """
        Return what to append to the statement about to be sent, "" for nothing: " /*…*/".
        """

    def opened(self, database: Any, /) -> None:
        """
        Take note of a database that is connected.
        """

    def closed(self, database: Any, /) -> None:
        """
        Take note of one that is not any more.
        """


class Watching:
    """
    The instruments of one database, as those who run statements need them.

    Attributes:
        saw: Is told of each statement; None where nobody listens.
        comment: Says what to append to each; None where nobody does.
    """

    __slots__ = ("_report", "comment", "saw")

    def __init__(self, report: Callable[[Any, str, Exception], None]) -> None:
        self._report = report
        self.saw: Callable[[Statement], None] | None = None
        self.comment: Callable[[], str] | None = None

    def follow(self, observers: Iterable[object]) -> None:
        """
        Tell the instruments among these observers from now on.
        """
        found = instruments(observers)
        self.saw = self._teller(found) if found else None
        asked = [each for each in found if getattr(each, "has_comments", False)]
        self.comment = self._asker(asked[0]) if asked else None

    def _teller(self, found: Sequence[Instrument]) -> Callable[[Statement], None]:
        def tell(statement: Statement) -> None:
            for each in found:
                try:
                    each.saw(statement)
                except Exception as error:  # noqa: BLE001  # as for events: it must not disturb what it observes
                    self._report(each, "a statement", error)

        return tell

    def _asker(self, asked: Instrument) -> Callable[[], str]:
        def ask() -> str:
            try:
                return asked.comment()
            except Exception as error:  # noqa: BLE001  # as above
                self._report(asked, "a comment", error)
                return ""

        return ask


def instruments(observers: Iterable[object]) -> list[Instrument]:
    """
    Return those observers that see statements too.
    """
    return [each for each in observers if isinstance(each, Instrument)]


def commented(args: tuple[Any, ...], comment: Callable[[], str]) -> tuple[Any, ...]:
    """
    Return the arguments of a call whose first is the statement, with a comment appended to that.

    A statement that has a comment keeps its own: it may be a hint, and two do not mix (sqlcommenter's rule).
    """
    text: str = args[0]
    return args if "/*" in text or not (said := comment()) else (f"{text} {said}", *args[1:])
