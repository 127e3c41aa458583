"""Dependencies of the HTTP layer, given by the wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.heads import AuditTrail
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.refusals import LastRefusal
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.bus.contract import Log
from sensegate.clock import Clock
from sensegate.config import WebConfig
from sensegate.lifecycle.profile_rows import ProfileRow
from sensegate.model import Device, QualityHour
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.last_values import LastBatch
from sensegate.share.sharing import Sharing
from sensegate.web.parts import PartKey

IngestTelemetry = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the message is committed."""


def _empty() -> Sequence[Any]:
    return ()


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
    quality: Callable[[int], Iterable[QualityHour]] = lambda _since: ()
    """Time (µs UTC) -> indicators of all devices since then."""
    people: People | None = None
    """None: there are no accounts of people."""
    oidc: Oidc | None = None
    is_secure: bool = False
    """True if browsers use https, so that session cookies are restricted to it."""
    clock_lag: Callable[[str], float | None] = lambda _device: None
    """Device -> lag of its clock behind the gateway's at its last message, in seconds; None: unknown."""
    clock_judgement: Callable[[], str] = str
    """Returns the references by which the gateway's clock was judged, in words."""
    last_values: Callable[[str], Sequence[LastBatch]] = lambda _device: ()
    """Device of this gateway -> its last values."""
    broker: Callable[[], str] = str
    """Returns the address of the MQTT broker."""
    example: Callable[[Device], str] = lambda _device: ""
    """Device -> text payload of an example of its profile; empty: there is none."""
    refused: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    """Returns rejections of the broker: device -> kind -> count."""
    last_refusal: Callable[[str], LastRefusal | None] = lambda _device: None
    """Device -> its latest operation that was rejected at a connection; None: none is known."""
    parts: Mapping[PartKey[Any], Any] = {}
    """Parts that the features of this gateway provide to their routes."""
