"""The fixture of tests of the HTTP API; a plugin, for what it needs is in `service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from service import Service, assert_clean, seed, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Dsns


@pytest.fixture
async def ava(migrated: Dsns) -> AsyncIterator[Service]:
    """
    AVA with three accounts and five instruments. What a test leaves behind must pass the audit.
    """
    await seed(migrated)
    async with serving(migrated) as service:
        yield service
    await assert_clean(migrated)
