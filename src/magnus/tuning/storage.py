"""How fast a folder's storage answers a random read, by reading: never by what the kernel says that it is.

A virtual disk calls itself rotational while it is flash, and flash behind a network can be slow.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from magnus.tuning.facts import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST: Final = 0.001
"""Seconds. A disk's arm needs several milliseconds; flash, also behind a network, well under one."""
_READS: Final = 48
_BLOCK: Final = 8192
_LEAST: Final = 8 << 20  # less data than this lies together, and says nothing of seeks
_MOST_FILES: Final = 2_000


def kind_of(latency: float) -> Storage:
    """
    Say what kind of storage answers a random read in so many seconds.
    """
    return Storage.SSD if latency < FAST else Storage.HDD


def measure(folder: Path) -> float | None:
    """
    Return the median seconds of a random read of 8 kB from the database files in a data folder, past the page cache.

    None: they may not be read, are too small to tell, or the file system has no reads past its cache. It reads well
    under a megabyte and writes nothing.
    """
    blocks = list(_blocks(folder / "base"))
    if sum(count for _, count in blocks) * _BLOCK < _LEAST:
        return None
    chance = random.Random()  # noqa: S311  # other places each time: what was just read is cached somewhere
    chosen = chance.choices(blocks, weights=[count for _, count in blocks], k=_READS)
    timed = (_timed(path, chance.randrange(count)) for path, count in chosen)
    taken = [found for found in timed if found is not None]
    return statistics.median(taken) if len(taken) >= _READS // 2 else None


def _blocks(base: Path) -> Iterator[tuple[Path, int]]:
    """
    Files of tables and indexes with their number of blocks.
    """
    seen = 0
    for folder, _, names in os.walk(base):
        for name in names:
            seen += 1
            if seen > _MOST_FILES:
                return
            path = Path(folder) / name
            try:
                count = path.stat().st_size // _BLOCK
            except OSError:
                continue
            if count:
                yield path, count


def _timed(path: Path, block: int) -> float | None:
    direct = getattr(os, "O_DIRECT", None)
    if direct is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | direct | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with mmap.mmap(-1, _BLOCK) as buffer:  # reads past the cache need memory on a page boundary
            begin = time.perf_counter()
            read = os.preadv(descriptor, [buffer], block * _BLOCK)
            return time.perf_counter() - begin if read == _BLOCK else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def free(folder: Path) -> int | None:
    """
    Return the bytes that are free on a folder's volume for those who are not root; None when it cannot be seen.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
