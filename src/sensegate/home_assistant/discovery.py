"""Discovery of the series of a grant by Home Assistant: a retained configuration for each, below the grant's topics.

    sg/grants/GRANT/homeassistant/sensor/ID/config    configuration of one series, retained
    sg/grants/GRANT/homeassistant/availability        online, offline (delivery is paused); retained
    sg/grants/GRANT/records                           values: the pages of the grant's delivery, as for any subscriber

The subscriber asks for it in a control message. What a configuration tells is what the grant shows: properties that the
mask leaves out have none, and devices have the names of its records. When the grant ends, or the subscriber wants it no
longer, the configurations are deleted, with which Home Assistant forgets the entities.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import structlog

from sensegate import __version__, metrics
from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.clock import Clock
from sensegate.errors import NotFound, Overloaded, PermissionDenied
from sensegate.home_assistant.classes import SensorClass, sensor_class
from sensegate.quantities.properties import PROPERTIES
from sensegate.share.broker_clients import MQTT, record_subject, subscription_id
from sensegate.share.feeds import FeedFilter
from sensegate.share.grants import Admission, Grant
from sensegate.share.latest import LatestReader, includes_readings
from sensegate.share.records import base_name, channel_of
from sensegate.share.sharing import Sharing
from sensegate.share.subscriptions import DEFAULT_TAG, CommittedOffset, SubscriptionState
from sensegate.share.transports.brokered import MqttPublisher

SERIES_MAX = 2_000
"""Most series of a grant that have a configuration; further ones are counted as a limit that was reached."""
ROUND_S = 5.0
"""Interval in which new series are looked for."""
_SEARCHED = 16_384
_AT_ONCE = 100
"""Most configurations that are published at a time."""
_FORM = "json"
_log = structlog.get_logger("home assistant")


class GrantedSeries(msgspec.Struct, frozen=True, order=True):
    """A series as a grant shows it."""

    device: str
    name: str
    """Property."""
    channel: str
    profile: str
    """``vendor/model@version``; empty: the mask hides it."""

    @property
    def id(self) -> str:
        """Id among the series of the grant, of characters that Home Assistant takes in a topic."""
        text = f"{self.device}\0{self.name}\0{self.channel}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class HomeAssistantDevice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Device to which an entity belongs."""

    identifiers: tuple[str, ...]
    name: str
    model: str = ""


class DiscoveryOrigin(msgspec.Struct, frozen=True):
    """Program that publishes a configuration."""

    name: str = "sensegate"
    sw_version: str = __version__


class SensorConfig(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Payload of a configuration, by Home Assistant's documentation of MQTT sensors."""

    unique_id: str
    name: str
    state_topic: str
    availability_topic: str
    value_template: str
    device: HomeAssistantDevice
    origin: DiscoveryOrigin
    device_class: str = ""
    unit_of_measurement: str = ""
    state_class: str = ""
    qos: int = 0


def _discovery_state(offset: CommittedOffset | None) -> tuple[bool, bool]:
    """Return whether a subscription asks for configurations, and whether records are delivered."""
    if offset is None or not offset.home_assistant:
        return False, False
    return True, offset.state is SubscriptionState.ACTIVE


def topic_prefix(grant: str) -> str:
    """Return Home Assistant's discovery prefix for a grant."""
    return f"{record_subject(grant, MQTT).replace('.', '/')}/homeassistant"


def availability_topic(grant: str) -> str:
    """Return the topic on which it stands whether records of a grant are delivered."""
    return f"{topic_prefix(grant)}/availability"


def config_topic(grant: str, series: GrantedSeries) -> str:
    """Return the topic of the configuration of a series."""
    return f"{topic_prefix(grant)}/sensor/{series.id}/config"


def config_of(grant: str, series: GrantedSeries) -> SensorConfig:
    """Return the configuration of a series."""
    row = PROPERTIES.by_name(series.name) if series.name in PROPERTIES else None
    label = row.label_en if row is not None else series.name
    shown = sensor_class(row) if row is not None else SensorClass()
    return SensorConfig(
        unique_id=f"sensegate_{grant}_{series.id}",
        name=f"{label} {series.channel}" if series.channel else label,
        state_topic=f"{record_subject(grant, MQTT).replace('.', '/')}/{DEFAULT_TAG}",
        availability_topic=availability_topic(grant),
        value_template=value_template(series, is_number=bool(shown.state_class or shown.unit or shown.device_class)),
        device=HomeAssistantDevice((f"sensegate_{grant}_{series.device}",), series.device, series.profile),
        origin=DiscoveryOrigin(),
        device_class=shown.device_class,
        unit_of_measurement=shown.unit,
        state_class=shown.state_class,
        qos=1,
    )


def value_template(series: GrantedSeries, *, is_number: bool) -> str:
    """Return the template that takes the newest value of a series out of a page of records.

    A page without the series leaves the state as it is: Home Assistant ignores an empty number, a text is repeated.
    """
    channel = (
        f"selectattr('channel', 'eq', {_quoted(series.channel)})"
        if series.channel
        else "rejectattr('channel', 'defined')"
    )
    chosen = (
        f"value_json.records | selectattr('device', 'eq', {_quoted(series.device)})"
        f" | selectattr('property', 'eq', {_quoted(series.name)}) | {channel} | list"
    )
    otherwise = "''" if is_number else "this.state"
    return f"{{% set rows = {chosen} %}}{{{{ rows[-1].value if rows else {otherwise} }}}}"


def _quoted(text: str) -> str:
    """Return a string literal of Jinja."""
    return json.dumps(text)


class DiscoveryParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts of the gateway that `Discovery` uses."""

    sharing: Sharing
    latest: LatestReader
    tokens: Tokens
    offsets: RecordTable[CommittedOffset]
    publisher: MqttPublisher
    clock: Clock


class Discovery:
    """Keeps the configurations of all grants that ask for them."""

    def __init__(self, parts: DiscoveryParts) -> None:
        self._parts = parts
        self._published: dict[str, dict[str, bytes]] = {}
        """Grant -> topic -> retained payload; empty where an earlier process published it and it is not known."""
        self._known = False
        self._wake = asyncio.Event()
        parts.offsets.on_change.append(self._offset_changed)
        parts.sharing.grants.records.on_change.append(lambda _before, _after: self._wake.set())

    def _offset_changed(self, before: CommittedOffset | None, after: CommittedOffset | None) -> None:
        # An offset is committed with every delivery.
        if _discovery_state(before) != _discovery_state(after):
            self._wake.set()

    async def run(self) -> None:
        """Publish and delete configurations until cancelled.

        Raises:
            Unavailable: the broker is away; run again.
        """
        self._known = False
        while True:
            self._wake.clear()
            await self.step()
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self) -> None:
        """Bring the retained messages of all grants in line. Raises `Unavailable`."""
        grants = {grant.id: grant for grant in self._requesting_grants()}
        if not self._known:
            for topic in await self._parts.publisher.retained_topics("sg/grants/"):
                grant_id, slash, rest = topic.removeprefix("sg/grants/").partition("/")
                if slash and rest.startswith("homeassistant/"):
                    self._published.setdefault(grant_id, {})[topic] = b""
            self._known = True
        for ended in {*self._published} - {*grants}:
            await self._apply(ended, {})
            del self._published[ended]
        for grant in grants.values():
            try:
                principal = self._parts.tokens.principal(grant.subscriber)
                admission = self._parts.sharing.admit(principal, grant.feed, FeedFilter(), MQTT, _FORM)
            except (PermissionDenied, NotFound):
                await self._apply(grant.id, {})
                continue
            except Overloaded:
                continue  # its volume is used up: published configurations stay
            await self._apply(grant.id, await self._messages_of(grant, admission), principal=principal, feed=grant.feed)

    def _requesting_grants(self) -> Iterator[Grant]:
        now = self._parts.clock.now()
        for grant in self._parts.sharing.grants.records.all():
            is_requested, _ = _discovery_state(self._parts.offsets.find(subscription_id(grant.id, MQTT)))
            if is_requested and grant.state(now) == "active":
                yield grant

    async def _messages_of(self, grant: Grant, admission: Admission) -> dict[str, bytes]:
        """Return the retained messages that a grant should have, by topic."""
        _, is_active = _discovery_state(self._parts.offsets.find(subscription_id(grant.id, MQTT)))
        messages = {availability_topic(grant.id): b"online" if is_active else b"offline"}
        for series in await self._series(admission):
            messages[config_topic(grant.id, series)] = msgspec.json.encode(config_of(grant.id, series))
        return messages

    async def _series(self, admission: Admission) -> list[GrantedSeries]:
        """Return the series that a grant shows, in the order of devices, at most `SERIES_MAX`."""
        selection, latest = admission.selection, self._parts.latest
        if selection is None or not includes_readings(selection):
            return []
        series: set[GrantedSeries] = set()
        for start in range(0, len(latest.values), _SEARCHED):
            numbers = np.arange(start, min(start + _SEARCHED, len(latest.values)))
            for part in latest.masked(selection, latest.matching_series(selection, numbers)):
                origins, names = part.batch.origins, part.batch.properties
                profiles = origins.profile.table
                for origin, name in zip(
                    part.batch.origin[part.rows].tolist(), part.batch.property[part.rows].tolist(), strict=True
                ):
                    profile = profiles[int(origins.profile.index[origin])]
                    series.add(
                        GrantedSeries(origins.device[origin], base_name(names[name]), channel_of(names[name]), profile)
                    )
            await asyncio.sleep(0)
        if len(series) > SERIES_MAX:
            metrics.LIMIT_HITS.labels("home_assistant_series").inc()
        return sorted(series)[:SERIES_MAX]

    async def _apply(
        self, grant: str, wanted: Mapping[str, bytes], *, principal: Principal | None = None, feed: str = ""
    ) -> None:
        """Publish changed configurations, and delete superfluous ones. Raises `Unavailable`."""
        published = self._published.setdefault(grant, {})
        changed = {topic: body for topic, body in wanted.items() if published.get(topic) != body}
        await self._publish(changed)
        published |= changed
        removed = published.keys() - wanted.keys()
        await self._publish(dict.fromkeys(removed, b""))
        for topic in removed:
            del published[topic]
        if changed and principal is not None:
            size = sum(map(len, changed.values()))
            self._parts.sharing.count(principal, feed, MQTT, requests=1, records=0, size=size, grant=grant)
        if changed or removed:
            _log.info("configurations published", grant=grant, changed=len(changed), deleted=len(removed))

    async def _publish(self, messages: Mapping[str, bytes]) -> None:
        waiting = list(messages.items())
        for start in range(0, len(waiting), _AT_ONCE):
            part = waiting[start : start + _AT_ONCE]
            await asyncio.gather(*(self._parts.publisher.publish(topic, body, retain=True) for topic, body in part))
