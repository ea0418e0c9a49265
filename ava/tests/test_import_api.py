"""POST /api/import: exactly once, all or what can be, sent twice, cut off, or at the same time."""

from __future__ import annotations

import asyncio
import io
import random

import pytest
from service import ANNA, BERT, assert_clean, seed, serving

from ava.routers import imports
from ava.services import importing

pytest_plugins = ("service_fixtures",)

HEADER = "external_id,symbol,side,quantity,price,fee,executed_at\n"
WHEN = "2026-01-05T10:00:00Z"


def word(response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["type"].rpartition(":")[2]


def row(number: object, *, symbol="AAAA", side="buy", quantity="1", price="1", fee="") -> str:
    return f"T{number},{symbol},{side},{quantity},{price},{fee},{WHEN}\n"


def file_of(*rows: str) -> str:
    return HEADER + "".join(rows)


def mixed(count: int, start: int = 0) -> str:
    """Buys and sales that can all be booked, with fees and odd quantities."""
    rng = random.Random(7)
    rows = []
    for number in range(start, start + count):
        side, quantity = ("sell", "0.3") if number % 4 == 3 else ("buy", f"0.{rng.randint(1, 9)}1")
        symbol = "AAAA" if number % 8 < 4 else "BBBB"
        rows.append(
            row(number, symbol=symbol, side=side, quantity=quantity, price=f"{rng.randint(1, 9)}.33", fee="0.01")
        )
    return file_of(*rows)


GOOD = file_of(row(1), row(2, side="sell", quantity="0.5", price="2", fee="0.10"), row(3, symbol="BBBB"))


@pytest.mark.parametrize("mode", ["all", "partial"])
async def test_a_good_file_is_booked_row_by_row(ava, mode):
    """In the order of the file, at its prices and times, with its fees."""
    answer = await ava.upload(GOOD, mode=mode)
    assert answer.status_code == 200
    assert answer.json() == {"mode": mode, "rows": 3, "loaded": 3, "duplicates": 0, "rejected": 0, "errors": []}
    trades = (await ava.get("/api/trades")).json()["items"]
    assert [(trade["symbol"], trade["side"], trade["realised_pnl"]) for trade in trades] == [
        ("BBBB", "buy", None),
        ("AAAA", "sell", "0.40"),
        ("AAAA", "buy", None),
    ]
    assert {trade["executed_at"] for trade in trades} == {"2026-01-05T10:00:00.000000Z"}
    assert (await ava.get("/api/account")).json()["cash"] == "9998.90"


@pytest.mark.parametrize("mode", ["all", "partial"])
async def test_the_same_file_sent_twice_changes_nothing(ava, mode):
    """With the same key the same answer; with a new one every row is a duplicate."""
    first = await ava.upload(GOOD, key="k", mode=mode)
    before = await ava.ledger()
    again = await ava.upload(GOOD, key="k", mode=mode)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await ava.ledger() == before
    other = (await ava.upload(GOOD, mode=mode)).json()
    assert (other["loaded"], other["duplicates"], other["rejected"]) == (0, 3, 0)
    assert {**await ava.ledger(), "imports": None} == {**before, "imports": None}


@pytest.mark.one_version
async def test_a_form_is_the_same_file(ava):
    """The part named file of a multipart form, byte for byte the same request as the body alone."""
    headers = {"Idempotency-Key": "k"}
    files = {"file": ("trades.csv", GOOD.encode(), "application/vnd.ms-excel")}
    first = await ava.send("POST", "/api/import", files=files, headers=headers)
    assert first.json()["loaded"] == 3
    assert (await ava.upload(GOOD, key="k")).content == first.content


@pytest.mark.one_version
async def test_the_same_key_with_another_file_or_mode_is_refused(ava):
    """422, and nothing is booked."""
    await ava.upload(GOOD, key="k")
    before = await ava.ledger()
    for text, mode in ((file_of(row(9)), "all"), (GOOD, "partial"), (GOOD + "\n", "all")):
        answer = await ava.upload(text, key="k", mode=mode)
        assert (answer.status_code, word(answer)) == (422, "idempotency-key-reused")
    assert await ava.ledger() == before


MIXED = file_of(
    row(1),
    row(2, quantity="-1"),
    row(3, symbol="NONE"),
    row(4, symbol="USDX"),
    row(5, side="sell", quantity="5"),
    row(6, quantity="100000"),
    row(1),
    row(1, price="9"),
    "short,row\n",
    row(7, symbol="DEAD"),
)


async def test_partial_books_what_can_be_and_reports_the_rest(ava):
    """Each bad row with its line and reason; a repeated row is a duplicate, a changed one is not."""
    report = (await ava.upload(MIXED, mode="partial")).json()
    assert {name: report[name] for name in ("rows", "loaded", "duplicates", "rejected")} == {
        "rows": 10,
        "loaded": 2,
        "duplicates": 1,
        "rejected": 7,
    }
    assert [(error["line"], error["external_id"], error["reason"]) for error in report["errors"]] == [
        (3, "T2", "invalid-row"),
        (4, "T3", "unknown-instrument"),
        (5, "T4", "currency-mismatch"),
        (6, "T5", "insufficient-holdings"),
        (7, "T6", "insufficient-cash"),
        (9, "T1", "external-id-reused"),
        (10, None, "invalid-row"),
    ]
    assert all(error["detail"] for error in report["errors"])


async def test_all_books_nothing_when_a_row_is_bad(ava):
    """422 with the same report; the answer is kept, and nothing else is."""
    before = await ava.ledger()
    answer = await ava.upload(MIXED, key="k")
    assert (answer.status_code, word(answer)) == (422, "import-refused")
    assert (answer.json()["loaded"], answer.json()["rejected"]) == (0, 7)
    assert [error["line"] for error in answer.json()["errors"]] == [3, 4, 5, 6, 7, 9, 10]
    assert {**await ava.ledger(), "imports": []} == before
    again = await ava.upload(MIXED, key="k")
    assert (again.status_code, again.content) == (422, answer.content)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.one_version
async def test_all_stops_at_no_batch(migrated):
    """A bad row at the end takes back what earlier batches had written."""
    await seed(migrated)
    async with serving(migrated, import_batch_rows=10) as ava:
        good, bad = mixed(55), mixed(55) + row("x", symbol="NONE")
        assert (await ava.upload(bad)).status_code == 422
        assert await ava.count("trades") == 0
        assert (await ava.upload(good)).json()["loaded"] == 55
    await assert_clean(migrated)


@pytest.mark.one_version
async def test_errors_are_counted_beyond_those_listed(ava):
    """A file of nothing but mistakes is not answered with as large a list."""
    report = (await ava.upload(file_of(*(row(n, side="x") for n in range(250))), mode="partial")).json()
    assert (report["rejected"], len(report["errors"])) == (250, 100)


@pytest.mark.one_version
async def test_an_empty_file_is_an_import_of_nothing(ava):
    """A header alone is a file of no rows."""
    for mode in ("all", "partial"):
        assert (await ava.upload(HEADER, mode=mode)).json()["rows"] == 0


@pytest.mark.one_version
async def test_external_ids_belong_to_the_account(ava):
    """The same file of another account is its own trades."""
    for account in (ANNA, BERT):
        assert (await ava.upload(GOOD, account=account, key="k")).json()["loaded"] == 3
    assert await ava.count("trades") == 6


@pytest.mark.one_version
async def test_batches_are_as_one(migrated):
    """The result does not depend on where batches end, nor on the mode."""
    await seed(migrated)
    text, found = mixed(100), []
    for account, size, mode in ((1, 1000, "all"), (2, 7, "partial"), (2, 9, "all")):
        async with serving(migrated, import_batch_rows=size) as ava:
            report = (await ava.upload(text, account=account, mode=mode, key=f"{size} {mode}")).json()
            assert report["loaded"] + report["duplicates"] == 100
            found.append((await ava.get("/api/positions", account=account)).json()["items"])
            found[-1] = [{**item, "priced_at": None} for item in found[-1]]
    assert found[0] == found[1] == found[2]
    await assert_clean(migrated)


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("mode", ["all", "partial"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_an_import_that_was_cut_off_is_taken_up_where_it_was(migrated, monkeypatch, mode, after):
    """
    The second answer is the one that a run without the cut would have given, bad rows included, and every row is
    booked once.
    """
    await seed(migrated)
    text = (
        mixed(45) + row("late", side="sell", symbol="BBBB", quantity="500") + mixed(10, start=100).removeprefix(HEADER)
    )
    book, batches = importing._book, []

    async def cut(*args):
        if len(batches) == after:
            raise Killed
        batches.append(1)
        return await book(*args)

    async with serving(migrated, import_batch_rows=10) as ava:
        with monkeypatch.context() as patch:
            patch.setattr(importing, "_book", cut)
            first = await ava.upload(text, key="k", mode=mode)
        assert first.status_code == 500
        answer = await ava.upload(text, key="k", mode=mode)
        report = answer.json()
        if mode == "all":
            assert (answer.status_code, report["loaded"], await ava.count("trades")) == (422, 0, 0)
        else:
            assert (report["rows"], report["loaded"], report["duplicates"], report["rejected"]) == (56, 55, 0, 1)
            assert await ava.count("trades") == 55
    await assert_clean(migrated)


@pytest.mark.one_version
async def test_an_import_that_was_cut_off_is_taken_up_with_batches_of_another_size(migrated, monkeypatch):
    """The batches that were booked say how many rows they were."""
    await seed(migrated)
    text, book, batches = mixed(47), importing._book, []

    async def cut(*args):
        if len(batches) == 3:
            raise Killed
        batches.append(1)
        return await book(*args)

    async with serving(migrated, import_batch_rows=10) as ava:
        with monkeypatch.context() as patch:
            patch.setattr(importing, "_book", cut)
            assert (await ava.upload(text, key="k", mode="partial")).status_code == 500
    for size in (7, 25):
        async with serving(migrated, import_batch_rows=size) as ava:
            report = (await ava.upload(text, key="k", mode="partial")).json()
            assert (report["rows"], report["loaded"], report["duplicates"]) == (47, 47, 0)
            assert await ava.count("trades") == 47
    await assert_clean(migrated)


async def test_an_import_that_an_older_version_left_unfinished_is_taken_up(migrated):
    """Its journal says how far it came; a finished one answers as it did."""
    await seed(migrated)
    text = mixed(25)
    async with serving(migrated, import_batch_rows=10) as ava:
        await ava.upload(mixed(12), key="before", mode="partial")
        request_hash = imports.digest(io.BytesIO(text.encode()), importing.Mode.PARTIAL)
        journal = importing.Report(importing.Mode.PARTIAL, rows=12, loaded=12)
        await ava.admin.execute(
            "insert into imports (account_id, idempotency_key, request_hash, mode, response)"
            " values (1, 'k', $1, 'partial', $2)",
            request_hash,
            journal.to_json(),
        )
        report = (await ava.upload(text, key="k", mode="partial")).json()
        assert (report["rows"], report["loaded"], report["duplicates"]) == (25, 25, 0)
        await ava.admin.execute("delete from magnus_once")
        again = await ava.upload(text, key="k", mode="partial")
        assert (again.json(), again.headers["Idempotency-Replayed"]) == (report, "true")
        assert (await ava.upload(GOOD, key="k", mode="partial")).status_code == 422
    await assert_clean(migrated)


@pytest.mark.one_version
@pytest.mark.parametrize("mode", ["all", "partial"])
async def test_the_same_import_at_once_is_one_import(migrated, mode):
    """Ten runs of one request share the work and give the same answer."""
    await seed(migrated)
    async with serving(migrated, import_batch_rows=10) as ava:
        answers = await asyncio.gather(*(ava.upload(mixed(65), key="k", mode=mode) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].json()["loaded"] == 65
        assert await ava.count("trades") == 65
    await assert_clean(migrated)


@pytest.mark.one_version
async def test_imports_and_orders_of_one_account_at_once_keep_the_books(migrated):
    """Different files that overlap, orders in between, small batches: every row once, and the audit is clean."""
    await seed(migrated)
    async with serving(migrated, import_batch_rows=5) as ava:
        imports = [ava.upload(mixed(60, start=start), mode="partial") for start in (0, 20, 40)]
        orders = [ava.order("AAAA", "buy", "0.5") for _ in range(30)]
        answers = await asyncio.gather(*imports, *orders)
        assert {answer.status_code for answer in answers} == {200, 201}
        found = await ava.admin.fetch("select external_id from trades where source = 'import'")
        assert len(found) == len({row["external_id"] for row in found})
    await assert_clean(migrated)


FILES = [
    (b"", "text/csv", 400, "invalid-file"),
    (b"a,b\n1,2\n", "text/csv", 400, "invalid-file"),
    (HEADER.encode() + b"\xff\n", "text/csv", 400, "invalid-file"),
    (HEADER.encode() + b'"open', "text/csv", 400, "invalid-file"),
    (GOOD.encode("utf-16"), "text/csv", 400, "invalid-file"),
    (GOOD.encode(), "application/json", 415, "unsupported-media-type"),
    (GOOD.encode(), "", 415, "unsupported-media-type"),
    (GOOD.encode(), "multipart/form-data", 400, "blank"),
    (GOOD.encode(), "multipart/form-data; boundary=x", 400, "blank"),
    (b"--x\r\nContent-Disposition: form-data; name=other; filename=f\r\n\r\nx\r\n--x--\r\n",
     "multipart/form-data; boundary=x", 400, "invalid-file"),
    (b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--x--\r\n",
     "multipart/form-data; boundary=x", 400, "blank"),
]  # fmt: skip


@pytest.mark.one_version
async def test_what_is_no_file_is_refused_and_changes_nothing(ava):
    """Wrong type, encoding, columns or form: nothing is booked, and the key is free for the right file."""
    before = await ava.ledger()
    for content, kind, status, reason in FILES:
        headers = {"Idempotency-Key": "k", "Content-Type": kind}
        answer = await ava.send("POST", "/api/import", content=content, headers=headers, params={"mode": "partial"})
        assert (answer.status_code, word(answer)) == (status, reason), (content[:60], kind)
    assert await ava.ledger() == before
    assert (await ava.upload(GOOD, key="k")).json()["loaded"] == 3


@pytest.mark.one_version
async def test_a_file_that_breaks_at_its_end_books_nothing(migrated):
    """Also in batches: the whole file is looked at before its first row is booked."""
    await seed(migrated)
    async with serving(migrated, import_batch_rows=5) as ava:
        answer = await ava.upload(mixed(50).encode() + b"\xff\n", mode="partial")
        assert (answer.status_code, await ava.count("trades")) == (400, 0)


@pytest.mark.one_version
async def test_a_file_over_the_limits_is_refused(migrated):
    """Too many bytes, announced or not, and too many rows: 413."""
    await seed(migrated)

    async def pieces():
        for _ in range(200):
            yield b"x" * 1024

    async with serving(migrated, import_max_bytes=1024, import_max_rows=5) as ava:
        headers = {"Idempotency-Key": "k", "Content-Type": "text/csv"}
        for content in (b"x" * 200_000, pieces()):
            answer = await ava.send("POST", "/api/import", content=content, headers=headers)
            assert (answer.status_code, word(answer)) == (413, "body-too-large")
        answer = await ava.upload(mixed(6))
        assert (answer.status_code, word(answer)) == (413, "too-many-rows")
        assert await ava.count("trades") == 0


@pytest.mark.one_version
async def test_an_unknown_mode_is_refused(ava):
    """422, before the file is read."""
    for mode in ("some", "", "ALL"):
        assert (await ava.upload(GOOD, mode=mode)).status_code == 422


@pytest.mark.one_version
async def test_ten_thousand_rows_are_booked_in_one_request(migrated):
    """Batch by batch or as a whole; sent again under a new key every row is a duplicate."""
    await seed(migrated)
    async with serving(migrated) as ava:
        for account, mode in ((ANNA, "partial"), (BERT, "all")):
            await ava.deposit(account, "1000000.00")
            for loaded in (10_000, 0):
                report = (await ava.upload(mixed(10_000), account=account, mode=mode)).json()
                assert (report["loaded"], report["duplicates"]) == (loaded, 10_000 - loaded)
    await assert_clean(migrated)
