"""Fixtures for every test folder of this repository."""

from __future__ import annotations

import ava  # noqa: F401  # else pytest takes the folder ava/ for a namespace package of that name

pytest_plugins = ["tests.servers", "tests.ways"]
