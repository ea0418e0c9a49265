"""Events and records as lines: one form for structlog and logging, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from magnus import logs
from magnus.errors import ConfigError
from magnus.observe import Event, PoolWarmed, WarmupFailed

CANARY = "hunter2canary"

pytestmark = pytest.mark.usefixtures("untouched_logging")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Written:
    """
    What has been written to standard error so far.
    """

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def lines(stream: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_logging_end_in_the_same_lines(written):
    """Both give one JSON object a line with event, level, logger, an ISO UTC timestamp and their fields."""
    logs.configure(json=True)
    structlog.get_logger("mine").warning("cash_low", account=7)
    logging.getLogger("theirs").warning("cash %s", "low", extra={"account": 7})
    ours, theirs = lines(written)
    for line in (ours, theirs):
        assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert ours == {"event": "cash_low", "account": 7, "level": "warning", "logger": "mine"}
    assert theirs == {"event": "cash low", "account": 7, "level": "warning", "logger": "theirs"}


def test_every_line_of_a_request_carries_its_id(written):
    """The id is bound by context, whoever logs; outside a request there is none."""
    logs.configure(json=True)
    token = logs.request_id.set("r-1")
    structlog.get_logger().info("one")
    logging.getLogger("x").warning("two")
    logs.request_id.reset(token)
    logging.getLogger("x").warning("three")
    assert [line.get("request_id") for line in lines(written)] == ["r-1", "r-1", None]


def test_bound_context_of_structlog_is_on_every_line(written):
    """What an application binds with structlog.contextvars shows on lines of logging too."""
    logs.configure(json=True)
    with structlog.contextvars.bound_contextvars(account=7):
        logging.getLogger("x").warning("bound")
    assert lines(written)[0]["account"] == 7


def test_the_servers_access_line_becomes_fields_without_the_query_string(written):
    """The server's own loggers are included; what a caller put behind the question mark is not."""
    logs.configure(json=True)
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:5000", "GET", f"/api/trades?token={CANARY}", "1.1", 200
    )
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7, extra={"color_message": "x"})
    access, started = lines(written)
    assert access["event"] == "http_request"
    assert (access["method"], access["path"], access["status"]) == ("GET", "/api/trades", 200)
    assert started["event"] == "Started server process [7]"
    assert "color_message" not in started
    assert CANARY not in written.getvalue()


def test_the_level_is_a_threshold_for_both(written):
    """Lines below it are not written; a name in any case is read."""
    logs.configure(json=True, level="Warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("x").info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(written)] == ["loud"]


def test_without_a_choice_a_terminal_gets_text_and_a_pipe_gets_json(monkeypatch):
    """Standard error decides."""
    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure()
        structlog.get_logger().info("hello", answer=42)
        assert stream.getvalue().startswith("{") is is_json
        assert "hello" in stream.getvalue()


def test_configuring_twice_does_not_double_lines(written):
    """The second set-up replaces the first."""
    logs.configure(json=True)
    logs.configure(json=True)
    logging.getLogger("x").warning("once")
    assert len(lines(written)) == 1


def test_a_level_that_is_none_is_refused():
    """The error names the field."""
    with pytest.raises(ConfigError, match="level"):
        logs.configure(level="loudest")


def test_without_structlog_it_says_what_to_install(monkeypatch):
    """The extra is optional; its absence is one clear line."""
    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ConfigError, match=r"magnus-db\[structlog\]"):
        logs.configure()


SECRETS = [
    f"postgresql://ava:{CANARY}@db:5432/ava?sslmode=require",
    f"postgres://ava:x@{CANARY}@db/ava",
    f"host=db password={CANARY} dbname=ava",
    f"host=db password='{CANARY} \\' more' dbname=ava",
    f'{{"password": "{CANARY}"}}',
    f"PGPASSWORD={CANARY}",
    f"ALTER ROLE ava PASSWORD: '{CANARY}'",
]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("secret", SECRETS)
def test_no_password_gets_into_a_line(written, secret, as_json):
    """In a message, argument, field, nested field, object or exception with its source line: starred out."""
    logs.configure(json=as_json)
    log = structlog.get_logger("mine")
    log.info(secret)
    log.info("arg %s", secret)
    log.info("field", dsn=secret, nested={"deep": [secret]}, error=ValueError(secret))
    logging.getLogger("theirs").warning("arg %s", secret, extra={"dsn": secret})
    try:
        raise ValueError(secret)  # noqa: TRY301  # the line itself is in the traceback
    except ValueError:
        log.exception("failed")
        logging.getLogger("theirs").exception("failed")
    assert written.getvalue().count("***") >= 7
    assert CANARY not in written.getvalue()


@pytest.mark.parametrize("name", ["password", "db_password", "secret", "access_token", "authorization", "PASSWORD"])
def test_a_field_named_like_a_secret_is_starred_out(written, name):
    """Whatever its value is, at any depth."""
    logs.configure(json=True)
    structlog.get_logger().info("field", **{name: CANARY, "nested": {name: CANARY, "port": 5432}})
    (line,) = lines(written)
    assert (line[name], line["nested"]) == ("***", {name: "***", "port": 5432})


@pytest.mark.parametrize(
    "text",
    ["GET http://127.0.0.1:8000/api", "see https://a.b/c?d=e@f", "10:30:00 user@host", "password accepted", "a:b@c"],
)
def test_what_is_no_secret_stays(text):
    """Addresses and times are not mangled."""
    assert logs.scrub(text) == text


def test_an_event_is_a_line_of_the_configured_structlog(written):
    """Name, level and fields of the event, under the logger `magnus`."""
    logs.configure(json=True)
    logs.log_events()(WarmupFailed(0, 10, "ConnectError", "the server cannot be reached"))
    (line,) = lines(written)
    line.pop("timestamp")
    assert line == {
        "event": "database_warmup_failed",
        "level": "error",
        "logger": "magnus",
        "connections": 0,
        "wanted": 10,
        "error_type": "ConnectError",
        "error": "the server cannot be reached",
    }


def test_an_event_is_a_record_of_logging_when_nobody_configured_structlog(caplog, capsys):
    """The fields are `extra`, and nothing is printed to standard output."""
    with caplog.at_level(logging.INFO, logger="magnus"):
        logs.log_events()(PoolWarmed(10, 10))
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.connections, record.pool_size) == (
        "magnus",
        "database_pool_warmed",
        10,
        10,
    )
    assert capsys.readouterr().out == ""


def test_a_field_that_logging_keeps_for_itself_is_renamed(caplog):
    """`extra` must not overwrite an attribute of the record."""

    class Odd(Event):
        name = "odd"

        def fields(self) -> dict[str, object]:
            return {"module": "pool", "size": 3}

    with caplog.at_level(logging.INFO, logger="magnus"):
        logs.log_events(logging.getLogger("magnus"))(Odd())
    assert (caplog.records[0].module_, caplog.records[0].size) == ("pool", 3)


def test_a_logger_may_be_given(caplog):
    """A logger of logging, or any logger that takes fields as keywords."""
    with caplog.at_level(logging.INFO, logger="own"):
        logs.log_events(logging.getLogger("own"))(PoolWarmed(1, 2))
    assert [record.name for record in caplog.records] == ["own"]
    with structlog.testing.capture_logs() as captured:
        logs.log_events(structlog.get_logger())(PoolWarmed(1, 2))
    assert captured == [{"event": "database_pool_warmed", "connections": 1, "pool_size": 2, "log_level": "info"}]


def test_importing_configures_nothing_and_loads_no_structlog():
    """The library leaves logging to the application."""
    code = (
        "import logging, sys; before = logging.getLogger().handlers[:]; import magnus.logs; "
        "assert 'structlog' not in sys.modules; assert logging.getLogger().handlers == before; "
        "assert not logging.getLogger('magnus').handlers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
