"""The subscriptions that platforms above have made here, and how far each has been served; both outlive the process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from sensegate.authority.bucket import Bucket
from sensegate.clock import DAY_US, Clock
from sensegate.ports import Log
from sensegate.video.formats.viid_responses import BAD_CONTENT, INVALID_OPERATION, ObjectResult
from sensegate.video.formats.viid_subscriptions import (
    ACTIVE,
    CANCELLED,
    EXPIRED,
    ViidSubscription,
    parse_subscriptions,
    subscription_fields,
)

ORDERS_MAX: Final = 1_000
"""Of one platform."""
LOOK_BACK_US: Final = DAY_US
"""A new subscription that began earlier is served from so far back: as long as duplicates are told for sure."""
_ORDER, _CURSOR = "order.", "cursor."
_log = structlog.get_logger("viid")


class Place(msgspec.Struct, frozen=True):
    """How far a subscription has been served."""

    life: str
    """Epoch of our log: sequences of two lives do not compare."""
    sequence: int
    """Of the last entry that was given whole."""
    row: int = 0
    """Rows of the next one that were given."""
    notices: int = 0
    """Notifications that were taken."""
    objects: int = 0


class Orders:
    """All of them. `changed` is called with the peer when one of its subscriptions begins, changes or ends."""

    def __init__(self, bucket: Bucket, log: Log, clock: Clock) -> None:
        self._bucket = bucket
        self._log = log
        self._clock = clock
        self._held: dict[tuple[str, str], ViidSubscription] = {}
        self._places: dict[tuple[str, str], Place] = {}
        self._changed: dict[str, asyncio.Event] = {}

    async def load(self) -> None:
        """Read what is kept."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.value is None:
                continue
            if row.key.startswith(_ORDER):
                order = msgspec.json.decode(row.value, type=ViidSubscription)
                if order.end < self._clock.now() - LOOK_BACK_US:
                    await self._bucket.delete(row.key)
                    await self._bucket.delete(f"{_CURSOR}{order.peer}.{order.id}")
                    continue
                self._held[order.peer, order.id] = order
            elif row.key.startswith(_CURSOR):
                peer, _, name = row.key.removeprefix(_CURSOR).partition(".")
                self._places[peer, name] = msgspec.json.decode(row.value, type=Place)

    def changed(self, peer: str) -> asyncio.Event:
        """Return what is set when a subscription of a peer has changed; whoever looked clears it."""
        return self._changed.setdefault(peer, asyncio.Event())

    def of(self, peer: str) -> list[ViidSubscription]:
        """Return the subscriptions of a peer, in order of id."""
        return [order for key, order in sorted(self._held.items()) if key[0] == peer]

    def get(self, peer: str, name: str) -> ViidSubscription | None:
        """Return one."""
        return self._held.get((peer, name))

    def all(self) -> list[tuple[ViidSubscription, Place | None]]:
        """Return all with their places."""
        return [(order, self._places.get(key)) for key, order in sorted(self._held.items())]

    def listed(self, peer: str) -> bytes:
        """Return the peer's subscriptions as an envelope."""
        found = [subscription_fields(self._as_of_now(order)) for order in self.of(peer)]
        return msgspec.json.encode({"SubscribeListObject": {"SubscribeObject": found}})

    def _as_of_now(self, order: ViidSubscription) -> ViidSubscription:
        over = order.status == ACTIVE and order.end <= self._clock.now()
        return msgspec.structs.replace(order, status=EXPIRED) if over else order

    async def place(self, peer: str, payload: bytes) -> Sequence[ObjectResult]:
        """Make, change or cancel subscriptions.

        Raises:
            Rejected: the body is none. StoreFull, Unavailable: not kept; to be sent again.
        """
        answers: list[ObjectResult] = []
        for request in parse_subscriptions(payload, peer, self._clock.now()):
            if request.cancels:
                answers += await self.remove(peer, [request.id])
            elif request.subscription is None:
                answers.append(ObjectResult(request.id, BAD_CONTENT, request.problem))
            else:
                answers.append(await self._take(request.subscription))
        return answers

    async def _take(self, order: ViidSubscription) -> ObjectResult:
        before = self.get(order.peer, order.id)
        if before is None and len(self.of(order.peer)) >= ORDERS_MAX:
            return ObjectResult(order.id, INVALID_OPERATION, f"at most {ORDERS_MAX} subscriptions")
        if before is None or before.status != ACTIVE:
            # What is on the log already is not meant, unless the subscription says since when.
            now = self._clock.now()
            since = max(order.begin, now - LOOK_BACK_US) if 0 < order.begin < now and before is None else now
            sequence = await self._log.sequence_at(since) - 1
            order = msgspec.structs.replace(order, sequence=sequence)
            await self.move(order, Place(self._log.epoch, sequence))
        else:
            order = msgspec.structs.replace(order, sequence=before.sequence)
        if order != before:
            await self._write(order)
        return ObjectResult(order.id)

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[ObjectResult]:
        """Cancel subscriptions; nothing more is sent from here on."""
        answers: list[ObjectResult] = []
        for name in names:
            order = self.get(peer, name)
            if order is None:
                answers.append(ObjectResult(name, INVALID_OPERATION, "no such subscription"))
                continue
            await self._write(msgspec.structs.replace(order, status=CANCELLED))
            answers.append(ObjectResult(name))
        return answers

    async def _write(self, order: ViidSubscription) -> None:
        await self._bucket.put(f"{_ORDER}{order.peer}.{order.id}", msgspec.json.encode(order))
        self._held[order.peer, order.id] = order
        self.changed(order.peer).set()
        _log.info("VIID: subscription", peer=order.peer, id=order.id, status=order.status, kinds=list(order.kinds))

    def served(self, order: ViidSubscription) -> Place:
        """Return how far a subscription has been served; of another life of the log: from its beginning."""
        held = self._places.get((order.peer, order.id))
        if held is None:
            return Place(self._log.epoch, order.sequence)
        if held.life != self._log.epoch:
            return Place(self._log.epoch, 0, notices=held.notices, objects=held.objects)
        return held

    async def move(self, order: ViidSubscription, place: Place) -> None:
        """Keep how far it has been served."""
        await self._bucket.put(f"{_CURSOR}{order.peer}.{order.id}", msgspec.json.encode(place))
        self._places[order.peer, order.id] = place
