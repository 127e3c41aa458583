"""What the web is handed by the wiring: the foundations as they are, other stages as small protocols and records."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sensegate.assets import Assets
from sensegate.authority.chain import Record, SignedHead
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.members import Members, Told
from sensegate.authority.modes import Modes
from sensegate.authority.moves import Moves
from sensegate.authority.neighbours import Neighbours
from sensegate.authority.oidc import Oidc
from sensegate.authority.outcomes import Outcomes
from sensegate.authority.people import People
from sensegate.authority.redecodes import Redecodes
from sensegate.authority.releases import Releases
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus.ledger import Ledger
from sensegate.clock import Clock
from sensegate.config import WebConfig
from sensegate.jobs import Jobs
from sensegate.model import Device
from sensegate.ports import Log
from sensegate.redecoding import Redecoding
from sensegate.studies import Studies
from sensegate.tasking import Tasking
from sensegate.unknown import Unknown

if TYPE_CHECKING:
    from sensegate.web.viid_rest import ViidDesk
    from sensegate.web.webhooks import Hooks


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


class Books(Protocol):
    """Hourly sums of the ledger by node (`share.books.Books`)."""

    def nodes(self, since_hour: int) -> Sequence[str]:
        """Return the nodes of which there are counts from an hour (since 1970) on."""
        ...

    def sums(self, node: str, since_hour: int) -> Ledger:
        """Return the sum of a node's hours."""
        ...


class AuditReader(Trail, Protocol):
    """The audit trail (`authority.audit.Audit`)."""

    async def signed(self) -> SignedHead:
        """Return its end with the gateway's signature. Raises `NotFound` without a key."""
        ...

    def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as they are stored, oldest first."""
        ...

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, Record]]:
        """Return (sequence, record) after a sequence, oldest first."""
        ...


class ProfileRow(msgspec.Struct, frozen=True):
    """A device profile in force."""

    id: str
    """``vendor/model``."""
    version: int
    title: str = ""
    topics: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    format: str = "json"
    problem: str = ""
    """Why its newest file is not in force; the last good version is."""
    folder: int = 0
    """Version in the folder of profiles; 0: none."""
    trials: tuple[int, ...] = ()
    """Versions that only some devices have."""


class NodeRow(msgspec.Struct, frozen=True):
    """A node as this gateway sees it; a node lists itself."""

    division: str
    role: str
    state: str
    """``up``, ``silent`` or ``never``."""
    last_commit: int = 0
    """µs UTC of the newest commit here."""
    lag_entries: int = 0
    """Entries not yet forwarded, where known."""
    forwarded: int = 0
    withheld: int = 0
    detail: str = ""
    membership: str = ""
    """``invited``, ``joined``, ``left``, ``expelled``; ``configured``: it stands in the centre's configuration."""
    generation: int = 0
    """Rises with each join: the store and the machine behind the name."""
    version: str = ""
    clock_offset_s: float | None = None
    """By how much its clock is ahead of the centre's, less the way of its report."""
    reported: int = 0
    """µs UTC of its last report."""
    load: float | None = None
    rss_mb: float | None = None
    devices: int | None = None
    counts: dict[str, int] = {}
    """Its ledger as it has come up: kind -> count."""
    troubles: list[str] = []
    """What it says is wrong."""
    copied: int = 0
    """µs UTC: what was changed in its registries before is copied here; 0: nothing came since this process began."""
    gaps: list[tuple[int, int]] = []
    """(since, until) µs UTC: what was committed there between is missing here, with a store that was lost."""


class QualityRow(msgspec.Struct, frozen=True):
    """The four indicators of one device and hour, 0 to 1; null where nothing defines one."""

    device: str
    hour: int
    """µs UTC of its beginning."""
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


class ReturnDesk(Protocol):
    """Return flow by files (`above.Above`, `below.Below`)."""

    async def export(self, division: str, life: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of what goes back to a node after a place, and where it ends."""
        ...

    async def place(self) -> str:
        """Return how far this node has come."""
        ...

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a file; return (rows, place)."""
        ...


Push = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the commit that holds the message."""


def _nothing() -> Sequence[Any]:
    return ()


async def _at_once() -> bool:
    return True


class Deps(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All of it."""

    config: WebConfig
    role: str
    """``node`` or ``centre``."""
    division: str
    version: str
    clock: Clock
    log: Log
    divisions: Divisions
    devices: Devices
    tokens: Tokens
    share: Share
    roll: Roll
    books: Books
    audit: AuditReader
    ready: Callable[[], Sequence[str]]
    """Returns why the gateway is not ready, a sentence each; empty: it is."""
    warnings: Callable[[], Sequence[str]] = _nothing
    """Returns what is wrong and does not stop readings, a sentence each."""
    ingest: Push | None = None
    """None: this gateway takes no telemetry by HTTP."""
    profiles: Callable[[], Sequence[ProfileRow]] = _nothing
    topics: Callable[[Device], Sequence[str]] = lambda _device: ()
    """MQTT topics under which a device may publish."""
    nodes: Callable[[], Sequence[NodeRow]] = _nothing
    members: Members | None = None
    """None: this gateway takes in no nodes."""
    join: Callable[[str, str, str], Awaitable[Told]] | None = None
    """(code, release, epoch of its log): takes a node in."""
    moves: Moves | None = None
    """None: this gateway orders no moves of devices."""
    gateways: Callable[[], list[str]] = list
    """Divisions of all gateways between which devices move."""
    gaps: Callable[[str], Awaitable[Sequence[Any]]] | None = None
    """Division -> what did not come of a node's lost stores, as records with the attributes of `nodes.GapRow`."""
    quality: Callable[[int], Sequence[QualityRow]] = lambda _since: ()
    """Returns the indicators of all devices from a time (µs) on."""
    releases: Releases | None = None
    """None: this gateway keeps no versions of profiles."""
    in_force: Callable[[], Awaitable[bool]] = _at_once
    """Returns True once all that was decided about profiles is in force in this process, False if that takes long."""
    outcomes: Callable[[str], tuple[Outcomes, Outcomes]] = lambda _profile: (Outcomes(), Outcomes())
    """Returns what came of a canary's devices and of the others of its profile."""
    studies: Studies | None = None
    """None: nothing is compared here."""
    jobs: Jobs | None = None
    redecodes: Redecodes | None = None
    redecoding: Redecoding | None = None
    returns: ReturnDesk | None = None
    modes: Modes | None = None
    """None: this gateway knows no emergency plans."""
    tasking: Tasking | None = None
    """None: this gateway tells devices nothing."""
    unknown: Unknown | None = None
    """None: this gateway receives no messages of devices."""
    hooks: Hooks | None = None
    """None: this gateway sends no webhooks."""
    people: People | None = None
    """None: programs alone ask here."""
    oidc: Oidc | None = None
    secure: bool = False
    """True: browsers reach us by https, and so send the session's cookie by nothing else."""
    assets: Assets | None = None
    """None: nobody looks for second sources."""
    neighbours: Neighbours | None = None
    """None: nobody looks whether the same was built nearby."""
    clock_lag: Callable[[str], float | None] = lambda _device: None
    """Device -> by how many seconds its clock was behind ours when it last spoke."""
    refused: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    """Refusals of the broker: device -> what -> count."""
    viid: ViidDesk | None = None
    """None: GA/T 1400 is not spoken."""
