"""AVA's own settings, from the environment (AVA_HOST, AVA_PORT …); those of the database are `DatabaseConfig`'s."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from magnus import ConfigError

MEBIBYTE = 1024 * 1024


class Settings(BaseSettings):
    """
    Where AVA listens, and how much it takes on at once.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 is any free one.
        warmup_connections: How many database connections are opened and proven before the first request.
        max_in_progress: Requests that are worked on at once; more wait.
        max_waiting: Requests that may wait; more are refused with 503 and Retry-After.
        max_wait: Seconds that a request may wait.
        max_body_bytes: The largest request body, imports apart.
        import_max_bytes: The largest file of an import.
        import_max_rows: The most rows of an import.
        dashboard_token: Who has it may look at /dashboard from anywhere; without one only this machine may.
        import_batch_rows: Rows that a partial import books in one transaction.
        relay_interval: Seconds between two looks for events to tell; 0: another process tells them (`ava relay`).
        keep_days: Days that the answers of orders and imports are kept for a repeat; their keys are kept for ever.
    """

    model_config = SettingsConfigDict(env_prefix="AVA_", env_ignore_empty=True, frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    warmup_connections: int = Field(10, ge=0)
    max_in_progress: int = Field(512, ge=1)
    max_waiting: int = Field(4096, ge=0)
    max_wait: float = Field(5.0, gt=0, allow_inf_nan=False)
    max_body_bytes: int = Field(64 * 1024, ge=1024)
    import_max_bytes: int = Field(16 * MEBIBYTE, ge=1024)
    import_max_rows: int = Field(100_000, ge=1)
    import_batch_rows: int = Field(1000, ge=1, le=10_000)
    dashboard_token: SecretStr | None = None

    @property
    def token_of_dashboard(self) -> str | None:
        return None if self.dashboard_token is None else self.dashboard_token.get_secret_value()

    relay_interval: float = Field(1.0, ge=0, allow_inf_nan=False)
    keep_days: float = Field(30.0, gt=0, allow_inf_nan=False)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """
        Return the settings of the environment; `overrides` that are not None come before it.

        Raises:
            ConfigError: a value is impossible; it names the setting or the environment variable.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            field = name if name in given else f"AVA_{name.upper()}"
            raise ConfigError(field, first["input"], first["msg"]) from None
