"""Construction of a gateway's part in the moves of devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sensegate.authority.scope import Principal, Role, Scope
from sensegate.bus.names import PARTITION
from sensegate.clock import HOUR_US
from sensegate.feature import Parts
from sensegate.tiers.device_moves import DeviceMover, LogIdentity, MoveOperations


def open_mover(parts: Parts, ask: Callable[[str, bytes], Awaitable[bytes]]) -> DeviceMover:
    """Return the mover that runs the centre's orders; `ask`: (question, payload) -> the centre's answer."""
    config, broker, barrier = parts.core.config, parts.sources.fronts, parts.stages.barrier

    async def drained() -> None:
        await barrier.wait_drained(broker.name, await broker.newest())

    return DeviceMover(
        parts.lifecycle.devices,
        parts.core.log,
        parts.core.clock,
        LogIdentity(
            config.member_id,
            PARTITION,
            (config.duplicates.horizon_h + 2) * HOUR_US,
            config.store.readings_ttl_h,
        ),
        operations=MoveOperations(ask, parts.callout.close, drained, barrier.remember),
        by=Principal("centre", Role.PROVINCE_OPERATOR, Scope(config.division[:2]), name="ordered at the centre"),
    )
