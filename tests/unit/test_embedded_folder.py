"""A cluster's files: who may read them, where the socket goes, which account may pass."""

import os
import tempfile
from pathlib import Path

import pytest

from magnus.embedded import ClusterError
from magnus.embedded._account import Account, server_account
from magnus.embedded._folder import Folder, data_home, make_folders, temporary_home, write_atomically
from magnus.errors import ConfigError

ME = Account(os.geteuid(), os.getegid(), "me", is_other=False)
STRANGER = Account(64_321, 64_321, "stranger", is_other=True)


@pytest.fixture
def folder():
    """A short path: pytest's own temporary folder may be too long for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Folder(Path(made))


def test_the_password_is_made_once_and_only_its_owner_reads_it(folder):
    """Two objects on one folder know the same password."""
    secret = folder.secret()

    assert len(secret) >= 32
    assert Folder(folder.root).secret() == secret
    assert folder.password.stat().st_mode & 0o777 == 0o600


def test_folders_are_private_for_oneself_whatever_the_umask(tmp_path):
    """Nobody else has business in a user's data."""
    before = os.umask(0o000)
    try:
        make_folders(tmp_path / "a" / "b", ME)
    finally:
        os.umask(before)

    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("a", "a/b")] == [0o700, 0o700]


def test_folders_for_another_account_can_be_passed_but_not_listed(tmp_path):
    """A strict umask does not shut the server out."""
    before = os.umask(0o077)
    try:
        make_folders(tmp_path / "a" / "b", STRANGER)
    finally:
        os.umask(before)

    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("a", "a/b")] == [0o711, 0o711]


def test_permissions_of_existing_folders_stay_and_the_error_says_so(tmp_path):
    """A private parent is the user's decision: we say who cannot pass, and touch nothing."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)

    with pytest.raises(ClusterError, match="account stranger, which cannot enter") as caught:
        Folder(private / "cluster").create(STRANGER)

    assert caught.value.reason == "permission"
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "can_enter"), [(0o700, False), (0o710, False), (0o701, True), (0o755, True)])
def test_a_stranger_passes_where_others_may(mode, can_enter):
    """The bits for others decide for an account that is neither owner nor in the group."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(mode)
        assert STRANGER.can_enter(Path(made)) is can_enter


@pytest.mark.parametrize(("mode", "can_enter"), [(0o070, False), (0o100, True), (0o077, False)])
def test_the_owners_bits_decide_for_the_owner(mode, can_enter):
    """Even when others may do more, as the system itself decides."""
    owner = Account(os.geteuid(), 64_321, "owner", is_other=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(mode)
        assert owner.can_enter(Path(made)) is can_enter
        Path(made).chmod(0o700)


def test_the_groups_bits_decide_for_the_group():
    """The account's primary group is all it has."""
    member = Account(64_321, os.getegid(), "member", is_other=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chown(made, -1, os.getegid())
        Path(made).chmod(0o701)
        assert not member.can_enter(Path(made))
        Path(made).chmod(0o710)
        assert member.can_enter(Path(made))


def test_the_socket_lies_in_the_clusters_folder_when_the_path_is_short(folder):
    """One place for everything, when the system allows it."""
    sockets = folder.prepare_sockets(ME, {})

    assert sockets == folder.root / "socket"
    assert sockets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("has_runtime_folder", [True, False])
def test_a_long_path_moves_the_socket_to_a_short_private_folder(tmp_path, has_runtime_folder):
    """A socket's path holds about a hundred bytes; the runtime folder comes first, then the temporary one."""
    deep = Folder(tmp_path / ("d" * 100))
    deep.create(ME)
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        environ = {"XDG_RUNTIME_DIR": runtime} if has_runtime_folder else {}
        sockets = deep.prepare_sockets(ME, environ)
        try:
            assert (sockets.parent == Path(runtime)) is has_runtime_folder
            assert len(os.fsencode(sockets / ".s.PGSQL.65535")) <= 103
            assert sockets.stat().st_mode & 0o777 == 0o700
            assert deep.prepare_sockets(ME, environ) == sockets
        finally:
            sockets.rmdir()


def test_two_clusters_with_long_paths_have_two_socket_folders(tmp_path):
    """The name comes from the whole path."""
    folders = [Folder(tmp_path / (letter * 100)) for letter in "ab"]
    made = [folder.prepare_sockets(ME, {}) for folder in folders if folder.create(ME) is None]

    assert len(set(made)) == 2
    for sockets in made:
        sockets.rmdir()


def test_left_sockets_go_and_other_files_stay(folder):
    """A killed server leaves its socket and the socket's lock file."""
    sockets = folder.root / "socket"
    sockets.mkdir()
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock", "mine"):
        (sockets / name).touch()

    assert [path.name for path in folder.prepare_sockets(ME, {}).iterdir()] == ["mine"]


def test_a_planted_link_in_place_of_the_socket_folder_is_refused(folder):
    """In a shared temporary folder anybody may have been first."""
    (folder.root / "socket").symlink_to("/tmp")

    with pytest.raises(ClusterError, match="is not ours"):
        folder.prepare_sockets(ME, {})


def test_halves_of_interrupted_attempts_are_removed_before_the_next(folder):
    """And a new attempt has a name of its own."""
    first = folder.staging(ME)
    (first / "base").mkdir()
    second = folder.staging(ME)

    assert not first.exists()
    assert second.exists()
    assert second.name != first.name
    assert second.stat().st_mode & 0o777 == 0o700


def test_a_large_log_is_moved_aside_once(folder):
    """The log of a cluster that lives for years does not fill the disk."""
    with folder.log.open("wb") as log:
        log.truncate(10 * 1024 * 1024 + 1)
    os.close(folder.open_log())

    assert folder.log.stat().st_size == 0
    assert (folder.root / "server.log.1").stat().st_size > 10 * 1024 * 1024
    assert folder.log.stat().st_mode & 0o777 == 0o600


def test_only_what_was_written_since_is_read(folder):
    """The last start's words, not those of earlier ones; bytes that are no text do no harm."""
    folder.log.write_bytes(b"old\nnew \xff\n")

    assert folder.log_since(4) == "new \N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize("text", ["", "x", "54 32"])
def test_a_spoilt_port_file_is_no_port(folder, text):
    """Then any free port will do."""
    folder.port.write_text(text)

    assert folder.last_port() is None


def test_a_failed_write_leaves_the_old_text_and_no_litter(folder, monkeypatch):
    """The rename is the moment of truth."""
    target = folder.root / "file"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space"):
        write_atomically(target, "new", mode=0o600)

    assert target.read_text() == "old"
    assert list(folder.root.iterdir()) == [target]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MAGNUS_HOME": "/srv/m", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/srv/m"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/magnus"),
        ({"HOME": "/h"}, "/h/.local/share/magnus"),
    ],
)
def test_a_users_data_lie_where_the_desktop_standard_says(monkeypatch, environ, expected):
    """MAGNUS_HOME outranks it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert data_home(environ) == Path(expected)


def test_roots_data_lie_outside_of_its_closed_home(monkeypatch):
    """The server's account could not enter /root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert data_home({"HOME": "/root", "XDG_DATA_HOME": "/root/.local/share"}) == Path("/var/lib/magnus")


@pytest.mark.parametrize(
    ("environ", "field"),
    [({"MAGNUS_HOME": "here"}, "MAGNUS_HOME"), ({"XDG_DATA_HOME": "x"}, "XDG_DATA_HOME"), ({}, "HOME")],
)
def test_an_unusable_home_names_the_variable(monkeypatch, environ, field):
    """Relative paths would mean another folder in each shell."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(ConfigError) as caught:
        data_home(environ)
    assert caught.value.field == field


def test_a_closed_temporary_folder_is_passed_over_for_the_servers_account(tmp_path, monkeypatch):
    """TMPDIR in root's home is common."""
    private = tmp_path / "tmp"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(private))

    assert temporary_home(ME) == private
    assert temporary_home(STRANGER) == Path("/tmp")


def test_root_runs_the_server_as_an_unprivileged_account(monkeypatch):
    """PostgreSQL refuses root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    account = server_account()

    assert account.uid != 0
    assert account.is_other
    assert account.spawn_arguments() == {"user": account.uid, "group": account.gid, "extra_groups": []}


def test_a_user_runs_the_server_as_themselves(monkeypatch):
    """No change of account, no rights needed."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    account = server_account()

    assert (account.uid, account.is_other, account.name) == (4711, False, "uid 4711")
    assert account.spawn_arguments() == {}


def test_a_user_cannot_run_somebody_elses_data(tmp_path, monkeypatch):
    """One clear line instead of PostgreSQL's."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(ClusterError, match="belongs to"):
        server_account(tmp_path)
