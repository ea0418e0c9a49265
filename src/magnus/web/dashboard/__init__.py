"""The dashboard: one page that shows a pool and its server, live; mounted in a service or run by itself."""

from magnus.errors import ConfigError
from magnus.web.dashboard._guard import is_loopback
from magnus.web.dashboard._recorder import Recorder
from magnus.web.dashboard._routes import dashboard_router
from magnus.web.dashboard._source import Alone, Server, Service

__all__ = ["Alone", "Recorder", "Server", "Service", "checked_token", "dashboard_router", "is_loopback"]

_LEAST = 16


def checked_token(token: str | None) -> str | None:
    """
    Return a token as it is.

    Raises:
        ConfigError: it is shorter than 16 characters.
    """
    if token is not None and len(token) < _LEAST:
        raise ConfigError("token", "(hidden)", f"must have at least {_LEAST} characters")
    return token
