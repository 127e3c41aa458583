"""The subscriptions of this gateway.

readings              ─▶ a push subscription from a committed offset, as a webhook is (`notifications`)
stored entities       ─▶ `change_notifications`
timeInterval instead  ─▶ `state_notifications`
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
from collections.abc import Callable
from functools import partial

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.errors import ConfigError, Conflict, Overloaded
from sensegate.ngsi_ld.change_notifications import ChangeNotifications, EntityChange, NotifiedPosition
from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.hosted_contexts import HostedContexts
from sensegate.ngsi_ld.mqtt_endpoints import MqttEndpoint
from sensegate.ngsi_ld.notification_writing import NotificationWriter, SubscriptionCounts, notified_form
from sensegate.ngsi_ld.notifications import DeferredTransport, NotificationTransport, ScopeOf
from sensegate.ngsi_ld.parameters import QueryTexts, SelectorTexts, query_from
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.retrieval import EntityQuery
from sensegate.ngsi_ld.series import URN
from sensegate.ngsi_ld.state_notifications import PeriodicNotifications, StateParts, StateSender, StateSubscription
from sensegate.ngsi_ld.stored_entities import RegisteredEntity
from sensegate.ngsi_ld.subscription_tasks import SubscriptionTasks
from sensegate.ngsi_ld.subscriptions import (
    DELIVERY,
    MQTT_SCHEMES,
    PREFIX,
    EntitySubscription,
    SubscriptionDocument,
    key_of,
    notifier_settings,
)
from sensegate.share.feeds import ALL_FEED
from sensegate.share.pushing import PushDelivery
from sensegate.share.subscriptions import (
    CommittedOffset,
    PushSubscription,
    PushSubscriptions,
    SubscriptionSpec,
    SubscriptionState,
    change_offset,
    notify_nobody,
)
from sensegate.share.transports.contract import PushTransport

FORM = "json"
PER_SUBSCRIBER_MAX = 50
ALL_MAX = 2_000
PERIODIC_MAX = 200
"""Most subscriptions with a `timeInterval`."""
_CONTEXT_RETRY_S = 10.0
MaySeeToken = Callable[[str, Principal], bool]
"""(id of a token, caller) -> whether the caller may see and change what belongs to the token."""


class SubscriptionContext(msgspec.Struct, frozen=True, eq=False):
    """The @context of a subscription."""

    terms: LdContext
    url: str = ""
    """Address here, where it stood inside the request."""


class SubscriptionRegistry:
    """Registry of the NGSI-LD subscriptions; `run` delivers their notifications until cancelled."""

    def __init__(
        self,
        store: RecordStore,
        push: PushDelivery,
        trail: Trail,
        contexts: HostedContexts,
        scope_of: ScopeOf,
        may_see_token: MaySeeToken,
        state: StateParts,
    ) -> None:
        """Attach them to a store, which fills them."""
        self._push = push
        self._trail = trail
        self._clock = state.clock
        self._contexts = contexts
        self._scope_of = scope_of
        self._may_see_token = may_see_token
        self._state = state
        self._by_push_id: dict[str, EntitySubscription] = {}
        self._counts: dict[str, SubscriptionCounts] = {}
        self._subscriptions = PushSubscriptions(self._subscription)
        self._tasks = SubscriptionTasks()
        """Notifications of state and of changes."""
        self._changes: dict[str, ChangeNotifications] = {}
        self.records: RecordTable[EntitySubscription] = RecordTable(store, "subscription", EntitySubscription)
        self.records.on_change.append(self._changed)
        self.positions: RecordTable[NotifiedPosition] = RecordTable(store, "notified", NotifiedPosition)
        state.stored.records.on_change.append(self._entity_changed)

    async def run(self) -> None:
        """Deliver notifications of readings until cancelled."""
        await self._subscriptions.run()

    async def run_state(self) -> None:
        """Deliver notifications of state and of changes until cancelled."""
        await self._tasks.run()

    async def remove_orphans(self) -> None:
        """Remove committed offsets of subscriptions that are no more."""
        for name in self._push.offsets.names():
            offset = self._push.offsets.find(name)
            if name.startswith(PREFIX) and name not in self._by_push_id and offset is not None:
                with contextlib.suppress(Conflict):
                    await self._push.offsets.delete(name, expected=offset.revision)
        for name in self.positions.names():
            if name not in self._by_push_id:
                await self.positions.delete(name, expected=None)

    def _changed(self, before: EntitySubscription | None, after: EntitySubscription | None) -> None:
        if after is not None and after.context_url and after.context is not None:
            self._contexts.pin(after.context)
        if before is not None and before.context_url and before.context is not None:
            self._contexts.unpin(before.context)
        if before is not None:
            self._changes.pop(before.push_id, None)
            self._tasks.remove(before.push_id)
            if after is None or not (after.document.isActive and after.document.follows_readings):
                self._subscriptions.remove(before.push_id)
        if after is None:
            if before is not None:
                self._by_push_id.pop(before.push_id, None)
            return
        self._by_push_id[after.push_id] = after
        if not after.document.isActive:
            return
        if after.document.follows_readings:
            self._subscriptions.add(_spec(after))
            if before is not None:
                # The transport is made of the subscription as it was.
                self._subscriptions.restart(after.push_id)
        if after.document.timeInterval is not None or after.feed == ALL_FEED.name:
            self._tasks.put(after.push_id, partial(self._run_state_of, after))

    def _entity_changed(self, before: RegisteredEntity | None, after: RegisteredEntity | None) -> None:
        change = EntityChange(before, after)
        for changes in self._changes.values():
            changes.add(change)

    async def _run_state_of(self, subscription: EntitySubscription) -> None:
        """Deliver the notifications of a subscription that are not of readings, until cancelled."""
        state = self._state_of(subscription)
        while state is None:
            await self._clock.sleep(_CONTEXT_RETRY_S)
            state = self._state_of(subscription)
        if subscription.document.timeInterval is not None:
            await PeriodicNotifications(StateSender(state, self._state)).run()
            return
        changes = ChangeNotifications(StateSender(state, self._state, "-stored"), self.positions)
        self._changes[subscription.push_id] = changes
        await changes.run()

    def _state_of(self, subscription: EntitySubscription) -> StateSubscription | None:
        """Return what notifications of state need; None while its @context is missing, or it cannot be read."""
        try:
            context = self._contexts.resolver.resolve(subscription.context)
            selection = selection_of(subscription.document, context)
            writer, onward = NotificationWriter(subscription, context), self._onward(subscription.document)
        except NgsiError:
            return None
        return StateSubscription(subscription, selection, writer, onward, self._counts_of(subscription))

    def _counts_of(self, subscription: EntitySubscription) -> SubscriptionCounts:
        return self._counts.setdefault(subscription.push_id, SubscriptionCounts())

    def _onward(self, document: SubscriptionDocument) -> PushTransport:
        """Return the transport to the endpoint of a subscription."""
        endpoint = document.notification.endpoint
        if not endpoint.uri.startswith(MQTT_SCHEMES):
            return self._push.poster
        settings = notifier_settings(endpoint)
        return MqttEndpoint(self._push.brokers.transport(qos=settings.qos, version=settings.version))

    def _subscription(self, spec: SubscriptionSpec) -> PushSubscription:
        subscription = self._by_push_id[spec.id]
        transport = DeferredTransport(partial(self._transport, subscription))
        return self._push.subscription(transport, spec, notify_nobody)

    def _transport(self, subscription: EntitySubscription) -> NotificationTransport:
        """Return the transport of a subscription. Raises `NgsiError`: a stored @context is deleted or another one."""
        context = self._contexts.resolver.resolve(subscription.context)
        return NotificationTransport(
            subscription,
            selection_of(subscription.document, context).matches,
            context,
            self._onward(subscription.document),
            self._scope_of,
            self._clock,
            self._counts_of(subscription),
        )

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal, feed: str) -> list[EntitySubscription]:
        """Return the subscriptions to a feed (``all``: to any) of the caller and of the tokens that it may see."""
        return [
            subscription
            for subscription in self.records
            if feed in {subscription.feed, ALL_FEED.name} and self._may_see(principal, subscription)
        ]

    def get(self, principal: Principal, feed: str, name: str) -> EntitySubscription:
        """Return a subscription. Raises `NgsiError`."""
        subscription = self.records.find(key_of(name))
        if (
            subscription is None
            or feed not in {subscription.feed, ALL_FEED.name}
            or not self._may_see(principal, subscription)
        ):
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"you have no subscription '{name[:200]}'")
        return subscription

    def offset(self, subscription: EntitySubscription) -> CommittedOffset:
        """Return the committed offset of a subscription."""
        return self._push.offsets.find(subscription.push_id) or CommittedOffset()

    def counts(self, subscription: EntitySubscription) -> SubscriptionCounts:
        """Return the results of its notifications since this process started."""
        return self._counts.get(subscription.push_id, SubscriptionCounts())

    def _may_see(self, principal: Principal, subscription: EntitySubscription) -> bool:
        return subscription.subscriber == principal.id or self._may_see_token(subscription.subscriber, principal)

    # ── acts ──────────────────────────────────────────────────────────────────────────────────────────

    async def create(
        self,
        principal: Principal,
        feed: str,
        document: SubscriptionDocument,
        context: SubscriptionContext,
        *,
        after: str,
    ) -> EntitySubscription:
        """Create a subscription that starts after a cursor.

        The caller must already be admitted to the feed by webhook.

        Raises:
            NgsiError: it exists, or its address or conditions are invalid.
            Overloaded: there are too many.
        """
        demand(principal, Action.READ_READINGS, principal.scope.division, principal.scope.department, feed=feed)
        self._check(document, context.terms)
        self._demand_interval_room(document)
        mine = sum(subscription.subscriber == principal.id for subscription in self.records.all())
        if len(self.records) >= ALL_MAX or mine >= PER_SUBSCRIBER_MAX:
            raise Overloaded(
                f"at most {PER_SUBSCRIBER_MAX} subscriptions of a token, {ALL_MAX} of a gateway; delete one first"
            )
        name = document.id or f"{URN}Subscription:{secrets.token_hex(12)}"
        if self.records.find(key_of(name)) is not None:
            raise NgsiError(ErrorType.ALREADY_EXISTS, f"{name[:200]}: exists; use another id")
        now = self._clock.now()
        subscription = EntitySubscription(
            id=name,
            feed=feed,
            subscriber=principal.id,
            document=msgspec.structs.replace(document, id=name),
            context=context.terms.source,
            context_url=context.url,
            secret=base64.b64encode(secrets.token_bytes(32)).decode(),
            created=now,
            modified=now,
        )
        await self._trail.record(principal, "ngsi_ld.subscription.create", name, after=_facts(subscription))
        # The offset before the subscription, so that it never starts anywhere else; one that is left is not its own.
        left = self._push.offsets.find(subscription.push_id)
        await self._push.offsets.put(
            subscription.push_id, CommittedOffset(after=after), expected=left.revision if left else 0
        )
        return await self.records.put(key_of(name), subscription, expected=0)

    async def change(
        self,
        principal: Principal,
        before: EntitySubscription,
        document: SubscriptionDocument,
        context: SubscriptionContext,
    ) -> None:
        """Change a subscription; its committed offset stays. Raises as `create`, and `Conflict`."""
        self._check(document, context.terms)
        if before.document.timeInterval is None:
            self._demand_interval_room(document)
        after = msgspec.structs.replace(
            before,
            document=document,
            context=context.terms.source,
            context_url=context.url,
            modified=self._clock.now(),
        )
        await self._trail.record(
            principal, "ngsi_ld.subscription.change", before.id, before=_facts(before), after=_facts(after)
        )
        await self.records.put(key_of(before.id), after, expected=before.revision)
        offset = self.offset(before)
        if document.isActive and offset.state is not SubscriptionState.ACTIVE:
            # What has expired cannot be continued: it goes on with the oldest record.
            expired = {"after": "", "in_flight": 0} if offset.state is SubscriptionState.GONE else {}
            changes = {"state": SubscriptionState.ACTIVE, "reason": "", **expired}
            await change_offset(self._push.offsets, before.push_id, changes)
            self._subscriptions.wake(before.push_id)

    async def delete(self, principal: Principal, subscription: EntitySubscription) -> None:
        """Delete a subscription. Raises `Conflict`."""
        await self._trail.record(principal, "ngsi_ld.subscription.delete", subscription.id, before=_facts(subscription))
        await self.records.delete(key_of(subscription.id), expected=subscription.revision)
        offset = self._push.offsets.find(subscription.push_id)
        if offset is not None:
            with contextlib.suppress(Conflict):  # its task has committed once more; `remove_orphans` removes it
                await self._push.offsets.delete(subscription.push_id, expected=offset.revision)
        if self.positions.find(subscription.push_id) is not None:
            await self.positions.delete(subscription.push_id, expected=None)

    def _demand_interval_room(self, document: SubscriptionDocument) -> None:
        periodic = sum(known.document.timeInterval is not None for known in self.records.all())
        if document.timeInterval is not None and periodic >= PERIODIC_MAX:
            raise Overloaded(f"at most {PERIODIC_MAX} subscriptions of a gateway have a timeInterval; delete one first")

    def _check(self, document: SubscriptionDocument, context: LdContext) -> None:
        try:
            self._onward(document).check(document.notification.endpoint.uri)
        except ConfigError as why:
            raise bad_data(f"body: notification: endpoint: {why}") from None
        # All that its task will read of it: what fails there would fail at every start of the gateway.
        selection_of(document, context)
        notified_form(document, context)


def selection_of(document: SubscriptionDocument, context: LdContext) -> EntityQuery:
    """Return the condition under which a subscription is about an entity. Raises `NgsiError`."""
    geo = document.geoQ
    return query_from(
        QueryTexts(
            selectors=tuple(
                SelectorTexts(
                    tuple(selector.id) if isinstance(selector.id, list) else (selector.id,) if selector.id else (),
                    selector.type,
                    selector.idPattern,
                )
                for selector in document.entities
            ),
            attributes=tuple(document.watchedAttributes),
            q=document.q,
            scope_q=document.scopeQ,
            georel=geo.georel if geo else "",
            geometry=geo.geometry if geo else "",
            coordinates=geo.coordinates if geo else None,
            geoproperty=geo.geoproperty if geo else "",
        ),
        context,
        is_open=True,
    )


def _spec(subscription: EntitySubscription) -> SubscriptionSpec:
    return SubscriptionSpec(
        id=subscription.push_id,
        subscriber=subscription.subscriber,
        feed=subscription.feed,
        delivery=DELIVERY,
        target=subscription.document.notification.endpoint.uri,
        form=FORM,
        secret=base64.b64decode(subscription.secret),
    )


def _facts(subscription: EntitySubscription) -> Facts:
    """Return what the audit trail keeps: everything but the secret and what may be credentials of the endpoint."""
    document = msgspec.to_builtins(subscription.document)
    endpoint = document["notification"]["endpoint"]
    endpoint.pop("receiverInfo", None)
    endpoint["uri"] = re.sub(r"//[^/@]*@", "//", endpoint["uri"])
    return {"feed": subscription.feed, "subscriber": subscription.subscriber, **document}
