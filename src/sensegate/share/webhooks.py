"""Webhooks: HTTP addresses to which subscribers have their feeds pushed.

A webhook belongs to the token that created it, reads what that token may read, and ends with the token.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded
from sensegate.share.feeds import FeedName
from sensegate.share.subscriptions import (
    BATCH_RECORDS,
    MEDIA_TYPES,
    CommittedOffset,
    PushSubscriptions,
    SubscriptionSpec,
    SubscriptionState,
    change_offset,
)
from sensegate.share.transports.contract import PushTransport

DELIVERY = "webhook"
ALGORITHMS = ("hmac-sha256", "hmac-sm3")
PER_SUBSCRIBER_MAX = 20
ALL_MAX = 2_000
ENDED_TOKENS = Principal("clock", Role.ADMIN, Scope("44"), name="ended tokens")
"""Actor in the audit trail when a token has ended."""
BATCH_MAX = 10_000
_SECRET = "whsec_"  # noqa: S105 - the prefix of Standard Webhooks


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """Address to which a feed is pushed."""

    id: str
    feed: str
    subscriber: str
    """Id of the token that created it."""
    url: str
    secret: str
    """Base64 of the key that signs deliveries."""
    algorithm: str = "hmac-sha256"
    form: str = "json"
    batch: int = BATCH_RECORDS
    """Most records of one delivery."""
    created: int = 0
    revision: int = 0
    format: int = 1

    def spec(self) -> SubscriptionSpec:
        """Return the push subscription of the webhook."""
        return SubscriptionSpec(
            id=self.id,
            subscriber=self.subscriber,
            feed=self.feed,
            delivery=DELIVERY,
            target=self.url,
            form=self.form,
            batch=self.batch,
            algorithm=self.algorithm,
            secret=base64.b64decode(self.secret),
        )


class NewWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Webhook to be created; it starts after a cursor, at a time of arrival, or with the oldest record."""

    feed: FeedName
    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2_000)]
    """Address of the receiver: https, unless the configuration permits the host (`egress.allow`)."""
    form: Literal["json", "ndjson", "csv", "msgpack", "senml"] = "json"
    algorithm: Literal["hmac-sha256", "hmac-sm3"] = "hmac-sha256"
    batch: Annotated[int, msgspec.Meta(ge=1, le=BATCH_MAX)] = 1_000
    """Most records of one delivery."""
    after: str = ""
    since: str = ""
    """ISO 8601."""


MaySeeToken = Callable[[str, Principal], bool]
"""(id of a token, caller) -> whether the caller may see and change webhooks of the token."""


class Webhooks:
    """All webhooks of this gateway."""

    def __init__(
        self,
        store: RecordStore,
        offsets: RecordTable[CommittedOffset],
        subscriptions: PushSubscriptions,
        transport: PushTransport,
        trail: Trail,
        clock: Clock,
        *,
        may_see_token: MaySeeToken,
    ) -> None:
        self._offsets = offsets
        self._subscriptions = subscriptions
        self._transport = transport
        self._trail = trail
        self._clock = clock
        self._may_see_token = may_see_token
        self._ended: frozenset[str] = frozenset()
        """Ids of the webhooks whose token had ended at the last check."""
        self.records: RecordTable[Webhook] = RecordTable(store, "webhook", Webhook)
        self.records.on_change.append(self._changed)

    def _changed(self, before: Webhook | None, after: Webhook | None) -> None:
        if after is not None:
            self._subscriptions.add(after.spec())
        elif before is not None:
            self._subscriptions.remove(before.id)

    def visible(self, principal: Principal) -> list[Webhook]:
        """Return the webhooks of the caller and of the tokens that it may see."""
        return [webhook for webhook in self.records if self._may_see(principal, webhook)]

    def get(self, principal: Principal, name: str) -> Webhook:
        """Return a webhook. Raises `NotFound`."""
        webhook = self.records.find(name)
        if webhook is None or not self._may_see(principal, webhook):
            raise NotFound(f"you have no webhook '{name[:40]}'")
        return webhook

    def offset(self, name: str) -> CommittedOffset:
        """Return the committed offset of a webhook."""
        return self._offsets.find(name) or CommittedOffset()

    async def create(self, principal: Principal, form: NewWebhook, *, after: str) -> tuple[Webhook, str]:
        """Create a webhook that starts after a cursor; return it with its secret, which is shown only here.

        The caller must already be admitted to the feed by webhook in this form.

        Raises:
            ConfigError: the address is not allowed, or a value is invalid.
            Overloaded: there are too many webhooks.
        """
        demand(principal, Action.READ_READINGS, principal.scope.division, principal.scope.department, feed=form.feed)
        self._transport.check(form.url)
        if form.algorithm not in ALGORITHMS:
            raise ConfigError(
                f"'{form.algorithm[:20]}' is unknown", key="algorithm", remedy=f"use one of {', '.join(ALGORITHMS)}"
            )
        if form.form not in MEDIA_TYPES:
            raise ConfigError(
                f"'{form.form[:20]}' is unknown", key="form", remedy=f"use one of {', '.join(MEDIA_TYPES)}"
            )
        if not 1 <= form.batch <= BATCH_MAX:
            raise ConfigError(f"{form.batch} is out of range", key="batch", remedy=f"give 1 to {BATCH_MAX} records")
        present = list(self.records)
        if (
            len(present) >= ALL_MAX
            or sum(webhook.subscriber == principal.id for webhook in present) >= PER_SUBSCRIBER_MAX
        ):
            raise Overloaded(
                f"at most {PER_SUBSCRIBER_MAX} webhooks of a token, {ALL_MAX} of a gateway; delete one first"
            )
        key = secrets.token_bytes(32)
        webhook = Webhook(
            id=f"w{secrets.token_hex(8)}",
            feed=form.feed,
            subscriber=principal.id,
            url=form.url,
            secret=base64.b64encode(key).decode(),
            algorithm=form.algorithm,
            form=form.form,
            batch=form.batch,
            created=self._clock.now(),
        )
        await self._trail.record(principal, "webhook.create", webhook.id, after=_facts(webhook))
        # The offset before the webhook, so that its subscription never starts anywhere else.
        await self._offsets.put(webhook.id, CommittedOffset(after=after), expected=0)
        return await self.records.put(webhook.id, webhook, expected=0), _SECRET + webhook.secret

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete a webhook. Raises `NotFound`, `Conflict`."""
        webhook = self.get(principal, name)
        await self._trail.record(principal, "webhook.delete", name, before=_facts(webhook))
        await self.records.delete(name, expected=webhook.revision)
        if (offset := self._offsets.find(name)) is not None:
            try:
                await self._offsets.delete(name, expected=offset.revision)
            except Conflict:
                return  # its task has committed once more; offsets without an owner are removed later

    async def remove_ended(self, is_valid: Callable[[str], bool]) -> int:
        """Delete webhooks whose token was invalid at this call and the last one; return how many."""
        ended = frozenset(record.id for record in self.records if not is_valid(record.subscriber))
        due, self._ended = ended & self._ended, ended
        for name in sorted(due):
            webhook = self.records.find(name)
            if webhook is not None:
                await self._trail.record(ENDED_TOKENS, "webhook.end", name, before=_facts(webhook))
                with contextlib.suppress(Conflict):
                    await self.records.delete(name, expected=webhook.revision)
        return len(due)

    async def pause(self, principal: Principal, name: str) -> Webhook:
        """Pause deliveries until `resume`. Raises `NotFound`, `Conflict`."""
        webhook = self.get(principal, name)
        await self._trail.record(principal, "webhook.pause", name)
        await self._change_offset(name, state=SubscriptionState.PAUSED, reason="paused by its owner")
        return webhook

    async def resume(self, principal: Principal, name: str, *, after: str = "") -> Webhook:
        """Resume at the committed offset, or after a cursor. Raises `NotFound`, `Conflict`."""
        webhook = self.get(principal, name)
        await self._trail.record(principal, "webhook.resume", name, after={"after": after} if after else {})
        changes = {"after": after, "in_flight": 0} if after else {}
        await self._change_offset(name, state=SubscriptionState.ACTIVE, reason="", **changes)
        return webhook

    async def _change_offset(self, name: str, **changes: object) -> None:
        await change_offset(self._offsets, name, changes)
        self._subscriptions.wake(name)

    def _may_see(self, principal: Principal, webhook: Webhook) -> bool:
        return webhook.subscriber == principal.id or self._may_see_token(webhook.subscriber, principal)


def _facts(webhook: Webhook) -> Facts:
    facts: Facts = msgspec.to_builtins(msgspec.structs.replace(webhook, secret="", revision=0))
    return facts
