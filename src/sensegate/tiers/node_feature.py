"""Feature: a node's side of its centre: forwards, reports, takes decisions, orders and return flow."""

from __future__ import annotations

from functools import partial

import msgspec

from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.ports import SHED
from sensegate.tiers import rest_nodes, rest_returns, rest_uplink
from sensegate.tiers.centre_connection import CONNECTION
from sensegate.tiers.config_distribution import ConfigReceiver
from sensegate.tiers.moving import open_mover
from sensegate.tiers.node_rows import own_row
from sensegate.tiers.node_side import CHOICE, NodeParts, NodeSide
from sensegate.tiers.opening import COPIED_BUCKETS
from sensegate.tiers.registry_copies import RegistryUploader
from sensegate.tiers.report import NodeReport, Reporter, report_of
from sensegate.tiers.return_desks import NodeReturns
from sensegate.tiers.return_receiver import ReturnReceiver
from sensegate.tiers.uplink_accounting import UplinkAccounting
from sensegate.tiers.writers import Claimant, WriterStateFile


async def _open(parts: Parts) -> Feature | None:
    connection, choice, copied = parts.find(CONNECTION), parts.find(CHOICE), parts.find(COPIED_BUCKETS)
    federation = parts.share.sharing.upward
    if connection is None or choice is None or copied is None or federation is None:
        return None
    core, config, clock = parts.core, parts.core.config, parts.core.clock
    lifecycle, health = parts.lifecycle, parts.health
    totals, devices = parts.stages.committer.totals, lifecycle.devices

    async def report() -> NodeReport:
        problems = [*health.not_ready(), *health.warnings()]
        made = report_of(clock.now(), dict(totals), len(devices.index), problems)
        return msgspec.structs.replace(made, generation=connection.generation)

    taker = ReturnReceiver(config.division, core.log, clock, config.store)
    taking = ConfigReceiver(
        lifecycle.releases,
        lifecycle.releases.contents,
        parts.callers.audit,
        connection.ask,
        centre=config.division[:2],
    )
    side = NodeSide(
        NodeParts(
            config=config,
            clock=clock,
            log=core.log,
            connection=connection,
            choice=choice,
            claimant=Claimant(WriterStateFile(core.directory), core.log, began=core.log.began),
            reporter=Reporter(report, connection.ask, clock),
            taking=taking,
            mover=open_mover(parts, connection.ask),
            shed=parts.find(SHED) or tuple,
            beside={
                "return": partial(taker.run, connection.ask),
                "copy of the registries": RegistryUploader(
                    core.bus, copied, connection.ask, clock, log_epoch=core.log.epoch
                ).run,
                "catalogue": federation.run,
            },
        )
    )
    carried = UplinkAccounting(config.member_id, core.log, connection.totals, clock, ttl_h=config.store.readings_ttl_h)
    return Feature(
        tasks=owned({"uplink": side.run, "carried": carried.run}),
        parts={
            rest_nodes.NODES: lambda: [own_row(config, connection.totals(), side.state_text())],
            rest_uplink.UPLINK: connection.uplink,
            rest_returns.RETURNS: NodeReturns(taker, key_file=config.returns.key_file),
        },
        warnings=lambda: [*connection.problems(), *federation.problems(), *taking.problems()],
    )


FEATURE = FeatureSpec(
    name="centre of a node",
    title="a node's centre: forwarding, reports, decisions of the centre, return flow",
    config=("uplink", "returns"),
    commands=("node", "return"),
    open=_open,
)
