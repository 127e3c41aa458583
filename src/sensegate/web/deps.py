"""What the web is handed by the wiring: the foundations as they are, other stages as small protocols and records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

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
from sensegate.lifecycle.profile_rows import ProfileRow
from sensegate.model import Device, QualityRow
from sensegate.ports import Log, Part
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.sharing import Sharing

Push = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the commit that holds the message."""


def _nothing() -> Sequence[Any]:
    return ()


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
