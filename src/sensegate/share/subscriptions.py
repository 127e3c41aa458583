"""Lines: what pushes a feed to one subscriber by webhook, MQTT or NATS, from a place that is kept.

    mark ─▶ pages after it ─▶ letter ─▶ taken? ─▶ mark

A letter is made of the records that follow the mark; how many is kept before it is sent. So after any crash the same
letter is made again, with the same id, and a subscriber who has it already knows it. Each line is a task of its own:
one that is slow or dead holds up nobody. The mark moves on only when the letter was taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec
import structlog

from sensegate.authority.scope import Principal
from sensegate.authority.shelf import Records
from sensegate.clock import Clock
from sensegate.errors import Conflict, Gone, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ports import DeliveryResult, OutboundDelivery, PushTransport
from sensegate.share.consumers import ActiveConsumers, ConsumerInfo
from sensegate.share.cursor import BadCursor, Cursor

BATCH_RECORDS = 1_000
DEFAULT_TAG = "records"
PROBLEM_TAG = "problem"
"""Last level of the subject on which a subscriber is told why nothing comes."""
MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "msgpack": "application/vnd.msgpack",
    "senml": "application/senml+json",
}
"""Forms in which records are pushed."""
_IDLE_COMMIT_S = 60.0
"""A quiet line keeps its place so often, so that after a restart it need not look through all of the log again."""
_RETRY_S = 1.0
_REFUSED_S = 1.0
_WAIT_MAX_S = 30.0
_QUOTA_S = 2.0
"""Used up: the owner of the data may allow more at any time."""

_log = structlog.get_logger(__name__)


class SubscriptionState(StrEnum):
    """Whether a line goes on by itself."""

    ACTIVE = "on"
    PAUSED = "paused"
    """By its owner, or after too many failures; resumed by its owner, from where it stood."""
    ENDED = "ended"
    """The receiver wants no more."""
    GONE = "gone"
    """What follows its place has expired: its owner says where to go on."""


class CommittedOffset(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a line stands, on the shelf."""

    after: str = ""
    """Cursor after the last record that was taken; empty: it has not begun."""
    in_flight: int = 0
    """Records of the letter that is on its way; 0: none is."""
    state: SubscriptionState = SubscriptionState.ACTIVE
    reason: str = ""
    form: str = ""
    """Chosen by the subscriber; empty: as the terms say."""
    tag: str = ""
    """Chosen by the subscriber: last level of the subject."""
    revision: int = 0
    format: int = 1


class SubscriptionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a line is."""

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


class RetryPolicy(msgspec.Struct, frozen=True):
    """How failures are met (`egress` of the configuration)."""

    initial_wait_s: float = 1.0
    """Wait after the first failure; doubled with each further one, less a part by chance."""
    wait_max_s: float = 300.0
    failures_max: int = 12
    """So many in a row pause the line; with the waits above that is about 25 minutes."""
    unavailable_s: float = 0.5
    """So often it is looked whether somebody listens."""


class Page(Protocol):
    """Some records."""

    @property
    def body(self) -> bytes: ...

    @property
    def count(self) -> int: ...

    @property
    def next(self) -> str: ...

    @property
    def grant(self) -> str: ...


class Pages(Protocol):
    """A feed page by page (`share.pages.Pages`)."""

    place: Cursor

    def check(self) -> None: ...

    async def next(self, limit: int, wait_s: float = 1.0, *, patient: bool = False) -> Page: ...

    def drop(self) -> None: ...


OpenPages = Callable[[SubscriptionSpec, str, str], Awaitable[Pages]]
"""(terms, form, cursor or nothing) -> the feed for the line's subscriber. Raises as `Sharing.open_pages`."""
Meter = Callable[[SubscriptionSpec, Page], None]
Reserve = Callable[[SubscriptionSpec, Page], contextlib.AbstractAsyncContextManager[None]]
"""Entered before a page is sent, left when it was taken and metered, or will not be."""

NotifyExpired = Callable[[SubscriptionSpec, str, str], Awaitable[None]]
"""(terms, why nothing comes, the first cursor that is good)."""


async def notify_nobody(_terms: SubscriptionSpec, _why: str, _first: str) -> None:
    """Tell nobody: whose line it is, looks."""


class PushSubscription:
    """One of them; `run` is its task."""

    def __init__(
        self,
        spec: SubscriptionSpec,
        offsets: Records[CommittedOffset],
        open_pages: OpenPages,
        transport: PushTransport,
        clock: Clock,
        *,
        consumers: ActiveConsumers,
        meter: Meter,
        retry: RetryPolicy,
        reserve: Reserve = lambda _terms, _page: contextlib.nullcontext(),
        notify_expired: NotifyExpired = notify_nobody,
        random_: Callable[[], float] = random.random,
    ) -> None:
        """`told`: tells the subscriber that what follows its place has expired, where a letter cannot."""
        self.spec = spec
        self._offsets = offsets
        self._open_pages = open_pages
        self._transport = transport
        self._clock = clock
        self._consumers = consumers
        self._meter = meter
        self._reserve = reserve
        self._retry = retry
        self._notify_expired = notify_expired
        self._random = random_
        self._batch = spec.batch
        """Most records of one letter; fewer, once one was too large."""
        self._known_revision = 0
        """Revision of the mark as this line knows it."""
        self._changed = asyncio.Event()

    @property
    def offset(self) -> CommittedOffset:
        """Where it stands by the shelf."""
        return self._offsets.find(self.spec.id) or CommittedOffset()

    def wake(self) -> None:
        """Look at the mark, or for the subscriber, now: something has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        with self._registered() as standing:
            while True:
                mark = self.offset
                self._known_revision = mark.revision
                if mark.state is not SubscriptionState.ACTIVE:
                    standing.state, standing.reason = mark.state.value, mark.reason
                    await self._pause(_WAIT_MAX_S)
                    continue
                await self._pause(await self._attempt(mark, standing))

    @contextlib.contextmanager
    def _registered(self) -> Iterator[ConsumerInfo]:
        terms = self.spec
        standing = self._consumers.add(terms.subscriber, terms.feed, terms.delivery, name=terms.id)
        try:
            yield standing
        finally:
            self._consumers.remove(standing)

    async def _attempt(self, mark: CommittedOffset, standing: ConsumerInfo) -> float:
        """Deliver until something stands against it; return how long to rest."""
        try:
            await self._deliver(mark, standing)
        except (PermissionDenied, NotFound) as why:
            standing.state, standing.reason = "refused", str(why)
            return _REFUSED_S
        except Overloaded as why:
            standing.state, standing.reason = "waiting", str(why)
            return min(why.retry_after_s, _QUOTA_S)
        except (Gone, BadCursor) as why:
            first = why.first if isinstance(why, Gone) else ""
            await self._stop(SubscriptionState.GONE, f"{why}; first: {first}" if first else str(why), standing)
            await self._notify_expired(self.spec, str(why), first)
        except Conflict:
            pass  # its owner has changed the mark: looked at anew
        except (Unavailable, StoreFull) as why:
            standing.reason = str(why)
            _log.debug("a line waits", line=self.spec.id, cause=str(why))
            return _RETRY_S
        return 0.0

    async def _stop(self, state: SubscriptionState, why: str, standing: ConsumerInfo) -> None:
        standing.state, standing.reason = state.value, why
        try:
            await self._commit(state=state, why=why[:500], sending=0)
        except (Conflict, Unavailable, StoreFull) as again:
            _log.debug("a line is not ended yet", line=self.spec.id, cause=str(again))
        else:
            _log.info("a line stopped", line=self.spec.id, delivery=self.spec.delivery, state=state.value, why=why)

    # ── delivering ────────────────────────────────────────────────────────────────────────────────────

    async def _deliver(self, mark: CommittedOffset, standing: ConsumerInfo) -> None:
        """Deliver until the mark is changed by another, or the line stops."""
        form = mark.form or self.spec.form
        pages = await self._open_pages(self.spec, form, mark.after)
        standing.state, standing.reason, standing.offset = "live", "", pages.place
        if not mark.after:
            mark = await self._commit(after=str(pages.place))
        done, kept_at = mark.after, self._clock.monotonic()
        while not self._superseded():
            pending = done != mark.after
            # The mark of the last letter waits for the next one, if there is one: one write for both.
            try:
                wait_s = 0.0 if pending else _RETRY_S
                page = await pages.next(mark.in_flight or self._batch, wait_s, patient=bool(mark.in_flight))
            except (Overloaded, PermissionDenied, NotFound):
                if pending:
                    await self._commit(after=done, sending=0)  # else that letter would come again
                raise
            if not page.count:
                standing.offset = pages.place
                if mark.in_flight or pending:
                    mark = await self._commit(after=done, sending=0)
                elif self._clock.monotonic() - kept_at >= _IDLE_COMMIT_S and str(pages.place) != done:
                    done, kept_at = str(pages.place), self._clock.monotonic()
                    mark = await self._commit(after=done, sending=0)
                continue
            arrived = False
            try:
                if pending or mark.in_flight != page.count:
                    mark = await self._commit(after=done, sending=page.count)
                async with self._reserve(self.spec, page):
                    arrived = await self._send(self._delivery_of(mark, page, form), page, pages, standing)
            finally:
                if not arrived:
                    pages.drop()
            if not arrived:
                return
            done, mark = page.next, msgspec.structs.replace(mark, sending=0)
            standing.offset, standing.grant = pages.place, page.grant

    def _delivery_of(self, mark: CommittedOffset, page: Page, form: str) -> OutboundDelivery:
        terms = self.spec
        number = hashlib.blake2s(f"{terms.id} {mark.after} {page.count}".encode(), digest_size=16).hexdigest()
        headers = (("sensegate-feed", terms.feed), ("sensegate-next", page.next), ("sensegate-after", mark.after))
        return OutboundDelivery(
            target=f"{terms.target}.{mark.tag or DEFAULT_TAG}" if terms.tagged else terms.target,
            id=f"msg_{number}",
            body=page.body,
            media=MEDIA_TYPES[form],
            headers=headers,
            algorithm=terms.algorithm,
            secret=terms.secret,
        )

    async def _send(self, letter: OutboundDelivery, page: Page, pages: Pages, standing: ConsumerInfo) -> bool:
        """Send until it is taken; False: the line stops or begins elsewhere."""
        standing.failures = 0
        while not self._superseded():
            pages.check()
            receipt = await self._transport.send(letter)
            if receipt.accepted:
                standing.state, standing.reason, standing.failures = "live", "", 0
                standing.delivered(page.count, self._clock.now())
                self._meter(self.spec, page)
                return True
            if receipt.gone:
                await self._stop(SubscriptionState.ENDED, receipt.reason, standing)
                return False
            if receipt.too_large and page.count > 1:
                self._batch = page.count // 2
                await self._commit(sending=self._batch)
                return False
            if receipt.unavailable:
                standing.state, standing.reason = "waiting", receipt.reason
                await self._pause(receipt.retry_after_s or self._retry.unavailable_s)
                continue
            standing.failures += 1
            if standing.failures >= self._retry.failures_max:
                await self._stop(
                    SubscriptionState.PAUSED, f"{standing.failures} failures in a row: {receipt.reason}", standing
                )
                return False
            standing.state, standing.reason = "retrying", receipt.reason
            await self._pause(self._back_off(standing.failures, receipt))
        return False

    def _back_off(self, failures: int, receipt: DeliveryResult) -> float:
        limits = self._retry
        longest = min(limits.initial_wait_s * 2.0 ** min(failures - 1, 30), limits.wait_max_s)
        return max(receipt.retry_after_s, longest * (0.5 + self._random() / 2))

    # ── the mark ──────────────────────────────────────────────────────────────────────────────────────

    def _superseded(self) -> bool:
        """Return whether another has changed the mark."""
        return self.offset.revision != self._known_revision

    async def _commit(self, **changes: object) -> CommittedOffset:
        mark = msgspec.structs.replace(self.offset, **changes)
        if mark.revision != self._known_revision:
            raise Conflict(f"line {self.spec.id} was changed meanwhile")
        kept = await self._offsets.put(self.spec.id, mark, expected=mark.revision)
        self._known_revision = kept.revision
        self._changed.clear()  # it was us
        return kept

    async def _pause(self, seconds: float) -> None:
        """Wait, or until woken."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._changed.clear()


class PushSubscriptions:
    """The lines of one delivery, each in a task; `add` says which there are to be."""

    def __init__(self, create: Callable[[SubscriptionSpec], PushSubscription], *, wait_for_start: bool = False) -> None:
        """`asked`: a line runs only once its subscriber has said where it begins (`start`)."""
        self._create = create
        self._wait_for_start = wait_for_start
        self._started: set[str] = set()
        self._stale: set[str] = set()
        self._tasks: dict[str, tuple[PushSubscription, asyncio.Task[None]]] = {}
        self._specs: dict[str, SubscriptionSpec] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, spec: SubscriptionSpec) -> None:
        """Have a line, with these terms."""
        if self._specs.get(spec.id) != spec:
            self._specs[spec.id] = spec
            self._changed.set()
        self.wake(spec.id)

    def remove(self, subscription_id: str) -> None:
        """Have it no more."""
        self._started.discard(subscription_id)
        if self._specs.pop(subscription_id, None) is not None:
            self._changed.set()

    def start(self, subscription_id: str) -> None:
        """Its subscriber has said where it begins; it runs as soon as it is wanted."""
        self._started.add(subscription_id)
        self._changed.set()
        self.wake(subscription_id)

    def restart(self, subscription_id: str) -> None:
        """Its subscriber has come anew: what is on its way reaches him no more. It begins again, or when he says so."""
        self._started.discard(subscription_id)
        self._stale.add(subscription_id)
        self._changed.set()

    @property
    def started(self) -> frozenset[str]:
        """Return the ids of the lines whose subscribers have said where they begin."""
        return frozenset(self._started)

    def has(self, spec: SubscriptionSpec) -> bool:
        """Return whether a line with just these terms is wanted already."""
        return self._specs.get(spec.id) == spec

    def ids(self) -> frozenset[str]:
        """Return the ids of all that are to be there."""
        return frozenset(self._specs)

    def wake(self, subscription_id: str) -> None:
        """Have a line look at its mark."""
        if (running := self._tasks.get(subscription_id)) is not None:
            running[0].wake()

    async def run(self) -> None:
        """Run them until cancelled; a bug in one ends all, so that it is seen."""
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
        due = {name: terms for name, terms in self._specs.items() if not self._wait_for_start or name in self._started}
        stale, self._stale = self._stale, set()
        await self._cancel(
            [name for name, (line, _) in self._tasks.items() if name in stale or due.get(name) != line.spec]
        )
        for name, terms in due.items():
            if name not in self._tasks:
                line = self._create(terms)
                self._tasks[name] = (line, asyncio.create_task(line.run(), name=f"line {name}"))

    async def _cancel(self, names: list[str]) -> None:
        tasks = [self._tasks.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class OrphanedOffsets:
    """Removes the places of lines that are no more: of grants that were pruned, of webhooks that were removed."""

    def __init__(self, marks: Records[CommittedOffset], owned: Callable[[str], bool]) -> None:
        """`owned`: whether there is a grant or webhook to which a line's id belongs."""
        self._offsets = marks
        self._owned = owned
        self._orphans: frozenset[str] = frozenset()

    async def remove(self) -> int:
        """Remove those that had no owner the last time either: a place is written before what it is for."""
        ids = frozenset(name for name in self._offsets.names() if not self._owned(name))
        gone = ids & self._orphans
        self._orphans = ids - gone
        for name in gone:
            mark = self._offsets.find(name)
            if mark is not None:
                with contextlib.suppress(Conflict):
                    await self._offsets.delete(name, expected=mark.revision)
        return len(gone)


async def change_offset(offsets: Records[CommittedOffset], name: str, changes: Mapping[str, object]) -> CommittedOffset:
    """Change a mark from outside its line, which writes it too; return it.

    Raises:
        Conflict: the line moves on too fast.
    """
    for _ in range(20):
        mark = offsets.find(name) or CommittedOffset()
        try:
            return await offsets.put(name, msgspec.structs.replace(mark, **changes), expected=mark.revision)
        except Conflict:
            await asyncio.sleep(0)
    raise Conflict(f"line {name} moves on too fast; try again")


CurrentPrincipal = Callable[[str], Principal]
"""(id of a token) -> whom it stands for as of now (`authority.tokens.Tokens.of`). Raises `PermissionDenied`."""
