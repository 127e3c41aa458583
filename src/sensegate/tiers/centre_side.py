"""Feature: a centre's side of its nodes: spans, answers to their questions, and moves of devices between them.

`NodeAdmission` admits them; `NodeLinks` carries spans to `Receiver`, and questions to the handlers collected here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from sensegate import __version__
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import Trail
from sensegate.clock import Clock
from sensegate.errors import Conflict, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.feature import Answer, Feature, FeatureSpec, Parts, owned
from sensegate.quantities.properties import PROPERTIES
from sensegate.tiers import gaps, rest_indicators, rest_moves, rest_nodes, rest_owners, rest_returns, rest_uplink
from sensegate.tiers.admission import NodeAdmission, Site
from sensegate.tiers.config_distribution import ConfigPublisher, table_digests
from sensegate.tiers.device_moves import DeviceMover
from sensegate.tiers.gaps import GapReport
from sensegate.tiers.indicator_history import IndicatorHistory
from sensegate.tiers.indicator_hours import IndicatorSums
from sensegate.tiers.joining import Joining
from sensegate.tiers.judging import Judge
from sensegate.tiers.link import NodeLinks
from sensegate.tiers.members import Members
from sensegate.tiers.move_register import MoveRegister
from sensegate.tiers.moving import open_mover
from sensegate.tiers.node_rows import NodeRow, own_row, row_of_node
from sensegate.tiers.node_states import NodeMonitor
from sensegate.tiers.opening import MEMBERSHIP, RETURN_INDEX, TERM
from sensegate.tiers.ownership import DeviceOwners
from sensegate.tiers.receiver import MemberChecks, Receiver
from sensegate.tiers.refused_store import RefusedBodyCipher
from sensegate.tiers.registry_copies import RegistryCopies
from sensegate.tiers.registry_view import RegistryView
from sensegate.tiers.report import NodeReport, NodeReports, ReportReply
from sensegate.tiers.return_exchange import CentreReturns
from sensegate.tiers.verdict import MemberFacts, Rules
from sensegate.web.parts import REFUSED_COUNT

POLL_S = 1.0
DENIED_S = 3_600.0
"""Interval per member in which the trail gets at most one record of a denied claim."""

_log = structlog.get_logger("tiers")


class WriterEvents:
    """Records events of the nodes' writers on the trail: a second copy of a store, a takeover, a lost end."""

    def __init__(self, trail: Trail, clock: Clock, *, home: str) -> None:
        self._trail = trail
        self._clock = clock
        self._home = home
        self._denied_at: dict[str, float] = {}

    async def denied(self, member: str, reason: str) -> None:
        """Record that two copies of a node's store exist, at most once an hour."""
        last = self._denied_at.get(member, float("-inf"))
        if self._clock.monotonic() - last < DENIED_S:
            return
        if await self._record(member, "node.copy", {"reason": reason}):
            self._denied_at[member] = self._clock.monotonic()

    async def claimed(self, member: str, event: str) -> None:
        """Record that a store took over by force, or that its log has lost its end."""
        await self._record(member, f"node.{event}", {})

    async def _record(self, member: str, action: str, after: dict[str, str]) -> bool:
        """Record an event; return False where the trail is away or has no room."""
        by = Principal(f"node-{member}", Role.DEVICE, scope(self._home), name="the node itself")
        try:
            await self._trail.record(by, action, member, after=dict(after))
        except (Unavailable, Overloaded, StoreFull) as why:
            _log.warning("action of a node not recorded on the trail", member=member, reason=str(why))
            return False
        return True


class NodeList(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The list of a centre's nodes, for operators."""

    states: NodeMonitor
    members: Members
    owners: DeviceOwners
    copies: RegistryCopies
    receiver: Receiver
    history: IndicatorHistory

    def rows(self) -> list[NodeRow]:
        """Return the row of each node."""
        members = {member.id: member for member in self.members.all()}
        tables = table_digests()
        return [self._completed(row_of_node(node, members.get(node.member), tables)) for node in self.states.nodes]

    def _completed(self, row: NodeRow) -> NodeRow:
        """Return a row completed with the node's areas and with devices that another node sends, too."""
        conflicts = self.owners.conflicts(row.member)
        refused = self.history.refusals.get(row.member)
        problems = [*row.problems, *self.receiver.health(row.member).problems()]
        if refused:
            problems.append(f"indicators: rows of this node are not taken: {refused}; compare its clock and its areas")
        if conflicts:
            first = conflicts[0]
            who = f"{first.sent_by} sends {first.device}, which {first.owner} owns"
            more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
            problems.append(f"devices of two nodes: {who}{more}; `sensegate node own DEVICE MEMBER_ID` decides")
        return msgspec.structs.replace(
            row,
            copied=self.copies.complete_until.get(row.member, 0),
            areas=list(self.members.areas_of(row.member)),
            conflicts=len(conflicts),
            problems=problems,
        )


class Registers(msgspec.Struct, frozen=True, eq=False):
    """Registers of a centre about its nodes' devices."""

    copies: RegistryCopies
    owners: DeviceOwners
    moves: MoveRegister


async def _open_registers(parts: Parts, members: Members) -> Registers:
    core, audit, home = parts.core, parts.callers.audit, parts.core.config.division
    copies = RegistryCopies(core.bucket)
    view = RegistryView(home, core.log, parts.lifecycle.devices, copies, members)
    owners = DeviceOwners(await core.bucket("owners"), audit, core.clock, home=home, is_own=view.is_own)
    await owners.load()
    moves = MoveRegister(await core.bucket("moves"), audit, core.clock, parts.callers.divisions, view)
    moves.on_change.append(owners.on_move)
    await moves.load()
    return Registers(copies, owners, moves)


def _open_receiver(parts: Parts, members: Members, owners: DeviceOwners, links: NodeLinks) -> Receiver:
    config, profiles = parts.core.config, parts.lifecycle.profiles

    def facts(member: str) -> MemberFacts:
        return MemberFacts(member, member, members.areas_of(member))

    def knows_profile(name: str) -> bool:
        return name.partition("@")[0] in profiles.set.ids

    rules = Rules(owners, parts.share.floors, lambda name: PROPERTIES.find(name) >= 0, knows_profile)
    receiver = Receiver(
        parts.core.log,
        Judge(facts, rules, owners.claim, owners.note_conflicts),
        parts.core.clock,
        config.store,
        log_share=config.node_quota.log_share,
        members=MemberChecks(links.probe, lambda member: member != config.division and bool(members.areas_of(member))),
        cipher=RefusedBodyCipher.open(parts.core.directory),
    )
    events = WriterEvents(parts.callers.audit, parts.core.clock, home=config.division)
    receiver.on_denied.append(events.denied)
    receiver.on_claim.append(events.claimed)
    receiver.serve(links)
    return receiver


def _open_publisher(parts: Parts) -> ConfigPublisher:
    """Return the publisher of the profiles in force here."""
    profiles = parts.lifecycle.profiles
    publisher = ConfigPublisher(
        parts.lifecycle.releases,
        lambda: profiles.set.ids,
        home=parts.core.config.division,
        standard=parts.core.config.standard_vendors,
    )
    profiles.on_change.append(lambda _in_force, _names: publisher.invalidate())
    return publisher


async def _move_own(moves: MoveRegister, mover: DeviceMover, clock: Clock, home: str) -> None:
    """Run the orders to the centre's own gateway until cancelled."""
    while True:
        await moves.until(lambda: moves.orders_digest(home) != "")
        try:
            await mover.run_orders()
        except (Conflict, Unavailable, Overloaded, PermissionDenied, StoreFull) as why:
            # A conflict: an operator cancelled the move while the gateway reported on it.
            _log.warning("move not completed; retrying", reason=str(why))
        await clock.sleep(POLL_S)


def _own_orders(moves: MoveRegister, home: str) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Return the function by which the centre's own gateway asks, as nodes do."""
    answers: dict[str, Answer] = {"orders": moves.answer_orders, "part": moves.answer_part, "told": moves.take_report}

    async def ask(question: str, payload: bytes) -> bytes:
        return await answers[question](home, payload)

    return ask


async def _open(parts: Parts) -> Feature | None:
    members, index = parts.find(MEMBERSHIP), parts.find(RETURN_INDEX)
    if members is None or index is None:
        return None
    core, config = parts.core, parts.core.config
    links = NodeLinks(
        core.engine.connect_slot, core.clock, quota=config.node_quota, term=parts.find(TERM) or (lambda: 0)
    )
    admission = NodeAdmission(Site(config, core.clock, core.engine), members, links)
    registers, publisher = await _open_registers(parts, members), _open_publisher(parts)
    copies, owners, moves = registers.copies, registers.owners, registers.moves
    receiver = _open_receiver(parts, members, owners, links)

    history = IndicatorHistory(await core.bucket("indicators"), core.clock)
    await history.load()
    sums = IndicatorSums(parts.stages.quality.counts_after, parts.lifecycle.devices, core.clock)

    def reply(member: str, report: NodeReport) -> ReportReply:
        history.take(member, report.indicators, members.areas_of(member))
        return ReportReply(
            __version__,
            core.clock.now(),
            base=publisher.digest(member),
            orders=moves.orders_digest(member),
            indicators_after=history.wanted_after(member),
        )

    def take_own() -> None:
        own = config.member_id
        history.take(own, sums.after(history.wanted_after(own)), (config.division,))

    reports = NodeReports(core.clock, reply)
    states = NodeMonitor(
        core.log, admission.divisions, admission.connected, core.clock, reports, liveness=links.liveness
    )
    returns = CentreReturns(index, parts.share.signing_key, core.clock, division=config.division)
    federation = parts.share.sharing.federate_down()
    mover = open_mover(parts, _own_orders(moves, config.division))
    nodes = NodeList(states=states, members=members, owners=owners, copies=copies, receiver=receiver, history=history)
    links.answer(
        {
            "report": reports.answer_report,
            "orders": moves.answer_orders,
            "part": moves.answer_part,
            "told": moves.take_report,
            "base": publisher.answer_base,
            "content": publisher.answer_content,
            "copied": copies.answer_position,
            "copy": copies.store_rows,
            "restore": copies.answer_restore,
            "returned": returns.answer,
            **federation.answers,
        },
        *(feature.answers for feature in parts.earlier),
    )

    async def find_gaps(member: str) -> list[GapReport]:
        return await gaps.gap_reports(core.log, member, members.get(member).gaps)

    return Feature(
        tasks=owned(
            {
                **admission.tasks,
                "links": states.run,
                "indicators": partial(history.run, take_own),
                "moves": moves.watch,
                "owners": owners.watch,
                "owners of moved devices": owners.run,
                "moves here": partial(_move_own, moves, mover, core.clock, config.division),
                "catalogue of nodes": partial(federation.run, admission.gone),
            }
        ),
        guests=(admission.guest_of,),
        parts={
            rest_nodes.NODES: lambda: [own_row(config, {}, ""), *nodes.rows()],
            rest_nodes.MEMBERS: members,
            rest_nodes.JOIN: Joining(core, members).join,
            rest_nodes.GAPS: find_gaps,
            rest_indicators.HISTORY: history,
            rest_moves.MOVES: moves,
            rest_moves.GATEWAYS: lambda: [*admission.divisions(), config.division],
            rest_owners.OWNERS: owners,
            rest_uplink.REFUSED: receiver.refused_parts,
            rest_uplink.REFUSED_BODY: receiver.refused_body,
            REFUSED_COUNT: lambda: receiver.refused_count(members.all()),
            rest_returns.RETURNS: returns,
        },
        warnings=lambda: [*states.warnings(), *moves.warnings()],
    )


FEATURE = FeatureSpec(
    name="nodes of a centre",
    title="a centre's nodes: membership, spans, moves of devices, copies of registries, return flow",
    config=("nodes", "node_quota", "returns"),
    buckets=("nodes", "owners", "moves", "indicators"),
    routes=(
        *rest_returns.ROUTES,
        *rest_moves.ROUTES,
        *rest_nodes.ROUTES,
        *rest_indicators.ROUTES,
        *rest_owners.ROUTES,
        *rest_uplink.ROUTES,
    ),
    commands=("node", "return"),
    open=_open,
)
