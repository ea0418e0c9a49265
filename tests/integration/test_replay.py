"""The workload "replay" against real servers: what was counted is sent again, with values that are there."""

from __future__ import annotations

import asyncio
import json
import random

import asyncpg
import pytest

from magnus import cli
from magnus.loadtest import Target, find
from magnus.loadtest._capture import arguments, capture

SCHEMA = """
CREATE TABLE account (id bigint PRIMARY KEY, owner text NOT NULL, kind int, at timestamptz, tags int[], doc json);
INSERT INTO account SELECT i, 'owner' || i, i % 5, now() - i * interval '1 min', ARRAY[i % 3], '{}'
  FROM generate_series(1000001, 1005000) AS i;
CREATE TABLE place (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account bigint REFERENCES account, name text);
INSERT INTO place (account, name) SELECT i, 'hunter2canary' FROM generate_series(1000001, 1005000) AS i;
CREATE TABLE fresh (id int);
CREATE VIEW seen AS SELECT * FROM account;
CREATE FUNCTION counted() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE told (id int);
CREATE FUNCTION tell() RETURNS int LANGUAGE sql AS 'INSERT INTO told VALUES (1) RETURNING id';
CREATE FUNCTION innocent() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN tell(); END';
ANALYZE account; ANALYZE place;
"""
READS = [
    ("SELECT * FROM account WHERE id = $1", (1000007,)),
    ("SELECT a.owner FROM account a JOIN place p ON p.account = a.id WHERE p.id IN (1, 2, 3) LIMIT 2", ()),
    ("SELECT count(*) FROM account WHERE at BETWEEN now() - interval '1 hour' AND now()", ()),
    ("SELECT * FROM place WHERE account = ANY ($1::bigint[])", ([1000001, 1000002],)),
    ("SELECT owner FROM account WHERE owner LIKE 'owner10%' ORDER BY id LIMIT 5", ()),
    ("SELECT date_trunc('month', at), extract(year FROM at) FROM account LIMIT 1", ()),
]
LEFT = {
    "SELECT ('1' || '2')::int": "tried once, it failed",
    "SELECT innocent()": "ReadOnlySQLTransactionError",
    "SELECT counted()": "calls counted()",
    "SELECT pg_advisory_xact_lock(7)": "calls pg_advisory_xact_lock()",
    "SELECT * FROM seen WHERE kind = 3": "of a view",
    "SELECT * FROM fresh WHERE id = 4": "ANALYZE",
    "SELECT point '(1,2)' <-> point '(3,4)'": "cannot be prepared",
}
WRITES = [
    ("UPDATE account SET kind = $1 WHERE id = $2", (1, 1000001)),
    ("INSERT INTO place (account, name) VALUES ($1, 'new')", (1000001,)),
    ("INSERT INTO account (id, owner, doc) VALUES (1, 'me', '{}')", ()),
    ("DELETE FROM place WHERE id = 7", ()),
    ("SELECT * FROM account WHERE id = 1000003 FOR UPDATE", ()),
]


@pytest.fixture
async def counted(dsn):
    """
    A database whose statements have been counted: the first as often as all the others.
    """
    con = await asyncpg.connect(dsn)
    await con.execute(SCHEMA)
    await con.execute("SELECT pg_stat_statements_reset()")
    for text, values in [*READS, *((text, ()) for text in LEFT), *WRITES]:
        times = 30 if text == READS[0][0] else 1 if text.startswith("INSERT INTO account") else 2
        for _ in range(times):
            await con.fetch(text, *values)
    await con.close()
    return dsn


async def test_reads_are_sent_as_often_as_they_were_and_find_rows(counted, capsys):
    """Writes and what may do something are named with the reason; nothing is changed and no value is told."""
    before = await state(counted)
    code = await bench(counted, "--duration", "1s", "--warmup", "0.1s", "--clients", "2", "--connections", "2")

    said = capsys.readouterr()
    found = json.loads(said.out)
    requests = {row["name"].rpartition(" ")[0]: row["requests"] for row in found["operations"]}
    assert (code, found["failures"]) == (0, {}), said.err
    assert len(found["operations"]) == len(READS) + 1  # and that of `state`
    assert requests.keys() == {"SELECT account", "SELECT account place", "SELECT place", "SELECT place account"}
    most = max(row["requests"] for row in found["operations"])
    assert 0.55 < most / found["total"]["requests"] < 0.9  # 30 of 40
    left = [note for note in found["notes"] if note.startswith("left out: ")]
    for text, reason in LEFT.items():
        assert any(reason in note for note in left), (text, left)
    assert sum("changes data" in note for note in left) == 4
    assert sum("locks rows" in note for note in left) == 1
    assert "hunter2canary" not in said.out + said.err
    assert await state(counted) == before


async def state(dsn):
    """
    What a write would have changed.
    """
    con = await asyncpg.connect(dsn)
    found = await con.fetchrow("SELECT sum(kind), count(*), (SELECT sum(id) FROM place) FROM account")
    await con.close()
    return found


async def test_values_are_those_of_the_columns(counted):
    """Every key is one that is there, and every range is a small one."""
    con = await asyncpg.connect(counted)
    mix = await capture(con, con, top=100, writes=False)
    found = {}
    for statement in mix.statements:
        draw = await arguments(con, statement)
        rows = [await con.fetch(statement.text, *draw(random.Random(seed))) for seed in range(20)]
        found[statement.text] = rows
    await con.close()

    assert all(len(rows) == 1 for rows in found["SELECT * FROM account WHERE id = $1"])
    assert all(rows for text in found if "LIKE" in text or "ANY" in text for rows in found[text])
    [counts] = [rows for text, rows in found.items() if "BETWEEN" in text]
    assert len(counts) == 20


async def test_sessions_are_read_only_unless_writes_are_asked_for(counted):
    """So what only seemed to be a read when it was tried is refused by the server."""
    for writes, expected in (("no", "on"), ("yes", "off")):
        options = {"writes": writes}
        target = await find("replay", options).prepare(Target(counted, 1, options=options))
        async with find("replay", target.options).open(target, 0) as client:
            assert await client._pool.fetchval("SHOW default_transaction_read_only") == expected


async def test_writes_are_sent_when_asked_for(counted, capsys):
    """In two processes, into keys that nobody has; rows of the same kind come and go."""
    before = await state(counted)
    code = await bench(
        counted, "--writes", "--duration", "1s", "--clients", "2", "--processes", "2",
        "--connections", "1",
    )  # fmt: skip

    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (code, found["failures"]) == (0, {}), said.err
    assert any(row["name"].startswith("INSERT account") for row in found["operations"])
    assert not any("changes data" in note for note in found["notes"])
    assert await state(counted) != before


async def test_the_mix_of_one_database_is_sent_to_another(counted, databases, capsys):
    """Its statistics and its password stay where they are; the values are those of the target."""
    source = f"{counted}&password=hunter2canary" if "?" in counted else f"{counted}?password=hunter2canary"
    with databases.fresh() as name:
        clone = databases.server.dsn(database=name)
        con = await asyncpg.connect(clone)
        await con.execute(SCHEMA)
        await con.close()
        code = await bench(clone, "--option", f"from={source}", "--duration", "0.5s", "--clients", "2")

    said = capsys.readouterr()
    assert "hunter2canary" not in said.out + said.err
    found = json.loads(said.out)
    assert found["run"]["from"].startswith("postgresql://")
    assert code == 0
    assert found["total"]["requests"] > 0 == found["total"]["failed"]


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--option", "top=none"), "top"),
        (("--option", "writes=maybe"), "writes"),
        (("--option", "colour=red"), "colour"),
        ((), "no statement that can be sent"),
    ],
)
async def test_what_cannot_be_replayed_is_one_line(dsn, capsys, arguments, words):
    """Exit code 2: an option that is none, statistics with nothing in them."""
    assert await bench(dsn, "--duration", "0.1s", *arguments) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err


@pytest.mark.one_version
async def test_writes_belong_to_replay(dsn, capsys):
    """The other workloads are what they are."""
    assert await asyncio.to_thread(cli.main, ["bench", dsn, "--writes"]) == 2
    assert "--writes" in capsys.readouterr().err


async def bench(dsn: str, *arguments: str) -> int:
    """
    The command in a thread of its own: it brings an event loop.
    """
    return await asyncio.to_thread(cli.main, ["--output-format", "json", "bench", dsn, "-w", "replay", *arguments])
