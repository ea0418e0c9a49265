"""The short form of the campaign, as part of the suite. It asks what went wrong, not how long it took."""

from __future__ import annotations

import json

import pytest

from tests.faults import campaign, detection, durability, overload, page
from tests.faults.mutants import MUTANTS, hunt
from tests.faults.stage import Row, Stage

pytestmark = pytest.mark.slow

SHORT = (
    durability.commit_reply_cut,
    durability.commit_request_cut,
    durability.sync_crash,
    durability.sync_cancel,
    durability.swallowed,
    durability.client_killed,
    detection.black_hole,
    detection.terminated,
    detection.backend_killed,
    detection.slow_lines,
    detection.immediate_restart,
    overload.cancel_storm,
    overload.drain,
)
QUICK = (0, 1, 2, 3)


@pytest.fixture
async def stage(server, pg_version, tmp_path):
    """
    The session's server; every fault leaves it running.
    """
    server.start_blocking()
    return Stage(server, tmp_path, pg_version, is_short=True)


@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: fault.__name__)
async def test_the_layer_stands_a_fault(stage, fault):
    row = await campaign.play(stage, 0, fault)
    assert not row.failures, campaign.line(row)
    assert row.cycles


@pytest.mark.one_version
@pytest.mark.parametrize("number", QUICK)
async def test_a_fault_notices_a_protection_that_is_switched_off(stage, number):
    is_caught, by, _ = await hunt(stage, MUTANTS[number])
    assert is_caught, by


async def test_a_fault_that_cannot_be_played_has_failed(stage):
    async def broken(_stage):
        raise LookupError("no such thing")

    row = await campaign.play(stage, 99, broken)
    assert row.verdict == "FAILED"
    assert "no such thing" in campaign.line(row)


def test_a_row_says_what_was_wrong_what_was_late_and_what_is_absent():
    row = Row(1, "example", figures={"gap": 0.1})
    assert row.verdict == "stood"
    row.note = "not here"
    assert row.verdict == "absent"
    row.within("gap", 2.0, 1.0)
    assert row.verdict == "late"
    row.expect(False, "lost: 1")
    assert row.verdict == "FAILED"
    assert json.loads(json.dumps(row.as_dict()))["verdict"] == "FAILED"
    assert {"not here", "! lost: 1", "! gap 2.00 > 1"} <= {each.strip() for each in campaign.line(row).splitlines()}


def test_what_asynchronous_standbys_lose_is_told_apart_and_never_hidden():
    rows = [Row(1, "a", "single", acknowledged=5), Row(3, "b", "async", acknowledged=5, lost=2)]
    text = campaign.summary(rows, 3, 4)
    assert "lost 0," in text
    assert "as reported above: 2" in text
    assert "mutants caught 3 of 4" in text


def test_pieces_that_were_played_at_different_times_make_one_page(tmp_path):
    """A fault that is played again takes the place of its old row; what is not played stays."""
    kept, to = tmp_path / "faults.json", tmp_path / "faults.md"
    first, second = Row(1, "a", pg=18, server="18.6"), Row(2, "b", pg=18, server="18.6", acknowledged=5)
    second.within("gap", 0.25, 0.5)
    mutants = [{"protection": "Keys", "caught": True, "by": "doubled: 7"}]
    page.write([first, second], mutants, kept=kept, to=to)
    first.expect(False, "lost: 1")
    page.write([first, Row(1, "a", pg=15, server="15.18")], [], kept=kept, to=to)

    text = to.read_text()
    assert text.count("| 1 a |") == 2
    assert "| 1 a | 18.6 |  | 0 | 0 | 0 | 0 | 0 | 0.00 s | FAILED | lost: 1 |" in text
    assert "gap: 0.25 (at most 0.5)" in text
    assert "| Keys | doubled: 7 | caught |" in text
    assert "PostgreSQL 18.6, 15.18" in text


def test_the_page_is_the_one_of_the_results_that_were_kept():
    assert page.PAGE.read_text() == page.page(json.loads(page.KEPT.read_text()))


@pytest.mark.parametrize(
    "arguments", [["--write", "--short"], ["--only", "x"], ["--only", "99"], ["--pg", "99"], ["--pg", "new"]]
)
def test_what_cannot_be_played_is_refused_before_anything_starts(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        campaign.main(arguments)
    assert refused.value.code == 2
    assert "error: " in capsys.readouterr().err
