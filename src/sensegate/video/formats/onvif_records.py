"""Records of redacted ONVIF messages, from XML or JSON: frames, events, sensor values. Times are µs UTC."""

from __future__ import annotations

from sensegate.video.format import RedactedRecord
from sensegate.video.observation import Plate


class OnvifObject(RedactedRecord, frozen=True):
    """An object of a frame."""

    id: str
    """Its ObjectId, otherwise its UUID, otherwise ``#`` and its index in the frame."""
    uuid: str = ""
    parent: str = ""
    object_class: str = ""
    """Value of `ObjectClass`."""
    subclass: str = ""
    confidence: float | None = None
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom as sent"""
    transform: tuple[float, float, float, float] | None = None
    """Combined scale and translation of all levels; None: there was none."""
    ended: bool = False
    speed: float | None = None
    yaw: float | None = None
    location: tuple[float, float, float | None] | None = None
    """lon, lat, elevation"""
    lane: int | None = None
    color: str = ""
    brand: str = ""
    plate: Plate | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class TrackChange(RedactedRecord, frozen=True):
    """Start or end of a track, from an ObjectTree."""

    id: str
    began: bool
    """True: it starts; False: it ends."""
    parent: str = ""
    """Track from which a starting track originates."""


class OnvifFrame(RedactedRecord, frozen=True):
    """A moment."""

    time: int | None = None
    """None: it has no readable time."""
    source: str = ""
    objects: tuple[OnvifObject, ...] = ()
    changes: tuple[TrackChange, ...] = ()
    invalid: int = 0
    """Number of malformed objects."""


class OnvifValue(RedactedRecord, frozen=True):
    """A number of an event."""

    name: str
    """``count``, or a temperature: ``max``, ``min``, ``mean``, ``median``, ``spot``."""
    value: float
    item: str = ""


class OnvifEvent(RedactedRecord, frozen=True):
    """An event, or one state of a property event."""

    topic: str = ""
    """Without prefixes and sources; empty if unknown."""
    unknown_topic: str = ""
    """Pseudonym of a topic that is not known, so that two of them are two events."""
    time: int | None = None
    sources: tuple[str, ...] = ()
    """Source tokens in order, except the rule's."""
    rule: str = ""
    state: bool | None = None
    ended: bool = False
    """True if the property has ended (PropertyOperation ``Deleted``, or an empty message)."""
    object: str = ""
    uuid: str = ""
    object_class: str = ""
    subclass: str = ""
    confidence: float | None = None
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom as sent, of the object in the event"""
    transform: tuple[float, float, float, float] | None = None
    speed: float | None = None
    yaw: float | None = None
    location: tuple[float, float, float | None] | None = None
    lane: int | None = None
    values: tuple[OnvifValue, ...] = ()
    color: str = ""
    brand: str = ""
    plate: Plate | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class SensorValue(RedactedRecord, frozen=True):
    """A value of SensorData."""

    kind: str
    """``Temperature`` for example; empty if unknown."""
    time: int | None = None
    id: str = ""
    value: float | None = None


class OnvifMessage(RedactedRecord, frozen=True):
    """A message."""

    frames: tuple[OnvifFrame, ...] = ()
    events: tuple[OnvifEvent, ...] = ()
    sensors: tuple[SensorValue, ...] = ()
    ignored: int = 0
    """Number of irrelevant parts: audio frames, PTZ positions."""
