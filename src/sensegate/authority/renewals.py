"""Gradual closing of connections after a release changed what their devices may publish.

Reconnecting all devices of a city at once would overload the gateway: the rate is limited, and only devices whose
permissions really change are disconnected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sensegate.authority.devices import Devices
from sensegate.clock import Clock
from sensegate.model import Device

PER_S = 200
"""Connections closed per second; the callout answers ten times as many connects."""
_YIELD_DEVICES = 200
"""Devices checked before other tasks get their turn."""

Differ = Callable[[Device], bool]
"""True if the permissions of a device differ from before."""


def users_of(device: Device) -> tuple[str, ...]:
    """Return the users whose connections a device publishes on."""
    return device.gateways or (device.id,)


class Renewals:
    """The queue of profiles whose devices are to be disconnected."""

    def __init__(self, devices: Devices, close: Callable[[str], None], clock: Clock, *, per_s: int = PER_S) -> None:
        self._devices = devices
        self._close = close
        self._clock = clock
        self._per_s = per_s
        self._queue: deque[tuple[str, Differ]] = deque()
        self._wake = asyncio.Event()

    def schedule(self, profile: str, differ: Differ) -> None:
        """Schedule the closing of the connections of those devices of a profile for which `differ` holds."""
        self._queue.append((profile, differ))
        self._wake.set()

    async def run(self) -> None:
        """Close scheduled connections until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._close_profile(*self._queue.popleft())

    async def _close_profile(self, profile: str, differ: Differ) -> None:
        profile_index = self._devices.index.profiles.find(profile)
        closed: set[str] = set()
        batch = max(1, self._per_s // 10)
        for at in range(len(self._devices)):
            if at % _YIELD_DEVICES == _YIELD_DEVICES - 1:
                await asyncio.sleep(0)
            if self._devices.index.profile[at] != profile_index:
                continue
            device = self._devices.record(at)
            users = [user for user in users_of(device) if user not in closed]
            if not users or not differ(device):
                continue
            for user in users:
                closed.add(user)
                self._close(user)
                if len(closed) % batch == 0:
                    await self._clock.sleep(batch / self._per_s)
