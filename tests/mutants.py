"""Switch each protection off, one at a time, in a copy of the tree: the tests named here must fail.

python tests/mutants.py            run all, print a table, exit 1 when one survives
python tests/mutants.py --write    the same, and write docs/protections.md
python tests/mutants.py --new      with either: only what the page does not list as caught already, or lists differently
python tests/mutants.py WORD …     only protections with one of these words in them; nothing is written
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "protections.md"
POOL = "src/magnus/pool"
UNIT = "tests/unit/pool"
CONTROL = "tests/unit/test_control.py"
LIMIT = 120.0  # for a busy machine: one that runs out counts as caught


class Mutant(NamedTuple):
    """
    One protection, the text that makes it, what takes its place, and the tests that must notice.
    """

    protection: str
    file: str
    text: str
    mutated: str
    tests: tuple[str, ...]


def lanes(protection: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"{POOL}/_lanes.py", text, mutated, tuple(f"{UNIT}/test_lanes.py::{t}" for t in tests))


def codel(protection: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"{POOL}/_codel.py", text, mutated, tuple(f"{UNIT}/test_codel.py::{t}" for t in tests))


def state(protection: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"{POOL}/_state.py", text, mutated, tuple(f"{UNIT}/test_state.py::{t}" for t in tests))


def shell(protection: str, file: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"{POOL}/{file}", text, mutated, tuple(f"tests/races/{t}" for t in tests))


def tuning(protection: str, file: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(
        protection, f"src/magnus/tuning/{file}", text, mutated, tuple(f"tests/unit/tuning/{t}" for t in tests)
    )


def slow_log(protection: str, file: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"src/magnus/{file}", text, mutated, tuple(f"tests/{t}" for t in tests))


def optimizer(protection: str, file: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"src/magnus/tuning/{file}", text, mutated, tuple(f"tests/{t}" for t in tests))


def unit(protection: str, file: str, text: str, mutated: str, *tests: str) -> Mutant:
    return Mutant(protection, f"src/magnus/{file}", text, mutated, tuple(f"tests/{t}" for t in tests))


MUTANTS = (
    lanes(
        "Caps are nested: a lane counts against every lane above it",
        "used[rank] += 1\n            rank -= 1", "used[rank] += 1\n            rank = -1",
        "test_critical_finds_a_slot_when_all_others_are_saturated",
    ),
    lanes(
        "A reserve exists: nothing below CRITICAL may take every slot",
        "high = max_size - (reserve + 1) // 2", "high = max_size",
        "test_every_lane_can_work_and_critical_has_a_reserve",
    ),
    lanes(
        "First come, first served inside a lane",
        "self._queues[rank].popitem(last=False)", "self._queues[rank].popitem(last=True)",
        "test_waiters_of_one_lane_are_served_in_order",
    ),
    lanes(
        "CRITICAL goes first",
        "if is_strict and self._strict < _RELIEF - 1:", "if False:",
        "test_critical_goes_first",
    ),
    lanes(
        "Relief: one hand-off in 16 goes to the others",
        "if is_strict and self._strict < _RELIEF - 1:", "if is_strict:",
        "test_endless_critical_work_does_not_starve_the_rest",
    ),
    lanes(
        "Floors: hand-offs are shared by weight",
        "self._pass[rank] < least", "rank < best",
        "test_hand_offs_are_shared_by_weight",
    ),
    lanes(
        "Absence earns no credit",
        "max(self._present, self._pass[rank])", "self._pass[rank]",
        "test_absence_earns_no_credit",
    ),
    lanes(
        "A lane at its cap does not hold up the others",
        "caps[rank]:\n                break", "caps[rank]:\n                return -1",
        "test_a_lane_at_its_cap_does_not_block_the_others",
    ),
    lanes(
        "Work that is too late is dropped, not done",
        "waiter.deadline <= now", "False",
        "test_expired_waiters_are_dropped_when_their_turn_comes",
    ),
    lanes(
        "Callers that went away are passed over",
        "if waiter.signal.done():\n                continue\n            if waiter.deadline is not None",
        "if waiter.deadline is not None",
        "test_waiters_that_went_away_are_dropped_silently",
    ),
    lanes(
        "Demand considers caps: no connect for a waiter that may not have it",
        "self._caps[rank] - self._used[rank])", "10**9)",
        "test_demand_counts_who_could_be_served",
    ),
    Mutant(
        "Queues are bounded",
        f"{POOL}/_lanes.py", ">= self._max_waiting[rank]", "< 0",
        ("tests/races/test_pool_callers.py::test_a_full_queue_refuses_at_once",),
    ),
    Mutant(
        "Only who may be shed is shed",
        f"{POOL}/_lanes.py", "if not waiter.may_be_shed:", "if False:",
        (f"{UNIT}/test_codel.py::test_who_named_no_lane_is_not_shed",),
    ),
    Mutant(
        "One impatient waiter costs nobody a place",
        f"{POOL}/_lanes.py",
        "max(newest.deadline, newest.since + waiter.deadline - waiter.since) - now", "newest.deadline - now",
        (f"{UNIT}/test_codel.py::test_one_impatient_waiter_costs_nobody_a_place",),
    ),
    Mutant(
        "Shedding is for lanes that have a target",
        f"{POOL}/_lanes.py", "wait_targets.get(lane),", "wait_targets.get(lane, 1.0),",
        (
            f"{UNIT}/test_codel.py::test_critical_and_high_are_never_shed",
            f"{UNIT}/test_codel.py::test_without_targets_nobody_is_shed",
        ),
    ),
    codel(
        "A queue that stands is cut where a longer wait is worthless",
        "return self.is_eager or self", "return self",
        "test_a_queue_that_stands_is_cut_where_a_longer_wait_is_worthless",
    ),
    codel(
        "A queue that cannot be served in time is cut",
        "return left is not None and behind", "return left is None and behind",
        "test_a_queue_that_stands_is_cut_when_its_newest_would_come_too_late",
    ),
    codel(
        "Saturation alone refuses nobody",
        "return self.is_eager or self", "return True or self",
        "test_a_queue_that_stands_is_let_be_when_all_will_be_served",
    ),
    codel(
        "A server that stood still is taken to go on as before",
        "max(*self._rates, self._rate(now))", "self._rate(now)",
        "test_the_best_rate_of_late_counts",
    ),
    Mutant(
        "A slot that served nobody in time is no sign that the queue moves",
        f"{POOL}/_codel.py", "self._handed = max(self._handed - 1, 0)", "pass",
        (f"{UNIT}/test_brown_out.py::test_service_is_back_within_two_seconds_of_a_brown_out",),
    ),
    codel(
        "The shortest wait of an interval counts: bursts pass",
        "min(self._least, wait)", "max(self._least, wait)",
        "test_one_short_wait_in_an_interval_proves_that_the_queue_runs_empty",
    ),
    codel(
        "What was long ago says nothing",
        "since < self._ends and self._least", "self._least",
        "test_what_was_long_ago_says_nothing_about_today",
    ),
    codel(
        "A queue that runs empty is not standing",
        "wait = 0.0 if is_last else now", "wait = now",
        "test_a_queue_that_runs_empty_is_not_standing",
    ),
    codel(
        "An outage sheds nobody",
        "self._began = now", "self._began = 0.0",
        "test_an_outage_sheds_nobody",
    ),
    codel(
        "Who has too little time for the usual service is not begun in a queue that stands",
        " and not self._is_short(since, deadline, now)", "",
        "test_who_has_less_time_than_nine_of_ten_services_take_is_shed_first",
    ),
    Mutant(
        "No slot is wasted on who will run out of time on it, though it must not be shed",
        f"{POOL}/_lanes.py", "return codel.is_hopeless(", "return False and codel.is_hopeless(",
        (f"{UNIT}/test_brown_out.py::test_service_is_back_within_two_seconds_of_a_brown_out",),
    ),
    codel(
        "Who has half of its time left is not hopeless",
        "min(self._needed, _MOST * (deadline - since))", "self._needed",
        "test_nobody_is_hopeless_who_has_half_of_its_time_left",
    ),
    codel(
        "Nobody is hopeless while all will be served",
        "return self._is_short(since, deadline, now) and self._is_somebody_lost(behind, left, now)",
        "return self._is_short(since, deadline, now)",
        "test_nobody_is_hopeless_where_all_will_be_served_or_the_queue_does_not_stand_or_without_a_deadline",
    ),
    state(
        "A release frees the slot and its place in the lanes",
        "self.lanes.leave(slot.rank)\n", "pass\n",
        "test_a_waiter_cancelled_in_the_queue_leaves_no_trace",
    ),
    state(
        "A slot handed to a caller that went away is passed on",
        "            return self.release(slot, now)\n        self.lanes.remove",
        "            return []\n        self.lanes.remove",
        "test_a_waiter_cancelled_after_its_hand_off_passes_the_slot_on",
    ),
    state(
        "A caller that goes away leaves its queue",
        "        self.lanes.remove(waiter)\n", "",
        "test_a_waiter_cancelled_in_the_queue_leaves_no_trace", "TestProgram",
    ),
    state(
        "Newcomers queue behind waiters: a freed slot goes to the queue first",
        "waiter = self.lanes.next(now, expired)\n            actions", "waiter = None\n            actions",
        "test_a_released_connection_reaches_the_waiter_before_its_connect_does",
    ),
    state(
        "After a failed connect there is one prober",
        "self.connect_failures += 1\n        self._window = 1", "self.connect_failures += 1",
        "test_after_an_outage_connects_start_slowly",
    ),
    state(
        "Failed connects are paced",
        "if now < self._retry_at:\n            return [Retry(self._retry_at)]", "",
        "test_no_second_of_an_outage_has_more_than_two_attempts",
    ),
    state(
        "Connects under way are limited",
        "min(self._limits.max_size - len(self.slots), self._window - connecting)",
        "self._limits.max_size - len(self.slots)",
        "test_connects_under_way_are_limited",
    ),
    state(
        "A connection that died in use is not handed on",
        "if slot.is_dead:\n            return self.discard(slot, now)", "",
        "test_an_acquired_connection_that_dies_is_freed_when_it_comes_back",
    ),
    state(
        "A closed pool hands nothing on",
        "if self.is_closing or slot.generation != self.generation:\n            return True", "",
        "test_close_refuses_waiters_and_closes_what_comes_back",
    ),
    state(
        "Replacement by age is paced",
        "now < slot.expires or now < self._next_expiry", "now < slot.expires",
        "test_old_connections_are_replaced_one_by_one",
    ),
    state(
        "An idle session that has the wanted limit goes first",
        "return next(reversed(self._idle_by.get(wanted) or self._idle))", "return next(reversed(self._idle))",
        "test_an_idle_session_that_has_the_limit_goes_first",
    ),
    state(
        "A hand-off changes connections where that saves a round trip",
        "if better and slot.state is State.ACQUIRED:", "if False:",
        "test_a_waiter_gets_the_idle_session_that_has_its_limit_and_the_released_one_takes_its_place",
    ),
    state(
        "Limits of idle sessions are not remembered for ever",
        "if len(self._idle_by) >= _KINDS:", "if False:",
        "test_many_different_limits_are_not_remembered_for_ever",
    ),
    shell(
        "A waiter that is given an idle connection looks at it first", "_pool.py",
        "(waiter is not None and not waiter.was_idle)", "waiter is not None",
        "test_pool_connections.py::test_a_waiter_that_is_given_an_idle_connection_looks_at_it_first",
    ),
    shell(
        "What must not be cancelled is cut, its task left alone", "_sweep.py",
        "if watch.cut is None:", "if True:",
        "test_sweep.py::test_what_must_not_be_cancelled_is_cut_when_it_is_overdue",
    ),
    shell(
        "A cut holds for one use of a watch", "_slots.py",
        "cut, self.cut = self.cut, None", "cut = self.cut",
        "test_sweep.py::test_after_a_cut_the_watch_is_as_new",
    ),
    Mutant(
        "COMMIT is deaf to the cancellation of its caller",
        "src/magnus/_commit.py", "yield None if future is None else _Deaf(future)", "yield from future or iter([None])",
        ("tests/unit/test_commit.py::test_a_cancellation_waits_for_the_answer",),
    ),
    Mutant(
        "Statements made wrong by a change of the schema are dropped on every connection",
        "src/magnus/_driver_fast.py", "self._drop_global_statement_cache()  #", "self._drop_local_statement_cache()  #",
        ("tests/unit/test_driver_fast.py::test_a_statement_that_became_wrong_is_dropped_everywhere_and_run_anew",),
    ),
    Mutant(
        "A statement that the server has run is not run twice",
        "src/magnus/_driver_fast.py", "await self.reload_schema_state()\n            raise error",
        "await self.reload_schema_state()\n            return",
        ("tests/unit/test_driver_fast.py::test_a_type_that_became_wrong_is_an_error_and_is_read_anew",),
    ),
    Mutant(
        "In a transaction nothing is prepared anew behind the caller's back",
        "src/magnus/_driver_fast.py", "if self._protocol.is_in_transaction():\n            raise error", "",
        ("tests/unit/test_driver_fast.py::test_inside_a_transaction_nothing_is_run_anew",),
    ),
    Mutant(
        "A transaction whose BEGIN waits counts as open",
        "src/magnus/_driver_fast.py",
        "return self.ahead is not None or self._protocol.is_in_transaction()",
        "return bool(self._protocol.is_in_transaction())",
        ("tests/integration/test_begin.py::test_it_counts_as_open_from_the_beginning",),
    ),
    Mutant(
        "A statement that is not in the cache begins its transaction first",
        "src/magnus/_driver_fast.py",
        "            await self._begin_now(timeout)\n        return await super()._get_statement",
        "            pass\n        return await super()._get_statement",
        ("tests/integration/test_begin.py::test_whatever_comes_first_is_in_the_transaction",),
    ),
    Mutant(
        "A simple query begins its transaction first",
        "src/magnus/_driver_fast.py",
        "            if self.ahead is not None:\n                await self._begin_now(timeout)\n",
        "",
        ("tests/integration/test_begin.py::test_whatever_comes_first_is_in_the_transaction",),
    ),
    Mutant(
        "COPY out begins its transaction first",
        "src/magnus/_driver_fast.py",
        "        await self._begin_now(timeout)\n        return await super()._copy_out",
        "        return await super()._copy_out",
        ("tests/integration/test_begin.py::test_a_copy_out_is_in_the_transaction",),
    ),
    Mutant(
        "COPY in begins its transaction first",
        "src/magnus/_driver_fast.py",
        "        await self._begin_now(timeout)\n        return await super()._copy_in",
        "        return await super()._copy_in",
        ("tests/integration/test_begin.py::test_whatever_comes_first_is_in_the_transaction",),
    ),
    Mutant(
        "A BEGIN that was not sent stays to be sent",
        "src/magnus/_driver_fast.py",
        "                self.ahead = ahead  # an argument does not fit, and nothing was sent",
        "                pass",
        ("tests/integration/test_begin.py::test_an_argument_that_does_not_fit_leaves_the_transaction_open",),
    ),
    Mutant(
        "Bytes that were held back for a statement that was not sent are not sent later",
        "src/magnus/_cork.py",
        'self._held, self.write = b"", self.inner.write\n        return is_held',
        "return is_held",
        ("tests/unit/test_cork.py::test_what_is_taken_back_was_never_written",),
    ),
    Mutant(
        "After a BEGIN that failed nothing runs outside",
        "src/magnus/_driver_fast.py",
        "if self._protocol.is_connected() and not self._protocol.is_in_transaction():",
        "if False:",
        ("tests/integration/test_begin.py::test_a_begin_that_is_refused_takes_its_statement_with_it",),
    ),
    Mutant(
        "After a BEGIN that was cut short nothing runs outside",
        "src/magnus/_driver_fast.py",
        "self.ahead = ahead if self._transport.take_back() else DOUBT",
        "self._transport.take_back()",
        ("tests/integration/test_begin.py::test_after_a_statement_that_was_cut_short_with_its_begin_nothing_runs_outside",),
    ),
    Mutant(
        "What BEGIN waits for is forgotten at a reset",
        "src/magnus/_driver_fast.py",
        "        self.ahead = None\n        await super()._reset()",
        "        await super()._reset()",
        ("tests/integration/test_begin.py::test_a_reset_forgets_it",),
    ),
    shell(
        "A cancelled waiter tells the pool", "_pool.py",
        "                    self._apply(state.withdraw(waiter, self._now()))\n                    raise",
        "                    raise",
        "test_pool_callers.py::test_a_waiter_cancelled_after_its_hand_off_passes_the_slot_on",
    ),
    shell(
        "An open transaction is rolled back even when no reset was asked for", "_pool.py",
        "EVERYTHING if con.is_in_transaction() else lease.reset", "lease.reset",
        "test_pool_connections.py::test_a_release_resets_the_session_unless_nothing_needs_it",
    ),
    shell(
        "A reset is bounded in time", "_lease.py",
        "async with asyncio.timeout(limit):\n            if reset.action", "if True:\n            if reset.action",
        "test_pool_connections.py::test_a_reset_that_hangs_frees_the_slot_at_its_bound",
    ),
    shell(
        "A second release changes nothing", "_pool.py",
        "if lease.is_released:\n            self._given_back(lease)\n            return\n"
        "        lease.is_released = True\n        "
        "if lease.holding is not None:\n            self._custody.returned(lease)\n        slot, con",
        "slot, con",
        "test_pool_callers.py::test_a_second_release_is_an_error_and_changes_nothing",
    ),
    shell(
        "A reset whose caller was cancelled is finished", "_pool.py",
        "            self._keeper.finish_release(slot, limit)\n", "",
        "test_pool_connections.py::test_a_release_cancelled_during_the_reset_is_finished_in_the_background",
    ),
    shell(
        "A task of the pool that is cancelled frees its slot", "_keeper.py",
        "if error is not None or task.cancelled():", "if error is not None:",
        "test_pool_connections.py::test_closing_cancels_connects_even_before_their_first_step",
    ),
    shell(
        "A standby is left when it refuses a write", "_operations.py",
        "            self.expire()\n", "",
        "test_pool_custody.py::test_a_write_that_a_standby_refuses_replaces_every_connection",
    ),
    shell(
        "The user's own read-only mode is no standby", "_operations.py",
        "if not _driver.is_on_standby(lease.con):\n            return", "",
        "test_pool_custody.py::test_a_write_that_a_standby_refuses_replaces_every_connection",
    ),
    shell(
        "A task that waits for itself is told at once", "_custody.py",
        "if is_stuck(task, self._held(task, rank), self._state.lanes.caps):", "if False:",
        "test_pool_custody.py::test_a_task_that_would_wait_for_itself_is_told_at_once",
    ),
    shell(
        "In a child process nothing inherited is used", "_guard.py",
        "        self.loop = None\n        self.is_inherited = True", "        self.is_inherited = True",
        "test_pool_custody.py::test_a_child_process_touches_nothing",
    ),
    shell(
        "A paused pool hands out nothing", "_lanes.py",
        '    def pause(self) -> None:\n        """\n        Let nobody take a slot.\n        """\n'
        "        self._caps = [0] * len(self._table)",
        '    def pause(self) -> None:\n        """\n        Let nobody take a slot.\n        """\n',
        "test_pool_custody.py::test_a_pause_lets_nobody_in_and_waits_for_who_is_out",
    ),
    Mutant(
        "A reading of the catalogue leaves no connection behind",
        "src/magnus/_beside.py", "            con.terminate()\n", "            pass\n",
        ("tests/unit/test_beside.py::test_a_cancelled_question_ends_its_connection_at_once",),
    ),
    Mutant(
        "A failed probe of somebody else is followed up",
        "src/magnus/_control.py", "            if self.verdicts.is_ok:\n                self._wake.set()\n", "",
        (f"{CONTROL}::test_a_probe_of_somebody_else_that_failed_is_followed_up_without_waiting_for_the_interval",),
    ),
    tuning(
        "A value cannot leave its quotes", "quoting.py",
        """_single_line(value).replace("'", "''")
    return "E'\"""", """_single_line(value)
    return "E'\"""",
        "test_quoting.py",
    ),
    tuning(
        "A setting's name is a name", "quoting.py",
        "if not _NAME.fullmatch(name) or len(name) > 127:", "if False:",
        "test_quoting.py::test_a_name_that_is_none_is_refused",
    ),
    tuning(
        "A value is a single line", "quoting.py",
        "if _LINE_ENDS.search(value):", "if False:",
        "test_quoting.py::test_a_value_of_several_lines_is_refused",
    ),
    tuning(
        "A list setting is one literal an item", "quoting.py",
        "if name not in LIST_SETTINGS:", "if True:",
        "test_quoting.py::test_a_list_is_one_literal_an_item",
    ),
    tuning(
        "A plan that was edited is refused", "plan.py",
        "if found.digest != found.computed_digest():", "if False:",
        "test_plan.py::test_a_plan_that_was_edited_is_refused",
    ),
    tuning(
        "Preloaded libraries are kept", "rules/statistics.py",
        "return Want(joined((*server.preload, LIBRARY)), reason", "return Want(LIBRARY, reason",
        "test_plan.py::test_the_preload_list_is_merged_never_replaced",
    ),
    tuning(
        "A library that is not installed is not preloaded", "rules/statistics.py",
        "if server.available_extensions and LIBRARY not in server.available_extensions:", "if False:",
        "test_plan.py::test_a_library_that_is_not_installed_is_not_preloaded",
    ),
    tuning(
        "Undo returns to the value that ALTER SYSTEM gave before", "planner.py",
        "if setting.in_auto_conf or", "if False and",
        "test_plan.py::test_undo_returns_to_what_was_there_not_to_the_default",
    ),
    tuning(
        "What takes memory comes with what gives some back", "planner.py",
        'needs = tuple(f"setting:{name}" for name in sorted(others))', "pass",
        "test_plan.py::test_only_takes_quick_wins_groups_settings_and_ids",
    ),
    tuning(
        "Nothing that takes memory is raised when the sessions do not fit", "rules/budget.py",
        "        if room < self._least_need():\n            return None\n", "",
        "test_budget.py::test_sessions_that_do_not_fit_raise_nothing_and_say_what_would_fit",
    ),
    tuning(
        "Rounding takes a twentieth of the reserve at most", "rules/budget.py",
        "if rounded > exact and (rounded - exact) * share > self.reserve / 20:", "if False:",
        "test_budget.py::test_rounding_takes_little_of_the_reserve",
    ),
    tuning(
        "An unsafe value is lowered however little it differs", "rules/rule.py",
        "not found.is_strict and is_good", "is_good",
        "test_budget.py::test_an_unsafe_value_is_lowered_however_little_it_differs",
    ),
    tuning(
        "What this build of the server does not know is not planned", "setting.py",
        'if self.vartype == "enum" and text.lower() not in self.enumvals:', "if False:",
        "test_setting.py::test_what_the_server_would_refuse_is_refused_with_the_reason",
    ),
    tuning(
        "What outranks ALTER SYSTEM is not planned", "rules/rule.py",
        "if setting.is_outranked:", "if False:",
        "test_plan.py::test_what_outranks_alter_system_is_not_planned",
    ),
    tuning(
        "Superusers, replication and monitoring are spared the time-out", "objects.py",
        "if not (role.is_superuser or role.is_replication or role.is_monitor or", "if not (",
        "test_plan.py::test_idle_time_out_is_for_application_roles_only",
    ),
    tuning(
        "A limit of a parent counts", "host.py",
        "for depth in range(len(parts), -1, -1):", "for depth in range(len(parts), len(parts) - 1, -1):",
        "test_host.py::test_memory_is_the_least_of_the_machine_and_every_limit_above",
    ),
    tuning(
        "Version 1's word for no limit is no limit", "host.py",
        "return value if 0 < value < UNLIMITED else None", "return value",
        "test_host.py::test_memory_is_the_least_of_the_machine_and_every_limit_above",
    ),
    tuning(
        "A stranger's process is not taken for the server", "host.py",
        'return title.startswith("postgres: ") and where in title', 'return title.startswith("postgres: ")',
        "test_host.py::test_a_process_is_here_only_when_it_serves_this_very_connection",
    ),
    tuning(
        "A session's own value does not pass for the server's", "settings_read.py",
        "if setting.source not in _OF_SESSION:", "if True:",
        "test_collect.py::test_the_files_say_what_a_roles_own_value_hides",
    ),
    tuning(
        "Each storage read is at a place of its own", "storage.py",
        "chance.randrange(count)", "0",
        "test_host.py::test_random_reads_are_measured",
    ),
    tuning(
        "Standbys are raised before their primary", "notes.py",
        "(raised if is_raised else lowered)", "lowered",
        "test_plan.py::test_standbys_come_first_when_a_value_rises",
    ),
    slow_log(
        "The slow-query log's queue is bounded", "slowlog/_buffer.py",
        "if len(self._entries) >= self._limit:", "if False:",
        "unit/slowlog/test_buffer.py::test_the_oldest_gives_way_and_is_counted",
    ),
    slow_log(
        "Its rate is bounded", "slowlog/_buffer.py",
        "if self._tokens >= 1.0:", "if True:",
        "unit/slowlog/test_buffer.py::test_a_burst_of_five_seconds_is_taken_and_then_the_rate",
    ),
    slow_log(
        "What it loses is counted", "slowlog/_buffer.py",
        "        self.dropped += 1\n        self._leave_out", "        self._leave_out",
        "unit/slowlog/test_buffer.py::test_nothing_is_lost_without_being_counted",
    ),
    slow_log(
        "What it leaves out is counted by statement", "slowlog/_buffer.py",
        "counts[key] = counts.get(key, 0) + 1", "pass",
        "unit/slowlog/test_buffer.py::test_the_oldest_gives_way_and_is_counted",
    ),
    slow_log(
        "Counting is bounded too", "slowlog/_buffer.py",
        "text in counts or len(counts) < _DISTINCT", "True",
        "unit/slowlog/test_buffer.py::test_too_many_different_texts_are_counted_together",
    ),
    slow_log(
        "Constants are masked", "_normalise.py",
        """self._add("", piece.is_apart, "'", "'")""", """self._add(text, piece.is_apart, "'", "'")""",
        "unit/test_normalise.py::test_no_secret_is_shown", "unit/test_normalise.py::test_no_literal_survives",
    ),
    slow_log(
        "A word that something is SET to is masked", "_normalise.py",
        "if self._is_setting and kind", "if False and kind",
        "unit/test_normalise.py::test_no_secret_is_shown",
    ),
    slow_log(
        "What cannot be read for certain is not shown", "_sqltext.py",
        """        if kind == "open" or _doubt(found) is not None:
            yield Piece("doubt", "", is_apart)
            return""", """        if kind == "open":
            yield Piece("doubt", "", is_apart)
            return""",
        "unit/test_normalise.py::test_no_secret_is_shown",
    ),
    slow_log(
        "Plans are kept without constants", "slowlog/_plans.py",
        "return spelled_out(part) if", "return part if",
        "unit/slowlog/test_rows.py::test_a_plan_is_kept_without_constants",
    ),
    slow_log(
        "A statement that names a secret keeps no bind value", "slowlog/_values.py",
        "if _SECRET_NAME.search(text):", "if False:",
        "unit/slowlog/test_values.py::test_a_statement_that_names_a_secret_keeps_no_value",
    ),
    slow_log(
        "query_timeout shows no constant", "_execution.py",
        "normalised(text).text[:_SHOWN]", "text[:_SHOWN]",
        "unit/test_execution.py::test_a_limit_reached_on_either_side_is_a_query_timeout",
    ),
    slow_log(
        "The log has a connection of its own", "database.py",
        "SlowLog(config, notify=self._notify, clock=self._clock, turn=turn)",
        "SlowLog(config, notify=self._notify, clock=self._clock, connect=lambda **_: self._acquire(None, None))",
        "integration/test_slow_log.py::test_the_log_has_a_connection_of_its_own",
    ),
    slow_log(
        "Rows that the server refuses do not block others", "slowlog/_log.py",
        "elif not is_passing(error):", "elif False:",
        "integration/test_slow_log.py::test_rows_that_the_server_refuses_do_not_block_those_behind_them",
    ),
    slow_log(
        "Rows that could not be written go back", "slowlog/_log.py",
        "                self._buffer.put_back(taken)\n", "                pass\n",
        "integration/test_slow_log.py::test_a_table_that_is_dropped_is_made_again",
    ),
    slow_log(
        "Closing writes what waits", "slowlog/_log.py",
        "            await asyncio.wait({task}, timeout=limit)\n", "",
        "integration/test_slow_log.py::test_closing_writes_what_waits",
    ),
    slow_log(
        "Retention without a limit deletes nothing", "sql/slow_query_log_retention.sql",
        "$2::bigint IS NOT NULL", "true",
        "integration/test_slow_log.py::test_old_and_excess_rows_are_deleted",
    ),
    slow_log(
        "A difference of counters survives a reset", "insight/_counters.py",
        "elif is_reset or _began_again(then, now):", "elif False:",
        "unit/insight/test_counters.py::test_no_difference_is_ever_negative",
    ),
    slow_log(
        "A deadlock's tree ends", "insight/activity.py",
        "for other in waiting[session.pid] if other.pid not in placed", "for other in waiting[session.pid]",
        "unit/insight/test_activity.py::test_a_deadlock_is_shown_once",
    ),
    optimizer(
        "A change's intention is flushed to disk before it is made", "journal.py",
        "            os.fsync(descriptor)\n            if size == 0:", "            if size == 0:",
        "unit/tuning/test_journal.py::test_every_entry_is_flushed_before_write_returns",
    ),
    optimizer(
        "A line of the journal that was changed is noticed", "journal.py",
        "not entry.is_intact or ", "",
        "unit/tuning/test_journal.py::test_tampering_is_noticed",
    ),
    optimizer(
        "A rollback never overwrites somebody else's later value", "ledger.py",
        "    return Decision(Verdict.CONFLICT, now)\n\n\ndef _",
        "    return Decision(Verdict.PUT_BACK, before)\n\n\ndef _",
        "unit/tuning/test_ledger.py::test_the_three_way_decision",
    ),
    optimizer(
        "What a plan's text says is what its change says", "admission.py",
        "if expected is not None and change.sql != expected:", "if False:",
        "unit/tuning/test_admission.py::test_sql_that_is_not_what_the_change_says_is_refused",
    ),
    optimizer(
        "No plan unloads somebody's library", "admission.py",
        "if lost and change.name", "if False and change.name",
        "unit/tuning/test_admission.py::test_a_library_must_not_be_lost",
    ),
    optimizer(
        "Standbys come before the primary", "admission.py",
        "    if not raised:\n", "    if True:\n",
        "unit/tuning/test_admission.py::test_standbys_come_before_the_primary_when_raised",
    ),
    optimizer(
        "What the command line gives is not set in vain", "admission.py",
        "if setting.is_outranked:", "if False:",
        "unit/tuning/test_admission.py::test_a_command_line_value_outranks_the_file",
    ),
    optimizer(
        "A trial archives nothing", "preflight.py",
        '    "archive_mode": "off",\n', "",
        "unit/tuning/test_preflight.py::test_nothing_of_the_server_reaches_the_trial",
    ),
    optimizer(
        "A recovery that moves is not taken for death", "guard.py",
        "        if marker != seen:", "        if False:",
        "integration/tuning/test_guard.py::test_crash_recovery_that_moves_is_not_taken_for_death",
    ),
    optimizer(
        "The dead-man leaves what others set", "guard.py",
        "return before if autoconf.values(edited) == had else edited", "return before",
        "integration/tuning/test_guard.py::test_what_others_set_meanwhile_survives_the_putting_back",
    ),
    optimizer(
        "One operator at a time", "session.py",
        "        if not others:\n", "        if True:\n",
        "integration/tuning/test_apply.py::test_one_operator_at_a_time",
    ),
    optimizer(
        "A difference within the noise is no verdict", "effect.py",
        "noise = max(_WIDTH * error,", "noise = max(0 * error,",
        "unit/tuning/test_effect.py::test_one_query",
    ),
    optimizer(
        "A table with rows is never dropped", "undo_objects.py",
        '    if await con.fetchval(f"SELECT EXISTS (SELECT FROM {_qualified(name)})"):', "    if False:",
        "integration/tuning/test_apply.py::test_a_table_with_rows_is_never_dropped",
    ),
    optimizer(
        "The checkpoint that ends a recovery is progress", "guard.py",
        'if b"startup" in title or b"checkpointer" in title:', 'if b"startup" in title:',
        "unit/tuning/test_guard_marks.py::test_the_checkpoint_that_ends_a_recovery_is_progress",
    ),
    optimizer(
        "A plan touches no index but ours", "index_change.py",
        "if not is_ours(work.name)", "if False",
        "unit/tuning/test_admission.py::test_only_an_index_of_ours_is_dropped",
        "unit/tuning/test_admission.py::test_a_change_of_an_index_does_only_what_it_says",
    ),
    optimizer(
        "An invalid index is none", "plan.py",
        "return change.after if is_valid else None", "return change.after if is_valid is not None else None",
        "unit/tuning/test_admission.py::test_an_index_that_is_not_valid_counts_as_missing",
    ),
    optimizer(
        "A build that fails leaves no index", "building.py",
        "        left = await _cleaned(session, index, database)", '        left = ""',
        "integration/tuning/test_index_changes.py::test_a_build_that_fails_leaves_no_index",
    ),
    optimizer(
        "An invalid index of ours is built anew", "building.py",
        "        if is_valid is not None:\n", "        if False:\n",
        "integration/tuning/test_index_changes.py::test_an_invalid_one_of_ours_is_built_anew",
    ),
    optimizer(
        "No lock time-out cuts a build", "building.py",
        'await con.execute("SET lock_timeout = 0")', 'await con.execute("SET lock_timeout = 500")',
        "integration/tuning/test_index_changes.py::test_what_a_build_waits_for_is_told",
    ),
    optimizer(
        "An index that something uses by now is kept", "undo_objects.py",
        'if row["used_by"] is not None:', "if False:",
        "integration/tuning/test_index_changes.py::test_what_uses_the_index_by_now_is_kept",
    ),
    optimizer(
        "No index is built beside another on the same columns", "building.py",
        "    same = await con.fetchval(_COVERED, table, list(work.columns), work.index)", "    same = None",
        "integration/tuning/test_index_changes.py::test_what_stands_in_the_way_is_said_before_anything_is_made",
    ),
    optimizer(
        "An index pays only when the writes lose less than the reads gain", "payoff.py",
        "read.verdict is Verdict.BETTER and found.saved > 0", "read.verdict is Verdict.BETTER",
        "unit/tuning/test_payoff.py::test_what_the_reads_gain_is_weighed_against_what_the_writes_lose",
    ),
    unit(
        "What was not seen is unknown, never ok", "tuning/checks/_model.py",
        "State.UNKNOWN if verdict.missing else State.OK", "State.OK",
        "unit/tuning/test_checks.py::test_what_was_not_seen_is_unknown",
    ),
    unit(
        "Use is judged on old statistics only", "tuning/checks/_snapshot.py",
        "if age < days * DAY:", "if False:",
        "unit/tuning/test_checks.py::test_what_was_not_seen_is_unknown",
    ),
    unit(
        "An index that more than speed depends on is not proposed to be dropped", "tuning/checks/indexes.py",
        "others = () if _is_bound(row) else (", "others = (",
        "unit/tuning/test_checks.py::test_a_check_stays_quiet",
    ),
    unit(
        "What a standby may use is not called unused", "tuning/checks/indexes.py",
        "if idle and standbys:", "if False:",
        "unit/tuning/test_checks.py::test_what_was_not_seen_is_unknown",
    ),
    unit(
        "An index that is being built is not called broken", "tuning/checks/indexes.py",
        'if row["oid"] in building or row["table_oid"] in building:', "if False:",
        "unit/tuning/test_checks.py::test_a_check_stays_quiet",
    ),
    unit(
        "The undo of a setting is the value that was there", "tuning/checks/_fixes.py",
        "setting.text if is_in_file else None", "None",
        "unit/tuning/test_checks.py::test_undo_brings_back_what_was_set_and_not_the_default",
    ),
    unit(
        "A name cannot steer the terminal", "cli/check.py",
        "char if char.isprintable() else", "char if char else",
        "unit/tuning/test_check_output.py::test_text_has_the_verdicts_first_and_an_action_for_each_finding",
    ),
    unit(
        "The checks read in one read-only snapshot", "tuning/reading.py",
        'con.transaction(isolation="repeatable_read", readonly=True)', "con.transaction()",
        "integration/test_check.py::test_it_changes_nothing_and_locks_nothing_above_access_share",
    ),
    unit(
        "The checks wait for no lock", "tuning/reading.py",
        'f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}",', "",
        "integration/test_check.py::test_it_changes_nothing_and_locks_nothing_above_access_share",
    ),
    unit(
        "The checks call no function or operator of a user's", "tuning/reading.py",
        '"SET LOCAL search_path = pg_catalog",', "",
        "integration/test_check.py::test_a_users_own_functions_and_operators_are_never_called",
    ),
    unit(
        "Locks on sequences are given back", "tuning/reading.py",
        "_BATCH: Final = 200", "_BATCH: Final = 10**9",
        "integration/test_check.py::test_locks_on_sequences_are_given_back",
    ),
    unit(
        "Only an index of ours is proposed to be dropped", "tuning/index_change.py",
        "return name.startswith(OURS)", "return bool(name)",
        "integration/test_indexes.py::test_only_an_index_of_ours_is_proposed_to_be_dropped",
    ),
    unit(
        "Equality comes before sort and bounds", "tuning/indexing.py",
        "return (*equal, *rest)[:_MOST_COLUMNS]", "return (*rest, *equal)[:_MOST_COLUMNS]",
        "unit/tuning/test_indexing.py::test_the_columns_of_an_index_and_their_order",
    ),
    unit(
        "What was sent is repeated only when it was declared repeatable", "retry.py",
        "        case Verdict.PERHAPS | Verdict.UNKNOWN:\n            return rights.is_repeatable",
        "        case Verdict.PERHAPS | Verdict.UNKNOWN:\n            return True",
        "unit/test_retry.py::test_what_may_be_repeated_is_what_was_declared",
        "unit/test_retry.py::test_an_unknown_commit_is_not_repeated_unless_that_was_declared",
    ),
    unit(
        "Of several answers in an error the most cautious holds", "_verdicts.py",
        "max(found, default=_V.NEVER)", "min(found, default=_V.NEVER)",
        "unit/test_verdicts.py::test_of_several_answers_the_most_cautious_holds",
    ),
    unit(
        "An error without an answer of the server's is final inside a transaction that is open", "_verdicts.py",
        "if is_closed or phase is not Phase.BLOCK else _V.NEVER", "if True else _V.NEVER",
        "unit/test_verdicts.py::test_inside_a_transaction_a_broken_socket_counts_when_the_connection_is_closed",
    ),
    unit(
        "What lacks memory or disk is repeated once", "retry.py",
        "(rights.is_whole or rights.is_repeatable) and not was_once", "(rights.is_whole or rights.is_repeatable)",
        "unit/test_retry.py::test_what_is_worth_one_repeat_gets_one",
    ),
    unit(
        "Repeats have a budget", "retry.py",
        "and not self._budget(now)", "and False",
        "unit/test_retry.py::test_a_spent_budget_ends_the_attempts_but_not_those_of_what_was_not_sent",
    ),
    unit(
        "The budget is never below the pool's size", "_backoff.py",
        " + size * min(now - self._at, 1.0)", "",
        "unit/test_retry.py::test_the_budget_is_never_below_the_pools_size",
    ),
    unit(
        "The budget does not save up", "_backoff.py",
        "min(self._tokens + earned, float(size))", "self._tokens + earned",
        "unit/test_retry.py::test_the_budget_does_not_save_up",
    ),
    unit(
        "Pauses are drawn: full jitter", "_backoff.py",
        "return uniform(0.0, ceiling)", "return ceiling",
        "unit/test_retry.py::test_delays_are_drawn_between_zero_and_a_growing_bound",
    ),
    unit(
        "No attempt is begun that the deadline would end", "retry.py",
        "return delay if delay < remaining else None", "return delay",
        "unit/test_retry.py::test_no_attempt_beyond_their_number_or_the_deadline",
    ),
    unit(
        "A declaration ends with its function", "retry.py",
        "declaration.is_over = True", "declaration.is_over = False",
        "unit/test_retry.py::test_a_declaration_holds_inside_the_function_and_not_after_it",
    ),
    unit(
        "A text that may commit half-way is not repeated after an error", "_statements.py",
        "return ORDINARY if is_whole(text) else IN_PARTS", "return ORDINARY",
        "integration/test_units.py::test_a_text_of_several_statements_is_not_repeated_after_an_error",
    ),
    unit(
        "What is repeated because it reads, runs READ ONLY", "_statements.py",
        "limits = terms.reading if rights is READ else terms.limits", "limits = terms.limits",
        "integration/test_units.py::test_a_read_cannot_write",
    ),
    unit(
        "A transaction after a read can write", "session.py",
        "        elif is_writing:\n", "        elif False:\n",
        "integration/test_units.py::test_the_session_that_ran_a_read_can_write_again",
    ),
    unit(
        "A session that is read only by its own settings stays so", "session.py",
        " and not self._is_guarded", "",
        "integration/test_units.py::test_a_session_that_is_read_only_by_its_own_settings_stays_so",
    ),
    unit(
        "COMMIT is believed by its tag alone", "_commit.py",
        'if tag == "ROLLBACK":\n        raise CommitRolledBack', 'if tag == "ROLLBACK":\n        return',
        "unit/test_commit.py::test_the_tag_rollback_is_an_error",
        "integration/test_units.py::test_an_error_of_the_functions_own_is_raised_at_once",
    ),
    unit(
        "COMMIT is not cancelled", "_commit.py",
        "                    self.cancelled = error", "                    raise",
        "unit/test_commit.py::test_a_cancellation_waits_for_the_answer",
    ),
    unit(
        "A COMMIT that is not answered has an unknown outcome", "_driver.py",
        'if fields.get("R") == _WAIT_FOR_STANDBY:', "if False:",
        "unit/test_driver.py::test_what_the_server_alone_has_is_not_done",
    ),
    unit(
        "A unit that happens once has a key that somebody else may have", "once.py",
        "self.is_claimed = tag == CLAIMED", "self.is_claimed = True",
        "integration/test_once.py::test_a_unit_runs_once_and_a_repeat_gets_its_answer",
    ),
    unit(
        "The key is one request's", "once.py",
        'if row["request_hash"] != self.request_hash:', "if False:",
        "integration/test_once.py::test_a_key_with_another_request_is_refused",
    ),
    unit(
        "An unknown outcome is resolved by the key", "_units.py",
        "            course.lost()\n", "            pass\n",
        "integration/test_once.py::test_what_nobody_can_say_until_the_deadline_is_unknown_and_the_key_finds_out",
        "integration/test_once.py::test_whatever_fails_after_an_unknown_outcome_leaves_it_unknown",
    ),
    unit(
        "A found answer is given after a COMMIT of its own", "once.py",
        "UPDATE magnus_once SET replays = replays + 1 WHERE scope", "UPDATE magnus_once SET replays = 0 WHERE scope",
        "integration/test_once.py::test_an_answer_is_given_only_after_a_commit_of_its_own",
    ),
    unit(
        "Repeats at the same time share one flight", "_units.py",
        "while (ahead := self._flights.get(unit.id)) is not None:", "while (ahead := self._flights.get(unit)):",
        "integration/test_once.py::test_repeats_at_the_same_time_share_one_flight",
    ),
    unit(
        "An answer that could not be read again is refused before COMMIT", "once.py",
        "            decode(response, kind)\n        except UNREADABLE as error:\n            raise TypeError",
        "            pass\n        except UNREADABLE as error:\n            raise TypeError",
        "integration/test_once.py::test_an_answer_that_could_not_be_read_again_is_an_error_at_once",
    ),
    unit(
        "Wrong credentials end the round of hosts", "_hosts.py",
        " or is_final(error)", "",
        "unit/test_hosts.py::test_wrong_credentials_end_it",
    ),
    unit(
        "Of several hosts one that takes writes is wanted", "config.py",
        'asked or "read-write"', 'asked or "any"',
        "unit/test_hosts.py::test_of_several_hosts_one_that_takes_writes_is_wanted",
    ),
    unit(
        "A long outage is probed patiently", "pool/_limits.py",
        "return gap * min(max(lasted / _PATIENT_AFTER, 1.0), _MOST_PATIENT)", "return gap",
        "unit/pool/test_state.py::test_a_long_outage_is_probed_less_often",
    ),
    unit(
        "Connections that are lost together are replaced by one connect", "pool/_state.py",
        "            self._window = 1  # seldom", "            pass  # seldom",
        "unit/pool/test_state.py::test_a_lost_connection_is_replaced_by_one_connect_whoever_waits",
    ),
    unit(
        "An outcome that nobody knows is told: of a statement that writes",
        "_statements.py", 'self._terms.outcome_unknown("statement", error)', "pass",
        "integration/test_units.py::test_an_outcome_that_nobody_knows_is_told_once_and_counted",
    ),
    unit(
        "An outcome that nobody knows is told: of a transaction, once, and not before its unit has given up",
        "transaction.py", "if not self.is_unit:", "if True:",
        "integration/test_units.py::test_an_outcome_that_nobody_knows_is_told_once_and_counted",
    ),
    unit(
        "A spent retry budget is told once a minute, not for every unit",
        "retry.py", "if now >= self._tell_at:", "if True:",
        "unit/test_retry.py::test_what_the_budget_refused_is_counted_and_told_once_a_minute",
    ),
    unit(
        "A trace that is not sampled gets no span",
        "opentelemetry.py", "return not context.is_valid or context.trace_flags.sampled", "return True",
        "integration/test_opentelemetry.py::test_a_trace_that_is_not_sampled_gets_no_span_and_all_its_durations",
    ),
    unit(
        "Shares together never exceed what the server has", "_shares.py",
        "// max(fleet_size, self.sharing, 1)",
        "// max(self.sharing, 1)",
        "unit/test_shares.py::test_shares_never_exceed_the_budget",
    ),
    unit(
        "More instances than expected share among more", "_shares.py",
        "// max(fleet_size, self.sharing, 1)",
        "// max(fleet_size, 1)",
        "unit/test_shares.py::test_more_instances_than_expected_share_among_more",
    ),
    unit(
        "Connections beside the pool are in its share", "_shares.py",
        "for account in found) - beside)",
        "for account in found))",
        "unit/test_shares.py::test_shares_never_exceed_the_budget",
    ),
    unit(
        "What instances may open that do not share is nobody else's", "_shares.py",
        "self.budget - self.fixed - kept",
        "self.budget - kept",
        "unit/test_shares.py::test_shares_never_exceed_the_budget",
    ),
    unit(
        "No instance starves", "_shares.py",
        "max(_LEAST, min(",
        "max(0, min(",
        "unit/test_shares.py::test_nobody_starves",
    ),
    unit(
        "A limit of the role is a budget too", "_shares.py",
        "if ceilings.role >= 0:",
        "if False:",
        "unit/test_shares.py::test_a_limit_of_the_role_makes_the_share_smaller",
    ),
    unit(
        "Sessions beyond what an instance announced are strangers'", "_shares.py",
        "left -= taken",
        "left = 0",
        "unit/test_shares.py::test_sessions_of_an_instance_are_its_own_up_to_what_it_announced",
    ),
    unit(
        "A share grows only when it was allowed for a while", "_shares.py",
        "if now - self._since >= self._patience:",
        "if True:",
        "unit/test_shares.py::test_a_share_shrinks_at_once_and_grows_late",
    ),
    unit(
        "Something is kept back, so that a newcomer is let in and seen", "_shares.py",
        "kept = ceil(self.most * _ROOM)",
        "kept = 0",
        "unit/test_shares.py::test_a_limit_of_the_role_makes_the_share_smaller",
    ),
    unit(
        "What is not known yet is the least", "database.py",
        "pool.limit(1)  # until the share is known",
        "pass",
        "integration/test_fleet.py::test_until_the_server_was_seen_one_connection_must_do",
    ),
    unit(
        "A fleet that cannot be seen is no reason to fail", "_fleet.py",
        "except Exception as error:  # noqa: BLE001  # whatever it is, the service goes on with what it has",
        "except KeyError as error:",
        "integration/test_fleet.py::test_who_must_not_look_works_as_it_would_alone",
    ),
    unit(
        "The warning comes once, not at every look", "_fleet.py",
        "if is_over == self._is_over:",
        "if False:",
        "unit/test_fleet.py::test_the_warning_comes_once_with_the_numbers_and_ends_once",
    ),
    unit(
        "A limit holds before the first connect", "pool/_pool.py",
        "if self._most is not None:",
        "if False:",
        "races/test_pool_custody.py::test_a_limit_set_before_the_pool_is_open_holds_from_the_first_connect",
    ),
    unit(
        "A probe never meets another statement on its connection", "_control.py",
        "async with self._in_use:\n            con = self._con\n",
        "if True:\n            con = self._con\n",
        "unit/test_control.py::test_a_probe_waits_for_who_looks_around",
    ),
    unit(
        "A control connection lost between two probes is noticed", "_control.py",
        "if con.is_closed():\n                self._on_lost(con)",
        "pass",
        "unit/test_control.py::test_a_connection_lost_while_looking_around_is_a_failure_at_once",
    ),
    unit(
        "Slow log and catalogue have one connection between them", "_beside.py",
        "await self._lock.acquire()",
        "await asyncio.sleep(0)",
        "unit/test_fleet.py::test_a_turn_has_one_holder_and_the_others_come_in_order",
    ),
    unit(
        "The slow log gives its turn to who waits", "slowlog/_table.py",
        "if self._has_turn and self._turn.is_wanted:",
        "if False:",
        "integration/test_fleet.py::test_the_slow_log_and_the_catalogue_use_one_connection_by_turns",
    ),
    unit(
        "What lives in a session is refused behind a transaction pooler",
        "_pooler.py", "if not found:\n        return None", "if found is not None:\n        return None",
        "unit/test_pooler.py::test_what_lives_in_a_session_is_refused_outside_a_transaction",
    ),
    unit(
        "Behind a pooler a read is guarded when it is repeated",
        "_pooler.py", "(attempts > 1 or not is_read(text))", "not is_read(text)",
        "unit/test_pooler.py::test_a_read_is_guarded_when_it_is_repeated_or_is_none_by_its_text",
    ),
    unit(
        "A transaction pooler that nobody named is noticed",
        "_pooler.py", "or not set(self.first).isdisjoint(self.second)", "",
        "unit/test_pooler.py::test_a_session_that_changes_hands_is_seen_on_either_side",
    ),
    unit(
        "A pooler is sent no settings that it cannot keep",
        "config.py", "if name.lower() in _bounds.TRACKED\n", "\n",
        "unit/test_pooler.py::test_behind_a_pooler_only_what_it_keeps_for_its_clients_is_sent_at_the_start",
    ),
    unit(
        "Behind a pooler a read that calls a function nobody knows is guarded",
        "_pooler.py", "effect.is_plain_read", "effect.kind <= 1",
        "unit/test_pooler.py::test_a_read_is_guarded_when_it_is_repeated_or_is_none_by_its_text",
    ),
    unit(
        "Behind a pooler nothing is prepared by name",
        "connection.py", "            if refused is not None:\n                raise refused", "            pass",
        "integration/test_pgbouncer.py::test_listeners_and_named_statements_of_the_driver_are_refused",
    ),
    unit(
        "Behind a pooler the settings of a savepoint are in a cached answer's key too",
        "_pooled.py", "self.checks[1](mode.settings)\n        await super().begin_savepoint",
        "pass\n        await super().begin_savepoint",
        "integration/test_cache.py::test_no_settings_by_text_in_a_savepoint_either",
    ),
    unit(
        "The connections of a printed pgbouncer.ini fit the server",
        "tuning/pooler.py", "fits = usable - direct", "fits = usable",
        "unit/tuning/test_pooler.py::test_the_connections_of_any_server_are_never_more_than_it_has",
    ),
    unit(
        "What is written in a scope is seen by the scopes around it",
        "_marks.py", "for mark in self._scopes:\n            mark.wrote()",
        "for mark in self._scopes[-1:]:\n            mark.wrote()",
        "integration/test_replicas.py::test_what_is_written_in_a_scope_is_seen_by_those_around_it_and_by_those_without_one",
    ),
    unit(
        "What is written in a scope is seen by readers without one",
        "_marks.py", "self._everybody.wrote()", "self._scopes or self._everybody.wrote()",
        "integration/test_replicas.py::test_what_is_written_in_a_scope_is_seen_by_those_around_it_and_by_those_without_one",
    ),
    unit(
        "A read token that was made up waits for no standby",
        "_routing.py", " or is_ahead(primary, need):", ":",
        "unit/test_routing.py::test_a_place_that_the_primary_has_not_written_is_worth_no_wait",
    ),
    unit(
        "A request that brings a read token sees what it names",
        "web/read_tokens.py", "with db.reads_after(token=offered):", "with db.reads_after():",
        "integration/test_replicas.py::test_a_token_goes_with_the_response_and_comes_with_the_next_request",
    ),
    unit(
        "Where nobody can say what was written, the next request is answered by the primary",
        "web/read_tokens.py", "return str(NOWHERE)", "return None",
        "integration/test_replicas.py::test_a_response_whose_token_nobody_knows_sends_the_next_request_to_the_primary",
    ),
    unit(
        "A standby on another timeline is not asked",
        "_routing.py", "standing is None or standing.replayed.timeline != primary.position.timeline",
        "standing is None",
        "unit/test_routing.py::test_a_standby_on_another_timeline_is_passed_over_however_far_it_is",
    ),
    unit(
        "What was written after a promotion that nobody noticed here is read where it is",
        "_routing.py", "return is_there and now - standing.seen_at <= max_lag", "return False",
        "unit/test_routing.py::test_what_was_written_after_a_promotion_that_nobody_noticed_here_is_read_where_it_is",
    ),
    unit(
        "A standby that has not what must be seen is not asked",
        "_routing.py", "or standing.replayed.lsn < need.lsn", "",
        "unit/test_routing.py::test_a_standby_that_has_not_what_must_be_seen_is_passed_over",
    ),
    unit(
        "Inside a transaction that may write, reads go to the primary",
        "replicas.py", "if lease.is_deciding:", "if False:",
        "integration/test_replicas.py::test_inside_a_transaction_that_may_write_every_read_goes_to_the_primary",
    ),
    unit(
        "What decides about rights is read on the primary",
        "replicas.py", "if self.must_be_primary() or self.reader().must_be_primary:", "if self.must_be_primary():",
        "integration/test_replicas.py::test_what_decides_about_rights_is_read_on_the_primary_whatever_scopes_are_within",
    ),
    unit(
        "A token that only the primary may answer holds within other scopes",
        "_marks.py", "return NOWHERE if NOWHERE in positions else max(positions, default=None)",
        "return max(positions, default=None)",
        "integration/test_replicas.py::test_a_token_that_only_the_primary_may_answer_holds_within_other_scopes",
    ),
    unit(
        "What a transaction wrote is seen by the next read",
        "_units.py", 'methodcaller("give_back")', "__import__('magnus._execution')._execution.Execution.give_back",
        "integration/test_replicas.py::test_what_was_written_is_seen_by_the_next_read",
    ),
    unit(
        "A cached answer is dropped when its tag is invalidated", "cache/_store.py",
        "for key in tuple(self._by_tag.get(tag, ())):", "for key in ():",
        "unit/cache/test_cache.py::test_after_a_commit_nobody_gets_the_old_answer",
    ),
    unit(
        "A load from before an invalidation is not kept", "cache/_store.py",
        "if not load.tags.isdisjoint(tags):", "if False:",
        "unit/cache/test_store.py::test_a_load_that_began_before_an_invalidation_is_not_kept_after_it",
        "integration/test_cache.py::test_no_simulated_read_is_older_than_what_was_acknowledged",
    ),
    unit(
        "Nobody joins a load from before an invalidation", "cache/_cache.py",
        "if load.is_stale or self._store", "if self._store",
        "unit/cache/test_cache.py::test_a_load_from_before_a_commit_is_neither_kept_nor_joined",
    ),
    unit(
        "Nobody joins a load while an outcome is unknown", "cache/_cache.py",
        "or self._store.is_doubtful(load.tags, now) or", "or",
        "unit/cache/test_cache.py::test_while_an_outcome_is_unknown_nobody_joins_a_load",
    ),
    unit(
        "Nothing is kept while an outcome is unknown", "cache/_store.py",
        "if load.is_stale or self.is_doubtful(load.tags, now):", "if load.is_stale:",
        "unit/cache/test_store.py::test_under_a_doubtful_tag_nothing_is_kept_for_a_while",
    ),
    unit(
        "One query for all who miss at once", "cache/_cache.py",
        "flight = self._flights.get(question.key)\n        figures", "flight = None\n        figures",
        "unit/cache/test_cache.py::test_a_thousand_who_miss_at_once_ask_once",
    ),
    unit(
        "A load has nobody's deadline", "cache/_cache.py",
        "context.run(lanes.without_deadline)", "pass",
        "unit/cache/test_cache.py::test_who_began_a_load_leaves_no_deadline_to_it",
    ),
    unit(
        "What is made of a cached value depends on what that depends on", "cache/_store.py",
        "        self.tags.update(tags)\n", "",
        "unit/cache/test_cache.py::test_a_cached_function_in_another_passes_its_tags_on",
    ),
    unit(
        "Inside a transaction that writes nothing comes from the cache", "cache/_cache.py",
        "        return not self._is_writing()\n", "        return True\n",
        "unit/cache/test_cache.py::test_inside_a_transaction_that_writes_nothing_comes_from_the_cache",
    ),
    unit(
        "A transaction that was begun by hand is one", "database.py",
        "return any(ours) or (self._pool is not None and self._pool.transactions_of_task() > len(ours))",
        "return any(ours)",
        "integration/test_cache.py::test_nothing_is_served_inside_a_transaction_that_writes",
    ),
    unit(
        "Invalidations wait for COMMIT", "transaction.py",
        "        self.tags = {*(self.tags or ()), *tags}\n",
        "        self._execution.terms.committed(tags, is_certain=True)\n",
        "integration/test_cache.py::test_a_savepoints_invalidation_waits_for_the_outermost_commit",
    ),
    unit(
        "Settings that a key does not have are refused", "cache/_loading.py",
        "if reading.settings.get(lowered) != value:", "if False:",
        "integration/test_cache.py::test_settings_that_the_key_does_not_have_are_refused",
    ),
    unit(
        "Settings are part of the key", "cache/_keys.py",
        "tuple(sorted(settings.items()))", "()",
        "unit/cache/test_keys.py::test_function_and_settings_are_part_of_it",
    ),
    unit(
        "Settings by text are refused while loading", "cache/_loading.py",
        "        check_text(text, self._reading)\n", "",
        "integration/test_cache.py::test_settings_by_text_are_refused_while_loading",
    ),
    unit(
        "Without a sign of life nothing comes from the cache", "cache/_watcher.py",
        "return self._heard is not None and now - self._heard < BOUND", "return self._heard is not None",
        "integration/test_cache_notify.py::test_a_lost_connection_makes_no_answer_older_than_the_bound",
    ),
    unit(
        "What no notification told is found by reading", "cache/_watcher.py",
        "if missed and not is_first:", "if False:",
        "integration/test_cache_notify.py::test_what_no_notification_told_is_found_by_reading",
    ),
    unit(
        "A fresh answer has the versions of this moment", "cache/_cache.py",
        "entry.versions == found and", "",
        "integration/test_cache_notify.py::test_fresh_misses_nothing_that_was_committed",
    ),
    unit(
        "A table that is written all the time gets no trigger", "cli/cache.py",
        "if rate is not None and rate > BUSY:", "if False:",
        "integration/test_cache_notify.py::test_a_table_that_is_written_all_the_time_gets_no_trigger",
    ),
    unit(
        "A statement that waits for a lock keeps no connection from opening", "_hot.py",
        "await con.prepare_cached(text, _LIMIT)", "await con.prepare_cached(text, 60.0)",
        "integration/test_prepared.py::test_a_table_that_is_locked_keeps_no_connection_from_opening",
    ),
    unit(
        "A replayed mix that only reads runs in read-only sessions", "loadtest/replay.py",
        "{**target.settings, **_READ_ONLY}", "dict(target.settings)",
        "integration/test_replay.py::test_sessions_are_read_only_unless_writes_are_asked_for",
    ),
    unit(
        "A replayed mix leaves out what changes data unless it is asked for", "loadtest/_capture.py",
        "if reading.writes and not writes:", "if False:",
        "integration/test_replay.py::test_reads_are_sent_as_often_as_they_were_and_find_rows",
    ),
    unit(
        "A replayed mix calls no function that may do something", "loadtest/_capture.py",
        "if writes and (not row", "if True or (not row",
        "integration/test_replay.py::test_reads_are_sent_as_often_as_they_were_and_find_rows",
    ),
    unit(
        "Hot statements are planned before a connection is handed out",
        "_hot.py", "await _plan(con, text)", "pass",
        "integration/test_prepared.py::test_they_are_planned_where_the_server_can_and_not_run",
    ),
)  # fmt: skip


def mutate(mutant: Mutant, root: Path = ROOT) -> str:
    """
    Return the file's text with the protection switched off; it must be there exactly once.
    """
    source = (root / mutant.file).read_text()
    assert source.count(mutant.text) == 1, f"{mutant.protection}: {source.count(mutant.text)} x {mutant.text!r}"
    return source.replace(mutant.text, mutant.mutated)


def copy_to(folder: Path) -> None:
    for name in ("src", "ava/src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, folder / name)


def pytest(folder: Path, nodes: tuple[str, ...], limit: float = LIMIT) -> int:
    """
    Run these tests in a copy; the exit code is pytest's: 0 passed, 1 failed. A hang counts as failed.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder / part) for part in ("src", "ava/src")),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *nodes]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return 1
    return done.returncode


def survives(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_to(folder)
        (folder / mutant.file).write_text(mutate(mutant))
        return pytest(folder, mutant.tests) != 1


def row(mutant: Mutant, result: str) -> str:
    tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in mutant.tests)
    return f"| {mutant.protection} | `{mutant.file.removeprefix('src/')}` | {tests} | {result} |"


def document(survivors: set[Mutant]) -> str:
    rows = [row(each, "survived" if each in survivors else "caught") for each in MUTANTS]
    head = (
        "# Protections, and the test that notices when one is gone\n\n"
        "`make mutants` switches each protection off in a copy of the tree and runs the tests beside it, which must "
        "fail;\nthis page is written by it.\n\n| protection | where | test | result |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def wanted(arguments: list[str]) -> tuple[Mutant, ...]:
    """
    Return the mutants that a command line asks for.
    """
    words = [word for word in arguments if not word.startswith("--")]
    if words:
        return tuple(mutant for mutant in MUTANTS if any(word in mutant.protection for word in words))
    if "--new" in arguments:
        known = set(DOC.read_text().splitlines())
        return tuple(mutant for mutant in MUTANTS if row(mutant, "caught") not in known)
    return MUTANTS


def main(arguments: list[str]) -> int:
    mutants = wanted(arguments)
    every = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with tempfile.TemporaryDirectory() as name:
        copy_to(Path(name))
        if every and pytest(Path(name), every, 10 * LIMIT) != 0:
            sys.stderr.write("the tests fail without any mutation, or one of them does not exist\n")
            return 2
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(survives, mutants))
    for mutant, is_alive in zip(mutants, verdicts, strict=True):
        sys.stdout.write(f"{'SURVIVED' if is_alive else 'caught  '}  {mutant.protection}\n")
    survivors = {mutant for mutant, is_alive in zip(mutants, verdicts, strict=True) if is_alive}
    sys.stdout.write(f"{len(mutants) - len(survivors)} of {len(mutants)} caught\n")
    if "--write" in arguments and all(word.startswith("--") for word in arguments):
        DOC.write_text(document(survivors))
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
