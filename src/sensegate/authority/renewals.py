"""Connections closed little by little where a release changed what their devices may publish.

A city's devices that all came back at once would be a storm of our own making: so many a second, no more, and only
those whose rights are really others than before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sensegate.authority.devices import Devices
from sensegate.clock import Clock
from sensegate.model import Device

PER_S = 200
"""Connections closed a second; the callout answers ten times as many connects."""
_LOOKS = 200
"""Devices looked at before others get their turn."""

Differ = Callable[[Device], bool]
"""Whether a device may publish elsewhere now than before."""


def users_of(device: Device) -> tuple[str, ...]:
    """Return the users over whose connections a device publishes."""
    return device.gateways or (device.id,)


class Renewals:
    """What waits to be closed, in the order in which it was asked for."""

    def __init__(self, devices: Devices, close: Callable[[str], None], clock: Clock, *, per_s: int = PER_S) -> None:
        self._devices = devices
        self._close = close
        self._clock = clock
        self._per_s = per_s
        self._asked: deque[tuple[str, Differ]] = deque()
        self._wake = asyncio.Event()

    def schedule(self, profile: str, differ: Differ) -> None:
        """Have the connections of the devices of a profile closed for which `differ` holds."""
        self._asked.append((profile, differ))
        self._wake.set()

    async def run(self) -> None:
        """Close them until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asked:
                await self._one(*self._asked.popleft())

    async def _one(self, profile: str, differ: Differ) -> None:
        wanted = self._devices.index.profiles.find(profile)
        closed: set[str] = set()
        portion = max(1, self._per_s // 10)
        for at in range(len(self._devices)):
            if at % _LOOKS == _LOOKS - 1:
                await asyncio.sleep(0)
            if self._devices.index.profile[at] != wanted:
                continue
            device = self._devices.record(at)
            users = [user for user in users_of(device) if user not in closed]
            if not users or not differ(device):
                continue
            for user in users:
                closed.add(user)
                self._close(user)
                if len(closed) % portion == 0:
                    await self._clock.sleep(portion / self._per_s)
