"""A plan: digest, JSON, reverse, what stands where; and how one is made of recommendations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from magnus.errors import ConfigError
from magnus.tuning import mission, objects
from magnus.tuning.facts import Extension, Permissions, Pooler, Role, RoleSetting, Standby, Storage
from magnus.tuning.plan import Kind, Plan, State, Target, canonical, diff, identity_differences, reverse, reversed_plan
from magnus.tuning.planner import QUICK_WINS, make_plan
from magnus.tuning.rules import RULES
from magnus.tuning.units import GB, MB
from tests.tuning_facts import facts, host, server, settings

SCRIPT = "CREATE TABLE slow_query_log (id bigint)"


def planned(**changes) -> Plan:
    return make_plan(facts(**changes), slow_log_sql=SCRIPT, created="2026-01-01T00:00:00+00:00", magnus_version="1")


def by_name(plan: Plan) -> dict[str, str | None]:
    return {change.name: change.after for change in plan.changes}


def refused(plan: Plan) -> dict[str, str]:
    return {refusal.name: refusal.reason for refusal in plan.refused}


# --- the document -----------------------------------------------------------------------------------------------------


def test_a_plan_survives_its_file():
    """Word for word, digest included."""
    plan = planned()
    assert Plan.loads(plan.dumps()) == plan
    assert plan.digest == plan.computed_digest()
    assert len(plan.digest) == 64


def test_the_same_facts_give_the_same_digest():
    """Whatever the order in which Python hands things out."""
    assert planned().digest == planned().digest
    assert planned().digest != planned(version=15).digest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data["changes"][0].update(after="900GB"),
        lambda data: data["changes"][0]["sql"].append("DROP TABLE trades"),
        lambda data: data["target"].update(system_identifier="8"),
        lambda data: data["changes"].pop(),
        lambda data: data.update(warnings=["all is well"]),
        lambda data: data.update(digest="0" * 64),
        lambda data: data["proof"].update(limit=10**15),
    ],
)
def test_a_plan_that_was_edited_is_refused(spoil):
    """Every part is under the digest."""
    data = json.loads(planned().dumps())
    spoil(data)
    with pytest.raises(ConfigError, match="changed after it was made"):
        Plan.loads(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"), ("[]", "object"), ("{}", "format_version"), ('{"format_version": "2.0"}', "format_version"),
        ('{"format_version": "1.0"}', "read"), ('{"format_version": "1.0", "target": {}}', "read"),
        ('{"format_version": "1.0", "target": 7, "changes": 3}', "read"), ("", "JSON"), ("\ud800", "JSON"),
        ('{"format_version": "1.0", "target": null}', "read"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_with_one_error(text, named):
    """Never a traceback of another kind."""
    with pytest.raises(ConfigError, match=named):
        Plan.loads(text)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("after", 5), ("after", ["a"]), ("sql", "DROP TABLE trades"), ("sql", [1]), ("undo", None), ("id", None),
        ("kind", "rumour"), ("context", "soon"), ("risk", 7), ("evidence", []), ("evidence", {"a": 1}), ("needs", "x"),
        ("database", False),
    ],
)  # fmt: skip
def test_a_part_of_another_type_is_refused(part, value):
    """Also under a digest that fits: whoever reads a plan may rely on its types."""
    data = json.loads(planned().dumps())
    data["changes"][0][part] = value
    content = {name: part for name, part in data.items() if name != "digest"}
    data["digest"] = hashlib.sha256(canonical(content)).hexdigest()
    with pytest.raises(ConfigError, match="cannot be read"):
        Plan.loads(json.dumps(data))


def test_two_changes_of_one_id_are_refused():
    """The second would hide the first one's before-image."""
    plan = planned()
    twice = replace(plan, changes=(plan.changes[0], plan.changes[0])).sealed()
    with pytest.raises(ConfigError, match="one id"):
        Plan.loads(twice.dumps())


def test_some_changes_bring_what_they_need():
    """The extension needs its library; the rest stays out."""
    plan = planned()
    some = plan.only(["extension:pg_stat_statements@ava"])
    assert {change.id for change in some.changes} == {
        "extension:pg_stat_statements@ava", "setting:shared_preload_libraries",
    }  # fmt: skip
    assert some.digest == some.computed_digest() != plan.digest
    with pytest.raises(ConfigError, match="is not in the plan"):
        plan.only(["setting:nope"])


def test_a_reverse_undoes_and_its_reverse_redoes():
    """Before and after, SQL and undo change places."""
    for change in planned().changes:
        back = reverse(change)
        assert (back.before, back.after, back.sql, back.undo) == (change.after, change.before, change.undo, change.sql)
        assert replace(reverse(back), reason=change.reason, needs=change.needs) == change
    plan = planned()
    assert [c.id for c in reversed_plan(plan).changes] == [c.id for c in reversed(plan.changes)]


def test_undo_returns_to_what_was_there_not_to_the_default():
    """A value that ALTER SYSTEM gave is set again; one of postgresql.conf comes back by RESET."""
    plan = planned(settings={"work_mem": "8MB"}, pooler=Pooler("pgbouncer", 20))
    change = next(change for change in plan.changes if change.name == "work_mem")
    assert change.undo == ("ALTER SYSTEM SET work_mem = '8MB'",)
    conf = replace(settings(work_mem="8MB")["work_mem"], sourcefile="/etc/postgresql.conf")
    unseen = replace(conf, sourcefile=None)
    for setting, undo in ((conf, "ALTER SYSTEM RESET work_mem"), (unseen, "ALTER SYSTEM SET work_mem = '8MB'")):
        plan = planned(settings={"work_mem": setting}, pooler=Pooler("pgbouncer", 20))
        assert next(change.undo for change in plan.changes if change.name == "work_mem") == (undo,)


def test_how_each_change_stands_is_seen():
    """Pending, done, or changed by somebody else; by meaning, not by spelling."""
    plan = planned()
    assert set(diff(plan, server()).values()) == {State.PENDING}
    values = {c.name: c.after for c in plan.changes if c.kind is Kind.SETTING and c.after is not None}
    done = server(
        settings=values,
        extensions=MappingProxyType({"ava": (Extension("pg_stat_statements", "1.12"),)}),
        tables=MappingProxyType({"ava": frozenset({"public.slow_query_log"})}),
        role_settings=(RoleSetting("app", None, "idle_in_transaction_session_timeout", "1min"),),
    )
    assert set(diff(plan, done).values()) == {State.DONE}
    assert diff(plan, server(settings={"work_mem": "5MB"}))["setting:work_mem"] is State.DRIFTED


def test_another_server_is_told_apart():
    """Identifier, version, name, primary or standby, data directory; not host or port, which are ways to it."""
    plan = planned()
    assert identity_differences(plan, server()) == ()
    assert identity_differences(plan, server(host="10.0.0.7", port=6432)) == ()
    assert identity_differences(plan, server(data_directory=None)) == ()
    for change in (
        {"system_identifier": "8"},
        {"version_num": 170004},
        {"cluster_name": "other"},
        {"is_standby": True},
        {"data_directory": "/elsewhere"},
    ):
        assert len(identity_differences(plan, server(**change))) == 1
    assert Target.of(server()).version_num == 180006


# --- making one -------------------------------------------------------------------------------------------------------


def test_the_order_is_now_then_new_sessions_then_restart():
    """And settings before what else is made at the same time."""
    order = [str(change.context) for change in planned().changes]
    assert order == sorted(order, key=["now", "new_sessions", "restart"].index)


def test_every_change_has_reason_source_risk_undo_and_a_quick_win():
    """A DBA reads why before what."""
    for change in planned(version=15).changes:
        assert change.reason
        assert change.source
        assert change.sql
        assert change.undo
        assert change.group
        assert set(change.quick_win) <= set(QUICK_WINS)
        assert change.quick_win


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (("quick-win-1",), {"shared_preload_libraries", "pg_stat_statements"}),
        (("quick-win-4",), {"idle_in_transaction_session_timeout"}),
        (("quick-win-5",), {"public.slow_query_log"}),
        (("quick-win-2", "quick-win-6"), set()),
        (("quick-win-4,quick-win-5",), {"idle_in_transaction_session_timeout", "public.slow_query_log"}),
        (("jit",), {"jit"}),
        (("setting:jit", " log_lock_waits "), {"jit", "log_lock_waits"}),
        (("slow-log",), {"public.slow_query_log"}),
        (("extension:pg_stat_statements",), {"shared_preload_libraries", "pg_stat_statements"}),
        (("maintenance_work_mem",), {"maintenance_work_mem", "autovacuum_work_mem"}),
    ],
)
def test_only_takes_quick_wins_groups_settings_and_ids(only, expected):
    """With what they cannot go without."""
    assert set(by_name(make_plan(facts(), only=only, slow_log_sql=SCRIPT))) == expected


def test_only_refuses_what_no_rule_knows():
    """And says what there is."""
    for name in ("quick-win-11", "wrok_mem", "memroy"):
        with pytest.raises(ConfigError, match="quick-win-1 to quick-win-10"):
            make_plan(facts(), only=(name,))


def test_quick_wins_of_the_library_say_where_they_are():
    """Nothing to plan on the server, and no silence either."""
    plan = make_plan(facts(), only=("quick-win-2", "quick-win-9"))
    assert set(refused(plan)) == {"quick-win-2", "quick-win-9"}


def test_a_second_plan_after_the_first_changes_nothing():
    """What was planned satisfies the rules that planned it, at any size and profile."""
    for version in (15, 18):
        for memory in (2, 4, 8, 24, 64, 512):
            for profile in ("oltp", "warehouse"):
                machine = host(memory * GB, cpus=16, wal_free=100 * GB)
                first = make_plan(facts(machine, profile=profile, version=version), slow_log_sql=SCRIPT)
                values = {c.name: c.after for c in first.changes if c.kind is Kind.SETTING and c.after is not None}
                assert values
                again = facts(machine, profile=profile, version=version, settings=values)
                left = {c.name for c in make_plan(again).changes if c.kind is Kind.SETTING}
                assert left == set(), (version, memory, profile)


def test_five_percent_is_not_worth_a_change():
    """And what is already better stays."""
    near = {
        "effective_cache_size": "6.2GB", "checkpoint_timeout": "30min", "random_page_cost": "1.0",
        "log_min_duration_statement": "250ms", "max_wal_size": "10GB", "min_wal_size": "3GB",
    }  # fmt: skip
    assert not near.keys() & by_name(make_plan(facts(settings=near))).keys()
    assert "effective_cache_size" in by_name(make_plan(facts(settings={"effective_cache_size": "5.6GB"})))


def test_the_preload_list_is_merged_never_replaced():
    """What is there stays, first, and each item is a literal."""
    plan = planned(settings={"shared_preload_libraries": "timescaledb,auto_explain"})
    change = next(change for change in plan.changes if change.name == "shared_preload_libraries")
    assert change.after == "timescaledb, auto_explain, pg_stat_statements"
    assert change.sql == (
        "ALTER SYSTEM SET shared_preload_libraries = 'timescaledb', 'auto_explain', 'pg_stat_statements'",
    )
    assert "pg_stat_statements" not in refused(plan)
    loaded = planned(settings={"shared_preload_libraries": "pg_stat_statements"})
    assert "shared_preload_libraries" not in by_name(loaded)
    assert next(c for c in loaded.changes if c.kind is Kind.EXTENSION).needs == ()


def test_a_library_that_is_not_installed_is_not_preloaded():
    """The server would not start."""
    plan = planned(available_extensions=MappingProxyType({"plpgsql": "1.0"}))
    assert not {"shared_preload_libraries", "pg_stat_statements"} & set(by_name(plan))
    assert "would not start" in refused(plan)["shared_preload_libraries"]


def test_idle_time_out_is_for_application_roles_only():
    """Superusers, replication and monitoring are spared; a stricter value of one's own stays."""
    roles = (
        Role("postgres", is_superuser=True), Role("repl", is_replication=True), Role("watch", is_monitor=True),
        Role("app"), Role("strict"), Role("lax"),
    )  # fmt: skip
    name = objects.IDLE
    own = (RoleSetting("strict", None, name, "10s"), RoleSetting("lax", None, name, "0"))
    plan = planned(roles=roles, role_settings=own)
    found = {c.role: (c.before, c.after, c.undo) for c in plan.changes if c.kind is Kind.ROLE_SETTING}
    assert found == {
        "app": (None, "60s", (f'ALTER ROLE "app" RESET {name}',)),
        "lax": ("0", "60s", (f"ALTER ROLE \"lax\" SET {name} = '0'",)),
    }
    server_wide = planned(settings={name: "30s"})
    assert not [c for c in server_wide.changes if c.kind is Kind.ROLE_SETTING]
    nobody = planned(roles=roles[:3])
    assert "no role for an application" in refused(nobody)[name]


def test_the_slow_log_is_granted_to_the_applications():
    """A superuser makes it, services write to it."""
    change = next(c for c in planned(roles=(Role("app"), Role('o"dd'))).changes if c.kind is Kind.TABLE)
    assert change.sql[0] == SCRIPT
    assert change.sql[1:] == (
        'GRANT SELECT, INSERT, DELETE ON TABLE "public"."slow_query_log" TO "app"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."slow_query_plan" TO "app"',
        'GRANT SELECT, INSERT, DELETE ON TABLE "public"."slow_query_log" TO "o""dd"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."slow_query_plan" TO "o""dd"',
    )
    assert change.undo == ('DROP TABLE "public"."slow_query_log"', 'DROP TABLE "public"."slow_query_plan"')
    there = planned(tables=MappingProxyType({"ava": frozenset({"other.slow_query_log"})}))
    assert not [c for c in there.changes if c.kind is Kind.TABLE]


def test_a_table_that_was_there_is_not_dropped_by_undo():
    """Plans of an older log stay."""
    found = planned(tables=MappingProxyType({"ava": frozenset({"public.slow_query_plan"})}), schema="audit")
    change = next(c for c in found.changes if c.kind is Kind.TABLE)
    assert change.undo == ('DROP TABLE "audit"."slow_query_log"',)
    assert change.id == "table:audit.slow_query_log@ava"


def test_versions_and_builds_differ():
    """lz4 where the build has it; log_connections as a list from 18; read-ahead left alone from 18."""
    old, new = by_name(planned(version=15)), by_name(planned())
    assert (old["wal_compression"], new["wal_compression"]) == ("lz4", "pglz")
    assert (old["log_connections"], new["log_connections"]) == ("on", "receipt, authentication, authorization")
    assert old["effective_io_concurrency"] == "200"
    assert "effective_io_concurrency" not in new
    assert "measurement" in refused(planned())["effective_io_concurrency"]
    bare = replace(settings()["wal_compression"], enumvals=("on", "off"))
    assert "wal_compression" not in by_name(planned(settings={"wal_compression": bare}))


def test_where_read_ahead_must_be_zero_it_stays():
    """A platform without posix_fadvise says so by its maximum."""
    none = replace(settings(15)["effective_io_concurrency"], value="0", max_val="0")
    assert "effective_io_concurrency" not in by_name(planned(version=15, settings={"effective_io_concurrency": none}))


def test_storage_decides_the_price_of_a_random_read():
    """Measured by the host, else by the server's own reads, else told; unknown is not guessed."""
    assert by_name(planned())["random_page_cost"] == "1.1"
    slow = planned(machine=host(storage=Storage.HDD), settings={"random_page_cost": "1.1"})
    assert by_name(slow)["random_page_cost"] == "4"
    unknown = planned(machine=host(storage=None))
    assert "--storage" in next(r.instead for r in unknown.refused if r.name == "random_page_cost")
    assert by_name(planned(machine=host(storage=None), read_latency=0.0002))["random_page_cost"] == "1.1"
    assert "random_page_cost" not in by_name(planned(machine=host(storage=None), read_latency=0.008))


def test_max_wal_size_follows_the_measured_wal():
    """Twice 15 minutes of it, within the disk; doubled while WAL forces checkpoints; never lowered."""
    assert "max_wal_size" not in by_name(planned(wal_bytes_per_15min=100 * MB))
    assert by_name(planned(wal_bytes_per_15min=3 * GB))["max_wal_size"] == "6GB"
    assert by_name(planned(wal_bytes_per_15min=3 * GB))["min_wal_size"] == "1536MB"
    tight = host(wal_free=10 * GB)
    assert by_name(planned(machine=tight, wal_bytes_per_15min=3 * GB))["max_wal_size"] == "2GB"
    forced = planned(wal_bytes_per_15min=100 * MB, requested_checkpoints=0.5)
    assert by_name(forced)["max_wal_size"] == "2GB"
    assert "not known" in refused(planned(wal_bytes_per_15min=None))["max_wal_size"]


def test_what_would_stop_the_server_from_starting_is_taken_out():
    """huge_pages = on needs pages that may not be there."""
    assert by_name(planned(settings={"huge_pages": "on"}))["huge_pages"] == "try"


def test_dangerous_values_for_all_sessions_are_named():
    """statement_timeout for the server kills migrations and reports; it is said, not silently undone."""
    plan = planned(settings={"statement_timeout": "30s", "transaction_timeout": "60s"})
    assert {"statement_timeout", "transaction_timeout"} <= set(refused(plan))


def test_what_was_told_of_a_machine_counts_without_the_rest():
    """Storage and CPUs need no memory; memory needs no CPUs."""
    no_memory = planned(machine=replace(host(cpus=16), memory=None))
    assert by_name(no_memory)["random_page_cost"] == "1.1"
    assert by_name(no_memory)["max_parallel_workers"] == "16"
    assert "shared_buffers" not in by_name(no_memory)
    assert any("--memory" in warning and "--cpus" not in warning for warning in no_memory.warnings)
    no_cpus = planned(machine=replace(host(), cpus=None))
    assert by_name(no_cpus)["shared_buffers"] == "2GB"
    assert "max_parallel_workers" in refused(no_cpus)


def test_many_sessions_are_an_argument_for_a_pooler():
    """Not for more of them."""
    assert "max_connections" not in refused(planned(sessions=70))
    plan = planned(sessions=90)
    assert "max_connections" not in by_name(plan)
    assert "pooler" in next(r.instead for r in plan.refused if r.name == "max_connections")


def test_what_outranks_alter_system_is_not_planned():
    """It would be accepted and change nothing."""
    fixed = replace(settings()["random_page_cost"], source="command line")
    hidden = replace(settings()["jit"], source="database")
    plan = planned(settings={"random_page_cost": fixed, "jit": hidden})
    assert not {"random_page_cost", "jit"} & set(by_name(plan))
    assert "outranks" in refused(plan)["random_page_cost"]
    assert "cannot be seen" in refused(plan)["jit"]


def test_what_is_already_written_waits_for_its_restart():
    """Planning it again would change nothing; another value that waits is replaced before it can harm."""
    waiting = replace(settings()["shared_buffers"], pending_restart=True, pending_value="2GB")
    plan = planned(settings={"shared_buffers": waiting})
    assert "shared_buffers" not in by_name(plan)
    assert "next restart" in refused(plan)["shared_buffers"]
    assert any("shared_buffers" in warning for warning in plan.warnings)
    harmful = replace(waiting, pending_value="7GB")
    assert by_name(planned(settings={"shared_buffers": harmful}))["shared_buffers"] == "2GB"


@pytest.mark.parametrize("managed", ["rds", "aurora", "cloudsql", "azure", "supabase", "neon", "patroni", "cnpg"])
def test_a_managed_server_is_told_where_to_change_it(managed):
    """The plan stands, the way differs."""
    assert any(managed in warning for warning in planned(managed=managed).warnings)


def test_warnings_name_what_stands_in_the_way():
    """Standby, allow_alter_system, rights, the wrong database."""
    assert any("standby" in w for w in planned(is_standby=True).warnings)
    assert not [c for c in planned(is_standby=True).changes if c.kind in {Kind.EXTENSION, Kind.TABLE}]
    assert any("allow_alter_system" in w for w in planned(allow_alter_system=False).warnings)
    nobody = planned(permissions=Permissions("app"))
    assert any("pg_monitor" in w for w in nobody.warnings)
    assert any("magnus role tuner" in w for w in nobody.warnings)
    assert any("database postgres" in w for w in planned(database="postgres").warnings)
    assert any("nr_hugepages" in w for w in planned(machine=host(64 * GB)).warnings)
    assert planned().warnings == ()


def test_standbys_come_first_when_a_value_rises():
    """A standby with fewer worker processes than its primary stops its recovery."""
    machine = host(cpus=32)
    plan = planned(machine=machine, standbys=(Standby("sb1"), Standby("sb2")))
    assert plan.order[0].startswith("on each standby (sb1, sb2): set max_worker_processes = 33")
    assert "primary" in plan.order[1]
    assert planned(machine=machine).order == ()
    assert any("pg_basebackup" in warning for warning in plan.warnings)


# --- the list that people come with -----------------------------------------------------------------------------------


def test_the_list_on_an_8_gb_machine_is_judged_line_by_line():
    """Right where it is right, and why not where it is not."""
    known = facts(version=15)
    found = {j.name: j for j in mission.judge(known, make_plan(known))}
    verdicts = {name: str(j.verdict) for name, j in found.items()}
    assert verdicts == {
        "max_connections": "dangerous",
        "shared_buffers": "right",
        "effective_cache_size": "right",
        "work_mem": "dangerous",
        "maintenance_work_mem": "right",
        "random_page_cost": "right",
        "effective_io_concurrency": "right",
        "wal_buffers": "changes nothing",
        "checkpoint_completion_target": "changes nothing",
        "log_min_duration_statement": "right",
        "log_connections": "right",
        "log_disconnections": "right",
        "pg_stat_statements": "wrong",
        "session guards": "wrong",
        "statement_timeout": "wrong",
        "transaction_timeout": "wrong",
        "slow_query_log": "wrong",
        "pg_reload_conf()": "wrong",
        "roll back": "wrong",
    }
    assert "12.5 GB" in found["max_connections"].reason
    assert "25 GB" in found["work_mem"].reason
    assert found["work_mem"].here == "4MB -> 10MB"
    assert "restart" in found["shared_buffers"].reason
    assert "3 of 12" in found["pg_reload_conf()"].here
    assert all(j.reason for j in found.values())


def test_the_list_on_other_machines():
    """2 GB of buffers are dangerous in 4 GB, and too few for 64."""
    small, large = facts(host(4 * GB)), facts(host(64 * GB), pooler=Pooler("pgbouncer", 20))
    judged = {j.name: j for j in mission.judge(small, make_plan(small))}
    assert str(judged["shared_buffers"].verdict) == "dangerous"
    assert str(judged["effective_cache_size"].verdict) == "wrong"
    judged = {j.name: j for j in mission.judge(large, make_plan(large))}
    assert str(judged["shared_buffers"].verdict) == "other value"
    assert str(judged["work_mem"].verdict) == "other value"
    assert str(judged["effective_io_concurrency"].verdict) == "other value"


def test_every_rule_has_words_for_the_documentation():
    """Formula and source; names are unique."""
    assert len({rule.setting for rule in RULES}) == len(RULES)
    assert all(rule.formula and rule.source and rule.group for rule in RULES)
