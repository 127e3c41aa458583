"""Records of redacted GA/T 1400 bodies, with allowed fields only. Times are µs UTC; an empty value is unknown.

`viid_redaction` creates them; their JSON is stored; `viid` reads them. No field holds free text.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_-]{0,64}\Z")]
"""An id of a standard form, or the pseudonym of any other."""
Code = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z]{0,5}\Z")]
Digits = Annotated[str, msgspec.Meta(pattern=r"\A\d{0,48}\Z")]
Quality = Literal["", "explicit", "assumed_tz", "derived"]
Names = tuple[Annotated[str, msgspec.Meta(max_length=80)], ...]


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag_field="is"):
    """Base of the records."""

    id: Word = ""
    """The sender's id, or its pseudonym if it has no standard form."""
    camera: Word = ""
    time: int = 0
    time_quality: Quality = ""
    unique_id: bool = False
    """True if the id alone identifies the object."""
    deviations: Names = ()
    """Tolerated deviations from the standard, a word each."""
    removed: Names = ()
    """Removed fields, sorted."""


class Sighting(_Record, frozen=True, tag="seen"):
    """A vehicle, person, face, object or scene."""

    kind: Literal["MotorVehicle", "NonMotorVehicle", "Person", "Face", "Thing", "Scene"]
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom as sent"""
    size: tuple[int, int] | None = None
    """Width and height of the image of the box."""
    pictures: int = 0
    event: int | None = None
    """EventSort"""
    tollgate: Digits = ""
    lane: int | None = None
    token: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_.:=-]{0,128}\Z")] = ""
    """Pseudonym of the number plate."""
    region: Annotated[str, msgspec.Meta(pattern=r"\A(?:[\u4e00-\u9fff][A-Z])?\Z")] = ""
    number: Annotated[str, msgspec.Meta(max_length=20)] = ""
    """Only with a written legal basis."""
    plate_color: Code = ""
    plate_class: Code = ""
    plate_reliability: float | None = None
    """0 to 100"""
    similarity: float | None = None
    """0 to 1"""
    speed: float | None = None
    """km/h"""
    direction: Code = ""
    vehicle_class: Code = ""
    brand: Code = ""
    model: Code = ""
    color: Code = ""
    age_band: Literal["", "child", "adult", "senior"] = ""
    """Only with a written legal basis."""


class VideoLabelRecord(_Record, frozen=True, tag="label"):
    """Counts of objects in view (VideoLabel)."""

    analytics: Word = ""
    event: int | None = None
    """EventSort"""
    counts: dict[str, float] = {}
    """Field of the standard -> number; only counts that `viid_redaction` keeps."""


class FlowRecord(_Record, frozen=True, tag="flow"):
    """Traffic of one lane over a cycle (VehiclesFlow, a vendor extension)."""

    lane: int | None = None
    cycle_s: float | None = None
    counts: dict[str, float] = {}
    """Counts that `viid_redaction` keeps."""


class MediaRecord(_Record, frozen=True, tag="media"):
    """Existence of an image, video slice or file at the sender."""

    kind: Literal["Image", "VideoSlice", "File"]
    event: int | None = None


class CatalogueRecord(_Record, frozen=True, tag="entry"):
    """A catalogue entry: camera (APE), capture system (APS), tollgate or lane."""

    kind: Literal["APE", "APS", "Tollgate", "Lane"]
    lon: float | None = None
    lat: float | None = None
    """Latitude as sent; the datum is unknown."""
    division: Digits = ""
    """PlaceCode"""
    online: bool | None = None
    owner: Digits = ""
    """OwnerApsID, or the tollgate of a lane."""
    functions: Names = ()
    lanes: int | None = None
    direction: Code = ""


class InvalidRecord(_Record, frozen=True, tag="refused"):
    """An unusable object; the others of its body are kept."""

    index: int
    detail: str


ViidRecord = Sighting | VideoLabelRecord | FlowRecord | MediaRecord | CatalogueRecord | InvalidRecord


class ViidBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A redacted body."""

    objects: tuple[ViidRecord, ...] = ()
    ignored: int = 0
    """Number of objects of kinds that are not stored (cases)."""
    format: int = 1
