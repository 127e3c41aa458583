"""Notifications of entities as they are now: at an interval, and when stored entities change."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Role
from sensegate.clock import FakeClock
from sensegate.ngsi_ld.change_notifications import (
    ChangeNotifications,
    EntityChange,
    NotifiedPosition,
    as_of,
    changed_entity,
)
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.documents import NULL
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind
from sensegate.ngsi_ld.entity_routes import ENTITY_STORE
from sensegate.ngsi_ld.notification_writing import NotificationWriter, SubscriptionCounts
from sensegate.ngsi_ld.rest import NGSI_LD
from sensegate.ngsi_ld.state_notifications import PeriodicNotifications, StateParts, StateSender, StateSubscription
from sensegate.ngsi_ld.stored_entities import RegisteredEntity
from sensegate.ngsi_ld.subscription_registry import selection_of
from sensegate.ngsi_ld.subscriptions import EntitySubscription, NotificationTrigger, read_document
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.masks import Mask, Rounding
from sensegate.share.subscriptions import CommittedOffset, RetryPolicy, SubscriptionState
from sensegate.share.transports.contract import DeliveryResult
from tests.conftest import eventually
from tests.ngsi_ld.receiving import BODY, Receiver
from tests.ngsi_ld.serving import Entities, entities_serving, granted
from tests.web.serving import ADMIN

CORE = LdContexts().core
HEIGHT, NAME = CORE.expand("height"), CORE.expand("name")
FAILURES_MAX = 3
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city() -> AsyncIterator[Entities]:
    """The API, asked by an operator of the city 4401."""
    async with entities_serving() as running:
        yield running.under(await running.gateway.token(Role.CITY_OPERATOR, "4401"))


class Sending:
    """What a subscription of a token sends, with its receiver, its clock and its position."""

    def __init__(self, city: Entities, feed: str = "all", **members: Any) -> None:
        gateway, self.clock, self.receiver = city.gateway, FakeClock(), Receiver()
        deps = gateway.web.deps
        self.subscriber = city.token.split("_")[1]
        self.sharing = gateway.sharing
        self.stored = deps.parts[ENTITY_STORE].stored
        store = RecordStore(MemoryBucket(), self.clock)
        offsets: RecordTable[CommittedOffset] = RecordTable(store, "offset", CommittedOffset)
        self.positions: RecordTable[NotifiedPosition] = RecordTable(store, "notified", NotifiedPosition)
        self.parts = StateParts(
            retrieval=deps.parts[NGSI_LD],
            stored=self.stored,
            sharing=gateway.sharing,
            principal_of=gateway.tokens.principal,
            consumers=ActiveConsumers(self.clock, lambda: gateway.reader.end),
            offsets=offsets,
            clock=self.clock,
            retry=RetryPolicy(1.0, 60.0, FAILURES_MAX),
            turn=asyncio.Lock(),
        )
        document = read_document({**BODY, **members})
        self.subscription = EntitySubscription(
            id=document.id,
            feed=feed,
            subscriber=self.subscriber,
            document=document,
            secret=base64.b64encode(b"x" * 32).decode(),
            created=deps.clock.now() if document.timeInterval is None else self.clock.now(),
        )
        self.counts = SubscriptionCounts()

    def state(self, name: str) -> SubscriptionState:
        """Return the state of the committed offset."""
        offset = self.parts.offsets.find(name)
        return offset.state if offset else SubscriptionState.ACTIVE

    @property
    def sender(self) -> StateSender:
        state = StateSubscription(
            self.subscription,
            selection_of(self.subscription.document, CORE),
            NotificationWriter(self.subscription, CORE),
            self.receiver,
            self.counts,
        )
        return StateSender(state, self.parts)

    async def interval(self) -> None:
        """Let an interval of a minute pass; return once its notification was attempted."""
        attempts = self.counts.sent
        await self.clock.advance(60)
        await eventually(lambda: self.counts.sent > attempts)

    async def sent(self, count: int) -> list[Any]:
        """Return the entities of all notifications, once there are so many notifications."""
        await eventually(lambda: len(self.receiver.sent) >= count)
        assert len(self.receiver.sent) == count
        return [entity for sent in self.receiver.sent for entity in msgspec.json.decode(sent.body)["data"]]

    def usage(self) -> int:
        """Return how many records the token was delivered by webhook."""
        rows = self.sharing.metering.rows()
        return sum(row.records for row in rows if row.token == self.subscriber and row.delivery == "webhook")


async def ended(task: asyncio.Task[None]) -> None:
    """End a task."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ── at an interval ────────────────────────────────────────────────────────────────────────────────────


@in_one_loop
async def test_an_interval(city: Entities) -> None:
    """At each interval the entities that match now, whether they changed or not; metered; a failure is not repeated."""
    sending = Sending(city, timeInterval=60, q="pm25>30")
    task = asyncio.create_task(PeriodicNotifications(sending.sender).run())
    await asyncio.sleep(0)
    await sending.clock.advance(59)
    assert sending.receiver.sent == []
    await sending.clock.advance(1)
    (entity,) = await sending.sent(1)
    assert (entity["id"], entity["pm25"]["value"]) == ("urn:ngsi-ld:AirQualityObserved:gz-air", 35.5)
    await eventually(lambda: sending.counts.sent == 1)
    assert sending.usage() == 2
    sending.receiver.result = DeliveryResult(accepted=False, reason="answered 500")
    await sending.interval()
    assert (sending.counts.failed, sending.usage()) == (1, 2)
    sending.receiver.result = DeliveryResult(accepted=True)
    await sending.interval()
    assert len(await sending.sent(3)) == 3
    assert sending.usage() == 4
    assert len({sent.id for sent in sending.receiver.sent}) == 3
    await ended(task)


@in_one_loop
@pytest.mark.parametrize(
    ("result", "state"),
    [
        (DeliveryResult(accepted=False, reason="answered 500"), SubscriptionState.PAUSED),
        (DeliveryResult(accepted=False, reason="answered 410", gone=True), SubscriptionState.ENDED),
    ],
)
async def test_an_interval_stops(city: Entities, result: DeliveryResult, state: SubscriptionState) -> None:
    """A receiver that ends the subscription, or fails too often in a row, is sent nothing more."""
    sending = Sending(city, timeInterval=60)
    sending.receiver.result = result
    task = asyncio.create_task(PeriodicNotifications(sending.sender).run())
    await asyncio.sleep(0)
    name = sending.subscription.push_id
    attempts = 1 if result.gone else FAILURES_MAX
    for _ in range(attempts):
        await sending.interval()
    await eventually(lambda: sending.state(name) is state)
    assert len(sending.receiver.sent) == attempts
    await sending.clock.advance(120)
    assert len(sending.receiver.sent) == attempts
    await ended(task)


@in_one_loop
async def test_an_interval_under_a_mask(city: Entities) -> None:
    """By a grant the values are masked before conditions; a token that has ended gets nothing."""
    mask = Mask(round=(Rounding("pm2_5", 10.0),))
    masked = await granted(city, mask)
    sending = Sending(masked, timeInterval=60)
    task = asyncio.create_task(PeriodicNotifications(sending.sender).run())
    await asyncio.sleep(0)
    await sending.interval()
    values = [entity["pm25"]["value"] for entity in await sending.sent(1)]
    assert values
    assert all(value % 10 == 0 for value in values)
    await city.gateway.tokens.revoke(sending.subscriber, by=ADMIN)
    await sending.clock.advance(60)
    await eventually(lambda: any(row.state == "refused" for row in sending.parts.consumers.rows()))
    assert len(sending.receiver.sent) == 1
    await ended(task)


@in_one_loop
async def test_an_interval_within_a_quota(city: Entities) -> None:
    """What the quota of a grant does not permit is neither sent nor counted; an attempt that failed uses nothing up."""
    limited = await granted(city, Mask(), volume=5, properties=("pm2_5", "pm10"))
    sending = Sending(limited, timeInterval=60)
    task = asyncio.create_task(PeriodicNotifications(sending.sender).run())
    await asyncio.sleep(0)
    sending.receiver.result = DeliveryResult(accepted=False, reason="answered 500")
    await sending.interval()
    assert sending.usage() == 0
    sending.receiver.result = DeliveryResult(accepted=True)
    await sending.interval()
    assert sending.usage() == 3
    await sending.clock.advance(60)
    await eventually(lambda: any(row.state == "waiting" for row in sending.parts.consumers.rows()))
    assert (len(sending.receiver.sent), sending.usage()) == (2, 3)
    await ended(task)


# ── changes ───────────────────────────────────────────────────────────────────────────────────────────


def building(modified: int = 10, **attributes: tuple[int, int, object]) -> RegisteredEntity:
    """Return an entity; attributes: name -> (created, modified, value)."""
    instances = [
        AttributeInstance(
            name=CORE.expand(name), kind=AttributeKind.PROPERTY, value=value, created=created, modified=changed
        )
        for name, (created, changed, value) in attributes.items()
    ]
    return RegisteredEntity(
        id="urn:x:1", types=("urn:x:T",), attributes=tuple(instances), division="4401", created=5, modified=modified
    )


SMALL = building(height=(5, 5, 1))
TALL = building(height=(5, 10, 2))
NAMED = building(height=(5, 5, 1), name=(10, 10, "a"))


@pytest.mark.parametrize(
    ("before", "after", "trigger", "watched"),
    [
        (None, SMALL, "entityCreated", ""),
        (None, SMALL, "attributeCreated", "height"),
        (SMALL, NAMED, "attributeCreated", "name"),
        (SMALL, TALL, "attributeUpdated", "height"),
        (NAMED, SMALL, "attributeDeleted", "name"),
        (SMALL, None, "entityDeleted", ""),
    ],
)
def test_a_change_has_its_triggers(
    before: RegisteredEntity | None, after: RegisteredEntity | None, trigger: str, watched: str
) -> None:
    """A change notifies by its own trigger, and of the attributes that are watched; by no other."""
    change, now = EntityChange(before, after), 20
    own = NotificationTrigger(trigger)
    causes = {own} | ({NotificationTrigger.ATTRIBUTE_CREATED} if before is None else set())
    causes |= {NotificationTrigger.ENTITY_CREATED} if before is None else set()
    assert changed_entity(change, frozenset({own}), frozenset(), now) is not None
    assert changed_entity(change, frozenset(NotificationTrigger) - causes, frozenset(), now) is None
    if watched:
        assert changed_entity(change, frozenset({own}), frozenset({CORE.expand(watched)}), now) is not None
        assert changed_entity(change, frozenset({own}), frozenset({CORE.expand("other")}), now) is None


def test_what_is_gone_is_shown() -> None:
    """A deleted attribute is urn:ngsi-ld:null, a deleted entity has the time of its end and no attributes."""
    entity = changed_entity(
        EntityChange(NAMED, SMALL), frozenset({NotificationTrigger.ATTRIBUTE_DELETED}), frozenset(), 20
    )
    assert entity is not None
    assert {instance.name: instance.value for instance in entity.attributes} == {HEIGHT: 1, NAME: NULL}
    entity = changed_entity(EntityChange(NAMED, None), frozenset({NotificationTrigger.ENTITY_DELETED}), frozenset(), 20)
    assert entity is not None
    assert (entity.deleted, entity.attributes) == (20, ())


def test_times_tell_what_changed() -> None:
    """What was there before a time is found by the times of the entity and of its attributes."""
    before = as_of(building(height=(5, 10, 2), name=(8, 8, "a"), floors=(9, 9, 3)), 8)
    assert before is not None
    assert {instance.name: instance.value for instance in before.attributes} == {HEIGHT: None, NAME: "a"}
    assert as_of(SMALL, 4) is None


@pytest.fixture
def bench() -> dict[str, Any]:
    """Members of a subscription to benches."""
    return {"entities": [{"type": "Bench"}], "notificationTrigger": ["entityUpdated", "entityDeleted"]}


async def changing(city: Entities, sending: Sending) -> asyncio.Task[None]:
    """Run the notifications of changes."""
    changes = ChangeNotifications(sending.sender, sending.positions)
    sending.stored.records.on_change.append(lambda before, after: changes.add(EntityChange(before, after)))
    task = asyncio.create_task(changes.run())
    await asyncio.sleep(0)
    return task


@in_one_loop
async def test_changes_through_the_api(city: Entities, bench: dict[str, Any]) -> None:
    """Creation, update and deletion of a stored entity notify; of another type or with another value they do not."""
    sending = Sending(city, **bench, q="seats>1")
    before = sending.usage()
    task = await changing(city, sending)
    body = {"id": "urn:x:bench1", "type": "Bench", "seats": 2}
    await city.ask("entities", method="POST", json={**body, "id": "urn:x:tree1", "type": "Tree"}, expect=201)
    await city.ask("entities", method="POST", json={**body, "id": "urn:x:bench0", "seats": 1}, expect=201)
    await city.ask("entities", method="POST", json=body, expect=201)
    (entity,) = await sending.sent(1)
    assert (entity["id"], entity["seats"]["value"]) == ("urn:x:bench1", 2)
    await city.ask("entities/urn:x:bench1/attrs", method="PATCH", json={"seats": 3}, expect=204)
    assert [entity["seats"]["value"] for entity in await sending.sent(2)] == [2, 3]
    await city.ask("entities/urn:x:bench1", method="DELETE", expect=204)
    assert (await sending.sent(3))[2].keys() == {"id", "type", "deletedAt"}
    assert sending.usage() == before  # stored entities are no readings
    await ended(task)


@in_one_loop
async def test_a_failure_is_repeated_and_changes_are_merged(city: Entities, bench: dict[str, Any]) -> None:
    """A change that was not accepted is sent again after a wait, with what changed meanwhile; nothing is lost."""
    sending = Sending(city, **bench)
    sending.receiver.result = DeliveryResult(accepted=False, reason="answered 500")
    task = await changing(city, sending)
    await city.ask("entities", method="POST", json={"id": "urn:x:bench2", "type": "Bench", "seats": 1}, expect=201)
    await eventually(lambda: sending.counts.failed == 1)
    await city.ask("entities/urn:x:bench2/attrs", method="PATCH", json={"seats": 2}, expect=204)
    sending.receiver.result = DeliveryResult(accepted=True)
    await sending.clock.advance(1)
    assert [entity["seats"]["value"] for entity in await sending.sent(2)] == [1, 2]
    await eventually(lambda: sending.positions.names() == [sending.subscription.push_id])
    await ended(task)


@in_one_loop
async def test_a_restart_finds_what_changed(city: Entities, bench: dict[str, Any]) -> None:
    """What changed while the subscription did not run is sent when it runs; what was sent before is not."""
    sending = Sending(city, **bench)
    await city.ask("entities", method="POST", json={"id": "urn:x:bench3", "type": "Bench", "seats": 1}, expect=201)
    task = await changing(city, sending)
    assert [entity["id"] for entity in await sending.sent(1)] == ["urn:x:bench3"]
    await eventually(lambda: sending.positions.names() == [sending.subscription.push_id])
    await ended(task)
    await city.ask("entities", method="POST", json={"id": "urn:x:bench4", "type": "Bench", "seats": 1}, expect=201)
    task = await changing(city, sending)
    assert [entity["id"] for entity in await sending.sent(2)] == ["urn:x:bench3", "urn:x:bench4"]
    await ended(task)


@in_one_loop
async def test_who_is_notified_of_changes(city: Entities, bench: dict[str, Any]) -> None:
    """A token of another city, and one that reads by a grant, are not notified; control: one of the city is."""
    other = city.under(await city.gateway.token(Role.SUBSCRIBER, "4403"))
    reader = city.under(await city.gateway.token(Role.SUBSCRIBER, "4401"))
    sendings = [Sending(caller, **bench) for caller in (other, await granted(city, Mask()), reader)]
    tasks = [await changing(city, sending) for sending in sendings]
    await city.ask("entities", method="POST", json={"id": "urn:x:bench5", "type": "Bench", "seats": 1}, expect=201)
    assert [entity["id"] for entity in await sendings[2].sent(1)] == ["urn:x:bench5"]
    assert [len(sending.receiver.sent) for sending in sendings] == [0, 0, 1]
    for task in tasks:
        await ended(task)
