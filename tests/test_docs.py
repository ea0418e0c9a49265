"""The docs hold to the program: each command line in them is one, the read-only ones run, made pages are up to date."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from magnus import cli
from magnus.cli.app import whole
from tests.reference_doc import PAGES

ROOT = Path(__file__).resolve().parents[1]
PLACES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(magnus (?!\d).*)$")
READING = {"activity", "check", "explain", "indexes", "lanes", "ping", "plan", "top"}
GENERATED = {"cli.md", "api.md"}


def commands():
    """
    Every line of a block that calls magnus; continued lines are one, comments and what follows a pipe are left out.
    """
    for path in PLACES:
        if path.name in GENERATED:
            continue
        for language, text in BLOCK.findall(path.read_text()):
            if language not in {"", "console", "sh"}:
                continue
            for line in text.replace("\\\n", " ").splitlines():
                if found := LINE.match(line):
                    words = shlex.split(found[1], comments=True)[1:]
                    yield path.relative_to(ROOT).as_posix(), tuple(until_shell(words))


def until_shell(words):
    """
    The words before the shell's own.
    """
    for word in words:
        if word in {"|", ">", "&&", "||", ";"} or word.startswith("2>"):
            return
        yield word


COMMANDS = sorted(set(commands()))


def test_there_are_commands_to_look_at():
    """An expression that finds none would pass everything below."""
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}" for page, words in COMMANDS])
def test_a_command_line_of_the_docs_is_understood(page, words):
    """By the parser that will get it."""
    del page
    app = whole()
    _, bound, _ = app.meta.parse_args(list(words), exit_on_error=False, print_error=False)
    app.parse_args(list(bound.args), exit_on_error=False, print_error=False)


def reading():
    """
    Commands that need nothing but a server, and change nothing.
    """
    for page, words in COMMANDS:
        rest = list(words)
        if rest[:1] in (["-d"], ["--dsn"]):
            rest = rest[2:]
        files = {"--out", "-o", "--output", "--interval", "--cancel", "--terminate", "--plan"}
        if rest and rest[0] in READING and not files & set(rest):
            yield page, tuple(rest)


@pytest.mark.slow
async def test_what_the_docs_read_from_a_server_can_be_read(dsn, monkeypatch, capsys):
    """Exit code 0, or 1 where the answer may be no; each once, however many pages show it."""
    monkeypatch.setenv("MAGNUS_DSN", dsn)
    lines = sorted({words for _, words in reading()})
    assert len(lines) >= 8
    for words in lines:
        code = await asyncio.to_thread(cli.main, list(words))
        said = capsys.readouterr()
        assert code in {0, 1}, (words, said.err)
    con = await asyncpg.connect(dsn)
    assert await con.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await con.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_from_the_code_is_up_to_date(name):
    """`make docs` writes it."""
    assert (ROOT / "docs" / name).read_text() == PAGES[name]()


def test_every_page_is_in_the_navigation():
    """And every one of the navigation is there."""
    named = set(re.findall(r'"([a-z0-9/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == there


def test_links_between_pages_lead_somewhere():
    """To a file of this repository; anchors are not looked at."""
    for path in PLACES:
        text = BLOCK.sub("", path.read_text())
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (path.parent / target).exists(), (path.name, target)


@pytest.mark.slow
def test_the_site_builds_without_a_warning():
    """As `make docs` builds it."""
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "site" / "prove" / "index.html").exists()
