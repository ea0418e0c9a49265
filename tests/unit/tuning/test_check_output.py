"""What `magnus check` and `magnus explain` write: the same result for people, programs and pipelines."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from magnus import cli
from magnus.cli.answer import Answer, ExitCode, OutputFormat
from magnus.cli.check import answer
from magnus.cli.render import show
from magnus.tuning.checks import CHECKS, GROUPS, Severity, handbook, run
from tests.unit.tuning.snapshots import healthy, role, settings, table

ROOT = Path(__file__).resolve().parents[3]
TARGET = "postgresql://operator@db1/ava"


def examined(fail_on: Severity = Severity.ERROR, **parts) -> Answer:
    snapshot = healthy(**parts)
    return answer(TARGET, snapshot, [run(check, snapshot) for check in CHECKS], fail_on)


BAD = {
    "settings": settings(fsync="off"),
    "tables": tuple(table(oid=20000 + n, name=f"50% off,\n\x1b[31m{n}", has_primary_key=False) for n in range(12)),
    "roles": (role(), role(name="admin", is_superuser=True)),
}


def test_the_page_of_the_checks_is_in_step_with_them():
    """docs/checks.md is what `magnus explain` prints."""
    assert (ROOT / "docs" / "checks.md").read_text(encoding="utf-8") == handbook()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_check_is_described_whole(check):
    """Why, from when on, how to repair and how to undo, and where it stands in the page."""
    assert all(len(text) > 9 for text in (check.title, check.why, check.threshold, check.fix, check.undo))
    assert check.page == f"docs/checks.md#{check.code.lower()}"
    assert f"### {check.code}\n" in handbook()


def test_every_group_has_its_letter():
    """The code tells the group."""
    assert {name: {check.code[0] for check in module.CHECKS} for name, module in GROUPS.items()} == {
        "Server": {"S"}, "Statements": {"P"}, "Memory": {"M"}, "Connections and transactions": {"C"}, "Vacuum": {"V"},
        "Indexes": {"I"}, "Tables": {"T"}, "WAL and disk": {"W"}, "Replication": {"R"}, "Access and logging": {"A"},
        "Quick wins": {"Q"},
    }  # fmt: skip


def test_text_has_the_verdicts_first_and_an_action_for_each_finding(capsys):
    """A line a check, then each failing one with fix and undo, worst first, then the sum."""
    assert show(examined(**BAD), OutputFormat.TEXT) is ExitCode.NO
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"magnus 0.1.0  {TARGET}  PostgreSQL 18.6 (primary)  role operator (pg_monitor: yes)")
    verdicts = [line.split()[:2] for line in lines[1 : 1 + len(CHECKS)]]
    assert [code for _, code in verdicts] == [check.code for check in CHECKS]
    assert ["error", "S005"] in verdicts
    assert ["warning", "T002"] in verdicts
    assert ["unknown", "Q003"] in verdicts
    assert not [line for line in lines if not line.isprintable()]  # a name cannot steer the terminal
    text = "\n".join(lines)
    assert text.index("\nS005  A crash") < text.index("\nT002  Every table")
    assert "        help: ALTER SYSTEM SET fsync = 'on'; SELECT pg_reload_conf()" in lines
    assert "        undo: ALTER SYSTEM RESET fsync; SELECT pg_reload_conf()" in lines
    assert "and 2 more: --output-format json shows all" in text
    assert (
        lines[-1]
        == "Found 14 problems (1 error, 13 warning, 0 info); 55 checks passed, 4 unknown (Q003, Q007, Q008, Q009)."
    )


def test_a_clean_server_is_one_word(capsys):
    """Nothing found: exit code 0, and it says so."""
    assert show(examined(), OutputFormat.TEXT) is ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("Found no problem; 58 checks passed, 4 unknown (Q003")


@pytest.mark.parametrize(
    ("fail_on", "parts", "code"),
    [
        (Severity.ERROR, {"settings": settings(fsync="off")}, 1),
        (Severity.ERROR, {"settings": settings(ssl="off")}, 0),
        (Severity.WARNING, {"settings": settings(ssl="off")}, 1),
        (Severity.WARNING, {"settings": settings(log_lock_waits="off")}, 0),
        (Severity.INFO, {"settings": settings(log_lock_waits="off")}, 1),
        (Severity.INFO, {}, 0),
        (Severity.INFO, {"settings": ()}, 0),  # unknown is no finding
    ],
)
def test_the_exit_code_follows_the_severity_asked_for(fail_on, parts, code):
    """1 when a finding is as bad as --fail-on or worse."""
    assert examined(fail_on, **parts).exit_code == code


def test_json_holds_every_check_with_all_its_findings(capsys):
    """More than text shows, under the names of the code."""
    show(examined(**BAD), OutputFormat.JSON)
    found = json.loads(capsys.readouterr().out)
    assert (found["format_version"], found["command"], found["status"], found["exit_code"]) == ("1.0", "check", "no", 1)
    assert found["counts"] == {"error": 1, "warning": 13, "info": 0, "passed": 55, "unknown": 4}
    by_code = {one["code"]: one for one in found["checks"]}
    assert by_code.keys() == {check.code for check in CHECKS}
    tables = by_code["T002"]
    assert (tables["state"], tables["severity"], tables["examined"], tables["of"]) == ("finding", "warning", 12, 12)
    assert len(tables["findings"]) == 12
    assert tables["findings"][0].keys() == {"severity", "object", "evidence", "fix", "undo"}
    assert (by_code["Q003"]["state"], by_code["S001"]["state"]) == ("unknown", "ok")
    assert by_code["Q003"]["missing"]


def test_json_lines_are_one_object_a_check(capsys):
    """For tools that read as it comes."""
    show(examined(**BAD), OutputFormat.JSON_LINES)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["code"] for line in lines] == [check.code for check in CHECKS]
    assert {line["format_version"] for line in lines} == {"1.0"}


def test_github_gets_one_annotation_a_finding(capsys):
    """Line ends, percent signs, colons and commas are escaped, so that none of them ends the command."""
    show(examined(**BAD), OutputFormat.GITHUB)
    lines = capsys.readouterr().out.splitlines()
    errors = [line for line in lines if line.startswith("::error ")]
    assert len(errors) == 1
    assert errors[0].startswith("::error title=S005 A crash loses no data::fsync: is off%0Ahelp: ALTER SYSTEM")
    warnings = [line for line in lines if line.startswith("::warning ")]
    assert len(warnings) == 13
    assert "50%25 off,%0A\x1b[31m0" in warnings[0]
    assert len([line for line in lines if line.startswith("::debug::Q")]) == 4
    assert len(lines) == 18


# What the standard asks of the objects that we write (SARIF 2.1.0, sections 3.13 to 3.58): required properties, and no
# others than these.
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}


def strict(required: list[str], properties: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def several(item: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": item}


LOGICAL = strict(["name"], {name: {"type": "string"} for name in ("name", "fullyQualifiedName", "kind")})
RULE = strict(["id"], {"id": {"type": "string"}, "shortDescription": TEXT, "fullDescription": TEXT, "help": TEXT})
RESULT = strict(
    ["message", "ruleId"],
    {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": -1},
        "level": LEVEL,
        "message": TEXT,
        "locations": several(strict([], {"logicalLocations": several(LOGICAL)})),
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
)
NOTIFICATION = strict(
    ["message"],
    {
        "level": LEVEL,
        "message": TEXT,
        "associatedRule": strict(["id"], {"id": {"type": "string"}}),
    },
)
DRIVER = strict(["name"], {"name": {"type": "string"}, "version": {"type": "string"}, "rules": several(RULE)})
INVOCATION = strict(
    ["executionSuccessful"],
    {
        "executionSuccessful": {"type": "boolean"},
        "toolExecutionNotifications": several(NOTIFICATION),
    },
)
RUN = strict(
    ["tool"],
    {
        "tool": strict(["driver"], {"driver": DRIVER}),
        "invocations": several(INVOCATION),
        "results": several(RESULT),
    },
)
SARIF = strict(["version", "runs"], {
    "$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": several(RUN),
})  # fmt: skip


def test_sarif_is_valid_and_holds_every_finding(capsys):
    """Its rules are the checks, each result points at its own, and what is unknown is a notification."""
    show(examined(**BAD), OutputFormat.SARIF)
    found = json.loads(capsys.readouterr().out)
    jsonschema_rs.validator_for(SARIF).validate(found)
    (one,) = found["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [check.code for check in CHECKS]
    assert len(one["results"]) == 14
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in one["results"])
    assert {result["level"] for result in one["results"]} == {"error", "warning"}
    fingerprints = [result["partialFingerprints"]["object/v1"] for result in one["results"]]
    assert len(set(fingerprints)) == 14
    assert [n["associatedRule"]["id"] for n in one["invocations"][0]["toolExecutionNotifications"]] == [
        "Q003", "Q007", "Q008", "Q009",
    ]  # fmt: skip


def test_the_answer_goes_to_the_file_that_was_named(tmp_path, capsys):
    """`-o FILE`: nothing on standard output; a file that cannot be written is one clear line."""
    path = tmp_path / "found.sarif"
    assert show(examined(**BAD), OutputFormat.SARIF, path) is ExitCode.NO
    assert json.loads(path.read_text())["version"] == "2.1.0"
    assert capsys.readouterr() == ("", "")
    assert show(examined(), OutputFormat.JSON, tmp_path) is ExitCode.USAGE
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith(f"magnus: {tmp_path} cannot be written: ")
    assert captured.err.count("\n") == 1


def test_a_format_that_a_command_does_not_have_is_refused(capsys):
    """`magnus lanes --output-format sarif` says which it has."""
    assert cli.main(["lanes", "--output-format", "sarif"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "magnus: lanes has no sarif output; use --output-format text, json, json-lines\n"
    assert not captured.out
    assert cli.main(["lanes", "--output-format", "json-lines"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_explain_and_list_need_no_server(capsys):
    """One check, all of them, and their titles."""
    assert cli.main(["explain", "i002"]) == 0
    assert capsys.readouterr().out.startswith("### I002\n")
    assert cli.main(["explain"]) == 0
    assert capsys.readouterr().out == handbook()
    assert cli.main(["check", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(check.code in listed for check in CHECKS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["explain", "X999"], "X999"),
        (["check", "--only", "X999"], "X999"),
        (["check", "--ignore", "nope"], "NOPE"),
        (["check", "--memory", "much"], "much"),
        (["check", "--fail-on", "never"], "never"),
    ],
)
def test_a_wrong_word_is_exit_code_2_and_says_where_the_right_ones_are(arguments, named, capsys, monkeypatch):
    """One line on standard error, before anything is connected to."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
