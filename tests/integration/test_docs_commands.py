"""Every command that the docs show in a block is run, in the page's order, on a server of the test's own.

What stands for something of the reader's (a service, a file, a run's number) is replaced by what the test has; what
takes long is made short; what asks is answered. Commands of `make` are held against the Makefile by tests/test_docs.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from ava.tokens import demo_token
from magnus import cli
from magnus.embedded import throwaway
from tests.ava_service import ava, environment, get, served
from tests.doc_commands import FOREIGN, program, shown, typed
from tests.servers import binaries_or_skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.embedded import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("docs"),
    pytest.mark.usefixtures("untouched_logging"),
    pytest.mark.one_version,
]

TRADES = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE trades (id bigint PRIMARY KEY, account int, executed_at timestamptz DEFAULT now());
INSERT INTO trades SELECT i, i % 2000 FROM generate_series(1, 30000) AS i;
CREATE TABLE instruments (id int PRIMARY KEY);
CREATE TABLE prices (id int PRIMARY KEY);
"""
MIX = "-- name: trades\n-- $1: int 1 2000\nSELECT count(*) FROM trades WHERE account = $1::int;\n"
OPTIMIZER = ["where-it-works.md", "check-a-server.md", "tune-a-server.md", "insight.md", "apply.md", "roll-back.md",
             "pgbouncer.md", "README.md"]  # fmt: skip
LIBRARY = ["slow-queries.md", "exactly-once.md", "cache.md", "on-call.md"]
DASHBOARD = "dashboard.md"
LOAD = ["load-test.md", "prove.md"]
SERVICE = ["first-steps.md"]
SHORTER = {"2s": "0.2s", "20s": "1s", "60s": "1s", "10000": "200"}
ANSWERS = {"check", "verify", "drift", "bench", "prove", "rollback"}
"""Commands that may answer no, exit code 1."""


def test_every_page_with_commands_is_run_here():
    """One that is new must be put into a list above."""
    pages = {found.page for found in shown() if found.is_run and program(found.words[0]) in {"magnus", "ava", "curl"}}
    assert {page.removeprefix("docs/") for page in pages} == {*OPTIMIZER, *LIBRARY, DASHBOARD, *LOAD, *SERVICE}


class Reader:
    """
    Somebody who types what a page shows, in a folder of their own.
    """

    def __init__(self, cluster: Cluster, folder: Path, monkeypatch: Any, capsys: Any) -> None:
        self.cluster = cluster
        self._capsys = capsys
        self._runs: list[str] = []
        services = folder / "services"
        socket = f"host={cluster.socket_folder}\nport={cluster.port}\nuser=postgres\ndbname=ava\n"
        services.write_text("".join(f"[{name}]\n{socket}\n" for name in ("ava", "ava-prod", "ava-admin")))
        (folder / "mix.sql").write_text(MIX)
        monkeypatch.chdir(folder)
        for name, value in (("PGSERVICEFILE", services), ("XDG_STATE_HOME", folder / "state")):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MAGNUS_DSN", cluster.dsn(database="ava"))

    def page(self, page: str) -> None:
        """
        Type all of it.
        """
        for words in typed(page):
            if program(words[0]) == "magnus":
                self.magnus(*words[1:])
            else:
                assert words[0] in {*FOREIGN, "make"}, words

    def magnus(self, *words: str) -> str:
        """
        Type one command of magnus; its answer.
        """
        self._before(words)
        arguments = [self._own(word) for word in words]
        kind = arguments[2] if arguments[0] in {"-d", "--dsn"} else arguments[0]
        code = cli.main(arguments + self._more(arguments))
        said = self._capsys.readouterr()
        assert code in ({0, 1} if kind in ANSWERS else {0}), (arguments, code, said.out, said.err)
        assert "Traceback" not in said.err
        if found := re.search(r"Run ([\w-]+)\.", said.out):
            self._runs.append(found[1])
        if "--offline" in arguments and "--yes" in arguments:
            self.cluster.start_blocking()
        return said.out

    def _before(self, words: tuple[str, ...]) -> None:
        """
        Make that there is something to take back, and that the server is down where it must be.
        """
        if "rollback" in words and not any(word.startswith("index:") for word in words):
            self.cluster.start_blocking()
            code = cli.main(["apply", "p.json", "--yes", "--skip-preflight"])
            said = self._capsys.readouterr()
            assert code in {0, 4}, (said.out, said.err)  # 4: it is applied already
            if found := re.search(r"Run ([\w-]+)\.", said.out):
                self._runs.append(found[1])
            if "--offline" in words:
                self.cluster.stop_blocking()

    def _own(self, word: str) -> str:
        word = re.sub(
            r"postgresql://(?:\w+@)?localhost/(\w+)", lambda found: self.cluster.dsn(database=found[1]), word
        )  # fmt: skip
        if word == "RUN" or re.fullmatch(r"20\d{6}-\d{6}-[0-9a-f]{6}", word):
            return self._runs[-1]
        return {"/var/lib/postgresql/18/main": str(self.cluster.data), **SHORTER}.get(word, word)

    @staticmethod
    def _more(arguments: list[str]) -> list[str]:
        """
        What makes a command short, and answers what it would ask.
        """
        asks = {"apply", "rollback", "remove"} & set(arguments) and not {"--yes", "--dry-run"} & set(arguments)
        more = ["--yes"] if asks else []
        if "bench" in arguments and not {"--compare", "--duration"} & set(arguments):
            more += ["--duration", "1s"]
        if "prove" in arguments:
            more += ["--slice", "0.1s", "--pairs", "5", "--clients", "2", "--connections", "2"]
        return more


@pytest.fixture(scope="module")
def prod(pg_version: int) -> Iterator[Cluster]:
    """
    A server with the databases that the pages name.
    """
    with throwaway(binaries_or_skip(pg_version), max_connections=300, settings={"autovacuum": "off"}) as cluster:

        async def fill() -> None:
            for name in ("ava", "app", "test", "clone", "stock", "tuned"):
                await cluster.create_database(name)
                async with cluster.connect(database=name) as con:
                    await con.execute(TRADES)
                    await con.execute("VACUUM ANALYZE trades")

        asyncio.run(fill())
        yield cluster


@pytest.fixture(scope="module")
def books(prod: Cluster) -> str:
    """
    The DSN of a database with AVA's data.
    """
    asyncio.run(prod.create_database("books"))
    dsn = prod.dsn(database="books")
    done = ava("load", "--scale", "0.002", env=environment(DATABASE_URL=dsn))
    assert done.returncode == 0, done.stderr
    return dsn


@pytest.fixture
def reader(prod: Cluster, tmp_path: Path, monkeypatch: Any, capsys: Any) -> Reader:
    return Reader(prod, tmp_path, monkeypatch, capsys)


def ask_for_trades(cluster: Cluster, database: str = "ava") -> None:
    """
    Ask often for what has no index.
    """

    async def work() -> None:
        async with cluster.connect(database=database) as con:
            for account in range(40):
                await con.fetchval(f"SELECT count(*) FROM trades WHERE account = {account}")

    asyncio.run(work())


def test_the_optimizer_from_looking_to_rolling_back(reader):
    """Roles, checks, plans in each form, apply, an index, verify, and every way back, one for a server that is down."""
    ask_for_trades(reader.cluster)
    before = (reader.cluster.data / "postgresql.auto.conf").read_bytes()
    for page in OPTIMIZER:
        reader.page(page)
    plan = json.loads(Path("i.json").read_text())
    assert [change["id"] for change in plan["changes"]] == ["index:public.magnus_trades_account@ava"]
    assert (reader.cluster.data / "postgresql.auto.conf").read_bytes() == before


def test_what_the_library_needs_in_a_database(reader):
    """Tables and triggers, made, shown and taken away; a service has made the first of them."""
    for page in LIBRARY:
        reader.magnus("slow", "install")
        reader.page(page)


def test_the_dashboard_is_served_and_stops_at_a_signal(reader):
    """The command as it stands, on a free port."""
    [words] = typed(DASHBOARD)
    command = [Path(sys.executable).with_name("magnus"), *words[1:], "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            url = re.search(r"http://\S+/", said)
            assert url, said
            assert answered(f"{url[0]}dashboard/") == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 128 + signal.SIGINT
        finally:
            process.kill()


def answered(url: str) -> int:
    """
    The status of what is about to listen.
    """
    deadline = time.monotonic() + 30
    while True:
        try:
            return get(url)[0]
        except ConnectionError:
            assert time.monotonic() < deadline


def test_loads_and_proofs(reader, books):
    """Of a database, of a service, of a file, of a change; and two results beside each other."""
    for database in ("ava", "clone"):
        ask_for_trades(reader.cluster, database)
    with served(books) as service:
        for page in LOAD:
            for words in typed(page):
                own = [service.url if word == "http://127.0.0.1:8000" else word for word in words[1:]]
                if "--compare" in own:
                    found = json.loads(Path("result.json").read_text())
                    found["course"] = [[at, 50, 1.0, 9.0, 1.0 + at % 3] for at in range(20)]
                    for name in own[-2:]:
                        Path(name).write_text(json.dumps(found))
                reader.magnus(*own)
    assert "<svg" in Path("result.html").read_text() or "Too short" in Path("result.html").read_text()


def test_the_first_ten_minutes(books):
    """The probes, the load and the audit, against a served AVA; `make demo` is in ava/tests/test_demo.py."""
    env = environment(DATABASE_URL=books)
    with served(books) as service:
        for words in typed("first-steps.md"):
            if words[0] == "curl":
                assert get(service.url + urlsplit(words[-1]).path)[0] == 200
            elif program(words[0]) == "ava":
                more = ("--url", service.url) if "drive" in words else ()
                done = ava(*(SHORTER.get(word, word) for word in words[1:]), *more, env=env)
                assert done.returncode == 0, done.stderr
            else:
                assert words == ("make", "demo")
        assert get(f"{service.url}/api/positions", demo_token(42, 1))[0] == 200
