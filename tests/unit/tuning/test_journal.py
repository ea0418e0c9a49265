"""The journal as a file: chained, durable, private, and honest about a line that was never finished."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from magnus.errors import ConfigError
from magnus.tuning import journal as module
from magnus.tuning.journal import Author, Journal, JournalBroken, JournalBusy, JournalUnusable, default_folder, read

if TYPE_CHECKING:
    from pathlib import Path

AUTHOR = Author("ada", "postgres", "db1", "0.1")


@pytest.fixture
def written(tmp_path: Path) -> Journal:
    journal = Journal.open(tmp_path / "journal", "42", AUTHOR)
    journal.prepare()
    for number in range(4):
        journal.write("step", "run", number=number)
    return journal


def test_entries_are_numbered_chained_and_signed(written: Journal):
    """Each knows the hash of the one before, and who wrote it."""
    again = Journal.open(written.folder, "42", AUTHOR).entries
    assert [entry.seq for entry in again] == [1, 2, 3, 4]
    assert [entry.prev for entry in again[1:]] == [entry.hash for entry in again[:-1]]
    assert all(entry.author == AUTHOR and entry.is_intact for entry in again)


def test_folder_and_file_are_private(written: Journal):
    """Values of settings may be secrets."""
    assert stat.S_IMODE(written.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("harm", ["change", "remove", "swap", "insert"])
def test_tampering_is_noticed(written: Journal, harm: str):
    """A changed, missing, moved or added line breaks the chain."""
    lines = written.path.read_bytes().splitlines(keepends=True)
    if harm == "change":
        lines[1] = lines[1].replace(b'"number":1', b'"number":7')
    elif harm == "remove":
        del lines[1]
    elif harm == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines.insert(2, lines[1])
    with pytest.raises(JournalBroken, match=r"line [23]"):
        read(b"".join(lines))


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_torn_last_line_is_no_entry_and_the_next_one_follows(written: Journal, cut: int):
    """The half of a line stays where it is; the chain goes on behind it."""
    content = written.path.read_bytes()
    written.path.write_bytes(content[:-cut])
    journal = Journal.open(written.folder, "42", AUTHOR)
    expected = 4 if cut == 1 else 3  # a line that lacks only its end is whole
    assert len(journal.entries) == expected
    journal.write("step", "run", number=9)
    again = Journal.open(written.folder, "42", AUTHOR)
    assert [entry.data["number"] for entry in again.entries] == [*range(expected), 9]
    assert bool(again.torn) == (cut != 1)


def test_two_writers_keep_one_chain(written: Journal):
    """The dead-man and the command write to the same file."""
    other = Journal.open(written.folder, "42", AUTHOR)
    other.write("restarted", "run")
    written.write("end", "run", status="applied")
    assert [entry.kind for entry in Journal.open(written.folder, "42", AUTHOR).entries][-2:] == ["restarted", "end"]


def test_every_entry_is_flushed_before_write_returns(written: Journal, monkeypatch):
    """File at each entry, folder at the first: an intention that is not on disk was never had."""
    flushed = []
    real = os.fsync
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: flushed.append(descriptor) or real(descriptor))
    written.write("step", "run", number=5)
    assert len(flushed) == 1
    fresh = Journal.open(written.folder, "43", AUTHOR)
    fresh.write("begin", "run")
    assert len(flushed) == 4, "the file, its folder and the folder above"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_error_and_leaves_no_half(written: Journal, monkeypatch, code: int):
    """What was written of the line is cut off again."""
    before, real = written.path.read_bytes(), os.write

    def some(descriptor: int, content: bytes) -> int:
        if len(content) > 100:
            return real(descriptor, bytes(content)[:50])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, "write", some)
    with pytest.raises(JournalUnusable, match="--journal"):
        written.write("step", "run", number=5, filler="x" * 10)
    monkeypatch.undo()
    assert written.path.read_bytes() == before
    written.write("step", "run", number=6)


def test_a_place_without_permission_is_refused_beforehand(tmp_path: Path):
    """`prepare` proves that it can write, before anything is changed."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(JournalUnusable, match="Make room or permission"):
        Journal.open(blocked / "journal", "42", AUTHOR).prepare()


def test_one_magnus_at_a_time(written: Journal):
    """Across processes of this machine; the lock goes with its holder."""
    other = Journal.open(written.folder, "42", AUTHOR)
    with written.exclusively(), pytest.raises(JournalBusy), other.exclusively():
        pass
    with Journal.open(written.folder, "42", AUTHOR).exclusively():
        pass


def test_the_default_folder_is_xdgs(tmp_path: Path):
    """State, not configuration and not cache."""
    assert default_folder({"XDG_STATE_HOME": str(tmp_path), "HOME": "/h"}) == tmp_path / "magnus"
    assert str(default_folder({"HOME": "/h"})) == "/h/.local/state/magnus"
    for environ in ({}, {"XDG_STATE_HOME": "relative"}):
        with pytest.raises(ConfigError, match="--journal"):
            default_folder(environ)


def test_behind_sudo_the_person_is_named():
    """Not only root."""
    assert Author.here("r", "0", {"SUDO_USER": "ada", "LOGNAME": "root"}).actor.startswith("ada")


def test_a_line_is_one_json_object(written: Journal):
    """Anybody can read it with the usual tools."""
    for line in written.path.read_text().splitlines():
        assert {"seq", "time", "kind", "run", "author", "data", "prev", "hash"} == set(json.loads(line))
