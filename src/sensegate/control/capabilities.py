"""Tasking capabilities of devices, by the profiles in force: their tasks, and the commands that these become."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Role
from sensegate.control.tasks import Command, Confirmation, Scalar
from sensegate.decode import tasking
from sensegate.decode.grammar import TaskPart
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
    """True: a reading confirms it."""
    when: str
    """``now``; ``heard``: sent as soon as the device is heard from."""
    expires_s: float
    again_s: float


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
        return Command(
            part.name,
            profile.name,
            values,
            tuple(tasking.command_topics(profile, part, names)),
            tasking.encode_payload(part, values),
            confirm,
            Role(part.role),
            part.when == "heard",
            part.expires_s,
            part.again_s,
        )

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
        task.confirm is not None,
        task.when,
        task.expires_s,
        task.again_s,
    )
