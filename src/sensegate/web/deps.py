"""Dependencies of the HTTP layer, given by the wiring."""

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
    """Device profile in force."""

    id: str
    """``vendor/model``."""
    version: int
    title: str = ""
    topics: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    format: str = "json"
    problem: str = ""
    """Why its newest file cannot be loaded; the last valid version stays in force."""
    folder: int = 0
    """Version in the folder of profiles; 0: none."""
    trial_versions: tuple[int, ...] = ()
    """Versions in force for some devices only."""


class NodeRow(msgspec.Struct, frozen=True):
    """Node as known to this gateway; a node lists itself."""

    member: str
    """Id of the node; usually the code of its city."""
    division: str
    role: str
    state: str
    """``up``, ``silent`` or ``never``."""
    last_commit: int = 0
    """Time of its newest commit here, µs UTC."""
    lag_entries: int = 0
    """Entries not yet forwarded, if known."""
    forwarded: int = 0
    withheld: int = 0
    refused: int = 0
    """Rows that the centre rejected; `sensegate node refused` lists them."""
    detail: str = ""
    membership: str = ""
    """``invited``, ``joined``, ``left``, ``expelled``; ``configured``: part of the centre's configuration."""
    generation: int = 0
    """Number of joins: it identifies the machine and store behind the id."""
    version: str = ""
    clock_offset_s: float | None = None
    """How far its clock is ahead of the centre's, without the transit time of its report."""
    reported: int = 0
    """Time of its last report, µs UTC."""
    load: float | None = None
    rss_mb: float | None = None
    devices: int | None = None
    counts: dict[str, int] = {}
    """Forwarded ledger: kind -> count."""
    problems: list[str] = []
    """Problems that it reports."""
    copied: int = 0
    """Changes of its registries before this time are copied here, µs UTC; 0: none since this process started."""
    areas: list[str] = []
    """Divisions whose readings it may send, each with all below it."""
    conflicts: int = 0
    """Recent ownership conflicts: devices that it and another node both send."""
    gaps: list[tuple[int, int]] = []
    """(since, until) µs UTC: commits of this time are missing here, because its store was lost."""


IngestTelemetry = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the message is committed."""


def _empty() -> Sequence[Any]:
    return ()


class PartKey(Generic[T]):
    """Key of a part that a feature provides to its routes; `Call.part` returns the part, typed."""

    def __init__(self, name: str, *, absent: str) -> None:
        """`absent`: detail of the 404 response of a gateway without the feature."""
        self.name = name
        self.absent = absent


class WebDependencies(msgspec.Struct, frozen=True, kw_only=True, eq=False):
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
    consumers: ActiveConsumers
    hourly: HourlyLedgers
    audit: AuditTrail
    ready: Callable[[], Sequence[str]]
    """Returns why the gateway is not ready, a sentence each; empty: it is ready."""
    warnings: Callable[[], Sequence[str]] = _empty
    """Returns problems that do not stop readings, a sentence each."""
    ingest: IngestTelemetry | None = None
    """None: this gateway does not ingest telemetry by HTTP."""
    profiles: Callable[[], Sequence[ProfileRow]] = _empty
    topics: Callable[[Device], Sequence[str]] = lambda _device: ()
    """Device -> MQTT topics to which it may publish."""
    nodes: Callable[[], Sequence[NodeRow]] = _empty
    quality: Callable[[int], Sequence[QualityRow]] = lambda _since: ()
    """Time (µs UTC) -> indicators of all devices since then."""
    people: People | None = None
    """None: there are no accounts of people."""
    oidc: Oidc | None = None
    is_secure: bool = False
    """Whether browsers use https, so that session cookies are restricted to it."""
    clock_lag: Callable[[str], float | None] = lambda _device: None
    """Device -> lag of its clock behind the gateway's at its last message, in seconds; None: unknown."""
    refused: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    """Returns rejections of the broker: device -> kind -> count."""
    parts: Mapping[PartKey[Any], Any] = {}
    """Parts that the features of this gateway provide to their routes."""
