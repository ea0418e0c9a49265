"""The workload, the rate and the hiccups of the proof: fixed before anything is measured, the same for every side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """
    Attributes:
        rounds: Every side once in each, in an order that turns round.
        scale: Of AVA's data: 1 is 1,000 accounts and 1,000,000 trades.
        calibrate: Seconds for which the stock side is driven to find what it can do, with each number of clients.
        share: The rate of the calm load, the overload and the hiccups, as a share of what it can do with 50 clients.
        load: Seconds of the calm load.
        in_use: The share of its pool that "before" uses in the busy load: the mission says 60 to 90 % of its starting
            point. As many requests are under way then; what it can do with so many clients says, by Little's law, how
            long `users` have to think between an answer and their next request.
        users: Of the busy load.
        busy: Seconds of the busy load.
        hiccups: Seconds of the load with hiccups, which stand for an hour's.
        restarts: Seconds at which the server is restarted.
        kills: Seconds at which one backend of the service is terminated.
        stall: Second at which the whole server stands still, and for how long.
        overload: Seconds of the load while 200 background tasks hold connections.
        slow: Slow statements to be found.
    """

    rounds: int = 5
    scale: float = 0.2
    calibrate: float = 4.0
    share: float = 0.4
    load: float = 7.0
    in_use: float = 0.75
    users: int = 250
    busy: float = 10.0
    hiccups: float = 20.0
    restarts: tuple[float, ...] = (2.0, 7.0, 12.0)
    kills: tuple[float, ...] = (4.0, 4.5, 5.0, 5.5, 9.0, 9.5, 10.0, 10.5, 14.0, 14.5)
    stall: tuple[float, float] = (16.0, 2.0)
    overload: float = 5.0
    slow: int = 20


FULL = Script()
SHORT = Script(
    rounds=1, scale=0.02, calibrate=1.0, load=2.0, busy=2.0, hiccups=5.0, restarts=(1.0,), kills=(2.2, 2.4, 2.6),
    stall=(3.2, 0.5), overload=1.0, slow=4,
)  # fmt: skip
