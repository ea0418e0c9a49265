"""What a command found out, for a person and for a machine alike; it knows no terminal."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class ExitCode(enum.IntEnum):
    """
    The same meaning in every command.
    """

    DONE = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    PARTLY = 5
    INTERRUPTED = 130


class OutputFormat(enum.StrEnum):
    """
    How an answer is written.
    """

    TEXT = "text"
    JSON = "json"
    JSON_LINES = "json-lines"
    GITHUB = "github"
    SARIF = "sarif"


@dataclass(frozen=True)
class Table:
    """
    Rows under headings; numbers are set to the right, and the columns whose places are in `right`. `is_cut`: a row is
    one line on a terminal, its last cell cut to what is left; else cells are folded.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    right: Collection[int] = ()
    is_cut: bool = False


@dataclass(frozen=True)
class Answer:
    """
    The result of one command: `data` is the machine's form of what `text` and `tables` say.

    Attributes:
        also: Lines of further formats that the command has.
        exit_code: NO when the question was answered with no: findings, drift.
    """

    command: str
    data: Mapping[str, object]
    text: Sequence[str] = ()
    tables: Sequence[Table] = field(default=())
    also: Mapping[OutputFormat, Sequence[str]] = field(default_factory=dict)
    exit_code: ExitCode = ExitCode.DONE


@dataclass(frozen=True)
class Failure:
    """
    Why a command has no answer, in one line, and what to do about it.
    """

    command: str
    exit_code: ExitCode
    error: str
    advice: str = ""
