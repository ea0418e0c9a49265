"""Settings: names, defaults, environment, and the errors of bad values."""

import dataclasses
import ssl

import pytest

from magnus.config import DatabaseConfig, milliseconds, seconds
from magnus.errors import ConfigError
from magnus.lanes import QUERY_TIMEOUTS, QueryPriority


def test_defaults_are_those_of_the_contract():
    """Every name of the contract exists with its value."""
    config = DatabaseConfig()

    assert (config.min_pool_size, config.max_pool_size) == (5, 30)
    assert (config.connect_timeout, config.command_timeout, config.statement_timeout) == (5.0, 30.0, 30.0)
    assert (config.transaction_timeout, config.idle_in_transaction_session_timeout) == (60.0, 60.0)
    assert (config.max_retries, config.retry_delay, config.retry_backoff) == (3, 0.05, 2.0)
    assert config.application_name == "ava_trading_platform"
    assert config.slow_query_threshold == 0.1


def test_it_is_frozen():
    """A setting cannot be changed under a running pool."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        DatabaseConfig().min_pool_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("DB_POOL_MIN", "2", "min_pool_size", 2),
        ("DB_POOL_MAX", "40", "max_pool_size", 40),
        ("DB_QUERY_TIMEOUT", "12", "command_timeout", 12.0),
        ("DB_QUERY_TIMEOUT", "12", "statement_timeout", 12.0),
        ("DB_CONNECT_TIMEOUT", "2.5", "connect_timeout", 2.5),
        ("DB_TRANSACTION_TIMEOUT", "90", "transaction_timeout", 90.0),
        ("MAGNUS_SLOW_QUERY_THRESHOLD", "50ms", "slow_query_threshold", 0.05),
        ("MAGNUS_STATEMENT_TIMEOUT", "1min", "statement_timeout", 60.0),
        ("MAGNUS_APPLICATION_NAME", "desk", "application_name", "desk"),
        ("MAGNUS_RETRY_BACKOFF", "3", "retry_backoff", 3.0),
        ("MAGNUS_SLOW_LOG_REDACT", '["^4[0-9]{15}$", "token"]', "slow_log_redact", ("^4[0-9]{15}$", "token")),
        ("DATABASE_URL", "postgresql://h/d", "safe_dsn", "postgresql://h/d"),
        ("DATABASE_URL", "", "safe_dsn", "postgresql://"),
    ],
)
def test_the_environment_sets_fields(variable, value, field, expected):
    """Each variable of the contract, and MAGNUS_<FIELD>, reaches its field."""
    assert getattr(DatabaseConfig.from_environ({variable: value}), field) == expected


def test_nearer_sources_win():
    """An argument beats MAGNUS_*, which beats the shared names."""
    environ = {"DB_POOL_MAX": "10", "MAGNUS_MAX_POOL_SIZE": "20"}

    assert DatabaseConfig.from_environ(environ).max_pool_size == 20
    assert DatabaseConfig.from_environ(environ, max_pool_size=25).max_pool_size == 25


@pytest.mark.parametrize("value", ["", "x", "5.5", "-1", "1e3", "٣", "999999999999999999999"])
def test_a_bad_variable_is_named(value):
    """The error names the variable that the person wrote, and nothing is corrected."""
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig.from_environ({"DB_POOL_MIN": value})

    assert caught.value.field == "DB_POOL_MIN"


@pytest.mark.parametrize("value", ["secret", '{"a": 1}', '["("]', "[1]"])
def test_rules_that_are_no_json_list_of_expressions_are_named(value):
    """By their variable."""
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig.from_environ({"MAGNUS_SLOW_LOG_REDACT": value})

    assert caught.value.field == "MAGNUS_SLOW_LOG_REDACT"


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "nan", "inf", "5 parsecs", "1e400"])
def test_a_bad_duration_is_named(value):
    """No duration of the environment is guessed."""
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig.from_environ({"DB_CONNECT_TIMEOUT": value})

    assert caught.value.field == "DB_CONNECT_TIMEOUT"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_pool_size", -1),
        ("max_pool_size", 0),
        ("max_pool_size", True),
        ("max_pool_size", 2.0),
        ("min_pool_size", 31),
        ("connect_timeout", 0),
        ("command_timeout", float("nan")),
        ("transaction_timeout", float("inf")),
        ("statement_timeout", "soon"),
        ("retry_backoff", 0.5),
        ("retry_delay", -0.1),
        ("max_retries", 0),
        ("application_name", "a\0b"),
        ("application_name", 7),
        ("server_settings", 7),
        ("server_settings", {"a b": "c"}),
        ("lane_timeouts", {"urgent": 1.0}),
        ("dsn", 7),
        ("password", 7),
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value):
    """ConfigError is a ValueError that names the field."""
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig(**{field: value})

    assert isinstance(caught.value, ValueError)
    assert caught.value.field in {field, "priority"}


def test_no_password_is_shown():
    """Neither repr, safe_dsn nor an error holds the password."""
    config = DatabaseConfig(dsn="postgresql://u:hush@h/d", password="hush2")

    assert "hush" not in repr(config)
    assert "hush" not in config.safe_dsn
    assert config.connect_arguments()["password"] == "hush2"
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig(dsn="postgresql://u:hu@sh@h/d")
    assert "hu@" not in str(caught.value)


def test_durations_are_read_as_the_server_reads_them():
    """A number is seconds; a text may carry a unit; milliseconds go to the server, never 0."""
    assert [seconds("x", text) for text in ("60s", "500ms", "1min", "2 h", 3)] == [60.0, 0.5, 60.0, 7200.0, 3.0]
    assert [milliseconds(value) for value in (30.0, 0.0001, 1.2345)] == ["30000", "1", "1234"]


def test_guards_are_startup_settings():
    """What protects the server is what RESET ALL returns to; a string's own setting goes before it."""
    config = DatabaseConfig(dsn="host=/run statement_timeout=7s", server_settings={"work_mem": "8MB"})

    settings = config.connect_arguments()["server_settings"]

    assert settings["idle_in_transaction_session_timeout"] == "60000"
    assert settings["application_name"] == "ava_trading_platform"
    assert settings["statement_timeout"] == "7s"
    assert settings["work_mem"] == "8MB"


@pytest.mark.parametrize(
    ("dsn", "environ", "is_verified"),
    [
        ("postgresql://db.example/d", {}, True),
        ("host=/run/pg,db.example", {}, True),
        ("", {"PGHOST": "db.example"}, True),
        ("postgresql://db.example/d?sslmode=disable", {}, False),
        ("postgresql://db.example/d", {"PGSSLMODE": "require"}, False),
        ("postgresql://localhost/d", {}, False),
        ("postgresql://127.0.0.1/d", {}, False),
        ("host=/run/pg", {}, False),
        ("", {}, False),
    ],
)
def test_a_connection_that_leaves_the_machine_is_verified(dsn, environ, is_verified):
    """Without an sslmode the certificate and the host name are checked, except on loopback and sockets."""
    context = DatabaseConfig(dsn=dsn).connect_arguments(environ).get("ssl")

    assert (context is not None) is is_verified
    if is_verified:
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_lane_limits_follow_the_contract():
    """NORMAL's limit is command_timeout; a lane's own limit can be set."""
    config = DatabaseConfig(command_timeout=7, lane_timeouts={QueryPriority.LOW: 45})

    assert config.lane_timeout(QueryPriority.NORMAL) == 7.0
    assert config.lane_timeout(QueryPriority.LOW) == 45.0
    assert config.lane_timeout(QueryPriority.CRITICAL) == QUERY_TIMEOUTS[QueryPriority.CRITICAL] == 5.0


def test_a_copy_is_checked_again():
    """`replace` keeps a statement_timeout that only followed command_timeout following."""
    config = DatabaseConfig()

    assert config.replace(command_timeout=9).statement_timeout == 9.0
    with pytest.raises(ConfigError):
        config.replace(max_pool_size=1)


@pytest.mark.parametrize(
    "policy",
    [{"max_retries": 10, "retry_delay": 5.0}, {"max_retries": 1000}, {"command_timeout": 0.1}, {"retry_delay": 30.0}],
    ids=repr,
)
def test_a_retry_policy_that_cannot_be_met_inside_the_deadline_is_refused(policy):
    """The pauses alone would take as long as a statement may: say it at the start, not in an outage."""
    with pytest.raises(ConfigError, match="cannot be met inside the deadline") as caught:
        DatabaseConfig(**policy)

    assert caught.value.field == "max_retries"


def test_a_policy_without_repeats_can_always_be_met():
    """One attempt has no pause."""
    assert DatabaseConfig(max_retries=1, command_timeout=0.01).max_retries == 1
