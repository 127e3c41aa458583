"""The third page of the wiring: feeds that are pushed to subscribers, each line from a place that is kept.

share.lines ─▶ publish.webhook ─▶ the subscriber's own HTTP address
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from sensegate.authority.bucket import Bucket
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import NotFound
from sensegate.ports import Post
from sensegate.publish.egress import Egress
from sensegate.publish.webhook import Poster
from sensegate.share.hooks import Hooks
from sensegate.share.lines import Limits, Line, Lines, Mark, Page, Terms
from sensegate.share.pages import Pages
from sensegate.share.roll import Roll
from sensegate.share.sharing import Sharing
from sensegate.share.shelf import Records, Shelf
from sensegate.web.deps import Asked

LIMITS = Limits()


class Pushing:
    """All that goes out to subscribers by itself."""

    def __init__(self, config: Config, clock: Clock, share: Sharing, tokens: Tokens, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.share = share
        self.tokens = tokens
        self.trail = trail
        self.roll = Roll(clock, lambda: share.reader.end)
        self.limits = LIMITS
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Bucket, stack: contextlib.AsyncExitStack) -> None:
        """Open the shelf of places and the ways out; what was pushed before goes on."""
        clock = self.clock
        shelf = Shelf(bucket, clock)
        self.marks: Records[Mark] = Records(shelf, "mark", Mark)
        poster = await stack.enter_async_context(Poster(Egress(self.config.egress.allow), clock))
        webhooks = Lines(partial(self._line, poster))
        self.hooks = Hooks(shelf, self.marks, webhooks, poster, self.trail, clock, visible=self._visible)
        await shelf.open()
        self.tasks |= {"lines shelf": shelf.run, "webhooks": webhooks.run}

    def _line(self, post: Post, terms: Terms) -> Line:
        return Line(
            terms,
            self.marks,
            self._opened,
            post,
            self.clock,
            roll=self.roll,
            metered=self._metered,
            limits=self.limits,
        )

    async def _opened(self, terms: Terms, form: str, after: str) -> Pages:
        def still() -> Principal:
            return self.tokens.of(terms.subscriber)

        return await self.share.open_pages(still, Asked(terms.feed, after), form=form, delivery=terms.delivery)

    def _metered(self, terms: Terms, page: Page) -> None:
        self.share.metering.count(
            terms.subscriber,
            terms.feed,
            terms.delivery,
            requests=1,
            records=page.count,
            size=len(page.body),
            grant=page.grant,
        )

    def _visible(self, token_id: str, principal: Principal) -> bool:
        try:
            self.tokens.get(token_id, principal)
        except NotFound:
            return False
        return True
