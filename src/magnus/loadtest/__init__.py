"""A load test whose figures can be trusted: open or closed model, no coordinated omission, its own lateness shown."""

from magnus.loadtest._numbers import Comparison, Interval, compare, compare_apart, compare_shares, interval, stretches
from magnus.loadtest._pacer import Pacer
from magnus.loadtest.runner import Load, run
from magnus.loadtest.samples import Figures, Result, Samples
from magnus.loadtest.workload import Client, Refused, Target, Workload, find, names

__all__ = [  # plain order, as sorted() has it
    "Client",
    "Comparison",
    "Figures",
    "Interval",
    "Load",
    "Pacer",
    "Refused",
    "Result",
    "Samples",
    "Target",
    "Workload",
    "compare",
    "compare_apart",
    "compare_shares",
    "find",
    "interval",
    "names",
    "run",
    "stretches",
]
