"""ONVIF: events and values of sensors, cut down to what may be kept. The same for XML and ``onvif-ej``.

Of an event stay its topic where the table has it, where it comes from, its state, the class of what it is about and the
numbers that it counts or measures. Plates are hidden; names of people, tickets of access and texts do not pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sensegate.video import codes
from sensegate.video.format import Veil
from sensegate.video.formats import onvif_redaction
from sensegate.video.formats.onvif_records import Happening, Sensed, Value
from sensegate.video.formats.onvif_redaction import Removed
from sensegate.video.observation import Plate
from sensegate.video.times import parse_iso
from sensegate.video.values import (
    EMPTY,
    Node,
    many,
    named,
    node,
    number,
    region,
    rest,
    take,
    text,
    told_name,
    truth,
    words,
)

TOPIC_MAX: Final = 200
_RULES: Final = frozenset({"rule", "rulename"})
_STATES: Final = words(
    "state ismotion isinside isloitering istamper issounddetected logicalstate failed alarm active value "
    "isobjectpresent isabandoned isremoved isnear iscritical isfull motion triggered alarmed"
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
"""No camera counts further; a number of a telephone is greater."""
_HOTTEST: Final = 10_000.0
_ENDED: Final = frozenset({"deleted"})


class Told(NamedTuple):
    """An event, before it is cut: the same of XML and JSON."""

    topic: str
    """Without prefixes; from the topic of MQTT, or of the message."""
    at: str
    operation: str
    source: Node
    data: Node
    """With its keys and elements."""
    in_topic: tuple[str, ...] = ()
    """Tokens behind ``&`` in a topic of MQTT."""


def plain_topic(topic: str) -> tuple[str, tuple[str, ...]]:
    """Return a topic without prefixes of namespaces, and the tokens that follow ``&``."""
    segments = topic.strip().split("/")
    for at, segment in enumerate(segments):
        if segment.startswith("&"):
            return "/".join(map(_local, segments[:at])), (segment[1:], *segments[at + 1 :])
    return "/".join(map(_local, segments)), ()


def _local(segment: str) -> str:
    return segment.rpartition(":")[2].strip()


def told(notice: Any) -> Told | None:
    """Return what a NotificationMessage of XML says, None where it is none."""
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
    return Told(
        *plain_topic(topic[: TOPIC_MAX + 1])[:1],
        at=text(inner.get("@UtcTime")),
        operation=text(inner.get("@PropertyOperation")),
        source=_items(inner.get("Source")),
        data=data,
    )


def _items(value: Any) -> dict[str, Any]:
    """Return name -> value of the items of a Source, Key or Data."""
    members = node(value)
    found: dict[str, Any] = {}
    for one in many(members.get("SimpleItem")):
        of = node(one)
        if name := text(of.get("@Name")):
            found[name] = of.get("@Value")
    for one in many(members.get("ElementItem")):
        of = node(one)
        inside = {name: child for name, child in of.items() if not name.startswith("@")}
        found |= inside if len(inside) == 1 else {text(of.get("@Name")) or "ElementItem": inside}
    return found


def happening(event: Told, veil: Veil, total: Removed, arrival: int) -> Happening:
    """Return an event as it may be kept; what was taken out is added to `total`."""
    removed: Removed = {}
    word = codes.word("event", "onvif", event.topic) if len(event.topic) <= TOPIC_MAX else None
    if word is None and event.topic:
        take("Topic", removed)
    moment = parse_iso(event.at)
    at = moment[0] if moment else None
    rule, sources = _sources(event, veil)
    kept = _Data(veil, arrival if at is None else at, removed)
    for name, value in event.data.items():
        kept.take(name, value)
    for name, count in removed.items():
        total[name] = total.get(name, 0) + count
    return Happening(
        topic=event.topic if word is not None else "",
        at=at,
        sources=sources,
        rule=rule,
        state=kept.state,
        ended=event.operation.lower() in _ENDED,
        object=kept.object,
        cls=kept.cls,
        sub=kept.sub,
        sure=kept.sure,
        values=tuple(kept.values),
        color=kept.color,
        brand=kept.brand,
        plate=kept.plate,
        images=kept.images,
        removed=tuple(sorted(removed)),
    )


def _sources(event: Told, veil: Veil) -> tuple[str, tuple[str, ...]]:
    """Return the rule and the other tokens; of a message without sources those of its topic, the last as the rule."""
    if event.source:
        rule = next((named(value, veil) for name, value in event.source.items() if name.lower() in _RULES), "")
        return rule, tuple(
            named(value, veil) for name, value in event.source.items() if name.lower() not in _RULES and text(value)
        )
    tokens = tuple(named(one, veil) for one in event.in_topic)
    return (tokens[-1], tokens[:-1]) if len(tokens) > 2 else ("", tokens)


class _Data:
    """What is kept of the members of an event."""

    def __init__(self, veil: Veil, at: int, removed: Removed) -> None:
        self._veil = veil
        self._at = at
        self._removed = removed
        self.state: bool | None = None
        self.object = ""
        self.cls = ""
        self.sub = ""
        self.sure: float | None = None
        self.values: list[Value] = []
        self.color = ""
        self.brand = ""
        self.plate: Plate | None = None
        self.images = 0

    def take(self, name: str, value: Any) -> None:
        """Keep a member, or count it as taken out."""
        low = _local(name).lower()
        if low in _PLATES:
            self._plate(value)
        elif low in _ELEMENTS:
            self._element(low, value)
        elif low in _STATES and (state := truth(value if isinstance(value, bool | int) else text(value))) is not None:
            self.state = state
        elif low in _COUNTS and (count := number(text(value), 0, _COUNT_MAX)) is not None:
            self.values.append(Value(name="count", value=count))
        elif low in _OBJECTS:
            self.object = onvif_redaction.id_of(value, self._veil)
        elif low in _CLASSES and text(value):
            self._class(value)
        elif low == "likelihood":
            self.sure = number(text(value), 0, 1)
        elif value not in (None, "", {}, []):
            take(f"Data.{told_name(name)}", self._removed)

    def _class(self, value: Any) -> None:
        labels = text(value).split()
        cls, sub = onvif_redaction.seen_as(labels[0]) if labels else ("", "")
        if not self.cls and codes.word("class", "onvif", labels[0]) is not None:
            self.cls, self.sub = cls, sub
        else:
            take("Data.Type", self._removed)

    def _plate(self, value: Any) -> None:
        written = text(value)
        if not written:
            return
        take("Data.PlateNumber", self._removed)
        if self.plate is None:
            self.plate = Plate(token=self._veil.plate(written, self._at), region=region(written))

    def _element(self, low: str, value: Any) -> None:
        if low == "vehicleinfo":
            kind, self.color, self.brand, images = onvif_redaction.vehicle_of(value, self._removed)
            self.sub, self.cls = kind or self.sub, self.cls or "vehicle"
            self.images += images
        elif low == "licenseplateinfo":
            plate, images = onvif_redaction.plate_of(value, self._at, self._veil, self._removed)
            self.plate = plate or self.plate
            self.images += images
        elif low == "recordingjobstateinformation":
            if self.state is None:
                self.state = truth(text(node(value).get("State")))
        else:
            for one in many(value):
                self.values += _temperatures(node(one), self._veil)


def _temperatures(reading: Node, veil: Veil) -> Iterator[Value]:
    """Yield the temperatures of a radiometric reading (kelvin)."""
    for name, kind in _TEMPERATURES.items():
        found = number(reading.get(name, reading.get(name[1:])), 0, _HOTTEST)
        if found is not None:
            yield Value(name=kind, value=found, item=named(reading.get("@ItemID", reading.get("ItemID")), veil))


# ── sensors ──────────────────────────────────────────────────────────────────────────────────────────

_SENSOR: Final = frozenset({"@UtcTime", "@SensorID", "@SensorId", "Value", "@context"})
SENSORS: Final[Mapping[str, tuple[str, str]]] = {
    "Temperature": ("air_temperature", "K"),
    "Humidity": ("relative_humidity", "%"),
}
"""Kind of SensorData -> property and unit; temperatures are in kelvin by the specification."""


def sensed(value: Any, kind: str, veil: Veil, total: Removed) -> Sensed | None:
    """Return a SensorData as it may be kept; `kind`: as its topic says, else its own id tells."""
    members = node(value)
    if not members:
        return None
    name = text(members.get("@SensorID", members.get("@SensorId")))
    if kind not in SENSORS:
        kind = next((one for one in SENSORS if name.lower().startswith(one.lower()[:3])), "")
    rest("SensorData", members, _SENSOR, total)
    moment = parse_iso(text(members.get("@UtcTime")))
    return Sensed(
        kind=kind,
        at=moment[0] if moment else None,
        id=named(name, veil),
        value=number(text(members.get("Value")), -1e9, 1e9),
    )


def empty(topic: str, veil: Veil) -> Happening:
    """Return what an empty message means: the property event of its topic is no more."""
    name, tokens = plain_topic(topic)
    event = Told(name, "", "Deleted", EMPTY, EMPTY, tokens)
    return happening(event, veil, {}, 0)
