"""Random sequences of apply, rollback, foreign changes and kills: a model always knows what must be there."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from magnus.tuning import autoconf
from magnus.tuning.service import wait_until
from tests.tuning_faults import run_and_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus.tuning.plan import Plan
    from tests.tuning_cluster import Bench

VALUES = {
    "work_mem": ["5MB", "6MB", "7MB", "8MB"],
    "random_page_cost": ["1.1", "2", "3"],
    "log_temp_files": ["1MB", "2MB", "3MB"],
    "log_lock_waits": ["on", "off"],
    "search_path": ['"$user", public', "public", '"odd, one", public'],
    "shared_preload_libraries": ["pg_stat_statements", "auto_explain", "auto_explain, pg_stat_statements"],
}
CAMPAIGN = bool(os.environ.get("MAGNUS_CAMPAIGN"))
SEEDS = range(40) if CAMPAIGN else (1, 2, 3)
LENGTH = 25 if CAMPAIGN else 9


class Model:
    """
    The same story, told by dictionaries: what is in the file, and a stack of what each run found and put there.
    """

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.server = bench.server()
        self.random = random.Random(seed)
        self.file = autoconf.values(bench.auto_conf.read_bytes())
        self.stack: list[dict[str, tuple[str | None, str]]] = []
        self.log: list[str] = []

    def step(self) -> None:
        moves: list[Callable[[], None]] = [
            self.apply, self.apply, self.foreign, self.rollback_last, self.killed, self.foreign_reset,
        ]  # fmt: skip
        move = self.random.choice(moves)
        move()
        self.log.append(move.__name__)
        self.check()

    def _plan(self) -> dict[str, str]:
        names = self.random.sample(sorted(VALUES), self.random.randint(1, 3))
        chosen = {name: self.random.choice(VALUES[name]) for name in names}
        self.server = self.bench.server()
        return {name: value for name, value in chosen.items() if not self._is_there(name, value)}

    def _is_there(self, name: str, value: str) -> bool:
        """
        In force already, or a list that would lose an item: no change, or a refusal that has its own test.
        """
        setting = self.server.settings[name]
        now = {item.strip() for item in setting.value.split(",") if item.strip()}
        if name == "shared_preload_libraries" and not now <= {item.strip() for item in value.split(",")}:
            return True
        written = self.file.get(name)
        is_written = written is not None and setting.means(written) == setting.means(value)
        return setting.means(value) == setting.means(setting.value) or is_written

    def _made(self, wanted: dict[str, str]) -> Plan:
        changes = (self.bench.setting(name, value, server=self.server) for name, value in wanted.items())
        return self.bench.plan(*changes, server=self.server)

    def apply(self) -> None:
        wanted = self._plan()
        if not wanted:
            return
        plan = self._made(wanted)
        self.bench.apply(plan)
        self._note(wanted)

    def _note(self, wanted: dict[str, str]) -> None:
        self.stack.append({name: (self.file.get(name), value) for name, value in wanted.items()})
        self.file.update(wanted)

    def killed(self) -> None:
        """
        A kill -9 somewhere in an apply, then one of the two ways on.
        """
        wanted = self._plan()
        if not wanted:
            return
        plan = self._made(wanted)
        file = self.bench.folder / "plan.json"
        file.write_text(plan.dumps())
        own = ["--yes", "--skip-preflight", "--journal", str(self.bench.journal)]
        line = self.random.randint(1, 2 * len(wanted) + 3)
        arguments = ["--dsn", self.bench.cluster.dsn(), "apply", str(file), *own]
        run_and_kill(arguments, line, is_after=self.random.random() < 0.5)
        run = self.bench.magnus("history").data["runs"]
        is_begun = bool(run) and run[-1]["digest"] == plan.digest
        if not is_begun:
            return
        if self.random.random() < 0.5 and run[-1]["status"] == "interrupted":
            self.bench.magnus("apply", "--resume", "--yes")
            self._note(wanted)
        else:
            self.bench.magnus("rollback", run[-1]["run"], "--yes")

    def foreign(self) -> None:
        name = self.random.choice(["work_mem", "log_temp_files", "jit"])
        value = {"work_mem": "44MB", "log_temp_files": "44MB", "jit": "off"}[name]
        self.bench.sql(f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")
        self.file[name] = value
        self._settle()

    def foreign_reset(self) -> None:
        name = self.random.choice(["random_page_cost", "jit"])
        self.bench.sql(f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")
        self.file.pop(name, None)
        self._settle()

    def _settle(self) -> None:
        def is_settled() -> bool:
            settings = self.bench.server().settings
            watched = (settings[name] for name in ("work_mem", "log_temp_files", "jit", "random_page_cost"))
            return all(s.means(self.file.get(s.name, s.boot_val or "")) == s.means(s.value) for s in watched)

        assert wait_until(is_settled, 30.0)

    def rollback_last(self) -> None:
        """
        Three-way: only what is still as the run left it goes back; a conflict stays open.
        """
        if not self.stack:
            return
        self.bench.magnus("rollback", "--yes", code=None)
        self._take_back(self.stack[-1])
        if not self.stack[-1]:
            self.stack.pop()

    def _take_back(self, run: dict[str, tuple[str | None, str]]) -> None:
        for name in list(run):
            before, ours = run[name]
            now = self.file.get(name)
            if now in {ours, before}:
                del run[name]
                self._put(name, before if now == ours else now)
            elif name in {"shared_preload_libraries", "search_path"} and now is not None:
                raise AssertionError("nobody else changes lists here")

    def _put(self, name: str, value: str | None) -> None:
        if value is None:
            self.file.pop(name, None)
        else:
            self.file[name] = value

    def check(self) -> None:
        found = autoconf.values(self.bench.auto_conf.read_bytes())
        assert found == self.file, self.log


@pytest.mark.parametrize("seed", SEEDS)
def test_the_file_is_always_what_the_model_says(bench: Bench, seed: int):
    """And at the end everything of ours that nobody touched is gone."""
    model = Model(bench, seed)
    for _ in range(LENGTH):
        model.step()
    bench.magnus("rollback", "--all", "--yes", code=None)
    for run in reversed(model.stack):
        model._take_back(run)
    model.check()
    bench.magnus("rollback", "--all", "--yes", code=None)
    model.check()
