"""The files of deploy/ for replicas and failover are what their programs read, and PostgreSQL takes the settings."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from magnus.embedded import throwaway
from tests.servers import binaries_or_skip

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def patroni():
    return yaml.safe_load((DEPLOY / "patroni" / "patroni.yml").read_text())


def test_patronis_file_is_yaml_and_has_what_a_member_needs(patroni):
    """No password in it, one lease that is renewed in time, a fence, and a standby that has what was acknowledged."""
    assert {"scope", "name", "restapi", "etcd3", "bootstrap", "postgresql", "watchdog"} <= patroni.keys()
    lease = patroni["bootstrap"]["dcs"]
    assert lease["loop_wait"] + 2 * lease["retry_timeout"] <= lease["ttl"], "Patroni's own rule"
    assert lease["synchronous_mode"] is True
    assert lease["postgresql"]["use_pg_rewind"] is True
    assert patroni["watchdog"]["mode"] in {"automatic", "required"}
    assert "password" not in str(patroni["postgresql"]["authentication"])
    assert patroni["restapi"]["authentication"].keys() == {"username"}, "the password comes from the environment"
    if any(line.startswith("hostssl") for line in patroni["postgresql"]["pg_hba"]):
        assert patroni["postgresql"]["parameters"].keys() >= {"ssl", "ssl_cert_file", "ssl_key_file"}
        assert patroni["postgresql"]["parameters"]["ssl"] == "on"
    assert all(isinstance(line, str) for line in patroni["postgresql"]["pg_hba"])


async def test_the_server_starts_with_patronis_settings(patroni, pg_version):
    """Each of them, as it is written there."""
    parameters = patroni["bootstrap"]["dcs"]["postgresql"]["parameters"]
    assert all(isinstance(value, str | int) and not isinstance(value, bool) for value in parameters.values())
    async with (
        throwaway(
            binaries_or_skip(pg_version), settings={name: str(value) for name, value in parameters.items()}
        ) as own,
        own.connect() as con,
    ):
        for name, value in parameters.items():
            assert await con.fetchval("SELECT current_setting($1)", name) == str(value)
        assert await con.fetchval("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == 0


def test_haproxys_file_asks_patroni_for_the_role_of_the_same_members(patroni, tmp_path):
    """The primary by its lease, a standby by its lag; whoever lost its role loses its sessions."""
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    sections = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert sections == ["global", "defaults", "listen primary", "listen standby"]
    checks = re.findall(r"http-check send meth OPTIONS uri (\S+)", text)
    assert checks == ["/primary", "/replica?lag=10MB"]
    assert text.count("on-marked-down shutdown-sessions") == 2
    port = patroni["restapi"]["listen"].rpartition(":")[2]
    members = re.findall(r"server (\w+) (\w+):5432 check port (\d+)", text)
    assert members == [(name, name, port) for name in ("db1", "db2", "db3")] * 2
    if program := shutil.which("haproxy"):  # it resolves the members' names at once, and here are none
        there = tmp_path / "haproxy.cfg"
        there.write_text(re.sub(r" db\d:5432", " 127.0.0.1:5432", text))
        subprocess.run([program, "-c", "-f", str(there)], check=True, capture_output=True)
