"""Webhooks: the addresses to which subscribers have their feeds sent, and the lines that send.

A webhook belongs to the token that made it and reads what that token reads, by its grants, as long as it is good.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded
from sensegate.ports import Post
from sensegate.share.lines import BATCH, MEDIA, Lines, Mark, State, Terms, moved

DELIVERY = "webhook"
ALGORITHMS = ("hmac-sha256", "hmac-sm3")
PER_SUBSCRIBER_MAX = 20
ALL_MAX = 2_000
CLOCK = Principal("clock", Role.ADMIN, Scope("44"), name="ended tokens")
"""Who acts when a token has ended."""
BATCH_MAX = 10_000
_SECRET = "whsec_"  # noqa: S105 - the prefix of Standard Webhooks


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address to which a feed is sent."""

    id: str
    feed: str
    subscriber: str
    """Id of the token that made it."""
    url: str
    secret: str
    """Base64 of the key by which letters are signed."""
    algorithm: str = "hmac-sha256"
    form: str = "json"
    batch: int = BATCH
    """Most records of one letter."""
    created: int = 0
    revision: int = 0
    format: int = 1

    def terms(self) -> Terms:
        """Return what its line is."""
        return Terms(
            id=self.id,
            subscriber=self.subscriber,
            feed=self.feed,
            delivery=DELIVERY,
            to=self.url,
            form=self.form,
            batch=self.batch,
            algorithm=self.algorithm,
            secret=base64.b64decode(self.secret),
        )


class Form(Protocol):
    """What is asked for."""

    @property
    def feed(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def form(self) -> str: ...

    @property
    def algorithm(self) -> str: ...

    @property
    def batch(self) -> int: ...


Visible = Callable[[str, Principal], bool]
"""(id of a token, caller) -> whether the caller may see and change what is the token's."""


class Hooks:
    """All webhooks of this gateway."""

    def __init__(  # noqa: PLR0917 - the wiring hands in each once
        self,
        shelf: RecordStore,
        marks: RecordTable[Mark],
        lines: Lines,
        post: Post,
        trail: Trail,
        clock: Clock,
        *,
        visible: Visible,
    ) -> None:
        self._marks = marks
        self._lines = lines
        self._post = post
        self._trail = trail
        self._clock = clock
        self._visible = visible
        self._dead: frozenset[str] = frozenset()
        """Those whose token had ended at the last look."""
        self.records: RecordTable[Webhook] = RecordTable(shelf, "webhook", Webhook)
        self.records.on_change.append(self._changed)

    def _changed(self, before: Webhook | None, after: Webhook | None) -> None:
        if after is not None:
            self._lines.want(after.terms())
        elif before is not None:
            self._lines.drop(before.id)

    def seen(self, principal: Principal) -> list[Webhook]:
        """Return the webhooks of the caller, and those of the tokens that it may see."""
        return [one for one in self.records if self._sees(principal, one)]

    def get(self, principal: Principal, name: str) -> Webhook:
        """Return one. Raises `NotFound`."""
        found = self.records.find(name)
        if found is None or not self._sees(principal, found):
            raise NotFound(f"no webhook '{name[:40]}' of yours")
        return found

    def mark(self, name: str) -> Mark:
        """Return where it stands."""
        return self._marks.find(name) or Mark()

    async def create(self, principal: Principal, form: Form, *, after: str) -> tuple[Webhook, str]:
        """Make one that begins after a cursor; return it and its secret, which is shown only here.

        The caller has proved already that it may read the feed by webhook in this form.

        Raises:
            ConfigError: the address is not let out, or a word is none of ours.
            Overloaded: too many of them.
        """
        demand(principal, Action.READ_READINGS, principal.scope.division, principal.scope.department, feed=form.feed)
        self._post.check(form.url)
        if form.algorithm not in ALGORITHMS:
            raise ConfigError(f"'{form.algorithm[:20]}'", key="algorithm", remedy=f"one of {', '.join(ALGORITHMS)}")
        if form.form not in MEDIA:
            raise ConfigError(f"'{form.form[:20]}'", key="form", remedy=f"one of {', '.join(MEDIA)}")
        if not 1 <= form.batch <= BATCH_MAX:
            raise ConfigError(str(form.batch), key="batch", remedy=f"1 to {BATCH_MAX} records")
        every = list(self.records)
        if len(every) >= ALL_MAX or sum(one.subscriber == principal.id for one in every) >= PER_SUBSCRIBER_MAX:
            raise Overloaded(f"{PER_SUBSCRIBER_MAX} webhooks of one token, {ALL_MAX} of a gateway; remove one first")
        key = secrets.token_bytes(32)
        made = Webhook(
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
        await self._trail.record(principal, "webhook.create", made.id, after=_facts(made))
        # The place first: a line never begins anywhere else.
        await self._marks.put(made.id, Mark(after=after), expected=0)
        return await self.records.put(made.id, made, expected=0), _SECRET + made.secret

    async def delete(self, principal: Principal, name: str) -> None:
        """Remove one. Raises `NotFound`, `Conflict`."""
        found = self.get(principal, name)
        await self._trail.record(principal, "webhook.delete", name, before=_facts(found))
        await self.records.delete(name, expected=found.revision)
        if (mark := self._marks.find(name)) is not None:
            try:
                await self._marks.delete(name, expected=mark.revision)
            except Conflict:
                return  # its line has written once more; a mark without a webhook is nothing

    async def sweep(self, good: Callable[[str], bool]) -> int:
        """Remove those whose token has ended (not `good`) since the last look: they take the room of others."""
        dead = frozenset(one.id for one in self.records if not good(one.subscriber))
        gone, self._dead = dead & self._dead, dead
        for name in sorted(gone):
            found = self.records.find(name)
            if found is not None:
                await self._trail.record(CLOCK, "webhook.end", name, before=_facts(found))
                with contextlib.suppress(Conflict):
                    await self.records.delete(name, expected=found.revision)
        return len(gone)

    async def pause(self, principal: Principal, name: str) -> Webhook:
        """Send nothing until it is resumed. Raises `NotFound`, `Conflict`."""
        found = self.get(principal, name)
        await self._trail.record(principal, "webhook.pause", name)
        await self._put(name, state=State.PAUSED, why="by its owner")
        return found

    async def resume(self, principal: Principal, name: str, *, after: str = "") -> Webhook:
        """Go on from where it stood, or after a cursor. Raises `NotFound`, `Conflict`."""
        found = self.get(principal, name)
        await self._trail.record(principal, "webhook.resume", name, after={"after": after} if after else {})
        moved = {"after": after, "sending": 0} if after else {}
        await self._put(name, state=State.ON, why="", **moved)
        return found

    async def _put(self, name: str, **changes: object) -> None:
        await moved(self._marks, name, changes)
        self._lines.wake(name)

    def _sees(self, principal: Principal, one: Webhook) -> bool:
        return one.subscriber == principal.id or self._visible(one.subscriber, principal)


def _facts(hook: Webhook) -> Facts:
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(hook, secret="", revision=0))
    return kept
