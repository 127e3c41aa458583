"""Which nodes may write to this centre: invited with a code that works once, joined, left, expelled.

    invite ─▶ code (shown once) ─▶ join ─▶ link credential (shown once) for the account of a slot (`bus.slots`)
    replace ─▶ another code for the same member ─▶ join ─▶ the credential before it is dead
    leave, expel ─▶ no credential is right any more; what is connected is closed, then the slot is free

A member is known by its id, usually the code of its prefecture; a city may have several (``4401``, ``4401-port``).
Its slot is that of the prefecture if the id is the prefecture's code, else a spare one.

A code and a credential are 192 random bits, kept as salted hashes. Nodes that stand under ``nodes`` in the centre's
configuration are no members: the server itself knows them.
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
CODE_LIFE_MAX_S = 30 * 86_400.0
NOTE_BYTES_MAX = 500
AREAS_MAX = 200
"""Most divisions of one member."""
SEQUENCE_BLOCK = 10_000_000_000
"""A log in place of a lost one begins at the next multiple of this: its records have ids that were never given."""
MEMBER_ID = re.compile(r"(?=.{2,32}$)[0-9]+((-[a-z0-9]+)*-[0-9]*[a-z][a-z0-9]*)?")
"""Form of a member's id: the code of its city, and words behind dashes; digits at its end would be a partition's."""
_CODE = re.compile(r"sgj_([a-z0-9-]{2,32})_([A-Za-z0-9_-]{32})(?:_([0-9a-f]{64}))?")
_VERSION = re.compile(r"(\d+)\.(\d+)")


class MembershipState(StrEnum):
    """Where a node stands with its centre; whether it is connected is not said here."""

    INVITED = "invited"
    JOINED = "joined"
    LEFT = "left"
    EXPELLED = "expelled"


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the centre did not get because a node was lost with its store."""

    since: int
    """When the last span that came up of the lost store was made (µs UTC); what was committed later is missing."""
    until: int = 0
    """When the node in its place joined."""
    log_epoch: str = ""
    """Epoch of the log that was lost."""
    pending: int = 0
    """Entries of it that were waiting in its backlog besides."""


class NodeMember(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a node; its secrets are not."""

    id: str
    division: str
    """Its prefecture."""
    state: MembershipState
    slot: str = ""
    """Its account at the centre's server; empty: it has none (yet)."""
    areas: tuple[str, ...] = ()
    """Divisions (short codes) of which it may send rows, each with all below it, given by the province."""
    code_until: int = 0
    """A code is good before this time (µs UTC); 0: there is none."""
    replacing: bool = False
    """The code is for a node in place of the present one."""
    invited_by: str = ""
    joined: int = 0
    """When (µs UTC)."""
    generation: int = 0
    """Rises with each join: the store and the machine behind the name."""
    log_first: int = 1
    """Sequence with which the log of this generation begins."""
    version: str = ""
    """Of the node's release, as it told when it joined."""
    changed: int = 0
    note: str = ""
    gaps: tuple[Gap, ...] = ()
    revision: int = 0


class StoredMember(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member as the bucket holds it."""

    member: NodeMember
    code: HashedSecret | None = None
    link: HashedSecret | None = None
    format: int = 1


class JoinGrant(msgspec.Struct, frozen=True):
    """What a node is told once."""

    member: NodeMember
    secret: str
    """Of its link."""


class LaneProgress(msgspec.Struct, frozen=True):
    """How far a node's log had come up."""

    position: int = 0
    """Greatest sequence of it that was given to a lane."""
    committed_at: int = 0
    """When its newest span was made, µs UTC; 0: nothing ever came."""
    log_epoch: str = ""
    """Epoch of that log."""
    pending: int = 0
    """Entries of it given to its backlog lane and not brought yet."""


class LinkAddress(msgspec.Struct, frozen=True):
    """What the centre tells of the link."""

    scheme: str
    host: str
    """Empty: that by which the centre's HTTP side was reached."""
    port: int
    certificate: str = ""
    """PEM; the node trusts no other."""


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node tells when it joins."""

    code: str
    version: str
    log_epoch: str = ""
    """Epoch of the log that it has already; empty: none yet."""


class JoinAnswer(msgspec.Struct, frozen=True):
    """What it is told, once."""

    member: str
    """Its id."""
    division: str
    slot: str
    """The account of its link."""
    secret: str
    generation: int
    log_first: int
    link: LinkAddress
    version: str
    """Release of the centre."""


Members_ = list[NodeMember]


def _revised(stored: StoredMember, revision: int) -> StoredMember:
    return msgspec.structs.replace(stored, member=msgspec.structs.replace(stored.member, revision=revision))


def releases_apart(mine: str, theirs: str) -> int | None:
    """Return how many releases (``major.minor``) `theirs` is ahead of `mine`; None where they cannot be compared.

    A step of the first number is one release too.
    """
    one, other = _VERSION.match(mine), _VERSION.match(theirs)
    if one is None or other is None:
        return None
    if one[1] == other[1]:
        return int(other[2]) - int(one[2])
    return int(other[1]) - int(one[1])


def release_fault(mine: str, theirs: str) -> str:
    """Return why a node of another release may not work with this centre; empty: it may (up to one release apart)."""
    distance = releases_apart(mine, theirs)
    if distance is not None and abs(distance) <= 1:
        return ""
    remedy = "update the node" if distance is None or distance < 0 else "update the centre first"
    return f"the node runs {theirs[:32] or 'an unknown release'}, the centre {mine}: more than one release; {remedy}"


def release_note(mine: str, theirs: str) -> str:
    """Return what is to be said of a node's release; empty where it is the centre's own."""
    if theirs == mine or not theirs:
        return ""
    return release_fault(mine, theirs) or f"the node runs {theirs}, the centre {mine}: tolerated over one release"


class Members:
    """The members of one centre. Every change asks `scope.allows`, is recorded, and then written."""

    def __init__(
        self,
        bucket: Bucket,
        trail: Trail,
        clock: Clock,
        *,
        home: str,
        version: str,
        divisions: Divisions | None = None,
        configured: Mapping[str, tuple[str, ...]] | None = None,
        slots: Collection[str] = (),
        fingerprint: str = "",
    ) -> None:
        """Make it empty; `load` fills it.

        Args:
            bucket: where members are, by id.
            trail: where changes are recorded.
            clock: for the end of codes.
            home: division of the centre.
            version: its release.
            divisions: the table of divisions.
            configured: nodes that stand in the configuration, each with its areas.
            slots: those of the centre's server.
            fingerprint: SHA-256 (hex) of the certificate of the centre's HTTP side: part of each code, so that a
                node tells its secret to nobody else.
        """
        self._shelf = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._home = home
        self.version = version
        self._divisions = divisions or Divisions.load()
        self._configured_areas = dict(configured or {})
        self.configured = frozenset(self._configured_areas)
        self._slots = sorted(slots)
        self._joining = asyncio.Lock()
        """A slot is chosen and taken by one join at a time."""
        self._fingerprint = fingerprint
        self._stored: RecordTable[StoredMember] = RecordTable(
            self._shelf, "node", StoredMember, prefix="", packed=True, revised=_revised
        )
        self._stored.on_change.append(self._changed)
        self.on_change: list[Callable[[NodeMember], None]] = []
        """Called after a change is in memory, from whichever process it came."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def all(self) -> Members_:
        """Return all members, in order of their ids."""
        return [stored.member for stored in self._stored]

    def get(self, member: str) -> NodeMember:
        """Return a member. Raises `NotFound`."""
        return self._stored_member(member).member

    def _stored_member(self, member: str) -> StoredMember:
        stored = self._stored.find(member)
        if stored is None:
            raise NotFound(f"no node {member[:32]} was ever invited; `sensegate node invite {member[:32]}`")
        return stored

    def authorized(self) -> list[str]:
        """Return the ids of the members that may write here."""
        return [stored.member.id for stored in self._stored if stored.link is not None]

    def members_by_slot(self) -> dict[str, str]:
        """Return the slots in use and whose they are (slot -> member), those of the configuration included."""
        joined = {stored.member.slot: stored.member.id for stored in self._stored if stored.link and stored.member.slot}
        return {**joined, **{member: member for member in self.configured}}

    def holding_slot(self) -> list[NodeMember]:
        """Return the members that have no right any more and still hold a slot: to be freed once nothing is open."""
        return [stored.member for stored in self._stored if stored.link is None and stored.member.slot]

    def never_joined(self, member: str) -> bool:
        """Return whether a member never had a right here."""
        stored = self._stored.find(member)
        return member not in self.configured and (stored is None or stored.member.joined == 0)

    def is_gone(self, member: str) -> bool:
        """Return whether a member may write here no more: it left, was expelled, or never was one.

        One that was invited for the first time is not gone: it is yet to come.
        """
        if member in self.configured:
            return False
        stored = self._stored.find(member)
        if stored is None:
            return True
        return stored.link is None and (stored.member.joined > 0 or stored.member.state is not MembershipState.INVITED)

    def verify(self, member: str, secret: str, version: str) -> NodeMember:
        """Return the node whose link this is, e.g. to answer its connect.

        Raises:
            PermissionDenied: not its secret, or its release is too far from ours.
        """
        stored = self._stored.find(member)
        kept = Credentials(stored.link) if stored and stored.link else None
        if credentials.verify(kept, secret, 0) is None or stored is None:
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
        """Make a code with which a node of a city joins, shown only here; one before it is void.

        Args:
            division: of the city.
            by: who invites.
            member: id of the node; empty: the code of its city.
            areas: divisions of which it may send rows; empty: those that it has, at first its city.
            life_s: how long the code is good.
            replace: for a node in place of the present one, which goes on until the other joins.
            note: for the trail.

        Raises:
            ConfigError: no city of this province, an id that is none, or a life out of bounds.
            PermissionDenied: `by` may not.
            Conflict: there is such a node (replace it, or expel it), or none that could be replaced.
        """
        division = self._city(division)
        member = self._id(member, division)
        demand(by, Action.CHANGE_NODES, division)
        if not 0 < life_s <= CODE_LIFE_MAX_S:
            raise ConfigError("life of a code out of bounds", key="expires", remedy="more than 0, up to 30 days")
        _demand_note(note)
        given = self._areas(areas, by) if areas else ()
        if member in self.configured:
            raise Conflict(f"{member} stands under `nodes` of the centre's configuration; take it out, start again")
        stored = self._stored.find(member)
        present = stored is not None and (stored.link is not None or stored.member.joined > 0)
        linked = stored is not None and stored.link is not None
        if linked and not replace:
            raise Conflict(f"{member} has a node; `sensegate node replace {member}` for new hardware")
        if replace and not present:
            raise Conflict(f"{member} never had a node; `sensegate node invite {member}`")
        now = self._clock.now()
        before = stored.member if stored else NodeMember(member, division, MembershipState.INVITED)
        secret = credentials.make_secret()
        after = msgspec.structs.replace(
            before,
            areas=given or before.areas or (division,),
            state=before.state if linked else MembershipState.INVITED,
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
        """Give a member other areas; rows of divisions outside them are refused from now on.

        Raises:
            ConfigError: none, too many, or not of this province. PermissionDenied: `by` may not.
            NotFound: no such member. Conflict: it stands in the configuration; or changed meanwhile.
        """
        if member in self.configured:
            raise Conflict(f"{member} stands in the centre's configuration: change its `areas` there, start again")
        stored = self._stored_member(member)
        demand(by, Action.CHANGE_NODES, stored.member.division)
        _demand_note(note)
        after = msgspec.structs.replace(
            stored.member, areas=self._areas(areas, by), changed=self._clock.now(), note=note or stored.member.note
        )
        await self._trail.record(by, "node.areas", member, before=_stored_facts(stored), after=audit_facts(after))
        await self._write(msgspec.structs.replace(stored, member=after), stored)
        return self.get(member)

    def areas_of(self, member: str) -> tuple[str, ...]:
        """Return the divisions of which rows are taken from a member; empty: it is none."""
        if member in self._configured_areas:
            return self._configured_areas[member]
        stored = self._stored.find(member)
        return stored.member.areas if stored else ()

    def demand_known(self, member: str) -> None:
        """Return if there is such a member. Raises `NotFound`."""
        if member not in self.configured:
            self._stored_member(member)

    def _areas(self, areas: Collection[str], by: Principal) -> tuple[str, ...]:
        """Return areas as they are kept: short codes, none within another, all of this province."""
        codes = sorted({self._divisions.get(area).code for area in areas})
        kept = [code for code in codes if not any(code.startswith(other) and code != other for other in codes)]
        if not 0 < len(kept) <= AREAS_MAX:
            raise ConfigError(f"{len(kept)} areas", key="areas", remedy=f"give 1 to {AREAS_MAX} divisions")
        for code in kept:
            if not code.startswith(self._home):
                raise ConfigError(f"{code} is no part of {self._home}", key="areas", remedy="e.g. 4401,4403")
            demand(by, Action.CHANGE_NODES, code)
        return tuple(kept)

    async def join(self, code: str, *, version: str, log_epoch: str, progress: LaneProgress) -> JoinGrant:
        """Take a node in by its code, which is void from now on; return its credential, shown only here.

        Args:
            code: as `invite` gave it.
            version: the node's release.
            log_epoch: epoch of the log that it has already; empty: it has none yet.
            progress: how far the log of this member has come up.

        Raises:
            PermissionDenied: wrong, used, void or expired code (not told apart), or a release too far from ours.
            Conflict: its log is not the one that came up; no slot is free; or another was faster.
        """
        async with self._joining:
            return await self._join(code, version=version, log_epoch=log_epoch, progress=progress)

    async def _join(self, code: str, *, version: str, log_epoch: str, progress: LaneProgress) -> JoinGrant:
        member, secret, _ = parse_join_code(code)
        stored = self._stored.find(member)
        kept = Credentials(stored.code) if stored and stored.code else None
        right = credentials.verify(kept, secret, 0) is not None
        now = self._clock.now()
        if not right or stored is None or now >= stored.member.code_until:
            raise PermissionDenied("this code is not good (any more); ask the centre for another", authenticated=False)
        if fault := release_fault(self.version, version):
            raise PermissionDenied(fault)
        before = stored.member
        # The same store again (it had left, or stood in the configuration) goes on; another one is in its place.
        taken = progress.committed_at > 0 and log_epoch != progress.log_epoch
        if taken and log_epoch:
            raise Conflict(
                f"{member} sent from another store before, and this one holds a log; begin with an empty one"
            )
        gaps = (
            (*before.gaps, Gap(progress.committed_at, now, progress.log_epoch, progress.pending))[-20:]
            if taken
            else before.gaps
        )
        after = msgspec.structs.replace(
            before,
            state=MembershipState.JOINED,
            slot=before.slot or self._free_slot(member),
            code_until=0,
            replacing=False,
            joined=now,
            generation=before.generation + 1,
            log_first=(progress.position // SEQUENCE_BLOCK + 1) * SEQUENCE_BLOCK if taken else before.log_first,
            version=version,
            changed=now,
            gaps=gaps,
        )
        link = credentials.make_secret()
        by = Principal(f"node-{member}", Role.DEVICE, Scope(before.division), name="the node itself, by its code")
        await self._trail.record(by, "node.join", member, before=audit_facts(before), after=audit_facts(after))
        await self._write(StoredMember(after, None, credentials.hash_secret(link)), stored)
        return JoinGrant(self.get(member), link)

    def _free_slot(self, member: str) -> str:
        """Return the slot for a member. Raises `Conflict` where none is free."""
        taken = {*self.configured, *(stored.member.slot for stored in self._stored if stored.member.slot)}
        spare = spare_slots()
        wanted = [member] if member in self._slots else [slot for slot in self._slots if slot in spare]
        free = next((slot for slot in wanted if slot not in taken), "")
        if not free:
            raise Conflict(f"no slot is free for {member}: {len(taken)} are taken; expel nodes that are gone")
        return free

    async def free_slot(self, member: str) -> None:
        """Give back the slot of a member that has ended, once no connection is open in it."""
        stored = self._stored_member(member)
        if stored.link is None and stored.member.slot:
            after = msgspec.structs.replace(stored.member, slot="")
            await self._write(msgspec.structs.replace(stored, member=after), stored)

    async def leave(self, member: str, secret: str) -> NodeMember:
        """End a membership by the node's own wish. Raises as `verify`, whatever its release."""
        stored = self._stored.find(member)
        kept = Credentials(stored.link) if stored and stored.link else None
        if credentials.verify(kept, secret, 0) is None or stored is None:
            raise PermissionDenied(_denial_reason(stored), authenticated=False)
        by = Principal(f"node-{member}", Role.DEVICE, Scope(stored.member.division), name="the node itself")
        return await self._end(stored, MembershipState.LEFT, by, "node.leave", "")

    async def expel(self, member: str, *, by: Principal, note: str = "") -> NodeMember:
        """End a membership, or an invitation, at once: its connections are closed within 2 s.

        Raises:
            NotFound, PermissionDenied: no such node, or not in the caller's scope.
            Conflict: it stands in the configuration.
        """
        known = self._stored.find(member)
        demand(by, Action.CHANGE_NODES, known.member.division if known else self._home)
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
        """Read the whole bucket; then `watch` keeps up with it."""
        await self._shelf.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; through losses of the engine."""
        await self._shelf.run()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the members holds; looked at after every change."""
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
                f"{row.code} is no city of {self._home}", key="division", remedy="give that of a city: e.g. 4401"
            )
        return row.code

    def _id(self, member: str, division: str) -> str:
        """Return a member's id. Raises `ConfigError` where it is none, or could be taken for another's."""
        if not member:
            return division
        if member != division and not (member.startswith(f"{division}-") and MEMBER_ID.fullmatch(member)):
            raise ConfigError(
                f"'{member[:40]}' cannot be the id of a node of {division}",
                key="member",
                remedy=f"its city and a name of small letters, digits and dashes, e.g. {division}-port",
            )
        return member


def parse_join_code(code: str) -> tuple[str, str, str]:
    """Return (member, secret, fingerprint of the centre's certificate or empty) of a code.

    Raises:
        PermissionDenied: it is none.
    """
    found = _CODE.fullmatch(code.strip())
    if found is None:
        raise PermissionDenied("this is no join code; it begins with sgj_ and is one line", authenticated=False)
    return found[1], found[2], found[3] or ""


def audit_facts(member: NodeMember) -> Facts:
    """Return what the audit trail keeps of a member."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(member, revision=0))
    return kept


def _stored_facts(stored: StoredMember | None) -> Facts | None:
    return audit_facts(stored.member) if stored else None


def _denial_reason(stored: StoredMember | None) -> str:
    if stored is None:
        return "no such node"
    if stored.link is None:
        return f"the node is {stored.member.state}"
    return "wrong secret; a node in its place may have joined"


def _demand_note(note: str) -> None:
    if fault := text_fault(note, size_max=NOTE_BYTES_MAX):
        raise ConfigError(f"note {fault}", key="note", remedy="one line of plain text")
