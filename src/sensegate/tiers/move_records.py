"""Records of the moves of devices: a move with its stages, and what is said about it between centre and gateways."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from sensegate.config.durations import TIME_MAX_US, TIME_MIN_US

REASON_MAX = 500
"""Most characters of a reason that a gateway reports."""
_DEBTS = {"settle": "retire the device", "back": "let the device in again", "drop": "retire the device"}


class MoveStage(StrEnum):
    """Stage of a move."""

    ASKED = "asked"
    """Requested; the source has to export the device."""
    CARRIED = "carried"
    """Exported: the device is shut out at the source, the target has to import it."""
    TAKEN = "taken"
    """Imported: the device may connect at the target, the source has to retire its entry."""
    DONE = "done"
    SENT_BACK = "sent_back"
    """A gateway cannot do its part, or the move was cancelled: the source has to let the device in again."""
    RECALLED = "recalled"
    """Cancelled after the export: the target is asked whether it has the device."""
    REFUSED = "refused"
    CANCELLED = "cancelled"


ENDED_STAGES = frozenset({MoveStage.DONE, MoveStage.REFUSED, MoveStage.CANCELLED})


class UncarriedState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State that a forced move loses besides the identities for duplicate detection."""

    since: int = 0
    """Time of the last span from that gateway (µs UTC); entries committed later are not here; 0: none ever came."""
    pending: int = 0
    """Entries that still waited in its backlog."""

    def __str__(self) -> str:
        when = _written(self.since) if self.since else "it joined"
        more = f", and {self.pending} entries of its backlog" if self.pending else ""
        return f"the identities for duplicate detection; readings of its gateway since {when}{more}"


def _written(time: int) -> str:
    """Return a time that a gateway stated, which may be any number."""
    if not TIME_MIN_US <= time <= TIME_MAX_US:
        return f"{time} µs of its clock"
    return f"{datetime.fromtimestamp(time / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"


class MoveRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The move of one device."""

    id: str
    device: str
    source: str
    """Division of the gateway that it leaves."""
    target: str
    """Division of the gateway to which it moves."""
    division: str
    """Division of the device after the move."""
    stage: MoveStage
    by: str
    requested_at: int
    changed_at: int
    taken_at: int = 0
    """Time when the centre heard that the target has the device, µs UTC; 0: not yet, or in an earlier release."""
    reason: str = ""
    """Reason why it was refused or cancelled."""
    problem: str = ""
    """Reason why its present order was not carried out at the last attempt; empty: there was no failed attempt."""
    identities: int = 0
    """Number of readings whose identities moved along."""
    parts: int = 0
    stored: bytes = b""
    """The device's entry with its credentials, during the move."""
    former_division: str = ""
    """Division of the device before the move."""
    department: str = ""
    """Department of the device, which decides who may see the move."""
    forced: UncarriedState | None = None
    """State that a forced move lost, as its source (or, if it is sent back, its target) is gone; None: not forced."""
    without_credential: bool = False
    """The credential does not move along, because the gateway that is gone may still be running."""
    cancelled: bool = False
    owed_source: str = ""
    """Order for the source when it is back: ``settle`` or ``back``; empty: none."""
    owed_target: str = ""
    """Order for the target when it is back: ``drop``; empty: none."""
    revision: int = 0
    format: int = 1

    @property
    def handed_over_at(self) -> int:
        """Time when the device changed its owner, µs UTC; later changes of the record do not alter it."""
        return self.taken_at or self.requested_at

    @property
    def owed(self) -> str:
        """Orders that a gateway gets when it is back, as text; empty: none."""
        pairs = ((self.source, self.owed_source), (self.target, self.owed_target))
        return "; ".join(f"{gateway} has to {_DEBTS[action]} when it is back" for gateway, action in pairs if action)


class MoveOrder(msgspec.Struct, frozen=True):
    """Order to a gateway."""

    id: str
    action: str
    """``give``, ``take``, ``settle``, ``back``, ``recall``, ``drop``."""
    device: str
    other: str
    """Division of the other gateway."""
    division: str
    parts: int = 0
    stored: bytes = b""
    forced: bool = False
    without_credential: bool = False
    """With ``back``: the device is let in without its credential."""


class MoveReport(msgspec.Struct, frozen=True):
    """Report of a gateway on an order."""

    id: str
    refused: str = ""
    identities: int = 0
    parts: int = 0
    stored: bytes = b""
    action: str = ""
    """Action of the order; empty: the gateway runs an earlier release."""
    has_device: bool = False
    """With ``recall``: the device is here and came by this move."""


class MovePart(msgspec.Struct, frozen=True):
    """A part of the identities that move along."""

    id: str
    number: int
    payload: bytes = b""


class MoveOptions(msgspec.Struct, frozen=True):
    """Ways in which a move differs from that of a device between two members."""

    source: str = ""
    """Division of the gateway that the device leaves; empty: it is looked up."""
    force: bool = False
    """The source is gone: only the entry as known here moves; see `MoveRecord.forced`."""
    keep_credential: bool = False
    """With `force`: the source cannot accept the device any more, so its credential moves along."""


encode = msgspec.msgpack.Encoder().encode
decode_move = msgspec.msgpack.Decoder(MoveRecord).decode
decode_orders = msgspec.msgpack.Decoder(list[MoveOrder]).decode
decode_part = msgspec.msgpack.Decoder(MovePart).decode
_report = msgspec.msgpack.Decoder(MoveReport).decode


def decode_report(payload: bytes) -> MoveReport:
    """Decode a report of a gateway, with a bounded reason. Raises `msgspec.DecodeError`."""
    report = _report(payload)
    return msgspec.structs.replace(report, refused=report.refused[:REASON_MAX])
