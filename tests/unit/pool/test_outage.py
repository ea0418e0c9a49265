"""Events of an outage: its beginning, a reminder a minute, its end."""

from __future__ import annotations

from magnus.observe import ConnectFailed, ConnectRecovered
from magnus.pool._outage import Outage


def test_an_outage_is_told_once_and_again_each_minute():
    """However many attempts fail."""
    outage = Outage()

    told = [outage.failed(float(second), "unreachable", "OSError") for second in range(130)]

    assert [second for second, event in enumerate(told) if event is not None] == [0, 60, 120]
    assert told[60] == ConnectFailed("unreachable", "OSError", 61)


def test_the_end_is_told_once():
    """With the number of failures and the duration; the next outage begins anew."""
    outage = Outage()
    assert outage.opened(1.0) is None
    outage.failed(10.0, "unreachable", "OSError")
    outage.failed(12.0, "unreachable", "OSError")

    assert outage.opened(15.0) == ConnectRecovered(2, 5.0)
    assert outage.opened(16.0) is None
    assert outage.failed(17.0, "timeout", "TimeoutError") == ConnectFailed("timeout", "TimeoutError", 1)
