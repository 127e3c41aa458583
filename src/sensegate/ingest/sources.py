"""Wiring of the first step of the walk: every way by which messages come in, opened in order.

our own broker (QoS 1 and 2) · HTTP · our own broker (QoS 0) · foreign brokers · ports of national protocols
"""

from __future__ import annotations

import contextlib

from sensegate.authority.devices import Devices, StoredDevice
from sensegate.authority.refusals import DeniedOperation, Refusals
from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock
from sensegate.collect.besteffort import BestEffortSource
from sensegate.collect.broker import BrokerSource
from sensegate.collect.commands import CommandChannel, OwnBroker
from sensegate.collect.http import HttpSource
from sensegate.collect.mqtt import MqttSource
from sensegate.collect.tcp import TcpSource
from sensegate.config import Config
from sensegate.decode.watch import ProfileWatcher
from sensegate.errors import ConfigError
from sensegate.ports import Source


class Sources:
    """`all` is what the walk reads; `ways` are the brokers on which a device may listen to us."""

    def __init__(self, config: Config, clock: Clock, engine: Engine) -> None:
        self._config = config
        self._clock = clock
        self._engine = engine
        self.http = HttpSource(config.ingest, clock)
        self.all: list[Source] = []
        self.ways: list[CommandChannel] = []
        self.tcp_urls: dict[str, str] = {}

    async def open_broker(self, stack: contextlib.AsyncExitStack) -> None:
        """Have the broker's store keep what devices send: before the first of them may connect.

        Raises `Unavailable`.
        """
        intake = await self._engine.connect(User.INTAKE, name="intake")
        stack.push_async_callback(intake.close)
        await streams.ensure_intake(intake, self._config.store)
        self.broker = BrokerSource(intake, self._config.ingest, self._clock)
        await self.broker.prepare()
        self.all += [self.broker, self.http]
        self.ways.append(OwnBroker(intake))

    async def open_others(
        self, stack: contextlib.AsyncExitStack, profiles: ProfileWatcher, devices: Devices, refusals: Refusals
    ) -> None:
        """Open all the others that the configuration names. Raises `ConfigError`, `Unavailable`."""
        config, clock = self._config, self._clock
        qos0 = await self._engine.connect(User.INTAKE, name="intake qos 0")
        stack.push_async_callback(qos0.close)
        best_effort = BestEffortSource(qos0, profiles.set.topics_at_qos0(), config.ingest, clock)
        profiles.on_change.append(lambda now, _: best_effort.hear(now.topics_at_qos0()))
        foreign = [MqttSource(broker, config.ingest, clock) for broker in config.external_brokers]
        self.all += [best_effort, *foreign]
        self.ways += foreign
        await self._listen(stack, devices, refusals)

    async def _listen(self, stack: contextlib.AsyncExitStack, devices: Devices, refusals: Refusals) -> None:
        """Open the ports for national protocols; that of GA/T 1400 is opened with the HTTP side."""
        config = self._config
        listeners: list[TcpSource] = []

        def turned_away(name: str, why: str, address: str) -> None:
            refusals.add(name, DeniedOperation.CONNECT, why, address=address)

        for listener_config in config.listen.tcp:
            listener = TcpSource(
                listener_config, config.ingest, self._clock, devices, zone=config.time.zone, refused=turned_away
            )
            if listener.name in self.tcp_urls:
                raise ConfigError(f"'{listener.name}' occurs twice", key="listen.tcp", remedy="give each its own name")
            self.tcp_urls[listener.name] = await listener.open()
            stack.push_async_callback(listener.close)
            listeners.append(listener)

        def changed(at: int, _before: StoredDevice | None, after: StoredDevice | None) -> None:
            if after is None or not devices.enabled[at]:
                for listener in listeners:
                    listener.expel(devices.id(at))

        if listeners:
            devices.on_change.append(changed)
        self.all += listeners
