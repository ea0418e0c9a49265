"""A password, a literal, a bind value and a token on every way out: errors, events, logs, figures, log, commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from urllib.parse import quote

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from magnus import Database, DatabaseConfig, MagnusError, QueryTimeout, cli, insight, logs
from magnus.fastapi import AdmissionMiddleware, Magnus, RequestIdMiddleware, install_error_handlers
from magnus.opentelemetry import instrument
from tests.facade_fakes import until

PASSWORD, LITERAL, VALUE, TOKEN = "canaryPassword", "canaryLiteral", "canaryValue", "canaryToken"
SECRETS = (PASSWORD, LITERAL, VALUE, TOKEN)
EVERYTHING = {"slow_query_threshold": 0.0, "slow_log_rate": 0.0}


def assert_silent(text, where):
    for secret in SECRETS:
        assert secret not in text, f"{secret} in {where}: …{text[max(text.find(secret) - 80, 0) :][:200]}"


async def provoke(db):
    """Statements that succeed, fail, time out and are cancelled, with a secret in every part; the errors of ours."""
    errors = []
    await db.execute(f"CREATE TABLE secrets (secret text UNIQUE, note text DEFAULT '{LITERAL}')")
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await db.execute(f"CREATE ROLE canary_role PASSWORD '{LITERAL}'")
    await db.execute(f"ALTER ROLE canary_role SET app.token = '{TOKEN}'")
    await db.execute("INSERT INTO secrets (secret) VALUES ($1)", VALUE)
    await db.fetch(f"SELECT '{LITERAL}', $1::text -- {TOKEN}", VALUE)
    await db.executemany("INSERT INTO secrets (secret) VALUES ($1)", [(f"{VALUE}{n}",) for n in range(3)])
    await db.copy_records_to_table("secrets", records=[(f"{VALUE}-copy", VALUE)])
    async with db.transaction(settings={"app.token": TOKEN}) as tx:
        await tx.execute(f"SET LOCAL app.other = {TOKEN}")
        statement = await tx.prepare(f"SELECT $1::text || '{LITERAL}'")
        await statement.fetchval(VALUE)
        async for _ in tx.cursor(f"SELECT * FROM secrets WHERE secret <> '{LITERAL}'"):
            pass
    for text in (
        f"SELECT pg_sleep(9), '{LITERAL}', $1::text",
        f"SELECT pg_sleep(9) /* {TOKEN} */ FROM (SELECT '{LITERAL}', $1::text) AS x",
    ):
        with pytest.raises(QueryTimeout) as caught:
            await db.fetch(text, VALUE, timeout=0.05)
        errors.append(caught.value)
    for text in (f"SELECT 1 / (length($1) - length('{VALUE}'))", f"SELECT $1::text::int, '{LITERAL}'"):
        with pytest.raises(asyncpg.PostgresError):  # the driver's own exception, which may quote
            await db.fetch(text, VALUE)
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute("INSERT INTO secrets (secret) VALUES ($1)", VALUE)
    task = asyncio.ensure_future(db.fetch(f"SELECT pg_sleep(9), '{LITERAL}', 5"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return errors


def secret_dsn(server, database, password=PASSWORD, port=None):
    """As a role whose password is a canary."""
    plain = server.dsn(database=database, is_tcp=True)
    place = plain.rpartition("@")[2]
    place = place if port is None else f"127.0.0.1:{port}/{database}"
    return f"postgresql://canary_login:{quote(password)}@{place}"


@pytest.fixture
async def target(server, database):
    """The DSN of a superuser with a canary for a password."""
    con = await asyncpg.connect(server.dsn(database=database))
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await con.execute(f"CREATE ROLE canary_login LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    await con.close()
    return secret_dsn(server, database)


async def written(db):
    async def is_written():
        return not db.get_stats()["slow_log"]["waiting"]

    await until(is_written)


async def test_nothing_secret_is_in_events_errors_figures_or_the_log(target, caplog):
    """Every statement is slow here, and every plan is kept."""
    caplog.set_level(logging.DEBUG, logger="magnus")
    seen = []
    async with Database(
        DatabaseConfig(dsn=target, min_pool_size=1, max_pool_size=3, **EVERYTHING),
        observers=[seen.append, logs.log_events(logging.getLogger("magnus"))],
    ) as db:
        errors = await provoke(db)
        await written(db)
        figures = json.dumps(db.get_stats())
        shown = f"{db!r} {db.config!r}"
        async with db.acquire() as con:
            rows = [dict(row) for row in await con.fetch("SELECT * FROM slow_query_log")]
            plans = [dict(row) for row in await con.fetch("SELECT * FROM slow_query_plan")]
            found = await insight.extension(con)
            listed = await insight.statements(
                con, found, insight.total(await insight.snapshot(con, found)), limit=100_000
            )
            sessions = await insight.sessions(con, with_own=True)
            groups = await insight.groups(con, limit=100_000)
    assert len(rows) > 15
    assert plans
    assert [row["outcome"] for row in rows].count("timed_out") == 2
    for where, text in {
        "the log": repr(rows), "the plans": repr(plans), "the figures": figures, "a repr": shown,
        "the events": repr(seen), "the log lines": "\n".join(f"{vars(record)}" for record in caplog.records),
        "our errors": "\n".join(f"{error!r} {error} {vars(error)}" for error in errors),
        "the statistics": repr(listed), "the sessions": repr(sessions), "the groups": repr(groups),
    }.items():  # fmt: skip
        assert_silent(text, where)


@pytest.mark.one_version
async def test_events_in_place_of_rows_hold_no_secret(target):
    """The same statements with the log in events."""
    seen = []
    config = DatabaseConfig(dsn=target, min_pool_size=1, max_pool_size=3, slow_log="events", **EVERYTHING)
    async with Database(config, observers=[seen.append]) as db:
        await provoke(db)
    assert len(seen) > 15
    assert_silent(repr(seen), "the events")


@pytest.mark.one_version
async def test_bind_values_that_were_asked_for_come_without_secrets(target):
    """Ordinary ones are shown; those of statements that name a secret, and those that a rule finds, are not."""
    rules = [VALUE, TOKEN]
    config = DatabaseConfig(dsn=target, min_pool_size=1, slow_log_values=True, slow_log_redact=rules, **EVERYTHING)
    async with Database(config) as db:
        await provoke(db)
        await db.fetch("SELECT $1::text, $2::int", "ordinary", 42)
        await written(db)
        rows = [dict(row) for row in await db.fetch("SELECT * FROM slow_query_log")]
    values = [json.loads(row["bind_values"]) for row in rows if row["query"].startswith("SELECT $1::text, $2::int")]
    assert values == [["ordinary", "42"]]
    assert_silent(repr(rows), "the log")


@pytest.mark.one_version
async def test_a_server_that_refuses_or_is_away_hears_no_secret_told(server, database, target):
    """Neither the error of a connect, nor the events of an outage."""
    for dsn in (secret_dsn(server, database, f"{PASSWORD}-wrong"), secret_dsn(server, database, port=1)):
        seen = []
        db = Database(DatabaseConfig(dsn=dsn, min_pool_size=1, connect_timeout=1.0), observers=[seen.append])
        with pytest.raises(MagnusError) as caught:
            await db.connect()
        text = f"{caught.value!r} {caught.value} {vars(caught.value)} {seen!r} {db!r} {db.config!r}"
        assert_silent(text, "the error")


@pytest.mark.one_version
async def test_nothing_secret_is_in_any_answer_of_a_service(target, caplog):
    """Figures, metrics, readiness, every panel of the dashboard, problems of failing routes, log lines, spans."""
    caplog.set_level(logging.DEBUG)
    spans, measured = InMemorySpanExporter(), InMemoryMetricReader()
    provider, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([measured], shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    config = DatabaseConfig(dsn=target, min_pool_size=1, max_pool_size=3, **EVERYTHING)
    magnus = Magnus(config, warmup=1)
    app = FastAPI(lifespan=magnus.lifespan)
    app.include_router(magnus.router, prefix="/api")
    app.include_router(magnus.metrics)
    app.include_router(magnus.dashboard(token=f"{TOKEN}-of-the-page"), prefix="/dashboard")
    app.add_middleware(AdmissionMiddleware)
    app.add_middleware(RequestIdMiddleware)
    install_error_handlers(app)

    @app.get("/slow")
    async def slow() -> None:
        await magnus.database.fetch(f"SELECT pg_sleep(9), '{LITERAL}', $1::text", VALUE, timeout=0.05)

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}-of-the-page"}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://t", headers=headers) as client,
    ):
        telemetry = instrument(magnus.database, tracer_provider=provider, meter_provider=meters)
        with provider.get_tracer("test").start_as_current_span("caller"):
            await provoke(magnus.database)
        await written(magnus.database)

        async def is_checked():
            return "rows" in (await client.get("/dashboard/api/findings")).json()

        await until(is_checked)
        listed = (await client.get("/dashboard/api/queries?limit=500")).json()
        pages = ("snapshot?since=0", "server", "activity", "slow", "findings", "queries?limit=500&sort=mean")
        paths = [
            "/slow", "/api/health/stats", "/api/health/readiness", "/metrics", "/openapi.json", "/dashboard/",
            *(f"/dashboard/api/{page}" for page in pages),
            *(f"/dashboard/api/query?id={row['id']}" for row in listed["rows"]),
        ]  # fmt: skip
        answers = [await client.get(path) for path in paths]
        told = repr(measured.get_metrics_data())
        telemetry.stop()
    assert [answers[0].status_code, *{answer.status_code for answer in answers[1:]}] == [503, 200]
    assert len(listed["rows"]) > 15
    assert not [path for path, answer in zip(paths, answers, strict=True) if "unavailable" in answer.text]
    seen = {f"{path}": f"{answer.headers} {answer.text}" for path, answer in zip(paths, answers, strict=True)}
    seen["the log lines"] = "\n".join(f"{vars(record)}" for record in caplog.records if record.name == "magnus")
    seen["the spans"] = "\n".join(span.to_json() for span in spans.get_finished_spans())
    seen["the metrics"] = told
    assert len(spans.get_finished_spans()) > 15
    for where, text in seen.items():
        assert_silent(text, where)


@pytest.mark.one_version
async def test_nothing_secret_is_said_by_a_command(target, capsys, monkeypatch):
    """On either stream, in either format."""
    config = DatabaseConfig(dsn=target, min_pool_size=1, max_pool_size=3, **EVERYTHING)
    async with Database(config) as db:
        await provoke(db)
    for name in list(os.environ):
        if name.startswith(("DB_", "MAGNUS_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", target)
    for arguments in (("top", "--limit", "99999"), ("slow", "--limit", "99999"), ("activity", "--idle"), ("ping",)):
        for form in ("text", "json"):
            assert await asyncio.to_thread(cli.main, ["--output-format", form, *arguments]) == 0
            captured = capsys.readouterr()
            assert len(captured.out) > 50
            assert_silent(captured.out + captured.err, f"magnus {arguments[0]}")
