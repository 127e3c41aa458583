"""What the web is handed of sharing, as small protocols: records of a feed, its catalogue, its desk, who reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import msgspec

from sensegate.authority.scope import Principal


class Page(Protocol):
    """One answer of a feed."""

    @property
    def body(self) -> bytes:
        """The records in the form asked for."""
        ...

    @property
    def count(self) -> int:
        """How many."""
        ...

    @property
    def next(self) -> str:
        """Cursor to go on from."""
        ...

    @property
    def grant(self) -> str:
        """Grant by which it was read; empty: none."""
        ...


class Events(Protocol):
    """A piece of a stream; without records a heartbeat."""

    @property
    def body(self) -> bytes:
        """Ready for the wire."""
        ...

    @property
    def count(self) -> int:
        """Records in it."""
        ...

    @property
    def grant(self) -> str:
        """Grant by which it was read; empty: none."""
        ...


class Pages(Protocol):
    """A feed for one subscriber that is pushed to (`share.pages.Pages`)."""

    place: Any
    """Cursor after the last record that was returned."""

    def check(self) -> None:
        """Return if the subscriber may go on. Raises `Refused`, `NotFound`."""
        ...

    async def next(self, limit: int, wait_s: float = 1.0) -> Page:
        """Return the next records; empty after `wait_s`."""
        ...


class Share(Protocol):
    """Feeds and their deliveries, cut to the caller (`share.sharing.Sharing`)."""

    def visible(self, principal: Principal) -> Sequence[Any]:
        """Return the feeds that the caller may read, as records with the attributes of `bodies.Feed`."""
        ...

    def feed(self, principal: Principal, name: str) -> Any:
        """Return one. Raises `NotFound`."""
        ...

    async def create_feed(self, principal: Principal, form: object) -> Any:
        """Make one; return it."""
        ...

    async def change_feed(self, principal: Principal, form: object, revision: int) -> Any:
        """Replace one; return it."""
        ...

    async def delete_feed(self, principal: Principal, name: str, revision: int | None) -> None:
        """Remove one."""
        ...

    async def page(self, principal: Principal, asked: Asked, *, form: str, limit: int, wait_s: float) -> Page:
        """Return records after a place, waiting for the first."""
        ...

    async def open_stream(
        self,
        still: Callable[[], Principal],
        asked: Asked,
        *,
        heartbeat_s: float,
        at: Callable[[Any], None] = lambda _place: None,
    ) -> AsyncGenerator[Events, None]:
        """Return what yields all after a place, for ever; `still` is asked about every second, may raise `Refused`.

        `at` is told how far it is.
        """
        ...

    async def open_pages(
        self, still: Callable[[], Principal], asked: Asked, *, form: str, delivery: str = "ws"
    ) -> Pages:
        """Return what follows a place, page by page; `still` as of `open_stream`; `delivery`: word of a grant."""
        ...

    def count(
        self,
        principal: Principal,
        feed: str,
        delivery: str,
        *,
        requests: int,
        records: int,
        size: int,
        grant: str = "",
    ) -> None:
        """Meter what was handed to the network."""
        ...

    def covered(
        self, principal: Principal, feed: str, delivery: str, records: int, grant: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """Return what is entered before records go, and left when they have gone and are counted."""
        ...

    def usage(self) -> Sequence[Any]:
        """Return all metering counts, as records with the attributes of `bodies.Usage`."""
        ...

    @property
    def offers(self) -> Offers:
        """The catalogue."""
        ...

    @property
    def desk(self) -> Desk:
        """Applications and grants."""
        ...

    def reads(self, principal: Principal, feed: str) -> bool:
        """Return whether the caller gets anything of a feed now."""
        ...

    def used(self, grant: str) -> int:
        """Return the records that a grant received this month."""
        ...

    def left(self, grant: str) -> int | None:
        """Return the records that a grant may still receive this month; None: no limit."""
        ...

    def month(self) -> str:
        """Return the month that is counted now."""
        ...

    def grant_usage(self, principal: Principal, grant: str, month: str) -> Sequence[Any]:
        """Return what a grant delivered in a month, as records of `share.metering.Usage`."""
        ...

    def receipt(self, principal: Principal, grant: str, month: str) -> bytes:
        """Return the signed receipt of a grant and month."""
        ...


class Offers(Protocol):
    """The catalogue, cut to the caller (`share.offers.Offers`); entries and feeds are records of `share`."""

    def seen(self, principal: Principal) -> list[Any]:
        """Return the entries that the caller sees."""
        ...

    def get(self, principal: Principal, name: str) -> Any:
        """Return one. Raises `NotFound`."""
        ...

    def feed(self, principal: Principal, name: str) -> Any:
        """Return the feed behind it."""
        ...

    def found(self, entry: Any, text: str) -> bool:
        """Return whether every word of a search stands in an entry."""
        ...

    def measured(self, entry: Any) -> Any:
        """Return what was measured of its feed."""
        ...

    def missing(self, entry: Any) -> list[str]:
        """Return what is missing until it is complete."""
        ...

    def held(self, entry: Any, measured: object) -> dict[str, bool]:
        """Return of what is promised and measured whether it is held."""
        ...

    def export(self, entries: Iterable[Any], form: str) -> bytes:
        """Return entries as a document: ``dcat`` or ``csv``."""
        ...

    async def write(self, principal: Principal, name: str, changes: dict[str, Any], revision: int | None) -> Any:
        """Change an entry; return it."""
        ...

    async def draw(self, principal: Principal, name: str, rows: int, mask: object | None) -> Any:
        """Draw its sample anew; return it."""
        ...


class Bundles(Protocol):
    """Bundles of feeds (`share.bundles.Bundles`)."""

    def all(self) -> Sequence[Any]:
        """Return all of them."""
        ...

    async def write(self, principal: Principal, form: object, revision: int) -> Any:
        """Write one; return it."""
        ...

    async def delete(self, principal: Principal, name: str) -> None:
        """Forget one."""
        ...


class Desk(Protocol):
    """Applications and grants, cut to the caller (`share.desk.Desk`)."""

    @property
    def bundles(self) -> Bundles:
        """Feeds that are applied for as one."""
        ...

    def seen(self, principal: Principal) -> Sequence[Any]:
        """Return the applications that concern the caller."""
        ...

    def get(self, principal: Principal, name: str) -> Any:
        """Return one. Raises `NotFound`."""
        ...

    async def apply(self, principal: Principal, form: object) -> Any:
        """Take an application."""
        ...

    async def decide(self, principal: Principal, name: str, form: object, revision: int | None) -> Any:
        """Approve or refuse one."""
        ...

    async def withdraw(self, principal: Principal, name: str) -> Any:
        """Take one back."""
        ...

    async def renew(
        self, principal: Principal, name: str, *, days: float, purpose: str = "", legal_basis: str = ""
    ) -> Any:
        """Apply for more time for a grant; return the application."""
        ...

    def grants(self, principal: Principal) -> Sequence[Any]:
        """Return the grants that concern the caller."""
        ...

    def grant(self, principal: Principal, name: str) -> Any:
        """Return one. Raises `NotFound`."""
        ...

    async def change(self, principal: Principal, name: str, form: object, revision: int) -> Any:
        """Change its terms; return it."""
        ...

    async def revoke(self, principal: Principal, name: str, reason: str = "", revision: int | None = None) -> Any:
        """Take it back; return it."""
        ...


class Standing(Protocol):
    """One subscriber's delivery as it goes on (`share.roll.Standing`)."""

    place: Any
    """Cursor after which it stands."""
    state: str
    why: str

    def took(self, records: int, now: int) -> None:
        """Note that records have arrived."""
        ...


class Roll(Protocol):
    """Who reads at this moment (`share.roll.Roll`)."""

    def entered(self, subscriber: str, feed: str, delivery: str) -> AbstractContextManager[Standing]:
        """Keep one on the roll while inside."""
        ...

    def rows(self) -> Sequence[Any]:
        """Return all, as records with the attributes of `web.webhooks.SubscriberRow`."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """What a request wants of a feed."""

    feed: str
    after: str = ""
    since: int | None = None
    """µs UTC."""
    divisions: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
