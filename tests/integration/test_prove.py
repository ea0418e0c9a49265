"""`magnus prove` against a real server: settings, pools, an index; and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from magnus import cli

SHORT = ("--slice", "0.3s", "--pairs", "5", "--clients", "2", "--connections", "2")
SCAN = "-- name: by balance\n-- $1: int 1 9\nSELECT count(*) FROM item WHERE size = $1::int;\n"


@pytest.fixture
async def clone(dsn):
    """
    A database with a table that has no index, and nobody in it.
    """
    con = await asyncpg.connect(dsn)
    await con.execute("CREATE TABLE item AS SELECT id, id AS size FROM generate_series(1, 30000) AS id")
    await con.execute("VACUUM ANALYZE item")
    await con.close()
    return dsn


@pytest.fixture
def scan(tmp_path):
    """
    A workload that wants an index.
    """
    file = tmp_path / "scan.sql"
    file.write_text(SCAN)
    return str(file)


async def test_an_index_is_proven_on_a_copy_that_is_gone_afterwards(clone, scan, tmp_path, capsys):
    """Better by far, and the clone itself has no index."""
    saved = tmp_path / "found.json"
    code = await run("prove", clone, "-w", scan, "--index", "CREATE INDEX ON item (size)", "--save", str(saved), *SHORT)

    found = json.loads(saved.read_text())
    con = await asyncpg.connect(clone)
    left = await con.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE '%magnus_prove'")
    indexes = await con.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = 'item'")
    await con.close()
    assert code == 0, capsys.readouterr().err
    assert (found["verdict"], found["comparisons"]["mean"]["pairs"]) == ("better", 5)
    assert found["comparisons"]["mean"]["high"] < 0.5
    assert (left, indexes) == (0, 0)


async def test_a_setting_that_harms_is_worse_and_exit_code_1(clone, scan, capsys):
    """For B's sessions alone: the server's own value is what it was."""
    con = await asyncpg.connect(clone)
    await con.execute("CREATE INDEX ON item (size)")
    await con.close()
    off = ("--settings", "enable_indexscan=off", "--settings", "enable_bitmapscan=off")
    off += ("--settings", "enable_indexonlyscan=off")

    assert await run("--output-format", "json", "prove", clone, "-w", scan, *off, *SHORT) == 1

    assert json.loads(capsys.readouterr().out)["verdict"] == "worse"
    con = await asyncpg.connect(clone)
    assert await con.fetchval("SHOW enable_indexscan") == "on"
    await con.close()


@pytest.mark.one_version
async def test_two_pools_are_compared(clone, scan, capsys):
    """And what they were is in the answer, with no secret."""
    sides = ("--a", "pool=asyncpg", "--b", "pool=magnus", "--b", "reset=always")
    assert await run("--output-format", "json", "prove", clone, "-w", scan, *sides, *SHORT) in {0, 1}

    found = json.loads(capsys.readouterr().out)
    assert [side["pool"] for side in found["runs"]] == ["asyncpg", "magnus"]
    assert min(found["requests"]) > 0 == sum(found["failed"])


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--settings", "no_such=1"), 2),
        (("--settings", "work_mem=much"), 2),
        (("--settings", "shared_buffers=1GB"), 2),
        (("--index", "DROP TABLE item"), 2),
        (("--index", "CREATE INDEX ON item (size); DROP TABLE item"), 2),
        (("--index", "CREATE INDEX ON item (no_such)"), 2),
        (("--b", "colour=red"), 2),
        (("--b", "pool=c3p0"), 2),
        (("--b", "connections=many"), 2),
        (("--b", "reset=never"), 2),
        (("--b", "pool=asyncpg", "--b", "reset=always"), 2),
        (("--b", "dsn=postgresql://u:hunter2canary@127.0.0.1:1/x"), 3),
        (("--settings", "work_mem=8MB", "--pairs", "2"), 2),
    ],
)
async def test_what_cannot_be_proven_is_one_line(clone, scan, capsys, arguments, code):
    """And changes nothing."""
    assert await run("prove", clone, "-w", scan, "--slice", "0.1s", *arguments) == code

    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "hunter2canary" not in said.err
    con = await asyncpg.connect(clone)
    assert await con.fetchval("SELECT count(*) FROM item") == 30_000
    assert not await con.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE '%magnus_prove'")
    await con.close()


async def test_a_database_in_use_is_not_copied(clone, scan, capsys):
    """It would be torn; the message says what to name instead."""
    con = await asyncpg.connect(clone)
    assert await run("prove", clone, "-w", scan, "--index", "CREATE INDEX ON item (size)", *SHORT) == 2
    await con.close()

    assert "clone that nobody uses" in capsys.readouterr().err


async def run(*arguments: str) -> int:
    """
    The command in a thread of its own: it brings an event loop.
    """
    return await asyncio.to_thread(cli.main, list(arguments))
