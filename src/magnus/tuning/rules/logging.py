"""What the server's log tells: slow statements, waits, temporary files, sessions; never bind values."""

from __future__ import annotations

from typing import Final

from magnus.tuning.rules.rule import Basis, Better, Keep, Rule, Want
from magnus.tuning.units import MB, shown

_LIST_FORM: Final = 18
_ON: Final = "receipt, authentication, authorization"  # what `on` means since 18


def _min_duration(basis: Basis) -> Want | None:
    del basis
    reason = "every statement over 1 s is in the log with its text"
    return Want(
        1_000, reason, better=Better.LOWER, cost="a log line for each, without bind values (log_parameter_max_length)"
    )


def _sample(basis: Basis) -> Want | None:
    now = basis.server.amount("log_min_duration_statement") or -1
    if 0 <= now <= 100:
        return None  # all of them are logged already
    reason = "one in a hundred of the statements over 100 ms, to see what is nearly slow"
    return Want(100, reason, better=Better.LOWER, cost="a few log lines")


def _sample_rate(basis: Basis) -> Want | None:
    setting = basis.server.settings["log_statement_sample_rate"]
    sample = basis.server.amount("log_min_duration_sample")
    if _sample(basis) is None or (sample is not None and sample >= 0 and setting.value != "1"):
        return None
    return Want("0.01", "the share of statements over log_min_duration_sample that is logged", better=Better.LOWER)


def _lock_waits(basis: Basis) -> Want | None:
    del basis
    return Want("on", "a wait for a lock of over deadlock_timeout (1 s) is told, with who holds it")


def _temp_files(basis: Basis) -> Want | None:
    budget = basis.budget
    value = budget.values.work_mem if budget is not None else basis.server.amount("work_mem") or 4 * MB
    reason = f"a sort or hash that did not fit into work_mem ({shown(value)}) is told: the evidence for more of it"
    return Want(value, reason, better=Better.LOWER)


def _parameters(basis: Basis) -> Want | Keep | None:
    setting = basis.server.settings["log_parameter_max_length"]
    if (setting.amount or 0) >= 0:
        return None
    return Want("0", "slow statements are logged without their bind values, which hold what customers entered")


def _connections(basis: Basis) -> Want | None:
    setting = basis.server.settings["log_connections"]
    if setting.means(setting.value) in {True, ("on",), ("all",), ("true",), ("yes",), ("1",)}:
        return None
    value = _ON if basis.server.major >= _LIST_FORM else "on"
    reason = "who connected, from where, as whom"
    return Want(value, reason, risk=_noise(basis), cost="three lines a connection: few with a pool, a storm without")


def _disconnections(basis: Basis) -> Want | None:
    return Want("on", "how long each session lasted", risk=_noise(basis), cost="a line a connection")


def _noise(basis: Basis) -> str:
    return "low" if basis.facts.pooler is not None else "medium"


RULES: Final = (
    Rule(
        "log_min_duration_statement",
        "1 s",
        "slow statements by text, PostgreSQL documentation, 'Error Reporting and Logging'",
        _min_duration,
    ),
    Rule("log_min_duration_sample", "100 ms", "sampled at 1 %", _sample),
    Rule("log_statement_sample_rate", "0.01", "sampled at 1 %", _sample_rate),
    Rule("log_lock_waits", "on", "PostgreSQL documentation, 'Error Reporting and Logging'", _lock_waits),
    Rule("log_temp_files", "work_mem", "PostgreSQL documentation, 'Error Reporting and Logging'", _temp_files),
    Rule("log_parameter_max_length", "0", "bind values hold secrets", _parameters),
    Rule("log_connections", "on; from 18 as a list of its parts", "bool up to 17, a list since 18", _connections),
    Rule("log_disconnections", "on", "PostgreSQL documentation, 'Error Reporting and Logging'", _disconnections),
)
