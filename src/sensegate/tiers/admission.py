"""Admission of nodes at a centre, active or standby: who may connect, in which slot, and whose connections are closed.

Members ─▶ guests of the callout, slots of `NodeLinks`
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from sensegate import __version__, metrics
from sensegate.authority.bucket import Bucket
from sensegate.authority.callout import Guest
from sensegate.authority.divisions import Divisions, short_code
from sensegate.authority.jwt import AuthRequest, Permissions
from sensegate.authority.slots import node_slots
from sensegate.authority.trail import Trail
from sensegate.bus.engine import Engine
from sensegate.bus.slots import account_of, centre_user, member_rights
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Conflict, StoreFull, Unavailable
from sensegate.tiers.link import NodeLinks
from sensegate.tiers.members import CentreIdentity, Members, MembershipState, NodeMember

CLOSE_RETRY_S = 0.5
"""Time after which connections are closed again that were being admitted while the rights ended."""
CLOSE_ATTEMPTS = 3

_log = structlog.get_logger("tiers")


class Site(msgspec.Struct, frozen=True, eq=False):
    """A centre's configuration, clock and engine."""

    config: Config
    clock: Clock
    engine: Engine


async def open_members(site: Site, bucket: Bucket, trail: Trail, divisions: Divisions) -> Members:
    """Load the members of a centre."""
    config = site.config
    tls = config.web.tls
    members = Members(
        bucket,
        trail,
        site.clock,
        CentreIdentity(
            config.division,
            __version__,
            await asyncio.to_thread(_fingerprint, tls.cert_file) if tls.cert_file else "",
        ),
        divisions=divisions,
        configured={
            node.division: tuple(map(short_code, node.areas)) or (node.division.partition("-")[0],)
            for node in config.nodes
        },
        slots=node_slots(config),
    )
    await members.load()
    return members


def _fingerprint(file: str) -> str:
    """Return the SHA-256 (hex) of the first certificate of a PEM file."""
    text = Path(file).read_text(encoding="ascii")
    start, end = text.index("-----BEGIN CERTIFICATE"), text.index("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start : end + 25])).hexdigest()


class NodeAdmission:
    """Admits nodes, connects in their slots, and closes connections whose rights have ended."""

    def __init__(self, site: Site, members: Members, links: NodeLinks) -> None:
        """Assign slots; `links` connects in them once the tasks run."""
        self._config = site.config
        self._clock = site.clock
        self._engine = site.engine
        self._members = members
        self.links = links
        self._slots = node_slots(site.config)
        self._configured = [node.division for node in site.config.nodes]
        self._generations = {member.id: member.generation for member in members.all()}
        self._closing = {member.slot for member in members.holding_slot()}
        """Slots whose connections are to be closed."""
        self._close = asyncio.Event()
        self._close.set()
        members.on_change.append(self._changed)
        self._assign()

    @property
    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Name -> task that runs as long as the centre."""
        return {"node links": self.links.run, "members": self._members.watch, "links closing": self._close_all}

    def guest_of(self, question: AuthRequest) -> Guest | None:
        """Authenticate a node that connects; return None where the client is not a node. Raises `PermissionDenied`."""
        user = question.connect_opts.user
        if question.client_info.type == "mqtt" or not user.startswith("node-"):
            return None
        version = question.connect_opts.name.rpartition(" ")[2]
        member = self._members.verify(user.removeprefix("node-"), question.connect_opts.password, version)
        rights = member_rights(member.slot)
        return Guest(user, account_of(member.slot), Permissions(rights.publish, rights.subscribe))

    def divisions(self) -> list[str]:
        """Return the ids of all nodes, those of the configuration included."""
        return sorted({*self._configured, *(member.id for member in self._members.all())})

    def gone(self) -> list[str]:
        """Return the nodes that have left or were expelled."""
        ended = (MembershipState.LEFT, MembershipState.EXPELLED)
        return [
            member.id for member in self._members.all() if member.state in ended and member.id not in self._configured
        ]

    async def connected(self) -> set[str]:
        """Return the members whose connection is open; close connections in other slots. Raises `Unavailable`."""
        members, own = self._members.members_by_slot(), self.links.connected
        slots = {*self._slots, *members}
        counts = await self._engine.connection_counts([account_of(slot) for slot in slots])
        connected: set[str] = set()
        for slot in slots:
            count = counts.get(account_of(slot), 0)
            if count <= (slot in own):
                continue
            if count >= self._config.node_quota.connections:
                # Half-open connections of an unstable link would keep out the node and us; the node reconnects.
                _log.warning("connections of a slot closed", slot=slot, reason=f"all {count} are in use")
                metrics.LIMIT_HITS.labels("node_connections").inc()
                await self._close_slot(slot)
            if member := members.get(slot):
                connected.add(member)
            else:
                await self._close_slot(slot)
        return connected

    def _changed(self, member: NodeMember) -> None:
        replaced = self._generations.get(member.id) != member.generation
        self._generations[member.id] = member.generation
        self._assign()
        if member.slot and (replaced or member.state in (MembershipState.LEFT, MembershipState.EXPELLED)):
            self._closing.add(member.slot)
            self._close.set()

    def _assign(self) -> None:
        """Connect in the slot of each authorized member, and in that of the other centre."""
        slots = self._members.members_by_slot()
        if self._config.peer.secret_file:
            slots[self._config.division] = self._config.division
        self.links.assign(slots)

    async def _close_all(self) -> None:
        """Close the connections of nodes whose rights have ended, at once and again later; then free their slots."""
        while True:
            await self._close.wait()
            self._close.clear()
            closing, self._closing = self._closing, set()
            for _ in range(CLOSE_ATTEMPTS):
                for slot in closing:
                    await self._close_slot(slot)
                await self._clock.sleep(CLOSE_RETRY_S)
            await self._free_slots()

    async def _close_slot(self, slot: str) -> int:
        """Close the connections of nodes in a slot; return how many there were, -1 where that is unknown."""
        try:
            nodes = [
                connection
                for connection in await self._engine.connections(account_of(slot))
                if connection.authorized_user != centre_user(slot)
            ]
            for connection in nodes:
                await self._engine.close_connection(connection.cid)
        except Unavailable as why:
            _log.warning("connections of a node not closed; retrying", slot=slot, reason=str(why))
            return -1
        return len(nodes)

    async def _free_slots(self) -> None:
        """Free the slots of ended memberships in which nothing is connected any more."""
        for member in self._members.holding_slot():
            try:
                if await self._close_slot(member.slot) == 0:
                    await self._members.free_slot(member.id)
                    continue
            except (Unavailable, Conflict, StoreFull) as why:
                _log.warning("slot not freed; retrying", slot=member.slot, reason=str(why))
            self._closing.add(member.slot)
            self._close.set()
