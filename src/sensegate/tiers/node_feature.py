"""Feature: a node's side of its centre: forwarding, reports, the centre's configuration and orders, return flow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from sensegate.bus.restores import RestoreHistory
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.tiers import rest_indicators, rest_nodes, rest_returns, rest_uplink, restored_registries
from sensegate.tiers.centre_connection import CONNECTION
from sensegate.tiers.config_distribution import ConfigReceiver
from sensegate.tiers.indicator_history import IndicatorHistory
from sensegate.tiers.indicator_hours import IndicatorSums
from sensegate.tiers.moving import open_mover
from sensegate.tiers.node_rows import own_row
from sensegate.tiers.node_side import CHOICE, NodeParts, NodeSide
from sensegate.tiers.opening import COPIED_BUCKETS, RESTORES
from sensegate.tiers.registry_copies import RegistryUploader
from sensegate.tiers.report import NodeReport, Reporter, report_of
from sensegate.tiers.return_exchange import NodeReturns
from sensegate.tiers.return_receiver import ReturnReceiver
from sensegate.tiers.uplink_accounting import UplinkAccounting
from sensegate.tiers.writers import Claimant, WriterStateBucket, WriterStateFile, WriterStateStore
from sensegate.web import trace
from sensegate.web.parts import LAG, REFUSED_COUNT, SHED


async def _open(parts: Parts) -> Feature | None:
    connection, choice, copied = parts.find(CONNECTION), parts.find(CHOICE), parts.find(COPIED_BUCKETS)
    federation = parts.share.sharing.upward
    if connection is None or choice is None or copied is None or federation is None:
        return None
    core, config, clock = parts.core, parts.core.config, parts.core.clock
    lifecycle, health = parts.lifecycle, parts.health
    totals, devices = parts.stages.committer.totals, lifecycle.devices

    history = IndicatorHistory(await core.bucket("indicators"), clock)
    await history.load()
    sums = IndicatorSums(parts.stages.quality.counts_after, devices, clock)

    async def report(indicators_after: int) -> NodeReport:
        problems = [*health.not_ready(), *health.warnings()]
        own = report_of(clock.now(), dict(totals), len(devices.index), problems)
        indicators = sums.after(indicators_after) if indicators_after >= 0 else ()
        return msgspec.structs.replace(own, generation=connection.generation, indicators=indicators)

    def take_own() -> None:
        own = config.member_id
        history.take(own, sums.after(history.wanted_after(own)), (config.division,))

    restores = parts.find(RESTORES) or RestoreHistory()
    uploads: dict[str, Callable[[], Awaitable[None]]] = {}
    if restores.is_merged:
        epoch = restores.epoch(core.log.epoch)
        uploads["copy of the registries"] = RegistryUploader(
            core.bus, copied, connection.ask, clock, log_epoch=epoch
        ).run
    return_receiver = ReturnReceiver(config.division, core.log, clock, config.store)
    config_receiver = ConfigReceiver(
        lifecycle.releases,
        lifecycle.releases.contents,
        parts.callers.audit,
        connection.ask,
        centre=config.division[:2],
    )
    states: WriterStateStore = WriterStateFile(core.directory)
    if config.engine.standby:
        states = WriterStateBucket(await core.bucket("writer"))
    side = NodeSide(
        NodeParts(
            config=config,
            clock=clock,
            log=core.log,
            connection=connection,
            choice=choice,
            claimant=Claimant(states, core.log, began=core.log.end_at_open),
            reporter=Reporter(report, connection.ask, clock, connection.note_clock),
            config_receiver=config_receiver,
            mover=open_mover(parts, connection.ask),
            shed=parts.find(SHED) or tuple,
            beside={
                "return": partial(return_receiver.run, connection.ask),
                **uploads,
                "catalogue": federation.run,
            },
        )
    )

    async def count_refused() -> int:
        return len(connection.problems())

    accounting = UplinkAccounting(
        config.member_id, core.log, connection.totals, clock, ttl_h=config.store.readings_ttl_h
    )
    return Feature(
        tasks=owned(
            {
                "uplink": side.run,
                "uplink accounting": accounting.run,
                "indicators": partial(history.run, take_own),
                "uplink lag": partial(connection.lag.run, lambda: connection.is_forwarding),
            }
        ),
        parts={
            rest_nodes.NODES: lambda: [own_row(config, connection.totals(), side.state_text())],
            rest_indicators.HISTORY: history,
            rest_uplink.UPLINK: connection.uplink,
            trace.FORWARDED: connection.place_of,
            LAG: lambda: connection.lag.entries,
            REFUSED_COUNT: count_refused,
            rest_returns.RETURNS: NodeReturns(return_receiver, key_file=config.returns.key_file),
        },
        warnings=lambda: [
            *side.warnings(),
            *restored_registries.warnings(restores),
            *federation.problems(),
            *config_receiver.problems(),
        ],
    )


FEATURE = FeatureSpec(
    name="centre of a node",
    title="a node's centre: forwarding, reports, configuration from the centre, return flow",
    config=("uplink", "returns"),
    commands=("node", "return"),
    open=_open,
)
