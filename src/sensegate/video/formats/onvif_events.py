"""ONVIF: redaction of events and sensor values, the same for XML and ``onvif-ej``.

Of an event its topic (if known), its sources, its state, the class of its object and its counts or measurements are
kept. Plates are pseudonymised; people's names, access tickets and texts are removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.video import codes
from sensegate.video.format import Pseudonymiser
from sensegate.video.formats import onvif_redaction
from sensegate.video.formats.onvif_records import OnvifEvent, OnvifObject, OnvifValue, SensorValue
from sensegate.video.observation import Plate
from sensegate.video.times import parse_iso
from sensegate.video.values import (
    EMPTY,
    Node,
    Removed,
    as_list,
    boolean,
    count_removed,
    count_removed_members,
    node,
    number,
    plate_region,
    public_name,
    reportable_name,
    split_words,
    text,
)

TOPIC_MAX: Final = 200
EVENT_OBJECTS_MAX: Final = 256
"""Greatest number of objects of one event."""
_RULES: Final = frozenset({"rule", "rulename"})
_STATES: Final = split_words(
    "state ismotion isinside isloitering istamper issounddetected logicalstate failed alarm active value "
    "isobjectpresent tampering disruption open isabandoned isremoved isnear iscritical isfull motion triggered alarmed"
)
_OBJECTS: Final = frozenset({"objectid", "object"})
_CLASSES: Final = frozenset({"classtypes", "classtype", "class", "objecttype", "type"})
_COUNTS: Final = frozenset({"count", "objectcount", "occupancy", "total"})
_PLATES: Final = frozenset({"platenumber", "plate", "licenseplate", "platetext"})
_ELEMENTS: Final = frozenset(
    {
        "vehicleinfo",
        "licenseplateinfo",
        "reading",
        "boxtemperaturereading",
        "spottemperaturereading",
        "recordingjobstateinformation",
    }
)
_TEMPERATURES: Final = {
    "@MaxTemperature": "max",
    "@MinTemperature": "min",
    "@AverageTemperature": "mean",
    "@MedianTemperature": "median",
    "@SpotTemperature": "spot",
}
_COUNT_MAX: Final = 1e9
"""Greatest count of a camera; a telephone number is greater."""
_HOTTEST: Final = 10_000.0
_ENDED: Final = frozenset({"deleted"})


class RawEvent(NamedTuple):
    """An event before redaction, from XML or JSON."""

    topic: str
    """Without prefixes; from the MQTT topic or the message."""
    time: str
    operation: str
    source: Node
    data: Node
    """Data items, including keys and elements."""
    in_topic: tuple[str, ...] = ()
    """Tokens after ``&`` in an MQTT topic."""


def plain_topic(topic: str) -> tuple[str, tuple[str, ...]]:
    """Return a topic without namespace prefixes, and the tokens that follow ``&``."""
    segments = topic.strip().split("/")
    for at, segment in enumerate(segments):
        if segment.startswith("&"):
            return "/".join(map(_local, segments[:at])), (segment[1:], *segments[at + 1 :])
    return "/".join(map(_local, segments)), ()


def _local(segment: str) -> str:
    return segment.rpartition(":")[2].strip()


def read_notification(notice: Any) -> RawEvent | None:
    """Return the event of a NotificationMessage in XML, None if it has none."""
    outer = node(notice)
    inner = node(node(outer.get("Message")).get("Message"))
    if not inner and "@UtcTime" not in inner:
        inner = node(outer.get("Message"))
    topic = text(outer.get("Topic"))
    if not topic and not inner:
        return None
    data: dict[str, Any] = {}
    for part in ("Key", "Data"):
        data |= _items(inner.get(part))
    return RawEvent(
        *plain_topic(topic[: TOPIC_MAX + 1])[:1],
        time=text(inner.get("@UtcTime")),
        operation=text(inner.get("@PropertyOperation")),
        source=_items(inner.get("Source")),
        data=data,
    )


def _items(value: Any) -> dict[str, Any]:
    """Return name -> value of the items of a Source, Key or Data."""
    members = node(value)
    items: dict[str, Any] = {
        name: child for name, child in members.items() if name not in {"SimpleItem", "ElementItem"} and name[:1] != "@"
    }
    for item in as_list(members.get("SimpleItem")):
        attributes = node(item)
        if name := text(attributes.get("@Name")):
            items[name] = attributes.get("@Value")
    for item in as_list(members.get("ElementItem")):
        attributes = node(item)
        inside = {name: child for name, child in attributes.items() if not name.startswith("@")}
        for name, child in (
            inside if len(inside) == 1 else {text(attributes.get("@Name")) or "ElementItem": inside}
        ).items():
            items[name] = [*as_list(items[name]), *as_list(child)] if name in items else child
    return items


def redact_event(event: RawEvent, pseudonymiser: Pseudonymiser, total: Removed, arrival: int) -> Iterator[OnvifEvent]:
    """Redact an event, which is one for each object in it; removed fields are added to `total`."""
    removed: Removed = {}
    word = codes.onvif_event(event.topic) if len(event.topic) <= TOPIC_MAX else None
    if word is None and event.topic:
        count_removed("Topic", removed)
    moment = parse_iso(event.time)
    at = moment[0] if moment else None
    rule, sources = _sources(event, pseudonymiser)
    data = _DataRedactor(pseudonymiser, arrival if at is None else at, removed)
    for name, value in event.data.items():
        data.add(name, value)
    for name, count in removed.items():
        total[name] = total.get(name, 0) + count
    common = OnvifEvent(
        topic=event.topic if word is not None else "",
        unknown_topic=pseudonymiser.identifier(event.topic) if word is None and event.topic else "",
        time=at,
        sources=sources,
        rule=rule,
        state=data.state,
        ended=event.operation.lower() in _ENDED,
        object=data.object,
        object_class=data.object_class,
        subclass=data.subclass,
        confidence=data.confidence,
        values=tuple(data.values),
        color=data.color,
        brand=data.brand,
        plate=data.plate,
        images=data.images,
        removed=tuple(sorted(removed)),
    )
    if not data.elements:
        yield common
    for index, element in enumerate(data.elements):
        members = dict(element)
        if "@ObjectId" not in members and "ObjectId" in members:
            members["@ObjectId"] = members.pop("ObjectId")
        redacted = onvif_redaction.redact_object(members, index, data.at, None, pseudonymiser, total)
        if redacted is not None:
            yield _with_object(common, redacted, first=index == 0)


def _with_object(common: OnvifEvent, item: OnvifObject, *, first: bool) -> OnvifEvent:
    """Return an event of one object; counts and measurements of the event stand beside the first."""
    own_id = "" if item.id.startswith("#") else item.id
    return msgspec.structs.replace(
        common,
        object=own_id or common.object or item.id,
        uuid=item.uuid,
        object_class=item.object_class or common.object_class,
        subclass=item.subclass or common.subclass,
        confidence=common.confidence if item.confidence is None else item.confidence,
        box=item.box,
        transform=item.transform,
        speed=item.speed,
        yaw=item.yaw,
        location=item.location,
        lane=item.lane,
        values=common.values if first else (),
        color=item.color or common.color,
        brand=item.brand or common.brand,
        plate=item.plate or common.plate,
        images=item.images + (common.images if first else 0),
        removed=tuple(sorted({*common.removed, *item.removed})),
    )


def _sources(event: RawEvent, pseudonymiser: Pseudonymiser) -> tuple[str, tuple[str, ...]]:
    """Return the rule and the other source tokens; without sources those of the topic, the last one as the rule."""
    if event.source:
        rule = next(
            (public_name(value, pseudonymiser) for name, value in event.source.items() if name.lower() in _RULES), ""
        )
        return rule, tuple(
            public_name(value, pseudonymiser)
            for name, value in event.source.items()
            if name.lower() not in _RULES and text(value)
        )
    tokens = tuple(public_name(token, pseudonymiser) for token in event.in_topic)
    return (tokens[-1], tokens[:-1]) if len(tokens) > 2 else ("", tokens)


class _DataRedactor:
    """Redacted members of an event."""

    def __init__(self, pseudonymiser: Pseudonymiser, at: int, removed: Removed) -> None:
        self._pseudonymiser = pseudonymiser
        self.at = at
        self._removed = removed
        self.state: bool | None = None
        self.object = ""
        self.elements: list[Node] = []
        """Objects as in a frame."""
        self.object_class = ""
        self.subclass = ""
        self.confidence: float | None = None
        self.values: list[OnvifValue] = []
        self.color = ""
        self.brand = ""
        self.plate: Plate | None = None
        self.images = 0

    def add(self, name: str, value: Any) -> None:
        """Keep a member, or count it as removed."""
        low = _local(name).lower()
        if low in _PLATES:
            self._plate(value)
        elif low in _ELEMENTS:
            self._element(low, value)
        elif low in _STATES and (state := boolean(value if isinstance(value, bool | int) else text(value))) is not None:
            self.state = state
        elif low in _COUNTS and (count := number(text(value), 0, _COUNT_MAX)) is not None:
            self.values.append(OnvifValue(name="count", value=count))
        elif low in _OBJECTS and (objects := [item for item in as_list(value) if isinstance(item, dict) and item]):
            self.elements += objects[: EVENT_OBJECTS_MAX - len(self.elements)]
            if len(objects) > EVENT_OBJECTS_MAX:
                count_removed("Data.Object", self._removed, len(objects) - EVENT_OBJECTS_MAX)
        elif low in _OBJECTS and text(value):
            self.object = onvif_redaction.redact_id(value, self._pseudonymiser)
        elif low in _CLASSES and text(value):
            self._class(value)
        elif low == "likelihood":
            self.confidence = number(text(value), 0, 1)
        elif value not in (None, "", {}, []):
            count_removed(f"Data.{reportable_name(name)}", self._removed)

    def _class(self, value: Any) -> None:
        labels = text(value).split()
        object_class, sub = onvif_redaction.object_class(labels[0]) if labels else ("", "")
        if not self.object_class and codes.word("class", "onvif", labels[0]) is not None:
            self.object_class, self.subclass = object_class, sub
        else:
            count_removed("Data.Type", self._removed)

    def _plate(self, value: Any) -> None:
        written = text(value)
        if not written:
            return
        count_removed("Data.PlateNumber", self._removed)
        if self.plate is None:
            self.plate = Plate(token=self._pseudonymiser.plate(written, self.at), region=plate_region(written))

    def _element(self, low: str, value: Any) -> None:
        if low == "vehicleinfo":
            kind, self.color, self.brand, images = onvif_redaction.redact_vehicle(value, self._removed)
            self.subclass, self.object_class = kind or self.subclass, self.object_class or "vehicle"
            self.images += images
        elif low == "licenseplateinfo":
            plate, images = onvif_redaction.redact_plate(value, self.at, self._pseudonymiser, self._removed)
            self.plate = plate or self.plate
            self.images += images
        elif low == "recordingjobstateinformation":
            if self.state is None:
                self.state = boolean(text(node(value).get("State")))
        else:
            for reading in as_list(value):
                self.values += _temperatures(node(reading), self._pseudonymiser)


def _temperatures(reading: Node, pseudonymiser: Pseudonymiser) -> Iterator[OnvifValue]:
    """Yield the temperatures of a radiometric reading (kelvin)."""
    for name, kind in _TEMPERATURES.items():
        kelvin = number(reading.get(name, reading.get(name[1:])), 0, _HOTTEST)
        if kelvin is not None:
            yield OnvifValue(
                name=kind, value=kelvin, item=public_name(reading.get("@ItemID", reading.get("ItemID")), pseudonymiser)
            )


# ── sensors ──────────────────────────────────────────────────────────────────────────────────────────

_SENSOR: Final = frozenset({"@UtcTime", "@SensorID", "@SensorId", "Value", "@context"})
SENSORS: Final[Mapping[str, tuple[str, str]]] = {
    "Temperature": ("air_temperature", "K"),
    "Humidity": ("relative_humidity", "%"),
}
"""Kind of SensorData -> property and unit; the specification uses kelvin."""


def redact_sensor(value: Any, kind: str, pseudonymiser: Pseudonymiser, total: Removed) -> SensorValue | None:
    """Redact a SensorData; `kind` comes from its topic, otherwise from its id."""
    members = node(value)
    if not members:
        return None
    name = text(members.get("@SensorID", members.get("@SensorId")))
    if kind not in SENSORS:
        kind = next((sensor_kind for sensor_kind in SENSORS if name.lower().startswith(sensor_kind.lower()[:3])), "")
    count_removed_members("SensorData", members, _SENSOR, total)
    moment = parse_iso(text(members.get("@UtcTime")))
    return SensorValue(
        kind=kind,
        time=moment[0] if moment else None,
        id=public_name(name, pseudonymiser),
        value=number(text(members.get("Value")), -1e9, 1e9),
    )


def redact_empty(topic: str, pseudonymiser: Pseudonymiser) -> OnvifEvent:
    """Return the end of the property event of a topic, which an empty message means."""
    name, tokens = plain_topic(topic)
    event = RawEvent(name, "", "Deleted", EMPTY, EMPTY, tokens)
    return next(redact_event(event, pseudonymiser, {}, 0))
