"""What the server must be told before a statement or a transaction: its time limits, its settings. Pure text and state.

It knows which value is in force and which SQL changes it, never a connection.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError
from magnus.lanes import LANES, QueryPriority, current, earlier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.config import DatabaseConfig

# --- limits ----------------------------------------------------------------------------------------------------------

SLACK: Final = 1.0
"""Seconds by which the server's limit lies above the client's: the client ends first, and can say why."""

_WIDEST: Final = 2.0
_LONGEST_MS: Final = 2_147_483_647  # the server keeps a limit as 32-bit milliseconds
STARTUP: Final = None
"""In place of a limit: the value that the session was started with, and that RESET ALL returns to."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadOnly:
    """
    In place of a limit: that limit, in a session whose statements run READ ONLY. One object for each limit.
    """

    limit: float | None


@cache
def read_only(limit: float | None) -> ReadOnly:
    """
    Return the `ReadOnly` of a limit.
    """
    return ReadOnly(limit)


Need = float | None | ReadOnly
"""What a statement needs in force in its session: the server's limit, and whether it runs READ ONLY."""


@dataclass(frozen=True, slots=True)
class LaneLimit:
    """
    Seconds that one statement of a lane may take: on the client, and on the server (None: the startup value).
    """

    client: float
    server: Need

    @property
    def reading(self) -> LaneLimit:
        """
        The same for statements that run READ ONLY.
        """
        return LaneLimit(self.client, read_only(limit_of(self.server)))


def lane_limits(config: DatabaseConfig) -> Mapping[QueryPriority, LaneLimit]:
    """
    Return the limits of all lanes.

    NORMAL runs under the session's startup value, as configured. Another lane does too where that value is its own
    limit or at most two seconds above; else its server limit is the client's plus one second.
    """
    startup = math.nan if "statement_timeout" in config.server_settings else config.statement_timeout
    found: dict[QueryPriority, LaneLimit] = {}
    for lane in LANES:
        client = config.lane_timeout(lane)
        is_startup = lane is QueryPriority.NORMAL or client <= startup <= client + _WIDEST
        found[lane] = LaneLimit(client, STARTUP if is_startup else client + SLACK)
    return MappingProxyType(found)


def server_limit(lane: LaneLimit, timeout: float | None) -> Need:
    """
    Return the server's limit of a statement: the lane's, raised when the caller asked for more than the lane gives.
    """
    if timeout is None or timeout <= lane.client:
        return lane.server
    return read_only(_whole(timeout + SLACK)) if isinstance(lane.server, ReadOnly) else timeout + SLACK


def _whole(limit: float) -> float:
    """
    Round up to a second, so that there are not more of them than anybody would ask for.
    """
    return float(math.ceil(limit))


def limit_of(need: Need) -> float | None:
    """
    Return the limit in what a statement needs.
    """
    return need.limit if isinstance(need, ReadOnly) else need


@dataclass(slots=True)  # one is made for each statement, and freezing costs more than the rest of it
class Window:
    """
    When one statement may run.

    Attributes:
        started: When it was asked for (monotonic seconds).
        deadline: When the client ends it (monotonic seconds), waiting for a connection included.
        limit: Seconds from one to the other.
        server: Seconds after which the server ends it; None: the session's startup value; and whether READ ONLY.
    """

    started: float
    deadline: float
    limit: float
    server: Need


def window(lane: LaneLimit, timeout: float | None, *, now: float, until: float | None = None) -> Window:
    """
    Return when a statement may run that is asked for now: `timeout` or its lane's limit, never past `until` or the
    deadline of the enclosing scope.

    Raises:
        ConfigError: `timeout` is not positive.
    """
    scope = current()
    if scope is None and timeout is None and until is None:
        return Window(now, now + lane.client, lane.client, lane.server)
    limit = lane.client if timeout is None else checked(timeout)
    deadline = now + limit
    end = earlier(until, None if scope is None else scope.deadline)
    if end is not None and end < deadline:
        deadline, limit = end, max(end - now, 0.0)
    return Window(now, deadline, limit, server_limit(lane, timeout))


def checked(timeout: Any) -> float:
    """
    Return a timeout that is one.

    Raises:
        ConfigError: it is not a positive number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise ConfigError("timeout", timeout, "must be a positive number of seconds")
    return float(timeout)


class SessionLimit:
    """
    The statement_timeout that is in force in one session, whether its statements run READ ONLY, and the SQL that
    changes both.

    Theory of operation. A lease begins with the startup values, because every reset ends in RESET ALL. Outside a
    transaction a change is a SET and holds until the reset. Inside one it is SET LOCAL: it dies with the transaction,
    whichever way that ends, and then the session's own value is in force again. Text of the user's may end a
    transaction or reset the session; after such text the value in force is unknown and the next change is sent
    whatever it is. A SET statement_timeout of the user's own is left standing until the limit has to change.

    READ ONLY is default_transaction_read_only, of the session alone. A transaction that begins in such a session says
    READ WRITE in its BEGIN, so it costs no round trip; from there on only the limit counts. It does not say so where
    the session was read only before: that is somebody's guard.

    Invariant: `present` is what SHOW would answer, or the unknown, unless the user SET the value.

    Attributes:
        present: The value in force while nothing is known to have ended the transaction; the unknown equals nothing.
        is_changed: It is not only the startup value that is in force.
    """

    __slots__ = ("_is_guarded", "_local", "_session", "is_changed", "present")

    def __init__(self) -> None:
        self._is_guarded = False
        self._put(STARTUP, _NO_LOCAL)

    def _put(self, session: Need, local: float | None) -> None:
        self._session, self._local = session, local
        self.present: Need = session if local is _NO_LOCAL else local
        self.is_changed = session is not STARTUP or local is not _NO_LOCAL

    def change(self, wanted: Need, *, is_in_transaction: bool) -> str | None:
        """
        Return the SQL that brings `wanted` into force, or None when it is; the caller reports with `changed`.
        """
        if not is_in_transaction:
            self._put(self._session, _NO_LOCAL)
        present = self.present
        if present == wanted:
            return None
        if is_in_transaction:
            return f"SET LOCAL statement_timeout TO {_value(limit_of(wanted))}"
        parts = []
        if limit_of(present) != limit_of(wanted):
            parts.append(f"SET statement_timeout TO {_value(limit_of(wanted))}")
        if isinstance(wanted, ReadOnly):
            parts.append("SET default_transaction_read_only TO on")
        elif isinstance(present, ReadOnly):
            parts.append("SET default_transaction_read_only TO DEFAULT")
        return "; ".join(parts)

    def changed(self, value: Need, *, is_in_transaction: bool, is_guarded: bool = False) -> None:
        """
        Take note that `value` came into force. `is_guarded`: the session was read only
        before, and not by us.
        """
        if is_in_transaction:
            self._put(self._session, limit_of(value))
        else:
            if isinstance(value, ReadOnly) and not isinstance(self._session, ReadOnly):
                self._is_guarded = is_guarded
            self._put(value, _NO_LOCAL)

    def begins(self) -> bool:
        """
        Say whether a BEGIN must ask for READ WRITE, to be what it would be in a fresh session.
        """
        return isinstance(self._session, ReadOnly) and not self._is_guarded

    def begun(self) -> None:
        """
        Take note that a transaction of the layer's has begun: from here on only the limit counts.
        """
        if isinstance(self._session, ReadOnly):
            self._put(self._session, self._session.limit)

    def heard(self, text: str) -> None:
        """
        Take note of a user's text that was sent: it may have put other values into force.
        """
        if self.is_changed and _unsettles(text):
            session = self._session
            if session is not STARTUP:
                session = _UNKNOWN_READ_ONLY if isinstance(session, ReadOnly) else _UNKNOWN
            self._put(session, self._local if self._local is _NO_LOCAL else _UNKNOWN)

    def mark(self) -> float | None:
        """
        Return what `restore` needs when a savepoint begins.
        """
        return self._local

    def restore(self, mark: float | None) -> None:
        """
        Take note that a savepoint was rolled back: what was SET LOCAL since its `mark` is undone.
        """
        self._put(self._session, mark)

    def reset(self) -> None:
        """
        Take note that RESET ALL was run.
        """
        self._put(STARTUP, _NO_LOCAL)

    def ended(self) -> None:
        """
        Take note that the transaction is over, and with it everything that was SET LOCAL.
        """
        self._put(self._session, _NO_LOCAL)


_UNKNOWN: Final = math.nan
_UNKNOWN_READ_ONLY: Final = ReadOnly(_UNKNOWN)
_NO_LOCAL: Final = -1.0
_UNSETTLES: Final = re.compile(
    r"(?:^|;)\s*(?:commit|end|rollback|abort|prepare\s+transaction|reset|discard|release)\b", re.IGNORECASE
)


@lru_cache(1024)  # the same texts come again and again, and looking through a long one takes microseconds
def _unsettles(text: str) -> bool:
    return _UNSETTLES.search(text) is not None


def _value(limit: float | None) -> str:
    return "DEFAULT" if limit is STARTUP else str(milliseconds(limit))


def milliseconds(limit: float) -> int:
    """
    Return a limit as the server takes it: rounded up, at least 1 (0 would be no limit), within 32 bits.
    """
    return max(1, min(math.ceil(limit * 1000), _LONGEST_MS))


# --- transactions ----------------------------------------------------------------------------------------------------

_ISOLATION: Final = MappingProxyType({
    "read_uncommitted": "READ UNCOMMITTED", "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ", "serializable": "SERIALIZABLE",
})  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")
_NAME_SIZE: Final = 63  # the server cuts off the rest
_QUOTED_LISTS: Final = frozenset({"search_path", "temp_tablespaces"})


@dataclass(frozen=True, slots=True)
class TransactionMode:
    """
    How a transaction begins; checked when made.

    Attributes:
        isolation: "read_committed", "repeatable_read", "serializable", "read_uncommitted", or None: the session's.
        readonly: READ ONLY.
        deferrable: DEFERRABLE; has an effect on serializable read-only transactions.
        settings: Settings of this transaction alone, by name; "role" is the role it runs as.

    Raises:
        ConfigError: no such isolation level, or a name or value that no setting can have.
    """

    isolation: str | None = None
    readonly: bool = False
    deferrable: bool = False
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.isolation is not None and self.isolation not in _ISOLATION:
            raise ConfigError("isolation", self.isolation, f"must be one of {', '.join(_ISOLATION)}")
        for name, value in self.settings.items():
            _check_setting(name, value)

    @classmethod
    def of(
        cls,
        isolation: str | None,
        readonly: bool,  # noqa: FBT001  # in the order of the fields
        deferrable: bool,  # noqa: FBT001
        settings: Mapping[str, str] | None,
    ) -> TransactionMode:
        """
        Return a mode with settings of its own; the plainest one is made once.
        """
        if isolation is None and not readonly and not deferrable and not settings:
            return PLAIN
        return cls(isolation, readonly, deferrable, {} if settings is None else dict(settings))

    @property
    def is_special(self) -> bool:
        """
        Whether it asks for anything that only the beginning of a transaction can give.
        """
        return self.isolation is not None or self.readonly or self.deferrable

    def begin(
        self, *, statement_timeout: float | None, transaction_timeout: float | None, is_writing: bool = False
    ) -> str:
        """
        Return BEGIN and everything that is local to the transaction as one text, for one round trip.

        The user's settings come last, so they win over the limits; the role comes after them, so it need not be
        allowed to set them. A limit that is None is not mentioned. `is_writing`: it must say READ WRITE.
        """
        return "; ".join(
            self.parts(
                statement_timeout=statement_timeout, transaction_timeout=transaction_timeout, is_writing=is_writing
            )
        )

    def parts(
        self, *, statement_timeout: float | None, transaction_timeout: float | None, is_writing: bool = False
    ) -> tuple[str, ...]:
        """
        Return the statements of `begin`.
        """
        parts = [self._opening(is_writing=is_writing)]
        if statement_timeout is not None:
            parts.append(f"SET LOCAL statement_timeout TO {milliseconds(statement_timeout)}")
        if transaction_timeout is not None:
            parts.append(f"SET LOCAL transaction_timeout TO {milliseconds(transaction_timeout)}")
        return (*parts, *self.local_settings())

    @property
    def answers_rows(self) -> bool:
        """
        Whether one of the statements of `parts` is answered with a row.
        """
        return any(name.lower() in _QUOTED_LISTS for name in self.settings)

    def local_settings(self) -> list[str]:
        """
        Return the statements that put `settings` into force until the transaction ends.
        """
        ordered = sorted(self.settings.items(), key=lambda item: item[0].lower() == "role")
        return [_set_local(name, value) for name, value in ordered]

    def _opening(self, *, is_writing: bool) -> str:
        words = ["BEGIN"]
        if self.isolation is not None:
            words.append(f"ISOLATION LEVEL {_ISOLATION[self.isolation]}")
        if self.readonly:
            words.append("READ ONLY")
        elif is_writing:
            words.append("READ WRITE")
        if self.deferrable:
            words.append("DEFERRABLE")
        return " ".join(words)


PLAIN: Final = TransactionMode()


@lru_cache(64)
def plain_begin(
    statement_timeout: float | None, transaction_timeout: float | None, *, is_writing: bool
) -> tuple[str, ...]:
    """
    Return the statements that begin a plain transaction under these limits.
    """
    return PLAIN.parts(
        statement_timeout=statement_timeout, transaction_timeout=transaction_timeout, is_writing=is_writing
    )


def _check_setting(name: object, value: object) -> None:
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or any(len(part) > _NAME_SIZE for part in name.split("."))
    ):
        raise ConfigError("settings", name, "is no name of a setting")
    shown = f"settings[{name}]"
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(shown, "***", "must be a text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(shown, "***", "must be a text that UTF-8 can carry") from None


def _set_local(name: str, value: str) -> str:
    if name.lower() == "role":
        # A literal, because the server would cut a longer identifier down to another role's name.
        return f"SET LOCAL ROLE {quote_literal(value)}"
    if name.lower() in _QUOTED_LISTS:
        # SET would take the whole literal for one element of the list.
        return f"SELECT pg_catalog.set_config({quote_literal(name)}, {quote_literal(value)}, true)"
    return f"SET LOCAL {'.'.join(map(quote_identifier, name.split('.')))} TO {quote_literal(value)}"


def quote_identifier(name: str) -> str:
    """
    Return a name as SQL reads it back, whatever is in it (but NUL, which no name can hold).
    """
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def quote_literal(value: str) -> str:
    """
    Return a text as SQL reads it back, whatever standard_conforming_strings is.
    """
    escaped = value.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in escaped else f"'{escaped}'"
