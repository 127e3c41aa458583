"""The SensorThings API, shared by the tests of a file that only read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.sensorthings.serving import Things, things_serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def things() -> AsyncIterator[Things]:
    """The API over a few devices, asked by a subscriber of the province."""
    async with things_serving() as running:
        yield running
