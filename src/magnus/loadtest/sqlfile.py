"""A workload in a file of SQL: statements with weights, lanes and generated arguments; reading it is pure.

-- name: positions
-- weight: 30
-- lane: high
-- $1: int 1 1000
-- $2: zipf 1 1000 0.8
SELECT * FROM positions WHERE account_id = $1;
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError
from magnus.lanes import QueryPriority, scope
from magnus.loadtest.builtin import OnPool, access, declined

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from random import Random

    from magnus.loadtest.workload import Client, Target

    Generator = Callable[[Random], Any]

_NOTE: Final = re.compile(r"--\s*(name|weight|lane|\$\d+)\s*:\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Statement:
    """
    One statement of a file. A `lane` of None is that of the enclosing scope.
    """

    name: str
    text: str
    weight: float
    lane: QueryPriority | None
    arguments: tuple[Generator, ...]


class SqlFile:
    """
    A workload read from a file.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._statements = {statement.name: statement for statement in statements}
        self.weights: Mapping[str, float] = {statement.name: statement.weight for statement in statements}

    @classmethod
    def read(cls, path: str) -> SqlFile:
        """
        Read a file.

        Raises:
            ConfigError: it cannot be read, or a line of it cannot be understood; the line is named.
        """
        try:
            return cls(parse(Path(path).read_text()))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("workload", path, f"cannot be read ({type(error).__name__})") from None

    def lane(self, operation: str) -> str:
        found = self._statements[operation].lane
        return "" if found is None else found.value

    async def prepare(self, target: Target) -> None:
        """
        Do nothing: the file's tables are its user's.
        """

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[Client]:  # noqa: ARG002
        async with access(target) as pool:
            yield _Running(pool, self._statements)


class _Running(OnPool):
    def __init__(self, pool: Any, statements: Mapping[str, Statement]) -> None:
        super().__init__(pool)
        self._statements = statements

    async def run(self, operation: str, rng: Random) -> None:
        statement = self._statements[operation]
        arguments = [generator(rng) for generator in statement.arguments]
        if statement.lane is None:
            await declined(self._pool.fetch(statement.text, *arguments))
        else:
            with scope(priority=statement.lane):
                await declined(self._pool.fetch(statement.text, *arguments))


def parse(text: str) -> list[Statement]:
    """
    Read a file's text.

    Raises:
        ConfigError: a note or a statement is impossible; the line is named.
    """
    found: list[Statement] = []
    notes: dict[str, str] = {}
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        note = _NOTE.match(line.strip())
        if note is not None:
            if lines:
                raise ConfigError("workload", f"line {number}", "has a note inside a statement; end it with ;")
            notes[note[1]] = note[2]
        elif line.strip() and not line.strip().startswith("--"):
            lines.append(line)
            if line.rstrip().endswith(";"):
                found.append(_statement(notes, "\n".join(lines).rstrip().rstrip(";"), number, len(found)))
                notes, lines = {}, []
    if lines:
        raise ConfigError("workload", "the last statement", "does not end with ;")
    if not found:
        raise ConfigError("workload", "the file", "has no statement")
    if len({statement.name for statement in found}) < len(found):
        raise ConfigError("workload", "the file", "has two statements of one name")
    return found


def _statement(notes: Mapping[str, str], text: str, line: int, index: int) -> Statement:
    wanted = sorted({int(number) for number in re.findall(r"\$(\d+)", text)})
    given = sorted(int(name[1:]) for name in notes if name.startswith("$"))
    if wanted != given or wanted != list(range(1, len(wanted) + 1)):
        raise ConfigError("workload", f"line {line}", f"needs a note for each of its arguments $1 .. ${len(wanted)}")
    try:
        weight = float(notes.get("weight", "1"))
        lane = QueryPriority(notes["lane"].lower()) if "lane" in notes else None
    except ValueError:
        raise ConfigError("workload", f"line {line}", "has a weight or a lane that is none") from None
    if not 0 <= weight < float("inf"):
        raise ConfigError("workload", f"line {line}", "has a weight below 0")
    generators = tuple(generator(notes[f"${number}"], line) for number in wanted)
    return Statement(notes.get("name", f"statement {index + 1}"), text, weight, lane, generators)


def generator(text: str, line: int) -> Generator:
    """
    Return what makes an argument: int LOW HIGH, zipf LOW HIGH EXPONENT, real LOW HIGH, text A|B|C, or const VALUE.
    """
    kind, *words = text.split()
    try:
        if kind == "int":
            low, high = map(int, words)
            return _between(low, high)
        if kind == "zipf":
            return _zipf(int(words[0]), int(words[1]), float(words[2]))
        if kind == "real":
            start, end = map(float, words)
            return lambda rng: rng.uniform(start, end)
        if kind == "text":
            choices = " ".join(words).split("|")
            return lambda rng: rng.choice(choices)
        if kind == "const":
            value = " ".join(words)
            return lambda _: value
    except (ValueError, IndexError):
        raise ConfigError("workload", f"line {line}", f"has an argument that cannot be made: {text}") from None
    raise ConfigError("workload", f"line {line}", f"knows int, zipf, real, text and const, not {kind}")


def _between(low: int, high: int) -> Generator:
    if low > high:
        raise ValueError
    return lambda rng: rng.randint(low, high)


def _zipf(low: int, high: int, exponent: float) -> Generator:
    """
    Return a draw in which the n-th value's weight is 1 / n ** exponent.
    """
    if low > high or high - low > 1_000_000:
        raise ValueError
    cumulated = list(itertools.accumulate(1 / rank**exponent for rank in range(1, high - low + 2)))
    return lambda rng: low + min(bisect_left(cumulated, rng.random() * cumulated[-1]), high - low)
