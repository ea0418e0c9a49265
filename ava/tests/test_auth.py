"""Who may see what: no token, wrong tokens, other accounts' things, and row-level security as the second lock."""

from __future__ import annotations

import asyncpg
import pytest
from service import ANNA, BERT, token_of

from ava.services.account import settings_of
from ava.sql import statement
from ava.tokens import digest
from magnus import Database, DatabaseConfig

pytest_plugins = ("service_fixtures",)

PRIVATE = [
    ("GET", "/api/trades"),
    ("GET", "/api/trades/1"),
    ("POST", "/api/trades"),
    ("GET", "/api/positions"),
    ("GET", "/api/reports/monthly"),
    ("GET", "/api/account"),
    ("POST", "/api/import"),
]
HEADERS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic YTpi",
    "Bearer nonsense",
    "Bearer ava_nonsense",
    "Bearer ava_" + "x" * 5000,
    f"bearer {token_of(ANNA)}x",
    f"Token {token_of(ANNA)}",
    "Bearer ava_\u00e4".encode("latin-1"),
    f"Bearer {token_of(ANNA)} {token_of(BERT)}",
]


@pytest.mark.one_version
async def test_without_a_valid_token_every_private_route_is_401(ava):
    """With the challenge that the standard asks for, whatever else is wrong with the request."""
    for header in HEADERS:
        headers = {} if header is None else {"Authorization": header}
        for method, path in PRIVATE:
            answer = await ava.client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, header)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.json()["type"] == "urn:ava:problem:unauthenticated"


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now()", "expires_at = '2020-01-01'"])
async def test_an_expired_or_revoked_token_is_401_at_once(ava, change):
    """The next request already; other tokens go on working."""
    assert (await ava.get("/api/account")).status_code == 200
    await ava.admin.execute(f"update api_tokens set {change} where account_id = 1")
    assert (await ava.get("/api/account")).status_code == 401
    assert (await ava.get("/api/account", account=BERT)).status_code == 200


@pytest.mark.one_version
async def test_a_token_that_expires_later_is_valid(ava):
    """Until then."""
    await ava.admin.execute("update api_tokens set expires_at = now() + interval '1 hour'")
    assert (await ava.get("/api/account")).status_code == 200


@pytest.mark.one_version
async def test_an_account_may_have_several_tokens(ava):
    """Each of them is the account."""
    await ava.admin.execute("insert into api_tokens (account_id, token_sha256) values (1, $1)", digest("ava_second"))
    answer = await ava.client.get("/api/account", headers={"Authorization": "Bearer ava_second"})
    assert answer.json()["id"] == 1


@pytest.mark.one_version
async def test_another_accounts_trade_is_404_or_absent(ava):
    """Never data, and the same answer as for a trade that does not exist."""
    trade = (await ava.order("AAAA", "buy", "1")).json()
    stolen = await ava.get(f"/api/trades/{trade['id']}", account=BERT)
    unknown = await ava.get("/api/trades/987654321", account=BERT)
    assert stolen.status_code == unknown.status_code == 404
    assert {**stolen.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    assert (await ava.get("/api/trades", account=BERT)).json()["items"] == []
    cursor = (await ava.get("/api/trades", limit=1)).json()["next_cursor"]
    assert cursor is None
    assert (await ava.get("/api/reports/monthly", account=BERT)).json()["items"] == []


@pytest.mark.one_version
async def test_the_account_cannot_be_named_in_the_request(ava):
    """It is the token's; a parameter or a header that says otherwise is refused or ignored."""
    await ava.order("AAAA", "buy", "1")
    assert (await ava.get("/api/trades", account=BERT, account_id="1")).status_code == 422
    answer = await ava.send("GET", "/api/trades", account=BERT, headers={"X-Account-Id": "1", "ava.account_id": "1"})
    assert answer.json()["items"] == []


@pytest.mark.one_version
async def test_health_needs_no_token(ava):
    """Probes have none."""
    for path in ("liveness", "readiness", "stats"):
        assert (await ava.client.get(f"/api/health/{path}")).status_code == 200


@pytest.mark.parametrize("login", ["owner", "superuser"])
async def test_row_level_security_holds_without_the_where(ava, migrated, login):
    """The second lock: a statement that forgot its WHERE sees one account, whoever the service logs in as."""
    await ava.order("AAAA", "buy", "1")
    await ava.order("AAAA", "buy", "1", account=BERT)
    dsn = getattr(migrated, login)
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=2)) as db:
        for account in (ANNA, BERT):
            async with db.transaction(settings=settings_of(account)) as tx:
                for table in ("trades", "orders", "lots", "positions", "cash"):
                    assert await tx.fetch(f"select distinct account_id from {table}") == [(account,)]
                assert (
                    await tx.execute("update positions set quantity = 0 where account_id <> $1", account) == "UPDATE 0"
                )
                assert await tx.execute("delete from lots where account_id <> $1", account) == "DELETE 0"
        async with db.transaction(settings=settings_of(ANNA)) as tx:
            assert await tx.fetchrow(statement("queries/trade"), BERT, 2) is None


async def test_an_account_cannot_write_for_another(ava, migrated):
    """Neither a trade nor a lot nor an order."""
    async with Database(DatabaseConfig(dsn=migrated.owner, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction(settings=settings_of(ANNA)) as tx:
                await tx.execute(
                    "insert into positions (account_id, instrument_id, quantity, cost_basis) values (2, 1, 5, 0)"
                )


async def test_an_account_cannot_read_tokens(ava, migrated):
    """Not even its own."""
    async with Database(DatabaseConfig(dsn=migrated.owner, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction(settings=settings_of(ANNA)) as tx:
                await tx.fetch("select * from api_tokens")


@pytest.mark.one_version
async def test_no_setting_of_one_request_is_seen_by_the_next(ava):
    """Role and account are the transaction's; the connection goes back clean."""
    await ava.get("/api/positions")
    db = ava.app.state.magnus.database
    for _ in range(8):
        row = await db.fetchrow(
            "select current_user = session_user as is_self, current_setting('ava.account_id', true) as account"
        )
        assert row["is_self"]
        assert not row["account"]
