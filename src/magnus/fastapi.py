"""The public names for FastAPI applications."""

from __future__ import annotations

from magnus.web.app import Magnus
from magnus.web.dependencies import Db, Lane, Tx, current_database, lane
from magnus.web.middleware import AdmissionMiddleware, RequestIdMiddleware
from magnus.web.problems import (
    Problem,
    ProblemDetails,
    install_error_handlers,
    problem_of,
    problem_response,
    problem_responses,
)
from magnus.web.read_tokens import ReadTokenMiddleware

__all__ = [
    "AdmissionMiddleware",
    "Db",
    "Lane",
    "Magnus",
    "Problem",
    "ProblemDetails",
    "ReadTokenMiddleware",
    "RequestIdMiddleware",
    "Tx",
    "current_database",
    "install_error_handlers",
    "lane",
    "problem_of",
    "problem_response",
    "problem_responses",
]
