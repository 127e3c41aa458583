"""Pages of the console as a browser draws them: times, tables on a phone, filters, and who has which data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.web.drawing import drawn, needs_chromium

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]
BEGIN = "2026-01-31T18:30:00.000000Z"
ASSESSED = {
    "month": "2026-01",
    "by": "division",
    "since": BEGIN,
    "hours_known": 5,
    "hours_of_month": 744,
    "rows": [
        {"name": "440106", "devices": 2, "received": 9, "authenticity": 1, "accuracy": 1, "continuity": 1}
        | {"completeness": 1, "score": 100.0}
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """A Chromium that the tests of this file share."""
    from tests.live.browsing import chromium

    async with chromium() as started:
        yield started


async def test_times_are_local_and_name_their_zone(browser: Any) -> None:
    """A moment stands in the reader's time with its zone; the present month is the one that the gateway names."""
    async with drawn(browser, "assessment", {"/api/v1/assessment*": ASSESSED}) as shown:
        text = await shown.text()
        assert "2026/2/1 02:30:00 GMT+8" in text
        assert "质量考核 2026-01" in text
        assert "month=" not in "".join(shown.asked)


async def test_a_table_is_read_on_a_phone(browser: Any) -> None:
    """Each row is a block of labelled lines within the window."""
    async with drawn(browser, "assessment", {"/api/v1/assessment*": ASSESSED}, width=390) as shown:
        await shown.text()
        cell = shown.page.locator("td[data-label=得分]")
        box = await cell.bounding_box()
        assert box["x"] + box["width"] <= 390
        assert await shown.page.locator("thead").is_visible() is False
