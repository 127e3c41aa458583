"""Subscribers who come to the broker, by MQTT or NATS: who may come in, what each may hear, and that it ends.

Who comes gives the id of a token as user and the token as password; by MQTT its client id begins with that id. Its
rights are the subjects of its grants in force:

    sg.grants.<grant>.>              what it hears by MQTT
    sg.feeds.<grant>.>               what it hears by NATS
    sg.control.<grant>.<delivery>    where it says from which cursor on

A connection whose rights have changed, or whose token or grant has ended, is closed within two seconds; it comes again
with what it may do then. While one is open, the lines of its grants run.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog

from sensegate.authority.callout import Guest
from sensegate.authority.jwt import AuthRequest, Permissions
from sensegate.authority.tokens import Tokens
from sensegate.bus.engine import Connection, User
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.share.grants import Grant, Grants
from sensegate.share.lines import MEDIA, Lines, Terms

ACCOUNT = User.FEEDS.account
MQTT, NATS = "mqtt", "nats"
LOOK_S = 1.0
"""So often all open connections are looked at; a change that is known of is looked at once."""
SOON_S = 0.1
"""A connection that was just let in appears at the server within this."""
SAY_S = 10.0
"""Who comes by MQTT says within this where to begin, or has to come again: what he said may not have been heard."""
_TOKEN = re.compile(r"sg_[0-9a-f]{16}_[A-Za-z0-9_-]{32}")

_log = structlog.get_logger(__name__)


class Server(Protocol):
    """What is needed of `bus.engine.Engine`."""

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...


class _Here(msgspec.Struct, frozen=True):
    """A connection that stays."""

    token: str
    delivery: str


def hears(grant: str, delivery: str) -> str:
    """Return the subject under which a grant's records come; each delivery's own: who hears both hears none twice."""
    return f"sg.{'grants' if delivery == MQTT else 'feeds'}.{grant}"


def control(grant: str, delivery: str) -> str:
    """Return the subject on which its subscriber says where to go on."""
    return f"sg.control.{grant}.{delivery}"


def line_id(grant: str, delivery: str) -> str:
    """Return the id of a grant's line."""
    return f"{grant}-{delivery}"


class Guests:
    """Those of this gateway."""

    def __init__(self, server: Server, tokens: Tokens, grants: Grants, clock: Clock, lines: dict[str, Lines]) -> None:
        """`lines`: of each delivery, `MQTT` and `NATS`."""
        self._server = server
        self._tokens = tokens
        self._clock = clock
        self._lines = lines
        self._given: dict[tuple[str, str], Permissions] = {}
        """What a token's connections by a delivery were last let in with."""
        self._came: dict[str, float] = {}
        """When a token's connection by MQTT was last let in."""
        self._wake = asyncio.Event()
        self._here: frozenset[_Here] = frozenset()
        self._of_token: dict[str, dict[str, Grant]] = {}
        for grant in grants.records:
            self._changed(None, grant)
        tokens.on_change.append(lambda _token: self._wake.set())
        grants.records.on_change.append(self._changed)

    def _changed(self, before: Grant | None, after: Grant | None) -> None:
        if before is not None:
            self._of_token.get(before.subscriber, {}).pop(before.id, None)
        if after is not None:
            self._of_token.setdefault(after.subscriber, {})[after.id] = after
        self._wake.set()

    # ── who may come in ───────────────────────────────────────────────────────────────────────────────

    def guest_of(self, asked: AuthRequest) -> Guest | None:
        """Return what one who connects with a token may do; None where he has none: a device perhaps.

        Raises:
            PermissionDenied: the token is not good, not that of the user named, or has no grant for this delivery.
        """
        given = asked.connect_opts
        if not _TOKEN.fullmatch(given.password):
            return None
        principal = self._tokens.verify(given.password)
        if given.user != principal.id:
            raise PermissionDenied(f"the user of a token is its id, {principal.id}")
        delivery = MQTT if asked.client_info.type == "mqtt" else NATS
        if delivery == MQTT and not asked.client_info.mqtt_id.startswith(principal.id):
            # A session belongs to its client id: with another's id one would take over what waits for him.
            raise PermissionDenied(f"the client id of a subscriber begins with its token's id, {principal.id}")
        rights = self._rights(principal.id, delivery)
        if rights is None:
            raise PermissionDenied(f"token {principal.id} has no grant for {delivery}")
        self._given[principal.id, delivery] = rights
        if delivery == MQTT:
            self._came[principal.id] = self._clock.monotonic()
        for grant in self._in_force(principal.id, delivery):
            # What was sent to an earlier connection is not what this one has.
            self._lines[delivery].halt(line_id(grant.id, delivery))
        asyncio.get_running_loop().call_later(SOON_S, self._wake.set)
        until = max((grant.expires for grant in self._in_force(principal.id, delivery)), default=0)
        kind = "MQTT" if delivery == MQTT else "STANDARD"
        return Guest(principal.id, ACCOUNT, rights, kind, until)

    def _in_force(self, token: str, delivery: str) -> list[Grant]:
        now = self._clock.now()
        return [
            grant
            for grant in self._of_token.get(token, {}).values()
            if grant.state(now) == "active" and (not grant.deliveries or delivery in grant.deliveries)
        ]

    def _rights(self, token: str, delivery: str) -> Permissions | None:
        """Return what a token's connection may do now; None: nothing."""
        try:
            self._tokens.principal(token)
        except PermissionDenied:
            return None
        grants = [grant.id for grant in self._in_force(token, delivery)]
        if not grants:
            return None
        heard = [subject for grant in grants for subject in (hears(grant, delivery), f"{hears(grant, delivery)}.>")]
        inbox = [f"_INBOX_{token}.>"] if delivery == NATS else []
        return Permissions(
            tuple(control(grant, delivery) for grant in grants), (*heard, *inbox), respond=delivery == NATS
        )

    # ── who is there ──────────────────────────────────────────────────────────────────────────────────

    @property
    def here(self) -> frozenset[tuple[str, str]]:
        """Return (token, delivery) of all who are connected."""
        return frozenset((one.token, one.delivery) for one in self._here)

    async def run(self) -> None:
        """Look at the open connections until cancelled; close those that may not stay."""
        while True:
            self._wake.clear()
            try:
                await self._look()
            except Unavailable as why:
                _log.debug("subscribers are not looked at", cause=str(why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _look(self) -> None:
        found = set()
        for one in await self._server.connections(ACCOUNT):
            token = one.authorized_user
            if token in set(User):
                continue
            delivery = MQTT if one.mqtt_client else NATS
            rights = self._rights(token, delivery)
            # What one was let in with by an earlier life of this process is not known: it comes again.
            if rights is None or rights != self._given.get((token, delivery)):
                await self._server.close_connection(one.cid)
                _log.info("a subscriber's connection was closed: its rights have changed", token=token, by=delivery)
            elif delivery == MQTT and self._silent(token):
                await self._server.close_connection(one.cid)
                _log.info("a subscriber's connection was closed: it has not said where to begin", token=token)
            else:
                found.add(_Here(token, delivery))
        self._here = frozenset(found)
        self._sort()

    def _silent(self, token: str) -> bool:
        """Return whether one who came by MQTT has said nothing for too long."""
        if self._clock.monotonic() - self._came.get(token, 0.0) < SAY_S:
            return False
        begun = self._lines[MQTT].begun
        return not any(line_id(grant.id, MQTT) in begun for grant in self._in_force(token, MQTT))

    def _sort(self) -> None:
        """Have the lines of those who are here, and no others."""
        wanted: dict[str, dict[str, Terms]] = {delivery: {} for delivery in self._lines}
        for one in self._here:
            for grant in self._in_force(one.token, one.delivery):
                terms = terms_of(grant, one.delivery)
                wanted[one.delivery][terms.id] = terms
        for delivery, lines in self._lines.items():
            for line in lines.wanted() - wanted[delivery].keys():
                lines.drop(line)
            for terms in wanted[delivery].values():
                if not lines.has(terms):
                    lines.want(terms)


def terms_of(grant: Grant, delivery: str) -> Terms:
    """Return the line of a grant by a delivery."""
    forms: Sequence[str] = [form for form in grant.forms if form in MEDIA] or ["json"]
    return Terms(
        id=line_id(grant.id, delivery),
        subscriber=grant.subscriber,
        feed=grant.feed,
        delivery=delivery,
        to=hears(grant.id, delivery),
        form=forms[0],
        tagged=True,
    )
