"""What is kept of an ONVIF message, whether it came as XML or JSON: frames, events, sensor values. Times are µs UTC."""

from __future__ import annotations

import msgspec

from sensegate.video.observation import Plate


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What all have."""


class OnvifObject(_Record, frozen=True):
    """One object of a frame."""

    id: str
    """Its ObjectId, else its UUID, else ``#`` and its place in the frame."""
    uuid: str = ""
    parent: str = ""
    object_class: str = ""
    """`ObjectClass`"""
    subclass: str = ""
    confidence: float | None = None
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom as sent"""
    transform: tuple[float, float, float, float] | None = None
    """Scale and translation of all levels together; None: it had none."""
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


class TrackChange(_Record, frozen=True):
    """What an ObjectTree says of one track."""

    id: str
    began: bool
    """True: it begins; False: it ends."""
    parent: str = ""
    """Of a track that begins: which one it comes from."""


class OnvifFrame(_Record, frozen=True):
    """One moment."""

    time: int | None = None
    """None: it says none that can be read."""
    source: str = ""
    objects: tuple[OnvifObject, ...] = ()
    changes: tuple[TrackChange, ...] = ()
    invalid: int = 0
    """Objects that were none."""


class OnvifValue(_Record, frozen=True):
    """One number of an event."""

    name: str
    """``count``, or a temperature: ``max``, ``min``, ``mean``, ``median``, ``spot``."""
    value: float
    item: str = ""


class OnvifEvent(_Record, frozen=True):
    """One event, or one state of a property event."""

    topic: str = ""
    """Without prefixes and sources; empty where it is none of the table."""
    time: int | None = None
    sources: tuple[str, ...] = ()
    """Tokens of what it comes from, in their order, the rule's apart."""
    rule: str = ""
    state: bool | None = None
    ended: bool = False
    """The property is no more (PropertyOperation ``Deleted``, or an empty message)."""
    object: str = ""
    object_class: str = ""
    subclass: str = ""
    confidence: float | None = None
    values: tuple[OnvifValue, ...] = ()
    color: str = ""
    brand: str = ""
    plate: Plate | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class SensorValue(_Record, frozen=True):
    """One value of SensorData."""

    kind: str
    """``Temperature`` and such; empty where it is none of the table."""
    time: int | None = None
    id: str = ""
    value: float | None = None


class OnvifMessage(_Record, frozen=True):
    """One message."""

    frames: tuple[OnvifFrame, ...] = ()
    events: tuple[OnvifEvent, ...] = ()
    sensors: tuple[SensorValue, ...] = ()
    ignored: int = 0
    """Parts of it that concern nobody here: sound frames, positions of the camera's head."""
