"""What `magnus pgbouncer` prints is what a real PgBouncer runs on."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from magnus import Database, DatabaseConfig, _driver
from magnus._simple import simple_rows
from tests.facade_fakes import until
from tests.pgbouncer import pgbouncer, program_or_skip

SECRETS = """SELECT format('"%s" "%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = 'pooled'"""
CLIENTS = 100
MAGNUS = Path(sys.executable).with_name("magnus")


@pytest.fixture
async def role(server, database):
    """A role of a service, and the lines of the file of users as the printed file says to make them."""
    async with server.connect(database=database) as con:
        await con.execute("CREATE ROLE pooled LOGIN PASSWORD 'secret'")
        await con.execute("GRANT CREATE, USAGE ON SCHEMA public TO pooled")
        yield await con.fetchval(SECRETS) + "\n"
        await con.execute("DROP OWNED BY pooled; DROP ROLE pooled")


async def printed(dsn, *arguments):
    command = [str(MAGNUS), "--dsn", dsn, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, complaint = await process.communicate()
    return process.returncode, output.decode(), complaint.decode()


async def settings_of(config):
    """
    What a pooler runs on, by its console.
    """
    console = await _driver.driver_connect(**config.connect_arguments())
    try:
        return {row["key"]: row["value"] for row in await simple_rows(console, "SHOW CONFIG")}
    finally:
        console.terminate()


@pytest.mark.one_version
async def test_a_pooler_runs_on_the_printed_file_and_many_clients_through_it(server, database, tcp_dsn, role):
    """With SCRAM on both sides, within the numbers that it gives, and its figures are there."""
    code, output, complaint = await printed(tcp_dsn, "--output-format", "json", "pgbouncer", "--connections", "10")
    assert code == 0, complaint
    answer = json.loads(output)
    async with pgbouncer(server, text=answer["text"], users=role) as pooler:
        config = DatabaseConfig(
            dsn=pooler.dsn(database, "pooled"),
            password="secret",
            pooler="transaction",
            direct_dsn=server.dsn(user="pooled", database=database, is_tcp=False),
            pooler_admin_dsn=pooler.dsn("pgbouncer", "pooled"),
            min_pool_size=CLIENTS,
            max_pool_size=CLIENTS,
            health_check_interval=0.05,
        )
        async with Database(config) as db, server.connect(database=database) as other:
            taken = await settings_of(config.replace(dsn=config.pooler_admin_dsn))
            different = {"listen_port", "auth_file"}  # the test's own
            for name in answer["settings"].keys() - different:
                assert taken[name] == answer["settings"][name]
            await db.execute("CREATE TABLE t (a int)")
            tasks = [
                asyncio.create_task(db.execute("INSERT INTO t SELECT $1 FROM pg_sleep(0.05)", n))
                for n in range(CLIENTS)
            ]
            seen = []

            async def all_done():
                text = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pooled' AND query LIKE 'INSERT%'"
                seen.append(await other.fetchval(text))
                return all(task.done() for task in tasks)

            await until(all_done, 60.0)
            await asyncio.gather(*tasks)
            assert await db.fetchval("SELECT count(*) FROM t") == CLIENTS
            assert 1 < max(seen) <= answer["connections"] == 10

            async def has_figures():
                return "pools" in db.get_stats()["pooler"]

            await until(has_figures)
            assert db.get_stats()["pooler"]["pools"][0]["user"] == "pooled"


async def test_what_does_not_fit_is_one_line_and_nothing_is_printed(tcp_dsn):
    """More processes than the server has connections for."""
    code, output, complaint = await printed(tcp_dsn, "pgbouncer", "--processes", "1000")
    assert (code, output) == (2, "")
    assert "--processes: do not fit: max_connections 200 less 3 reserved and 2005 past the pooler leave 0" in complaint


@pytest.fixture(scope="module")
def version():
    """Of the PgBouncer that is installed."""
    told = subprocess.run([program_or_skip(), "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in told.split()[1].split(".")[:2])


async def test_the_line_that_is_left_out_would_not_start_an_old_pooler(server, database, version):
    """max_prepared_statements came with 1.21; here is what the version that is installed says to it."""
    if version < (1, 21):
        with pytest.raises(AssertionError, match="max_prepared_statements"):
            async with pgbouncer(server, max_prepared_statements=200):
                pass
        return
    async with pgbouncer(server, max_prepared_statements=200) as pooler:
        con = await asyncpg.connect(pooler.dsn(database), statement_cache_size=0)
        assert await con.fetchval("SELECT 1") == 1
        await con.close()
