"""Membership of nodes at a centre: invited with a one-time code, joined, left, expelled.

    invite ─▶ code (shown once) ─▶ join ─▶ link credential (shown once) for the account of a slot (`bus.slots`)
    replace ─▶ another code for the same member ─▶ join ─▶ the credential before it is void
    leave, expel ─▶ the credential is void; open connections are closed, then the slot is free

A member is known by its id, usually the code of its prefecture; a city may have several (``4401``, ``4401-port``).
Its slot is that of the prefecture if the id is the prefecture's code, else a spare one.

A code and a credential have 192 random bits and are stored as salted hashes. Nodes under ``nodes`` in the centre's
configuration are not members: the server itself has their credentials.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

import msgspec

from sensegate.authority import credentials
from sensegate.authority.bucket import Bucket
from sensegate.authority.credentials import Credentials, HashedSecret
from sensegate.authority.device_rules import text_fault
from sensegate.authority.divisions import DivisionLevel, Divisions
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.slots import spare_slots
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied

CODE_LIFE_S = 86_400.0
"""Default validity of a join code."""
CODE_LIFE_MAX_S = 30 * 86_400.0
NOTE_BYTES_MAX = 500
GAPS_MAX = 20
"""Gaps of a member that are remembered, the newest."""
AREAS_MAX = 200
"""Most areas of one member."""
SEQUENCE_BLOCK = 10_000_000_000
"""A log that replaces a lost one begins at the next multiple of this, so that its record ids were never used."""
MEMBER_ID = re.compile(r"(?=.{2,32}$)[0-9]+((-[a-z0-9]+)*-[0-9]*[a-z][a-z0-9]*)?")
"""Form of a member's id: the code of its city, and words after dashes; trailing digits would mean a partition."""
_CODE = re.compile(r"sgj_([a-z0-9-]{2,32})_([A-Za-z0-9_-]{32})(?:_([0-9a-f]{64}))?")
_VERSION = re.compile(r"(\d+)\.(\d+)")


class MembershipState(StrEnum):
    """State of a node's membership, whether it is connected or not."""

    INVITED = "invited"
    JOINED = "joined"
    LEFT = "left"
    EXPELLED = "expelled"


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """A gap in a node's readings at the centre, because the node was lost with its store."""

    since: int
    """Time of the last span from the lost store (µs UTC); entries committed later are missing."""
    until: int = 0
    """Time when the replacing node joined, µs UTC."""
    log_epoch: str = ""
    """Epoch of the lost log."""
    pending: int = 0
    """Entries that still waited in its backlog."""


class NodeMember(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member as others see it, without its secrets."""

    id: str
    division: str
    """Code of its prefecture."""
    state: MembershipState
    slot: str = ""
    """Account of its link at the centre's server; empty: it has none."""
    areas: tuple[str, ...] = ()
    """Divisions (short codes) whose rows it may send, each with all below it; set by the province."""
    code_until: int = 0
    """Time at which its join code expires (µs UTC); 0: there is none."""
    replacing: bool = False
    """True if the code is for a node that replaces the present one."""
    invited_by: str = ""
    joined: int = 0
    """Time of the last join (µs UTC)."""
    generation: int = 0
    """Rises with each join, so that it tells apart the machines behind the id."""
    log_first: int = 1
    """First sequence of the log of this generation."""
    version: str = ""
    """Release of the node when it joined."""
    changed: int = 0
    note: str = ""
    gaps: tuple[Gap, ...] = ()
    revision: int = 0


class StoredMember(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member as stored in the bucket."""

    member: NodeMember
    code: HashedSecret | None = None
    link: HashedSecret | None = None
    format: int = 1


class JoinGrant(msgspec.Struct, frozen=True):
    """Result of a join."""

    member: NodeMember
    secret: str
    """Credential of the link, shown only here."""


class LaneProgress(msgspec.Struct, frozen=True):
    """Progress of the forwarding of a node's log, over both lanes."""

    position: int = 0
    """Greatest sequence that was assigned to a lane."""
    committed_at: int = 0
    """Time of the newest span by the node's clock, µs UTC; 0: none ever came, or the clock was wrong."""
    log_epoch: str = ""
    """Epoch of the log."""
    pending: int = 0
    """Entries that its backlog lane has still to forward."""
    reached: int = 0
    """Greatest sequence that a span of this log reached; 0: none came, or it came to an earlier release."""

    @property
    def has_begun(self) -> bool:
        """Return whether a span came, whatever the node's clock said."""
        return self.reached > 0 or self.committed_at > 0


class LinkAddress(msgspec.Struct, frozen=True):
    """Address of the centre's link."""

    scheme: str
    host: str
    """Empty: the host by which the node reached the centre's HTTP side."""
    port: int
    certificate: str = ""
    """PEM; the only certificate that the node trusts."""


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request of a node that joins."""

    code: str
    version: str
    log_epoch: str = ""
    """Epoch of the node's existing log; empty: it has none."""


class JoinAnswer(msgspec.Struct, frozen=True):
    """Answer to a join, shown only once."""

    member: str
    """Id of the member."""
    division: str
    slot: str
    """Account of its link at the centre's server."""
    secret: str
    generation: int
    log_first: int
    link: LinkAddress
    version: str
    """Release of the centre."""


def _revised(stored: StoredMember, revision: int) -> StoredMember:
    return msgspec.structs.replace(stored, member=msgspec.structs.replace(stored.member, revision=revision))


def releases_apart(centre: str, node: str) -> int | None:
    """Return how many releases (``major.minor``) a node is ahead of its centre; None where they cannot be compared.

    A step of the major number counts as one release.
    """
    own, other = _VERSION.match(centre), _VERSION.match(node)
    if own is None or other is None:
        return None
    if own[1] == other[1]:
        return int(other[2]) - int(own[2])
    return int(other[1]) - int(own[1])


def release_fault(centre: str, node: str) -> str:
    """Return why a node may not work with a centre of another release; empty: it may (up to one release apart)."""
    distance = releases_apart(centre, node)
    if distance is not None and abs(distance) <= 1:
        return ""
    remedy = "update the node" if distance is None or distance < 0 else "update the centre first"
    return f"the node runs {node[:32] or 'an unknown release'}, the centre {centre}: more than one release; {remedy}"


def release_note(centre: str, node: str) -> str:
    """Return a note on a node's release; empty where it is the centre's own."""
    if node == centre or not node:
        return ""
    return release_fault(centre, node) or f"the node runs {node}, the centre {centre}: tolerated over one release"


class CentreIdentity(msgspec.Struct, frozen=True):
    """The centre, as a node that joins sees it."""

    division: str
    version: str
    """Its release."""
    fingerprint: str = ""
    """SHA-256 (hex) of the certificate of its HTTP side; part of each code, so that no other server gets a secret."""


class Members:
    """Register of the members of one centre. Every change is authorised, recorded in the trail, and then written."""

    def __init__(
        self,
        bucket: Bucket,
        trail: Trail,
        clock: Clock,
        centre: CentreIdentity,
        *,
        divisions: Divisions | None = None,
        configured: Mapping[str, tuple[str, ...]] | None = None,
        slots: Collection[str] = (),
    ) -> None:
        """Create an empty register; `load` fills it.

        Args:
            bucket: of members, by id.
            trail: records changes.
            clock: decides when codes expire.
            centre: this centre, as a node that joins sees it.
            divisions: the table of divisions.
            configured: nodes of the configuration, each with its areas.
            slots: of the centre's server.
        """
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._home = centre.division
        self.version = centre.version
        self._divisions = divisions or Divisions.load()
        self._configured_areas = dict(configured or {})
        self.configured = frozenset(self._configured_areas)
        self._slots = sorted(slots)
        self._joining = asyncio.Lock()
        """Lock under which a join chooses and takes a slot."""
        self._fingerprint = centre.fingerprint
        self._stored: RecordTable[StoredMember] = RecordTable(
            self._store, "node", StoredMember, prefix="", packed=True, revised=_revised
        )
        self._stored.on_change.append(self._changed)
        self.on_change: list[Callable[[NodeMember], None]] = []
        """Called after a change has been applied, from whichever process it came."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def all(self) -> list[NodeMember]:
        """Return all members, in order of their ids."""
        return [stored.member for stored in self._stored]

    def get(self, member: str) -> NodeMember:
        """Return a member. Raises `NotFound`."""
        return self._stored_member(member).member

    def _stored_member(self, member: str) -> StoredMember:
        stored = self._stored.find(member)
        if stored is not None:
            return stored
        if member in self.configured:
            raise NotFound(
                f"node {member} is configured under `nodes` at the centre; gaps are known only of nodes that joined "
                f"with a code; `sensegate node show {member}` shows its last span"
            )
        raise NotFound(f"node {member[:32]} was never invited; `sensegate node invite {member[:32]}`")

    def _demand_may_change(self, member: str, by: Principal) -> None:
        """Return if the caller may change a member. Raises `PermissionDenied`, alike where there is no such member."""
        known = self._stored.find(member)
        demand(by, Action.CHANGE_NODES, known.member.division if known else self._home)

    def authorized(self) -> list[str]:
        """Return the ids of the members that have a valid credential."""
        return [stored.member.id for stored in self._stored if stored.link is not None]

    def members_by_slot(self) -> dict[str, str]:
        """Return the slots in use (slot -> member), those of configured nodes included."""
        joined = {stored.member.slot: stored.member.id for stored in self._stored if stored.link and stored.member.slot}
        return {**joined, **{member: member for member in self.configured}}

    def holding_slot(self) -> list[NodeMember]:
        """Return the members without a credential that still hold a slot, to be freed once nothing is connected."""
        return [stored.member for stored in self._stored if stored.link is None and stored.member.slot]

    def never_joined(self, member: str) -> bool:
        """Return whether a member never had a credential here."""
        stored = self._stored.find(member)
        return member not in self.configured and (stored is None or stored.member.joined == 0)

    def is_gone(self, member: str) -> bool:
        """Return whether a member left, was expelled, or is unknown.

        A member that was invited for the first time and has not joined yet is not gone.
        """
        if member in self.configured:
            return False
        stored = self._stored.find(member)
        if stored is None:
            return True
        return stored.link is None and (stored.member.joined > 0 or stored.member.state is not MembershipState.INVITED)

    def verify(self, member: str, secret: str, version: str) -> NodeMember:
        """Authenticate a member by the secret of its link.

        Raises:
            PermissionDenied: the secret is wrong, or the release is too far from ours.
        """
        stored = self._stored.find(member)
        known = Credentials(stored.link) if stored and stored.link else None
        if credentials.verify(known, secret, 0) is None or stored is None:
            raise PermissionDenied(_denial_reason(stored), authenticated=False)
        if fault := release_fault(self.version, version or stored.member.version):
            raise PermissionDenied(fault, authenticated=False)
        return stored.member

    # ── changing ────────────────────────────────────────────────────────────────────────────────────

    async def invite(
        self,
        division: str,
        *,
        by: Principal,
        member: str = "",
        areas: Collection[str] = (),
        life_s: float = CODE_LIFE_S,
        replace: bool = False,
        note: str = "",
    ) -> tuple[str, NodeMember]:
        """Create a join code for the node of a city, shown only here; an earlier code becomes void.

        Args:
            division: of the city.
            by: who invites.
            member: id of the node; empty: the code of its city.
            areas: divisions whose rows it may send; empty: those that it has, at first its city.
            life_s: validity of the code.
            replace: the code is for a node that replaces the present one, which works on until the other joins.
            note: for the trail.

        Raises:
            ConfigError: not a city of this province, an invalid id, or a validity out of bounds.
            PermissionDenied: `by` may not.
            Conflict: the node exists (replace it, or expel it), or there is none to be replaced.
        """
        division = self._city(division)
        member = self._id(member, division)
        demand(by, Action.CHANGE_NODES, division)
        if not 0 < life_s <= CODE_LIFE_MAX_S:
            raise ConfigError(
                "validity of a code is out of bounds", key="expires", remedy="give more than 0, up to 30 days"
            )
        _demand_note(note)
        chosen = self._areas(areas, by) if areas else ()
        if member in self.configured:
            raise Conflict(
                f"{member} is configured under `nodes` at the centre; remove it there and restart the centre"
            )
        stored = self._stored.find(member)
        has_joined = stored is not None and (stored.link is not None or stored.member.joined > 0)
        is_linked = stored is not None and stored.link is not None
        if is_linked and not replace:
            raise Conflict(f"{member} has a node; run `sensegate node replace {member}` for new hardware")
        if replace and not has_joined:
            raise Conflict(f"{member} never had a node; `sensegate node invite {member}`")
        now = self._clock.now()
        before = stored.member if stored else NodeMember(member, division, MembershipState.INVITED)
        secret = credentials.make_secret()
        after = msgspec.structs.replace(
            before,
            areas=chosen or before.areas or (division,),
            state=before.state if is_linked else MembershipState.INVITED,
            code_until=now + round(life_s * 1e6),
            replacing=replace,
            invited_by=by.id,
            changed=now,
            note=note,
        )
        action = "node.replace" if replace else "node.invite"
        await self._trail.record(by, action, member, before=_stored_facts(stored), after=audit_facts(after))
        await self._write(StoredMember(after, credentials.hash_secret(secret), stored.link if stored else None), stored)
        tail = f"_{self._fingerprint}" if self._fingerprint else ""
        return f"sgj_{member}_{secret}{tail}", self.get(member)

    async def set_areas(self, member: str, areas: Collection[str], *, by: Principal, note: str = "") -> NodeMember:
        """Set the areas of a member; rows of divisions outside them are refused from now on.

        Raises:
            ConfigError: there are none, too many, or some of another province.
            PermissionDenied: `by` may not.
            NotFound: there is no such member.
            Conflict: it is configured at the centre, or was changed meanwhile.
        """
        self._demand_may_change(member, by)
        _demand_note(note)
        if member in self.configured:
            raise Conflict(f"{member} is configured at the centre; change its `areas` there and restart the centre")
        stored = self._stored_member(member)
        after = msgspec.structs.replace(
            stored.member, areas=self._areas(areas, by), changed=self._clock.now(), note=note or stored.member.note
        )
        await self._trail.record(by, "node.areas", member, before=_stored_facts(stored), after=audit_facts(after))
        await self._write(msgspec.structs.replace(stored, member=after), stored)
        return self.get(member)

    def areas_of(self, member: str) -> tuple[str, ...]:
        """Return the divisions whose rows are accepted from a member; empty: it is unknown."""
        if member in self._configured_areas:
            return self._configured_areas[member]
        stored = self._stored.find(member)
        return stored.member.areas if stored else ()

    def demand_known(self, member: str) -> None:
        """Return if a member exists. Raises `NotFound`."""
        if member not in self.configured:
            self._stored_member(member)

    def _areas(self, areas: Collection[str], by: Principal) -> tuple[str, ...]:
        """Return areas in stored form: short codes, none within another, all of this province."""
        codes = sorted({self._divisions.get(area).code for area in areas})
        outermost = [code for code in codes if not any(code.startswith(other) and code != other for other in codes)]
        if not 0 < len(outermost) <= AREAS_MAX:
            raise ConfigError(
                f"{len(outermost)} areas are too few or too many",
                key="areas",
                remedy=f"give 1 to {AREAS_MAX} divisions",
            )
        for code in outermost:
            if not code.startswith(self._home):
                raise ConfigError(f"{code} is not a part of {self._home}", key="areas", remedy="e.g. 4401,4403")
            demand(by, Action.CHANGE_NODES, code)
        return tuple(outermost)

    async def join(self, code: str, *, version: str, log_epoch: str, progress: LaneProgress) -> JoinGrant:
        """Admit a node by its join code, which becomes void; return its credential, shown only here.

        Args:
            code: from `invite`.
            version: release of the node.
            log_epoch: epoch of the node's existing log; empty: it has none.
            progress: how far the log of this member has been forwarded.

        Raises:
            PermissionDenied: the code is wrong, used, void or expired (which is not told), or the release is too far
                from ours.
            Conflict: the node has another log than the one that was forwarded; no slot is free; or another join was
                faster.
        """
        async with self._joining:
            return await self._join(code, version=version, log_epoch=log_epoch, progress=progress)

    async def _join(self, code: str, *, version: str, log_epoch: str, progress: LaneProgress) -> JoinGrant:
        member, secret, _ = parse_join_code(code)
        stored = self._stored.find(member)
        known = Credentials(stored.code) if stored and stored.code else None
        is_valid = credentials.verify(known, secret, 0) is not None
        now = self._clock.now()
        if not is_valid or stored is None or now >= stored.member.code_until:
            raise PermissionDenied(
                "the code is not valid or has expired; ask the centre for another", authenticated=False
            )
        if fault := release_fault(self.version, version):
            raise PermissionDenied(fault)
        before = stored.member
        # The same store (it had left, or was configured) continues; any other store replaces it.
        is_replacement = progress.has_begun and log_epoch != progress.log_epoch
        if is_replacement and log_epoch:
            raise Conflict(f"{member} sent from another store before, and this one has a log; join with an empty store")
        gap = Gap(progress.committed_at, now, progress.log_epoch, progress.pending)
        gaps = (*before.gaps, gap)[-GAPS_MAX:] if is_replacement else before.gaps
        after = msgspec.structs.replace(
            before,
            state=MembershipState.JOINED,
            slot=before.slot or self._free_slot(member),
            code_until=0,
            replacing=False,
            joined=now,
            generation=before.generation + 1,
            log_first=(progress.position // SEQUENCE_BLOCK + 1) * SEQUENCE_BLOCK
            if is_replacement
            else before.log_first,
            version=version,
            changed=now,
            gaps=gaps,
        )
        link = credentials.make_secret()
        by = Principal(f"node-{member}", Role.DEVICE, Scope(before.division), name="the node itself, by its join code")
        await self._trail.record(by, "node.join", member, before=audit_facts(before), after=audit_facts(after))
        await self._write(StoredMember(after, None, credentials.hash_secret(link)), stored)
        return JoinGrant(self.get(member), link)

    def _free_slot(self, member: str) -> str:
        """Return a free slot for a member. Raises `Conflict` where there is none."""
        used = {*self.configured, *(stored.member.slot for stored in self._stored if stored.member.slot)}
        spare = spare_slots()
        suitable = [member] if member in self._slots else [slot for slot in self._slots if slot in spare]
        free = next((slot for slot in suitable if slot not in used), "")
        if not free:
            raise Conflict(f"no slot is free for {member}: {len(used)} are in use; expel nodes that are gone")
        return free

    async def free_slot(self, member: str) -> None:
        """Free the slot of an ended membership, once no connection is open in it."""
        stored = self._stored_member(member)
        if stored.link is None and stored.member.slot:
            after = msgspec.structs.replace(stored.member, slot="")
            await self._write(msgspec.structs.replace(stored, member=after), stored)

    async def leave(self, member: str, secret: str) -> NodeMember:
        """End a membership at the node's own request. Raises as `verify`, whatever the release."""
        stored = self._stored.find(member)
        known = Credentials(stored.link) if stored and stored.link else None
        if credentials.verify(known, secret, 0) is None or stored is None:
            raise PermissionDenied(_denial_reason(stored), authenticated=False)
        by = Principal(f"node-{member}", Role.DEVICE, Scope(stored.member.division), name="the node itself")
        return await self._end(stored, MembershipState.LEFT, by, "node.leave", "")

    async def expel(self, member: str, *, by: Principal, note: str = "") -> NodeMember:
        """End a membership, or an invitation, at once: its connections are closed within 2 s.

        Raises:
            NotFound, PermissionDenied: there is no such node, or it is not in the caller's scope.
            Conflict: it is configured at the centre.
        """
        self._demand_may_change(member, by)
        _demand_note(note)
        if member in self.configured:
            raise Conflict(f"{member} stands under `nodes` of the centre's configuration; take it out, start again")
        return await self._end(self._stored_member(member), MembershipState.EXPELLED, by, "node.expel", note)

    async def _end(
        self, stored: StoredMember, state: MembershipState, by: Principal, action: str, note: str
    ) -> NodeMember:
        if stored.link is None and stored.code is None:
            return stored.member
        now = self._clock.now()
        after = msgspec.structs.replace(
            stored.member, state=state, code_until=0, replacing=False, changed=now, note=note or stored.member.note
        )
        await self._trail.record(by, action, after.id, before=_stored_facts(stored), after=audit_facts(after))
        await self._write(StoredMember(after), stored)
        return self.get(after.id)

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled, also after losses of the engine."""
        await self._store.run()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the members holds; it is checked after every change."""
        await self._stored.until(condition)

    def _changed(self, _before: StoredMember | None, after: StoredMember | None) -> None:
        if after is not None:
            for listener in self.on_change:
                listener(after.member)

    async def _write(self, fresh: StoredMember, before: StoredMember | None) -> None:
        expected = before.member.revision if before else 0
        await self._stored.put(fresh.member.id, fresh, expected=expected)

    def _city(self, division: str) -> str:
        row = self._divisions.get(division)
        if row.level is not DivisionLevel.PREFECTURE or not row.code.startswith(self._home):
            raise ConfigError(
                f"{row.code} is not a city of {self._home}", key="division", remedy="give the code of a city, e.g. 4401"
            )
        return row.code

    def _id(self, member: str, division: str) -> str:
        """Return a valid member id. Raises `ConfigError` where it is invalid, or could be mistaken for another's."""
        if not member:
            return division
        if member != division and not (member.startswith(f"{division}-") and MEMBER_ID.fullmatch(member)):
            raise ConfigError(
                f"'{member[:40]}' cannot be the id of a node of {division}",
                key="member",
                remedy=f"give its city and a name of lower-case letters, digits and dashes, e.g. {division}-port",
            )
        return member


def parse_join_code(code: str) -> tuple[str, str, str]:
    """Return (member, secret, fingerprint of the centre's certificate or empty) of a join code.

    Raises:
        PermissionDenied: it is not a join code.
    """
    match = _CODE.fullmatch(code.strip())
    if match is None:
        raise PermissionDenied("this is not a join code, which is one line beginning with sgj_", authenticated=False)
    return match[1], match[2], match[3] or ""


def audit_facts(member: NodeMember) -> Facts:
    """Return a member as the audit trail records it."""
    recorded: Facts = msgspec.to_builtins(msgspec.structs.replace(member, revision=0))
    return recorded


def _stored_facts(stored: StoredMember | None) -> Facts | None:
    return audit_facts(stored.member) if stored else None


def _denial_reason(stored: StoredMember | None) -> str:
    if stored is None:
        return "there is no such node"
    if stored.link is None:
        return f"the node is {stored.member.state}"
    return "wrong secret; a replacing node may have joined"


def _demand_note(note: str) -> None:
    if fault := text_fault(note, size_max=NOTE_BYTES_MAX):
        raise ConfigError(f"note {fault}", key="note", remedy="one line of plain text")
