"""Notifications of entities as they are now: at an interval, and (`change_notifications`) when a stored one changes.

    timeInterval ──────────────▶ all entities that match ─┐
    change of a stored entity ─▶ triggers, conditions ────┴▶ admission, quota ─▶ notification ─▶ transport, metering

Notifications of readings go from a committed offset instead (`notifications`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.clock import Clock
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ngsi_ld.entities import EntityRecord, Viewer
from sensegate.ngsi_ld.notification_writing import NotificationWriter, SubscriptionCounts
from sensegate.ngsi_ld.retrieval import EntityQuery, EntityRetrieval
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.ngsi_ld.subscriptions import DELIVERY, EntitySubscription
from sensegate.share.consumers import ActiveConsumers, ConsumerInfo
from sensegate.share.sharing import Sharing
from sensegate.share.subscriptions import (
    CommittedOffset,
    CurrentPrincipal,
    RetryPolicy,
    SubscriptionState,
    change_offset,
)
from sensegate.share.transports.contract import DeliveryResult, PushTransport

ENTITIES_MAX = 1_000
"""Most entities of a notification."""


class StateParts(msgspec.Struct, frozen=True, eq=False):
    """Parts of the gateway that all notifications of state use."""

    retrieval: EntityRetrieval
    stored: EntityRegistry
    sharing: Sharing
    principal_of: CurrentPrincipal
    consumers: ActiveConsumers
    offsets: RecordTable[CommittedOffset]
    clock: Clock
    retry: RetryPolicy
    turn: asyncio.Lock
    """Held by the query of an interval: one at a time."""


class StateSubscription(msgspec.Struct, frozen=True, eq=False):
    """A subscription with what its notifications need."""

    subscription: EntitySubscription
    selection: EntityQuery
    writer: NotificationWriter
    transport: PushTransport
    counts: SubscriptionCounts


class StateSender:
    """Sends entities to one subscriber, as far as it may have them now."""

    def __init__(self, state: StateSubscription, parts: StateParts, suffix: str = "") -> None:
        """`suffix`: of its name among the active consumers, where the subscription has another task."""
        self.suffix = suffix
        self.subscription = state.subscription
        self.selection = state.selection
        self.parts = parts
        self._state = state

    def viewer(self) -> Viewer:
        """Return the subscriber's present view. Raises `PermissionDenied`, `NotFound`."""
        parts, subscription = self.parts, self.subscription
        principal: Principal = parts.principal_of(subscription.subscriber)
        return parts.retrieval.viewer(principal, subscription.feed, parts.clock.now(), DELIVERY)

    @property
    def has_expired(self) -> bool:
        """Return whether the subscription has ended by its own time."""
        expires = self.subscription.expires
        return expires is not None and self.parts.clock.now() >= expires

    @property
    def is_stopped(self) -> bool:
        """Return whether the receiver has ended the subscription, or failures paused it."""
        offset = self.parts.offsets.find(self.subscription.push_id)
        return offset is not None and offset.state is not SubscriptionState.ACTIVE

    async def stop_after(self, result: DeliveryResult, failures: int) -> None:
        """Stop the subscription where its receiver has ended it, or after too many failures. Raises `Conflict`."""
        if result.gone:
            await self._stop(SubscriptionState.ENDED, result.reason)
        elif failures >= self.parts.retry.failures_max:
            await self._stop(SubscriptionState.PAUSED, f"{failures} failures in a row: {result.reason}")

    async def _stop(self, state: SubscriptionState, reason: str) -> None:
        changes = {"state": state, "reason": reason[:500]}
        await change_offset(self.parts.offsets, self.subscription.push_id, changes)

    @contextlib.contextmanager
    def consumer(self) -> Iterator[ConsumerInfo]:
        """Show the subscription among the active consumers."""
        subscription = self.subscription
        consumer = self.parts.consumers.add(
            subscription.subscriber, subscription.feed, DELIVERY, name=f"{subscription.push_id}{self.suffix}"
        )
        try:
            yield consumer
        finally:
            self.parts.consumers.remove(consumer)

    async def send(self, viewer: Viewer, entities: Sequence[EntityRecord], key: str) -> DeliveryResult:
        """Attempt one notification, within the quota, and count its readings as delivered.

        Args:
            viewer: as the subscriber sees them.
            entities: its content.
            key: the same for each attempt of one notification.

        Raises:
            Overloaded: the quota permits less.
            Unavailable, StoreFull: what is delivered cannot be counted.
        """
        subscription, parts = self.subscription, self.parts
        now, admission = parts.clock.now(), viewer.admission
        number = hashlib.blake2s(f"{subscription.push_id} {key}".encode(), digest_size=16).hexdigest()
        delivery = self._state.writer.delivery(entities, f"msg_{number}", now)
        count = sum(instance.readings for entity in entities for instance in entity.attributes)
        if admission.quota is not None:
            admission.quota.consume_all(count)
        who, metering = (subscription.subscriber, subscription.feed, DELIVERY), parts.sharing.metering
        accepted = False
        try:
            async with metering.reserve(*who, count, grant=admission.grant_id):
                result = await self._state.transport.send(delivery)
                accepted = result.accepted
                if accepted and count:
                    metering.count(*who, requests=1, records=count, size=len(delivery.body), grant=admission.grant_id)
        finally:
            if not accepted and admission.quota is not None:
                admission.quota.refund(count)
        self._state.counts.add(result, now)
        return result


class PeriodicNotifications:
    """Notifications of one subscription at its `timeInterval`; `run` is its task."""

    def __init__(self, sender: StateSender) -> None:
        self._sender = sender
        self._clock = sender.parts.clock

    async def run(self) -> None:
        """Notify at each interval since the subscription was created, until it expires or this is cancelled."""
        subscription = self._sender.subscription
        interval = round((subscription.document.timeInterval or 0) * 1e6)
        number = 0
        with self._sender.consumer() as consumer:
            while not self._sender.has_expired:
                now = self._clock.now()
                number = max(number, (now - subscription.created) // interval) + 1
                await self._clock.sleep((subscription.created + number * interval - now) / 1e6)
                await self._notify(number, consumer)

    async def _notify(self, number: int, consumer: ConsumerInfo) -> None:
        """Notify; what fails is not repeated: the next interval has newer values."""
        sender = self._sender
        if sender.has_expired or sender.is_stopped:
            return
        try:
            viewer = sender.viewer()
            async with sender.parts.turn:
                matched = await sender.parts.retrieval.query(viewer, sender.selection, offset=0, limit=1 << 40)
            for start in range(0, matched.total, ENTITIES_MAX):
                entities = matched.entities[start : start + ENTITIES_MAX]
                result = await sender.send(viewer, entities, f"{number} {start}")
                if not result.accepted:
                    consumer.failures += 1
                    consumer.state, consumer.reason = "retrying", result.reason
                    await sender.stop_after(result, consumer.failures)
                    return
                consumer.delivered(readings_of(entities), sender.parts.clock.now())
            consumer.state, consumer.reason, consumer.failures = "live", "", 0
        except (PermissionDenied, NotFound) as why:
            consumer.state, consumer.reason = "refused", str(why)
        except (Overloaded, Unavailable, StoreFull, Conflict) as why:
            consumer.state, consumer.reason = "waiting", str(why)


def readings_of(entities: Sequence[EntityRecord]) -> int:
    """Return how many readings entities show."""
    return sum(instance.readings for entity in entities for instance in entity.attributes)
