"""What `checks` is given and what it answers: facts of a member, reasons, marks, what is taken and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from sensegate.bus import sequences
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import Ledger


class Reason(StrEnum):
    """Why a part, or rows of it, are refused."""

    UNREADABLE = "unreadable"
    """It does not decode."""
    OVERSIZED = "oversized"
    """More rows than its bytes can hold, or than a part may have."""
    KIND = "kind"
    """No kind of rows that is taken, or no grade."""
    FOREIGN_NODE = "foreign_node"
    """The rows say that another node, or an impossible partition, committed them."""
    IDENTITY = "identity"
    """Rows without the place of their first commit: they could not be told from others."""
    NAME = "name"
    """A name that is empty, too long or holds control characters."""
    AREA = "area"
    """A division outside the member's areas."""
    FOREIGN_DEVICE = "foreign_device"
    """A device that another member owns."""
    DEVICE_LIMIT = "device_limit"
    """More devices than one member may own."""
    TIME = "time"
    """A time outside the years 1 to 9999."""
    COUNT = "count"
    """Counts that are out of range, negative, or of an impossible hour."""
    BALANCE = "balance"
    """Counts that do not balance."""


class Mark(StrEnum):
    """What is odd about rows that are taken."""

    CLOCK = "clock"
    """They arrived, as they say, later than now."""
    PROPERTY = "property"
    """The property is not in this release's table."""
    PROFILE = "profile"
    """The profile is not known here."""
    QUALITY = "quality"
    """A quality code that is not in this release's table."""
    PLACE = "place"
    """Coordinates that are none; taken out."""
    GRADE = "grade"
    """The grade was raised to the catalogue's floor, or to that of the device."""
    LEDGER_KIND = "ledger_kind"
    """A kind of count that this release does not know."""
    LEDGER_PLACE = "ledger_place"
    """Counts of a device outside the member's areas; where it stands is left out."""


class DeviceOwnership(Protocol):
    """Who owns which device (`authority.ownership.DeviceOwners`)."""

    def owner(self, device: str) -> str:
        """Return the owner of a device; empty: nobody, so that it becomes the member's with its first rows."""
        ...

    def may_send(self, member: str, device: str) -> bool:
        """Return whether rows of an owned device are taken from a member: it is, was or becomes the owner."""
        ...

    def room(self, member: str) -> int:
        """Return how many devices more a member may own."""
        ...


class MemberFacts(msgspec.Struct, frozen=True):
    """What the centre knows of the sender; nothing of it comes out of what was sent."""

    member: str
    node: str
    """Name that its rows bear as `Batch.node`."""
    areas: tuple[str, ...]
    """Short codes of the divisions that are the member's, each with all below it."""


def _always(_name: str) -> bool:
    return True


class Rules(msgspec.Struct, frozen=True):
    """What rows are held against."""

    devices: DeviceOwnership
    floor: Callable[[str, str], int]
    """(property, department) -> least grade, by the catalogue; 1 where it says nothing."""
    knows_property: Callable[[str], bool] = _always
    knows_profile: Callable[[str], bool] = _always
    """``vendor/model@version``."""


class Refusal(msgspec.Struct, frozen=True):
    """What is not taken of a part, and why."""

    reason: Reason
    detail: str
    """For people: no payload, at most 200 characters."""
    rows: int = 0
    """0 where it is not known."""
    devices: tuple[str, ...] = ()
    """All rows of these devices in the part; empty: the whole part."""
    payload: bytes = b""
    """The rows encoded anew, or the part as it came."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the payload."""
        return hashlib.sha256(self.payload).hexdigest()


class Taken(msgspec.Struct, frozen=True, eq=False):
    """Rows that may be written under ``<kind>.<node>.all.<grade>``."""

    kind: str
    grade: int
    batch: Batch


class Checked(msgspec.Struct, frozen=True, eq=False):
    """What becomes of a part of rows."""

    taken: tuple[Taken, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    marks: Mapping[str, int] = {}
    """`Mark` -> rows, of what is taken."""
    claims: tuple[str, ...] = ()
    """Devices that become the member's: to be claimed before the rows are written."""


class CheckedLedger(msgspec.Struct, frozen=True, eq=False):
    """What becomes of a ledger."""

    counts: Ledger | None = None
    refusal: Refusal | None = None
    marks: Mapping[str, int] = {}


class CheckedSequences(msgspec.Struct, frozen=True, eq=False):
    """What becomes of sequence numbers of devices."""

    runs: sequences.SequenceRuns | None = None
    refusal: Refusal | None = None
