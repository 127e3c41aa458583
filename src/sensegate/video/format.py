"""What a format of video metadata must offer: to cut a message down to what may be kept, and to read what is left.

`cut` runs before anything of ours writes the message: what it does not let through is nowhere (log, quarantine, raw,
errors). It decodes into typed records that hold allowed fields only and checks each value against what that field may
be (a code, a number, an id of the standard's form), so a value in the wrong place falls too. What it returns is JSON of
those records; `see` reads nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from sensegate.video.observation import VideoObservation


class Veil(Protocol):
    """Hides what may be told apart but not read."""

    def plate(self, number: str, at: int) -> str:
        """Return the pseudonym of a number plate under the key of the day of `at` (µs UTC)."""
        ...

    def word(self, text: str) -> str:
        """Return a pseudonym of an id that is free text, under a key that this node keeps."""
        ...

    def may(self, kind: str, field: str) -> bool:
        """Say whether a written legal basis lets a field pass that does not otherwise.

        `kind` is a word of `observation.ObjectClass`; `field` is ``plate.number`` (of `Plate`) or ``age_band``.
        """
        ...


class Cut(msgspec.Struct, frozen=True):
    """A message that holds only what may be kept."""

    payload: bytes
    removed: Mapping[str, int] = {}
    """Field (its name in the format, ``SubImageInfoObject.Data``) -> how often it was taken out."""


class Camera(msgspec.Struct, frozen=True):
    """What is known of a camera that its messages do not say; from its profile."""

    id: str = ""
    """Name of the camera where the message has none (from topic or URL)."""
    grid: int = 0
    """Boxes beyond 1 count from 0 to this (8192, 10000); 0: not known."""
    width: int = 0
    height: int = 0
    """Size of the image in which boxes are given in pixels; 0: not known."""
    zone: str = "Asia/Shanghai"
    speed_unit: str = "km/h"
    """Of formats that do not say: ``km/h``, ``m/s`` or ``[mi_i]/h``."""
    sizes: Mapping[str, tuple[int, int]] = {}
    """Name of a camera, of those that one box analyses -> the size of its image where it is another one."""
    rules: Mapping[str, str] = {}
    """Name of a rule, or the pseudonym that stands for it -> channel of its counts and states."""

    def size(self, name: str) -> tuple[int, int] | None:
        """Return the size of the image in which boxes of a camera are given; None: not known."""
        found = self.sizes.get(name, (self.width, self.height))
        return found if all(found) else None


class Measured(msgspec.Struct, frozen=True):
    """A count, flow, speed or state that becomes an ordinary reading."""

    camera: str
    property: str
    """Standard name of the property table."""
    value: float | str
    unit: str
    """UCUM, as sent."""
    time: int
    """µs UTC."""
    time_quality: str
    key: str
    """Identity within (camera, property, channel): a retransmission has the same."""
    channel: str = ""
    """Lane, line, zone or class: ``lane1``."""
    cumulative: bool = False
    """A counter that only rises until it is reset."""
    part: str = ""
    """Which of several reasons for a state this is (an object in a field): the state holds while any of them does."""


class Refusal(msgspec.Struct, frozen=True):
    """One object of a message that was otherwise good."""

    at: int
    """Place in the message, from 0."""
    reason: str
    """Value of `model.RejectReason`."""
    detail: str
    """For people; holds no payload."""


class Seen(msgspec.Struct, frozen=True):
    """What one message reports."""

    observations: tuple[VideoObservation, ...] = ()
    measured: tuple[Measured, ...] = ()
    refused: tuple[Refusal, ...] = ()
    ignored: int = 0
    """Parts that mean nothing: heartbeats, empty frames."""


class VideoFormat(NamedTuple):
    """One format of video metadata; one file each in `formats/`, with its row in `formats/__init__.py`."""

    name: str
    cut: Callable[[bytes, str, int, Veil], Cut]
    """(payload, topic, arrival µs, veil) -> what may be kept. Raises `Rejected` whose detail holds no payload."""
    see: Callable[[bytes, str, int, Camera], Seen]
    """(what `cut` returned, topic, arrival µs, camera) -> what it reports. Raises `Rejected`.

    The topic is that of the message but for levels that are no word of the profile, no device and no name as programs
    have it: in their place stands `Veil.word` of them (`decode.cutting`).
    """
    freely: bool = False
    """Whether rules of its analyses are named by people, so that channels stand for the names (`parts.channel_of`)."""
