"""Build the sources that the configuration names: every way by which messages come in.

our MQTT fronts · HTTP · foreign brokers · ports of national protocols
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec
from nats.aio.client import Client

from sensegate.authority.device_table import StoredDevice
from sensegate.authority.devices import Devices
from sensegate.authority.refusals import DeniedOperation, Refusals
from sensegate.authority.scope import Principal
from sensegate.bus import streams
from sensegate.bus.commit_records import decode_commit
from sensegate.bus.engine import User
from sensegate.bus.names import writer_of
from sensegate.bus.opening import Core
from sensegate.bus.unreadable import read
from sensegate.collect.commands import CommandChannel, OwnBroker
from sensegate.collect.contract import Source
from sensegate.collect.http import HttpSource
from sensegate.collect.intake.source import IntakeSource
from sensegate.collect.intake.upgrade import move_stored_messages
from sensegate.collect.mqtt import MqttSource
from sensegate.collect.tcp import TcpSource
from sensegate.errors import ConfigError
from sensegate.model import Device


class Sources(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Open sources of a gateway, without those of its features."""

    fronts: IntakeSource
    """Batches of our fronts on stream INTAKE."""
    http: HttpSource
    all: tuple[Source, ...]
    """Sources that the ingest pipeline reads."""
    channels: tuple[CommandChannel, ...]
    """Brokers on which a device may listen to us."""
    tcp_urls: Mapping[str, str]
    """Name of a listener -> where it listens."""

    def warnings(self) -> list[str]:
        """Return warnings of messages lost before they arrived."""
        return self.fronts.warnings()

    async def push(self, device: Device, _caller: Principal, body: bytes, content_type: str) -> None:
        """Take a message that came by HTTP; return after the commit that holds it."""
        await self.http.push(device.id, body, content_type)


async def open_sources(core: Core, devices: Devices, refusals: Refusals, stack: contextlib.AsyncExitStack) -> Sources:
    """Open all sources.

    Args:
        core: configuration, clock and engine.
        devices: the registry.
        refusals: where refused connections are counted.
        stack: closes all.

    Raises:
        ConfigError, Unavailable.
    """
    config, clock = core.config, core.clock
    commands = await core.engine.connect(User.INTAKE, name="commands")
    stack.push_async_callback(commands.close)
    await streams.ensure_mqtt_streams(commands, config.store)
    batches = await core.engine.connect(User.GATEWAY, name="batches")
    stack.push_async_callback(batches.close)
    fronts = IntakeSource(batches, config.ingest, clock)
    await fronts.prepare()
    await _move_stored_messages(core, fronts.name, commands, batches)
    http = HttpSource(config.ingest, clock)
    foreign = [MqttSource(settings, config.ingest, clock) for settings in config.external_brokers]
    listeners = await _listen(core, devices, refusals, stack)
    return Sources(
        fronts=fronts,
        http=http,
        all=(fronts, http, *foreign, *listeners.values()),
        channels=(OwnBroker(commands), *foreign),
        tcp_urls={source.name: url for url, source in listeners.items()},
    )


async def _move_stored_messages(core: Core, source: str, commands: Client, batches: Client) -> None:
    """Take over messages that an earlier release acknowledged to devices and did not commit."""
    last = await core.log.last(f"commit.{writer_of(core.config.member_id)}")
    record = read(last, "ingest", decode_commit) if last else None
    await move_stored_messages(commands, batches, record.positions.get(source) if record else None)


async def _listen(
    core: Core, devices: Devices, refusals: Refusals, stack: contextlib.AsyncExitStack
) -> dict[str, TcpSource]:
    """Open the ports for national protocols; return URL -> source."""
    config = core.config
    listeners: dict[str, TcpSource] = {}

    def refused(name: str, reason: str, address: str) -> None:
        refusals.add(name, DeniedOperation.CONNECT, reason, address=address)

    for settings in config.listen.tcp:
        listener = TcpSource(settings, config.ingest, core.clock, devices, zone=config.time.zone, refused=refused)
        if any(listener.name == other.name for other in listeners.values()):
            raise ConfigError(f"'{listener.name}' occurs twice", key="listen.tcp", remedy="give each its own name")
        url = await listener.open()
        stack.push_async_callback(listener.close)
        listeners[url] = listener

    def changed(at: int, _before: StoredDevice | None, after: StoredDevice | None) -> None:
        if after is None or not devices.enabled[at]:
            for listener in listeners.values():
                listener.disconnect(devices.id(at))

    if listeners:
        devices.on_change.append(changed)
    return listeners
