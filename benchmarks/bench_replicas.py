"""Read your writes over two standbys that lag: how many reads were stale with the gate, and how many without it.

    python benchmarks/bench_replicas.py                 100,000 gated reads
    python benchmarks/bench_replicas.py --reads 2000    the short form

Each of 20 accounts writes a value and reads it again, by the facade (gated) and, every tenth time, right on a standby
(ungated). It ends with 1 when a gated read was stale.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from magnus import Database, DatabaseConfig
from magnus.embedded import Binaries, throwaway
from magnus.testing import standby_of, until_replayed

ACCOUNTS = 20
READS_A_WRITE = 10
DELAYS = ("20ms", "60ms")
WRITE = "UPDATE counter SET value = $2 WHERE id = $1"
READ = "SELECT value FROM counter WHERE id = $1"


class Tally:
    """
    What was counted.
    """

    def __init__(self) -> None:
        self.gated = self.stale = self.ungated = self.ungated_stale = 0


async def account(db: Database, bare: list[Database], number: int, reads: int, tally: Tally) -> None:
    with db.reads_after(f"account:{number}"):
        value = 0
        while tally.gated < reads:
            value += 1
            await db.execute(WRITE, number, value)
            lagging = bare[value % len(bare)]
            tally.ungated += 1
            tally.ungated_stale += await lagging.fetchval(READ, number) != value
            for _ in range(READS_A_WRITE):
                tally.gated += 1
                tally.stale += await db.fetchval(READ, number, read=True) != value


async def main(reads: int) -> int:
    async with throwaway(Binaries.bundled()) as primary:
        async with primary.connect() as con:
            await con.execute("CREATE TABLE counter (id int PRIMARY KEY, value int)")
            await con.execute("INSERT INTO counter SELECT id, 0 FROM generate_series(0, 99) id")
        settings = [{"recovery_min_apply_delay": delay} for delay in DELAYS]
        async with standby_of(primary, settings=settings[0]) as one, standby_of(primary, settings=settings[1]) as two:
            await until_replayed(primary, one)
            await until_replayed(primary, two)
            base = DatabaseConfig(dsn=primary.dsn(), slow_log="off", max_pool_size=20)
            targets = [one.dsn(), two.dsn()]
            async with (
                Database(base, replicas=targets) as db,
                Database(base.replace(dsn=targets[0])) as first,
                Database(base.replace(dsn=targets[1])) as second,
            ):
                tally, began = Tally(), time.monotonic()
                await asyncio.gather(*(account(db, [first, second], n, reads, tally) for n in range(ACCOUNTS)))
                took, figures = time.monotonic() - began, db.get_stats()["replicas"]
    on_standbys = [member["reads"] for member in figures["members"]]
    print(f"two standbys, {' and '.join(DELAYS)} behind; {ACCOUNTS} accounts; {took:.1f} s")
    print(f"{'':10}{'reads':>10}{'stale':>10}")
    print(f"{'gated':10}{tally.gated:>10,}{tally.stale:>10,}")
    print(f"{'ungated':10}{tally.ungated:>10,}{tally.ungated_stale:>10,}  ({tally.ungated_stale / tally.ungated:.0%})")
    print(f"gated reads: {on_standbys} on the standbys, {figures['primary_reads']:,} on the primary")
    return 1 if tally.stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reads", type=int, default=100_000)
    sys.exit(asyncio.run(main(parser.parse_args().reads)))
