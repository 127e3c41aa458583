"""Feature: fail-over between two centres: the active centre's seat, and a node's choice of the active centre."""

from __future__ import annotations

from typing import Any

from sensegate.authority.audit import Audit
from sensegate.bus.opening import Core
from sensegate.failover.active import Activation, Seat, SeatStores
from sensegate.failover.centre_choice import DurableChoice
from sensegate.failover.lease import voter_id
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.ports import PartKey
from sensegate.tiers.members import Members
from sensegate.tiers.node_side import CHOICE
from sensegate.tiers.opening import TERM

SEAT = PartKey[Seat]("seat", absent="this gateway has no other centre beside it")


def open_seat(core: Core, audit: Audit, members: Members | None, activation: Activation | None) -> Seat | None:
    """Return the right of a centre to be active; None where it has no other centre beside it."""
    if members is None or activation is None:
        return None

    def joined() -> list[str]:
        return [voter_id(member, members.get(member).generation) for member in members.authorized()]

    stores = SeatStores(core.log, core.hours, core.buckets, audit)
    return Seat(core.config, core.clock, activation, stores, joined=joined)


def parts_of(seat: Seat | None) -> dict[PartKey[Any], Any]:
    """Return the part for the feature."""
    return {SEAT: seat} if seat else {}


async def _open(parts: Parts) -> Feature | None:
    core, config = parts.core, parts.core.config
    if config.role == "node":
        choice = DurableChoice(core.directory, core.clock, lease_s=config.uplink.lease_s, name=config.member_id)
        return Feature(parts={CHOICE: choice})
    seat = parts.find(SEAT)
    if seat is None:
        return None
    return Feature(
        tasks=owned({"seat": seat.run}),
        answers=seat.answers,
        parts={TERM: seat.current_term},
        begin=seat.begin,
    )


FEATURE = FeatureSpec(
    name="fail-over",
    title="two centres, one of them active; nodes choose which",
    config=("peer",),
    commands=("centre",),
    open=_open,
)
