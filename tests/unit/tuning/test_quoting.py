"""No value leaves its quotes: for SQL, for a file, for a shell, for YAML."""

from __future__ import annotations

import json
import random
import shlex

import pytest

from magnus.errors import ConfigError
from magnus.tuning import quoting, targets
from magnus.tuning.plan import Change, Kind, Plan, Target
from magnus.tuning.targets import Name

EVIL = (
    "'; DROP TABLE trades; --", "\\'; SELECT 1; --", "$$x$$", "a\\", "''", "'", "\\", '"', "$(touch /tmp/x)", "`id`",
    "#", "x' #", "%s", "{}", ": - !!py/obj", "é\u2028ü", "\t", "a,b", "a, 'b'", "E'x'", "--", "/*", "*/", ":name",
)  # fmt: skip
TARGET = Target("7", "db1", 5432, "ava", 180006)


def plan_of(name: str, value: str) -> Plan:
    change = Change(f"setting:{name}", Kind.SETTING, name, value, value, (), (), reason=f"because {value}")
    return Plan(TARGET, (change,), warnings=(f"beware {value}",)).sealed()


@pytest.mark.parametrize("value", EVIL)
def test_a_literal_means_the_value_under_both_readings_of_backslashes(value):
    """A plain literal holds no backslash; one with E'' doubles every one."""
    text = quoting.literal(value)
    body = text[2:-1] if text.startswith("E'") else text[1:-1]
    if text.startswith("E'"):
        assert body.replace("''", "'").replace("\\\\", "\\") == value
    else:
        assert "\\" not in body
        assert body.replace("''", "'") == value
    assert "'" not in body.replace("''", "")


@pytest.mark.parametrize(
    "name", ["", "a b", "a;b", "a.b.c", "1a", "a'", 'a"', "a-b", "a\n", "x" * 200, "é", "a.", ".a"]
)
def test_a_name_that_is_none_is_refused(name):
    """Nothing but letters, digits and _, one dot at most."""
    with pytest.raises(ConfigError, match="setting"):
        quoting.alter_system(name, "1")
    for target in Name:
        with pytest.raises(ConfigError):
            targets.render(plan_of(name, "1"), target)


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_a_value_of_several_lines_is_refused(value):
    """It would be a second line of a configuration file."""
    for target in Name:
        with pytest.raises(ConfigError, match="single line"):
            targets.render(plan_of("work_mem", value), target)


def test_a_list_is_one_literal_an_item():
    """One quoted text would be one library of that long name, and the next start would fail."""
    assert quoting.alter_system("shared_preload_libraries", "a, b") == (
        "ALTER SYSTEM SET shared_preload_libraries = 'a', 'b'"
    )
    assert quoting.alter_system("shared_preload_libraries", "") == "ALTER SYSTEM SET shared_preload_libraries = ''"
    assert quoting.conf_line("shared_preload_libraries", "a, b") == "shared_preload_libraries = 'a, b'"
    assert quoting.alter_system("log_line_prefix", "a, b") == "ALTER SYSTEM SET log_line_prefix = 'a, b'"


def test_reset_and_role_statements():
    """None is RESET; roles and databases are quoted."""
    assert quoting.alter_system("work_mem", None) == "ALTER SYSTEM RESET work_mem"
    assert quoting.alter_role('a"b', "work_mem", "1MB", database="d b") == (
        'ALTER ROLE "a""b" IN DATABASE "d b" SET work_mem = \'1MB\''
    )
    assert quoting.alter_role("app", "work_mem", None) == 'ALTER ROLE "app" RESET work_mem'
    for name in ("", "a\0"):
        with pytest.raises(ConfigError):
            quoting.identifier(name)


@pytest.mark.parametrize("value", EVIL)
def test_every_output_gives_the_value_back(value):
    """Read as its consumer reads it, there is that value and nothing else but comments."""
    plan = plan_of("cluster_name", value)
    sql = [line for line in targets.render(plan, Name.ALTER_SYSTEM).split("\n") if line and not line.startswith("--")]
    assert sql == [f"ALTER SYSTEM SET cluster_name = {quoting.literal(value)};", "SELECT pg_catalog.pg_reload_conf();"]
    conf = [line for line in targets.render(plan, Name.CONF).split("\n") if line and not line.startswith("#")]
    assert conf == [quoting.conf_line("cluster_name", value)]
    yaml = targets.render(plan, Name.PATRONI).split("\n")
    lines = [line for line in yaml if line.strip() and not line.strip().startswith("#")]
    assert lines[:2] == ["postgresql:", "  parameters:"]
    assert json.loads(lines[2].removeprefix("    cluster_name: ")) == value
    assert len(lines) == 3
    script = [line for line in targets.render(plan, Name.RDS).split("\n") if line and not line.startswith("#")]
    words = shlex.split(script[1])
    assert len(script) == 2
    assert json.loads(words[-1])[0]["ParameterValue"] == value


def test_random_values_never_break_out():
    """Ten thousand texts of quotes, backslashes, comments and dollars."""
    chance = random.Random(7)
    pieces = [*"'\\\"$`;#-/*(){}[]:,! ab", "--", "''", "\\'", "E'", "$$"]
    for _ in range(10_000):
        value = "".join(chance.choices(pieces, k=chance.randint(0, 12)))
        body = quoting.literal(value)
        inside = body[body.index("'") + 1 : -1].replace("\\\\", "").replace("''", "")
        assert "'" not in inside
        assert "\\" not in inside or not body.startswith("E")
        line = quoting.conf_line("a", value)
        assert "'" not in line[5:-1].replace("\\\\", "").replace("''", "")


def test_rds_counts_in_the_settings_unit_twenty_a_call():
    """work_mem in kB, shared_buffers in pages; more than 20 parameters are two calls."""
    changes = tuple(
        Change(f"setting:a{number}", Kind.SETTING, f"a{number}", "1MB", "2GB", (), (), unit="8kB")
        for number in range(21)
    )
    text = targets.render(Plan(TARGET, changes), Name.RDS)
    calls = [line for line in text.splitlines() if line.startswith("aws ")]
    assert [len(json.loads(shlex.split(call)[-1])) for call in calls] == [20, 1]
    assert json.loads(shlex.split(calls[1])[-1])[0] == {
        "ParameterName": "a20", "ParameterValue": "262144", "ApplyMethod": "immediate",
    }  # fmt: skip


def test_what_is_no_setting_is_a_comment_outside_of_sql():
    """A script of several lines stays commented line by line."""
    change = Change(
        "table:x@ava", Kind.TABLE, "x", None, "created", ("CREATE TABLE x (\n  a int\n)",), (), database="ava",
        reason="so\nthat",
    )  # fmt: skip
    plan = Plan(TARGET, (change,))
    for target in (Name.CONF, Name.PATRONI, Name.RDS):
        lines = targets.render(plan, target).splitlines()
        assert all(line.startswith("#") for line in lines if line != "set -eu")
        assert any("CREATE TABLE x (" in line for line in lines)
    assert "CREATE TABLE x (\n  a int\n);" in targets.render(plan, Name.ALTER_SYSTEM)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("trades_a", '"public"."trades_a"'),
        ("shop.trades_a", '"shop"."trades_a"'),
        ('"Odd.s"."T""x"', '"Odd.s"."T""x"'),
        ('shop."At"', '"shop"."At"'),
    ],
)
def test_a_written_name_is_quoted_in_all_its_parts(text: str, quoted: str):
    """As `written` writes it, with a schema or in public."""
    assert quoting.requoted(text) == quoted


@pytest.mark.parametrize("text", ["", "a.b.c", 'a"b', "a b", "a; DROP TABLE b", '"a', "a."])
def test_what_is_no_written_name_is_refused(text: str):
    """Nothing is guessed."""
    with pytest.raises(ConfigError):
        quoting.requoted(text)
