"""`magnus bench` against a real server: both models, both pools, several processes, and what it says when it cannot."""

from __future__ import annotations

import json

import asyncpg
import pytest

from magnus import cli


@pytest.mark.one_version
async def test_an_open_model_books_what_it_says(dsn, tmp_path, capsys):
    """As many rows of history as requests, balances that agree, a page and a file."""
    saved, page = tmp_path / "found.json", tmp_path / "found.html"
    code = await run(
        "bench", dsn, "-w", "tpcb", "--rate", "40/s", "--duration", "2s", "--warmup", "1s", "--processes", "2",
        "--save", str(saved), "--html", str(page), "--threshold", "errors<=0%",
    )  # fmt: skip

    found = json.loads(saved.read_text())
    con = await asyncpg.connect(dsn)
    booked, total = await con.fetchrow("SELECT count(*), coalesce(sum(delta), 0) FROM pgbench_history")
    for table, column in (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance")):
        assert await con.fetchval(f"SELECT sum({column}) FROM pgbench_{table}") == total
    await con.close()
    assert code == 0, capsys.readouterr().err
    assert booked == 80
    assert found["total"]["requests"] == 40
    assert found["total"]["p50_ms"] <= found["total"]["p99_ms"] <= found["total"]["longest_ms"]
    assert found["thresholds"] == [{"check": "errors<=0%", "measured": 0.0, "is_met": True}]
    assert "<svg" in page.read_text()


@pytest.mark.one_version
@pytest.mark.parametrize("pool", ["magnus", "asyncpg", "none"])
async def test_a_closed_model_runs_a_file_on_each_pool(dsn, tmp_path, capsys, pool):
    """With a statement that fails, which is counted and ends nothing."""
    file = tmp_path / "mix.sql"
    file.write_text("-- name: good\n-- $1: int 1 9\nSELECT $1::int;\n-- name: bad\nSELECT 1 / 0;\n")

    code = await run(
        "--output-format", "json", "bench", dsn, "-w", str(file), "--duration", "1s", "--warmup", "0.1s", "--clients",
        "4", "--pool", pool, "--threshold", "errors<1%",
    )  # fmt: skip

    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["operations"]}
    assert code == 1
    assert rows["good"]["failed"] == 0 < rows["good"]["requests"]
    assert set(found["failures"]) == {"bad: DivisionByZeroError"}
    assert found["run"]["pool"] == pool
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("postgresql://u:hunter2canary@127.0.0.1:1/x", "--duration", "1s"), 3),
        (("http://127.0.0.1:1", "-w", "ava", "--duration", "1s"), 2),
        (("postgresql://127.0.0.1:1/x", "-w", "ava"), 2),
        (("postgresql://127.0.0.1:1/x", "--rate", "fast"), 2),
        (("postgresql://127.0.0.1:1/x", "--processes", "9", "--clients", "2"), 2),
        (("postgresql://127.0.0.1:1/x", "--option", "scale"), 2),
    ],
)
async def test_what_cannot_be_run_is_one_line(capsys, arguments, code):
    """Without a secret and without a traceback."""
    assert await run("bench", *arguments) == code

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("magnus: ")
    assert said.err.count("\n") == 1
    assert "hunter2canary" not in said.err


@pytest.mark.parametrize(("factor", "failed", "code"), [(1.0, 0, 0), (1.2, 0, 1), (0.8, 0, 0), (1.0, 40, 1)])
async def test_two_saved_results_are_compared(tmp_path, capsys, factor, failed, code):
    """Exit code 1 when the second is slower, or fails more often; a faster one is no fault."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(saved(1.0, 0)))
    second.write_text(json.dumps(saved(factor, failed)))

    assert await run("--output-format", "json", "bench", "--compare", str(first), str(second)) == code

    found = json.loads(capsys.readouterr().out)
    assert found["mean"]["low"] <= factor <= found["mean"]["high"]
    assert found["failures"]["is_more"] == (failed > 0)
    assert "magnus prove" in found["notes"][-1]


async def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    """A file that is none, one that is something else, and runs that are too short."""
    good, other, short = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    good.write_text(json.dumps(saved(1.0, 0)))
    other.write_text("[]")
    short.write_text(json.dumps({**saved(1.0, 0), "course": []}))

    for second in (tmp_path / "missing.json", other, short):
        assert await run("bench", "--compare", str(good), str(second)) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)


def saved(factor: float, failed: int) -> dict[str, object]:
    """
    A result of 40 s as `--save` writes it.
    """
    import random

    rng = random.Random(factor)
    course = [[at, 50, 1.0, 9.0 * factor, factor * rng.uniform(0.97, 1.03)] for at in range(40)]
    total = {"name": "all", "requests": 2000, "failed": failed, "mean_ms": factor, "p50_ms": 1.0, "p99_ms": 9.0}
    return {"total": total, "operations": [], "course": course, "generator_has_kept_up": True, "run": {}}


async def run(*arguments: str) -> int:
    """
    The command in a thread of its own: it brings an event loop.
    """
    import asyncio

    return await asyncio.to_thread(cli.main, list(arguments))
