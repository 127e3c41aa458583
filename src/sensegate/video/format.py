"""Interface of a video metadata format: redaction to what may be stored, and decoding of the redacted message.

`redact` runs before any component writes the message: what it removes is stored nowhere (log, quarantine, raw, errors).
It decodes into typed records that have allowed fields only and checks each value against what its field may hold (a
code, a number, an id of the standard's form), so a value in the wrong place is removed too. It returns the JSON of
those records; `decode` reads nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from sensegate.video.observation import VideoObservation


class RedactedRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of the records in which redaction stores what a camera sent."""


class Pseudonymiser(Protocol):
    """Replaces identifying values by pseudonyms."""

    def plate(self, number: str, seen_at: int) -> str:
        """Return the pseudonym of a number plate under the key of the day of `seen_at` (µs UTC)."""
        ...

    def identifier(self, text: str) -> str:
        """Return the pseudonym of a free-form id, under a key that this node keeps."""
        ...

    def permits(self, kind: str, field: str) -> bool:
        """Return whether a written legal basis permits a field that is otherwise removed.

        `kind` is a value of `observation.ObjectClass`; `field` is ``plate.number`` (of `Plate`) or ``age_band``.
        """
        ...


class Redacted(msgspec.Struct, frozen=True):
    """A message reduced to what may be stored."""

    payload: bytes
    removed: Mapping[str, int] = {}
    """Field (its name in the format, ``SubImageInfoObject.Data``) -> how often it was removed."""


class CameraInfo(msgspec.Struct, frozen=True):
    """Facts about a camera that its messages do not state; from its profile."""

    id: str = ""
    """Name of the camera if the message has none (from topic or URL)."""
    grid: int = 0
    """Range of box coordinates beyond 1 (8192, 10000); 0: unknown."""
    width: int = 0
    height: int = 0
    """Size of the image for boxes in pixels; 0: unknown."""
    zone: str = "Asia/Shanghai"
    speed_unit: str = "km/h"
    """Speed unit for formats that do not state it: ``km/h``, ``m/s`` or ``[mi_i]/h``."""
    sizes: Mapping[str, tuple[int, int]] = {}
    """Name of a camera, where one device analyses several -> the size of its image if it differs."""
    rules: Mapping[str, str] = {}
    """Name of a rule, or its pseudonym -> channel of its counts and states."""

    def size(self, name: str) -> tuple[int, int] | None:
        """Return the size of the image in which a camera's boxes are given; None: unknown."""
        size = self.sizes.get(name, (self.width, self.height))
        return size if all(size) else None


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """A count, flow, speed or state that becomes an ordinary reading."""

    camera: str
    property: str
    """Name in the property table."""
    value: float | str
    unit: str
    """UCUM, as sent."""
    time: int
    """µs UTC."""
    time_quality: str
    key: str
    """Identity within (camera, property, channel): equal for a retransmission."""
    channel: str = ""
    """Lane, line, zone or class: ``lane1``."""
    cumulative: bool = False
    """True if it is a counter that only rises until it is reset."""
    reason: str = ""
    """One of several reasons for a state (an object in a field): the state holds while any of them does."""


class RejectedObject(msgspec.Struct, frozen=True):
    """A rejected object of an otherwise good message."""

    index: int
    """Index in the message, from 0."""
    reason: str
    """Value of `model.RejectReason`."""
    detail: str
    """Description without any payload."""


class VideoReport(msgspec.Struct, frozen=True, gc=False):
    """Observations and counts that a message reports."""

    observations: tuple[VideoObservation, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    rejected: tuple[RejectedObject, ...] = ()
    ignored: int = 0
    """Parts without information: heartbeats, empty frames."""


class VideoFormat(NamedTuple):
    """A format of video metadata; a module each in `formats/`, listed in `formats/__init__.py`."""

    name: str
    redact: Callable[[bytes, str, int, Pseudonymiser], Redacted]
    """(payload, topic, arrival µs, pseudonymiser) -> redacted message. Raises `Rejected`; its detail has no payload."""
    decode: Callable[[bytes, str, int, CameraInfo], VideoReport]
    """(redacted message, topic, arrival µs, camera) -> its report. Raises `Rejected`.

    The topic is that of the message, except that a level that is neither a word of the profile nor a device nor an
    identifier is replaced by its pseudonym (`decode`).
    """
    free_rule_names: bool = False
    """True if people name the rules of its analyses, so that channels stand for the names (`values.rule_channel`)."""
