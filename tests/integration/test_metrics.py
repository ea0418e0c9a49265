"""`/metrics` as a real Prometheus takes it, the alerts that fire on it, and the dashboards that are drawn from it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx2
import promql_parser
import pytest
import uvicorn
from fastapi import FastAPI

from magnus import Database, DatabaseConfig, MagnusError, QueryPriority
from magnus.fastapi import Magnus
from magnus.metrics import CATALOGUE, DatabaseCollector, Exposition, registry_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "magnus-alerts.yml"
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
LIMIT = 60.0


def program(name: str) -> str:
    """
    A program of Debian's package prometheus; its absence skips the test, or fails it where CI is set.
    """
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; make system-packages installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """
    Look again and again until there is something to see; the bound is far beyond what a busy machine needs.
    """
    async with asyncio.timeout(LIMIT):
        while not (found := await condition()):  # noqa: ASYNC110  # it is another process that is looked at
            await asyncio.sleep(0.1)  # it is another process that is looked at
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """
    The application on a real port, in this loop; yields host:port.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: asyncio.sleep(0, server.started))
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class Prometheus:
    """
    A real one that scrapes one target once a second.
    """

    def __init__(self, address: str, log: Path) -> None:
        self._address = address
        self._log = log
        self._client = httpx2.AsyncClient(base_url=f"http://{address}")

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path, target: str, rules: str) -> AsyncIterator[Prometheus]:
        (folder / "rules.yml").write_text(rules)
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "ava", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(settings))
        found = cls(f"127.0.0.1:{free_port()}", folder / "log")
        with found._log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={found._address}",
                stdout=asyncio.subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        try:
            await until(lambda: found.is_ready(process))
            yield found
        finally:
            await found._client.aclose()
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def is_ready(self, process: asyncio.subprocess.Process) -> bool:
        assert process.returncode is None, self._log.read_text()
        with contextlib.suppress(httpx2.TransportError):
            return (await self._client.get("/-/ready")).status_code == 200
        return False

    async def ask(self, expr: str) -> list[dict[str, Any]]:
        answer = (await self._client.get(f"/api/v1/query?{urlencode({'query': expr})}")).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def firing(self) -> set[str]:
        alerts = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def exprs(board: Path) -> list[str]:
    """
    Every query of a dashboard, its variables filled as Grafana does for "all".
    """
    text = json.loads(board.read_text())
    found = [target["expr"] for panel in text["panels"] for target in panel["targets"]]
    filled = (
        expr.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$pool", ".*") for expr in found
    )
    return list(filled)


@pytest.mark.one_version
@pytest.mark.slow
async def test_a_real_prometheus_scrapes_every_panel_has_data_and_an_exhausted_pool_fires(dsn, tmp_path):
    """Two connections, both held while a third caller waits: the alert fires, and that of a lost database does not."""
    rules = RULES.read_text()
    assert "for: 15s" in rules
    magnus = Magnus(DatabaseConfig(dsn=dsn, min_pool_size=2, max_pool_size=2, health_check_interval=1.0), warmup=2)
    app = FastAPI(lifespan=magnus.lifespan)
    app.include_router(magnus.metrics)
    rules = rules.replace("for: 15s", "for: 0s")
    async with served(app) as target, Prometheus.running(tmp_path, target, rules) as prometheus:
        db = magnus.database
        for _ in range(50):
            await db.fetchval("SELECT 1")

        async def statements() -> bool:
            found = await prometheus.ask('sum(magnus_statements_total{outcome="successful"})')
            return bool(found) and float(found[0]["value"][1]) >= 50

        await until(statements)
        always = [expr for board in BOARDS for expr in exprs(board) if "> 0" not in expr]
        assert [expr for expr in always if not await until_data(prometheus, expr)] == []
        assert await prometheus.firing() == set()

        async with db.acquire(priority=QueryPriority.CRITICAL), db.acquire(priority=QueryPriority.CRITICAL):
            waiting = asyncio.create_task(waits(db))
            await until(lambda: fires(prometheus, "MagnusPoolExhausted"))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert "MagnusDatabaseUnreachable" not in await prometheus.firing()


async def waits(db: Any) -> None:
    async with db.acquire(priority=QueryPriority.BACKGROUND):
        pass


async def fires(prometheus: Prometheus, name: str) -> bool:
    return name in await prometheus.firing()


async def until_data(prometheus: Prometheus, expr: str) -> bool:
    """
    Whether the query returns series; a rate needs two scrapes.
    """
    for _ in range(50):
        if await prometheus.ask(expr):
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.one_version
async def test_the_figures_are_those_of_the_database(dsn):
    """Statements, slots, lanes, events and both histograms, read back from the text."""
    async with magnus_database(dsn) as db:
        exposition = Exposition(registry_of(DatabaseCollector.of(db, pool="trades")))
        for _ in range(7):
            await db.fetchval("SELECT 1", priority=QueryPriority.HIGH)
        with contextlib.suppress(Exception):
            await db.execute("SELECT 1/0")
        async with db.acquire():
            text, kind = exposition.render("")

    found = dict(re.findall(r"^(\S+\{.*\}|\S+) (\S+)$", text.decode(), re.MULTILINE))
    name = 'db_client_connection_pool_name="trades"'
    assert kind.startswith("text/plain")
    assert float(found[f'magnus_statements_total{{{name},outcome="successful"}}']) == 7
    assert float(found[f'magnus_statements_total{{{name},outcome="failed"}}']) == 1
    assert float(found[f'db_client_connection_count{{{name},db_client_connection_state="used"}}']) == 1
    assert float(found[f'magnus_pool_acquired_total{{{name},magnus_lane="high"}}']) == 7
    assert float(found[f'db_client_operation_duration_seconds_bucket{{{name},le="+Inf",magnus_lane="high"}}']) == 7
    assert float(found[f'db_client_operation_duration_seconds_count{{{name},magnus_lane="normal"}}']) == 1
    assert 0 < float(found[f'db_client_operation_duration_seconds_sum{{{name},magnus_lane="high"}}']) < LIMIT
    assert float(found[f'db_client_connection_wait_time_seconds_count{{{name},magnus_lane="high"}}']) == 7
    assert float(found[f'db_client_connection_use_time_seconds_count{{{name},magnus_lane="high"}}']) == 7
    assert float(found[f"db_client_connection_create_time_seconds_count{{{name}}}"]) >= 1
    assert float(found[f"magnus_database_up{{{name}}}"]) == 1
    assert found[f'magnus_events_total{{{name},event="connection_leak_suspected"}}'] == "0.0"


async def test_an_outage_is_measured_while_it_lasts():
    """No server at all: connects fail, probes fail, and both say since when or how often."""
    config = DatabaseConfig(dsn="postgresql://x@127.0.0.1:1/x?sslmode=disable", min_pool_size=1, max_retries=1)
    db = Database(config)
    exposition = Exposition(registry_of(DatabaseCollector.of(db)), now=itertools.count().__next__)
    await db.connect(wait=False)
    try:

        async def is_failing() -> bool:
            with contextlib.suppress(MagnusError):
                await db.fetchval("SELECT 1", timeout=0.2)
            return bool(db.get_stats()["pool_stats"]["is_failing"])

        await until(is_failing)
        text = exposition.render("")[0].decode()
    finally:
        await db.close()
    found = dict(re.findall(r"^(magnus_\w+)\{db_client_connection_pool_name=\"main\"\} (\S+)$", text, re.MULTILINE))
    assert float(found["magnus_pool_outage_seconds"]) > 0
    assert float(found["magnus_health_checks_failed_total"]) >= 1
    assert float(found["magnus_database_up"]) == 0
    assert float(found["magnus_outcome_unknown_total"]) == 0
    assert {"magnus_slow_log_up", "magnus_slow_log_written_total", "magnus_slow_log_waiting"} <= found.keys()
    for reason in ("capped", "dropped"):
        assert f'reason="{reason}"}} 0.0' in text
    assert 'class="not_sent"' in text


@pytest.mark.one_version
async def test_it_is_small_valid_and_made_once_a_second(dsn):
    """At most 600 samples; promtool finds no fault with names and help; a second scrape in the second is the same."""
    now = [100.0]
    async with magnus_database(dsn) as db:
        exposition = Exposition(registry_of(DatabaseCollector.of(db)), now=lambda: now[0])
        first, _ = exposition.render("")
        await db.fetchval("SELECT 1")
        again, _ = exposition.render("")
        now[0] += 1.0
        later, _ = exposition.render("")
        opened, kind = exposition.render("application/openmetrics-text; version=1.0.0")

    assert first == again != later
    assert kind.startswith("application/openmetrics-text")
    assert opened.endswith(b"# EOF\n")
    samples = [line for line in later.decode().splitlines() if not line.startswith("#")]
    assert 100 < len(samples) <= 600
    assert faults(later) == [
        'db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix'
    ]


def faults(text: bytes) -> list[str]:
    """
    What promtool says of metrics. It does not like the name that the conventions have given to a gauge.
    """
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode().splitlines()


@contextlib.asynccontextmanager
async def magnus_database(dsn: str) -> AsyncIterator[Any]:
    magnus = Magnus(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4), warmup=1)
    app = FastAPI(lifespan=magnus.lifespan)
    async with magnus.lifespan(app):
        yield magnus.database


@pytest.mark.parametrize(
    "command", [["check", "rules", "magnus-alerts.yml"], ["test", "rules", "magnus-alerts.test.yml"]]
)
def test_promtool_finds_no_fault_with_the_alerts(command):
    """Their syntax, and their own tests."""
    done = subprocess.run(
        [program("promtool"), *command], capture_output=True, text=True, check=False, cwd=RULES.parent
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_and_a_runbook():
    """A page of its own says what to look at and what to do."""
    rules, tests = RULES.read_text(), (RULES.parent / "magnus-alerts.test.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    pages = re.findall(r"runbook_url: (\S+)", rules)

    assert len(alerts) == len(pages) == len(set(alerts)) >= 13
    for alert, page in zip(alerts, pages, strict=True):
        assert re.search(rf"alertname: {alert}\n\s+eval_time: \S+\n\s+exp_alerts:\n", tests), alert
        text = (ROOT / page).read_text()
        assert alert in text.splitlines()[0]
        assert "## Look" in text
        assert "## Act" in text


def test_the_dashboards_are_what_their_generator_writes():
    """Nobody edits them by hand."""
    script = (
        "import runpy, sys; found = runpy.run_path(sys.argv[1]);"
        "sys.exit([n for n, b in found['BOARDS'].items() if (found['HERE'] / n).read_text() != found['text'](b)] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, DEPLOY / "grafana" / "generate.py"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def names(expr: str) -> set[str]:
    """
    The metrics that a query reads.
    """
    promql_parser.parse(expr)
    return set(re.findall(r"\b((?:magnus|db_client)_\w+)(?=\{|\)| |\[|$)", re.sub(r"(by|without) \([^)]*\)", "", expr)))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_dashboards_and_alerts_read_only_metrics_that_exist(board):
    """A renamed metric would leave a panel empty and an alert silent for ever."""
    known = set()
    for named in CATALOGUE:
        base = f"{named.name}_{named.unit}" if named.unit else named.name
        known |= {base, f"{base}_total", f"{base}_bucket", f"{base}_sum", f"{base}_count"}
    rules = re.findall(r"expr: (?:\|\n)?(.+?)\n\s+(?:for|labels):", RULES.read_text(), re.DOTALL)

    assert len(rules) >= 13
    for expr in [*exprs(board), *rules]:
        assert names(expr) <= known, expr


def test_the_page_lists_every_metric():
    """With its labels and its meaning."""
    page = (ROOT / "docs" / "metrics.md").read_text()

    for named in CATALOGUE:
        name = f"{named.name}_{named.unit}" if named.unit else named.name
        shown = f"`{name}_total`" if named.kind == "counter" else f"`{name}`"
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {shown} |")]
        assert named.help in row
        assert all(f"`{label}`" in row for label in named.labels[1:])
