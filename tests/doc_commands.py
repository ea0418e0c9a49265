"""The shell commands that the docs show: found, taken apart, and held against the programs that would get them."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import MissingArgumentError

from ava.cli.app import app as ava
from magnus.cli.app import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PLACES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"cli.md", "api.md", "CHANGELOG.md"}
BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
OURS = ("magnus", "ava", "make", "curl", "pip", "python", "pytest")
FOREIGN = ("systemctl", "jq", "sh", "patronictl", "psql")
"""Programs of others that a reader has; their arguments are theirs."""
ROUTES = re.compile(r"(/(?:api|docs|metrics|openapi)[\w./-]*)")
SHOWN = {"ACCOUNT": "1", "…": "conf", "HOST": "127.0.0.1:8000"}
"""What stands for something in a command, and what it could be."""


@dataclass(frozen=True, order=True)
class Shown:
    """
    One command as a page shows it. `is_run`: it stands in a block of its own, as something to type.
    """

    page: str
    words: tuple[str, ...]
    is_run: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def shown() -> list[Shown]:
    """
    Every command of README, the guides and docs/, each once.
    """
    return sorted({found for path in PLACES if path.name not in GENERATED for found in _of(path)})


def typed(page: str) -> list[tuple[str, ...]]:
    """
    What is typed on a page of docs/, or on README.md, in its order.
    """
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    return [found.words for found in _of(path) if found.is_run]


def _of(path: Path) -> Iterator[Shown]:
    page, text = path.relative_to(ROOT).as_posix(), path.read_text()
    for language, block in BLOCK.findall(text):
        if language in {"", "console", "sh", "bash"}:
            yield from (Shown(page, words, is_run=True) for words in _typed(block))
    for span in SPAN.findall(BLOCK.sub("", text)):
        words = tuple(_words(" ".join(span.split())))
        if len(words) > 1 and program(words[0]) in OURS and words[0] != "pytest":
            yield Shown(page, words, is_run=False)
    for line in re.findall(r"^    (\S.*)$", BLOCK.sub("", text), re.MULTILINE):
        words = tuple(_words(line))
        if words and words[0] in OURS:
            yield Shown(page, words, is_run=True)


def _typed(block: str) -> Iterator[tuple[str, ...]]:
    """
    Yield what is typed in a block: lines after a prompt, or all of a block that begins with a command.
    """
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    if prompted:
        yield from (tuple(_words(line)) for line in prompted)
    elif lines and (first := _words(lines[0])) and program(first[0]) in OURS and not _is_version(first):
        yield from (words for line in lines if (words := tuple(_words(line))))


def _is_version(words: list[str]) -> bool:
    """
    Say whether a block shows an answer, which begins with the program's name and version.
    """
    return len(words) > 1 and words[1][0].isdecimal()


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    ends = [place for place, word in enumerate(words) if word in {"|", ">", "&&", "||", ";"} or word.startswith("2>")]
    words = words[: min(ends, default=len(words))]
    return words[1:] if words[:1] == ["sudo"] else words


def program(word: str) -> str:
    """
    The name of a program, without where it is.
    """
    return word.removeprefix(".venv/bin/")


# --- does it exist


def check(found: Shown) -> None:
    """
    Raise an AssertionError or the parser's own error when the program would not understand it.
    """
    name, *words = found.words
    name, words = program(name), [SHOWN.get(word, word) for word in words]
    assert name in {*OURS, *FOREIGN}, f"nobody knows the program {name}"
    if name in CHECKS:
        CHECKS[name](words, is_run=found.is_run)


def _magnus(words: list[str], *, is_run: bool) -> None:
    app = whole()

    def parse() -> None:
        _, bound, _ = app.meta.parse_args(words, exit_on_error=False, print_error=False)
        app.parse_args(list(bound.args), exit_on_error=False, print_error=False)

    _parsed(parse, is_run=is_run)


def _ava(words: list[str], *, is_run: bool) -> None:
    _parsed(lambda: ava.parse_args(words, exit_on_error=False, print_error=False), is_run=is_run)


def _parsed(parse, *, is_run: bool) -> None:
    """
    In a sentence a command may be named without the arguments that it needs.
    """
    try:
        parse()
    except MissingArgumentError:
        if is_run:
            raise


def _make(words: list[str], **_: object) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, sign, _ = word.partition("=")
        if sign:
            assert f"$({name})" in text, f"no target of the Makefile takes {name}"
        else:
            assert re.search(rf"^{re.escape(word)}:", text, re.MULTILINE), f"the Makefile has no target {word}"


def _curl(words: list[str], **_: object) -> None:
    from ava.main import create_app

    [path] = ROUTES.findall(words[-1])
    assert path in create_app().openapi()["paths"], f"AVA has no route {path}"


def _pip(words: list[str], **_: object) -> None:
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, wanted in re.findall(r"(magnus-db)\[([a-z,]+)\]", " ".join(words[1:])):
        assert set(wanted.split(",")) <= extras.keys(), f"{name} has no extra {wanted}"


def _python(words: list[str], **_: object) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"there is no module {words[1]}"
    else:
        assert (ROOT / words[0]).exists(), f"there is no script {words[0]}"


CHECKS = {"magnus": _magnus, "ava": _ava, "make": _make, "curl": _curl, "pip": _pip, "python": _python}
