"""Feature: fail-over between two centres: the active centre's leadership, and a node's choice of the active centre."""

from __future__ import annotations

from functools import partial
from typing import Any

from sensegate.authority.audit import Audit
from sensegate.bus.opening import Core
from sensegate.failover import rest
from sensegate.failover.active import Activation, Leadership, ReplicatedStores
from sensegate.failover.centre_choice import DurableChoice
from sensegate.failover.lease import voter_id
from sensegate.failover.rest import SITES, SitesState
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.tiers.members import Members
from sensegate.tiers.node_side import CHOICE
from sensegate.tiers.opening import TERM
from sensegate.web.parts import PartKey

LEADERSHIP = PartKey[Leadership]("leadership", absent="this gateway has no other centre beside it")


def open_leadership(
    core: Core, audit: Audit, members: Members | None, activation: Activation | None
) -> Leadership | None:
    """Return the right of a centre to be active; None where it has no other centre beside it."""
    if members is None or activation is None:
        return None

    def joined() -> list[str]:
        return [voter_id(member, members.get(member).generation) for member in members.authorized()]

    stores = ReplicatedStores(core.log, core.hours, core.buckets, audit)
    return Leadership(core.config, core.clock, activation, stores, joined=joined)


def parts_of(leadership: Leadership | None) -> dict[PartKey[Any], Any]:
    """Return the part for the feature."""
    return {LEADERSHIP: leadership} if leadership else {}


async def _open(parts: Parts) -> Feature | None:
    core, config = parts.core, parts.core.config
    if config.role == "node":
        choice = DurableChoice(core.directory, core.clock, lease_s=config.uplink.lease_s, name=config.member_id)
        if not config.uplink.other_centres:
            return Feature(parts={CHOICE: choice})
        others = ", ".join(centre.url for centre in config.uplink.other_centres)

        def state_of_node() -> SitesState:
            term = choice.remembered
            return SitesState(
                role="node",
                state="up" if term.followed else "never",
                other=others,
                term=term.number,
                unreplicated=term.unreplicated,
                followed=term.followed,
                granted=term.granted,
            )

        return Feature(parts={CHOICE: choice, SITES: state_of_node})
    leadership = parts.find(LEADERSHIP)
    if leadership is None:
        return None
    return Feature(
        tasks=owned({"leadership": leadership.run}),
        answers=leadership.answers,
        parts={TERM: leadership.current_term, SITES: partial(_state_of_centre, leadership)},
        begin=leadership.begin,
    )


def _state_of_centre(leadership: Leadership) -> SitesState:
    term = leadership.stored_term
    return SitesState(
        role="centre",
        state="active" if leadership.current_term() is not None else "silent",
        other=leadership.config.peer.url,
        term=leadership.term,
        unreplicated=term.unreplicated,
        voters=list(term.voters[-1].nodes) if term.voters else [],
        history=[*reversed(term.history)],
    )


FEATURE = FeatureSpec(
    name="fail-over",
    title="two centres, one of them active; nodes choose which",
    config=("peer",),
    routes=rest.ROUTES,
    commands=("centre",),
    open=_open,
)
