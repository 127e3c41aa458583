"""What is kept of a GA/T 1400 body: records that hold allowed fields only. Times are µs UTC; an empty value: not said.

`viid_cut` makes them of a body; their JSON is what goes on; `viid` reads them back. No field takes free text.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_-]{0,64}\Z")]
"""An id of a standard's form, or the pseudonym of one of another form."""
Code = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z]{0,5}\Z")]
Digits = Annotated[str, msgspec.Meta(pattern=r"\A\d{0,48}\Z")]
Quality = Literal["", "explicit", "assumed_tz", "derived"]
Names = tuple[Annotated[str, msgspec.Meta(max_length=80)], ...]


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag_field="is"):
    """What all have."""

    id: Word = ""
    """The sender's; the pseudonym of one that has no form of the standard."""
    camera: Word = ""
    time: int = 0
    time_quality: Quality = ""
    unique_id: bool = False
    """Whether the id alone tells which object it is."""
    deviations: Names = ()
    """What breaks the rules of the standard and is taken all the same, a word each."""
    removed: Names = ()
    """Fields that were taken out, sorted."""


class Sighting(_Record, frozen=True, tag="seen"):
    """A vehicle, person, face, thing or scene."""

    kind: Literal["MotorVehicle", "NonMotorVehicle", "Person", "Face", "Thing", "Scene"]
    box: tuple[float, float, float, float] | None = None
    """left, top, right, bottom as sent"""
    size: tuple[int, int] | None = None
    """Width and height of the image that the box counts in."""
    pictures: int = 0
    event: int | None = None
    """EventSort"""
    tollgate: Digits = ""
    lane: int | None = None
    token: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_.:=-]{0,128}\Z")] = ""
    """Pseudonym of the number plate."""
    region: Annotated[str, msgspec.Meta(pattern=r"\A(?:[\u4e00-\u9fff][A-Z])?\Z")] = ""
    number: Annotated[str, msgspec.Meta(max_length=20)] = ""
    """Only on a written legal basis."""
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
    """Of age; only on a written legal basis."""


class VideoLabelRecord(_Record, frozen=True, tag="label"):
    """What an analysis counted in view (VideoLabel)."""

    analytics: Word = ""
    event: int | None = None
    """EventSort"""
    counts: dict[str, float] = {}
    """Field of the standard -> number; fields of `viid.COUNTS` only."""


class FlowRecord(_Record, frozen=True, tag="flow"):
    """Traffic of one lane over a cycle (VehiclesFlow, an extension by a vendor)."""

    lane: int | None = None
    cycle_s: float | None = None
    counts: dict[str, float] = {}
    """Fields of `viid.COUNTS` only."""


class MediaRecord(_Record, frozen=True, tag="media"):
    """An image, video slice or file that the sender has: that there is one, no more."""

    kind: Literal["Image", "VideoSlice", "File"]
    event: int | None = None


class CatalogueRecord(_Record, frozen=True, tag="entry"):
    """An entry of a catalogue: camera (APE), capturing system (APS), tollgate or lane."""

    kind: Literal["APE", "APS", "Tollgate", "Lane"]
    lon: float | None = None
    lat: float | None = None
    """As sent: the datum is not said."""
    division: Digits = ""
    """PlaceCode"""
    online: bool | None = None
    owner: Digits = ""
    """OwnerApsID, or the tollgate of a lane."""
    functions: Names = ()
    lanes: int | None = None
    direction: Code = ""


class InvalidRecord(_Record, frozen=True, tag="refused"):
    """An object that cannot be used; the others of its body can."""

    index: int
    detail: str


ViidRecord = Sighting | VideoLabelRecord | FlowRecord | MediaRecord | CatalogueRecord | InvalidRecord


class ViidBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """One body."""

    objects: tuple[ViidRecord, ...] = ()
    ignored: int = 0
    """Objects of kinds of which nothing is kept (cases)."""
    format: int = 1
