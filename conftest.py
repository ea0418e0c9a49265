"""Fixtures for every test folder of this repository."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

import ava  # noqa: F401  # else pytest takes the folder ava/ for a namespace package of that name

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.servers", "tests.ways"]


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    """
    Put back what a command configures for its process.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
