"""A centre's side of its nodes: who they are, who is let in, what they say and what is answered.

Members ─▶ guests of the callout; Links, Reports, Returns, Copies, Moves ◀─ questions of the nodes
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog

from sensegate import __version__, metrics
from sensegate.authority.callout import Callout, Guest
from sensegate.authority.devices import Devices, StoredDevice, decode_stored, encode_stored
from sensegate.authority.divisions import Divisions, short_code
from sensegate.authority.heads import load_or_create_key
from sensegate.authority.jwt import AuthRequest, Permissions
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import Trail
from sensegate.bus import external
from sensegate.bus.engine import Engine
from sensegate.bus.kv import Bucket
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.log import JetStreamLog
from sensegate.bus.names import city_of
from sensegate.bus.slots import account_of, centre_user, member_rights
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Conflict, NotFound, PermissionDenied, StoreFull, Unavailable
from sensegate.failover.lease import voter_id
from sensegate.model import DeviceState
from sensegate.quantities.properties import PROPERTIES
from sensegate.share import wiring
from sensegate.tiers import gaps, questions, registry_copies, return_files
from sensegate.tiers.config_distribution import ConfigPublisher, table_digests, tables_note
from sensegate.tiers.device_moves import DeviceMover
from sensegate.tiers.gaps import GapReport
from sensegate.tiers.judging import Judge
from sensegate.tiers.link import NodeLinks
from sensegate.tiers.members import (
    MEMBER_ID,
    JoinAnswer,
    LaneProgress,
    LinkAddress,
    Members,
    MembershipState,
    NodeMember,
    release_note,
)
from sensegate.tiers.move_register import MoveRegister, UncarriedState
from sensegate.tiers.node_states import NodeMonitor, NodeStatus
from sensegate.tiers.ownership import DeviceOwners
from sensegate.tiers.protocol import RefusedPart
from sensegate.tiers.receiver import Receiver
from sensegate.tiers.refused_store import RefusedBodyCipher
from sensegate.tiers.report import NodeReport, NodeReports
from sensegate.tiers.return_flow import ReturnFlow, ReturnRequest
from sensegate.tiers.verdict import MemberFacts, Rules
from sensegate.web.deps import NodeRow

LOOK_S = 1.0
CLOSE_AGAIN_S = 0.5
"""What was being let in while the rights ended is closed then."""
TRIES = 3
SILENT_SHOWN = 5
"""Most silent nodes that readiness names."""
DENIED_S = 3_600.0
"""The trail says so often that a copy of a node's store asks."""

_log = structlog.get_logger("below")


class Below:
    """A centre's nodes: who they are, who is let in, what they say."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, centre_log: JetStreamLog, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self._trail = trail
        self._log = centre_log
        self._configured = [node.division for node in config.nodes]
        self._close = asyncio.Event()
        self._closing: set[str] = set()
        """Slots whose connections are to be closed."""
        self._slots = external.slots_at(config)
        self.node_links = NodeLinks(engine.connect_slot, clock, quota=config.node_quota)
        """Carries what members send."""
        self._generations: dict[str, int] = {}
        self._denied_at: dict[str, float] = {}
        self.receiver: Receiver | None = None
        """Takes the spans of members; None: this centre stands by."""
        self.members: Members | None = None
        self.offers: ConfigPublisher | None = None
        """What the nodes should have of the centre."""
        self.returns = ReturnFlow(centre_log, grade_max=config.returns.grade_max)
        self._tables = table_digests()
        self.answers = self.node_links.answers
        """Question -> what answers the nodes; other parts add theirs."""
        self.reports = NodeReports(__version__, clock, self._reply)
        self.links = NodeMonitor(
            centre_log, self.divisions, self._connected, clock, self.reports, liveness=self.node_links.liveness
        )

    async def open(
        self, bucket: Callable[[str], Awaitable[Bucket]], callout: Callout, divisions: Divisions, devices: Devices
    ) -> None:
        """Open the register of members; from now on they are let in."""
        self._devices = devices
        tls = self.config.web.tls
        self.copies = registry_copies.RegistryCopies(bucket)
        self.members = Members(
            await bucket("nodes"),
            self._trail,
            self.clock,
            home=self.config.division,
            version=__version__,
            divisions=divisions,
            configured={
                node.division: tuple(map(short_code, node.areas)) or (node.division.partition("-")[0],)
                for node in self.config.nodes
            },
            slots=self._slots,
            fingerprint=await asyncio.to_thread(_fingerprint, tls.cert_file) if tls.cert_file else "",
        )
        await self.members.load()
        self.owners = DeviceOwners(
            await bucket("owners"), self._trail, self.clock, home=self.config.division, is_own=self._is_own
        )
        await self.owners.load()
        self.moves = MoveRegister(await bucket("moves"), self._trail, self.clock, divisions, self)
        self.moves.on_change.append(self.owners.on_move)
        await self.moves.load()
        self._generations = {member.id: member.generation for member in self.members.all()}
        self._closing |= {member.slot for member in self.members.holding_slot()}
        self._close.set()
        self.members.on_change.append(self._changed)
        self._assign()
        callout.guests.append(partial(self._guest, self.members))

    def start(self) -> None:
        """Give the nodes' questions their answers; they are asked once the tasks run."""
        self.answers |= {
            "report": self.reports.answer_report,
            "copied": self.copies.answer_position,
            "copy": self.copies.store_rows,
            "restore": self.copies.answer_restore,
            "returned": self._returned,
            **self._desk,
        }
        if self.offers:
            self.answers |= {"base": self.offers.answer_base, "content": self.offers.answer_content}

    async def _returned(self, member: str, payload: bytes) -> bytes:
        part = await self.returns.part(self.division_of(member), msgspec.msgpack.decode(payload, type=ReturnRequest))
        return msgspec.msgpack.encode(part)

    async def export(self, division: str, life: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of what goes back to a node after a place, and the place where it ends."""
        key = load_or_create_key(
            Path(self.config.sharing.key_file or Path(self.config.directory) / wiring.STATEMENT_KEY),
            setting="sharing.key_file",
        )
        body, held = await return_files.export_file(
            self.returns,
            division,
            ReturnRequest(life, after),
            key,
            centre=self.config.division,
            made_at=self.clock.now(),
        )
        return body, f"{held.log_epoch}:{held.until}"

    async def place(self) -> str:
        """Refuse: a centre has none above it."""
        raise NotFound("nothing comes back to a centre")

    async def take(self, _file: bytes) -> tuple[int, str]:
        """Refuse: a centre has none above it."""
        raise NotFound("nothing comes back to a centre; import at the node")

    def _reply(self, division: str, _report: NodeReport) -> dict[str, str]:
        base = self.offers.digest(division) if self.offers else ""
        return {"base": base, "orders": self.moves.orders_digest(division)}

    # ── what is taken of members ────────────────────────────────────────────────────────────────────

    def facts_of(self, member: str) -> MemberFacts:
        """Return what is known of a member, against which its rows are held."""
        assert self.members is not None  # noqa: S101 - open() has run
        return MemberFacts(member, member, self.members.areas_of(member))

    def rules(self, floor: Callable[[str, str], int], knows_profile: Callable[[str], bool]) -> Rules:
        """Return what rows of members are held against; `floor`: (property, department) -> least grade."""
        return Rules(self.owners, floor, lambda name: PROPERTIES.find(name) >= 0, knows_profile)

    def receive(self, rules: Rules) -> None:
        """Take the spans of members from now on."""
        config = self.config
        judge = Judge(self.facts_of, rules, self.owners.claim, self.owners.note_conflicts)
        self.receiver = Receiver(
            self._log,
            judge,
            self.clock,
            config.store,
            log_share=config.node_quota.log_share,
            probe=self.node_links.probe,
            cipher=RefusedBodyCipher.open(Path(config.directory)),
            admits=self._admits,
        )
        self.receiver.on_denied.append(self._writer_denied)
        self.receiver.on_claim.append(self._writer_claimed)
        self.receiver.serve(self.node_links)

    async def refused(self, member: str) -> list[RefusedPart]:
        """Return what was refused of a member and may be sent once more. Raises `Unavailable`."""
        return await self.receiver.refused_parts(member) if self.receiver else []

    async def refused_body(self, member: str, part_id: str) -> bytes | None:
        """Return what was refused first of an entry; None where it is not kept. Raises `Unavailable`."""
        return await self.receiver.refused_body(member, part_id) if self.receiver else None

    def _admits(self, member: str) -> bool:
        assert self.members is not None  # noqa: S101 - open() has run
        return member != self.config.division and bool(self.members.areas_of(member))

    async def _writer_denied(self, member: str, why: str) -> None:
        """Put on the trail that two copies of a node's store are there, once an hour."""
        last = self._denied_at.get(member, float("-inf"))
        if self.clock.monotonic() - last < DENIED_S:
            return
        self._denied_at[member] = self.clock.monotonic()
        await self._record(member, "node.copy", {"reason": why})

    async def _writer_claimed(self, member: str, how: str) -> None:
        await self._record(member, f"node.{how}", {})

    async def _record(self, member: str, action: str, after: dict[str, str]) -> None:
        by = Principal(f"node-{member}", Role.DEVICE, scope(self.config.division), name="the node itself")
        try:
            await self._trail.record(by, action, member, after=dict(after))
        except (Unavailable, StoreFull) as why:
            _log.warning("the trail does not say what a node's store has done", member=member, reason=str(why))

    def _is_own(self, device: str) -> bool:
        """Return whether a device is in the centre's own registry and in use."""
        stored = self._devices.stored(device)
        return stored is not None and stored.device.state is not DeviceState.RETIRED

    # ── moves of devices ────────────────────────────────────────────────────────────────────────────

    @property
    def _desk(self) -> dict[str, questions.Answer]:
        return {"orders": self.moves.answer_orders, "part": self.moves.answer_part, "told": self.moves.take_report}

    async def ask(self, what: str, payload: bytes) -> bytes:
        """Answer our own gateway as any node. Raises as the answers do."""
        return await self._desk[what](self.config.division, payload)

    async def find(self, division: str, device: str) -> StoredDevice | None:
        """Return a device's entry: of our own registry, or of a node's as it was last copied here."""
        if division == self.config.division:
            return self._devices.stored(device)
        row = await self.copies.find(division, "devices", device)
        return decode_stored(row) if row else None

    async def amend(self, division: str, stored: StoredDevice) -> None:
        """Make an entry of a node's copy another; of our own registry nothing needs to be."""
        if division != self.config.division:
            await self.copies.overwrite(division, "devices", stored.device.id, encode_stored(stored))

    def is_gone(self, division: str) -> bool:
        """Return whether a gateway is no member any more: no credential of it is right."""
        assert self.members is not None  # noqa: S101 - open() has run
        return division != self.config.division and self.members.is_gone(division)

    def is_new(self, division: str) -> bool:
        """Return whether no gateway of a division was ever here."""
        assert self.members is not None  # noqa: S101 - open() has run
        return division != self.config.division and self.members.never_joined(division)

    async def uncarried(self, division: str) -> UncarriedState:
        """Return what of a gateway did not come up."""
        records = await self.links.lanes(division)
        return UncarriedState(
            max((one.committed_at for one in records), default=0),
            sum(until - after for one in records for after, until in one.ranges),
        )

    def gateways(self) -> list[str]:
        """Return the divisions of all gateways: the nodes, and this one."""
        return [*self.divisions(), self.config.division]

    async def move(self, mover: DeviceMover) -> None:
        """Do what is ordered of this gateway itself, until cancelled."""
        home = self.config.division
        while True:
            await self.moves.until(lambda: self.moves.orders_digest(home) != "")
            try:
                await mover.run_orders()
            except (Unavailable, PermissionDenied, StoreFull) as why:
                _log.warning("a move is gone on with later", why=str(why))
            await self.clock.sleep(LOOK_S)

    @property
    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs until cancelled."""
        assert self.members is not None  # noqa: S101 - open() has run
        return {
            "node links": self.node_links.run,
            "links": self.links.run,
            "members": self.members.watch,
            "moves": self.moves.watch,
            "owners": self.owners.watch,
            "owners of moved devices": self.owners.run,
            "links closing": self._close_all,
        }

    def gone(self) -> list[str]:
        """Return the nodes that have left or were expelled."""
        ended = (MembershipState.LEFT, MembershipState.EXPELLED)
        members = self.members.all() if self.members else ()
        return [member.id for member in members if member.state in ended and member.id not in self._configured]

    @staticmethod
    def division_of(member: str) -> str:
        """Return the prefecture of a member."""
        return city_of(member)

    def voters(self) -> list[str]:
        """Return the nodes that joined and may write here, as they vote."""
        members = self.members
        return [voter_id(one, members.get(one).generation) for one in members.authorized()] if members else []

    def divisions(self) -> list[str]:
        """Return the ids of all nodes that there are."""
        joined = [member.id for member in self.members.all()] if self.members else []
        return sorted({*self._configured, *joined})

    # ── who is let in ───────────────────────────────────────────────────────────────────────────────

    def _guest(self, members: Members, asked: AuthRequest) -> Guest | None:
        user = asked.connect_opts.user
        if asked.client_info.type == "mqtt" or not user.startswith("node-"):
            return None
        version = asked.connect_opts.name.rpartition(" ")[2]
        member = members.verify(user.removeprefix("node-"), asked.connect_opts.password, version)
        rights = member_rights(member.slot)
        return Guest(user, account_of(member.slot), Permissions(rights.publish, rights.subscribe))

    def _changed(self, member: NodeMember) -> None:
        other = self._generations.get(member.id) != member.generation
        self._generations[member.id] = member.generation
        self._assign()
        if member.slot and (other or member.state in (MembershipState.LEFT, MembershipState.EXPELLED)):
            self._closing.add(member.slot)
            self._close.set()

    def _assign(self) -> None:
        """Have a connection of ours in the slot of each member that may write here, and of the other centre."""
        assert self.members is not None  # noqa: S101 - open() has run
        placed = self.members.members_by_slot()
        if self.config.peer.secret_file:
            placed[self.config.division] = self.config.division
        self.node_links.assign(placed)

    async def _close_all(self) -> None:
        """Close the connections of nodes whose rights have ended, at once and once more; then free their slots."""
        while True:
            await self._close.wait()
            self._close.clear()
            closing, self._closing = self._closing, set()
            for _ in range(TRIES):
                for slot in closing:
                    await self._close_slot(slot)
                await self.clock.sleep(CLOSE_AGAIN_S)
            await self._free_slots()

    async def _close_slot(self, slot: str) -> int:
        """Close the connections of nodes in a slot; return how many there were, -1 where that is not known."""
        try:
            nodes = [
                connection
                for connection in await self.engine.connections(account_of(slot))
                if connection.authorized_user != centre_user(slot)
            ]
            for connection in nodes:
                await self.engine.close_connection(connection.cid)
        except Unavailable as why:
            _log.warning("connections of a node cannot be closed now; tried again", slot=slot, reason=str(why))
            return -1
        return len(nodes)

    async def _free_slots(self) -> None:
        """Give back the slots of members that have ended, where nothing is connected any more."""
        assert self.members is not None  # noqa: S101 - open() has run
        for member in self.members.holding_slot():
            try:
                if await self._close_slot(member.slot) == 0:
                    await self.members.free_slot(member.id)
                    continue
            except (Unavailable, Conflict, StoreFull) as why:
                _log.warning("a slot is freed later", slot=member.slot, reason=str(why))
            self._closing.add(member.slot)
            self._close.set()

    async def _connected(self) -> set[str]:
        """Return the members whose connection is open; what is connected in other slots is closed."""
        assert self.members is not None  # noqa: S101 - open() has run
        placed, ours = self.members.members_by_slot(), self.node_links.connected
        slots = {*self._slots, *placed}
        counts = await self.engine.connection_counts([account_of(slot) for slot in slots])
        found: set[str] = set()
        for slot in slots:
            count = counts.get(account_of(slot), 0)
            if count <= (slot in ours):
                continue
            if count >= self.config.node_quota.connections:
                # Half-open ones of a link that flaps would keep out the node, and us; the living one comes again.
                _log.warning("all connections of a slot are in use; they are closed", slot=slot, count=count)
                metrics.LIMIT_HITS.labels("node_connections").inc()
                await self._close_slot(slot)
            if member := placed.get(slot):
                found.add(member)
            else:
                await self._close_slot(slot)
        return found

    # ── joining ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, code: str, version: str, life: str) -> JoinAnswer:
        """Take a node in. Raises as `Members.join`."""
        assert self.members is not None  # noqa: S101 - open() has run
        invited = code.split("_")[1] if code.count("_") > 1 else ""
        records = await self.links.lanes(invited) if MEMBER_ID.fullmatch(invited) else []
        came = LaneProgress(
            max((one.position for one in records), default=0),
            max((one.committed_at for one in records), default=0),
            next((one.log_epoch for one in records), ""),
            sum(until - after for one in records for after, until in one.ranges),
        )
        joined = await self.members.join(code, version=version, log_epoch=life, progress=came)
        member = joined.member
        return JoinAnswer(
            member.id,
            member.division,
            member.slot,
            joined.secret,
            member.generation,
            member.log_first,
            self._way_in(),
            __version__,
        )

    def _way_in(self) -> LinkAddress:
        config = self.config.engine
        if config.url:
            place = urlsplit(config.url.partition(",")[0])
            return LinkAddress(place.scheme, place.hostname or "", place.port or 4222, _pem(config.ca_file))
        certificate = _pem(config.tls.cert_file)
        open_to_all = config.host in {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"}  # noqa: S104 - read, not bound
        return LinkAddress(
            "tls" if certificate else "nats", "" if open_to_all else config.host, self.engine.info.port, certificate
        )

    # ── what it says ────────────────────────────────────────────────────────────────────────────────

    async def gaps(self, division: str) -> list[GapReport]:
        """Return what did not come of a node's lost stores. Raises `NotFound`, `Unavailable`."""
        assert self.members is not None  # noqa: S101 - open() has run
        return await gaps.gap_reports(self._log, division, self.members.get(division).gaps)

    def warnings(self) -> list[str]:
        """Return the nodes that are silent, one sentence each, a few by name."""
        silent = [f"node {node.member}: {node.silence}" for node in self.links.nodes if node.silence]
        more = [f"nodes: {len(silent) - SILENT_SHOWN} more are silent"] if len(silent) > SILENT_SHOWN else []
        return silent[:SILENT_SHOWN] + more

    def rows(self) -> list[NodeRow]:
        """Return the nodes as people see them."""
        members = {member.id: member for member in self.members.all()} if self.members else {}
        rows = [
            _row(node, self.division_of(node.member), members.get(node.member), self._tables)
            for node in self.links.nodes
        ]
        return [self._with_areas(row) for row in rows]

    def _with_areas(self, row: NodeRow) -> NodeRow:
        """Return a node's line with what it may send, and which of its devices another one sends too."""
        assert self.members is not None  # noqa: S101 - open() has run
        conflicts = self.owners.conflicts(row.member)
        problems = [*row.problems, *(self.receiver.health(row.member).problems() if self.receiver else ())]
        if conflicts:
            first = conflicts[0]
            who = f"{first.sent_by} sends {first.device}, which {first.owner} owns"
            more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
            problems.append(f"devices of two nodes: {who}{more}; `sensegate node own DEVICE MEMBER` decides")
        return msgspec.structs.replace(
            row,
            copied=self.copies.complete_until.get(row.member, 0),
            areas=list(self.members.areas_of(row.member)),
            conflicts=len(conflicts),
            problems=problems,
        )


def _row(node: NodeStatus, division: str, member: NodeMember | None, tables: dict[str, str]) -> NodeRow:
    heard = node.last_report
    report = heard.report if heard else None
    version = report.version if report else member.version if member else ""
    return NodeRow(
        node.member,
        division,
        "node",
        node.state.value,
        node.last_commit,
        node.backlog,
        node.forwarded,
        node.withheld,
        node.refused,
        "; ".join(
            note
            for note in (release_note(__version__, version), tables_note(tables, report.tables) if report else "")
            if note
        ),
        membership=member.state.value if member else "configured",
        generation=member.generation if member else 0,
        version=version,
        clock_offset_s=round(heard.clock_offset_s, 3) if heard else None,
        reported=heard.received_at if heard else 0,
        load=report.load if report else None,
        rss_mb=report.rss_mb if report else None,
        devices=report.devices if report else None,
        counts=node.counts,
        problems=[*filter(None, [node.silence]), *(report.problems if report else ())],
        gaps=[(gap.since, gap.until) for gap in member.gaps] if member else [],
    )


def own_row(config: Config, totals: dict[str, int], detail: str) -> NodeRow:
    """Return a gateway's own line among the nodes."""
    withheld, refused = (
        sum(count for kind, count in totals.items() if kind.partition(".")[0] == family)
        for family in (WITHHELD, REFUSED_BY_CENTRE)
    )
    return NodeRow(
        config.member_id,
        config.division,
        config.role,
        "up",
        forwarded=totals.get(FORWARDED, 0),
        withheld=withheld,
        refused=refused,
        detail=detail,
        version=__version__,
    )


def _pem(file: str) -> str:
    return Path(file).read_text(encoding="ascii") if file else ""


def _fingerprint(file: str) -> str:
    """Return the SHA-256 (hex) of the first certificate of a PEM file."""
    text = Path(file).read_text(encoding="ascii")
    start, end = text.index("-----BEGIN CERTIFICATE"), text.index("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start : end + 25])).hexdigest()
