"""For tests of the HTTP API: AVA in this process over a real database with known contents, and its audit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2

from ava.audit import audit
from ava.config import Settings
from ava.main import create_app
from ava.tokens import digest
from magnus import Database, DatabaseConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Dsns

ANNA, BERT, CARL = 1, 2, 3
"""Anna has 10,000.00 EUR in Berlin, Bert 500.00 EUR in UTC, Carl 1,000.00 USD in New York."""

SEED = """
insert into accounts (owner_name, currency, time_zone) values
    ('Anna', 'EUR', 'Europe/Berlin'), ('Bert', 'EUR', 'UTC'), ('Carl', 'USD', 'America/New_York');
insert into cash (account_id, balance) values (1, 10000), (2, 500), (3, 1000);
insert into cash_movements (account_id, amount, kind) select account_id, balance, 'deposit' from cash;
insert into instruments (symbol, name, market, currency, is_tradable) values
    ('AAAA', 'Alpha', 'XTST', 'EUR', true), ('BBBB', 'Beta', 'XTST', 'EUR', true),
    ('DEAD', 'Gone', 'XTST', 'EUR', false), ('MUTE', 'No quote', 'XTST', 'EUR', true),
    ('USDX', 'Dollar', 'XTST', 'USD', true),
    ('ALBI', 'Alder Biotech SE', 'XETR', 'EUR', true);
insert into quotes (instrument_id, price) values (1, 12.34), (2, 100), (3, 1), (5, 10), (6, 123.45);
"""


def token_of(account_id: int) -> str:
    return f"ava_test-token-of-{account_id}"


class Service:
    """
    The API as its accounts use it, and the database behind it as a superuser sees it.
    """

    def __init__(self, client: httpx2.AsyncClient, admin: asyncpg.Connection, app: Any) -> None:
        self.client = client
        self.admin = admin
        self.app = app
        self._keys = 0

    async def send(self, method: str, path: str, *, account: int = ANNA, **request: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token_of(account)}", **request.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **request)

    async def get(self, path: str, *, account: int = ANNA, **params: Any) -> httpx2.Response:
        return await self.send("GET", path, account=account, params=params or None)

    async def order(
        self, symbol: str, side: str, quantity: str, *, key: str | None = None, account: int = ANNA, **more: Any
    ) -> httpx2.Response:
        body = {"symbol": symbol, "side": side, "quantity": quantity, **more}
        return await self.send(
            "POST", "/api/trades", account=account, json=body, headers={"Idempotency-Key": key or self.new_key()}
        )

    async def upload(
        self, text: str | bytes, *, key: str | None = None, account: int = ANNA, **params: Any
    ) -> httpx2.Response:
        headers = {"Idempotency-Key": key or self.new_key(), "Content-Type": "text/csv"}
        return await self.send("POST", "/api/import", account=account, content=text, headers=headers, params=params)

    def new_key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    async def quote(self, symbol: str, price: str) -> None:
        await self.admin.execute(
            "update quotes set price = $2::text::numeric from instruments as i"
            " where i.id = instrument_id and symbol = $1",
            symbol,
            price,
        )

    async def deposit(self, account: int, amount: str) -> None:
        await self.admin.execute(
            "with paid as (insert into cash_movements (account_id, amount, kind)"
            " values ($1, $2::text::numeric, 'deposit'))"
            " update cash set balance = balance + $2::text::numeric where account_id = $1",
            account,
            amount,
        )

    async def count(self, table: str) -> int:
        return await self.admin.fetchval(f"select count(*) from {table}")

    async def ledger(self) -> dict[str, Any]:
        """
        Everything that a request could have changed.
        """
        tables = ("cash", "orders", "trades", "lots", "positions", "imports")
        return {name: await self.admin.fetch(f"select * from {name} order by 1, 2") for name in tables}


@contextlib.asynccontextmanager
async def serving(dsns: Dsns, *, database: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Service]:
    """
    Run the application on a database, and give a client of it. `database` are more fields of its configuration.
    """
    config = DatabaseConfig(**{"dsn": dsns.owner, "min_pool_size": 2, "max_pool_size": 8} | (database or {}))
    app = create_app(Settings(**{"warmup_connections": 2, "relay_interval": 0} | settings), config=config)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    admin = await asyncpg.connect(dsns.superuser)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://ava.test", timeout=120) as client,
        ):
            yield Service(client, admin, app)
    finally:
        await admin.close()


async def seed(dsns: Dsns) -> None:
    """
    Put the accounts and instruments of these tests into an empty schema.
    """
    con = await asyncpg.connect(dsns.superuser)
    try:
        await con.execute(SEED)
        tokens = [(account, digest(token_of(account))) for account in (ANNA, BERT, CARL)]
        await con.executemany("insert into api_tokens (account_id, token_sha256) values ($1, $2)", tokens)
    finally:
        await con.close()


async def assert_clean(dsns: Dsns) -> None:
    """
    Cash, lots and positions are what the trades say, to the last digit.
    """
    async with Database(DatabaseConfig(dsn=dsns.owner, min_pool_size=1, max_pool_size=2)) as db:
        report = await audit(db)
    assert report.is_clean, report.mismatches
