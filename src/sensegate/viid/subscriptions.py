"""Subscriptions of superior platforms and their committed offsets, both persistent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from sensegate.authority.bucket import Bucket
from sensegate.bus.contract import Log
from sensegate.clock import DAY_US, Clock
from sensegate.video.formats.viid_responses import BAD_CONTENT, INVALID_OPERATION, ObjectResult
from sensegate.video.formats.viid_subscriptions import (
    ACTIVE,
    CANCELLED,
    EXPIRED,
    ViidSubscription,
    parse_subscriptions,
    subscription_fields,
)

SUBSCRIPTIONS_MAX: Final = 1_000
"""Most subscriptions of a platform; where there are so many, one that has ended gives way to a new one."""
LOOK_BACK_US: Final = DAY_US
"""Longest history for a new subscription: the window of exact deduplication."""
_ORDER, _CURSOR = "order.", "cursor."
_log = structlog.get_logger("viid")


class SubscriptionOffset(msgspec.Struct, frozen=True):
    """The committed offset of a subscription."""

    epoch: str
    """Epoch of the log, because sequences of different logs are not comparable."""
    sequence: int
    """Sequence of the last entry that was sent completely."""
    row: int = 0
    """Number of sent rows of the next entry."""
    notices: int = 0
    """Number of accepted notifications."""
    objects: int = 0


class ViidSubscriptions:
    """The subscriptions of all superior platforms."""

    def __init__(self, bucket: Bucket, log: Log, clock: Clock) -> None:
        self._bucket = bucket
        self._log = log
        self._clock = clock
        self._subscriptions: dict[tuple[str, str], ViidSubscription] = {}
        self._offsets: dict[tuple[str, str], SubscriptionOffset] = {}
        self._changed: dict[str, asyncio.Event] = {}

    async def load(self) -> None:
        """Read the stored subscriptions and offsets."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.value is None:
                continue
            if row.key.startswith(_ORDER):
                subscription = msgspec.json.decode(row.value, type=ViidSubscription)
                if subscription.end < self._clock.now() - LOOK_BACK_US:
                    await self._forget(subscription)
                    continue
                self._subscriptions[subscription.peer, subscription.id] = subscription
            elif row.key.startswith(_CURSOR):
                peer, _, name = row.key.removeprefix(_CURSOR).partition(".")
                self._offsets[peer, name] = msgspec.json.decode(row.value, type=SubscriptionOffset)

    def changed(self, peer: str) -> asyncio.Event:
        """Return the event that is set when a subscription of a peer changes; the reader clears it."""
        return self._changed.setdefault(peer, asyncio.Event())

    def of_peer(self, peer: str) -> list[ViidSubscription]:
        """Return the subscriptions of a peer, in order of id."""
        return [order for key, order in sorted(self._subscriptions.items()) if key[0] == peer]

    def get(self, peer: str, name: str) -> ViidSubscription | None:
        """Return a subscription; None if there is none."""
        return self._subscriptions.get((peer, name))

    def all(self) -> list[tuple[ViidSubscription, SubscriptionOffset | None]]:
        """Return all subscriptions with their offsets."""
        return [(order, self._offsets.get(key)) for key, order in sorted(self._subscriptions.items())]

    def listed(self, peer: str) -> bytes:
        """Return the peer's subscriptions as an envelope."""
        subscriptions = [subscription_fields(self._as_of_now(order)) for order in self.of_peer(peer)]
        return msgspec.json.encode({"SubscribeListObject": {"SubscribeObject": subscriptions}})

    def _as_of_now(self, order: ViidSubscription) -> ViidSubscription:
        over = order.status == ACTIVE and order.end <= self._clock.now()
        return msgspec.structs.replace(order, status=EXPIRED) if over else order

    async def update(self, peer: str, payload: bytes) -> Sequence[ObjectResult]:
        """Create, change or cancel subscriptions.

        Raises:
            Rejected: the body is invalid. StoreFull, Unavailable: not stored; send it again.
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
        if before is None and not await self._made_room(order.peer):
            return ObjectResult(order.id, INVALID_OPERATION, f"there are {SUBSCRIPTIONS_MAX} subscriptions already")
        if before is None or before.status != ACTIVE:
            # It starts with new entries, unless it names an earlier begin.
            now = self._clock.now()
            since = max(order.begin, now - LOOK_BACK_US) if 0 < order.begin < now and before is None else now
            sequence = await self._log.sequence_at(since) - 1
            order = msgspec.structs.replace(order, sequence=sequence)
            await self.set_offset(order, SubscriptionOffset(self._log.epoch, sequence))
        else:
            order = msgspec.structs.replace(order, sequence=before.sequence)
        if order != before:
            await self._write(order)
        return ObjectResult(order.id)

    async def _made_room(self, peer: str) -> bool:
        """Return whether a peer may have another subscription, after one that has ended was forgotten if need be."""
        known = self.of_peer(peer)
        if len(known) < SUBSCRIPTIONS_MAX:
            return True
        ended = next((order for order in known if self._as_of_now(order).status != ACTIVE), None)
        if ended is not None:
            await self._forget(ended)
            self._subscriptions.pop((peer, ended.id), None)
            self._offsets.pop((peer, ended.id), None)
        return ended is not None

    async def _forget(self, order: ViidSubscription) -> None:
        """Delete the stored subscription and its offset."""
        await self._bucket.delete(f"{_ORDER}{order.peer}.{order.id}")
        await self._bucket.delete(f"{_CURSOR}{order.peer}.{order.id}")

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[ObjectResult]:
        """Cancel subscriptions; nothing is sent for them any more."""
        answers: list[ObjectResult] = []
        for name in names:
            order = self.get(peer, name)
            if order is None:
                answers.append(ObjectResult(name, INVALID_OPERATION, "there is no such subscription"))
                continue
            await self._write(msgspec.structs.replace(order, status=CANCELLED))
            answers.append(ObjectResult(name))
        return answers

    async def _write(self, order: ViidSubscription) -> None:
        await self._bucket.put(f"{_ORDER}{order.peer}.{order.id}", msgspec.json.encode(order))
        self._subscriptions[order.peer, order.id] = order
        self.changed(order.peer).set()
        _log.info(
            "VIID: subscription changed", peer=order.peer, id=order.id, status=order.status, kinds=list(order.kinds)
        )

    def offset(self, order: ViidSubscription) -> SubscriptionOffset:
        """Return the offset of a subscription; after a change of the log's epoch, its beginning."""
        offset = self._offsets.get((order.peer, order.id))
        if offset is None:
            return SubscriptionOffset(self._log.epoch, order.sequence)
        if offset.epoch != self._log.epoch:
            return SubscriptionOffset(self._log.epoch, 0, notices=offset.notices, objects=offset.objects)
        return offset

    async def set_offset(self, order: ViidSubscription, offset: SubscriptionOffset) -> None:
        """Store the offset of a subscription."""
        await self._bucket.put(f"{_CURSOR}{order.peer}.{order.id}", msgspec.json.encode(offset))
        self._offsets[order.peer, order.id] = offset
