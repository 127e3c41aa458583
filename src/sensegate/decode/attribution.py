"""What was refused bears the name of the version that refused it, as readings bear that of theirs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.decode.profiles import ProfileSet
from sensegate.decode.routes import DeviceNames, Route
from sensegate.model import Fields

RouteOf = Callable[[int], Route]
"""Message -> its route."""


def signed(fields: Fields, profiles: ProfileSet, devices: DeviceNames, route_of: RouteOf) -> Fields:
    """Return the fields with ``vendor/model@version`` on each quarantined message and rejected value."""
    if not fields.quarantined and not fields.rejected:
        return fields
    known: dict[tuple[str, int], str] = {}

    def name(message: int, device: int) -> str:
        route = route_of(message)
        key = (route.named, device)
        found = known.get(key)
        if found is None:
            found = known[key] = _name(route, device, profiles, devices)
        return found

    return msgspec.structs.replace(
        fields,
        quarantined=[msgspec.structs.replace(one, profile=name(one.message, one.device)) for one in fields.quarantined],
        rejected=[msgspec.structs.replace(one, profile=name(one.message, one.device)) for one in fields.rejected],
    )


def _name(route: Route, device: int, profiles: ProfileSet, devices: DeviceNames) -> str:
    """Return the version by which a message was read: the rule's; of a device that was carried its own profile's."""
    if device < 0:
        return route.named
    record = devices.record(device)
    if route.named and record.profile.partition("@")[0] == route.profile:
        return route.named
    own = profiles.of(record)
    return own.name if own else route.named
