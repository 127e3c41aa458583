"""ONVIF metadata and events: ``onvif_xml`` (tt:MetadataStream), ``onvif_mj`` and ``onvif_ej`` (JSON over MQTT).

One model in three spellings: what is cut of each is a `Scene`, and `see` reads nothing else. A camera is named by the
begin of its topic and the token of its profile, or by the address to which it pushes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, RejectReason
from sensegate.video import allowlist, boxes, codes, times, xmlsafe
from sensegate.video.boxes import Transform
from sensegate.video.format import Camera, Cut, Measured, Refusal, Seen, Veil, VideoFormat
from sensegate.video.formats import onvif_events, onvif_redaction
from sensegate.video.formats.onvif_events import SENSORS, Told
from sensegate.video.formats.onvif_records import Change, Frame, Happening, Scene, Sensed, Thing, Value
from sensegate.video.formats.onvif_redaction import OBJECTS_MAX, Removed
from sensegate.video.observation import (
    Event,
    Kind,
    ObjectClass,
    Place,
    TrackState,
    VideoObservation,
)
from sensegate.video.values import camera_of, channel, channel_of, identity, many, node, rest, text

XML: Final = "onvif_xml"
MJ: Final = "onvif_mj"
EJ: Final = "onvif_ej"

PREFIXES: Final = {
    "tt": "http://www.onvif.org/ver10/schema",
    "tns1": "http://www.onvif.org/ver10/topics",
    "wsnt": "http://docs.oasis-open.org/wsn/b-2",
    "wsa5": "http://www.w3.org/2005/08/addressing",
    "fc": "http://www.onvif.org/ver20/analytics/humanface",
    "bd": "http://www.onvif.org/ver20/analytics/humanbody",
}
"""Bound where a fragment binds none."""
_ELSEWHERE: Final = ("PTZ", "AudioAnalytics", "Extension")
"""Parts of a stream that concern nobody here."""
_KNOWN: Final = frozenset(
    {"MetadataStream", "VideoAnalytics", "Frame", "Event", "NotificationMessage", "Notify", "SensorData", *_ELSEWHERE}
)
_METADATA: Final = frozenset({"onvif-mj", "onvif-xml"})
"""Levels of a topic behind which the kind of metadata and its producer stand."""
_ENVELOPE: Final = ("Envelope", "Body")
_FRAMES: Final = frozenset({"Frame"})
_NOTICE: Final = frozenset({"Topic", "Message"})
_EVENT: Final = frozenset({"UtcTime", "Source", "Data", "Key", "PropertyOperation", "Topic", "@context"})
_FRAMES_MAX: Final = 1_000
_TOTALS: Final = {
    ObjectClass.PERSON: ("people_count_total", "people_present"),
    ObjectClass.FACE: ("people_count_total", "people_present"),
    ObjectClass.VEHICLE: ("vehicle_count_total", "vehicles_present"),
    ObjectClass.NONMOTOR: ("bicycles_total", "nonmotors_present"),
}
_TOTAL_OF_ANY: Final = ("object_count_total", "objects_present")
_WIRES: Final = {"alarm_input": "input", "alarm_output": "output"}
_TEMPERATURE: Final = "surface_temperature"


# ── what may be kept ─────────────────────────────────────────────────────────────────────────────────


def _cut(scene: Scene, removed: Removed) -> Cut:
    return Cut(msgspec.json.encode(scene), dict(sorted(removed.items())))


class _Scene:
    """Gathers the parts of one message."""

    def __init__(self, veil: Veil, arrival: int) -> None:
        self.removed: Removed = {}
        self._veil = veil
        self._arrival = arrival
        self._frames: list[Frame] = []
        self._events: list[Happening] = []
        self._sensed: list[Sensed] = []
        self._objects = 0
        self.ignored = 0

    def frame(self, value: Any) -> None:
        """Take one Frame."""
        self._objects += len(many(node(value).get("Object")))
        if self._objects > OBJECTS_MAX or len(self._frames) >= _FRAMES_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {OBJECTS_MAX} objects or {_FRAMES_MAX} frames")
        frame = onvif_redaction.frame_of(value, self._veil, self.removed)
        if frame is None:
            raise Rejected(QuarantineReason.SCHEMA, "a Frame that is no object")
        self._frames.append(frame)

    def event(self, event: Told) -> None:
        """Take one event."""
        if len(self._events) >= OBJECTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {OBJECTS_MAX} events")
        self._events.append(onvif_events.happening(event, self._veil, self.removed, self._arrival))

    def ended(self, topic: str) -> None:
        """Take an empty message: the property of its topic is no more."""
        self._events.append(onvif_events.empty(topic, self._veil))

    def sensor(self, value: Any, kind: str) -> None:
        """Take one value of a sensor."""
        if (sensed := onvif_events.sensed(value, kind, self._veil, self.removed)) is not None:
            self._sensed.append(sensed)

    def done(self) -> Cut:
        """Return what was gathered."""
        scene = Scene(tuple(self._frames), tuple(self._events), tuple(self._sensed), self.ignored)
        return _cut(scene, self.removed)


def cut_xml(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:  # noqa: ARG001 - the form of all formats
    """Cut a tt:MetadataStream, a fragment of one, or a wsnt:Notify."""
    top = xmlsafe.tree(payload, PREFIXES)
    for name in _ENVELOPE:
        top = dict(node(top[name])) if name in top else top
    if not any(name in _KNOWN for name in top):
        raise Rejected(QuarantineReason.SCHEMA, "no tt:MetadataStream, nor a part of one")
    scene = _Scene(veil, arrival)
    _stream(top, scene)
    return scene.done()


def _stream(members: Any, scene: _Scene) -> None:
    for stream in many(members.get("MetadataStream")):
        rest("MetadataStream", node(stream), _KNOWN, scene.removed)
        _stream(node(stream), scene)
    for analytics in many(members.get("VideoAnalytics")):
        rest("VideoAnalytics", node(analytics), _FRAMES, scene.removed)
        for one in many(node(analytics).get("Frame")):
            scene.frame(one)
    for one in many(members.get("Frame")):
        scene.frame(one)
    for outer in ("Event", "Notify"):
        for events in many(members.get(outer)):
            for one in many(node(events).get("NotificationMessage")):
                _notice(one, scene)
    for one in many(members.get("NotificationMessage")):
        _notice(one, scene)
    for one in many(members.get("SensorData")):
        scene.sensor(one, "")
    scene.ignored += sum(len(many(members.get(name))) for name in _ELSEWHERE)


def _notice(value: Any, scene: _Scene) -> None:
    event = onvif_events.told(value)
    if event is None:
        scene.ignored += 1
    else:
        rest("NotificationMessage", node(value), _NOTICE, scene.removed)
        scene.event(event)


class _Topic(NamedTuple):
    """What an MQTT topic says."""

    kind: str = ""
    """MetadataType of ``onvif-mj``."""
    producer: tuple[str, ...] = ()
    event: str = ""
    """What follows ``onvif-ej/``."""
    camera: str = ""


def _read_topic(topic: str) -> _Topic:
    levels = topic.split("/")
    if (at := next((at for at, level in enumerate(levels) if level in _METADATA), -1)) >= 0:
        kind, *producer = levels[at + 1 :] or [""]
        token = producer[0] if kind != "SensorData" and producer else ""
        return _Topic(kind, tuple(producer), "", "/".join(filter(None, [*levels[:at], token])))
    if "onvif-ej" in levels:
        at = levels.index("onvif-ej")
        return _Topic(event="/".join(levels[at + 1 :]), camera="/".join(levels[:at]))
    return _Topic(camera=camera_of(topic))


def _unwrapped(payload: bytes, topic: str) -> tuple[Any, str]:
    """Return the message and its topic; what stands in ``{"topic": …, "payload": …}``, as bridges send it, too."""
    tree = allowlist.read_object(payload)
    if tree.keys() == {"topic", "payload"} and isinstance(tree["topic"], str):
        inner = tree["payload"]
        return (inner if isinstance(inner, dict) else {}), tree["topic"]
    return tree, topic


def cut_mj(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:
    """Cut metadata in JSON."""
    tree, topic = _unwrapped(payload, topic)
    where = _read_topic(topic)
    scene = _Scene(veil, arrival)
    for name in ("MetadataStream", "VideoAnalytics"):  # as converters of the XML leave them
        inner = node(tree.get(name)) if name in tree else {}
        if inner:
            rest("", tree, frozenset({name, "@context"}), scene.removed)
            tree = dict(inner)
    known = tree.keys() & {"Frame", "SensorData"}
    if where.kind in {"AudioAnalytics", "PTZ"}:
        scene.ignored += 1
    elif not known:
        raise Rejected(QuarantineReason.SCHEMA, "neither Frame nor SensorData")
    else:
        for one in many(tree.get("Frame")):
            scene.frame(one)
        for one in many(tree.get("SensorData")):
            scene.sensor(one, where.producer[0] if where.producer else "")
    rest("", tree, known | {"@context"}, scene.removed)
    return scene.done()


def cut_ej(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:
    """Cut an event in JSON; an empty message ends the property of its topic."""
    scene = _Scene(veil, arrival)
    if not payload.strip():
        if not _read_topic(topic).event:
            raise Rejected(QuarantineReason.SCHEMA, "an empty message whose topic names no event")
        scene.ended(_read_topic(topic).event)
        return scene.done()
    tree, topic = _unwrapped(payload, topic)
    if not tree.keys() & {"Data", "Source", "UtcTime"}:
        raise Rejected(QuarantineReason.SCHEMA, "none of UtcTime, Source and Data")
    name, tokens = onvif_events.plain_topic(_read_topic(topic).event or text(tree.get("Topic")))
    data = {**node(tree.get("Key")), **node(tree.get("Data"))}
    rest("", tree, _EVENT, scene.removed)
    scene.event(
        Told(
            name, text(tree.get("UtcTime")), text(tree.get("PropertyOperation")), node(tree.get("Source")), data, tokens
        )
    )
    return scene.done()


# ── what it reports ──────────────────────────────────────────────────────────────────────────────────

_decode = msgspec.json.Decoder(Scene).decode


class _Ways(NamedTuple):
    """Of one message."""

    format: str
    camera: str
    module: str
    arrival: int
    profile: Camera

    def time(self, at: int | None) -> tuple[int, str]:
        """Return the phenomenon time and how sure it is."""
        return times.received(self.arrival) if at is None else (at, times.EXPLICIT)


def _seer(name: str) -> Callable[[bytes, str, int, Camera], Seen]:
    def see(payload: bytes, topic: str, arrival: int, camera: Camera) -> Seen:
        try:
            scene = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Rejected(QuarantineReason.SCHEMA, "not what was cut of an ONVIF message") from None
        where = _read_topic(topic)
        module = where.producer[1] if len(where.producer) > 1 else ""
        return _seen(scene, _Ways(name, where.camera or camera.id, module, arrival, camera))

    return see


def _seen(scene: Scene, ways: _Ways) -> Seen:
    observations: list[VideoObservation] = []
    measured: list[Measured] = []
    refused: list[Refusal] = []
    ignored = scene.ignored
    place = 0
    for frame in scene.frames:
        ways_of = ways._replace(module=ways.module or frame.source)
        observations += _of_frame(frame, ways_of)
        refused += [
            Refusal(place + at, RejectReason.WRONG_TYPE, "an Object that is none") for at in range(frame.broken)
        ]
        place += len(frame.things) + frame.broken
        ignored += not frame.things and not frame.changes and not frame.broken
    for event in scene.events:
        observations.append(_of_event(event, ways))
        measured += _measured(event, ways)
    for value in scene.sensed:
        if value.value is None or value.kind not in SENSORS:
            refused.append(Refusal(place, RejectReason.WRONG_TYPE, "a sensor of no known kind, or without a number"))
        else:
            measured.append(_of_sensor(value, value.value, ways))
        place += 1
    if not (observations or measured or refused or ignored):
        ignored = 1  # an empty stream: the camera lives, and sees nothing
    return Seen(tuple(observations), tuple(measured), tuple(refused), ignored)


def _of_frame(frame: Frame, ways: _Ways) -> Iterator[VideoObservation]:
    changes = {change.id: change for change in frame.changes}
    at, quality = ways.time(frame.at)
    for thing in frame.things:
        yield _of_thing(thing, changes.pop(thing.id, None), at, quality, ways)
    for change in changes.values():
        yield VideoObservation(
            id=identity(ways.camera, at, change.id, ways.module),
            kind=Kind.OBSERVATION,
            camera=ways.camera,
            observed_at=at,
            time_quality=quality,
            format=ways.format,
            native_id=change.id,
            track=change.id,
            parent_track=change.parent,
            track_state=TrackState.NEW if change.began else TrackState.END,
            analytics=ways.module,
        )


def _of_thing(thing: Thing, change: Change | None, at: int, quality: str, ways: _Ways) -> VideoObservation:
    box, said = None, None
    if thing.box is not None:
        box, said = boxes.onvif(*thing.box, _transform(thing.map), ways.profile.grid)
    state = None if change is None else TrackState.NEW if change.began else TrackState.END
    return VideoObservation(
        id=identity(ways.camera, at, thing.id, ways.module),
        kind=Kind.OBSERVATION,
        camera=ways.camera,
        observed_at=at,
        time_quality=quality,
        format=ways.format,
        native_id=thing.uuid or thing.id,
        object_class=ObjectClass(thing.cls) if thing.cls else None,
        subclass=thing.sub,
        track="" if thing.id.startswith("#") else thing.id,
        parent_track=thing.parent or (change.parent if change else ""),
        track_state=TrackState.END if thing.gone else state,
        box=box,
        box_quality=said,
        confidence=thing.sure,
        place=Place(thing.place[0], thing.place[1], thing.place[2], "object") if thing.place else None,
        speed=thing.speed,
        device_yaw=thing.yaw,
        lane=thing.lane,
        plate=thing.plate,
        color=thing.color,
        brand=thing.brand,
        analytics=ways.module,
        images=thing.images,
        removed=thing.removed,
    )


def _transform(of: tuple[float, float, float, float] | None) -> Transform:
    return boxes.IDENTITY if of is None else Transform(*of)


def _of_event(event: Happening, ways: _Ways) -> VideoObservation:
    at, quality = ways.time(event.at)
    word = codes.event("onvif", event.topic)
    state = False if event.ended else event.state
    counts = any(value.name == "count" for value in event.values)
    return VideoObservation(
        id=identity(ways.camera, at, event.topic, *event.sources, event.rule, event.object, state),
        kind=Kind.COUNT if counts else Kind.EVENT,
        camera=ways.camera,
        observed_at=at,
        time_quality=quality,
        format=ways.format,
        native_id=event.object,
        object_class=ObjectClass(event.cls) if event.cls else None,
        subclass=event.sub,
        track=event.object,
        confidence=event.sure,
        plate=event.plate,
        color=event.color,
        brand=event.brand,
        event=Event(word, state, event.rule),
        analytics="/".join(event.sources),
        images=event.images,
        removed=event.removed,
    )


def _measured(event: Happening, ways: _Ways) -> Iterator[Measured]:
    at, quality = ways.time(event.at)
    word = codes.event("onvif", event.topic)
    own = _own(event, word, ways.profile)
    key = identity(ways.camera, at, event.topic, *event.sources, event.rule)
    state = False if event.ended else event.state
    name = codes.state_property(word)
    if name and state is not None:
        # Of a rule several objects may be the reason: each has its own identity, all say the same of the rule.
        same = identity(key, event.object, state)
        yield Measured(ways.camera, name, state, "", at, quality, same, channel=own, part=event.object)
    for value in event.values:
        if value.name == "count":
            total, present = _TOTALS.get(ObjectClass(event.cls or "other"), _TOTAL_OF_ANY)
            inside = word == "occupancy_counted"
            yield Measured(
                ways.camera,
                present if inside else total,
                value.value,
                "1",
                at,
                quality,
                identity(key, "count", event.cls),
                channel=own,
                cumulative=not inside,
            )
        else:
            yield Measured(
                ways.camera,
                _TEMPERATURE,
                value.value,
                "K",
                at,
                quality,
                identity(key, value.name, value.item),
                channel=_spot(value),
            )


def _own(event: Happening, word: str, camera: Camera) -> str:
    """Return the channel of a state or count: that of its rule, or of an input or output of the device."""
    if event.rule or word not in _WIRES or not event.sources:
        return channel_of(event.rule, camera.rules)
    found = channel(event.sources[-1])
    return _WIRES[word] + found.lstrip("abcdefghijklmnopqrstuvwxyz") if found else ""


def _spot(value: Value) -> str:
    """Return ``max``, ``spot2``: which temperature, and of which of several spots or boxes."""
    number = "".join(sign for sign in value.item if sign.isdecimal()) if len(value.item) < 20 else ""
    return value.name + (str(int(number)) if number and int(number) > 1 else "")


def _of_sensor(value: Sensed, number: float, ways: _Ways) -> Measured:
    at, quality = ways.time(value.at)
    name, unit = SENSORS[value.kind]
    own = channel(value.id)
    return Measured(
        ways.camera,
        name,
        number,
        unit,
        at,
        quality,
        identity(ways.camera, at, value.kind, value.id),
        channel="" if own.endswith("1") and own[:-1].isalpha() else own,
    )


FORMATS: Final = (
    VideoFormat(XML, cut_xml, _seer(XML), freely=True),
    VideoFormat(MJ, cut_mj, _seer(MJ)),
    VideoFormat(EJ, cut_ej, _seer(EJ), freely=True),
)
