"""The wiring of a gateway on one page: what is opened, in the order of the flow, and what restarts when it is lost.

    collect ─▶ decode ─▶ normalise ─▶ persist ══ LOG ══▶ tiers (uplink)        `ingest.pipeline`
                                                 └═════▶ share ─▶ web

Each `open_…` function takes finished parts and returns a frozen record of finished parts; nothing is set in a part
afterwards. A feature is opened over the core parts and registers itself with one line in `FEATURES`.
"""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sensegate import __version__, logs, metrics
from sensegate.alarms import feature as alarms
from sensegate.authority import audit_opening
from sensegate.authority.callout import Callout
from sensegate.authority.divisions import Divisions
from sensegate.authority.opening import open_audit, open_callers
from sensegate.authority.slots import node_slots
from sensegate.bus import descriptors, health
from sensegate.bus.addresses import GatewayAddresses, keep_engine_pid_current
from sensegate.bus.engine import Engine
from sensegate.bus.malloc import limit_arenas
from sensegate.bus.opening import Core, open_core
from sensegate.cameras import feature as cameras
from sensegate.cameras.privacy import CameraPrivacy, open_privacy, takes_cameras
from sensegate.clock import Clock, SystemClock
from sensegate.config import Config, read_secret
from sensegate.control import feature as control
from sensegate.errors import (
    CancellableTaskGroup,
    Fenced,
    Overloaded,
    PermissionDenied,
    StoreFull,
    Superseded,
    Unavailable,
    errors_of,
)
from sensegate.failover import feature as failover
from sensegate.failover.active import Activation
from sensegate.failover.committer_lease import CommitterLease, await_lease
from sensegate.failover.standby import await_activation
from sensegate.feature import Feature, Features, FeatureSpec, Health, Parts, Task, owned
from sensegate.history import feature as history
from sensegate.home_assistant import feature as home_assistant
from sensegate.influx import feature as influx
from sensegate.ingest.mqtt_fronts import open_fronts
from sensegate.ingest.opening import Stages, open_stages
from sensegate.ingest.pipeline import IngestPipeline, PipelineStages
from sensegate.ingest.sources import open_sources
from sensegate.lifecycle.opening import ProfileLifecycle, ReprocessingParts, open_profiles, open_reprocessing
from sensegate.lifecycle.topic_rights import TopicRights
from sensegate.ngsi_ld import feature as ngsi_ld
from sensegate.sensorthings import feature as sensorthings
from sensegate.share.sharing import Centre
from sensegate.share.stage import Share, ShareInputs, open_share
from sensegate.share.wiring import prepare_secrets
from sensegate.tiers import centre_side, node_feature
from sensegate.tiers.opening import find_origin, open_tier, restore_store
from sensegate.tiers.return_flow import ReturnFlow
from sensegate.viid import feature as viid
from sensegate.web.app import CORE_ROUTES
from sensegate.web.certificates import certificate_reload
from sensegate.web.opening import WebParts, open_web
from sensegate.web.routing import Route

FEATURES: tuple[FeatureSpec, ...] = (
    cameras.FEATURE,
    viid.FEATURE,
    control.FEATURE,
    failover.FEATURE,
    node_feature.FEATURE,
    centre_side.FEATURE,
    alarms.FEATURE,
    history.FEATURE,
    influx.FEATURE,
    sensorthings.FEATURE,
    ngsi_ld.FEATURE,
    home_assistant.FEATURE,
)
"""Features in the order in which they are opened: each may use parts of those before it."""
ROUTES: tuple[Route, ...] = (*CORE_ROUTES, *(route for feature in FEATURES for route in feature.routes))
"""All operations of the HTTP interface."""

YOUNG_OBJECTS = 10_000
"""New objects after which the collector looks for cycles. By the default of 700 it took the 1,000 records of an answer,
and what a start reads of profiles, for long-lived: every tenth request, and a third of the start, was a collection.
"""

_log = structlog.get_logger("flow")


async def run(
    config: Config, *, clock: Clock | None = None, ready: Callable[[GatewayAddresses], None] | None = None
) -> None:
    """Run one node or centre until cancelled, which ends its engine too; `ready` is called once it is ready.

    A centre with another one beside it, and a node with `engine.standby`, stand by until they are to be active, and
    again when they are demoted.
    """
    clock = clock or SystemClock()
    logs.configure(config.log_level, config.log_format)
    config = descriptors.fitted(config, descriptors.raise_limit())
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    _demand_secrets(config)
    Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - nothing else runs yet
    while True:
        activation = await await_activation(config, clock, takes_cameras) if config.peer.url else None
        lease = await await_lease(config, clock) if config.engine.standby else None
        try:
            await _run(config, clock, ready, activation, lease)
        except* Superseded as errors:
            _log.warning("demoted: another gateway is active", reason="; ".join(map(str, errors_of(errors))))
        finally:
            if lease:
                await lease.close()


def _demand_secrets(config: Config) -> None:
    """Read the secret files that are needed later: one that is missing is reported before anything starts."""
    files = [broker.password_file for broker in config.external_brokers]
    files += [superior.password_file for superior in config.viid.superiors]
    files += [outlet.token_file for outlet in config.influx.outlets]
    for file in (config.uplink.url and config.uplink.secret_file, *files):
        if file:
            read_secret(file)


async def _run(
    config: Config,
    clock: Clock,
    ready: Callable[[GatewayAddresses], None] | None,
    activation: Activation | None,
    lease: CommitterLease | None,
) -> None:
    # A dump would hold what is in memory: messages before they are redacted, keys. The engine inherits it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    async with contextlib.AsyncExitStack() as stack:
        gateway = await open_gateway(config, clock, stack, activation=activation, lease=lease)
        engine, addresses, directory = gateway.core.engine, gateway.addresses, gateway.core.directory
        addresses.save(directory)
        _log.info("gateway ready", role=config.role, division=config.division, http=addresses.http, mqtt=addresses.mqtt)
        # The registry and the profiles live as long as the process: the collector need not visit them again and again.
        gc.collect()
        gc.freeze()
        if ready:
            ready(addresses)
        async with CancellableTaskGroup() as group:
            for name, task in gateway.tasks.items():
                group.create_task(supervised(name, task.run, clock), name=name)
            group.create_task(keep_engine_pid_current(addresses, engine, directory), name="engine restarts")
            group.create_task(engine.wait_failed(), name="engine")
            if lease:
                group.create_task(lease.hold(), name="lease")


async def supervised(name: str, run: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Restart a component whenever its connection was lost, or a store or the audit trail has no room for it now.

    Any other error is a bug and ends the process.
    """
    while True:
        try:
            await run()
        except* (Unavailable, Overloaded, Fenced, PermissionDenied, StoreFull) as errors:
            metrics.RESTARTS.labels(name).inc()
            _log.warning("component restarted", component=name, reason="; ".join(map(str, errors_of(errors))))
        await clock.sleep(0.5)


class Gateway(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All parts of one node or centre, open; `tasks` are to run as long as it."""

    core: Core
    lifecycle: ProfileLifecycle
    stages: Stages
    share: Share
    pipeline: IngestPipeline
    addresses: GatewayAddresses
    features: Features
    """Features that the configuration asks for."""
    tasks: Mapping[str, Task]


async def open_gateway(
    config: Config,
    clock: Clock,
    stack: contextlib.AsyncExitStack,
    *,
    activation: Activation | None = None,
    lease: CommitterLease | None = None,
) -> Gateway:
    """Start the engine and open all parts over it.

    Args:
        config: the configuration.
        clock: the clock.
        stack: closes all.
        activation: of a centre with another one beside it: the term in which it is active.
        lease: of a node with a standby: the lease of its committer.
    """
    limit_arenas()
    origin = await find_origin(config, clock)
    engine = Engine.of(config, clock, slots=node_slots(config), personal=takes_cameras(config.profile_folders))
    await engine.start()
    stack.push_async_callback(engine.stop)

    # stores, and who and what exists
    core = await open_core(config, clock, engine, stack, log_first=origin.log_first(config, engine, clock))
    restored = await restore_store(core, origin, prepare_secrets)
    audit, divisions = await open_audit(core), Divisions.load()
    callers = await open_callers(core, audit, divisions)
    lifecycle = await open_profiles(core, audit, divisions, stack, digest=viid.digest_of(config))
    profiles, devices = lifecycle.profiles, lifecycle.devices
    privacy = open_privacy(core, profiles, devices)
    rights = TopicRights(profiles, devices)
    topics_of = privacy.guarded(rights.topics_of)
    callout = Callout(engine, devices, clock, trail=audit, topics_of=topics_of, is_camera=privacy.is_camera)
    rights.follow(callout.renew)
    fronts = await open_fronts(core, callout, devices, profiles, stack)
    tier = await open_tier(core, audit, divisions, restored)
    leadership = failover.open_leadership(core, audit, tier.members, activation)
    delivered = leadership.delivered if leadership else core.log

    # the stages
    sources = await open_sources(core, devices, callout.refusals, stack)
    stages = open_stages(core, profiles, devices, sources.channels, stack, centre_offset_s=tier.clock_offset_s)
    returns = ReturnFlow(delivered, grade_max=config.returns.grade_max) if tier.members else None
    share = await open_share(
        core,
        callers,
        devices,
        ShareInputs(
            delivered=delivered,
            quality_hours=stages.quality.since,
            observers=[returns] if returns else [],
            centre=Centre(tier.connection.ask, config.member_id) if tier.connection else None,
            feature_prefixes=tuple(prefix for feature in FEATURES for prefix in feature.subscription_prefixes),
        ),
        stack,
    )

    # the features
    checks = Health()
    parts = Parts(
        core=core,
        callers=callers,
        lifecycle=lifecycle,
        topics_of=topics_of,
        callout=callout,
        sources=sources,
        stages=stages,
        share=share,
        health=checks,
        stack=stack,
        provided={viid.PSEUDONYMISER: privacy.keyring, **tier.parts(returns), **failover.parts_of(leadership)},
    )
    features = await _open_features(parts)

    # the pipeline, and the HTTP side
    reprocessing = open_reprocessing(
        lifecycle, stages.committer, series=stages.series, memory=stages.interpreter.decoder.memory
    )
    pipeline = _open_pipeline(parts, features, reprocessing, privacy)
    checks.watch(not_ready=pipeline.not_ready)
    checks.watch(not_ready=stages.not_ready, warnings=stages.warnings)
    checks.watch(not_ready=partial(health.not_ready, core), warnings=partial(health.warnings, core))
    for texts in (profiles.problems, sources.warnings, callers.certificates.warnings, share.warnings, privacy.warnings):
        checks.watch(warnings=texts)
    if lease:
        checks.watch(warnings=lease.warnings)
    await audit_opening.record_legal_bases(audit, config)
    await callout.start([*features.guests, share.push.authorize])
    stack.push_async_callback(callout.stop)
    await fronts.admit(share.push.take_control)
    checks.watch(not_ready=fronts.not_ready, warnings=fronts.warnings)
    web, url = await open_web(
        WebParts(
            version=__version__,
            core=core,
            callers=callers,
            lifecycle=lifecycle,
            reprocessing=reprocessing,
            topics_of=topics_of,
            refused=callout.refusals.by_device,
            last_refusal=callout.refusals.last_of,
            share=share,
            ingest=sources.push,
            clock_lag=stages.clock_lag,
            broker=lambda: fronts.url,
            clock_judgement=stages.clock_monitor.describe,
            quality_hours=stages.quality.since,
            neighbours=stages.neighbours,
            assets=stages.assets,
            not_ready=checks.not_ready,
            warnings=checks.warnings,
            features=features.parts,
        ),
        ROUTES,
        stack,
    )
    await features.begin()
    reloads = (web.reload_certificates, fronts.reload_certificates, engine.reload_certificates)
    certificates = certificate_reload(config, reloads, clock)
    core_tasks = {
        **callers.tasks,
        **lifecycle.tasks,
        **privacy.tasks,
        **stages.tasks,
        **share.tasks,
        "ingest": pipeline.run,
        "mqtt fronts": fronts.run,
        "certificates": certificates.run,
    }
    return Gateway(
        core=core,
        lifecycle=lifecycle,
        stages=stages,
        share=share,
        pipeline=pipeline,
        addresses=GatewayAddresses.of(engine, url, fronts.url, dict(sources.tcp_urls), features.address("viid")),
        features=features,
        tasks={**owned(core_tasks), **features.tasks},
    )


async def _open_features(parts: Parts) -> Features:
    """Open the features that the configuration asks for, in the order of `FEATURES`."""
    opened: dict[str, Feature] = {}
    for spec in FEATURES:
        feature = await spec.open(msgspec.structs.replace(parts, earlier=tuple(opened.values())))
        if feature is not None:
            opened[spec.name] = feature
            parts.health.watch(not_ready=feature.not_ready, warnings=feature.warnings)
    return Features(opened)


def _open_pipeline(
    parts: Parts, features: Features, reprocessing: ReprocessingParts, privacy: CameraPrivacy
) -> IngestPipeline:
    """Build the pipeline from the sources of the core and of features to the committer."""
    core, stages, lifecycle = parts.core, parts.stages, parts.lifecycle
    pipeline = IngestPipeline(
        core.config,
        core.clock,
        [*parts.sources.all, *features.sources, reprocessing.source, reprocessing.corrections],
        PipelineStages(
            stages.interpreter,
            stages.indicators,
            stages.committer,
            lifecycle.devices,
            redaction=privacy.redactor,
            assets=stages.assets,
            commands=stages.downlink,
            reprocessor=reprocessing.interpreter,
        ),
        boundary=stages.boundary,
        observers=[lifecycle.observe, *features.observers],
        has_delivered=parts.share.sharing.server.has_delivered,
    )
    lifecycle.profiles.on_change.append(pipeline.apply_profiles)
    return pipeline
