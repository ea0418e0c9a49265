"""The proof in its short form, for a person: what is being measured, the table, and how little half a minute says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ava.cli import render
from ava.cli.exits import Exit
from ava.cli.failures import explain
from ava.cli.running import run
from ava.proof.figures import table
from ava.proof.rounds import prove
from ava.proof.script import SHORT
from magnus import logs

if TYPE_CHECKING:
    from ava.cli.running import Signals
    from ava.proof.script import Script

_HEAD: Final = (
    "before and after, short form: {rounds} round of {load:g} s a side, {restarts} restart, {kills} killed backends "
    "and a stall of {stall:g} s; it shows what is measured and proves nothing (make proof: ten minutes, five rounds)"
)


async def show(_signals: Signals | None = None, script: Script = SHORT) -> int:
    """
    Measure, and print the table.
    """
    logs.configure(level="CRITICAL")  # the hiccups are made on purpose
    found = await prove(script, lambda text: render.line(f"before/after: {text}"))
    render.line("", stderr=False)
    for line in [head(script, len(found["rounds"])), *table(found)]:
        render.line(line, stderr=False)
    return Exit.DONE


def head(script: Script, rounds: int) -> str:
    """
    Return what a reader must know before the figures.
    """
    return _HEAD.format(
        rounds=rounds, load=script.load, restarts=len(script.restarts), kills=len(script.kills), stall=script.stall[1]
    )


def main() -> int:
    """
    Run it until it is over or a signal ends it; its servers are gone afterwards in any case.
    """
    try:
        return run(show)
    except (RuntimeError, TimeoutError) as error:  # a side ended, or does not answer
        render.error(f"before and after were not measured: {str(error) or type(error).__name__}")
        return Exit.REFUSED
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        render.error(failure.text)
        return failure.code
