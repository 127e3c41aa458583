"""What the web is handed by the wiring: the foundations as they are, other stages as small protocols and records."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
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
from sensegate.web.sharing import Roll, Share

if TYPE_CHECKING:
    from sensegate.web.viid_rest import ViidDesk
    from sensegate.web.webhooks import Hooks


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

    member: str
    """Its id; usually the code of its city."""
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
