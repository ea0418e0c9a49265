"""The outbox: an event for each executed trade and for nothing else, told at least once, by any number of relays."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from service import ANNA, BERT, assert_clean, seed, serving

from ava import housekeeping
from ava.services import outbox
from tests.facade_fakes import until

pytest_plugins = ("service_fixtures",)


async def drain(db, told):
    async def tell(event):
        told.append(event)

    while await outbox.relay(db, tell):
        pass


async def test_a_trade_leaves_one_event_and_a_refusal_none(ava):
    """A repeat leaves none either; the event says what was executed."""
    db, told = ava.app.state.magnus.database, []
    trade = (await ava.order("AAAA", "buy", "10", key="k")).json()
    await ava.order("AAAA", "buy", "10", key="k")
    await ava.order("NONE", "buy", "1")
    await ava.order("BBBB", "buy", "1", account=BERT)
    await drain(db, told)

    assert [(event.kind, event.account_id) for event in told] == [("trade-executed", ANNA), ("trade-executed", BERT)]
    line = json.loads(told[0].to_json())
    assert (line["trade_id"], line["symbol"], line["side"], line["quantity"], line["price"], line["amount"]) == (
        trade["id"], "AAAA", "buy", "10", "12.34000000", "123.40",
    )  # fmt: skip
    await drain(db, told)
    assert len(told) == 2


async def test_relays_at_once_share_the_events(ava):
    """Nobody waits for another's, and each is told once while nobody fails."""
    db, told = ava.app.state.magnus.database, []
    for _ in range(25):
        await ava.order("AAAA", "buy", "0.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "BATCH", 3)
        await asyncio.gather(*(drain(db, told) for _ in range(3)))

    assert len(told) == len({event.id for event in told}) == 25


async def test_an_event_that_could_not_be_told_is_told_again(ava):
    """With all of its batch: the receiver sees it at least once."""
    db, told = ava.app.state.magnus.database, []
    for _ in range(3):
        await ava.order("AAAA", "buy", "0.1")

    async def fail_at_second(event):
        told.append(event.id)
        if len(told) == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await outbox.relay(db, fail_at_second)
    assert await outbox.relay(db, fail_at_second) == 3
    assert told == [*sorted(told)[:2][:1], *told[1:2], *told[2:]]
    assert told[2:] == sorted(set(told))


@pytest.mark.one_version
async def test_a_serving_ava_tells_its_events_to_the_log(migrated, caplog):
    """By itself, soon after the trade."""
    await seed(migrated)
    with caplog.at_level(logging.INFO, "ava.events"):
        async with serving(migrated, relay_interval=0.01) as ava:
            trade = (await ava.order("AAAA", "buy", "1")).json()
            await until(lambda: has_told(caplog, trade["id"]))
            await until(lambda: is_published(ava))
    await assert_clean(migrated)


async def test_a_failing_relay_is_no_reason_to_stop(caplog):
    """It is told once, and tried again."""
    gate, calls = asyncio.Event(), 0

    async def work():
        nonlocal calls
        calls += 1
        if calls > 2:
            gate.set()
            await asyncio.Event().wait()
        raise ConnectionError

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "ava.housekeeping"):
        patch.setattr(housekeeping, "_PAUSE", 0.0)
        task = asyncio.create_task(housekeeping._again(work))
        await asyncio.wait_for(gate.wait(), 20)
        task.cancel()
    assert [record.message for record in caplog.records] == ["housekeeping_failed"]


async def test_told_events_expire_and_others_do_not(ava):
    """However old they are."""
    db, told = ava.app.state.magnus.database, []
    await ava.order("AAAA", "buy", "1")
    await drain(db, told)
    await ava.order("AAAA", "buy", "1")
    await ava.admin.execute("update outbox set created_at = now() - interval '1 year'")

    assert (await housekeeping.expire(db, 0))[1] == 1
    await drain(db, told)
    assert len(told) == 2


async def has_told(caplog, trade_id):
    return any(getattr(record, "trade_id", None) == trade_id for record in caplog.records)


async def is_published(ava):
    return await ava.admin.fetchval("select bool_and(published_at is not null) from outbox")
