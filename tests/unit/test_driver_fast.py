"""What the short way to the protocol does when a change of the schema made a statement wrong; no server."""

from __future__ import annotations

import contextlib

import asyncpg
import pytest

from magnus._driver import PooledConnection

STATEMENT = object()
MADE = []


class Protocol:
    """Raises what it is given, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.is_in_block = False
        self.asked = []

    def is_connected(self):
        return True

    def is_in_transaction(self):
        return self.is_in_block

    def get_record_class(self):
        return asyncpg.Record

    async def bind_execute(self, statement, args, _portal, _limit, is_status_wanted, _timeout):
        self.asked.append((statement, args))
        if self.errors:
            raise self.errors.pop()
        return ([(1,)], b"SELECT 1", True) if is_status_wanted else [(1,)]

    def abort(self):
        pass


class Connection(PooledConnection):
    """The driver's own way is noted, and answered; dropping a cache too."""

    __slots__ = ("dropped", "long_way")

    def _drop_local_statement_cache(self):
        self.dropped.append("statements")

    def _drop_local_type_cache(self):
        self.dropped.append("types")

    async def _execute(self, _query, _args, _limit, _timeout, **options):
        self.long_way.append(options)
        return (None, b"SELECT 1", True) if options.get("return_status") else [(1,)]


def connection(*errors, siblings=()):
    con = object.__new__(Connection)
    con.dropped, con.long_way = [], []
    con._aborted, con._protocol, con._query_loggers = False, Protocol(*errors), set()
    con._stmt_cache = {("q", asyncpg.Record, False): STATEMENT}
    con._stmt_exclusive_section = contextlib.nullcontext()
    con.ahead = None
    con.siblings = lambda: siblings
    MADE.append(con)
    return con


@pytest.fixture(autouse=True)
def _closed():
    """None of these was ever connected: when they go, the driver must not warn that they were not closed."""
    yield
    for con in MADE:
        con._aborted = True
    MADE.clear()


METHODS = pytest.mark.parametrize("method", ["fetch", "fetchrow", "fetchval", "execute"])


@METHODS
async def test_a_cached_statement_goes_straight_to_the_protocol(method):
    """And one that is not cached, or is given a time of its own, does not."""
    con = connection()
    await getattr(con, method)("q", 5)
    assert con._protocol.asked == [(STATEMENT, (5,))]
    assert con.long_way == []

    await getattr(con, method)("other", 5)
    await getattr(con, method)("q", 5, timeout=1.0)
    con._query_loggers.add(print)
    await getattr(con, method)("q", 5)
    assert len(con.long_way) == 3
    assert len(con._protocol.asked) == 1


@METHODS
async def test_a_statement_that_became_wrong_is_dropped_everywhere_and_run_anew(method):
    """Outside a transaction nothing is lost."""
    sibling = connection()
    con = connection(asyncpg.InvalidCachedStatementError("cached plan"), siblings=(sibling,))

    await getattr(con, method)("q", 5)

    assert con.dropped == sibling.dropped == ["statements"]
    assert len(con.long_way) == 1


@METHODS
async def test_inside_a_transaction_nothing_is_run_anew(method):
    """The server has ended it; the caches are dropped all the same."""
    con = connection(asyncpg.InvalidCachedStatementError("cached plan"))
    con._protocol.is_in_block = True

    with pytest.raises(asyncpg.InvalidCachedStatementError):
        await getattr(con, method)("q", 5)

    assert con.dropped == ["statements"]
    assert con.long_way == []


@METHODS
async def test_a_type_that_became_wrong_is_an_error_and_is_read_anew(method):
    """The server has run the statement already: it is not run twice."""
    con = connection(asyncpg.OutdatedSchemaCacheError("cached type"))

    with pytest.raises(asyncpg.OutdatedSchemaCacheError):
        await getattr(con, method)("q", 5)

    assert con.dropped == ["types", "statements"]
    assert con.long_way == []
