"""Notifications of stored entities when they change, by the triggers of a subscription.

A change is delivered at least once, the same one under the same id. Several changes of one entity that wait are one.
What changed while the subscription did not run is told by the times of entities and attributes; deletions of that time
are not notified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from sensegate.authority.record_store import RecordTable
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ngsi_ld.documents import NULL
from sensegate.ngsi_ld.entities import AttributeInstance, EntityRecord, Viewer
from sensegate.ngsi_ld.state_notifications import StateSender
from sensegate.ngsi_ld.stored_entities import RegisteredEntity, is_visible
from sensegate.ngsi_ld.subscriptions import NotificationTrigger
from sensegate.share.consumers import ConsumerInfo
from sensegate.share.transports.contract import DeliveryResult

CHANGES_MAX = 200
"""Most changed entities of a notification."""
WAITING_MAX = 10_000
"""Most changed entities of a subscription that wait; further ones are found by their times."""
_REFUSED_S, _STOPPED_S, _RETRY_S = 5.0, 1.0, 1.0


class NotifiedPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Position of a subscription in the changes of stored entities."""

    modified: int = 0
    """Time of the last change, µs UTC."""
    revision: int = 0
    format: int = 1


class EntityChange(msgspec.Struct, frozen=True, eq=False):
    """A stored entity before and after one change or several."""

    before: RegisteredEntity | None
    after: RegisteredEntity | None


def changed_entity(
    change: EntityChange, triggers: frozenset[NotificationTrigger], watched: frozenset[str], now: int
) -> EntityRecord | None:
    """Return the entity of which a change notifies; None: it causes no notification.

    Args:
        change: of a stored entity.
        triggers: changes that cause a notification.
        watched: IRIs of the attributes whose changes do; empty: all.
        now: time of a deletion, µs UTC.
    """
    before, after = change.before, change.after
    if after is None:
        if before is None or NotificationTrigger.ENTITY_DELETED not in triggers:
            return None
        return EntityRecord(id=before.id, types=before.types, attributes=(), scopes=before.scopes, deleted=now)
    old = {(instance.name, instance.dataset): instance for instance in before.attributes} if before else {}
    new = {(instance.name, instance.dataset): instance for instance in after.attributes}
    removed = [instance for key, instance in old.items() if key not in new and _is_watched(instance, watched)]
    causes = {
        NotificationTrigger.ATTRIBUTE_CREATED: [instance for key, instance in new.items() if key not in old],
        NotificationTrigger.ATTRIBUTE_UPDATED: [
            instance for key, instance in new.items() if key in old and old[key] != instance
        ],
        NotificationTrigger.ATTRIBUTE_DELETED: removed,
    }
    is_caused = before is None and NotificationTrigger.ENTITY_CREATED in triggers
    for trigger in causes.keys() & triggers:
        is_caused = is_caused or any(_is_watched(instance, watched) for instance in causes[trigger])
    if not is_caused:
        return None
    record = after.record()
    if NotificationTrigger.ATTRIBUTE_DELETED not in triggers:
        return record
    gone = [msgspec.structs.replace(instance, value=NULL, sub=()) for instance in removed]
    return msgspec.structs.replace(record, attributes=(*record.attributes, *gone))


def _is_watched(instance: AttributeInstance, watched: frozenset[str]) -> bool:
    return not watched or instance.name in watched


def as_of(entity: RegisteredEntity, time: int) -> RegisteredEntity | None:
    """Return an entity as far as its times tell how it was; values that changed since are None."""
    if entity.created > time:
        return None
    attributes = [
        instance if (instance.modified or 0) <= time else msgspec.structs.replace(instance, value=None)
        for instance in entity.attributes
        if (instance.created or 0) <= time
    ]
    return msgspec.structs.replace(entity, attributes=tuple(attributes))


class ChangeNotifications:
    """Notifications of one subscription when stored entities change; `run` is its task."""

    def __init__(self, sender: StateSender, positions: RecordTable[NotifiedPosition]) -> None:
        self._sender = sender
        self._positions = positions
        self._position = self._reached = 0
        self._is_behind = True
        """True if entities are to be looked for by their times."""
        self._waiting: dict[str, EntityChange] = {}
        self._changed = asyncio.Event()
        self._sent_at: float | None = None
        self._failures = 0
        self._watched = sender.selection.attributes
        self._conditions = msgspec.structs.replace(sender.selection, attributes=frozenset())

    def add(self, change: EntityChange) -> None:
        """Add a change that was just made."""
        self._changed.set()
        if self._is_behind and change.after is not None:
            return  # it will be found by its time
        entity = change.after or change.before
        assert entity is not None  # noqa: S101 - a change has one of them
        known = self._waiting.pop(entity.id, None)
        self._waiting[entity.id] = change if known is None else EntityChange(known.before, change.after)
        if len(self._waiting) > WAITING_MAX:
            self._waiting.clear()
            self._is_behind = True

    async def run(self) -> None:
        """Notify until the subscription expires or this is cancelled."""
        sender = self._sender
        kept = self._positions.find(sender.subscription.push_id)
        self._position = self._reached = kept.modified if kept else sender.subscription.created
        with sender.consumer() as consumer:
            while not sender.has_expired:
                if not self._waiting and self._is_behind:
                    self._catch_up()
                if not self._waiting:
                    await self._changed.wait()
                    self._changed.clear()
                    continue
                wait_s = _STOPPED_S if sender.is_stopped else await self._attempt(consumer)
                if wait_s > 0:
                    await sender.parts.clock.sleep(wait_s)

    def _catch_up(self) -> None:
        """Find the entities that changed after the position, the earliest first."""
        stored = self._sender.parts.stored.records.all()
        changed = sorted(
            (entity for entity in stored if entity.modified > self._position), key=lambda entity: entity.modified
        )
        self._is_behind = len(changed) > WAITING_MAX
        for entity in changed[:WAITING_MAX]:
            self._waiting[entity.id] = EntityChange(as_of(entity, self._position), entity)

    async def _attempt(self, consumer: ConsumerInfo) -> float:
        """Attempt a notification of what waits; return how long to wait."""
        sender = self._sender
        if (throttled_s := self._throttled_s()) > 0:
            return throttled_s
        names = list(self._waiting)[:CHANGES_MAX]
        taken = {name: self._waiting.pop(name) for name in names}
        result = DeliveryResult(accepted=False)
        try:
            viewer = sender.viewer()
            entities = self._entities(viewer, taken.values())
            key = " ".join(f"{entity.id}@{entity.deleted or entity.modified}" for entity in entities)
            result = await sender.send(viewer, entities, key) if entities else DeliveryResult(accepted=True)
            self._failures = 0 if result.accepted else self._failures + 1
            if result.accepted:
                await self._advance(taken.values())
            else:
                await sender.stop_after(result, self._failures)
        except (PermissionDenied, NotFound) as why:
            consumer.state, consumer.reason = "refused", str(why)
            return _REFUSED_S
        except (Overloaded, Unavailable, StoreFull, Conflict) as why:
            consumer.state, consumer.reason = "waiting", str(why)
            return _RETRY_S
        finally:
            if not result.accepted:
                self._put_back(taken)
        if result.accepted:
            consumer.state, consumer.reason, consumer.failures = "live", "", 0
            if entities:
                self._sent_at = sender.parts.clock.monotonic()
            return 0.0
        consumer.state, consumer.reason, consumer.failures = "retrying", result.reason, self._failures
        retry = sender.parts.retry
        back_off_s = min(retry.initial_wait_s * 2.0 ** min(self._failures - 1, 30), retry.wait_max_s)
        return max(result.retry_after_s, back_off_s)

    def _entities(self, viewer: Viewer, changes: Iterable[EntityChange]) -> list[EntityRecord]:
        """Return the entities of which changes notify a subscriber."""
        triggers = self._sender.subscription.document.triggers
        entities = []
        for change in changes:
            present = change.after or change.before
            if present is None or not is_visible(present, viewer) or not self._conditions.matches(present.record()):
                continue
            entity = changed_entity(change, triggers, self._watched, viewer.now)
            if entity is not None:
                entities.append(entity)
        return entities

    def _throttled_s(self) -> float:
        throttling = self._sender.subscription.document.throttling
        if self._sent_at is None or not throttling:
            return 0.0
        return self._sent_at + throttling - self._sender.parts.clock.monotonic()

    def _put_back(self, taken: dict[str, EntityChange]) -> None:
        """Queue undelivered changes again, each merged with later changes of its entity."""
        for name, change in taken.items():
            later = self._waiting.get(name)
            self._waiting[name] = change if later is None else EntityChange(change.before, later.after)

    async def _advance(self, changes: Iterable[EntityChange]) -> None:
        """Keep the position after changes that were delivered, once none waits."""
        times = [change.after.modified for change in changes if change.after is not None]
        self._reached = max([self._reached, *times])
        if self._waiting:
            return
        self._position = self._reached
        name = self._sender.subscription.push_id
        kept = self._positions.find(name) or NotifiedPosition()
        if self._position > kept.modified:
            moved = msgspec.structs.replace(kept, modified=self._position)
            await self._positions.put(name, moved, expected=kept.revision)
