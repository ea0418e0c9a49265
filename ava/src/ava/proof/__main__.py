"""One side as a process: a JSON line of what to measure in, a JSON line of figures out, until the input ends.

`python -m ava.proof short` is the whole proof in its short form instead, as a person reads it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg

from ava.proof.phases import PHASES, opened
from magnus import MagnusError
from magnus.loadtest.runner import runner


async def serve(kind: str, dsn: str) -> None:
    """
    Open a side, say so, and do what is asked.
    """
    began = time.perf_counter()
    async with opened(kind, dsn) as side:
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        _say({"ready_ms": 1000 * (time.perf_counter() - began), "loop": loop})
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            try:
                _say(await PHASES[asked.pop("phase")](side, **asked))
            except (MagnusError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                _say({"error": f"{type(error).__name__}: {error}"})


def _say(found: object) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "short":
        from ava.proof.short import main

        sys.exit(main())
    runner(serve(sys.argv[1], sys.stdin.readline().strip()))
