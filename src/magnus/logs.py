"""Events and records -> log lines; it configures logging only when an application asks, and imports structlog late."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from magnus._context import request_id
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from magnus.observe import Event

    EventDict = MutableMapping[str, Any]

__all__ = ["EventLogger", "configure", "log_events", "request_id", "scrub"]

_RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_FIRST: Final = ("timestamp", "level", "event", "logger", "request_id")
_SERVER_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access")


class EventLogger:
    """
    An observer that writes each event as one line: the event's name, its level, its fields.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger

    def __call__(self, event: Event, /) -> None:
        level = logging.getLevelNamesMapping().get(event.level.upper(), logging.INFO)
        logger = _default_logger() if self._logger is None else self._logger
        if isinstance(logger, logging.Logger | logging.LoggerAdapter):
            logger.log(level, event.name, extra=_extra(event.fields()))
        else:
            logger.log(level, event.name, **event.fields())


def log_events(logger: Any = None) -> EventLogger:
    """
    Return an observer that logs events under the name "magnus".

    Without `logger` it writes through structlog when the application has configured that, else through `logging` with
    the fields as `extra`. (structlog that nobody configured would print to standard output.)
    """
    return EventLogger(logger)


def configure(*, json: bool | None = None, level: int | str = logging.INFO) -> None:
    """
    Set up logging for a whole application: structlog and `logging` end in the same lines on standard error.

    Each line has an ISO UTC timestamp, level, logger, the request's id and bound context; passwords in DSNs are
    starred out. `json=None` writes JSON unless standard error is a terminal. uvicorn's loggers are included when it is
    run with `log_config=None`. Calling it again replaces the set-up.

    Raises:
        ConfigError: structlog is not installed, or `level` is no level.
    """
    try:
        import structlog
    except ImportError:
        raise ConfigError("logs", "structlog", "is not installed: pip install 'magnus-db[structlog]'") from None
    if isinstance(level, str) and level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError("level", level, "is no log level; one of debug, info, warning, error, critical")
    threshold = level.upper() if isinstance(level, str) else level
    as_json = not sys.stderr.isatty() if json is None else json
    shared = _shared_processors()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": [_fields_of_record, *shared],
        "pass_foreign_args": True,
        "processors": _rendering(as_json=as_json),
    }
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": threshold},
        "loggers": {name: {"handlers": [], "propagate": True, "level": "NOTSET"} for name in _SERVER_LOGGERS},
    })


def scrub(text: str) -> str:
    """
    Return the text with the passwords of URIs and of `password=…` pairs starred out.
    """
    return _PAIR_SECRET.sub(r"\1***", _URI_SECRET.sub(r"\1***", text))


_SECRET_NAME: Final = re.compile(r"(?:.*_)?(?:password|passwd|pwd|secret|token|authorization|dsn)", re.IGNORECASE)
_URI_SECRET: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@\"']*:)[^\s/\"']*(?=@)", re.IGNORECASE)
_PAIR_SECRET: Final = re.compile(
    r"(\b(?:[a-z_]*password|passwd|pwd)[\"']?\s*[=:]\s*)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;}\"']+)",
    re.IGNORECASE,
)


def _default_logger() -> Any:
    structlog = sys.modules.get("structlog")  # one that nobody imported is one that nobody configured
    if structlog is not None and structlog.is_configured():
        return structlog.get_logger("magnus")
    return logging.getLogger("magnus")


def _extra(fields: dict[str, object]) -> dict[str, object]:
    return {f"{name}_" if name in _RESERVED else name: value for name, value in fields.items()}


def _shared_processors() -> list[Any]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]


def _rendering(*, as_json: bool) -> list[Any]:
    import structlog

    # The plain traceback: the pretty one shows local variables, and with them every secret in scope.
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _scrub_event,
        structlog.processors.JSONRenderer(default=str) if as_json else console,
    ]


def _add_request_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    found = request_id.get()
    if found is not None:
        event.setdefault("request_id", found)
    return event


def _scrub_event(_logger: object, _method: str, event: EventDict) -> EventDict:
    ordered = {name: event[name] for name in _FIRST if name in event} | dict(event)
    return {name: _scrubbed(name, value) for name, value in ordered.items()}


def _scrubbed(name: object, value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            found = scrub(value)
            return "***" if found == value and _is_secret(name) else found
        case dict():
            return {str(key): _scrubbed(key, item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_scrubbed(name, item) for item in value]
        case _:
            return _scrubbed(name, str(value))


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SECRET_NAME.fullmatch(name) is not None


def _fields_of_record(_logger: object, _method: str, event: EventDict) -> EventDict:
    """
    Take over a foreign record's `extra`; an access line of uvicorn becomes an event with fields, without its query
    string, which may hold a caller's data.
    """
    record: logging.LogRecord = event["_record"]
    arguments = event.pop("positional_args", ())
    event.update({name: value for name, value in vars(record).items() if name not in _RESERVED | {"color_message"}})
    match record.name, arguments:
        case "uvicorn.access", (client, method, str(path), _, status):
            bare = path.partition("?")[0]
            event.update(event="http_request", client=client, method=method, path=bare, status=status)
    return event
