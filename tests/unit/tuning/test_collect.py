"""Rows of the server as facts: a session's own values do not pass for the server's."""

from __future__ import annotations

import pytest

from magnus.errors import ConfigError
from magnus.tuning import collect, settings_read
from magnus.tuning.roles import Kind, grants, script, settings_for
from tests.tuning_facts import server, settings


def row(name="work_mem", setting="4096", **changes):
    basis = {
        "name": name, "setting": setting, "unit": "kB", "context": "user", "vartype": "integer", "source": "default",
        "sourcefile": None, "sourceline": None, "boot_val": "4096", "reset_val": "4096", "min_val": "64",
        "max_val": "2147483647", "enumvals": None, "pending_restart": False,
    }  # fmt: skip
    return {**basis, **changes}


def line(name="work_mem", setting="8MB"):
    return {"name": name, "setting": setting, "sourcefile": "/d/postgresql.auto.conf", "sourceline": 3}


@pytest.mark.parametrize("source", ["user", "database", "database user", "client"])
def test_the_files_say_what_a_roles_own_value_hides(source):
    """Without a line in them it is the built-in value; without the right to read them the value stays as seen."""
    seen = row(setting="65536", source=source)
    found = settings_read.settings_of([seen], [line()])["work_mem"]
    assert (found.value, found.source, found.in_auto_conf) == ("8192", "configuration file", True)
    assert not found.pending_restart
    found = settings_read.settings_of([seen], [])["work_mem"]
    assert (found.value, found.source) == ("4096", "default")
    found = settings_read.settings_of([seen], None)["work_mem"]
    assert (found.value, found.source) == ("65536", source)


def test_the_readers_own_limits_are_not_the_servers():
    """They are set for its transaction; the value to reset to is the server's."""
    seen = row("statement_timeout", "2000", unit="ms", source="session", boot_val="0", reset_val="0")
    found = settings_read.settings_of([seen], None)["statement_timeout"]
    assert (found.value, found.source) == ("0", "default")
    seen["reset_val"] = "30000"
    found = settings_read.settings_of([seen], None)["statement_timeout"]
    assert (found.value, found.source) == ("30000", "configuration file")


def test_what_waits_for_a_restart_is_read_from_the_files():
    """Taken out of the files, the built-in value comes back."""
    seen = row(
        "shared_buffers", "16384", unit="8kB", boot_val="1024", pending_restart=True, source="configuration file"
    )
    found = settings_read.settings_of([seen], [line("shared_buffers", "2GB")])["shared_buffers"]
    assert (found.pending_value, found.next.value) == ("2GB", "262144")
    assert settings_read.settings_of([seen], [])["shared_buffers"].pending_value == "1024"
    assert settings_read.settings_of([seen], None)["shared_buffers"].pending_value is None


@pytest.mark.parametrize(
    ("roles", "changes", "is_superuser", "expected"),
    [
        (["app"], {}, False, None),
        (["rds_superuser"], {}, False, "rds"),
        (["cloudsqlsuperuser"], {}, False, "cloudsql"),
        (["azure_pg_admin"], {}, False, "azure"),
        (["supabase_admin"], {}, False, "supabase"),
        (["neon_superuser"], {}, False, "neon"),
        (["rds_superuser"], {}, True, None),
        (["streaming_replica"], {"allow_alter_system": "off"}, True, "cnpg"),
        (["streaming_replica"], {}, True, None),
    ],
)
def test_who_runs_the_server(roles, changes, is_superuser, expected):
    """By the roles that only a service makes; a true superuser is the owner."""
    assert settings_read.managed_by(roles, settings(**changes), is_superuser) == expected


def test_patroni_is_known_by_what_it_gives_on_the_command_line():
    """All five, always; one of them alone is somebody's unit file."""
    given = [
        row(name, source="command line") for name in
        ("max_connections", "max_locks_per_transaction", "max_wal_senders", "max_worker_processes", "wal_level")
    ]  # fmt: skip
    assert settings_read.managed_by([], settings_read.settings_of(given, None), is_superuser=True) == "patroni"
    given[0]["source"] = "configuration file"
    assert settings_read.managed_by([], settings_read.settings_of(given, None), is_superuser=True) is None


def test_aurora_is_rds_with_settings_of_its_own():
    """They begin with its name."""
    found = settings_read.settings_of([row("aurora_compute_plan_id")], None)
    assert settings_read.managed_by(["rds_superuser"], found, is_superuser=False) == "aurora"


def test_wal_is_a_mean_over_a_longer_time_and_never_extrapolated():
    """Five minutes' worth is not tripled."""
    assert collect.per_quarter(900.0, 300.0) == 900
    assert collect.per_quarter(900.0, 1800.0) == 450
    assert collect.per_quarter(None, 1800.0) is None
    assert collect.per_quarter(900.0, None) is None


def test_reads_count_when_they_are_timed_and_many():
    """Without track_io_timing the time is 0, not fast."""
    figures = {"blocks": 2000.0, "ms": 400.0, "temp_bytes": 100.0, "age": None}
    on, off = settings(track_io_timing="on"), settings(track_io_timing="off")
    assert collect.read_figures(figures, on, 60.0)["read_latency"] == pytest.approx(0.0002)
    assert collect.read_figures(figures, off, 60.0)["read_latency"] is None
    assert collect.read_figures({**figures, "blocks": 10.0}, on, 60.0)["read_latency"] is None
    assert collect.read_figures({**figures, "ms": 0.0}, on, 60.0)["read_latency"] is None
    aged = collect.read_figures({**figures, "age": 2 * 86_400.0}, on, 60.0)
    assert (aged["temp_bytes_per_day"], aged["stats_age"]) == (50, 2 * 86_400)
    assert collect.read_figures(figures, on, 60.0)["stats_age"] == 60


# --- roles ------------------------------------------------------------------------------------------------------------


def test_the_tuner_may_set_what_a_rule_may_plan_and_nothing_else():
    """Nothing that runs a program or opens a door."""
    found = settings_for(server())
    assert {"work_mem", "shared_buffers", "shared_preload_libraries", "log_min_duration_statement"} <= set(found)
    assert not {"archive_command", "max_connections", "statement_timeout", "io_method", "listen_addresses"} & set(found)
    assert set(settings_for(server(15))) <= set(found)


def test_a_monitor_gets_no_right_to_change_anything():
    """Five grants and the role."""
    text = "\n".join(grant.sql for grant in grants(Kind.MONITOR, "watch", server()))
    assert "ALTER SYSTEM" not in text
    assert "pg_reload_conf" not in text
    assert "CREATE ON" not in text
    assert text.count("GRANT") == 5


def test_an_existing_role_is_not_made_again():
    """It keeps what it has."""
    assert not any("CREATE ROLE" in grant.sql for grant in grants(Kind.TUNER, "app", server()))


@pytest.mark.parametrize("name", ["postgres", "pg_monitor", "public", "", "a\0b"])
def test_a_name_that_would_do_harm_is_refused(name):
    """A superuser, one's own role, a reserved name, no name."""
    with pytest.raises(ConfigError):
        grants(Kind.MONITOR, name, server())


def test_the_script_stays_inside_its_quotes_and_comments():
    """A role's name cannot end a line of a comment."""
    text = script(Kind.TUNER, 'x"\n; DROP TABLE trades; --', server())
    for number, part in enumerate(text.replace('"x""\n; DROP TABLE trades; --"', "NAME").split("\n")):
        assert not part or part.startswith(("CREATE ROLE NAME", "GRANT ", "--")), number
