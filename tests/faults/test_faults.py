"""The table fault → expected → seen: each row is injected into real processes under load, and nothing may be lost."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.rows import FAULTS, Fault, Form
from tests.faults.scene import Scene, scene

FORM = Form.LONG if os.environ.get("SENSEGATE_SOAK") else Form.SHORT
ROWS = [fault for fault in FAULTS if FORM is Form.LONG or fault.in_short]
pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """The scene, which all rows strike one after another."""
    async with scene(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.title)
async def test_a_fault(shared: Scene, fault: Fault) -> None:
    """What is expected of the row is seen, and each acknowledged reading is there exactly once."""
    result = await fault.inject(shared, FORM)
    books = await shared.settled()
    print(f"\n| {fault.title} | {fault.expected} | {result}; {books} |")
