"""What the web is handed by the wiring: the foundations as they are, other stages as small protocols and records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.heads import AuditTrail
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.clock import Clock
from sensegate.config import WebConfig
from sensegate.model import Device
from sensegate.normalise.book import QualityRow
from sensegate.ports import Log
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.sharing import Sharing

T = TypeVar("T")


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
    refused: int = 0
    """Rows that the centre did not take; `sensegate node refused` lists them."""
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
    areas: list[str] = []
    """Divisions of which it may send readings, each with all below it."""
    conflicts: int = 0
    """Devices that it sent although another node owns them, or that it owns and another one sent, of late."""
    gaps: list[tuple[int, int]] = []
    """(since, until) µs UTC: what was committed there between is missing here, with a store that was lost."""


Push = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the commit that holds the message."""


def _nothing() -> Sequence[Any]:
    return ()


class Part(Generic[T]):
    """The key under which a feature gives one of its parts to its routes; `Call.part` returns the part, typed."""

    def __init__(self, name: str, *, absent: str) -> None:
        """`absent`: the detail of the 404 that is answered where this gateway lacks the feature."""
        self.name = name
        self.absent = absent


class Deps(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything that the HTTP layer needs."""

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
    share: Sharing
    roll: ActiveConsumers
    books: HourlyLedgers
    audit: AuditTrail
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
    quality: Callable[[int], Sequence[QualityRow]] = lambda _since: ()
    """Returns the indicators of all devices from a time (µs) on."""
    people: People | None = None
    """None: programs alone ask here."""
    oidc: Oidc | None = None
    secure: bool = False
    """True: browsers reach us by https, and so send the session's cookie by nothing else."""
    clock_lag: Callable[[str], float | None] = lambda _device: None
    """Device -> by how many seconds its clock was behind ours when it last spoke."""
    refused: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    """Refusals of the broker: device -> what -> count."""
    parts: Mapping[Part[Any], Any] = {}
    """What the features of this gateway give to their own routes."""
