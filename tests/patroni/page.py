"""What was seen under Patroni as a page, from the results that were kept; it plays nothing."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from tests.faults.page import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.stage import Row

KEPT = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "patroni.md"


_INTRO = """# Patroni, run for real

`make patroni PATRONI=--write` starts one etcd and three members of Patroni on one machine, plays what is below, and
writes this page. The members run on `deploy/patroni/patroni.yml` as it is shipped: only addresses, ports, folders and
the certificate are others. `synchronous_mode` is on and not strict, `ttl` is 30 s, so a leader that vanishes is missed
for up to that long, whoever the client is.

Meanwhile eight writers move money by `run_once` with a key each, eight readers write a value and read it again
(`reads_after` by key), and two only read. All go through one `Database` with all three members in its DSN
(`target_session_attrs=read-write`, `sslmode=verify-full`) and each of them in `replicas`. Afterwards the keys, the
balances and the sessions left on the members are counted. Times are in seconds; those without a bound are Patroni's or
depend on it. Reads and the readers' writes have 3 s each.

One machine and one etcd: networks that part, a real watchdog, and an etcd that loses its quorum are not shown. The
suite has the switchover alone, in a shorter form, where Patroni is installed; `make system-packages` leaves it out,
because both together take longer than the suite can spare. `make system-packages DEBIAN="patroni etcd-server"` has it.
"""
TOLD = {
    1: "Asked of Patroni's API. The leader shuts down in order, and its synchronous standby takes over.",
    2: (
        "The standbys stop receiving, commits wait for them, and then the leader's server and its Patroni are "
        "killed at the same moment: its log is ahead of everybody's. Patroni waits for the lease to end and "
        "promotes the synchronous standby. Then the old leader's Patroni is started again: it must rewind "
        "what nobody else has."
    ),
    3: (
        "SIGSTOP to the leader's Patroni alone. Its server knows nothing and goes on while another one is "
        "promoted: for five seconds there are two that take writes, and those who are connected to the old "
        "one stay there. Then its Patroni goes on and ends it. The watchdog in the file is there to do that "
        "sooner; here is none."
    ),
    4: ("With `synchronous_mode: false`: what was acknowledged and not yet sent is lost, by no fault of a client."),
}


def page(kept: dict[str, Any]) -> str:
    """
    Return the page in Markdown.
    """
    on = "; ".join(f"{name} {value}" for name, value in kept["on"].items())
    return "\n".join([_INTRO, f"Played on {on}.", *(line for row in kept["rows"] for line in _section(row)), ""])


def _section(row: dict[str, Any]) -> list[str]:
    counted = ("acknowledged", "unknown", "lost", "doubled")
    figures = {**{name: row[name] for name in counted}, "longest write": round(row["longest"], 2), **row["figures"]}
    texts = {name: "yes" if value is True else shown(value, row["bounds"].get(name)) for name, value in figures.items()}
    cells = [f"| {name} | {text} |" for name, text in texts.items()]
    said = "; ".join([row["verdict"], *row["failures"], *row["late"]])
    told = fill(TOLD[row["fault"]], 120)
    return ["", f"## {row['name'][0].upper()}{row['name'][1:]}", "", told, "", f"| {said} | |", "|---|---|", *cells]


def write(rows: Sequence[Row], on: dict[str, Any], *, kept: Path = KEPT, to: Path = PAGE) -> None:
    """
    Keep the results, each in the place of its old one, and write the page.
    """
    old = json.loads(kept.read_text())["rows"] if kept.exists() else []
    found = {row["fault"]: row for row in [*old, *(row.as_dict() for row in rows)]}
    result = {"rows": [found[number] for number in sorted(found)], "on": on}
    kept.write_text(json.dumps(result, indent=1) + "\n")
    to.write_text(page(result))
