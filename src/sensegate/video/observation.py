"""`VideoObservation`: what a camera's analysis reports, in one form for all vendors (version 1).

Boxes are fractions of the upright image, origin top left, y down. Times are µs UTC, speeds m/s, headings degrees
clockwise from north, confidences 0 to 1, coordinates WGS-84. No field holds a name, a number plate, a face or a
picture.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ObservationKind(StrEnum):
    """Kind of report."""

    OBSERVATION = "observation"
    EVENT = "event"
    COUNT = "count"
    STATUS = "status"


class ObjectClass(StrEnum):
    """Class of the observed object."""

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
    """State of an object's track."""

    NEW = "new"
    UPDATE = "update"
    END = "end"


class BoxQuality(StrEnum):
    """Source of the knowledge of a box's coordinate system."""

    EXPLICIT = "explicit"
    """The message states it."""
    CAMERA = "camera"
    """The camera's profile states it."""
    UNRESOLVED = "unresolved"
    """Unknown, and the numbers are not fractions: there is no box."""


class Plate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number plate without its number."""

    token: str
    """Keyed pseudonym of the number: equal within a day at this node, not reversible."""
    region: str = ""
    """Province and authority letter (``粤B``)."""
    color: str = ""
    plate_class: str = ""
    """Two digits of GA 24.7."""
    confidence: float | None = None
    number: str = ""
    """The number itself; only with a written legal basis (setting ``video.basis``)."""


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Location of the object or the camera, WGS-84."""

    lon: float
    lat: float
    altitude_m: float | None = None
    source: str = "camera"
    """``object`` if the sender located the object itself, otherwise ``camera``."""


class VideoEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that occurred, started or ended."""

    type: str
    """Word of `codes.EVENTS`, common to all vendors (``line_crossed``, ``motion``, ``tamper``)."""
    state: bool | None = None
    """True if it is active, for events with a state."""
    rule: str = ""
    zone: str = ""


class VideoObservation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A report of a camera's analysis."""

    id: str
    """First 32 hex digits of a SHA-256 over the format's identity fields: equal for a retransmission."""
    kind: ObservationKind
    camera: str
    """Name of the camera in the message; the registry maps it to a device."""
    observed_at: int
    """µs UTC."""
    time_quality: str
    """``explicit``, ``assumed_tz``, ``derived`` or ``received``."""
    format: str
    native_id: str = ""
    """The sender's id if it has a standard form, otherwise its pseudonym."""
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
    place: Location | None = None
    speed: float | None = None
    heading: float | None = None
    device_yaw: float | None = None
    """Degrees in the camera's own frame of reference; not a heading."""
    lane: int | None = None
    plate: Plate | None = None
    color: str = ""
    brand: str = ""
    model: str = ""
    age_band: str = ""
    """``child``, ``adult``, ``senior``; only with a written legal basis."""
    event: VideoEvent | None = None
    analytics: str = ""
    images: int = 0
    """Number of accompanying pictures; none is stored."""
    removed: tuple[str, ...] = ()
    """Names of the removed fields, sorted."""
