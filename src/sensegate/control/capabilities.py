"""Tasking capabilities of devices, by the profiles in force: their tasks, and the commands that these become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Role
from sensegate.control.tasks import Command, Confirmation, FrameCommand, Scalar
from sensegate.decode import downlink, tasking
from sensegate.decode.downlink import DownlinkRoute
from sensegate.decode.formats.script import encoder_of
from sensegate.decode.grammar import DownlinkPart, TaskPart
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import ConfigError
from sensegate.model import Device


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a task."""

    name: str
    kind: str
    label_zh: str
    label_en: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    words: tuple[Scalar, ...] = ()
    """The values allowed; empty: any of the kind and range."""
    default: Scalar | None = None


class Capability(msgspec.Struct, frozen=True):
    """A task that a device can perform (OGC SensorThings: TaskingCapability)."""

    task: str
    label_zh: str
    label_en: str
    role: str
    """Lowest role that may order it."""
    parameters: tuple[Parameter, ...]
    confirmed: bool
    """True: a reading, or the device's acknowledgement, confirms it."""
    when: str
    """``now``; ``heard``: sent as soon as the device is heard from."""
    expires_s: float
    again_s: float
    frame: bool = False
    """True if the command goes down as a frame, by the device's network server."""


class NetworkRoute(NamedTuple):
    """The network server of a device, and where it takes downlinks."""

    server: str
    """Its profile."""
    downlink: DownlinkPart
    route: DownlinkRoute


class TaskingCapabilities:
    """The tasks of the profiles in force."""

    def __init__(self, profiles: Callable[[], ProfileSet], devices: Devices) -> None:
        self._profiles = profiles
        self._devices = devices

    def _profile(self, device: Device) -> CompiledProfile:
        profile = self._profiles().of(device)
        if profile is None:
            raise ConfigError(
                f"profile {device.profile} is not loaded", key="device", remedy="correct its file, or release a version"
            )
        return profile

    def capabilities(self, device: Device) -> list[Capability]:
        return [_capability(task) for task in self._profile(device).source.tasks]

    def command_for(self, device: Device, task: str, parameters: Mapping[str, Scalar]) -> Command:
        profile = self._profile(device)
        part = tasking.find_task(profile, task)
        values = tasking.validate_parameters(part, parameters)
        confirm = None
        if (shown := part.confirm) is not None:
            wanted = tasking.confirming_value(shown, values)
            confirm = Confirmation(shown.property, wanted, shown.channel, shown.tolerance)
        names = [device.id, *([device.alias] if device.alias else [])]
        encoded = tasking.encode_task(part, values, encoder_of(rule.parse for rule in profile.rules))
        target = part.frame
        frame = None if target is None else FrameCommand(encoded.port, target.confirmed, target.replace)
        return Command(
            part.name,
            profile.name,
            values,
            () if frame else tuple(tasking.command_topics(profile, part, names)),
            encoded.payload,
            confirm,
            Role(part.role),
            part.when == "heard",
            part.expires_s,
            part.again_s,
            frame,
        )

    def network_of(self, device: Device, uplink_topic: str, *, replace: bool = False) -> NetworkRoute | None:
        """Return the network server that delivers a device's messages under a topic; None: none takes downlinks."""
        for name in device.gateways:
            at = self._devices.find(name)
            profile = self._profiles().of(self._devices.record(at)) if at >= 0 else None
            if profile is None or profile.source.downlink is None:
                continue
            route = downlink.find_route(profile.source.downlink, uplink_topic, replace=replace)
            if route is not None:
                return NetworkRoute(profile.id, profile.source.downlink, route)
        return None

    def downlink_of(self, server: str) -> DownlinkPart | None:
        """Return how the network servers with a profile take downlinks."""
        profile = self._profiles().find(server)
        return profile.source.downlink if profile else None

    def confirms(self, confirm: Confirmation, value: float, text: str | None) -> bool:
        return tasking.confirms(confirm.expected, confirm.tolerance, value, text)


def _capability(task: TaskPart) -> Capability:
    parameters = (
        Parameter(
            name,
            part.kind,
            part.label.zh,
            part.label.en,
            part.unit,
            part.range[0] if part.range else None,
            part.range[1] if part.range else None,
            tuple(part.words),
            part.default,
        )
        for name, part in task.parameters.items()
    )
    return Capability(
        task.name,
        task.label.zh,
        task.label.en,
        task.role,
        tuple(parameters),
        task.confirm is not None or (task.frame is not None and task.frame.confirmed),
        task.when,
        task.expires_s,
        task.again_s,
        task.frame is not None,
    )
