"""One lease's trace, and knowledge that others change meanwhile."""

import pytest

from magnus import _trace
from magnus._catalogue import Catalogue
from magnus._effects import LONGEST, Action, effect_of
from magnus._trace import Knowledge, SessionTrace, needs_reset

CALM = Catalogue(frozenset({"now"}))
WILD = Catalogue(frozenset({"now"}), "function a.f can change the session: SET")


@pytest.fixture
def wanted():
    """How often the catalogue was asked for."""
    return []


@pytest.fixture
def knowledge(wanted):
    """Knowledge of a calm database."""
    found = Knowledge(lambda: wanted.append(1))
    assert found.learned(CALM, 0)
    return found


def test_a_clean_lease_needs_nothing(knowledge):
    """Neutral statements, any number."""
    trace = SessionTrace(knowledge)
    for _ in range(3):
        trace.saw("SELECT now()")
        trace.saw("INSERT INTO t VALUES ($1)")
    assert trace.end().action is Action.NONE
    assert trace.reason is None


def test_what_was_left_is_cleaned_exactly(knowledge):
    """The first reason is kept."""
    trace = SessionTrace(knowledge)
    trace.saw("SET a = 1")
    trace.saw("LISTEN b")
    found = trace.end()
    assert (found.action, found.sql, found.reason) == (Action.EXACT, "RESET ALL; UNLISTEN *", "SET")


def test_nothing_is_clean_before_the_catalogue_is_known():
    """A full reset, with the reason."""
    trace = SessionTrace(Knowledge())
    trace.saw("SELECT 1")
    found = trace.end()
    assert (found.action, found.reason) == (Action.FULL, "the catalogue is not known yet")


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("get_server_pid", Action.NONE), ("reload_schema_state", Action.NONE), ("add_listener", Action.FULL),
        ("add_log_listener", Action.FULL), ("set_type_codec", Action.CLOSE), ("add_query_logger", Action.CLOSE),
        ("prepare", Action.CLOSE), ("something_new", Action.CLOSE),
    ],
)  # fmt: skip
def test_direct_use_of_the_driver_counts(knowledge, method, action):
    """By what the method leaves; an unknown one ends the connection."""
    trace = SessionTrace(knowledge)
    trace.touched(method)
    assert trace.end().action is action


def test_an_open_transaction_and_a_cut_statement_need_a_full_reset(knowledge):
    """Neither is seen in the text."""
    assert SessionTrace(knowledge).end(is_in_transaction=True).action is Action.FULL
    trace = SessionTrace(knowledge)
    trace.interrupted()
    assert trace.end().action is Action.FULL


def test_a_reset_by_hand_takes_back_what_it_can(knowledge):
    """What lasts stays."""
    trace = SessionTrace(knowledge)
    trace.saw("SET a = 1")
    trace.reset()
    assert trace.end().action is Action.NONE
    trace = SessionTrace(knowledge)
    trace.saw("LOAD 'x'")
    trace.reset()
    assert trace.end().action is Action.CLOSE


def test_a_change_of_the_schema_makes_everything_unknown(knowledge, wanted):
    """For the lease that makes it, for those that are out, for those that begin; until it is read after the last."""
    before, first, second = (SessionTrace(knowledge) for _ in range(3))
    first.saw("CREATE TABLE t ()")
    first.saw("CREATE TABLE t2 ()")
    second.saw("ALTER TABLE t ADD a int")
    during = SessionTrace(knowledge)
    during.saw("SELECT 1")
    assert [during.end().action, before.end().action] == [Action.FULL, Action.FULL]
    assert not knowledge.learned(CALM, knowledge.generation)
    assert first.end().action is Action.FULL
    assert wanted == []
    generation = knowledge.generation
    assert second.end().action is Action.FULL
    assert wanted == [1]
    assert not knowledge.learned(CALM, generation)
    assert knowledge.learned(WILD, knowledge.generation)
    after = SessionTrace(knowledge)
    after.saw("INSERT INTO t VALUES (1)")
    assert after.end().reason == WILD.danger


def test_reading_the_same_again_disturbs_nobody(knowledge):
    """Leases that are out stay clean."""
    trace = SessionTrace(knowledge)
    trace.saw("SELECT 1")
    assert knowledge.learned(Catalogue(frozenset({"now"})), knowledge.generation)
    assert trace.end().action is Action.NONE


def test_reading_something_else_counts_for_leases_that_are_out(knowledge, wanted):
    """They may have run under the new state already."""
    trace = SessionTrace(knowledge)
    trace.saw("INSERT INTO t VALUES (1)")
    assert knowledge.learned(WILD, knowledge.generation)
    assert trace.end().action is Action.FULL
    knowledge.doubted()
    assert wanted == [1]
    assert knowledge.catalogue is None


def test_verdicts_are_kept_and_long_texts_are_not(knowledge, monkeypatch):
    """The same text is judged once."""
    judged = []
    monkeypatch.setattr(_trace, "effect_of", lambda sql, functions: judged.append(sql) or effect_of(sql, functions))
    long = "SELECT '" + "x" * LONGEST + "'"
    for sql in ("SELECT 1", "SELECT 1", long, long):
        knowledge.verdict(sql)
    assert judged == ["SELECT 1", long, long]


def test_the_number_of_verdicts_is_bounded(knowledge, monkeypatch):
    """The texts used longest ago are judged again."""
    for number in range(2_049):
        knowledge.verdict(f"SELECT {number}")
    judged = []
    monkeypatch.setattr(_trace, "effect_of", lambda sql, functions: judged.append(sql) or effect_of(sql, functions))
    knowledge.verdict("SELECT 2048")
    knowledge.verdict("SELECT 0")
    assert judged == ["SELECT 0"]


def test_a_list_of_effects_is_decided_on_at_once():
    """As a trace would."""
    effects = [effect_of(sql, CALM.functions) for sql in ("SELECT now()", "SET a = 1")]
    assert needs_reset(effects, CALM).action is Action.EXACT
    assert needs_reset(effects[:1], CALM).action is Action.NONE
    assert needs_reset(effects[:1], None).action is Action.FULL
