"""`VideoObservation`: what a camera's analysis reports, in one form for every make (version 1).

Boxes are fractions of the upright image, origin top left, y down. Times are µs UTC, speeds m/s, headings degrees
clockwise from north, confidences 0 to 1, places WGS-84. No field holds a name, a number plate, a face or a picture.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What is reported."""

    OBSERVATION = "observation"
    EVENT = "event"
    COUNT = "count"
    STATUS = "status"


class ObjectClass(StrEnum):
    """What was seen."""

    PERSON = "person"
    FACE = "face"
    VEHICLE = "vehicle"
    NONMOTOR = "nonmotor"
    PLATE = "plate"
    ANIMAL = "animal"
    THING = "thing"
    SCENE = "scene"
    OTHER = "other"


class TrackState(StrEnum):
    """Where an object's track stands."""

    NEW = "new"
    UPDATE = "update"
    END = "end"


class BoxQuality(StrEnum):
    """How sure it is that the box means what it says."""

    EXPLICIT = "explicit"
    """The message names the system or size of its coordinates."""
    CAMERA = "camera"
    """The camera's profile names it."""
    UNRESOLVED = "unresolved"
    """Neither does, and the numbers are no fractions: there is no box."""


class Plate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number plate without its number."""

    token: str
    """Keyed pseudonym of the number, of the day's key: alike within a day at this node, unreadable."""
    region: str = ""
    """Province and authority letter (``粤B``), no more."""
    color: str = ""
    plate_class: str = ""
    """Two digits of GA 24.7."""
    confidence: float | None = None
    number: str = ""
    """The number itself; only on a written legal basis (`video.basis`)."""


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the object or the camera is, WGS-84."""

    lon: float
    lat: float
    altitude_m: float | None = None
    source: str = "camera"
    """``object`` where the sender located the object itself, else ``camera``."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened, or began, or ended."""

    type: str
    """Word of `codes.EVENTS`, the same for every make (``line_crossed``, ``motion``, ``tamper``)."""
    state: bool | None = None
    """Whether it is going on, where the event has a state."""
    rule: str = ""
    zone: str = ""


class VideoObservation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that a camera's analysis reports."""

    id: str
    """First 32 hex digits of a SHA-256 over the format's identity (section 10): a retransmission has the same."""
    kind: Kind
    camera: str
    """As the message names the camera; the registry says which device that is."""
    observed_at: int
    """µs UTC."""
    time_quality: str
    """``explicit``, ``assumed_tz``, ``derived`` or ``received``."""
    format: str
    native_id: str = ""
    """The sender's own id where it has the form of one, else its digest."""
    object_class: ObjectClass | None = None
    subclass: str = ""
    track: str = ""
    parent_track: str = ""
    track_state: TrackState | None = None
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom"""
    box_quality: BoxQuality | None = None
    image_size: tuple[int, int] | None = None
    """Width and height, pixels."""
    confidence: float | None = None
    similarity: float | None = None
    place: Place | None = None
    speed: float | None = None
    heading: float | None = None
    device_yaw: float | None = None
    """Degrees in the camera's own frame; no heading."""
    lane: int | None = None
    plate: Plate | None = None
    color: str = ""
    brand: str = ""
    model: str = ""
    age_band: str = ""
    """``child``, ``adult``, ``senior``; only on a written legal basis."""
    event: Event | None = None
    analytics: str = ""
    images: int = 0
    """How many pictures came with it; none is kept."""
    removed: tuple[str, ...] = ()
    """Names of the fields that were taken out, sorted."""
