"""Limits, the tracking of them, and the text of BEGIN."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magnus import lanes
from magnus.errors import ConfigError
from magnus.lanes import QueryPriority
from magnus.session import (
    LaneLimit,
    SessionLimit,
    TransactionMode,
    lane_limits,
    milliseconds,
    quote_identifier,
    quote_literal,
    server_limit,
    window,
)
from tests.facade_fakes import config

PLAIN = {"statement_timeout": None, "transaction_timeout": None}

# --- limits


def test_each_lane_has_its_limit_on_the_client_and_one_second_more_on_the_server():
    """CRITICAL 5/6 s, HIGH 10/11, NORMAL 30 and the startup value, LOW 60/61, BACKGROUND 120/121."""
    found = {lane.value: (limit.client, limit.server) for lane, limit in lane_limits(config()).items()}

    assert found == {
        "critical": (5.0, 6.0),
        "high": (10.0, 11.0),
        "normal": (30.0, None),
        "low": (60.0, 61.0),
        "background": (120.0, 121.0),
    }


@pytest.mark.parametrize(
    ("startup", "expected"),
    [(9.9, 11.0), (10.0, None), (12.0, None), (12.1, 11.0)],
    ids=["below", "at", "top", "above"],
)
def test_a_lane_uses_the_startup_value_where_that_is_its_own_limit_or_just_above(startup, expected):
    """No SET is needed where the session already has a fitting value; never one below the lane's limit."""
    assert lane_limits(config(statement_timeout=startup))[QueryPriority.HIGH].server == expected


def test_a_startup_value_of_the_users_own_is_not_relied_on():
    """With statement_timeout in server_settings nobody knows it, so every lane but NORMAL sets its own."""
    found = lane_limits(config(statement_timeout=60.0, server_settings={"statement_timeout": "1s"}))

    assert found[QueryPriority.LOW].server == 61.0


@pytest.mark.parametrize(("timeout", "expected"), [(None, 6.0), (0.1, 6.0), (5.0, 6.0), (90.0, 91.0)])
def test_the_servers_limit_rises_with_a_longer_timeout_and_never_falls_below_the_lanes(timeout, expected):
    """A timeout above the lane's limit lifts the server's; a shorter one leaves it, so that nothing has to be SET."""
    assert server_limit(LaneLimit(5.0, 6.0), timeout) == expected


def test_a_window_is_the_earliest_of_limit_scope_and_transaction():
    """Three ends are possible; the first one counts, and the limit that is reported is what was left."""
    lane = LaneLimit(10.0, 11.0)

    assert window(lane, None, now=100.0).deadline == 110.0
    assert window(lane, 2.0, now=100.0).deadline == 102.0
    assert window(lane, None, now=100.0, until=103.0).limit == 3.0
    assert window(lane, None, now=100.0, until=99.0).limit == 0.0
    with lanes.scope(timeout=1.0) as scope:
        assert scope.deadline is not None
        assert window(lane, None, now=scope.deadline - 0.5).limit == pytest.approx(0.5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", True])
def test_an_impossible_timeout_is_refused(timeout):
    """Zero would mean no limit on the server; nothing is corrected silently."""
    with pytest.raises(ConfigError, match="timeout"):
        window(LaneLimit(1.0, None), timeout, now=0.0)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0001, 1), (1.0001, 1001), (5.0, 5000), (1e12, 2_147_483_647)])
def test_limits_go_to_the_server_as_whole_milliseconds_and_never_as_zero(seconds, expected):
    """0 is "no limit" there, so a limit is rounded up; it fits the server's 32 bits."""
    assert milliseconds(seconds) == expected


# --- tracking


class ServerModel:
    """What PostgreSQL does with statement_timeout: a session value, and a stack of local ones."""

    def __init__(self):
        self.session = None
        self.stack = None  # local values: one entry for the transaction and one for each savepoint

    @property
    def value(self):
        for local in reversed(self.stack or []):
            if local != "unset":
                return local
        return self.session

    def run(self, sql):
        match = re.fullmatch(r"SET (LOCAL )?statement_timeout TO (DEFAULT|\d+)", sql)
        value = None if match.group(2) == "DEFAULT" else int(match.group(2)) / 1000
        if match.group(1):
            self.stack[-1] = value
        else:
            assert self.stack is None, "a SET inside a transaction would be undone by ROLLBACK"
            self.session = value


class TrackingMachine(RuleBasedStateMachine):
    """Random programs: whatever ends, resets or nests, the wanted value is in force when a statement runs."""

    def __init__(self):
        super().__init__()
        self.server = ServerModel()
        self.limit = SessionLimit()
        self.marks = []

    @rule(wanted=st.sampled_from([None, 6.0, 11.0, 61.0, 0.5]))
    def statement(self, wanted):
        is_in_transaction = self.server.stack is not None
        if self.limit.present != wanted:
            sql = self.limit.change(wanted, is_in_transaction=is_in_transaction)
            if sql is not None:
                self.server.run(sql)
                self.limit.changed(wanted, is_in_transaction=is_in_transaction)
        assert self.server.value == wanted

    @precondition(lambda self: self.server.stack is None)
    @rule()
    def begin(self):
        self.server.stack = ["unset"]

    @precondition(lambda self: self.server.stack is not None)
    @rule()
    def end_by_the_layer(self):
        self.server.stack, self.marks = None, []
        self.limit.ended()

    @precondition(lambda self: self.server.stack is not None)
    @rule(text=st.sampled_from(["COMMIT", "rollback", "select 1; end", " ABORT"]))
    def end_by_the_user(self, text):
        self.server.stack, self.marks = None, []
        self.limit.heard(text)

    @precondition(lambda self: self.server.stack is not None)
    @rule(text=st.sampled_from(["COMMIT AND CHAIN", "commit; begin"]))
    def end_and_begin_by_the_user(self, text):
        self.server.stack, self.marks = ["unset"], []
        self.limit.heard(text)

    @precondition(lambda self: self.server.stack is not None)
    @rule()
    def savepoint(self):
        self.marks.append(self.limit.mark())
        self.server.stack.append("unset")

    @precondition(lambda self: self.marks)
    @rule()
    def rollback_to(self):
        self.limit.restore(self.marks.pop())
        self.server.stack.pop()

    @precondition(lambda self: self.marks)
    @rule()
    def release_savepoint(self):
        self.marks.pop()
        local = self.server.stack.pop()
        if local != "unset":
            self.server.stack[-1] = local

    @precondition(lambda self: self.server.stack is None)
    @rule(text=st.sampled_from(["RESET ALL", "reset statement_timeout", "select 1 ; RESET all"]))
    def reset_by_the_user(self, text):
        self.server.session = None
        self.limit.heard(text)

    @precondition(lambda self: self.server.stack is None)
    @rule()
    def reset_by_the_pool(self):
        self.server.session = None
        self.limit.reset()

    @invariant()
    def what_is_known_is_true(self):
        present = self.limit.present
        is_known = present == present  # noqa: PLR0124  # the unknown equals nothing, not even itself
        if is_known and self.server.stack is not None:
            assert present == self.server.value


TestTracking = TrackingMachine.TestCase


def test_no_change_is_sent_while_the_wanted_value_is_in_force():
    """The common path, NORMAL on a fresh lease, costs no round trip."""
    limit = SessionLimit()

    assert limit.change(None, is_in_transaction=False) is None


def test_a_default_set_locally_ends_with_the_users_commit():
    """SET LOCAL … TO DEFAULT looks like an untouched session, and is not: the session's own value comes back."""
    limit = SessionLimit()
    limit.changed(6.0, is_in_transaction=False)
    limit.changed(None, is_in_transaction=True)
    limit.heard("COMMIT")

    assert limit.change(None, is_in_transaction=False) == "SET statement_timeout TO DEFAULT"


def test_a_set_of_the_users_own_is_left_standing():
    """The layer does not undo what a user SET by hand until it has a limit of its own to change."""
    limit = SessionLimit()
    limit.heard("SET statement_timeout = '1s'")

    assert limit.change(None, is_in_transaction=False) is None


# --- BEGIN


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ({}, "BEGIN"),
        ({"isolation": "serializable"}, "BEGIN ISOLATION LEVEL SERIALIZABLE"),
        ({"isolation": "repeatable_read", "readonly": True}, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        ({"readonly": True, "deferrable": True}, "BEGIN READ ONLY DEFERRABLE"),
        ({"settings": {"work_mem": "64MB"}}, """BEGIN; SET LOCAL "work_mem" TO '64MB'"""),
        ({"settings": {"ava.account_id": "7"}}, """BEGIN; SET LOCAL "ava"."account_id" TO '7'"""),
        ({"settings": {"role": "r", "a.b": "1"}}, """BEGIN; SET LOCAL "a"."b" TO '1'; SET LOCAL ROLE 'r'"""),
        (
            {"settings": {"search_path": "a, b"}},
            "BEGIN; SELECT pg_catalog.set_config('search_path', 'a, b', true)",
        ),
    ],
)
def test_begin_carries_mode_and_settings_in_one_text(mode, expected):
    """One round trip; the role last, so that it need not be allowed to set the rest."""
    assert TransactionMode(**mode).begin(**PLAIN) == expected


def test_limits_come_before_the_users_settings_so_that_those_win():
    """A statement_timeout given by hand is the one in force."""
    text = TransactionMode(settings={"statement_timeout": "1s"}).begin(statement_timeout=6.0, transaction_timeout=60.0)

    assert text == (
        "BEGIN; SET LOCAL statement_timeout TO 6000; SET LOCAL transaction_timeout TO 60000; "
        """SET LOCAL "statement_timeout" TO '1s'"""
    )


@pytest.mark.parametrize(
    "name", ["", "a b", "a;b", "a--", 'a"', "a'", "1a", "a.", ".a", "a..b", "ä", "a\n", "x" * 64, "a.b c", None, 1]
)
def test_a_name_that_no_setting_can_have_is_refused(name):
    """Names go into SQL as identifiers; only what the server could know gets that far."""
    with pytest.raises(ConfigError):
        TransactionMode(settings={name: "1"})


@pytest.mark.parametrize("value", ["\0", "a\0b", None, 1, b"a", "\ud800"])
def test_a_value_that_no_setting_can_have_is_refused_and_not_shown(value):
    """A value may be a secret; the error names the setting only."""
    with pytest.raises(ConfigError) as caught:
        TransactionMode(settings={"ava.key": value})

    assert caught.value.field == "settings[ava.key]"
    assert "***" in str(caught.value)


def test_an_unknown_isolation_level_is_refused():
    """As the driver does, before anything is sent."""
    with pytest.raises(ConfigError, match="isolation"):
        TransactionMode(isolation="serializable; DROP TABLE trades")


def read_literals(text):
    """Read a list of statements as PostgreSQL's lexer would: what lies in literals, and what remains around them."""
    found, rest, at = [], [], 0
    pattern = re.compile(r"""E'((?:[^'\\]|''|\\.)*)'|'((?:[^']|'')*)'|"((?:[^"]|"")*)\"""", re.DOTALL)
    for match in pattern.finditer(text):
        rest.append(text[at : match.start()])
        at = match.end()
        escaped, plain, name = match.groups()
        if escaped is not None:
            found.append(re.sub(r"''|\\\\", lambda pair: pair.group()[0], escaped))
        elif plain is not None:
            found.append(plain.replace("''", "'"))
        else:
            found.append(name.replace('""', '"'))
    return found, "".join([*rest, text[at:]])


# "\\" never stands in a plain literal, so standard_conforming_strings = off cannot change how it ends.
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_value_leaves_its_literal(value):
    """Whatever the value is, the server reads that value, and the statements around it are ours alone."""
    text = TransactionMode(settings={"ava.key": value, "role": value}).begin(**PLAIN)

    literals, rest = read_literals(text)
    assert literals == ["ava", "key", value, value]
    assert rest == "BEGIN; SET LOCAL . TO ; SET LOCAL ROLE "


@given(st.text())
def test_quoting_round_trips(text):
    """An identifier and a literal read back as what they were made from; a backslash is never left to a setting."""
    assert read_literals(quote_identifier(text))[0] == [text]
    literal = quote_literal(text)
    assert read_literals(literal)[0] == [text]
    assert literal.startswith("E'") == ("\\" in text)
