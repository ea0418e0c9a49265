"""The parts of the campaign that need no Patroni, and its shortest fault where one is installed."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.faults.stage import Row
from tests.patroni import campaign, faults, members, page


@pytest.mark.slow
async def test_a_planned_switchover_loses_doubles_and_shows_nothing_stale():
    """On the file in deploy/, but for a loop that turns faster."""
    if reason := members.missing():
        pytest.skip(reason)
    async with members.group(loop_wait=1, ttl=20, retry_timeout=3) as found:
        row = await campaign.play(found, 1 + faults.FAULTS.index(faults.switchover))
    assert not row.failures, row
    assert row.acknowledged


def test_only_places_are_replaced_in_the_file_that_is_shipped(tmp_path):
    """What decides who leads, who may come in and what is kept stays as it is there."""
    shipped = yaml.safe_load(members.SHIPPED.read_text())
    member = members.Member("db2", "127.0.0.12", 5432, 8008, tmp_path)
    found = members.merged(shipped, member.places("127.0.0.10:2379", tmp_path))
    assert found["name"] == "db2"
    assert found["postgresql"]["connect_address"] == "127.0.0.12:5432"
    for kept in ("bootstrap", "watchdog", "tags", "scope"):
        assert found[kept] == shipped[kept]
    assert found["postgresql"]["pg_hba"] == shipped["postgresql"]["pg_hba"]
    with pytest.raises(KeyError):
        members.merged(shipped, {"postgresql": {"no_such_place": 1}})


def test_what_is_played_again_takes_the_place_of_its_old_row(tmp_path):
    """What is not stays."""
    kept, to = tmp_path / "results.json", tmp_path / "patroni.md"
    first, second = Row(1, "planned switchover", acknowledged=7), Row(2, "leader killed")
    first.within("writes back after that", 0.25, 15.0)
    page.write([first, second], {"Patroni": "3"}, kept=kept, to=to)
    second.expect(False, "lost: 1")
    page.write([second], {"Patroni": "4"}, kept=kept, to=to)

    text = to.read_text()
    assert text.count("## ") == 2
    assert "| acknowledged | 7 |" in text
    assert "| writes back after that | 0.25 (at most 15) |" in text
    assert "| FAILED; lost: 1 | |" in text
    assert "Played on Patroni 4" in text


def test_the_page_is_the_one_of_the_results_that_were_kept():
    assert page.PAGE.read_text() == page.page(json.loads(page.KEPT.read_text()))


def test_every_fault_is_told_of_on_the_page():
    assert page.TOLD.keys() == set(range(1, len(faults.FAULTS) + 1))


@pytest.mark.parametrize("arguments", [["--only", "x"], ["--only", "0"], ["--only", "99"]])
def test_what_cannot_be_played_is_refused_before_anything_starts(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        campaign.main(arguments)
    assert refused.value.code == 2
    assert "error: " in capsys.readouterr().err
