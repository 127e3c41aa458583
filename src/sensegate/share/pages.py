"""A feed for one subscriber that is pushed to: page after page from a place, for as long as it may read.

What is common to WebSocket, webhook, MQTT and NATS: `next` asks about every second whether the subscriber is still
good, so that a revocation ends the delivery, and keeps the place. Nothing is read ahead of the subscriber.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from sensegate.share.cursor import Cursor, parse
from sensegate.share.delivery import Form, Page, Serving
from sensegate.share.grants import Admission

RECHECK_S = 1.0
_PATIENCE_S = 60.0
_SCAN_S = 1.0
"""A page that finds nothing in a long history comes back after this, so that the subscriber is looked at again."""


def _nothing() -> None:
    pass


class Pages:
    """One subscriber's way through a feed."""

    def __init__(self, serving: Serving, admit: Callable[[], Admission], start: Cursor, form: Form) -> None:
        """`admit` gives what the subscriber gets as of now; what it raises ends the delivery."""
        self._serving = serving
        self._admit = admit
        self._form = form
        self._admission = admit()
        self._checked = asyncio.get_running_loop().time()
        self._taken: Callable[[], None] = _nothing
        self.place = start
        """After the last record that `next` returned."""

    def check(self) -> None:
        """Return if the subscriber may go on; asked as often as one likes. Raises what `admit` raises."""
        now = asyncio.get_running_loop().time()
        if now - self._checked >= RECHECK_S:
            self._admission, self._checked = self._admit(), now

    async def next(self, limit: int, wait_s: float = RECHECK_S, *, patient: bool = False) -> Page:
        """Return at most `limit` records after the place; empty after `wait_s` at most.

        `patient`: so many are known to be there; no fewer come because looking through the log takes long.

        A rate is waited for here, empty page by empty page. What is returned is taken from the grant's quota.

        Raises:
            PermissionDenied, NotFound: the subscriber may read no more.
            Overloaded: the volume of its grant is used up until `retry_after_s`.
            Unavailable: the log does not answer; the place stays.
        """
        self.check()
        wait_s = min(wait_s, RECHECK_S)
        allowance = self._admission.quota
        room = limit if allowance is None else allowance.available(limit)
        if allowance is not None and not room:
            await asyncio.sleep(min(wait_s, max(0.01, allowance.wait_s(1))))
            self.check()
            return Page(b"", 0, str(self.place), self._admission.grant_id)
        page = await self._serving.page(
            self._admission.selection,
            self.place,
            self._form,
            room,
            wait_s,
            scan_s=_PATIENCE_S if patient else _SCAN_S,
            sure=False,
            tight=True,
        )
        if page.count and asyncio.get_running_loop().time() - self._checked >= RECHECK_S:
            before = self._admission
            self.check()
            if (self._admission.selection, self._admission.grant_id) != (before.selection, before.grant_id):
                return await self.next(limit, 0)
        if page.count and allowance is not None:
            if allowance.available(page.count) < page.count:
                # Another delivery of the same grant was faster while this one read.
                return await self.next(limit, 0)
            allowance.consume(page.count)
            self._taken = partial(allowance.refund, page.count)
        else:
            self._taken = _nothing
        self.place = parse(page.next)
        return msgspec.structs.replace(page, grant=self._admission.grant_id)

    def drop(self) -> None:
        """Say that the last page did not arrive, and will be read again: the quota has its records back."""
        self._taken()
        self._taken = _nothing
