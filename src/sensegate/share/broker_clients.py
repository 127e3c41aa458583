"""Subscribers that connect to the broker by MQTT or NATS: authorization, permissions, and disconnection.

A client gives the id of a token as user and the token as password; its MQTT client id begins with that id. It may use
the subjects of its active grants:

    sg.grants.<grant>.>              records by MQTT
    sg.feeds.<grant>.>               records by NATS
    sg.control.<grant>.<delivery>    control messages: the cursor after which to start

A connection whose permissions have changed, or whose token or grant has ended, is closed within two seconds; the client
reconnects with its new permissions. While a client is connected, the push subscriptions of its grants run.
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
from sensegate.share.subscriptions import MEDIA_TYPES, PushSubscriptions, SubscriptionSpec

ACCOUNT = User.FEEDS.account
MQTT, NATS = "mqtt", "nats"
SERVICE_MARK = "/"
"""Character in the names of clients that a feature admits and watches itself."""
CHECK_INTERVAL_S = 1.0
"""Interval between checks of all open connections; known changes trigger a check at once."""
RECHECK_DELAY_S = 0.1
"""A connection that was just authorized is listed by the server within this time."""
START_TIMEOUT_S = 10.0
"""An MQTT client that sends no control message within this time is disconnected: its message may have been lost."""
_TOKEN = re.compile(r"sg_[0-9a-f]{16}_[A-Za-z0-9_-]{32}")

_log = structlog.get_logger(__name__)


class ConnectionMonitor(Protocol):
    """Access to the connections of the broker (`bus.engine.Engine`)."""

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...


class _Connected(msgspec.Struct, frozen=True):
    """Connected client."""

    token: str
    delivery: str


def record_subject(grant: str, delivery: str) -> str:
    """Return the subject of a grant's records; one for each delivery, so that a client of both gets none twice."""
    return f"sg.{'grants' if delivery == MQTT else 'feeds'}.{grant}"


def control_subject(grant: str, delivery: str) -> str:
    """Return the subject of a grant's control messages."""
    return f"sg.control.{grant}.{delivery}"


def subscription_id(grant: str, delivery: str) -> str:
    """Return the id of the push subscription of a grant."""
    return f"{grant}-{delivery}"


class BrokerClients:
    """Subscribers connected to the broker of this gateway, and their push subscriptions."""

    def __init__(
        self,
        server: ConnectionMonitor,
        tokens: Tokens,
        grants: Grants,
        clock: Clock,
        subscriptions: dict[str, PushSubscriptions],
    ) -> None:
        """`subscriptions`: the push subscriptions by delivery, `MQTT` and `NATS`."""
        self._server = server
        self._tokens = tokens
        self._clock = clock
        self._subscriptions = subscriptions
        self._granted_rights: dict[tuple[str, str], Permissions] = {}
        """(token, delivery) -> permissions given at its last authorization."""
        self._admitted_at: dict[str, float] = {}
        """Token -> monotonic time of its last authorization by MQTT."""
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

    # ── authorization ───────────────────────────────────────────────────────────────────────────────────

    def authorize(self, question: AuthRequest) -> Guest | None:
        """Return the permissions of a client that connects with a token; None: the password is not a token.

        Raises:
            PermissionDenied: the token is invalid, belongs to another user name, or has no grant for this delivery.
        """
        options = question.connect_opts
        if not _TOKEN.fullmatch(options.password):
            return None
        principal = self._tokens.verify(options.password)
        if options.user != principal.id:
            raise PermissionDenied(f"the user name must be the id of the token, {principal.id}")
        delivery = MQTT if question.client_info.type == "mqtt" else NATS
        if delivery == MQTT and not question.client_info.mqtt_id.startswith(principal.id):
            # A session belongs to its client id: another subscriber's id would take over its queued messages.
            raise PermissionDenied(f"the client id must begin with the id of the token, {principal.id}")
        rights = self._rights(principal.id, delivery)
        if rights is None:
            raise PermissionDenied(f"token {principal.id} has no grant for {delivery}")
        self._granted_rights[principal.id, delivery] = rights
        if delivery == MQTT:
            self._admitted_at[principal.id] = self._clock.monotonic()
        for grant in self._active_grants(principal.id, delivery):
            # Deliveries to an earlier connection did not reach this one.
            self._subscriptions[delivery].restart(subscription_id(grant.id, delivery))
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

    def _rights(self, token: str, delivery: str) -> Permissions | None:
        """Return the permissions of a token's connection now; None: none."""
        try:
            self._tokens.principal(token)
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
        return Permissions(
            tuple(control_subject(grant, delivery) for grant in grants), (*heard, *inbox), respond=delivery == NATS
        )

    def may_publish(self, token: str, subject: str) -> bool:
        """Return whether a token may publish on a subject by MQTT now."""
        rights = self._rights(token, MQTT)
        return rights is not None and subject in rights.publish

    # ── connections ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> frozenset[tuple[str, str]]:
        """(token, delivery) of all connected clients."""
        return frozenset((client.token, client.delivery) for client in self._connected)

    async def run(self) -> None:
        """Check the open connections until cancelled; close those whose permissions have changed."""
        while True:
            self._wake.clear()
            try:
                await self._check_connections()
            except Unavailable as why:
                _log.debug("connections not checked", reason=str(why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await self._wake.wait()

    async def _check_connections(self) -> None:
        connected = set()
        for connection in await self._server.connections(ACCOUNT):
            token = connection.authorized_user
            if token in set(User) or SERVICE_MARK in token:
                continue
            delivery = MQTT if connection.mqtt_client else NATS
            rights = self._rights(token, delivery)
            # Permissions given by an earlier run of this process are unknown: such clients reconnect.
            if rights is None or rights != self._granted_rights.get((token, delivery)):
                await self._server.close_connection(connection.cid)
                _log.info("connection closed", token=token, delivery=delivery, reason="its permissions have changed")
            elif delivery == MQTT and self._is_silent(token):
                await self._server.close_connection(connection.cid)
                _log.info(
                    "connection closed", token=token, delivery=delivery, reason="it sent no control message in time"
                )
            else:
                connected.add(_Connected(token, delivery))
        self._connected = frozenset(connected)
        self._sync_subscriptions()

    def _is_silent(self, token: str) -> bool:
        """Return whether an MQTT client has sent no control message in time."""
        if self._clock.monotonic() - self._admitted_at.get(token, 0.0) < START_TIMEOUT_S:
            return False
        begun = self._subscriptions[MQTT].started
        return not any(subscription_id(grant.id, MQTT) in begun for grant in self._active_grants(token, MQTT))

    def _sync_subscriptions(self) -> None:
        """Run the push subscriptions of connected clients, and no others."""
        wanted: dict[str, dict[str, SubscriptionSpec]] = {delivery: {} for delivery in self._subscriptions}
        for client in self._connected:
            for grant in self._active_grants(client.token, client.delivery):
                spec = subscription_of(grant, client.delivery)
                wanted[client.delivery][spec.id] = spec
        for delivery, subscriptions in self._subscriptions.items():
            for removed in subscriptions.ids() - wanted[delivery].keys():
                subscriptions.remove(removed)
            for spec in wanted[delivery].values():
                if not subscriptions.has(spec):
                    subscriptions.add(spec)


def subscription_of(grant: Grant, delivery: str) -> SubscriptionSpec:
    """Return the push subscription of a grant by a delivery."""
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
