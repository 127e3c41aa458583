"""ONVIF metadata and events: ``onvif_xml`` (tt:MetadataStream), ``onvif_mj`` and ``onvif_ej`` (JSON over MQTT).

One model in three notations: each is redacted to an `OnvifMessage`, and decoding reads nothing else. A camera is named
by the start of its topic and the token of its profile, or by the URL to which it pushes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, RejectReason
from sensegate.video import allowlist, boxes, codes, times, xmlsafe
from sensegate.video.boxes import Transform
from sensegate.video.format import (
    CameraInfo,
    Measurement,
    Pseudonymiser,
    Redacted,
    RejectedObject,
    VideoFormat,
    VideoReport,
)
from sensegate.video.formats import onvif_events, onvif_redaction
from sensegate.video.formats.onvif_events import SENSORS, RawEvent
from sensegate.video.formats.onvif_records import (
    OnvifEvent,
    OnvifFrame,
    OnvifMessage,
    OnvifObject,
    OnvifValue,
    SensorValue,
    TrackChange,
)
from sensegate.video.formats.onvif_redaction import OBJECTS_MAX
from sensegate.video.observation import (
    Location,
    ObjectClass,
    ObservationKind,
    TrackState,
    VideoEvent,
    VideoObservation,
)
from sensegate.video.values import (
    Removed,
    as_list,
    count_removed_members,
    identity,
    node,
    numbered_channel,
    rule_channel,
    text,
    topic_camera,
)

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
"""Namespaces for fragments that declare none."""
_IGNORED: Final = ("PTZ", "AudioAnalytics", "Extension")
"""Parts of a stream that are irrelevant here."""
_KNOWN: Final = frozenset(
    {"MetadataStream", "VideoAnalytics", "Frame", "Event", "NotificationMessage", "Notify", "SensorData", *_IGNORED}
)
_METADATA: Final = frozenset({"onvif-mj", "onvif-xml"})
"""Topic levels followed by the kind of metadata and its producer."""
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
_IO_CHANNELS: Final = {"alarm_input": "input", "alarm_output": "output"}
_TEMPERATURE: Final = "surface_temperature"


# ── redaction ─────────────────────────────────────────────────────────────────────────────────


def _result(scene: OnvifMessage, removed: Removed) -> Redacted:
    return Redacted(msgspec.json.encode(scene), dict(sorted(removed.items())))


class _MessageBuilder:
    """Collects the parts of one message."""

    def __init__(self, pseudonymiser: Pseudonymiser, arrival: int) -> None:
        self.removed: Removed = {}
        self._pseudonymiser = pseudonymiser
        self._arrival = arrival
        self._frames: list[OnvifFrame] = []
        self._events: list[OnvifEvent] = []
        self._sensors: list[SensorValue] = []
        self._objects = 0
        self.ignored = 0

    def add_frame(self, value: Any) -> None:
        """Add one Frame."""
        self._objects += len(as_list(node(value).get("Object")))
        if self._objects > OBJECTS_MAX or len(self._frames) >= _FRAMES_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {OBJECTS_MAX} objects or {_FRAMES_MAX} frames")
        frame = onvif_redaction.redact_frame(value, self._pseudonymiser, self.removed)
        if frame is None:
            raise Rejected(QuarantineReason.SCHEMA, "a Frame is not an object")
        self._frames.append(frame)

    def add_event(self, event: RawEvent) -> None:
        """Add one event."""
        if len(self._events) >= OBJECTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {OBJECTS_MAX} events")
        self._events += onvif_events.redact_event(event, self._pseudonymiser, self.removed, self._arrival)

    def add_ended(self, topic: str) -> None:
        """Add an empty message: the property of its topic has ended."""
        self._events.append(onvif_events.redact_empty(topic, self._pseudonymiser))

    def add_sensor(self, value: Any, kind: str) -> None:
        """Add one sensor value."""
        if (sensed := onvif_events.redact_sensor(value, kind, self._pseudonymiser, self.removed)) is not None:
            self._sensors.append(sensed)

    def result(self) -> Redacted:
        """Return the redacted message."""
        scene = OnvifMessage(tuple(self._frames), tuple(self._events), tuple(self._sensors), self.ignored)
        return _result(scene, self.removed)


def redact_xml(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001 - the signature of all formats
    """Redact a tt:MetadataStream, a fragment of one, or a wsnt:Notify."""
    top = xmlsafe.tree(payload, PREFIXES)
    for name in _ENVELOPE:
        top = dict(node(top[name])) if name in top else top
    if not any(name in _KNOWN for name in top):
        raise Rejected(QuarantineReason.SCHEMA, "the message is neither a tt:MetadataStream nor a part of one")
    scene = _MessageBuilder(pseudonymiser, arrival)
    _add_stream(top, scene)
    return scene.result()


def _add_stream(members: Any, scene: _MessageBuilder) -> None:
    for stream in as_list(members.get("MetadataStream")):
        count_removed_members("MetadataStream", node(stream), _KNOWN, scene.removed)
        _add_stream(node(stream), scene)
    for analytics in as_list(members.get("VideoAnalytics")):
        count_removed_members("VideoAnalytics", node(analytics), _FRAMES, scene.removed)
        for frame in as_list(node(analytics).get("Frame")):
            scene.add_frame(frame)
    for frame in as_list(members.get("Frame")):
        scene.add_frame(frame)
    for outer in ("Event", "Notify"):
        for events in as_list(members.get(outer)):
            for notification in as_list(node(events).get("NotificationMessage")):
                _add_notification(notification, scene)
    for notification in as_list(members.get("NotificationMessage")):
        _add_notification(notification, scene)
    for sensor in as_list(members.get("SensorData")):
        scene.add_sensor(sensor, "")
    scene.ignored += sum(len(as_list(members.get(name))) for name in _IGNORED)


def _add_notification(value: Any, scene: _MessageBuilder) -> None:
    event = onvif_events.read_notification(value)
    if event is None:
        scene.ignored += 1
    else:
        count_removed_members("NotificationMessage", node(value), _NOTICE, scene.removed)
        scene.add_event(event)


class _Topic(NamedTuple):
    """Content of an MQTT topic."""

    kind: str = ""
    """MetadataType of ``onvif-mj``."""
    producer: tuple[str, ...] = ()
    event: str = ""
    """Levels after ``onvif-ej/``."""
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
    return _Topic(camera=topic_camera(topic))


def _unwrapped(payload: bytes, topic: str) -> tuple[Any, str]:
    """Return the message and its topic, unwrapping ``{"topic": …, "payload": …}`` as sent by bridges."""
    tree = allowlist.decode_object(payload)
    if tree.keys() == {"topic", "payload"} and isinstance(tree["topic"], str):
        inner = tree["payload"]
        return (inner if isinstance(inner, dict) else {}), tree["topic"]
    return tree, topic


def redact_mj(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:
    """Redact metadata in JSON."""
    tree, topic = _unwrapped(payload, topic)
    where = _read_topic(topic)
    scene = _MessageBuilder(pseudonymiser, arrival)
    for name in ("MetadataStream", "VideoAnalytics"):  # left by converters from XML
        inner = node(tree.get(name)) if name in tree else {}
        if inner:
            count_removed_members("", tree, frozenset({name, "@context"}), scene.removed)
            tree = dict(inner)
    known = tree.keys() & {"Frame", "SensorData"}
    if where.kind in {"AudioAnalytics", "PTZ"}:
        scene.ignored += 1
    elif not known:
        raise Rejected(QuarantineReason.SCHEMA, "the message has neither Frame nor SensorData")
    else:
        for frame in as_list(tree.get("Frame")):
            scene.add_frame(frame)
        for sensor in as_list(tree.get("SensorData")):
            scene.add_sensor(sensor, where.producer[0] if where.producer else "")
    count_removed_members("", tree, known | {"@context"}, scene.removed)
    return scene.result()


def redact_ej(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:
    """Redact an event in JSON; an empty message ends the property of its topic."""
    scene = _MessageBuilder(pseudonymiser, arrival)
    if not payload.strip():
        if not _read_topic(topic).event:
            raise Rejected(QuarantineReason.SCHEMA, "the message is empty and its topic names no event")
        scene.add_ended(_read_topic(topic).event)
        return scene.result()
    tree, topic = _unwrapped(payload, topic)
    if not tree.keys() & {"Data", "Source", "UtcTime"}:
        raise Rejected(QuarantineReason.SCHEMA, "the message has none of UtcTime, Source and Data")
    name, tokens = onvif_events.plain_topic(_read_topic(topic).event or text(tree.get("Topic")))
    data = {**node(tree.get("Key")), **node(tree.get("Data"))}
    count_removed_members("", tree, _EVENT, scene.removed)
    scene.add_event(
        RawEvent(
            name, text(tree.get("UtcTime")), text(tree.get("PropertyOperation")), node(tree.get("Source")), data, tokens
        )
    )
    return scene.result()


# ── decoding ──────────────────────────────────────────────────────────────────────────────────

_decode = msgspec.json.Decoder(OnvifMessage).decode


class _Context(NamedTuple):
    """Facts common to the observations of one message."""

    format: str
    camera: str
    module: str
    arrival: int
    profile: CameraInfo

    def time(self, at: int | None) -> tuple[int, str]:
        """Return the phenomenon time and its quality."""
        return times.received(self.arrival) if at is None else (at, times.EXPLICIT)


def _decoder(name: str) -> Callable[[bytes, str, int, CameraInfo], VideoReport]:
    def see(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:
        try:
            scene = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Rejected(QuarantineReason.SCHEMA, "the message is not a redacted ONVIF message") from None
        where = _read_topic(topic)
        module = where.producer[1] if len(where.producer) > 1 else ""
        return _decode_message(scene, _Context(name, where.camera or camera.id, module, arrival, camera))

    return see


def _decode_message(scene: OnvifMessage, context: _Context) -> VideoReport:
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    refused: list[RejectedObject] = []
    ignored = scene.ignored
    place = 0
    for frame in scene.frames:
        of_frame = context._replace(module=context.module or frame.source)
        observations += _frame_observations(frame, of_frame)
        refused += [
            RejectedObject(place + at, RejectReason.WRONG_TYPE, "the Object is not an object")
            for at in range(frame.invalid)
        ]
        place += len(frame.objects) + frame.invalid
        ignored += not frame.objects and not frame.changes and not frame.invalid
    for event in scene.events:
        observations.append(_event_observation(event, context))
        measured += _event_measurements(event, context)
    for value in scene.sensors:
        if value.value is None or value.kind not in SENSORS:
            refused.append(
                RejectedObject(place, RejectReason.WRONG_TYPE, "the sensor has an unknown kind, or no number")
            )
        else:
            measured.append(_sensor_measurement(value, value.value, context))
        place += 1
    if not (observations or measured or refused or ignored):
        ignored = 1  # an empty stream: the camera is alive and sees nothing
    return VideoReport(tuple(observations), tuple(measured), tuple(refused), ignored)


def _frame_observations(frame: OnvifFrame, context: _Context) -> Iterator[VideoObservation]:
    changes = {change.id: change for change in frame.changes}
    at, quality = context.time(frame.time)
    for item in frame.objects:
        yield _object_observation(item, changes.pop(item.id, None), at, quality, context)
    for change in changes.values():
        yield VideoObservation(
            id=identity(context.camera, at, change.id, context.module),
            kind=ObservationKind.OBSERVATION,
            camera=context.camera,
            observed_at=at,
            time_quality=quality,
            format=context.format,
            native_id=change.id,
            track=change.id,
            parent_track=change.parent,
            track_state=TrackState.NEW if change.began else TrackState.END,
            analytics=context.module,
        )


def _object_observation(
    item: OnvifObject, change: TrackChange | None, at: int, quality: str, context: _Context
) -> VideoObservation:
    box, quality_ = None, None
    if item.box is not None:
        box, quality_ = boxes.from_onvif(*item.box, _transform(item.transform), context.profile.grid)
    state = None if change is None else TrackState.NEW if change.began else TrackState.END
    return VideoObservation(
        id=identity(context.camera, at, item.id, context.module),
        kind=ObservationKind.OBSERVATION,
        camera=context.camera,
        observed_at=at,
        time_quality=quality,
        format=context.format,
        native_id=item.uuid or item.id,
        object_class=ObjectClass(item.object_class) if item.object_class else None,
        subclass=item.subclass,
        track="" if item.id.startswith("#") else item.id,
        parent_track=item.parent or (change.parent if change else ""),
        track_state=TrackState.END if item.ended else state,
        box=box,
        box_quality=quality_,
        confidence=item.confidence,
        place=Location(item.location[0], item.location[1], item.location[2], "object") if item.location else None,
        speed=item.speed,
        device_yaw=item.yaw,
        lane=item.lane,
        plate=item.plate,
        color=item.color,
        brand=item.brand,
        analytics=context.module,
        images=item.images,
        removed=item.removed,
    )


def _transform(transform: tuple[float, float, float, float] | None) -> Transform:
    return boxes.IDENTITY if transform is None else Transform(*transform)


def _event_observation(event: OnvifEvent, context: _Context) -> VideoObservation:
    at, quality = context.time(event.time)
    word = codes.onvif_event(event.topic) or codes.OTHER
    state = False if event.ended else event.state
    box, box_quality = None, None
    if event.box is not None:
        box, box_quality = boxes.from_onvif(*event.box, _transform(event.transform), context.profile.grid)
    # What has no object's id is told apart by what it says: two plates or counts of one moment are two events.
    content = () if event.object else (event.object_class, event.plate and event.plate.token, *event.values)
    counts = any(value.name == "count" for value in event.values)
    return VideoObservation(
        id=identity(context.camera, at, _topic_key(event), *event.sources, event.rule, event.object, state, *content),
        kind=ObservationKind.COUNT if counts else ObservationKind.EVENT,
        camera=context.camera,
        observed_at=at,
        time_quality=quality,
        format=context.format,
        native_id=event.uuid or event.object,
        object_class=ObjectClass(event.object_class) if event.object_class else None,
        subclass=event.subclass,
        track="" if event.object.startswith("#") else event.object,
        box=box,
        box_quality=box_quality,
        place=Location(*event.location, "object") if event.location else None,
        speed=event.speed,
        device_yaw=event.yaw,
        lane=event.lane,
        confidence=event.confidence,
        plate=event.plate,
        color=event.color,
        brand=event.brand,
        event=VideoEvent(word, state, event.rule),
        analytics="/".join(event.sources),
        images=event.images,
        removed=event.removed,
    )


def _topic_key(event: OnvifEvent) -> str:
    return event.topic or event.unknown_topic


def _event_measurements(event: OnvifEvent, context: _Context) -> Iterator[Measurement]:
    at, quality = context.time(event.time)
    word = codes.onvif_event(event.topic) or codes.OTHER
    own = _event_channel(event, word, context.profile)
    key = identity(context.camera, at, _topic_key(event), *event.sources, event.rule)
    state = False if event.ended else event.state
    name = codes.state_property(word)
    if name and state is not None:
        # Several objects may trigger a rule: each has its own identity, and all report the same state of the rule.
        same = identity(key, event.object, state)
        yield Measurement(context.camera, name, state, "", at, quality, same, channel=own, reason=event.object)
    for value in event.values:
        if value.name == "count":
            total, present = _TOTALS.get(ObjectClass(event.object_class or "other"), _TOTAL_OF_ANY)
            inside = word == "occupancy_counted"
            yield Measurement(
                context.camera,
                present if inside else total,
                value.value,
                "1",
                at,
                quality,
                identity(key, "count", event.object_class),
                channel=own,
                cumulative=not inside,
            )
        else:
            yield Measurement(
                context.camera,
                _TEMPERATURE,
                value.value,
                "K",
                at,
                quality,
                identity(key, value.name, value.item),
                channel=_temperature_channel(value),
            )


def _event_channel(event: OnvifEvent, word: str, camera: CameraInfo) -> str:
    """Return the channel of a state or count: of its rule, or of a digital input or output."""
    if event.rule or word not in _IO_CHANNELS or not event.sources:
        return rule_channel(event.rule, camera.rules)
    channel_name = numbered_channel(event.sources[-1])
    return _IO_CHANNELS[word] + channel_name.lstrip("abcdefghijklmnopqrstuvwxyz") if channel_name else ""


def _temperature_channel(value: OnvifValue) -> str:
    """Return the channel of a temperature, with the number of its spot or box: ``max``, ``spot2``."""
    number = "".join(sign for sign in value.item if sign.isdecimal()) if len(value.item) < 20 else ""
    return value.name + (str(int(number)) if number and int(number) > 1 else "")


def _sensor_measurement(value: SensorValue, number: float, context: _Context) -> Measurement:
    at, quality = context.time(value.time)
    name, unit = SENSORS[value.kind]
    own = numbered_channel(value.id)
    return Measurement(
        context.camera,
        name,
        number,
        unit,
        at,
        quality,
        identity(context.camera, at, value.kind, value.id),
        channel="" if own.endswith("1") and own[:-1].isalpha() else own,
    )


FORMATS: Final = (
    VideoFormat(XML, redact_xml, _decoder(XML), free_rule_names=True),
    VideoFormat(MJ, redact_mj, _decoder(MJ)),
    VideoFormat(EJ, redact_ej, _decoder(EJ), free_rule_names=True),
)
