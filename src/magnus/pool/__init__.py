"""The connection pool: pure lanes and states, and a thin asynchronous shell around them."""

from magnus.pool._guard import watch_forks
from magnus.pool._lanes import RANK, LaneLimits, lane_table
from magnus.pool._lease import Lease
from magnus.pool._pool import Pool
from magnus.pool._slots import Slot, Watch
from magnus.pool._stats import Distribution, LaneSnapshot, PoolSnapshot, summed
from magnus.pool._sweep import Sweep

__all__ = [
    "RANK",
    "Distribution",
    "LaneLimits",
    "LaneSnapshot",
    "Lease",
    "Pool",
    "PoolSnapshot",
    "Slot",
    "Sweep",
    "Watch",
    "lane_table",
    "summed",
    "watch_forks",
]
