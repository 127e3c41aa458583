"""Build the HTTP side over the parts that its routes show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sensegate.authority.callout import TopicsOf
from sensegate.authority.opening import Callers
from sensegate.authority.scope import Principal
from sensegate.bus.opening import Core
from sensegate.ingest.opening import Stages
from sensegate.ingest.sources import Sources
from sensegate.lifecycle.opening import ProfileLifecycle, ReprocessingParts
from sensegate.lifecycle.profile_rows import profile_rows
from sensegate.model import Device
from sensegate.share.stage import Share
from sensegate.web.app import Web
from sensegate.web.deps import Deps, Part
from sensegate.web.devices import ASSETS, NEIGHBOURS
from sensegate.web.drafts import UNKNOWN
from sensegate.web.log import SET_ASIDE
from sensegate.web.profile_jobs import JOBS, REDECODES, REDECODING
from sensegate.web.profiles import IN_FORCE, OUTCOMES, RELEASES, STUDIES
from sensegate.web.routing import Route
from sensegate.web.webhooks import WEBHOOKS


class WebParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the HTTP side shows."""

    version: str
    core: Core
    callers: Callers
    lifecycle: ProfileLifecycle
    reprocessing: ReprocessingParts
    topics_of: TopicsOf
    refused: Callable[[], Mapping[str, Mapping[str, int]]]
    """Refusals of the broker: device -> what -> count."""
    sources: Sources
    stages: Stages
    share: Share
    not_ready: Callable[[], Sequence[str]]
    warnings: Callable[[], Sequence[str]]
    features: Mapping[Part[Any], Any]
    """What features give to their routes."""


async def open_web(parts: WebParts, routes: Sequence[Route], stack: contextlib.AsyncExitStack) -> tuple[Web, str]:
    """Listen; return the HTTP side and its URL. Raises `ConfigError`."""
    web = Web(_deps(parts), routes)
    url = await web.start()
    stack.push_async_callback(web.stop)
    return web, url


def _deps(parts: WebParts) -> Deps:
    core, config, callers = parts.core, parts.core.config, parts.callers
    lifecycle, stages, share = parts.lifecycle, parts.stages, parts.share

    async def push(device: Device, _caller: Principal, body: bytes, content_type: str) -> None:
        await parts.sources.http.push(device.id, body, content_type)

    return Deps(
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
        secure=bool(config.web.tls.cert_file) or config.oidc.redirect_url.startswith("https://"),
        audit=callers.audit,
        share=share.sharing,
        books=share.sharing.books,
        roll=share.pushing.roll,
        ready=parts.not_ready,
        warnings=parts.warnings,
        ingest=push,
        topics=lambda device: parts.topics_of(device)[0],
        profiles=lambda: profile_rows(lifecycle.profiles.set),
        quality=share.quality_rows,
        clock_lag=stages.clock_lag,
        refused=parts.refused,
        parts={
            RELEASES: lifecycle.releases,
            IN_FORCE: lifecycle.rollout.in_force,
            OUTCOMES: lifecycle.canaries.outcomes,
            STUDIES: lifecycle.comparisons,
            JOBS: lifecycle.jobs,
            REDECODES: lifecycle.orders,
            REDECODING: parts.reprocessing.reprocessing,
            UNKNOWN: lifecycle.unexplained,
            WEBHOOKS: share.pushing.hooks,
            NEIGHBOURS: stages.neighbours,
            ASSETS: stages.assets,
            SET_ASIDE: callers.set_aside,
            **parts.features,
        },
    )
