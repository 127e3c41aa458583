"""Notifications: pages of records of a feed, as the entities that a subscription is about.

    page of records (masked) ─▶ entities, one for each device, type and time ─▶ selection ─▶ Notification ─▶ transport

An entity of a notification has the values of one moment, so that every reading is in exactly one of them and the same
page, sent again after a failure, makes the same notification under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sensegate.clock import Clock
from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind, EntityRecord
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.notification_writing import NotificationWriter, SubscriptionCounts
from sensegate.ngsi_ld.problems import NgsiError
from sensegate.ngsi_ld.series import URN, entity_id
from sensegate.ngsi_ld.subscriptions import EntitySubscription
from sensegate.ngsi_ld.vocabulary import DEVICE_TYPE, attribute_of, iri
from sensegate.sensorthings.instants import instant_text
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport

_LOCATION, _OBSERVED, _REF_DEVICE = iri("location"), iri("dateObserved"), iri("refDevice")
_QUALITY, _FLAGS = iri("quality"), iri("flags")
_CONTEXT_RETRY_S = 10.0
Selects = Callable[[EntityRecord], bool]
ScopeOf = Callable[[str], str]
"""Code of a division -> its scope, such as ``/44/4401``."""


class PushedRecord(msgspec.Struct, frozen=True):
    """Fields of a feed record from which a notification is made."""

    device: str
    property: str
    value: Any
    time: str
    received: str
    division: str = ""
    channel: str = ""
    quality: str = ""
    lon: float | None = None
    lat: float | None = None
    flags: list[str] = []


class PushedPage(msgspec.Struct, frozen=True):
    """Page of a feed, as pushed."""

    records: list[PushedRecord]


def entities_of(records: Sequence[PushedRecord], scope_of: ScopeOf) -> tuple[list[EntityRecord], list[int]]:
    """Return the entities of records in their order, and how many records are in each."""
    groups: dict[tuple[str, str, str, int], list[PushedRecord]] = {}
    numbers: dict[tuple[str, str, str], int] = {}
    members: dict[tuple[str, str, str, int], set[tuple[str, str]]] = {}
    for record in records:
        name = attribute_of(record.property)
        moment = record.device, name.type, record.time
        number = numbers.get(moment, 0)
        instance = name.attribute, record.channel
        if instance in members.get((*moment, number), ()):
            # A revision of a reading that is in the same page: an entity of its own, after the first.
            number = numbers[moment] = number + 1
        members.setdefault((*moment, number), set()).add(instance)
        groups.setdefault((*moment, number), []).append(record)
    entities = [_entity(kind, group, scope_of) for (_, kind, _, _), group in groups.items()]
    return entities, [len(group) for group in groups.values()]


def _entity(kind: str, records: Sequence[PushedRecord], scope_of: ScopeOf) -> EntityRecord:
    first = records[0]
    time, received = parse_date_time(first.time), parse_date_time(first.received)
    attributes = [_reading(record, time, received) for record in records]
    observed = {"@type": "DateTime", "@value": instant_text(time or 0)}
    attributes.append(_fact(_OBSERVED, AttributeKind.PROPERTY, observed, received))
    if kind != DEVICE_TYPE:
        attributes.append(
            _fact(_REF_DEVICE, AttributeKind.RELATIONSHIP, entity_id(DEVICE_TYPE, first.device), received)
        )
    if first.lon is not None and first.lat is not None:
        point = {"type": "Point", "coordinates": [first.lon, first.lat]}
        attributes.append(_fact(_LOCATION, AttributeKind.GEO_PROPERTY, point, received))
    return EntityRecord(
        id=entity_id(kind, first.device),
        types=(iri(kind),),
        attributes=tuple(attributes),
        scopes=(scope_of(first.division),) if first.division else (),
        created=received,
        modified=received,
    )


def _reading(record: PushedRecord, time: int | None, received: int | None) -> AttributeInstance:
    name = attribute_of(record.property)
    sub = [AttributeInstance(name=_QUALITY, kind=AttributeKind.PROPERTY, value=record.quality)]
    if record.flags:
        sub.append(AttributeInstance(name=_FLAGS, kind=AttributeKind.PROPERTY, value=record.flags))
    return AttributeInstance(
        name=name.attribute,
        kind=AttributeKind.PROPERTY,
        value=record.value,
        dataset=f"{URN}Dataset:{record.channel}" if record.channel else "",
        observed_at=time,
        unit=name.unit,
        created=received,
        modified=received,
        sub=tuple(sub) if record.quality else (),
        readings=1,
    )


def _fact(name: str, kind: AttributeKind, value: object, received: int | None) -> AttributeInstance:
    return AttributeInstance(name=name, kind=kind, value=value, created=received, modified=received)


class NotificationTransport:
    """Sends pages of records as notifications of one subscription; a `PushTransport`."""

    def __init__(
        self,
        subscription: EntitySubscription,
        selects: Selects,
        terms: LdContext,
        onward: PushTransport,
        scope_of: ScopeOf,
        clock: Clock,
        counts: SubscriptionCounts,
    ) -> None:
        """Take the parts of a subscription.

        Args:
            subscription: what it is.
            selects: whether it is about an entity.
            terms: names by its context.
            onward: the transport to its endpoint.
            scope_of: scopes of divisions.
            clock: the time.
            counts: what became of its notifications, kept current.
        """
        self._subscription = subscription
        self._selects = selects
        self._onward = onward
        self._scope_of = scope_of
        self._clock = clock
        self._counts = counts
        self._writer = NotificationWriter(subscription, terms)
        self._sent_at: float | None = None

    def check(self, target: str) -> None:
        self._onward.check(target)

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        subscription, now = self._subscription, self._clock.now()
        expires = subscription.expires
        if expires is not None and now >= expires:
            return DeliveryResult(accepted=False, reason="the subscription has expired", gone=True)
        page = msgspec.json.decode(delivery.body, type=PushedPage)
        entities, sizes = entities_of(page.records, self._scope_of)
        chosen = [(entity, size) for entity, size in zip(entities, sizes, strict=True) if self._selects(entity)]
        if not chosen:
            return DeliveryResult(accepted=True, records=0)
        wait_s = self._throttled_s()
        if wait_s > 0:
            return DeliveryResult(accepted=False, reason="throttling", unavailable=True, retry_after_s=wait_s)
        headers = delivery.headers
        result = await self._onward.send(
            self._writer.delivery([entity for entity, _ in chosen], delivery.id, now, headers)
        )
        self._counts.add(result, now)
        if not result.accepted:
            return result
        self._sent_at = self._clock.monotonic()
        return msgspec.structs.replace(result, records=sum(size for _, size in chosen))

    def _throttled_s(self) -> float:
        throttling = self._subscription.document.throttling
        if self._sent_at is None or not throttling:
            return 0.0
        return self._sent_at + throttling - self._clock.monotonic()


class DeferredTransport:
    """Transport that is made at the first delivery; deliveries wait while its @context is not available."""

    def __init__(self, make: Callable[[], PushTransport]) -> None:
        """`make` raises `NgsiError` while a stored @context is missing that the subscription names."""
        self._make = make
        self._made: PushTransport | None = None

    def check(self, target: str) -> None:
        """Accept every address: that of a subscription was judged when it was created."""

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        if self._made is None:
            try:
                self._made = self._make()
            except NgsiError as why:
                return DeliveryResult(accepted=False, reason=str(why), unavailable=True, retry_after_s=_CONTEXT_RETRY_S)
        return await self._made.send(delivery)
