"""The NGSI-LD API, shared by the tests of a file that only read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.ngsi_ld.serving import Entities, entities_serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def entities() -> AsyncIterator[Entities]:
    """The API over a few devices, asked by a subscriber of the province."""
    async with entities_serving() as running:
        yield running
