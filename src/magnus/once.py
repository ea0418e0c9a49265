"""Units of work that happen once: the row that stands for one, its SQL, and who carries it out in this process.

Theory of operation. The key is claimed by the transaction that does the work, in the same round trip as its BEGIN, and
the answer is stored in the same round trip as its COMMIT: both are there or neither is. The unique key makes a second
transaction wait for the first and then find its row. After a COMMIT without an answer the unit is simply begun again:
either the row is there and holds the answer, or it is not and nothing had happened. No transaction id is asked about:
after a failover, and after a crash on the same timeline, a server gives the ids of lost transactions out again, and
calls them committed.

An answer that was found is given only after a COMMIT of the finder's own. Somebody may have called off the first
one's wait for its standby, and what a standby has not got may be gone tomorrow; a later COMMIT that was waited for
proves that everything before it has arrived.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache
from string import Template
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from magnus import sql
from magnus._answers import UNREADABLE, decode, encode, fingerprint
from magnus.errors import AlreadyExecuted, ConfigError, DatabaseError, InProgress, KeyReused, Refused
from magnus.session import quote_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.database import Database

T = TypeVar("T")

CLAIMED: Final = "INSERT 0 1"
WAIT: Final = 2.0
"""Seconds to wait for another process that works under the same key, before `InProgress`."""

RETRY_AFTER: Final = 1.0
_LONGEST: Final = 255
BATCH: Final = 1_000
"""Answers that are taken away in one transaction."""

# These two go with BEGIN and COMMIT, which take no arguments: every value is a quoted literal.
_CLAIM: Final = Template(
    "SELECT pg_catalog.set_config('magnus.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), "
    "pg_catalog.set_config('lock_timeout', '$wait', true); "
    "INSERT INTO magnus_once (scope, operation, key, request_hash) "
    "VALUES ($scope, $operation, $key, pg_catalog.decode('$hash', 'hex')) ON CONFLICT DO NOTHING "
    "RETURNING pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('magnus.lock_timeout'), true)"
)
_FINISH: Final = Template(
    "UPDATE magnus_once SET status = '$status', response = $response, reference = $reference "
    "WHERE scope = $scope AND operation = $operation AND key = $key"
)

FOUND: Final = """
UPDATE magnus_once SET replays = replays + 1 WHERE scope = $1 AND operation = $2 AND key = $3
RETURNING request_hash, status, response, reference
"""
EXPIRE: Final = """
UPDATE magnus_once SET response = NULL
 WHERE (scope, operation, key) IN (
       SELECT scope, operation, key FROM magnus_once
        WHERE created_at < now() - make_interval(secs => $1) AND response IS NOT NULL
        LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Once(Generic[T]):
    """
    The answer of a unit of work that happens once.

    Attributes:
        value: What the unit returned.
        replayed: It was carried out before; this is the answer that it was given then.
    """

    value: T
    replayed: bool


@cache
def table() -> str:
    """
    Return the SQL that makes the table of keys and answers; run again it changes nothing.
    """
    return sql.text("once")


async def install(db: Database) -> None:
    """
    Make the table where it is missing, in the first schema of the search path.

    Raises:
        asyncpg.InsufficientPrivilegeError: the user may not create tables there.
    """
    async with db.transaction() as tx:
        await tx.execute(table())


async def expire(db: Database, after: float, *, settings: Mapping[str, str] | None = None) -> int:
    """
    Take away the bodies of answers that are older than `after` seconds; keys and references stay for ever.

    A repeat of such a unit raises `AlreadyExecuted`. `settings` are the transaction's, as for `transaction`. Returns
    how many were taken away. Harmless to run at the same time elsewhere, or to stop half-way.

    Raises:
        ConfigError: `after` is negative.
    """
    if not after >= 0:
        raise ConfigError("after", after, "must be at least 0 seconds")
    total = 0
    while True:
        async with db.transaction(settings=settings) as tx:
            tag = await tx.execute(EXPIRE, float(after), BATCH)
        count = int(tag.rpartition(" ")[2])
        total += count
        if count < BATCH:
            return total


@dataclass(frozen=True, slots=True)
class Unit:
    """
    What is to happen once: unique for (scope, operation, key), and the fingerprint of what is asked.
    """

    scope: str
    operation: str
    key: str
    request_hash: bytes

    @classmethod
    def of(cls, *, scope: str, operation: str, key: str, request: object) -> Unit:
        """
        Return a unit.

        Raises:
            ConfigError: a name is no text of 1 to 255 characters.
            TypeError: the request has no JSON form.
        """
        for name, text in (("scope", scope), ("operation", operation), ("key", key)):
            if type(text) is not str or not 1 <= len(text) <= _LONGEST or "\0" in text or not _is_utf8(text):
                raise ConfigError(name, "***", f"must be a text of 1 to {_LONGEST} characters without NUL")
        return cls(scope, operation, key, fingerprint(request))

    @property
    def id(self) -> tuple[str, str, str]:
        return self.scope, self.operation, self.key

    def claim(self, wait: float) -> str:
        """
        Return the SQL that claims the key, waiting so many seconds for another transaction that has; its tag says
        whether it did. The limit of the wait holds for the claim alone.
        """
        return _CLAIM.substitute(
            scope=quote_literal(self.scope),
            operation=quote_literal(self.operation),
            key=quote_literal(self.key),
            hash=self.request_hash.hex(),
            wait=max(1, round(wait * 1000)),
        )

    def finish(self, answer: Answer) -> str:
        """
        Return the SQL that stores the answer of a claimed key.
        """
        return _FINISH.substitute(
            scope=quote_literal(self.scope),
            operation=quote_literal(self.operation),
            key=quote_literal(self.key),
            status="refused" if answer.is_refusal else "done",
            response=quote_literal(answer.response),
            reference="NULL" if answer.reference is None else quote_literal(answer.reference),
        )

    def answered(self, row: Any) -> Answer:
        """
        Return the answer in a row that was found.

        Raises:
            KeyReused: it is another request's.
            AlreadyExecuted: it has expired.
            DatabaseError: there is no row: it is hidden from the role.
        """
        if row is None:
            raise DatabaseError("the row of this key is hidden from the role of the transaction (row-level security)")
        if row["request_hash"] != self.request_hash:
            raise KeyReused(self.key)
        if row["response"] is None:
            raise AlreadyExecuted(self.key, row["reference"])
        return Answer(row["response"], row["reference"], is_refusal=row["status"] == "refused")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An answer as it is stored.
    """

    response: str
    reference: str | None
    is_refusal: bool = False

    @classmethod
    def of(cls, value: object, reference: object, kind: Any) -> Answer:
        """
        Return the answer that a unit gave, certainly readable as `kind`.

        Raises:
            TypeError: it is not.
        """
        response = encode(value)
        try:
            decode(response, kind)
        except UNREADABLE as error:
            raise TypeError(f"what the unit returned cannot be read again as {kind}: {error}") from error
        return cls(response, None if reference is None else str(reference))

    def value(self, kind: type[T]) -> T:
        """
        Return what the unit returned.

        Raises:
            Refused: it refused.
            DatabaseError: the text is of a version whose types were others.
        """
        if self.is_refusal:
            raise Refused(decode(self.response, Any), is_replayed=True)
        try:
            found: T = decode(self.response, kind)
        except UNREADABLE as error:
            raise DatabaseError(f"the stored answer cannot be read as {kind}: {error}") from error
        return found


class Course:
    """
    What is known of one unit between its attempts.

    Attributes:
        is_claimed: The last attempt claimed the key.
        is_unknown: An attempt was committed, or was not, and nothing since has told which.
        is_ours: That attempt was one of these.
        refusal: What the unit decided, when that was no.
    """

    __slots__ = ("is_claimed", "is_ours", "is_unknown", "refusal")

    def __init__(self) -> None:
        self.is_claimed = self.is_unknown = self.is_ours = False
        self.refusal: Refused | None = None

    def begun(self, tag: str) -> None:
        """
        Take note of what the server said of the claim: who could claim it knows that nothing is stored.
        """
        self.is_claimed = tag == CLAIMED
        if self.is_claimed:
            self.is_unknown = self.is_ours = False

    def lost(self) -> None:
        """
        Take note that COMMIT was not answered.
        """
        self.is_unknown = True
        self.is_ours = self.is_ours or self.is_claimed


class Flight:
    """
    A unit that is being carried out in this process, for all who asked for it.
    """

    __slots__ = ("_over", "request_hash")

    def __init__(self, request_hash: bytes) -> None:
        self.request_hash = request_hash
        self._over: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    def land(self, answer: Answer | None) -> None:
        """
        Wake those who wait: with the answer, or with none, and then one of them is next.
        """
        if not self._over.done():
            self._over.set_result(answer)

    async def wait(self, unit: Unit, seconds: float) -> Answer | None:
        """
        Wait for its end, without a connection.

        Raises:
            InProgress: it is not over in time.
        """
        done, _ = await asyncio.wait({self._over}, timeout=max(seconds, 0.0))
        if not done:
            raise InProgress(unit.key, retry_after=RETRY_AFTER)
        return self._over.result()
