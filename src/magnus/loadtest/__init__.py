"""A load test whose figures can be trusted: open or closed model, no coordinated omission, its own lateness shown."""

from magnus.loadtest._numbers import Comparison, Interval, compare, compare_apart, compare_shares, interval, stretches
from magnus.loadtest._pacer import Pacer
from magnus.loadtest.proof import Design, Proof, Side, prove
from magnus.loadtest.runner import Load, run, send
from magnus.loadtest.samples import Figures, Result, Samples
from magnus.loadtest.workload import Client, Refused, Target, Workload, find, names

__all__ = [  # plain order, as sorted() has it
    "Client",
    "Comparison",
    "Design",
    "Figures",
    "Interval",
    "Load",
    "Pacer",
    "Proof",
    "Refused",
    "Result",
    "Samples",
    "Side",
    "Target",
    "Workload",
    "compare",
    "compare_apart",
    "compare_shares",
    "find",
    "interval",
    "names",
    "prove",
    "run",
    "send",
    "stretches",
]
