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

from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.clock import Clock
from sensegate.errors import Conflict, Gone, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ports import Letter, Post, Receipt
from sensegate.share.cursor import BadCursor, Cursor
from sensegate.share.roll import Roll, Standing

BATCH = 1_000
TAG = "records"
PROBLEM = "problem"
"""Last level of the subject on which a subscriber is told why nothing comes."""
MEDIA = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "msgpack": "application/vnd.msgpack",
    "senml": "application/senml+json",
}
"""Forms in which records are pushed."""
_QUIET_S = 60.0
"""A quiet line keeps its place so often, so that after a restart it need not look through all of the log again."""
_AGAIN_S = 1.0
_REFUSED_S = 1.0
_WAIT_MAX_S = 30.0
_QUOTA_S = 2.0
"""Used up: the owner of the data may allow more at any time."""

_log = structlog.get_logger(__name__)


class State(StrEnum):
    """Whether a line goes on by itself."""

    ON = "on"
    PAUSED = "paused"
    """By its owner, or after too many failures; resumed by its owner, from where it stood."""
    ENDED = "ended"
    """The receiver wants no more."""
    GONE = "gone"
    """What follows its place has expired: its owner says where to go on."""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a line stands, on the shelf."""

    after: str = ""
    """Cursor after the last record that was taken; empty: it has not begun."""
    sending: int = 0
    """Records of the letter that is on its way; 0: none is."""
    state: State = State.ON
    why: str = ""
    form: str = ""
    """Chosen by the subscriber; empty: as the terms say."""
    tag: str = ""
    """Chosen by the subscriber: last level of the subject."""
    revision: int = 0
    format: int = 1


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a line is."""

    id: str
    subscriber: str
    """Id of the token that reads."""
    feed: str
    delivery: str
    to: str
    form: str = "json"
    batch: int = BATCH
    algorithm: str = "hmac-sha256"
    secret: bytes = b""
    tagged: bool = False
    """`to` is a subject; its last level is the subscriber's tag, or ``records``."""


class Limits(msgspec.Struct, frozen=True):
    """How failures are met (`egress` of the configuration)."""

    first_s: float = 1.0
    """Wait after the first failure; doubled with each further one, less a part by chance."""
    longest_s: float = 300.0
    failures_max: int = 12
    """So many in a row pause the line; with the waits above that is about 25 minutes."""
    absent_s: float = 0.5
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


Opened = Callable[[Terms, str, str], Awaitable[Pages]]
"""(terms, form, cursor or nothing) -> the feed for the line's subscriber. Raises as `Sharing.open_pages`."""
Metered = Callable[[Terms, Page], None]
Covered = Callable[[Terms, Page], contextlib.AbstractAsyncContextManager[None]]
"""Entered before a page is sent, left when it was taken and metered, or will not be."""

Told = Callable[[Terms, str, str], Awaitable[None]]
"""(terms, why nothing comes, the first cursor that is good)."""


async def nobody(_terms: Terms, _why: str, _first: str) -> None:
    """Tell nobody: whose line it is, looks."""


class Line:
    """One of them; `run` is its task."""

    def __init__(
        self,
        terms: Terms,
        marks: RecordTable[Mark],
        opened: Opened,
        post: Post,
        clock: Clock,
        *,
        roll: Roll,
        metered: Metered,
        limits: Limits,
        covered: Covered = lambda _terms, _page: contextlib.nullcontext(),
        told: Told = nobody,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`told`: tells the subscriber that what follows its place has expired, where a letter cannot."""
        self.terms = terms
        self._marks = marks
        self._opened = opened
        self._post = post
        self._clock = clock
        self._roll = roll
        self._metered = metered
        self._covered = covered
        self._limits = limits
        self._told = told
        self._rng = rng
        self._batch = terms.batch
        """Most records of one letter; fewer, once one was too large."""
        self._written = 0
        """Revision of the mark as this line knows it."""
        self._changed = asyncio.Event()

    @property
    def mark(self) -> Mark:
        """Where it stands by the shelf."""
        return self._marks.find(self.terms.id) or Mark()

    def wake(self) -> None:
        """Look at the mark, or for the subscriber, now: something has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        with self._shown() as standing:
            while True:
                mark = self.mark
                self._written = mark.revision
                if mark.state is not State.ON:
                    standing.state, standing.why = mark.state.value, mark.why
                    await self._rest(_WAIT_MAX_S)
                    continue
                await self._rest(await self._try(mark, standing))

    @contextlib.contextmanager
    def _shown(self) -> Iterator[Standing]:
        terms = self.terms
        standing = self._roll.enter(terms.subscriber, terms.feed, terms.delivery, name=terms.id)
        try:
            yield standing
        finally:
            self._roll.leave(standing)

    async def _try(self, mark: Mark, standing: Standing) -> float:
        """Deliver until something stands against it; return how long to rest."""
        try:
            await self._deliver(mark, standing)
        except (PermissionDenied, NotFound) as why:
            standing.state, standing.why = "refused", str(why)
            return _REFUSED_S
        except Overloaded as why:
            standing.state, standing.why = "waiting", str(why)
            return min(why.retry_after_s, _QUOTA_S)
        except (Gone, BadCursor) as why:
            first = why.first if isinstance(why, Gone) else ""
            await self._end(State.GONE, f"{why}; first: {first}" if first else str(why), standing)
            await self._told(self.terms, str(why), first)
        except Conflict:
            pass  # its owner has changed the mark: looked at anew
        except (Unavailable, StoreFull) as why:
            standing.why = str(why)
            _log.debug("a line waits", line=self.terms.id, cause=str(why))
            return _AGAIN_S
        return 0.0

    async def _end(self, state: State, why: str, standing: Standing) -> None:
        standing.state, standing.why = state.value, why
        try:
            await self._keep(state=state, why=why[:500], sending=0)
        except (Conflict, Unavailable, StoreFull) as again:
            _log.debug("a line is not ended yet", line=self.terms.id, cause=str(again))
        else:
            _log.info("a line stopped", line=self.terms.id, delivery=self.terms.delivery, state=state.value, why=why)

    # ── delivering ────────────────────────────────────────────────────────────────────────────────────

    async def _deliver(self, mark: Mark, standing: Standing) -> None:
        """Deliver until the mark is changed by another, or the line stops."""
        form = mark.form or self.terms.form
        pages = await self._opened(self.terms, form, mark.after)
        standing.state, standing.why, standing.place = "live", "", pages.place
        if not mark.after:
            mark = await self._keep(after=str(pages.place))
        done, kept_at = mark.after, self._clock.monotonic()
        while not self._superseded():
            pending = done != mark.after
            # The mark of the last letter waits for the next one, if there is one: one write for both.
            try:
                wait_s = 0.0 if pending else _AGAIN_S
                page = await pages.next(mark.sending or self._batch, wait_s, patient=bool(mark.sending))
            except (Overloaded, PermissionDenied, NotFound):
                if pending:
                    await self._keep(after=done, sending=0)  # else that letter would come again
                raise
            if not page.count:
                standing.place = pages.place
                if mark.sending or pending:
                    mark = await self._keep(after=done, sending=0)
                elif self._clock.monotonic() - kept_at >= _QUIET_S and str(pages.place) != done:
                    done, kept_at = str(pages.place), self._clock.monotonic()
                    mark = await self._keep(after=done, sending=0)
                continue
            arrived = False
            try:
                if pending or mark.sending != page.count:
                    mark = await self._keep(after=done, sending=page.count)
                async with self._covered(self.terms, page):
                    arrived = await self._sent(self._letter(mark, page, form), page, pages, standing)
            finally:
                if not arrived:
                    pages.drop()
            if not arrived:
                return
            done, mark = page.next, msgspec.structs.replace(mark, sending=0)
            standing.place, standing.grant = pages.place, page.grant

    def _letter(self, mark: Mark, page: Page, form: str) -> Letter:
        terms = self.terms
        number = hashlib.blake2s(f"{terms.id} {mark.after} {page.count}".encode(), digest_size=16).hexdigest()
        headers = (("sensegate-feed", terms.feed), ("sensegate-next", page.next), ("sensegate-after", mark.after))
        return Letter(
            to=f"{terms.to}.{mark.tag or TAG}" if terms.tagged else terms.to,
            id=f"msg_{number}",
            body=page.body,
            media=MEDIA[form],
            headers=headers,
            algorithm=terms.algorithm,
            secret=terms.secret,
        )

    async def _sent(self, letter: Letter, page: Page, pages: Pages, standing: Standing) -> bool:
        """Send until it is taken; False: the line stops or begins elsewhere."""
        standing.failures = 0
        while not self._superseded():
            pages.check()
            receipt = await self._post.send(letter)
            if receipt.taken:
                standing.state, standing.why, standing.failures = "live", "", 0
                standing.took(page.count, self._clock.now())
                self._metered(self.terms, page)
                return True
            if receipt.gone:
                await self._end(State.ENDED, receipt.why, standing)
                return False
            if receipt.too_large and page.count > 1:
                self._batch = page.count // 2
                await self._keep(sending=self._batch)
                return False
            if receipt.absent:
                standing.state, standing.why = "waiting", receipt.why
                await self._rest(receipt.retry_after_s or self._limits.absent_s)
                continue
            standing.failures += 1
            if standing.failures >= self._limits.failures_max:
                await self._end(State.PAUSED, f"{standing.failures} failures in a row: {receipt.why}", standing)
                return False
            standing.state, standing.why = "retrying", receipt.why
            await self._rest(self._back_off(standing.failures, receipt))
        return False

    def _back_off(self, failures: int, receipt: Receipt) -> float:
        limits = self._limits
        longest = min(limits.first_s * 2.0 ** min(failures - 1, 30), limits.longest_s)
        return max(receipt.retry_after_s, longest * (0.5 + self._rng() / 2))

    # ── the mark ──────────────────────────────────────────────────────────────────────────────────────

    def _superseded(self) -> bool:
        """Return whether another has changed the mark."""
        return self.mark.revision != self._written

    async def _keep(self, **changes: object) -> Mark:
        mark = msgspec.structs.replace(self.mark, **changes)
        if mark.revision != self._written:
            raise Conflict(f"line {self.terms.id} was changed meanwhile")
        kept = await self._marks.put(self.terms.id, mark, expected=mark.revision)
        self._written = kept.revision
        self._changed.clear()  # it was us
        return kept

    async def _rest(self, seconds: float) -> None:
        """Wait, or until woken."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._changed.clear()


class Lines:
    """The lines of one delivery, each in a task; `want` says which there are to be."""

    def __init__(self, made: Callable[[Terms], Line], *, asked: bool = False) -> None:
        """`asked`: a line runs only once its subscriber has said where it begins (`begin`)."""
        self._made = made
        self._asked = asked
        self._begun: set[str] = set()
        self._stale: set[str] = set()
        self._tasks: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self._wanted: dict[str, Terms] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def want(self, terms: Terms) -> None:
        """Have a line, with these terms."""
        if self._wanted.get(terms.id) != terms:
            self._wanted[terms.id] = terms
            self._changed.set()
        self.wake(terms.id)

    def drop(self, line_id: str) -> None:
        """Have it no more."""
        self._begun.discard(line_id)
        if self._wanted.pop(line_id, None) is not None:
            self._changed.set()

    def begin(self, line_id: str) -> None:
        """Its subscriber has said where it begins; it runs as soon as it is wanted."""
        self._begun.add(line_id)
        self._changed.set()
        self.wake(line_id)

    def halt(self, line_id: str) -> None:
        """Its subscriber has come anew: what is on its way reaches him no more. It begins again, or when he says so."""
        self._begun.discard(line_id)
        self._stale.add(line_id)
        self._changed.set()

    @property
    def begun(self) -> frozenset[str]:
        """Return the ids of the lines whose subscribers have said where they begin."""
        return frozenset(self._begun)

    def has(self, terms: Terms) -> bool:
        """Return whether a line with just these terms is wanted already."""
        return self._wanted.get(terms.id) == terms

    def wanted(self) -> frozenset[str]:
        """Return the ids of all that are to be there."""
        return frozenset(self._wanted)

    def wake(self, line_id: str) -> None:
        """Have a line look at its mark."""
        if (running := self._tasks.get(line_id)) is not None:
            running[0].wake()

    async def run(self) -> None:
        """Run them until cancelled; a bug in one ends all, so that it is seen."""
        try:
            while True:
                await self._sort()
                waiting = asyncio.ensure_future(self._changed.wait())
                tasks: set[asyncio.Future[object]] = {waiting, *(task for _, task in self._tasks.values())}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                self._changed.clear()
                for _, task in self._tasks.values():
                    if task in done:
                        task.result()
        finally:
            await self._stop(list(self._tasks))

    async def _sort(self) -> None:
        due = {name: terms for name, terms in self._wanted.items() if not self._asked or name in self._begun}
        stale, self._stale = self._stale, set()
        await self._stop(
            [name for name, (line, _) in self._tasks.items() if name in stale or due.get(name) != line.terms]
        )
        for name, terms in due.items():
            if name not in self._tasks:
                line = self._made(terms)
                self._tasks[name] = (line, asyncio.create_task(line.run(), name=f"line {name}"))

    async def _stop(self, names: list[str]) -> None:
        tasks = [self._tasks.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Sweep:
    """Removes the places of lines that are no more: of grants that were pruned, of webhooks that were removed."""

    def __init__(self, marks: RecordTable[Mark], owned: Callable[[str], bool]) -> None:
        """`owned`: whether there is a grant or webhook to which a line's id belongs."""
        self._marks = marks
        self._owned = owned
        self._orphans: frozenset[str] = frozenset()

    async def look(self) -> int:
        """Remove those that had no owner the last time either: a place is written before what it is for."""
        ids = frozenset(name for name in self._marks.names() if not self._owned(name))
        gone = ids & self._orphans
        self._orphans = ids - gone
        for name in gone:
            mark = self._marks.find(name)
            if mark is not None:
                with contextlib.suppress(Conflict):
                    await self._marks.delete(name, expected=mark.revision)
        return len(gone)


async def moved(marks: RecordTable[Mark], name: str, changes: Mapping[str, object]) -> Mark:
    """Change a mark from outside its line, which writes it too; return it.

    Raises:
        Conflict: the line moves on too fast.
    """
    for _ in range(20):
        mark = marks.find(name) or Mark()
        try:
            return await marks.put(name, msgspec.structs.replace(mark, **changes), expected=mark.revision)
        except Conflict:
            await asyncio.sleep(0)
    raise Conflict(f"line {name} moves on too fast; try again")


Still = Callable[[str], Principal]
"""(id of a token) -> whom it stands for as of now (`authority.tokens.Tokens.of`). Raises `PermissionDenied`."""
