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
from sensegate.authority.jwt import Question, Rights
from sensegate.authority.tokens import Tokens
from sensegate.bus.engine import Connection, User
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.share.grants import Grant, Grants
from sensegate.share.subscriptions import MEDIA_TYPES, PushSubscriptions, SubscriptionSpec

ACCOUNT = User.FEEDS.account
MQTT, NATS = "mqtt", "nats"
CHECK_INTERVAL_S = 1.0
"""So often all open connections are looked at; a change that is known of is looked at once."""
RECHECK_DELAY_S = 0.1
"""A connection that was just let in appears at the server within this."""
START_TIMEOUT_S = 10.0
"""Who comes by MQTT says within this where to begin, or has to come again: what he said may not have been heard."""
_TOKEN = re.compile(r"sg_[0-9a-f]{16}_[A-Za-z0-9_-]{32}")

_log = structlog.get_logger(__name__)


class ConnectionMonitor(Protocol):
    """What is needed of `bus.engine.Engine`."""

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...


class _Connected(msgspec.Struct, frozen=True):
    """A connection that stays."""

    token: str
    delivery: str


def record_subject(grant: str, delivery: str) -> str:
    """Return the subject under which a grant's records come; each delivery's own: who hears both hears none twice."""
    return f"sg.{'grants' if delivery == MQTT else 'feeds'}.{grant}"


def control_subject(grant: str, delivery: str) -> str:
    """Return the subject on which its subscriber says where to go on."""
    return f"sg.control.{grant}.{delivery}"


def subscription_id(grant: str, delivery: str) -> str:
    """Return the id of a grant's line."""
    return f"{grant}-{delivery}"


class BrokerClients:
    """Those of this gateway."""

    def __init__(
        self,
        server: ConnectionMonitor,
        tokens: Tokens,
        grants: Grants,
        clock: Clock,
        lines: dict[str, PushSubscriptions],
    ) -> None:
        """`lines`: of each delivery, `MQTT` and `NATS`."""
        self._server = server
        self._tokens = tokens
        self._clock = clock
        self._lines = lines
        self._granted_rights: dict[tuple[str, str], Rights] = {}
        """What a token's connections by a delivery were last let in with."""
        self._admitted_at: dict[str, float] = {}
        """When a token's connection by MQTT was last let in."""
        self._wake = asyncio.Event()
        self._connected: frozenset[_Connected] = frozenset()
        self._grants_of: dict[str, dict[str, Grant]] = {}
        for grant in grants.records:
            self._changed(None, grant)
        tokens.on_change.append(lambda _token: self._wake.set())
        grants.records.on_change.append(self._changed)

    def _changed(self, before: Grant | None, after: Grant | None) -> None:
        if before is not None:
            self._grants_of.get(before.subscriber, {}).pop(before.id, None)
        if after is not None:
            self._grants_of.setdefault(after.subscriber, {})[after.id] = after
        self._wake.set()

    # ── who may come in ───────────────────────────────────────────────────────────────────────────────

    def authorize(self, asked: Question) -> Guest | None:
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
        self._granted_rights[principal.id, delivery] = rights
        if delivery == MQTT:
            self._admitted_at[principal.id] = self._clock.monotonic()
        for grant in self._active_grants(principal.id, delivery):
            # What was sent to an earlier connection is not what this one has.
            self._lines[delivery].restart(subscription_id(grant.id, delivery))
        asyncio.get_running_loop().call_later(RECHECK_DELAY_S, self._wake.set)
        until = max((grant.expires for grant in self._active_grants(principal.id, delivery)), default=0)
        kind = "MQTT" if delivery == MQTT else "STANDARD"
        return Guest(principal.id, ACCOUNT, rights, kind, until)

    def _active_grants(self, token: str, delivery: str) -> list[Grant]:
        now = self._clock.now()
        return [
            grant
            for grant in self._grants_of.get(token, {}).values()
            if grant.state(now) == "active" and (not grant.deliveries or delivery in grant.deliveries)
        ]

    def _rights(self, token: str, delivery: str) -> Rights | None:
        """Return what a token's connection may do now; None: nothing."""
        try:
            self._tokens.of(token)
        except PermissionDenied:
            return None
        grants = [grant.id for grant in self._active_grants(token, delivery)]
        if not grants:
            return None
        heard = [
            subject
            for grant in grants
            for subject in (record_subject(grant, delivery), f"{record_subject(grant, delivery)}.>")
        ]
        inbox = [f"_INBOX_{token}.>"] if delivery == NATS else []
        return Rights(
            tuple(control_subject(grant, delivery) for grant in grants), (*heard, *inbox), respond=delivery == NATS
        )

    # ── who is there ──────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> frozenset[tuple[str, str]]:
        """Return (token, delivery) of all who are connected."""
        return frozenset((one.token, one.delivery) for one in self._connected)

    async def run(self) -> None:
        """Look at the open connections until cancelled; close those that may not stay."""
        while True:
            self._wake.clear()
            try:
                await self._check_connections()
            except Unavailable as why:
                _log.debug("subscribers are not looked at", cause=str(why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await self._wake.wait()

    async def _check_connections(self) -> None:
        found = set()
        for connection in await self._server.connections(ACCOUNT):
            token = connection.authorized_user
            if token in set(User):
                continue
            delivery = MQTT if connection.mqtt_client else NATS
            rights = self._rights(token, delivery)
            # What one was let in with by an earlier life of this process is not known: it comes again.
            if rights is None or rights != self._granted_rights.get((token, delivery)):
                await self._server.close_connection(connection.cid)
                _log.info("a subscriber's connection was closed: its rights have changed", token=token, by=delivery)
            elif delivery == MQTT and self._is_silent(token):
                await self._server.close_connection(connection.cid)
                _log.info("a subscriber's connection was closed: it has not said where to begin", token=token)
            else:
                found.add(_Connected(token, delivery))
        self._connected = frozenset(found)
        self._sync_subscriptions()

    def _is_silent(self, token: str) -> bool:
        """Return whether one who came by MQTT has said nothing for too long."""
        if self._clock.monotonic() - self._admitted_at.get(token, 0.0) < START_TIMEOUT_S:
            return False
        begun = self._lines[MQTT].started
        return not any(subscription_id(grant.id, MQTT) in begun for grant in self._active_grants(token, MQTT))

    def _sync_subscriptions(self) -> None:
        """Have the lines of those who are here, and no others."""
        wanted: dict[str, dict[str, SubscriptionSpec]] = {delivery: {} for delivery in self._lines}
        for one in self._connected:
            for grant in self._active_grants(one.token, one.delivery):
                terms = subscription_of(grant, one.delivery)
                wanted[one.delivery][terms.id] = terms
        for delivery, lines in self._lines.items():
            for line in lines.ids() - wanted[delivery].keys():
                lines.remove(line)
            for terms in wanted[delivery].values():
                if not lines.has(terms):
                    lines.add(terms)


def subscription_of(grant: Grant, delivery: str) -> SubscriptionSpec:
    """Return the line of a grant by a delivery."""
    forms: Sequence[str] = [form for form in grant.forms if form in MEDIA_TYPES] or ["json"]
    return SubscriptionSpec(
        id=subscription_id(grant.id, delivery),
        subscriber=grant.subscriber,
        feed=grant.feed,
        delivery=delivery,
        target=record_subject(grant.id, delivery),
        form=forms[0],
        tagged=True,
    )
