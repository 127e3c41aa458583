"""Pages of a feed for push delivery to one subscriber, for as long as it may read.

Shared by WebSocket, webhook, MQTT and NATS: `next` checks about every second that the subscriber is still admitted, so
that a revocation ends the delivery, and advances the cursor. Nothing is read ahead of the subscriber.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from sensegate.share.cursor import Cursor, parse
from sensegate.share.delivery import FeedPage, FeedServer, PageOptions, RecordEncoding
from sensegate.share.grants import Admission

RECHECK_S = 1.0
_PATIENT_SCAN_S = 60.0
_SCAN_S = 1.0
"""A scan of a long history without a match returns after this, so that the admission is checked again."""


def _no_refund(_records: int) -> None:
    pass


class FeedPages:
    """Sequence of pages of a feed for one subscriber."""

    def __init__(
        self, serving: FeedServer, admit: Callable[[], Admission], start: Cursor, form: RecordEncoding
    ) -> None:
        """`admit` returns the current admission of the subscriber; its errors end the delivery."""
        self._serving = serving
        self._admit = admit
        self._form = form
        self._admission = admit()
        self._checked = asyncio.get_running_loop().time()
        self._refund: Callable[[int], None] = _no_refund
        self._count = 0
        """Records of the last page."""
        self.cursor = start
        """Cursor after the last record that `next` returned."""

    def check(self) -> None:
        """Return if the subscriber is still admitted; cheap to call often. Raises as `admit`."""
        now = asyncio.get_running_loop().time()
        if now - self._checked >= RECHECK_S:
            self._admission, self._checked = self._admit(), now

    async def next(self, limit: int, wait_s: float = RECHECK_S, *, patient: bool = False) -> FeedPage:
        """Return at most `limit` records after the cursor; an empty page after `wait_s` at most.

        `patient`: so many records are known to exist; a long scan does not return fewer.

        While the rate of the grant permits nothing, pages are empty. Returned records are consumed from its quota.

        Raises:
            PermissionDenied, NotFound: the subscriber is no longer admitted.
            Overloaded: the monthly volume of its grant is used up until `retry_after_s`.
            Unavailable: the log does not respond; the cursor stays.
        """
        self.check()
        wait_s = min(wait_s, RECHECK_S)
        quota = self._admission.quota
        room = limit if quota is None else quota.available(limit)
        if quota is not None and not room:
            await asyncio.sleep(min(wait_s, max(0.01, quota.wait_s(1))))
            self.check()
            return FeedPage(b"", 0, str(self.cursor), self._admission.grant_id)
        page = await self._serving.page(
            self._admission.selection,
            self.cursor,
            self._form,
            room,
            wait_s,
            PageOptions(scan_s=_PATIENT_SCAN_S if patient else _SCAN_S, confirm_end=False, exact=True),
        )
        if page.count and asyncio.get_running_loop().time() - self._checked >= RECHECK_S:
            before = self._admission
            self.check()
            if (self._admission.selection, self._admission.grant_id) != (before.selection, before.grant_id):
                return await self.next(limit, 0)
        if page.count and quota is not None:
            if quota.available(page.count) < page.count:
                # Another delivery of the same grant consumed the quota while this one read.
                return await self.next(limit, 0)
            quota.consume(page.count)
            self._refund = quota.refund
        else:
            self._refund = _no_refund
        self._count = page.count
        self.cursor = parse(page.next)
        return msgspec.structs.replace(page, grant=self._admission.grant_id)

    def undo(self) -> None:
        """Refund the quota of the last page, which did not arrive and will be read again."""
        self.keep(0)

    def keep(self, records: int) -> None:
        """Refund the quota of all but so many records of the last page: the others were left out."""
        self._refund(self._count - records)
        self._refund = _no_refund
