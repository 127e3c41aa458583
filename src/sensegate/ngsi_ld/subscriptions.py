"""Subscriptions: the documents of clients, checked, and the records that keep them.

A subscription belongs to the token that created it, reads what that token may read of a feed, and ends with the token.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from sensegate.ngsi_ld.contexts import ContextSource
from sensegate.ngsi_ld.documents import URI_MAX, checked_uri
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.patterns import pattern_of
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data

PREFIX = "ngsi-"
"""Prefix of the ids of push subscriptions that are NGSI-LD subscriptions."""
DELIVERY = "webhook"
"""Delivery that a grant must cover, and under which notifications are metered."""
SELECTORS_MAX = 50
NAMES_MAX = 100
HEADERS_MAX = 20
MQTT_SCHEMES = ("mqtt://", "mqtts://")
THROTTLING_MAX_S = 86_400.0
INTERVAL_MIN_S, INTERVAL_MAX_S = 10.0, 31_536_000.0
"""Least and longest `timeInterval`: each notification is a query of all that matches."""
PATTERN_MAX = 500
_TEXT = Annotated[str, msgspec.Meta(max_length=1_024)]
_QUERY = Annotated[str, msgspec.Meta(max_length=4_096)]
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_RESERVED = re.compile(
    r"(?i)host|connection|transfer-encoding|te|trailer|upgrade|expect|link|webhook-.*|content-.*|sensegate-.*|proxy-.*"
)
_NOT_OFFERED = {
    "csf": "notifications are of the data of this gateway, not of context sources; leave it out",
    "temporalQ": "notifications follow readings; GET /ngsi-ld/v1/temporal/entities answers about the past",
}


class NotificationTrigger(StrEnum):
    """Changes of an entity that cause a notification (clause 5.2.12)."""

    ENTITY_CREATED = "entityCreated"
    ENTITY_UPDATED = "entityUpdated"
    """Any of the three of attributes."""
    ENTITY_DELETED = "entityDeleted"
    ATTRIBUTE_CREATED = "attributeCreated"
    ATTRIBUTE_UPDATED = "attributeUpdated"
    ATTRIBUTE_DELETED = "attributeDeleted"


_OF_ATTRIBUTES = frozenset(
    {
        NotificationTrigger.ATTRIBUTE_CREATED,
        NotificationTrigger.ATTRIBUTE_UPDATED,
        NotificationTrigger.ATTRIBUTE_DELETED,
    }
)


class KeyValuePair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pair of a name and a text (clause 5.2.22)."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: _TEXT


class SubscribedEntities(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Entities that a subscription is about (clause 5.2.33); all that is given must hold."""

    type: _TEXT = ""
    id: str | list[str] = ""
    idPattern: Annotated[str, msgspec.Meta(max_length=PATTERN_MAX)] = ""  # noqa: N815 - as the standard names it


class GeoCondition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Geometric condition (clause 5.2.13)."""

    geometry: _TEXT
    coordinates: Any
    georel: _TEXT
    geoproperty: _TEXT = ""


class NotificationEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Receiver of notifications (clause 5.2.15)."""

    uri: Annotated[str, msgspec.Meta(min_length=8, max_length=2_000)]
    accept: Literal["application/json", "application/ld+json", "application/geo+json"] = "application/json"
    receiverInfo: list[KeyValuePair] = []  # noqa: N815 - as the standard names it
    notifierInfo: list[KeyValuePair] = []  # noqa: N815 - as the standard names it
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    cooldown: Annotated[float, msgspec.Meta(ge=0)] | None = None


class NotificationParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content and endpoint of notifications (clause 5.2.14)."""

    endpoint: NotificationEndpoint
    attributes: list[_TEXT] = []
    pick: list[_TEXT] = []
    omit: list[_TEXT] = []
    format: Literal["normalized", "concise", "simplified", "keyValues"] = "normalized"
    sysAttrs: bool = False  # noqa: N815 - as the standard names it


class SubscriptionDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A subscription as a client gives it (clause 5.2.12)."""

    id: str = ""
    type: Literal["Subscription"] = "Subscription"
    subscriptionName: _TEXT = ""  # noqa: N815 - as the standard names it
    description: _TEXT = ""
    entities: list[SubscribedEntities] = []
    watchedAttributes: list[_TEXT] = []  # noqa: N815 - as the standard names it
    notificationTrigger: list[NotificationTrigger] = []  # noqa: N815 - as the standard names it
    timeInterval: Annotated[float, msgspec.Meta(ge=INTERVAL_MIN_S, le=INTERVAL_MAX_S)] | None = None  # noqa: N815 - as the standard names it
    q: _QUERY = ""
    geoQ: GeoCondition | None = None  # noqa: N815 - as the standard names it
    scopeQ: _QUERY = ""  # noqa: N815 - as the standard names it
    lang: _TEXT = ""
    isActive: bool = True  # noqa: N815 - as the standard names it
    expiresAt: str = ""  # noqa: N815 - as the standard names it
    throttling: Annotated[float, msgspec.Meta(ge=0, le=THROTTLING_MAX_S)] = 0.0
    jsonldContext: str = ""  # noqa: N815 - as the standard names it
    notification: NotificationParams

    @property
    def triggers(self) -> frozenset[NotificationTrigger]:
        """Changes that cause a notification, without `ENTITY_UPDATED`, which stands for three others."""
        named = frozenset(self.notificationTrigger) or frozenset(
            {NotificationTrigger.ATTRIBUTE_CREATED, NotificationTrigger.ATTRIBUTE_UPDATED}
        )
        if NotificationTrigger.ENTITY_UPDATED in named:
            named |= _OF_ATTRIBUTES
        return named - {NotificationTrigger.ENTITY_UPDATED}

    @property
    def follows_readings(self) -> bool:
        """Return whether readings of devices cause notifications: each adds or updates an attribute."""
        changed = {NotificationTrigger.ATTRIBUTE_CREATED, NotificationTrigger.ATTRIBUTE_UPDATED}
        return self.timeInterval is None and bool(changed & self.triggers)


class EntitySubscription(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A subscription as it is kept; the names in its document are of its context."""

    id: str
    feed: str
    subscriber: str
    """Id of the token that created it."""
    document: SubscriptionDocument
    context: ContextSource | None = None
    """Source of the @context by which its texts are read and notifications written; None: the core."""
    context_url: str = ""
    """Address here of a context that stood inside the request; empty: it has one of its own."""
    secret: str
    """Base64 of the key that signs notifications."""
    created: int = 0
    modified: int = 0
    revision: int = 0
    format: int = 1

    @property
    def push_id(self) -> str:
        """Id of its push subscription, and of its committed offset."""
        return PREFIX + key_of(self.id)

    @property
    def expires(self) -> int | None:
        """Return the time when it ends, µs UTC."""
        return parse_date_time(self.document.expiresAt) if self.document.expiresAt else None


def key_of(name: str) -> str:
    """Return the name of the record of a subscription: its URI may be longer than a key."""
    return hashlib.blake2s(name.encode(), digest_size=16).hexdigest()


def read_document(body: object) -> SubscriptionDocument:
    """Return a subscription of a client, with its own names. Raises `NgsiError`."""
    if not isinstance(body, dict):
        raise bad_data("body: is not a JSON object; give a subscription")
    for name, remedy in _NOT_OFFERED.items():
        if name in body:
            raise NgsiError(ErrorType.OPERATION_NOT_SUPPORTED, f"body: {name}: is not offered; {remedy}")
    members = {name: value for name, value in body.items() if name not in _OF_THE_GATEWAY}
    if "type" not in members:
        raise bad_data("body: type: is missing; give Subscription")
    try:
        document = msgspec.convert(members, SubscriptionDocument)
    except msgspec.ValidationError as why:
        raise bad_data(f"body: {why}; see clause 5.2.12 of the standard") from None
    _check(document)
    return document


_OF_THE_GATEWAY = frozenset({"@context", "status", "createdAt", "modifiedAt"})
"""Members that a client may send back as it got them; they change nothing."""


def _check(document: SubscriptionDocument) -> None:
    """Return if the members fit together. Raises `NgsiError`."""
    if document.id:
        checked_uri(document.id, "body: id")
    if not document.entities and not document.watchedAttributes:
        raise bad_data("body: has neither entities nor watchedAttributes; give one of them")
    if len(document.entities) > SELECTORS_MAX:
        raise bad_data(f"body: entities: has {len(document.entities)} selectors; give at most {SELECTORS_MAX}")
    for selector in document.entities:
        _check_selector(selector)
    notification = document.notification
    for names in (document.watchedAttributes, notification.attributes, notification.pick, notification.omit):
        if len(names) > NAMES_MAX or "" in names:
            raise bad_data(f"body: a list of attributes has {len(names)} names; give 1 to {NAMES_MAX}")
    if document.expiresAt and parse_date_time(document.expiresAt) is None:
        raise bad_data(f"body: expiresAt: '{document.expiresAt[:40]}' is not a time; give 2026-01-01T00:00:00Z")
    if document.timeInterval is not None:
        for name in ("watchedAttributes", "throttling", "notificationTrigger"):
            if getattr(document, name):
                raise bad_data(f"body: timeInterval: does not go with {name}; give one of them")
    _check_endpoint(notification.endpoint)


def _check_endpoint(endpoint: NotificationEndpoint) -> None:
    if endpoint.uri.startswith(MQTT_SCHEMES):
        notifier_settings(endpoint)
    for pair in endpoint.receiverInfo:
        if not _HEADER.fullmatch(pair.key) or _RESERVED.fullmatch(pair.key) or not pair.value.isprintable():
            raise bad_data(f"body: receiverInfo: '{pair.key[:40]}' is not a header that may be set; use another")
    if len(endpoint.receiverInfo) > HEADERS_MAX or len(endpoint.notifierInfo) > HEADERS_MAX:
        raise bad_data(f"body: endpoint: has too many pairs; give at most {HEADERS_MAX}")


class NotifierSettings(msgspec.Struct, frozen=True):
    """MQTT options of notifications (clause 7.2)."""

    qos: int = 1
    version: str = "mqtt3.1.1"


def notifier_settings(endpoint: NotificationEndpoint) -> NotifierSettings:
    """Return the settings of an MQTT endpoint. Raises `NgsiError`."""
    given = {pair.key: pair.value for pair in endpoint.notifierInfo}
    if unknown := given.keys() - {"MQTT-QoS", "MQTT-Version"}:
        raise bad_data(f"body: notifierInfo: '{min(unknown)[:40]}' is unknown; use MQTT-QoS and MQTT-Version")
    qos, version = given.get("MQTT-QoS", "1"), given.get("MQTT-Version", "mqtt3.1.1")
    if qos not in {"0", "1", "2"}:
        raise bad_data(f"body: notifierInfo: MQTT-QoS: '{qos[:20]}' is unknown; give 0, 1 or 2")
    if version not in {"mqtt3.1.1", "mqtt5.0"}:
        raise bad_data(f"body: notifierInfo: MQTT-Version: '{version[:20]}' is unknown; give mqtt3.1.1 or mqtt5.0")
    return NotifierSettings(int(qos), version)


def _check_selector(selector: SubscribedEntities) -> None:
    if not (selector.type or selector.id or selector.idPattern):
        raise bad_data("body: entities: a selector is empty; give a type, id or idPattern")
    names = selector.id if isinstance(selector.id, list) else [selector.id] if selector.id else []
    if len(names) > NAMES_MAX or any(len(name) > URI_MAX for name in names):
        raise bad_data(f"body: entities: id: has {len(names)} URIs; give at most {NAMES_MAX}")
    if selector.idPattern:
        pattern_of("body: entities: idPattern", selector.idPattern)
