"""Behind a transaction pooler: what is refused, which limits hold, which pooler stands between."""

import math

import pytest

from magnus import ConfigError, DatabaseConfig, NeedsSession, QueryPriority
from magnus._pooler import (
    Sight,
    advice,
    is_read,
    misjudged,
    needs_block,
    opening,
    refusal,
    refusal_of,
    statement_limits,
)
from magnus.session import STARTUP, read_only


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("SET work_mem = '1MB'", "SET"),
        ("SELECT set_config('a.b', $1, false)", "SET ROLE"),
        ("SELECT set_config('a.b', $1, $2)", "SET ROLE"),
        ("RESET ALL", "SET ROLE"),
        ("SET ROLE teller", "SET ROLE"),
        ("SET SESSION AUTHORIZATION teller", "SET ROLE"),
        ("LISTEN prices", "LISTEN"),
        ("UNLISTEN *", "LISTEN"),
        ("SELECT pg_advisory_lock(1)", "an advisory lock of the session"),
        ("SELECT pg_try_advisory_lock_shared($1)", "an advisory lock of the session"),
        ("PREPARE p AS SELECT 1", "a statement prepared by name"),
        ("DEALLOCATE ALL", "a statement prepared by name"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "a cursor WITH HOLD"),
        ("CREATE TEMP TABLE t (a int)", "a temporary table"),
        ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", "a temporary table"),
        ("LOAD 'auto_explain'", "a change of the session that nothing takes back"),
        ("SELECT 1; LISTEN prices", "LISTEN"),
    ],
)
def test_what_lives_in_a_session_is_refused_outside_a_transaction(text, feature):
    """Sent, it would be in whichever session comes next."""
    found = refusal(text, is_in_transaction=False)
    assert isinstance(found, NeedsSession)
    assert found.feature == feature
    assert feature in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "SET LOCAL work_mem = '1MB'",
        "SELECT set_config('a.b', $1, true)",
        "SELECT pg_advisory_xact_lock(1)",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
        "INSERT INTO pg_temp.t VALUES (1)",
        "DECLARE c CURSOR FOR SELECT 1",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT my_function(1)",
        "NOTIFY prices",
    ],
)
def test_what_ends_with_its_transaction_is_not_refused_in_one(text):
    """A transaction has one session to itself."""
    assert refusal(text, is_in_transaction=True) is None


@pytest.mark.parametrize(
    "text", ["SET work_mem = '1MB'", "CREATE TEMP TABLE t (a int)", "SELECT 1 AS a INTO TEMP t", "LISTEN prices"]
)
def test_what_outlives_its_transaction_is_refused_in_one_too(text):
    """It would be left in a session of everybody's."""
    assert refusal(text, is_in_transaction=True) is not None


def test_a_use_of_the_drivers_own_methods_is_refused_by_what_it_leaves():
    """A listener by its name, what is not known by what it may be."""
    assert refusal_of("listen").feature == "LISTEN"
    assert refusal_of("unheard of").feature.startswith("a change of the session")


def test_a_lane_that_may_take_longer_than_the_role_gets_a_limit_of_its_own():
    """The others run under the role's, whatever it is."""
    limits = statement_limits(DatabaseConfig(), 31.0)
    servers = {lane.value: limit.server for lane, limit in limits.items()}
    expected = dict.fromkeys(("critical", "high", "normal"), STARTUP) | {"low": 61.0, "background": 121.0}
    assert servers == expected
    assert all(limit.server is STARTUP for limit in statement_limits(DatabaseConfig(), math.inf).values())


def test_a_statement_is_put_into_a_transaction_only_when_its_limit_takes_one():
    """And never where the server refuses it there."""
    assert needs_block(61.0, 31.0, "SELECT 1", attempts=1)
    assert not needs_block(61.0, 31.0, "VACUUM t", attempts=1)
    assert not needs_block(61.0, 31.0, "create unique index concurrently i on t (a)", attempts=1)
    assert not needs_block(20.0, 31.0, "SELECT 1", attempts=1)
    assert not needs_block(61.0, math.inf, "SELECT 1", attempts=1)
    assert not needs_block(STARTUP, 31.0, "UPDATE t SET a = 1", attempts=2)


def test_a_read_is_guarded_when_it_is_repeated_or_is_none_by_its_text():
    """So nothing that was declared wrongly happens twice."""
    need = read_only(STARTUP)
    assert is_read("SELECT count(*), max(a) FROM t WHERE lower(b) = $1")
    assert not is_read("SELECT my_function(1)")
    assert not is_read("SELECT nextval('numbers')")
    assert not is_read("SELECT mine.count(1)")
    assert not is_read("INSERT INTO t VALUES (1) RETURNING a")
    assert not needs_block(need, 31.0, "SELECT 1", attempts=1)
    assert needs_block(need, 31.0, "SELECT 1", attempts=2)
    assert needs_block(need, 31.0, "DELETE FROM t", attempts=1)
    assert needs_block(need, 31.0, "SELECT my_function(1)", attempts=1)


def test_the_opening_carries_limit_and_mode_in_one_text():
    """One round trip."""
    assert opening(61.0, 5.0) == "BEGIN; SET LOCAL statement_timeout TO 61000"
    assert opening(read_only(None), 5.0) == "BEGIN READ ONLY; SET LOCAL statement_timeout TO 5000"


TRANSACTION = Sight(-5, (7, 8), (7,))
DIRECT = Sight(7, (7, 7), (8, 8))
SESSION = Sight(-5, (7, 7), (8, 8))


@pytest.mark.parametrize(
    ("pooler", "sight", "fix"),
    [
        ("none", TRANSACTION, 'pooler="transaction"'),
        ("transaction", DIRECT, 'pooler="none"'),
        ("transaction", SESSION, "pool_mode = transaction"),
        ("none", DIRECT, None),
        ("none", SESSION, None),
        ("transaction", TRANSACTION, None),
    ],
)
def test_a_wrong_setting_is_named_with_its_fix(pooler, sight, fix):
    """By which sessions two connections met."""
    found = misjudged(pooler, sight)
    if fix is None:
        assert found is None
    else:
        assert isinstance(found, ConfigError)
        assert found.field == "pooler"
        assert fix in found.reason


def test_a_session_that_changes_hands_is_seen_on_either_side():
    """On the first connection alone, on the second alone, or because both met the same."""
    assert Sight(-5, (7, 9), (8,)).is_transaction_mode
    assert Sight(-5, (7, 7), (8, 9)).is_transaction_mode
    assert Sight(-5, (7, 7), (7, 7)).is_transaction_mode


def test_missing_guards_are_told_with_the_sql_that_gives_them():
    """With both nothing is said."""
    text = advice(DatabaseConfig(), Sight(-5, (7,), (7,)))
    assert text is not None
    assert "statement_timeout = 31000" in text
    assert "idle_in_transaction_session_timeout = 60000" in text
    assert advice(DatabaseConfig(), Sight(-5, (7,), (7,), 31.0, 60.0)) is None


def test_behind_a_pooler_only_what_it_keeps_for_its_clients_is_sent_at_the_start():
    """Anything else it refuses, or drops without a word; prepared statements would meet another session."""
    arguments = DatabaseConfig(dsn="postgresql://a@localhost/b", pooler="transaction").connect_arguments({})
    assert arguments["server_settings"] == {"application_name": "ava_trading_platform"}
    assert arguments["statement_cache_size"] == 0
    assert arguments["is_shared"] is True
    assert "is_shared" not in DatabaseConfig(dsn="postgresql://a@localhost/b").connect_arguments({})


def test_settings_that_a_pooler_cannot_keep_are_refused_by_name():
    """In either place."""
    with pytest.raises(ConfigError, match="work_mem"):
        DatabaseConfig(pooler="transaction", server_settings={"work_mem": "1MB"})
    with pytest.raises(ConfigError, match="search_path"):
        DatabaseConfig(dsn="postgresql://a@b/c?search_path=x", pooler="transaction")
    DatabaseConfig(pooler="transaction", server_settings={"TimeZone": "UTC"})


@pytest.mark.parametrize("given", [{"prepare": ("SELECT 1",)}, {"prepare_learned": 3}])
def test_hot_statements_are_refused_where_no_session_would_keep_them(given):
    """Rather than prepared for somebody else."""
    (name,) = given
    with pytest.raises(ConfigError, match=name):
        DatabaseConfig(pooler="transaction", **given)


def test_the_direct_way_is_a_configuration_without_a_pooler():
    """With every guard again."""
    config = DatabaseConfig(dsn="postgresql://a@p/c", pooler="transaction", direct_dsn="postgresql://a@s/c")
    direct = config.direct()
    assert direct.pooler == "none"
    assert "//a@s/c" in direct.safe_dsn
    assert "statement_timeout" in direct.connect_arguments({})["server_settings"]
    assert DatabaseConfig(dsn="postgresql://a@p/c").direct().safe_dsn.endswith("a@p/c")
    assert QueryPriority.LOW in statement_limits(config, 31.0)
    with pytest.raises(ConfigError, match="direct_dsn"):
        DatabaseConfig(direct_dsn="postgresql://a@s/c")
