"""The docs hold to the program: each command in them is one, links lead somewhere, made pages are up to date."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from ava.cli.serve import Options
from magnus import DatabaseConfig
from tests.doc_commands import BLOCK, PLACES, ROOT, Shown, check, program, shown
from tests.reference_doc import PAGES

COMMANDS = shown()


def test_there_are_commands_to_look_at():
    """An expression that finds none would pass everything below."""
    assert len([found for found in COMMANDS if found.is_run]) > 60
    assert {"magnus", "ava", "make", "curl"} <= {program(found.words[0]) for found in COMMANDS}


@pytest.mark.parametrize("found", COMMANDS, ids=str)
def test_a_command_of_the_docs_is_understood(found):
    """By the parser, the Makefile, the routes that will get it; what stands in a block can be typed as it is."""
    check(found)


@pytest.mark.parametrize(
    "words",
    [
        ("magnus", "frobnicate"),
        ("magnus", "plan", "--no-such"),
        ("ava", "demo", "--no-such"),
        ("ava", "token", "destroy", "1"),
        ("make", "nothing"),
        ("make", "proof", "NOTHING=1"),
        ("curl", "http://localhost:8000/api/nothing"),
        ("pip", "install", "magnus-db[nothing]"),
        ("python", "benchmarks/nothing.py"),
        ("python", "-m", "nothing_at_all"),
        ("frobnicate", "it"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("is_run", [True, False])
def test_a_command_that_does_not_exist_is_noticed(words, is_run):
    """Wherever it stands."""
    with pytest.raises((AssertionError, CycloptsError)):
        check(Shown("page.md", words, is_run=is_run))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_from_the_code_is_up_to_date(name):
    """`make docs` writes it."""
    assert (ROOT / "docs" / name).read_text() == PAGES[name]()


def test_every_setting_is_described():
    """By name, on the page of the configuration."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [item.name for item in fields(DatabaseConfig) if f"`{item.name}`" not in text]
    assert missing == []


def test_every_switch_of_the_adoption_page_is_one():
    """A field of `DatabaseConfig`, an argument of the web parts, or a public name."""
    text = (ROOT / "docs" / "adoption.md").read_text()
    known = {item.name for item in fields(DatabaseConfig)} | {"warmup", "cap", "sslmode", "priority"}
    found = {name for name, _ in re.findall(r"`(?:\w+\()?(\w+)(=)[^`]*`", text)}
    assert found > {"reset", "shedding", "slow_log", "warmup", "cache_bytes", "replicas"}
    assert found - known == set()


def test_the_unit_of_systemd_starts_what_there_is():
    """Its command is one of AVA's, it stops by the signal that drains, and waits longer than a drain may take."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # the names are as systemd has them
    unit.read_string((ROOT / "deploy" / "systemd" / "ava.service").read_text())
    service = unit["Service"]
    path, *words = service["ExecStart"].split()
    check(Shown("ava.service", (Path(path).name, *words), is_run=True))
    assert service["KillSignal"] == "SIGTERM"
    assert float(service["TimeoutStopSec"]) > Options(None, None, None).notice + Options(None, None, None).grace
    tool = shutil.which("systemd-analyze")
    if tool is not None:
        command = [tool, "verify", "--man=no", "deploy/systemd/ava.service"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
        complaints = [line for line in done.stderr.splitlines() if "ava.service" in line]
        assert [line for line in complaints if "is not executable" not in line] == []


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
