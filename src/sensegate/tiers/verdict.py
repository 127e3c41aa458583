"""Inputs and results of `checks`: facts about a member, rules, reasons of refusal, marks, accepted rows, refusals."""

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
    """Reason why a part, or rows of it, are refused."""

    UNREADABLE = "unreadable"
    """The part cannot be decoded."""
    OVERSIZED = "oversized"
    """The part claims more rows than its bytes can hold, or than a part may have."""
    KIND = "kind"
    """The kind of rows or the grade is not valid."""
    FOREIGN_NODE = "foreign_node"
    """The rows name another node, or an impossible partition, as their source."""
    IDENTITY = "identity"
    """Rows lack the sequence of their first commit, which their identity needs."""
    NAME = "name"
    """A name is empty, too long or has control characters."""
    AREA = "area"
    """A division lies outside the member's areas."""
    FOREIGN_DEVICE = "foreign_device"
    """Another member owns the device."""
    DEVICE_LIMIT = "device_limit"
    """The member owns as many devices as it may."""
    TIME = "time"
    """A time lies outside the years 1 to 9999."""
    COUNT = "count"
    """A count is out of range, negative, or of an impossible hour."""
    BALANCE = "balance"
    """The counts do not balance."""


class RowMark(StrEnum):
    """Nonconformity of accepted rows, counted per member."""

    CLOCK = "clock"
    """Their time of arrival is in the future."""
    PROPERTY = "property"
    """The property is not in this release's table."""
    PROFILE = "profile"
    """The profile is not known here."""
    QUALITY = "quality"
    """The quality code is not in this release's table."""
    PLACE = "place"
    """The coordinates are invalid and were removed."""
    GRADE = "grade"
    """The grade was raised to the least one of the catalogue or of the device."""
    LEDGER_KIND = "ledger_kind"
    """A kind of count is not known to this release."""
    LEDGER_PLACE = "ledger_place"
    """Counts of a device outside the member's areas; its division was removed."""


class DeviceOwnership(Protocol):
    """Lookup of device owners, see `tiers.ownership.DeviceOwners`."""

    def owner(self, device: str) -> str:
        """Return the owner of a device; empty: none yet, the first member to send its rows becomes the owner."""
        ...

    def may_send(self, member: str, device: str) -> bool:
        """Return whether rows of an owned device are accepted from a member: it is, was or becomes the owner."""
        ...

    def room(self, member: str) -> int:
        """Return how many more devices a member may own."""
        ...


class MemberFacts(msgspec.Struct, frozen=True):
    """Facts about the sender, from the centre's own register; nothing of them comes from the request."""

    member: str
    node: str
    """Required value of `Batch.node` in its rows."""
    areas: tuple[str, ...]
    """Short codes of the divisions that the member may report, each with all below it."""


def _always(_name: str) -> bool:
    return True


class Rules(msgspec.Struct, frozen=True):
    """Rules against which rows are checked."""

    devices: DeviceOwnership
    floor: Callable[[str, str], int]
    """(property, department) -> least grade by the catalogue; 1 where it has none."""
    knows_property: Callable[[str], bool] = _always
    knows_profile: Callable[[str], bool] = _always
    """``vendor/model@version``."""


class Refusal(msgspec.Struct, frozen=True):
    """Refusal of a part, or of some devices' rows in it."""

    reason: Reason
    detail: str
    """Explanation for operators: no payload, at most 200 characters."""
    rows: int = 0
    """Number of rows; 0 where it is not known."""
    devices: tuple[str, ...] = ()
    """Devices all of whose rows in the part are refused; empty: the whole part is."""
    payload: bytes = b""
    """The refused rows, or the part as it came."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the payload."""
        return hashlib.sha256(self.payload).hexdigest()


class AcceptedRows(msgspec.Struct, frozen=True, eq=False):
    """Rows to be written under ``<kind>.<node>.all.<grade>``."""

    kind: str
    grade: int
    batch: Batch


class CheckedRows(msgspec.Struct, frozen=True, eq=False):
    """Result of checking a part of rows."""

    accepted: tuple[AcceptedRows, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    marks: Mapping[str, int] = {}
    """`RowMark` -> number of accepted rows."""
    claims: tuple[str, ...] = ()
    """Devices that the member comes to own; claimed before the rows are written."""


class CheckedLedger(msgspec.Struct, frozen=True, eq=False):
    """Result of checking a ledger."""

    counts: Ledger | None = None
    refusal: Refusal | None = None
    marks: Mapping[str, int] = {}


class CheckedSequences(msgspec.Struct, frozen=True, eq=False):
    """Result of checking sequence numbers of devices."""

    runs: sequences.SequenceRuns | None = None
    refusal: Refusal | None = None
