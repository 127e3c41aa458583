"""The outlets of a gateway: each a push subscription whose committed offset is its cursor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sensegate.config.influx import InfluxOutletConfig
from sensegate.errors import Conflict
from sensegate.influx.transport import InfluxTransport
from sensegate.share.pushing import MakeSubscription, PushDelivery
from sensegate.share.subscriptions import (
    PushSubscription,
    PushSubscriptions,
    SubscriptionSpec,
    SubscriptionState,
    change_offset,
)
from sensegate.share.transports.contract import PushTransport

DELIVERY = "influx"
"""Delivery of an outlet, in grants and in the usage that the ledger counts."""
FORM = "line"
PREFIX = "outlet-"
"""Of the id of an outlet's subscription; its name follows."""

_log = structlog.get_logger("influx")


class _Outlet(NamedTuple):
    config: InfluxOutletConfig
    transport: InfluxTransport


class Outlets:
    """Writes feeds into stores; `run` until cancelled."""

    def __init__(
        self, configured: tuple[InfluxOutletConfig, ...], push: PushDelivery, token_of: Callable[[str], str]
    ) -> None:
        """`token_of`: file of a token -> the token. Raises `ConfigError`."""
        self._push = push
        self._outlets = {
            f"{PREFIX}{outlet.name}": _Outlet(
                outlet, InfluxTransport(outlet, token_of(outlet.token_file) if outlet.token_file else "")
            )
            for outlet in configured
        }
        self._gaps: dict[str, str] = {}
        self._subscriptions = PushSubscriptions(self._subscription)
        for name, (outlet, _) in self._outlets.items():
            self._subscriptions.add(
                SubscriptionSpec(
                    id=name,
                    subscriber=outlet.subscriber,
                    feed=outlet.feed,
                    delivery=DELIVERY,
                    target=outlet.url,
                    form=FORM,
                    batch=outlet.batch_records,
                )
            )

    async def run(self) -> None:
        """Forget the offsets of outlets that are gone, then deliver until cancelled."""
        await self.forget_removed()
        await self._subscriptions.run()

    async def forget_removed(self) -> None:
        """Delete the committed offsets of outlets that are no longer configured. Raises `Unavailable`."""
        offsets = self._push.offsets
        for name in offsets.names():
            offset = offsets.find(name) if name.startswith(PREFIX) and name not in self._outlets else None
            if offset is not None:
                with contextlib.suppress(Conflict):
                    await offsets.delete(name, expected=offset.revision)

    def close(self) -> None:
        """Close the connections to all stores."""
        for outlet in self._outlets.values():
            outlet.transport.close()

    def warnings(self) -> list[str]:
        """Return warnings of stores that accept nothing, and of missing points."""
        waiting = [
            f"outlet {config.name}: {transport.problem}"
            for config, transport in self._outlets.values()
            if transport.problem
        ]
        return [*waiting, *self._gaps.values()]

    def _subscription(self, spec: SubscriptionSpec) -> PushSubscription:
        make: MakeSubscription = self._push.subscription
        transport: PushTransport = self._outlets[spec.id].transport
        return make(transport, spec, self._skip_expired)

    async def _skip_expired(self, spec: SubscriptionSpec, reason: str, first: str) -> None:
        """Continue after the entries that expired while the store was unreachable, and log the gap."""
        self._gaps[spec.id] = f"{spec.id}: {reason}; it went on at the oldest record"
        _log.error("outlet has a gap", outlet=spec.id, reason=reason, first=first)
        changes = {"after": first, "state": SubscriptionState.ACTIVE, "reason": "", "in_flight": 0}
        await change_offset(self._push.offsets, spec.id, changes)
        self._subscriptions.wake(spec.id)
