"""Build the sharing stage: the reader of the log, feeds for those who ask, and for those to whom they are pushed."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority import audit_opening
from sensegate.authority.devices import Devices
from sensegate.authority.heads import HourlyHeads
from sensegate.authority.opening import Callers
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Scope
from sensegate.bus.contract import Log
from sensegate.bus.kv import KvBucket
from sensegate.bus.opening import Core
from sensegate.model import QualityHour
from sensegate.share import wiring
from sensegate.share.feeds import Feeds
from sensegate.share.floors import GradeFloors
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.last_values import LastValues
from sensegate.share.last_values_store import LastValueTask
from sensegate.share.latest import LatestReader
from sensegate.share.place_totals import DevicePlaceSource
from sensegate.share.pushing import PushDelivery, open_push
from sensegate.share.reader import LogObserver, LogReader
from sensegate.share.sharing import Centre, Sharing, SharingContext, SharingStores


class ShareInputs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Inputs of the sharing stage from other stages."""

    delivered: Log
    """The log as far as it may be delivered."""
    quality_hours: Callable[[int], Iterable[QualityHour]]
    """Time -> indicators since then, by device and hour."""
    observers: Sequence[LogObserver] = ()
    """Hear of entries as the reader follows the log."""
    centre: Centre | None = None
    """Of a node: its centre."""
    feature_prefixes: tuple[str, ...] = ()
    """Of ids of push subscriptions whose features delete their offsets themselves."""


class Share(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The open sharing stage."""

    sharing: Sharing
    latest: LatestReader
    last_values: LastValues
    """Of every series of the log, as far as it may be delivered."""
    floors: GradeFloors
    signing_key: Ed25519PrivateKey
    last_value_task: LastValueTask
    push: PushDelivery
    delivered_hourly: HourlyHeads
    """Records deliveries on the trail every hour."""
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""

    def warnings(self) -> list[str]:
        """Return faults that do not stop deliveries."""
        problem = self.sharing.hourly.problem
        return [*self.delivered_hourly.warnings(), *([problem] if problem else []), *self.last_value_task.warnings()]


async def open_share(
    core: Core, callers: Callers, devices: Devices, inputs: ShareInputs, stack: contextlib.AsyncExitStack
) -> Share:
    """Open the stage over the log. Raises `ConfigError`, `Unavailable`."""
    config, clock = core.config, core.clock
    reader = LogReader(inputs.delivered, clock, observers=inputs.observers, readings_ttl_h=config.store.readings_ttl_h)
    key = wiring.signing_key(config)
    books = HourlyLedgers(
        core.hours,
        clock,
        ttl_h=config.store.ledger_ttl_h,
        payload_bytes_max=core.hours.payload_bytes_max,
        source=DevicePlaceSource(devices.places, lambda: devices.version),
    )

    def subscriber(name: str, by: Principal) -> Scope:
        return callers.tokens.get(name, by).scope

    stores = SharingStores(
        reader,
        books,
        Feeds(await core.bucket("feeds"), clock),
        await core.bucket("usage"),
        RecordStore(await core.bucket("sharing"), clock),
    )
    measured = wiring.feed_indicators(devices, inputs.quality_hours, clock)
    context = SharingContext(subscriber, measured, inputs.centre)
    sharing = wiring.build_sharing(config, clock, callers.audit, stores=stores, context=context, key=key)
    await sharing.open(core.log.end_at_open)
    stack.push_async_callback(sharing.close)
    last_values = LastValues()
    bucket = await KvBucket.open(core.bus, "latest", bytes_max=config.store.registry_bytes)
    last_value_task = LastValueTask(last_values, reader, bucket, devices, clock)
    await last_value_task.open()
    stack.push_async_callback(last_value_task.close)
    push = await open_push(
        core, sharing, callers.tokens, callers.audit, stack, feature_prefixes=inputs.feature_prefixes
    )
    hourly = audit_opening.hourly_heads(callers.audit, clock, config, sharing.usage)
    return Share(
        sharing=sharing,
        last_values=last_values,
        latest=LatestReader(last_values, sharing),
        last_value_task=last_value_task,
        floors=GradeFloors(sharing.catalogue, sharing.feeds),
        signing_key=key,
        push=push,
        delivered_hourly=hourly,
        tasks={"share": sharing.run, "last values": last_value_task.run, **push.tasks, "audit": hourly.run},
    )
