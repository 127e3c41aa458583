"""Push subscriptions: they deliver a feed to one subscriber by webhook, MQTT or NATS from a committed offset.

    offset ─▶ records after it ─▶ delivery ─▶ accepted? ─▶ offset

A delivery holds the records that follow the committed offset; their number is stored before it is sent. After any crash
the same delivery is therefore built again, with the same id, and the subscriber recognises the repetition. Each
subscription is a task of its own, so that a slow or dead subscriber delays no other. The offset is committed only when
the delivery was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum

import msgspec
import structlog

from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.clock import Clock
from sensegate.errors import Conflict, Gone, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share.consumers import ActiveConsumers, ConsumerInfo
from sensegate.share.cursor import BadCursor
from sensegate.share.delivery import FeedPage
from sensegate.share.pages import FeedPages
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport

BATCH_RECORDS = 1_000
DEFAULT_TAG = "records"
PROBLEM_TAG = "problem"
"""Last level of the subject on which the subscriber gets the reason why its delivery stopped."""
MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "msgpack": "application/vnd.msgpack",
    "senml": "application/senml+json",
    "line": "text/plain; charset=utf-8",
}
"""Form of pushed records -> media type."""
_IDLE_COMMIT_S = 60.0
"""Commit interval while no record matches, so that a restart need not scan the log again."""
_RETRY_S = 1.0
_REFUSED_S = 1.0
_WAIT_MAX_S = 30.0
_QUOTA_S = 2.0
"""Longest wait when the quota is used up: the owner of the data may raise it at any time."""

_log = structlog.get_logger(__name__)


class SubscriptionState(StrEnum):
    """State of a push subscription: whether it continues by itself."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Paused by its owner or after too many failures; its owner resumes it at the committed offset."""
    ENDED = "ended"
    """The receiver has ended the subscription."""
    GONE = "gone"
    """Records after its offset have expired: its owner chooses where to continue."""


class CommittedOffset(msgspec.Struct, frozen=True, omit_defaults=True):
    """Committed offset of a push subscription, with its state."""

    after: str = ""
    """Cursor after the last accepted record; empty: not started."""
    in_flight: int = 0
    """Number of records of the delivery in flight; 0: none."""
    state: SubscriptionState = SubscriptionState.ACTIVE
    reason: str = ""
    form: str = ""
    """Form chosen by the subscriber; empty: that of the specification."""
    home_assistant: bool = False
    """True if the subscriber asked for configurations for Home Assistant."""
    revision: int = 0
    format: int = 1


class SubscriptionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Specification of a push subscription."""

    id: str
    subscriber: str
    """Id of the token that reads."""
    feed: str
    delivery: str
    target: str
    form: str = "json"
    batch: int = BATCH_RECORDS
    algorithm: str = "hmac-sha256"
    secret: bytes = b""
    tagged: bool = False
    """`target` is a subject; its last level is the subscriber's tag, or ``records``."""
    tag: str = ""
    """Chosen by the subscriber for its connection; empty: `DEFAULT_TAG`."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """Retry policy after failed deliveries (`egress` in the configuration)."""

    initial_wait_s: float = 1.0
    """Wait after the first failure; doubled with each further one, less a random part."""
    wait_max_s: float = 300.0
    failures_max: int = 12
    """Consecutive failures that pause the subscription; with the waits above after about 25 minutes."""
    unavailable_s: float = 0.5
    """Interval between attempts while no subscriber listens."""


OpenPages = Callable[[SubscriptionSpec, str, str], Awaitable[FeedPages]]
"""(specification, form, cursor or empty) -> pages of the feed. Raises as `Sharing.open_pages`."""
Meter = Callable[[SubscriptionSpec, FeedPage], None]
Reserve = Callable[[SubscriptionSpec, FeedPage], contextlib.AbstractAsyncContextManager[None]]
"""Context in which a page is sent and metered (`Metering.reserve`)."""

NotifyExpired = Callable[[SubscriptionSpec, str, str], Awaitable[None]]
"""(specification, reason, oldest valid cursor): tells the subscriber that its offset has expired."""


async def notify_nobody(_spec: SubscriptionSpec, _reason: str, _first: str) -> None:
    """Do nothing: owners of webhooks query the state."""


class PushParts(msgspec.Struct, frozen=True, eq=False):
    """Parts that all push subscriptions of a gateway share."""

    offsets: RecordTable[CommittedOffset]
    open_pages: OpenPages
    clock: Clock
    consumers: ActiveConsumers
    meter: Meter
    retry: RetryPolicy
    reserve: Reserve = lambda _spec, _page: contextlib.nullcontext()


class PushSubscription:
    """A push subscription; `run` is its task."""

    def __init__(
        self,
        spec: SubscriptionSpec,
        transport: PushTransport,
        parts: PushParts,
        *,
        notify_expired: NotifyExpired = notify_nobody,
        random_: Callable[[], float] = random.random,
    ) -> None:
        """`notify_expired`: tells the subscriber that its offset has expired, where a delivery cannot."""
        self.spec = spec
        self._transport = transport
        self._offsets = parts.offsets
        self._open_pages = parts.open_pages
        self._clock = parts.clock
        self._consumers = parts.consumers
        self._meter = parts.meter
        self._reserve = parts.reserve
        self._retry = parts.retry
        self._notify_expired = notify_expired
        self._random = random_
        self._batch = spec.batch
        """Most records of a delivery; reduced once one was too large."""
        self._known_revision = 0
        """Revision of the committed offset that this task has read or written."""
        self._changed = asyncio.Event()

    @property
    def offset(self) -> CommittedOffset:
        """Committed offset."""
        return self._offsets.find(self.spec.id) or CommittedOffset()

    def wake(self) -> None:
        """End a wait: the committed offset or the subscriber's connection has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        with self._registered() as consumer:
            while True:
                offset = self.offset
                self._known_revision = offset.revision
                if offset.state is not SubscriptionState.ACTIVE:
                    consumer.state, consumer.reason = offset.state.value, offset.reason
                    await self._pause(_WAIT_MAX_S)
                    continue
                await self._pause(await self._attempt(offset, consumer))

    @contextlib.contextmanager
    def _registered(self) -> Iterator[ConsumerInfo]:
        spec = self.spec
        consumer = self._consumers.add(spec.subscriber, spec.feed, spec.delivery, name=spec.id)
        try:
            yield consumer
        finally:
            self._consumers.remove(consumer)

    async def _attempt(self, offset: CommittedOffset, consumer: ConsumerInfo) -> float:
        """Deliver until something prevents it; return how long to wait."""
        try:
            await self._deliver(offset, consumer)
        except (PermissionDenied, NotFound) as why:
            consumer.state, consumer.reason = "refused", str(why)
            return _REFUSED_S
        except Overloaded as why:
            consumer.state, consumer.reason = "waiting", str(why)
            return min(why.retry_after_s, _QUOTA_S)
        except (Gone, BadCursor) as why:
            first = why.first if isinstance(why, Gone) else ""
            await self._stop(SubscriptionState.GONE, f"{why}; first: {first}" if first else str(why), consumer)
            await self._notify_expired(self.spec, str(why), first)
        except Conflict:
            pass  # its owner has changed the offset: read it again
        except (Unavailable, StoreFull) as why:
            consumer.reason = str(why)
            _log.debug("push subscription waits", subscription=self.spec.id, reason=str(why))
            return _RETRY_S
        return 0.0

    async def _stop(self, state: SubscriptionState, reason: str, consumer: ConsumerInfo) -> None:
        consumer.state, consumer.reason = state.value, reason
        try:
            await self._commit(state=state, reason=reason[:500], in_flight=0)
        except (Conflict, Unavailable, StoreFull) as error:
            _log.debug("push subscription not stopped yet", subscription=self.spec.id, reason=str(error))
        else:
            _log.info(
                "push subscription stopped",
                subscription=self.spec.id,
                delivery=self.spec.delivery,
                state=state.value,
                reason=reason,
            )

    # ── delivery ────────────────────────────────────────────────────────────────────────────────────────

    async def _deliver(self, offset: CommittedOffset, consumer: ConsumerInfo) -> None:
        """Deliver until the committed offset is changed from outside, or the subscription stops."""
        form = offset.form or self.spec.form
        pages = await self._open_pages(self.spec, form, offset.after)
        consumer.state, consumer.reason, consumer.offset = "live", "", pages.cursor
        if not offset.after:
            offset = await self._commit(after=str(pages.cursor))
        done, committed_at = offset.after, self._clock.monotonic()
        while not self._superseded():
            pending = done != offset.after
            # The offset after the last delivery is committed together with the next delivery: one write for both.
            try:
                wait_s = 0.0 if pending else _RETRY_S
                page = await pages.next(offset.in_flight or self._batch, wait_s, patient=bool(offset.in_flight))
            except (Overloaded, PermissionDenied, NotFound):
                if pending:
                    await self._commit(after=done, in_flight=0)  # or the accepted delivery would be repeated
                raise
            if not page.count:
                consumer.offset = pages.cursor
                if offset.in_flight or pending:
                    offset = await self._commit(after=done, in_flight=0)
                elif self._clock.monotonic() - committed_at >= _IDLE_COMMIT_S and str(pages.cursor) != done:
                    done, committed_at = str(pages.cursor), self._clock.monotonic()
                    offset = await self._commit(after=done, in_flight=0)
                continue
            accepted = False
            try:
                if pending or offset.in_flight != page.count:
                    offset = await self._commit(after=done, in_flight=page.count)
                async with self._reserve(self.spec, page):
                    accepted = await self._send(self._delivery_of(offset, page, form), page, pages, consumer)
            finally:
                if not accepted:
                    pages.undo()
            if not accepted:
                return
            done, offset = page.next, msgspec.structs.replace(offset, in_flight=0)
            consumer.offset, consumer.grant = pages.cursor, page.grant

    def _delivery_of(self, offset: CommittedOffset, page: FeedPage, form: str) -> OutboundDelivery:
        spec = self.spec
        number = hashlib.blake2s(f"{spec.id} {offset.after} {page.count}".encode(), digest_size=16).hexdigest()
        headers = (("sensegate-feed", spec.feed), ("sensegate-next", page.next), ("sensegate-after", offset.after))
        return OutboundDelivery(
            target=f"{spec.target}.{spec.tag or DEFAULT_TAG}" if spec.tagged else spec.target,
            id=f"msg_{number}",
            body=page.body,
            media=MEDIA_TYPES[form],
            headers=headers,
            algorithm=spec.algorithm,
            secret=spec.secret,
        )

    async def _send(self, delivery: OutboundDelivery, page: FeedPage, pages: FeedPages, consumer: ConsumerInfo) -> bool:
        """Send until the delivery is accepted; False: the subscription stops, or its offset has changed."""
        consumer.failures = 0
        while not self._superseded():
            pages.check()
            result = await self._transport.send(delivery)
            if result.accepted:
                consumer.state, consumer.reason, consumer.failures = "live", "", 0
                if result.records is not None:
                    pages.keep(result.records)
                    page = msgspec.structs.replace(page, count=result.records)
                if page.count:
                    consumer.delivered(page.count, self._clock.now())
                    self._meter(self.spec, page)
                return True
            if result.gone:
                await self._stop(SubscriptionState.ENDED, result.reason, consumer)
                return False
            if result.too_large and page.count > 1:
                self._batch = page.count // 2
                await self._commit(in_flight=self._batch)
                return False
            if result.unavailable:
                consumer.state, consumer.reason = "waiting", result.reason
                await self._pause(result.retry_after_s or self._retry.unavailable_s)
                continue
            consumer.failures += 1
            if consumer.failures >= self._retry.failures_max:
                await self._stop(
                    SubscriptionState.PAUSED, f"{consumer.failures} failures in a row: {result.reason}", consumer
                )
                return False
            consumer.state, consumer.reason = "retrying", result.reason
            await self._pause(self._back_off(consumer.failures, result))
        return False

    def _back_off(self, failures: int, result: DeliveryResult) -> float:
        limits = self._retry
        longest = min(limits.initial_wait_s * 2.0 ** min(failures - 1, 30), limits.wait_max_s)
        return max(result.retry_after_s, longest * (0.5 + self._random() / 2))

    # ── committed offset ────────────────────────────────────────────────────────────────────────────────

    def _superseded(self) -> bool:
        """Return whether the committed offset was changed from outside."""
        return self.offset.revision != self._known_revision

    async def _commit(self, **changes: object) -> CommittedOffset:
        offset = msgspec.structs.replace(self.offset, **changes)
        if offset.revision != self._known_revision:
            raise Conflict(f"subscription {self.spec.id} was changed meanwhile")
        stored = await self._offsets.put(self.spec.id, offset, expected=offset.revision)
        self._known_revision = stored.revision
        self._changed.clear()  # this task made the change
        return stored

    async def _pause(self, seconds: float) -> None:
        """Wait for a time, or until `wake`."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._changed.clear()


class PushSubscriptions:
    """Push subscriptions of one delivery, each in a task; `add` and `remove` change the set."""

    def __init__(self, create: Callable[[SubscriptionSpec], PushSubscription], *, wait_for_start: bool = False) -> None:
        """`wait_for_start`: a subscription runs only once its subscriber has chosen its offset (`start`)."""
        self._create = create
        self._wait_for_start = wait_for_start
        self._started: set[str] = set()
        self._stale: set[str] = set()
        self._tags: dict[str, str] = {}
        """Tags of present connections."""
        self._tasks: dict[str, tuple[PushSubscription, asyncio.Task[None]]] = {}
        self._specs: dict[str, SubscriptionSpec] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, spec: SubscriptionSpec) -> None:
        """Add a subscription or replace its specification."""
        if self._specs.get(spec.id) != spec:
            self._specs[spec.id] = spec
            self._changed.set()
        self.wake(spec.id)

    def remove(self, subscription_id: str) -> None:
        """Remove a subscription."""
        self._started.discard(subscription_id)
        self._tags.pop(subscription_id, None)
        if self._specs.pop(subscription_id, None) is not None:
            self._changed.set()

    def start(self, subscription_id: str) -> None:
        """Run a subscription, as soon as it is added: its subscriber has chosen its offset."""
        self._started.add(subscription_id)
        self._changed.set()
        self.wake(subscription_id)

    def set_tag(self, subscription_id: str, tag: str) -> None:
        """Deliver under a tag until the subscriber reconnects; empty: under `DEFAULT_TAG` again."""
        self._tags[subscription_id] = tag
        self._changed.set()

    def restart(self, subscription_id: str) -> None:
        """Restart a subscription after its subscriber has reconnected: deliveries in flight are lost, and its tag.

        With `wait_for_start` it waits for `start`.
        """
        self._started.discard(subscription_id)
        self._tags.pop(subscription_id, None)
        self._stale.add(subscription_id)
        self._changed.set()

    @property
    def started(self) -> frozenset[str]:
        """Ids of the subscriptions whose subscribers have chosen an offset."""
        return frozenset(self._started)

    def has(self, spec: SubscriptionSpec) -> bool:
        """Return whether a subscription exists with exactly this specification."""
        return self._specs.get(spec.id) == spec

    def ids(self) -> frozenset[str]:
        """Return the ids of all subscriptions."""
        return frozenset(self._specs)

    def wake(self, subscription_id: str) -> None:
        """Have a subscription read its committed offset."""
        if (running := self._tasks.get(subscription_id)) is not None:
            running[0].wake()

    async def run(self) -> None:
        """Run the subscriptions until cancelled; an unexpected error in one ends all, so that it is noticed."""
        try:
            while True:
                await self._reconcile()
                waiting = asyncio.ensure_future(self._changed.wait())
                tasks: set[asyncio.Future[object]] = {waiting, *(task for _, task in self._tasks.values())}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                self._changed.clear()
                for _, task in self._tasks.values():
                    if task in done:
                        task.result()
        finally:
            await self._cancel(list(self._tasks))

    async def _reconcile(self) -> None:
        due = {
            name: msgspec.structs.replace(spec, tag=self._tags.get(name, ""))
            for name, spec in self._specs.items()
            if not self._wait_for_start or name in self._started
        }
        stale, self._stale = self._stale, set()
        await self._cancel(
            [
                name
                for name, (subscription, _) in self._tasks.items()
                if name in stale or due.get(name) != subscription.spec
            ]
        )
        for name, spec in due.items():
            if name not in self._tasks:
                subscription = self._create(spec)
                self._tasks[name] = (subscription, asyncio.create_task(subscription.run(), name=f"push {name}"))

    async def _cancel(self, names: list[str]) -> None:
        tasks = [self._tasks.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class OrphanedOffsets:
    """Removes committed offsets whose grant or webhook no longer exists."""

    def __init__(self, offsets: RecordTable[CommittedOffset], has_owner: Callable[[str], bool]) -> None:
        """`has_owner`: whether a grant or webhook exists for the id of a subscription."""
        self._offsets = offsets
        self._has_owner = has_owner
        self._orphans: frozenset[str] = frozenset()

    async def remove(self) -> int:
        """Remove offsets without an owner now and at the last call: an offset is written before its owner."""
        ids = frozenset(name for name in self._offsets.names() if not self._has_owner(name))
        orphans = ids & self._orphans
        self._orphans = ids - orphans
        for name in orphans:
            offset = self._offsets.find(name)
            if offset is not None:
                with contextlib.suppress(Conflict):
                    await self._offsets.delete(name, expected=offset.revision)
        return len(orphans)


async def change_offset(
    offsets: RecordTable[CommittedOffset], name: str, changes: Mapping[str, object]
) -> CommittedOffset:
    """Change a committed offset from outside the subscription's task, which writes it too; return it.

    Raises:
        Conflict: the task commits too often.
    """
    for _ in range(20):
        offset = offsets.find(name) or CommittedOffset()
        try:
            return await offsets.put(name, msgspec.structs.replace(offset, **changes), expected=offset.revision)
        except Conflict:
            await asyncio.sleep(0)
    raise Conflict(f"subscription {name} commits too often; try again")


CurrentPrincipal = Callable[[str], Principal]
"""(id of a token) -> its current principal (`authority.tokens.Tokens.of`). Raises `PermissionDenied`."""
