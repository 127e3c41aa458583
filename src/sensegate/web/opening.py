"""Build the HTTP side over the parts that its routes show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from sensegate.authority.assets import Assets
from sensegate.authority.callout import TopicsOf
from sensegate.authority.neighbours import Neighbours
from sensegate.authority.opening import Callers
from sensegate.authority.refusals import LastRefusal
from sensegate.bus.opening import Core
from sensegate.lifecycle.opening import ProfileLifecycle, ReprocessingParts
from sensegate.lifecycle.profile_rows import example_payload, profile_rows
from sensegate.model import QualityHour
from sensegate.share.stage import Share
from sensegate.web.app import Web
from sensegate.web.corrections import CORRECTIONS
from sensegate.web.deps import IngestTelemetry, WebDependencies
from sensegate.web.devices import ASSETS, NEIGHBOURS
from sensegate.web.drafts import UNKNOWN
from sensegate.web.latest import LATEST
from sensegate.web.log import SET_ASIDE
from sensegate.web.parts import PartKey
from sensegate.web.profile_jobs import JOBS, REPROCESSING, REPROCESSING_ORDERS
from sensegate.web.profiles import COMPARISONS, IN_FORCE, OUTCOMES, RELEASES
from sensegate.web.quarantine import RECOVERED
from sensegate.web.routing import Route
from sensegate.web.settings import SETTINGS
from sensegate.web.system import SYSTEM
from sensegate.web.webhooks import WEBHOOKS


class WebParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts that the HTTP side shows."""

    version: str
    core: Core
    callers: Callers
    lifecycle: ProfileLifecycle
    reprocessing: ReprocessingParts
    topics_of: TopicsOf
    refused: Callable[[], Mapping[str, Mapping[str, int]]]
    """Refusals of the broker: device -> what -> count."""
    last_refusal: Callable[[str], LastRefusal | None]
    share: Share
    ingest: IngestTelemetry
    clock_lag: Callable[[str], float | None]
    """Device -> by how many seconds its clock was behind ours when it last spoke; None: unknown."""
    clock_judgement: Callable[[], str]
    """Returns by what our clock was judged, in words."""
    broker: Callable[[], str]
    """Returns the address of the MQTT broker."""
    quality_hours: Callable[[int], Iterable[QualityHour]]
    """Time -> indicators since then, by device and hour."""
    neighbours: Neighbours
    assets: Assets
    not_ready: Callable[[], Sequence[str]]
    warnings: Callable[[], Sequence[str]]
    features: Mapping[PartKey[Any], Any]
    """Parts that features give to their routes."""


async def open_web(parts: WebParts, routes: Sequence[Route], stack: contextlib.AsyncExitStack) -> tuple[Web, str]:
    """Listen; return the HTTP side and its URL. Raises `ConfigError`."""
    web = Web(_deps(parts), routes)
    url = await web.start()
    stack.push_async_callback(web.stop)
    return web, url


def _deps(parts: WebParts) -> WebDependencies:
    core, config, callers = parts.core, parts.core.config, parts.callers
    lifecycle, share = parts.lifecycle, parts.share
    return WebDependencies(
        config=config.web,
        role=config.role,
        division=config.division,
        version=parts.version,
        clock=core.clock,
        log=core.log,
        divisions=callers.divisions,
        devices=lifecycle.devices,
        tokens=callers.tokens,
        people=callers.people,
        oidc=callers.oidc,
        is_secure=bool(config.web.tls.cert_file) or config.oidc.redirect_url.startswith("https://"),
        audit=callers.audit,
        share=share.sharing,
        hourly=share.sharing.hourly,
        consumers=share.push.consumers,
        ready=parts.not_ready,
        warnings=parts.warnings,
        ingest=parts.ingest,
        topics=lambda device: parts.topics_of(device)[0],
        profiles=lambda: profile_rows(lifecycle.profiles.set),
        quality=parts.quality_hours,
        clock_lag=parts.clock_lag,
        clock_judgement=parts.clock_judgement,
        last_values=partial(share.last_values.of_device, config.member_id),
        broker=parts.broker,
        example=lambda device: example_payload(lifecycle.profiles.set, device.profile),
        refused=parts.refused,
        last_refusal=parts.last_refusal,
        parts={
            RELEASES: lifecycle.releases,
            IN_FORCE: lifecycle.rollout.wait_in_force,
            OUTCOMES: lifecycle.canaries.outcomes,
            COMPARISONS: lifecycle.comparisons,
            JOBS: lifecycle.jobs,
            REPROCESSING_ORDERS: lifecycle.orders,
            REPROCESSING: parts.reprocessing.reprocessing,
            UNKNOWN: lifecycle.unexplained,
            RECOVERED: lifecycle.recovered,
            CORRECTIONS: lifecycle.corrections,
            WEBHOOKS: share.push.webhooks,
            LATEST: share.latest,
            NEIGHBOURS: parts.neighbours,
            ASSETS: parts.assets,
            SET_ASIDE: callers.set_aside,
            SETTINGS: config,
            SYSTEM: core,
            **parts.features,
        },
    )
