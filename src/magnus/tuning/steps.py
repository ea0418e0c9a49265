"""One thing to take back and what is decided about it, in the words that the operator reads; pure."""

from __future__ import annotations

from dataclasses import dataclass

from magnus.tuning.change import Kind
from magnus.tuning.ledger import Decision, Made, Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """
    One thing to take back, and what will be done about it.

    Attributes:
        now: What is there.
        sql: Statements; empty when nothing is to be done, or when only the file can be edited.
        why: For a conflict: whose it is, or what hangs on it.
    """

    made: Made
    decision: Decision
    now: str | None
    sql: tuple[str, ...] = ()
    why: str = ""

    @property
    def words(self) -> str:
        change, verdict = self.made.change, self.decision.verdict
        if verdict is Verdict.CONFLICT:
            return f"{self.made.id}: kept as it is ({shown(self.now)}): {self.why}"
        if verdict is Verdict.IS_BACK:
            return f"{self.made.id}: is back already"
        if change["kind"] == Kind.INDEX and self.decision.value is not None:
            return f"{self.made.id}: make it again, as it was there before"
        if change["kind"] in {Kind.EXTENSION, Kind.TABLE, Kind.INDEX}:
            return f"{self.made.id}: drop it, as it was not there before"
        return f"{self.made.id}: {shown(self.now)} -> {shown(self.decision.value)}"


def shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)
