"""Whether a plan may be applied: every reason at once, each with what to do instead."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from magnus.errors import ApplyRefused, PlanStale
from magnus.tuning import quoting
from magnus.tuning.admission import admit, created
from magnus.tuning.change import Change, Kind, Target
from magnus.tuning.facts import Permissions, RoleSetting, Server, Standby
from magnus.tuning.plan import Plan
from magnus.tuning.setting import Context, Setting


def setting(name: str, value: str, **more: Any) -> Setting:
    parts = {"unit": None, "vartype": "string", "context": "sighup", **more}
    return Setting(name=name, value=value, boot_val=value, reset_val=value, **parts)


SETTINGS = {
    item.name: item
    for item in (
        setting("work_mem", "4096", unit="kB", vartype="integer", context="user", min_val="64", max_val="2147483647"),
        setting("max_connections", "100", vartype="integer", context="postmaster", min_val="1", max_val="262143"),
        setting("shared_preload_libraries", "auto_explain", context="postmaster"),
        setting("jit", "on", vartype="bool", context="user"),
    )
}
SERVER = Server(
    version_num=180006,
    system_identifier="1",
    permissions=Permissions(role="op", is_superuser=True, can_reload=True),
    settings=MappingProxyType(SETTINGS),
)


def change(name: str, after: str, **more: Any) -> Change:
    found = SETTINGS[name]
    sql = (quoting.alter_system(name, after),)
    parts = {"before": found.text, "after": after, "sql": sql, "undo": (), "context": found.when, **more}
    return Change(id=f"setting:{name}", kind=Kind.SETTING, name=name, **parts)


def plan(*changes: Change, server: Server = SERVER) -> Plan:
    return Plan(Target.of(server), changes).sealed()


def refused(given: Plan, server: Server = SERVER, **more: Any) -> str:
    with pytest.raises(ApplyRefused) as caught:
        admit(given, server, entries={}, **more)
    return str(caught.value)


def test_a_good_plan_is_let_through():
    """In order, with nothing to say."""
    changes = (change("work_mem", "8MB"), change("max_connections", "90"))
    found = admit(plan(*changes), SERVER, entries={})
    assert (found.changes, found.present, found.waiting, found.warnings) == (changes, (), (), ())


def test_what_is_there_or_waits_is_not_made_again():
    """In force: present. In the file and waiting for a restart: waiting."""
    given = plan(change("jit", "on"), change("max_connections", "90"))
    found = admit(given, SERVER, entries={"max_connections": "90"})
    assert (found.changes, found.present, found.waiting) == ((), ("setting:jit",), ("setting:max_connections",))


def test_every_reason_is_given_at_once():
    """Nobody likes to learn them one by one."""
    text = refused(plan(change("work_mem", "plenty"), change("max_connections", "0")))
    assert "setting:work_mem" in text
    assert "setting:max_connections" in text


@pytest.mark.parametrize(
    ("managed", "words"), [("rds", "parameter group"), ("patroni", "patroni"), ("neon", "--target conf")]
)
def test_a_managed_server_is_told_its_own_way(managed: str, words: str):
    """ALTER SYSTEM is not for it."""
    assert words in refused(plan(change("work_mem", "8MB")), replace(SERVER, managed=managed))


def test_allow_alter_system_off_is_refused():
    """PostgreSQL 17 and newer: the settings are managed elsewhere."""
    assert "allow_alter_system" in refused(plan(change("work_mem", "8MB")), replace(SERVER, allow_alter_system=False))


def test_a_command_line_value_outranks_the_file():
    """ALTER SYSTEM would succeed and change nothing, even after a restart."""
    settings = {**SETTINGS, "max_connections": replace(SETTINGS["max_connections"], source="command line")}
    server = replace(SERVER, settings=MappingProxyType(settings))
    assert "comes from the command line" in refused(plan(change("max_connections", "90")), server)


def test_standbys_come_before_the_primary_when_raised():
    """Else their recovery pauses; lowered, the primary comes first; the operator may say that they are ready."""
    server = replace(SERVER, standbys=(Standby("s1"),))
    raised, lowered = plan(change("max_connections", "200")), plan(change("max_connections", "90"))
    text = refused(raised, server)
    assert "(s1) before the primary" in text
    assert "--standbys-ready" in text
    assert admit(lowered, server, entries={}).changes
    assert admit(raised, server, entries={}, are_standbys_ready=True).changes


def test_a_standby_takes_settings_and_nothing_else():
    """Its own plan raises its settings; objects are made on the primary."""
    server = replace(SERVER, is_standby=True)
    assert admit(plan(change("max_connections", "200"), server=server), server, entries={}).changes
    table = Change("table:t@x", Kind.TABLE, "t", None, "created", ("CREATE TABLE t (i int)",), (), database="x")
    assert "is a standby" in refused(plan(table, server=server), server)


def test_a_library_must_not_be_lost():
    """The list is merged by whoever plans; a plan that would unload one is refused."""
    assert "would unload auto_explain" in refused(plan(change("shared_preload_libraries", "pg_stat_statements")))


def test_a_librarys_setting_may_follow_its_loading():
    """Unknown until then; without the loading it is a mistake."""
    load = change("shared_preload_libraries", "auto_explain, pg_stat_statements")
    name = "pg_stat_statements.max"
    sql = (quoting.alter_system(name, "1000"),)
    own = Change(f"setting:{name}", Kind.SETTING, name, None, "1000", sql, (), needs=(load.id,))
    assert admit(plan(load, own), SERVER, entries={}).changes == (load, own)
    assert "knows no such setting" in refused(plan(replace(own, needs=())))


def test_a_drifted_value_makes_the_plan_stale():
    """Neither what it was planned from nor what it is planned for."""
    with pytest.raises(PlanStale, match=r"work_mem was '5MB' .* is '4MB' now"):
        admit(plan(change("work_mem", "8MB", before="5MB")), SERVER, entries={})


def test_role_settings_that_outrank_are_said():
    """Before anybody wonders why nothing changes."""
    server = replace(SERVER, role_settings=(RoleSetting("app", "shop", "work_mem", "1GB"),))
    (warning,) = admit(plan(change("work_mem", "8MB")), server, entries={}).warnings
    assert "role app in database shop keep '1GB'" in warning


def test_somebody_elses_pending_restart_is_said():
    """The restart brings that, too."""
    settings = {**SETTINGS, "max_connections": replace(SETTINGS["max_connections"], pending_restart=True)}
    server = replace(SERVER, settings=MappingProxyType(settings))
    (warning,) = admit(plan(change("work_mem", "8MB")), server, entries={}).warnings
    assert "max_connections" in warning


def test_the_tables_of_a_script_are_known():
    """So that each can be dropped again."""
    script = 'CREATE TABLE IF NOT EXISTS a (i int); CREATE TABLE x."B c" (i int); CREATE INDEX ON a (i)'
    assert created((script,)) == ("public.a", "x.B c")


def test_a_script_that_ships_with_magnus_needs_no_reading():
    """Any other is read word for word."""
    sql = ("DO $$BEGIN END$$",)
    table = Change("table:t@x", Kind.TABLE, "t", None, "created", sql, (), database="x", context=Context.NOW)
    assert "more than make a table" in refused(plan(table))
    assert admit(plan(table), SERVER, entries={}, scripts=frozenset(sql)).changes == (table,)


@pytest.mark.parametrize(
    "sql",
    [
        ("ALTER SYSTEM SET archive_command = 'touch /tmp/x'",),
        ("ALTER SYSTEM SET work_mem = '8MB'; SELECT 1",),
        ("ALTER SYSTEM SET work_mem = '8MB'", "DROP DATABASE x"),
        (),
    ],
)
def test_sql_that_is_not_what_the_change_says_is_refused(sql: tuple[str, ...]):
    """The digest proves that nobody erred, not who wrote it."""
    assert "does not do what the change says" in refused(plan(change("work_mem", "8MB", sql=sql)))
