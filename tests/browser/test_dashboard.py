"""The dashboard in a real browser, over a real service and server: every page, hostile names, tokens, outages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.async_api import async_playwright, expect

from magnus import DatabaseConfig, QueryPriority
from magnus.embedded import throwaway
from magnus.fastapi import Magnus
from magnus.observe import ConnectFailed, HealthCheckFailed, LeakSuspected, OutcomeNotKnown, PoolWarmed, Retry
from magnus.testing import frozen, standby_of, until_replayed
from tests.pgbouncer import pgbouncer
from tests.servers import binaries_or_skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from magnus.embedded import Cluster

PAGES = ("overview", "pool", "live", "queries", "slow", "findings", "events")
LIMIT = 60_000
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
TOKEN = "a-token-of-the-test"

expect.set_options(timeout=LIMIT)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


def chromium() -> str:
    """
    Debian's browser; its absence skips the test, or fails it where CI is set.
    """
    found = shutil.which("chromium")
    if found is None:
        reason = "chromium is not installed; make system-packages installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=chromium(), args=quiet)
        yield found
        await found.close()


@dataclass
class Look:
    """
    A page, and what its console said.
    """

    page: Page
    said: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, browser: Browser, **options: Any) -> AsyncIterator[Look]:
        context = await browser.new_context(**options)
        context.set_default_timeout(LIMIT)
        look = cls(await context.new_page())
        look.page.on("console", lambda message: look.said.append(f"{message.type}: {message.text}"))
        look.page.on("pageerror", lambda error: look.said.append(f"error: {error}"))
        yield look
        await context.close()


@contextlib.asynccontextmanager
async def service(
    dsn: str, *, token: str | None = None, app_name: str = "shop", pool: int = 3, **settings: Any
) -> AsyncIterator[Any]:
    """
    A small service with the dashboard, on a real port; yields its Magnus and the dashboard's address.
    """
    config = DatabaseConfig(
        dsn=dsn, min_pool_size=1, max_pool_size=pool, application_name=app_name, slow_query_threshold=0.05, **settings
    )
    magnus = Magnus(config, warmup=1)
    app = FastAPI(lifespan=magnus.lifespan)
    app.include_router(magnus.dashboard(token=token, title="Shop"), prefix="/dashboard")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(LIMIT / 1000):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield magnus, f"http://127.0.0.1:{listener.getsockname()[1]}/dashboard/"
    finally:
        server.should_exit = True
        await task
        listener.close()


@pytest.fixture
async def counted(dsn: str) -> str:
    """
    A database with the extension, and statements of its own.
    """
    con = await asyncpg.connect(dsn)
    await con.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await con.execute("SELECT pg_stat_statements_reset()")
    await con.close()
    return dsn


@pytest.mark.parametrize(
    "options",
    [{"color_scheme": "light"}, {"color_scheme": "dark", "viewport": {"width": 390, "height": 800}}],
    ids=["desk", "phone"],
)
async def test_every_page_shows_its_figures_and_the_console_stays_silent(counted, browser, options):
    """With statements, a slow one with its caller and its plan, a lock, an event."""
    async with service(counted) as (magnus, url), Look.at(browser, **options) as look:
        db = magnus.database
        await db.execute("CREATE TABLE IF NOT EXISTS wares (id int PRIMARY KEY, price numeric)")
        for number in range(20):
            await db.execute(
                "INSERT INTO wares VALUES ($1, 1) ON CONFLICT DO NOTHING", number, priority=QueryPriority.HIGH
            )
        for _ in range(2):  # the second finds the plan's statement known
            await db.fetchval("SELECT count(*) FROM wares, pg_sleep(0.1) WHERE price > $1", 0)
        db._notify(PoolWarmed(3, 3))
        async with db.transaction() as tx:
            await tx.execute("UPDATE wares SET price = 2 WHERE id = 1")
            waiting = asyncio.create_task(db.execute("UPDATE wares SET price = 3 WHERE id = 1"))
            page = look.page
            await page.goto(url)
            await expect(page.get_by_text("Ready: the database answers")).to_be_visible()
            await expect(page.get_by_text("waits for a lock").first).to_be_visible()
            await expect(page.locator("canvas")).to_have_count(3)
            for name in PAGES:
                await page.goto(f"{url}#/{name}")
                await expect(page.locator("main h1")).to_be_visible()
                await expect(page.locator("nav a[aria-current=page]")).to_have_count(1)
                if name == "live":
                    await expect(page.locator("ul.tree ul.tree")).to_have_count(1)
                    await expect(page.locator("ul.tree").first).to_contain_text("UPDATE wares SET price")
                elif name == "pool":
                    await expect(page.locator("canvas")).to_have_count(9)
                    await expect(page.locator("td", has_text="critical")).to_have_count(1)
                elif name == "queries":
                    await expect(page.locator("tbody tr", has_text="INSERT INTO wares").first).to_contain_text("20")
                elif name == "slow":
                    await expect(page.locator("tbody tr", has_text="pg_sleep").first).to_be_visible()
                elif name == "events":
                    await expect(page.locator("td", has_text="database_pool_warmed").first).to_be_visible()
                wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (name, wide)
        await waiting
        await page.goto(f"{url}#/slow")
        await page.locator("tbody tr", has_text="pg_sleep").first.locator("a").click()
        await expect(page.locator("main h1")).to_have_text("Query")
        await expect(page.get_by_text("test_dashboard")).to_be_visible()  # the caller
        await expect(page.frame_locator("iframe").locator("#app")).to_contain_text("Aggregate")
        assert look.said == []


async def test_what_the_checks_find_is_shown_with_what_to_do(counted, browser):
    """Severity, object and fix of a finding; the overview counts them. It is kept, however often somebody looks."""
    con = await asyncpg.connect(counted)
    await con.execute(
        "CREATE TABLE doubled (id int); CREATE INDEX one ON doubled (id); CREATE INDEX two ON doubled (id)"
    )
    try:
        async with service(counted) as (_, url), Look.at(browser) as look:
            page = look.page
            await page.goto(f"{url}#/findings")
            row = page.locator("tbody tr", has_text="I002")
            await expect(row).to_have_count(1)
            await expect(row.locator("td").first).to_have_text("warning")
            await expect(row).to_contain_text("public.two")
            await expect(row).to_contain_text('DROP INDEX CONCURRENTLY "public"."two"')
            await page.goto(f"{url}#/overview")
            await expect(page.get_by_text(re.compile(r"Checks: \d+ errors, \d+ warnings"))).to_be_visible()
            await con.execute("DROP INDEX two")
            await page.goto(f"{url}#/findings")
            await page.reload()
            await expect(row).to_have_count(1)
            asked = await con.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'magnus'")
            assert asked == 0  # the examination's connection is closed
            assert look.said == []
    finally:
        await con.close()


@pytest.mark.one_version
async def test_hostile_names_stay_text(counted, browser):
    """A table, a role, an application and a statement that would be HTML."""
    quoted = HOSTILE.replace('"', '""')
    con = await asyncpg.connect(counted)
    await con.execute(f'CREATE TABLE "{quoted[:60]}" (id int)')
    await con.execute(f'CREATE ROLE "{quoted[:40]}" LOGIN SUPERUSER')
    try:
        async with service(counted, app_name=HOSTILE) as (magnus, url), Look.at(browser) as look:
            await con.execute(f'SET SESSION AUTHORIZATION "{quoted[:40]}"')
            await con.execute(f"SET application_name TO '{HOSTILE[:40].replace(chr(39), chr(39) * 2)}'")
            await magnus.database.fetch(f'SELECT *, pg_sleep(0.1) AS "{quoted[:30]}" FROM "{quoted[:60]}"')
            await magnus.database.fetch(
                f'SELECT *, pg_sleep(0.1) FROM "{quoted[:60]}" RIGHT JOIN (SELECT 1) AS x ON true'
            )
            for name in PAGES:
                await look.page.goto(f"{url}#/{name}")
                await expect(look.page.locator("main h1")).to_be_visible()
                if name in {"live", "queries", "slow"}:
                    await expect(look.page.locator("main")).to_contain_text("<img src=x")
                assert await look.page.locator("main img").count() == 0
            assert "owned" not in await look.page.title()
            assert look.said == []
    finally:
        await con.execute("RESET SESSION AUTHORIZATION")
        await con.execute(f'DROP ROLE "{quoted[:40]}"')
        await con.close()


@pytest.mark.one_version
async def test_a_token_is_asked_for_and_kept_for_the_tab(counted, browser):
    """A wrong one is refused, the right one opens, a reload does not ask again; the address never holds it."""
    async with service(counted, token=TOKEN) as (_, url), Look.at(browser) as look:
        page = look.page
        await page.goto(url)
        await page.get_by_label("Token of this dashboard").fill("not-the-right-token")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("That token is not right.")).to_be_visible()
        await page.get_by_label("Token of this dashboard").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Ready: the database answers")).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("Ready: the database answers")).to_be_visible()
        assert TOKEN not in page.url
        assert TOKEN not in await page.content()


@pytest.mark.one_version
async def test_it_can_be_used_with_the_keyboard_alone(counted, browser):
    """Skip link, navigation, sorting."""
    async with service(counted) as (_, url), Look.at(browser) as look:
        page = look.page
        await page.goto(url)
        await expect(page.locator("main h1")).to_have_text("Overview")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
        for _ in range(5):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.textContent") == "Queries":
                break
        await page.keyboard.press("Enter")
        await expect(page.locator("main h1")).to_have_text("Queries")
        assert await page.evaluate("document.activeElement.id") == "main"


@pytest.mark.one_version
async def test_a_hidden_tab_asks_nothing(counted, browser):
    """And goes on when it is looked at again."""
    async with service(counted) as (_, url), Look.at(browser) as look:
        page, asked = look.page, []
        page.on("request", lambda request: "/api/snapshot" in request.url and asked.append(request.url))
        await page.goto(url)
        await expect(page.get_by_text("Ready: the database answers")).to_be_visible()
        await page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        async with page.expect_request("**/api/snapshot*"):  # the one that was due, or none any more
            await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        await page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        await page.evaluate("clearTimeout(timer); tick()")
        before = len(asked)
        await page.evaluate("tick()")
        assert len(asked) == before
        async with page.expect_request("**/api/snapshot*"):
            await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.one_version
async def test_five_thousand_statements_are_a_page_that_can_be_searched(counted, browser):
    """It shows the first two hundred and says of how many."""
    con = await asyncpg.connect(counted)
    names = [f"c{number}" for number in range(70)]
    await con.execute(f"CREATE TABLE wide ({', '.join(f'{name} int' for name in names)})")
    await con.execute(";".join(f"SELECT {one}, {other} FROM wide" for one in names for other in names))
    await con.close()
    async with service(counted) as (_, url), Look.at(browser) as look:
        began = time.perf_counter()
        await look.page.goto(f"{url}#/queries")
        await expect(look.page.locator("tbody tr")).to_have_count(200)
        took = time.perf_counter() - began
        print(f"\nthe page of 4,900 statements: {took:.2f} s from nothing to 200 rows")  # noqa: T201  # with -s
        await expect(look.page.locator("h2")).to_contain_text(re.compile(r"200 of 4,\d{3} statements"))
        await look.page.get_by_label("Containing").fill("c69, c42 from")
        await expect(look.page.locator("tbody tr")).to_have_count(1)
        assert look.said == []


@pytest.mark.one_version
async def test_events_show_repeats_outages_leaks_and_outcomes_that_nobody_knows(counted, browser):
    """Each with its data, counted above the list."""
    async with service(counted) as (magnus, url), Look.at(browser) as look:
        tell = magnus.database._notify
        tell(Retry(1, 0.05, "SerializationError", "could not serialize access"))
        tell(HealthCheckFailed(1, "ConnectionRefusedError"))
        tell(ConnectFailed("unreachable", "ConnectionRefusedError", 1))  # of the same outage
        tell(LeakSuspected("Task-7", "low", 31.0, 30.5, "SELECT $1", ("app.py:7",), ()))
        tell(OutcomeNotKnown("commit", "OutcomeUnknown", "742"))
        page = look.page
        await page.goto(f"{url}#/events")
        for text in ("SerializationError", "database_connect_failed", "task=Task-7", "xid=742"):
            await expect(page.locator("tbody tr", has_text=text)).to_have_count(1)
        for label in ("repeated", "outages", "leaks", "outcome unknown"):
            card = page.locator(".number", has=page.get_by_text(label, exact=True))
            await expect(card.locator("b")).to_have_text("1")
        assert look.said == []


@pytest.mark.one_version
async def test_a_server_that_goes_away_takes_its_panels_and_nothing_else(counted, browser, server):
    """The service's own figures stay, and everything comes back by itself."""
    async with service(counted) as (_, url), Look.at(browser) as look:
        await look.page.goto(url)
        await expect(look.page.get_by_text("Ready: the database answers")).to_be_visible()
        await asyncio.to_thread(server.stop_blocking)
        try:
            await expect(look.page.get_by_text("Not ready: database_check_failed")).to_be_visible()
            await expect(look.page.get_by_text("Server: the server cannot be reached")).to_be_visible()
            await expect(look.page.locator("canvas")).to_have_count(3)
        finally:
            await asyncio.to_thread(server.start_blocking)
        await expect(look.page.get_by_text("Ready: the database answers")).to_be_visible()
        await expect(look.page.get_by_text("Server: the server cannot be reached")).to_have_count(0)


@pytest.mark.one_version
async def test_the_poolers_figures_are_on_the_page_of_the_pool(
    browser: Browser, server: Cluster, database: str, dsn: str
) -> None:
    """
    Who waits there is a verdict; without its console the page says what to set.
    """
    async with pgbouncer(server, default_pool_size=1) as pooler:
        asked = {"pooler": "transaction", "direct_dsn": dsn, "health_check_interval": 0.2}
        console = {"pooler_admin_dsn": pooler.dsn("pgbouncer")}
        async with service(pooler.dsn(database), **asked, **console) as (magnus, address), Look.at(browser) as look:
            works = [asyncio.create_task(magnus.database.execute("SELECT pg_sleep(60)")) for _ in range(2)]
            await look.page.goto(f"{address}#/pool")
            row = look.page.locator("section, .card", has_text="PgBouncer 1.").locator("tbody tr")
            await expect(row.locator("td").nth(2)).to_have_text("1")
            if folder := os.environ.get("MAGNUS_TEST_PICTURES"):
                await look.page.screenshot(path=f"{folder}/pooler.png", full_page=True)
            await look.page.goto(f"{address}#/overview")
            await expect(look.page.get_by_text("1 client waits for a server connection at PgBouncer")).to_be_visible()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            assert look.said == []
        async with service(pooler.dsn(database), **asked) as (_, address), Look.at(browser) as look:
            await look.page.goto(f"{address}#/pool")
            await expect(look.page.get_by_text("set pooler_admin_dsn")).to_be_visible()


@pytest.fixture
async def pair(pg_version: int) -> AsyncIterator[tuple[Cluster, Cluster]]:
    """
    A primary of this test's own, and its standby.
    """
    async with throwaway(binaries_or_skip(pg_version)) as primary:
        async with primary.connect() as con:
            await con.execute("CREATE TABLE wares (id int PRIMARY KEY)")
        async with standby_of(primary) as standby:
            await until_replayed(primary, standby)
            yield primary, standby


@pytest.mark.one_version
async def test_the_standbys_are_on_the_page_of_the_pool(browser: Browser, pair: tuple[Cluster, Cluster]) -> None:
    """
    What each answered, how far it is behind, and that one which says nothing is passed over until it does again.
    """
    primary, standby = pair
    async with (
        service(primary.dsn(), replicas=(standby.dsn(),), replica_max_lag=3600.0) as (magnus, address),
        Look.at(browser) as look,
    ):
        db, page = magnus.database, look.page
        for _ in range(7):
            with db.reads_after():
                assert await db.fetchval("SELECT pg_is_in_recovery()", read=True)
        with db.reads_on_primary():
            assert not await db.fetchval("SELECT pg_is_in_recovery()", read=True)
        await page.goto(f"{address}#/pool")
        card = page.locator("section, .card", has_text="Standbys")
        cells = card.locator("tbody tr").locator("td")
        await expect(cells).to_have_count(6)
        await expect(cells.nth(0)).to_have_text(db.get_stats()["replicas"]["members"][0]["target"])
        await expect(cells.nth(1)).to_have_text("gives answers")
        await expect(cells.nth(2)).to_have_text("0 B")
        await expect(cells.nth(3)).to_have_text(re.compile(r"^[\d.]+ (ms|µs)$"))
        await expect(cells.nth(4)).to_have_text("7")
        await expect(cells.nth(5)).to_have_text("0")
        await expect(card).to_contain_text("Reads that went to the primary: 1; that waited for a standby: 0.")

        async with standby.connect() as con:
            await con.execute("SELECT pg_wal_replay_pause()")
        await db.execute("INSERT INTO wares SELECT generate_series(1, 1000)")
        await expect(cells.nth(2)).to_have_text(re.compile(r"^[1-9][\d,.  ]* B$"))
        if folder := os.environ.get("MAGNUS_TEST_PICTURES"):
            await page.screenshot(path=f"{folder}/standbys.png", full_page=True)

        with frozen(standby):
            await expect(cells.nth(1)).to_have_text("passed over")
            await expect(cells.nth(2)).not_to_contain_text("B")
        await expect(cells.nth(1)).to_have_text("gives answers")
        assert look.said == []
