"""Who runs a server, told from its process; a restart is refused where somebody else would undo it."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from magnus.embedded import Account
from magnus.tuning import service
from magnus.tuning.local import Site
from magnus.tuning.service import NotRestartable, RestartFailed, Service, detect, kept

ME = Account(os.geteuid(), os.getegid(), "me", is_other=False)
SITE = Site(Path("/data"), "1", ME, argv=("/usr/bin/postgres", "-D", "/data"), pid=4711, environ={"LC_ALL": "C"})


def test_pg_ctl_and_the_embedded_server_are_started_as_they_were():
    """The same program and arguments, and of the environment what is no secret."""
    found = detect(replace(SITE, environ={"LC_ALL": "C", "PGPASSWORD": "x", "PATH": "/bin"}))
    assert (found.kind, found.argv) == ("own", SITE.argv)
    assert found.environ == {"LC_ALL": "C", "PATH": "/bin"}
    assert Service.from_json(asdict(found)) == found


@pytest.mark.parametrize("parent", ["patroni", "pg_autoctl", "stolon-keeper", "manager", "repmgrd"])
def test_a_supervised_server_is_left_to_its_supervisor(parent: str):
    """The text names its own tool, and the way round."""
    with pytest.raises(NotRestartable, match="--restart-command"):
        detect(replace(SITE, parent=parent))
    assert detect(replace(SITE, parent=parent), "systemctl restart patroni").kind == "command"


def test_a_containers_first_process_is_not_stopped():
    """The container would end with it."""
    with pytest.raises(NotRestartable, match="restart the container"):
        detect(replace(SITE, pid=1))


def test_debians_cluster_is_restarted_by_debians_tool(monkeypatch):
    """Told by where its configuration is."""
    monkeypatch.setattr(service.shutil, "which", lambda name: f"/usr/bin/{name}")
    argv = ("/usr/lib/postgresql/15/bin/postgres", "-c", "config_file=/etc/postgresql/15/main/postgresql.conf")
    found = detect(replace(SITE, argv=argv))
    assert found.restart == ("pg_ctlcluster", "15", "main", "restart", "-m", "fast")
    assert found.start == ("pg_ctlcluster", "15", "main", "start")


@pytest.mark.parametrize(("main_pid", "kind"), [("4711", "systemd"), ("1234", "own")])
def test_a_unit_is_the_servers_only_when_its_main_process_is(monkeypatch, main_pid: str, kind: str):
    """A server that somebody started by hand inside a build's service must not restart the build."""
    monkeypatch.setattr(service.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(service.Path, "exists", lambda path: True)
    monkeypatch.setattr(service, "run", lambda command, limit: (0, main_pid))
    found = detect(replace(SITE, cgroup="0::/system.slice/postgresql.service\n"))
    assert found.kind == kind
    if kind == "systemd":
        assert found.restart == ("systemctl", "restart", "postgresql.service")


def test_a_server_that_was_never_started_cannot_be_restarted():
    """There is nothing to start it with."""
    with pytest.raises(NotRestartable, match="does not say how"):
        detect(replace(SITE, argv=()))


def test_a_command_that_fails_says_what_it_said():
    """Exit code and words."""
    found = detect(SITE, "echo no luck >&2; exit 3")
    with pytest.raises(RestartFailed, match="exit code 3") as caught:
        service.restart(found)
    assert caught.value.output == "no luck"


def test_without_a_look_at_the_servers_environment_ours_is_used():
    """Of it, only what is no secret."""
    assert "PATH" in kept(None)
    assert not any(name.startswith("PG") and name != "PGDATA" for name in kept({"PGPASSWORD": "x", "PGHOST": "y"}))
