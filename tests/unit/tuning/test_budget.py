"""The memory budget: the values of the table, and a worst case that never exceeds the limit."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from types import MappingProxyType

import pytest

from magnus.tuning.facts import Pooler
from magnus.tuning.planner import make_plan, proof_of
from magnus.tuning.rules import Recommendation, budget_of, recommend
from magnus.tuning.units import GB, MB
from tests.tuning_facts import facts, host, random_facts, server, settings

SEED = 20_261_125
CAMPAIGN = bool(os.environ.get("MAGNUS_CAMPAIGN"))
FACTS = 100_000 if CAMPAIGN else 20_000


@pytest.mark.parametrize(
    ("memory", "sessions", "expected"),
    [
        # What the formulas give for the machines that people have. work_mem: 10, 4, 22 and 47 MB.
        (8, 100, {"shared_buffers": "2GB", "effective_cache_size": "6GB", "work_mem": "10MB",
                  "maintenance_work_mem": "512MB", "autovacuum_work_mem": "136MB"}),
        (8, 200, {"shared_buffers": "2GB", "effective_cache_size": "5772MB", "work_mem": None,
                  "maintenance_work_mem": "512MB", "autovacuum_work_mem": "136MB"}),
        (16, 100, {"shared_buffers": "4GB", "effective_cache_size": "12GB", "work_mem": "22MB",
                   "maintenance_work_mem": "1GB", "autovacuum_work_mem": "273MB"}),
        (64, 200, {"shared_buffers": "16GB", "effective_cache_size": "48GB", "work_mem": "47MB",
                   "maintenance_work_mem": "1GB", "autovacuum_work_mem": "1GB"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [15, 18])
def test_the_values_for_known_machines(memory, sessions, expected, version):
    """The table of the reference, on both ends of the supported versions; 4MB is the default, so nothing to plan."""
    found = facts(host(memory * GB), version=version, settings={"max_connections": str(sessions)})
    planned = {change.name: change.after for change in make_plan(found).changes}
    assert {name: planned.get(name) for name in expected} == expected
    proof = make_plan(found).proof
    assert proof
    assert proof.holds


def test_one_to_sixty_four_cpus():
    """Parallel workers follow the CPUs; worker processes are never lowered."""
    for cpus in range(1, 65):
        planned = {c.name: c.after for c in make_plan(facts(host(cpus=cpus))).changes}
        workers = planned.get("max_parallel_workers", "8")
        assert workers == str(cpus) if cpus != 8 else workers == "8"
        assert int(planned.get("max_worker_processes", "8")) == max(8, cpus + 1)
        assert "max_parallel_workers_per_gather" not in planned
        warehouse = {c.name: c.after for c in make_plan(facts(host(cpus=cpus), profile="warehouse")).changes}
        assert warehouse.get("max_parallel_workers_per_gather", "2") == str(max(1, min(cpus // 2, 8)))


def test_under_a_gigabyte_shared_buffers_are_fifteen_percent():
    """Where it fits at all: a small container with a pool of three."""
    budget = budget_of(facts(host(900 * MB), pooler=Pooler("pgbouncer", 3)))
    assert budget
    assert budget.values.shared_buffers == 135 * MB


def test_a_mature_small_database_gets_no_more_than_it_can_fill():
    """1.2 x the data after a week; a young one has yet to grow, and an existing value is not lowered for that."""
    small = {"databases": MappingProxyType({"ava": 500 * MB}), "stats_age": 8 * 86_400.0}
    assert budget_of(facts(**small)).values.shared_buffers == 600 * MB
    assert budget_of(facts(**{**small, "stats_age": 3600.0})).values.shared_buffers == 2 * GB
    assert budget_of(facts(**small, settings={"shared_buffers": "1GB"})).values.shared_buffers == GB


def test_without_memory_nothing_is_guessed():
    """A remote host of which nothing was told: the memory rules say what to tell."""
    found = replace(facts(), host=None)
    assert budget_of(found) is None
    plan = make_plan(found)
    assert plan.proof is None
    assert not {"shared_buffers", "work_mem", "effective_cache_size"} & {change.name for change in plan.changes}
    assert {"shared_buffers", "work_mem", "max_parallel_workers"} <= {refusal.name for refusal in plan.refused}
    assert all("--" in refusal.instead for refusal in plan.refused if refusal.name == "work_mem")


def test_sessions_that_do_not_fit_raise_nothing_and_say_what_would_fit():
    """Stock settings on 2 GB: no more memory is taken, and the advice, when followed, makes the proof hold."""
    plan = make_plan(facts(host(2 * GB)))
    assert plan.proof
    assert not plan.proof.holds
    assert plan.proof.total <= plan.proof.before
    budget = budget_of(facts(host(2 * GB)))
    assert any(f"--pooler pgbouncer:{budget.fitting_sessions}" in warning for warning in plan.warnings)
    followed = make_plan(facts(host(2 * GB), pooler=Pooler("pgbouncer", budget.fitting_sessions)))
    assert followed.proof
    assert followed.proof.holds
    one_more = budget_of(facts(host(2 * GB), pooler=Pooler("pgbouncer", budget.fitting_sessions + 1)))
    assert not one_more.fits


def test_shared_buffers_give_way_before_work_mem_falls_below_its_least():
    """4 GB and 100 sessions fit, with a little less than 25 %."""
    budget = budget_of(facts(host(4 * GB)))
    assert budget.fits
    assert 0.15 * 4 * GB <= budget.values.shared_buffers < GB
    assert budget.values.work_mem == 4 * MB


def test_a_pooler_leaves_more_for_each_session():
    """N is what it opens, when that is less than max_connections."""
    assert budget_of(facts(pooler=Pooler("pgbouncer", 20))).values.work_mem > 40 * MB
    assert budget_of(facts(pooler=Pooler("pgbouncer", 500))).sessions == 100
    assert budget_of(facts(pooler=Pooler("pgbouncer"))).sessions == 100


def test_the_cap_of_the_profile_holds():
    """64 MB for oltp and mixed, 256 MB for a warehouse, 1 GB from 64 GB on."""
    few = Pooler("pgbouncer", 4)
    for profile, memory, cap in (("oltp", 64, 64), ("mixed", 64, 64), ("warehouse", 32, 256), ("warehouse", 64, 1024)):
        found = budget_of(facts(host(memory * GB), profile=profile, pooler=few))
        assert found.values.work_mem == cap * MB


def test_a_higher_value_with_room_stays_and_one_without_is_lowered():
    """64 MB for ten sessions is somebody's choice; for a hundred on 8 GB it is 25 GB at worst."""
    roomy = make_plan(facts(host(64 * GB), pooler=Pooler("pgbouncer", 10), settings={"work_mem": "100MB"}))
    assert "work_mem" not in {change.name for change in roomy.changes}
    tight = make_plan(facts(settings={"work_mem": "64MB"}))
    change = next(change for change in tight.changes if change.name == "work_mem")
    assert (change.before, change.after) == ("64MB", "10MB")
    assert "25" in change.reason
    assert tight.proof
    assert tight.proof.holds


def test_what_the_command_line_gives_is_counted_and_not_planned():
    """shared_buffers of 4 GB on the command line of an 8 GB machine leave less for the rest."""
    fixed = replace(settings(shared_buffers="3GB")["shared_buffers"], source="command line", sourcefile=None)
    plan = make_plan(facts(settings={"shared_buffers": fixed}))
    assert "shared_buffers" not in {change.name for change in plan.changes}
    assert plan.proof
    assert plan.proof.holds
    assert plan.proof.terms[0][1] > 3 * GB


def test_rounding_takes_little_of_the_reserve():
    """A megabyte more for each of two thousand sessions would be gigabytes: it is rounded down."""
    for sessions in range(1000, 2400, 100):
        found = facts(host(96 * GB), settings={"max_connections": str(sessions)})
        budget, proof = budget_of(found), make_plan(found).proof
        assert budget
        assert proof
        assert proof.holds
        assert dict(proof.terms)["the system and its cache"] >= budget.reserve * 0.95


def test_an_unsafe_value_is_lowered_however_little_it_differs():
    """4.1 MB where only 4 MB fit."""
    plan = make_plan(facts(settings={"max_connections": "200", "work_mem": "4190kB"}))
    assert {change.name: change.after for change in plan.changes}["work_mem"] == "4MB"


@pytest.mark.parametrize("seed", range(4))
def test_the_worst_case_never_exceeds_the_limit(seed):
    """Random servers on random machines, 100,000 by the campaign: it fits, or no byte more is taken than before."""
    chance = random.Random(SEED + seed)
    fits = 0
    for _ in range(FACTS // 4):
        found = random_facts(chance)
        basis, recommended = recommend(found)
        after = {item.setting.name: item.value for item in recommended if isinstance(item, Recommendation)}
        assert basis.budget
        proof = proof_of(basis.budget, found.server, after)
        assert proof.holds or proof.total <= proof.before, (found.host, after)
        assert proof.holds or not basis.budget.fits, (found.host, after)
        fits += proof.holds
    assert fits > FACTS // 40


def test_any_choice_among_the_changes_keeps_the_proof():
    """`--only` one memory setting brings what it must not go without."""
    chance = random.Random(SEED)
    names = ("shared_buffers", "work_mem", "maintenance_work_mem", "autovacuum_work_mem", "memory")
    for _ in range(150):
        found = random_facts(chance)
        for name in names:
            proof = make_plan(found, only=(name,)).proof
            assert proof
            assert proof.holds or proof.total <= proof.before, (found.host, name)


def test_measured_shared_memory_beyond_the_estimate_is_counted():
    """Libraries take shared memory too; what the server says of itself counts."""
    plain, more = budget_of(facts()), budget_of(facts(shared_memory_size=2 * GB))
    assert plain
    assert more
    assert more.shared_rest > GB
    assert more.values.work_mem < plain.values.work_mem
    assert budget_of(facts(shared_memory_size=152 * MB)).values == plain.values


def test_a_server_that_lacks_a_setting_is_budgeted_all_the_same():
    """Facts of a later version may miss what this one knows."""
    few = MappingProxyType({"max_connections": server().settings["max_connections"]})
    assert budget_of(replace(facts(), server=replace(server(), settings=few)))
