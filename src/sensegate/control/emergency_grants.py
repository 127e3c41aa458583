"""Emergency grants: created by a mode order, named after it, ended with it or by their own expiry."""

from __future__ import annotations

import hashlib

import msgspec

from sensegate.authority.scope import scope_text
from sensegate.clock import Clock
from sensegate.control.modes import EmergencyGrant, ModeOrder
from sensegate.errors import NotFound, PermissionDenied
from sensegate.share.feeds import Feeds, scoped_selection
from sensegate.share.grants import CORE_GRADE, Grant, Grants


class EmergencyGrants:
    """Creates and ends the grants of mode orders."""

    def __init__(self, grants: Grants, feeds: Feeds, clock: Clock) -> None:
        self._grants = grants
        self._feeds = feeds
        self._clock = clock

    async def open(self, order: ModeOrder, wanted: EmergencyGrant) -> None:
        """Create a grant, once, for the part of the feed that lies in the order's place.

        Raises:
            NotFound: there is no such feed in the order's place.
            PermissionDenied: the feed holds core data; the audit trail records the refused step.
        """
        name = _name(order, wanted)
        if self._grants.find(name) is not None:
            return
        feed = self._feeds.find(wanted.feed)
        if feed is None or scoped_selection(feed, order.place) is None:
            raise NotFound(f"there is no feed '{wanted.feed[:64]}' in {scope_text(order.place)}")
        if self._grants.is_core(wanted.feed):
            raise PermissionDenied(f"feed '{wanted.feed}' is of grade {CORE_GRADE} (core); no order may open it")
        place = order.place
        grant = Grant(
            id=name,
            feed=wanted.feed,
            subscriber=wanted.subscriber,
            expires=order.until,
            deliveries=wanted.deliveries,
            divisions=(place.division,),
            departments=(place.department,) if place.department else (),
            application=order.id,
            purpose=f"{'drill: ' if order.drill else ''}mode order {order.id} ({order.plan.name}): {order.reason}",
            level=place.division,
            applicant=scope_text(place),
            created=self._clock.now(),
            created_by=order.by,
        )
        await self._grants.records.put(name, grant, expected=0)

    async def close(self, order: ModeOrder, wanted: EmergencyGrant) -> None:
        """End a grant; its open streams end within two seconds."""
        grant = self._grants.find(_name(order, wanted))
        if grant is None or grant.revoked:
            return
        ended = msgspec.structs.replace(grant, revoked=self._clock.now(), reason=f"mode order {order.id} has ended")
        await self._grants.records.put(grant.id, ended, expected=grant.revision)


def _name(order: ModeOrder, wanted: EmergencyGrant) -> str:
    digest = hashlib.sha256(f"{order.id}\0{wanted.feed}\0{wanted.subscriber}".encode())
    return f"g{digest.hexdigest()[:16]}"
