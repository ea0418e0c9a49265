"""Spans and metrics of a database by OpenTelemetry's conventions, through its API alone; it knows no SDK, no exporter.

Theory of operation. A span is made when its statement has ended, with the times it had: nothing happens before a
statement is sent, and nothing of the user's runs inside. Durations of statements are recorded one by one; those of
waiting, use and opening come from the pool's own histograms in batches, and are recorded a few in each turn of the
event loop. Numbers of connections are read when a reader asks, on the loop, whichever thread the reader is in.
"""

from magnus.errors import ConfigError

try:
    import opentelemetry.trace as _installed  # noqa: F401  # said in words of ours when it is missing
except ImportError:
    raise ConfigError(
        "opentelemetry", "opentelemetry.trace", "is missing: pip install 'magnus-db[opentelemetry]'"
    ) from None

from magnus.opentelemetry._meters import BOUNDS
from magnus.opentelemetry._observer import OpenTelemetry

__all__ = ["BOUNDS", "OpenTelemetry"]
