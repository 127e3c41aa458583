"""A gateway's HTTP side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.web.serving import Gateway, serving


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway with the limits of the defaults."""
    async with serving() as running:
        yield running
