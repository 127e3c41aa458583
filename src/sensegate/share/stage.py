"""Build the sharing stage: the reader of the log, feeds for those who ask, and for those to whom they are pushed."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority import audit_opening
from sensegate.authority.callout import GuestOf
from sensegate.authority.devices import Devices
from sensegate.authority.heads import Hours
from sensegate.authority.opening import Callers
from sensegate.bus.opening import Core
from sensegate.normalise.book import IndicatorStore, QualityRow
from sensegate.ports import Log
from sensegate.share import opening
from sensegate.share.books import Books
from sensegate.share.floors import GradeFloors
from sensegate.share.pushing import Pushing
from sensegate.share.reader import LogObserver, Reader
from sensegate.share.sharing import Centre, Sharing


class ShareInputs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the sharing stage gets of other stages."""

    delivered: Log
    """The log as far as it may be delivered."""
    quality: IndicatorStore
    observers: Sequence[LogObserver] = ()
    """Hear of entries as the reader follows the log."""
    centre: Centre | None = None
    """Of a node: its centre."""


class Share(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The open sharing stage."""

    sharing: Sharing
    quality_rows: Callable[[int], Sequence[QualityRow]]
    """Time -> indicators since then, by device and hour."""
    floors: GradeFloors
    signing_key: Ed25519PrivateKey
    pushing: Pushing
    guest_of: GuestOf
    """Admits subscribers at our broker."""
    delivered_hourly: Hours
    """Records on the trail every hour what was delivered."""
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""

    def warnings(self) -> list[str]:
        """Return what is wrong and does not stop deliveries."""
        trouble = self.sharing.books.trouble
        return [*self.delivered_hourly.troubles(), *([trouble] if trouble else [])]


async def open_share(
    core: Core, callers: Callers, devices: Devices, inputs: ShareInputs, stack: contextlib.AsyncExitStack
) -> Share:
    """Open the stage over the log. Raises `ConfigError`, `Unavailable`."""
    config, clock = core.config, core.clock
    reader = Reader(inputs.delivered, clock, observers=inputs.observers, readings_ttl_h=config.store.readings_ttl_h)
    rows = opening.quality_rows(inputs.quality, devices)
    key = opening.signing_key(config)
    sharing = opening.made(
        config,
        clock,
        callers.audit,
        callers.tokens,
        reader=reader,
        books=Books(core.hours, clock, ttl_h=config.store.ledger_ttl_h, payload_bytes_max=core.hours.payload_bytes_max),
        feeds=await core.bucket("feeds"),
        usage=await core.bucket("usage"),
        sharing=await core.bucket("sharing"),
        measured=opening.measures(devices, rows, clock),
        signing=key,
        centre=inputs.centre,
    )
    await sharing.open(core.log.began)
    stack.push_async_callback(sharing.close)
    pushing = Pushing(config, clock, sharing, callers.tokens, callers.audit)
    await pushing.open(await core.bucket("lines"), await core.bucket("sharing"), stack)
    guest_of = await pushing.open_broker(core.engine, stack)
    hourly = audit_opening.hours(callers.audit, clock, config, sharing.usage)
    return Share(
        sharing=sharing,
        quality_rows=rows,
        floors=GradeFloors(sharing.catalogue, sharing.feeds),
        signing_key=key,
        pushing=pushing,
        guest_of=guest_of,
        delivered_hourly=hourly,
        tasks={"share": sharing.run, **pushing.tasks, "audit": hourly.run},
    )
