"""Fixtures for every test folder of this repository."""

from __future__ import annotations

pytest_plugins = ["tests.servers"]
