"""What can be told to devices, by the profiles in force: tasks as capabilities, and as they read on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Role
from sensegate.control.commands import Capability, Parameter
from sensegate.control.tasks import Confirm, Scalar, Told
from sensegate.decode import tasking
from sensegate.decode.grammar import TaskPart
from sensegate.decode.profile import Profile
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import ConfigError
from sensegate.model import Device


class Speaker:
    """What the profiles in force know of tasks."""

    def __init__(self, profiles: Callable[[], ProfileSet], devices: Devices) -> None:
        self._profiles = profiles
        self._devices = devices

    def _profile(self, device: Device) -> Profile:
        found = self._profiles().of(device)
        if found is None:
            raise ConfigError(f"profile {device.profile} is not loaded", key="device", remedy="mend or release it")
        return found

    def capabilities(self, device: Device) -> list[Capability]:
        return [_capability(task) for task in self._profile(device).source.tasks]

    def told(self, device: Device, task: str, said: Mapping[str, Scalar]) -> Told:
        profile = self._profile(device)
        part = tasking.of(profile, task)
        values = tasking.checked(part, said)
        confirm = None
        if (shown := part.confirm) is not None:
            wanted = tasking.expected(shown, values)
            confirm = Confirm(shown.property, wanted, shown.channel, shown.tolerance)
        names = [device.id, *([device.alias] if device.alias else [])]
        return Told(
            part.name,
            profile.name,
            values,
            tuple(tasking.topics_of(profile, part, names)),
            tasking.payload(part, values),
            confirm,
            Role(part.role),
            part.when == "heard",
            part.expires_s,
            part.again_s,
        )

    def shows(self, confirm: Confirm, value: float, text: str | None) -> bool:
        return tasking.shows(confirm.wanted, confirm.tolerance, value, text)


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
