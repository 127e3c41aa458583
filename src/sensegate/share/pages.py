"""A feed for one subscriber that is pushed to: page after page from a place, for as long as it may read.

What is common to WebSocket, webhook, MQTT and NATS: `next` asks about every second whether the subscriber is still
good, so that a revocation ends the delivery, and keeps the place. Nothing is read ahead of the subscriber.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sensegate.share.cursor import Cursor, parse
from sensegate.share.delivery import Delivery, Form, Page
from sensegate.share.feeds import Selection

RECHECK_S = 1.0
_SCAN_S = 1.0
"""A page that finds nothing in a long history comes back after this, so that the subscriber is looked at again."""


class Pages:
    """One subscriber's way through a feed."""

    def __init__(self, delivery: Delivery, select: Callable[[], Selection | None], start: Cursor, form: Form) -> None:
        """`select` gives what the subscriber gets as of now; what it raises ends the delivery."""
        self._delivery = delivery
        self._select = select
        self._form = form
        self._selection = select()
        self._checked = asyncio.get_running_loop().time()
        self.place = start
        """After the last record that `next` returned."""

    def check(self) -> None:
        """Return if the subscriber may go on; asked as often as one likes. Raises what `select` raises."""
        now = asyncio.get_running_loop().time()
        if now - self._checked >= RECHECK_S:
            self._selection, self._checked = self._select(), now

    async def next(self, limit: int, wait_s: float = RECHECK_S) -> Page:
        """Return at most `limit` records after the place; empty after `wait_s` at most.

        Raises:
            Refused, NotFound: the subscriber may read no more.
            Lost: the log does not answer; the place stays.
        """
        self.check()
        wait_s = min(wait_s, RECHECK_S)
        page = await self._delivery.page(
            self._selection, self.place, self._form, limit, wait_s, scan_s=_SCAN_S, sure=False
        )
        if page.count and asyncio.get_running_loop().time() - self._checked >= RECHECK_S:
            before = self._selection
            self.check()
            if self._selection != before:
                return await self.next(limit, 0)
        self.place = parse(page.next)
        return page
