"""One node (4401) and one centre (44, with devices of its own) that the tests of a file share, whole and real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.live.site import Site, config_of, running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The node of 4401."""
    async with running(config_of(tmp_path_factory.mktemp("node"))) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The centre, 44; devices of any city may be registered at it."""
    async with running(config_of(tmp_path_factory.mktemp("centre"), "44")) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """A Chromium that the tests of a file share."""
    from tests.live.browsing import chromium

    async with chromium() as started:
        yield started
