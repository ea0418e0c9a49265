"""What happened, as frozen events, and who is told; knows no logger and no metrics library.

An observer is any callable that takes one event. It is called on the event loop, in order, and must not block.
An observer that raises is reported once to the loop's exception handler and never disturbs the call it observed.
"""

from magnus.observe._event import Event, Observer
from magnus.observe._pool import (
    LeakReclaimed,
    LeakReturned,
    LeakSuspected,
    NestedAcquireRisk,
    PoolHighUtilization,
    PoolMended,
    PoolPaused,
    PoolResized,
    PoolResumed,
    PoolUtilizationNormal,
    PoolWarmed,
    WarmupFailed,
)
from magnus.observe._server import (
    ConnectFailed,
    ConnectRecovered,
    FleetOverBudget,
    FleetUnseen,
    FleetWithinBudget,
    GuardsMissing,
    HealthCheckFailed,
    HealthCheckRecovered,
    PoolerMisjudged,
    ReadTokenIgnored,
    ReplicaLost,
    ReplicaReady,
    ServerFault,
    StandbyEvicted,
)
from magnus.observe._slow_log import SlowLogEventsOnly, SlowLogLeftOut, SlowLogRecovered, SlowQuery
from magnus.observe._statement import Ended, OutcomeNotKnown, QueryTimedOut, Retry, RetryBudgetSpent, Watcher

__all__ = [
    "ConnectFailed",
    "ConnectRecovered",
    "Ended",
    "Event",
    "FleetOverBudget",
    "FleetUnseen",
    "FleetWithinBudget",
    "GuardsMissing",
    "HealthCheckFailed",
    "HealthCheckRecovered",
    "LeakReclaimed",
    "LeakReturned",
    "LeakSuspected",
    "NestedAcquireRisk",
    "Observer",
    "OutcomeNotKnown",
    "PoolHighUtilization",
    "PoolMended",
    "PoolPaused",
    "PoolResized",
    "PoolResumed",
    "PoolUtilizationNormal",
    "PoolWarmed",
    "PoolerMisjudged",
    "QueryTimedOut",
    "ReadTokenIgnored",
    "ReplicaLost",
    "ReplicaReady",
    "Retry",
    "RetryBudgetSpent",
    "ServerFault",
    "SlowLogEventsOnly",
    "SlowLogLeftOut",
    "SlowLogRecovered",
    "SlowQuery",
    "StandbyEvicted",
    "WarmupFailed",
    "Watcher",
]
