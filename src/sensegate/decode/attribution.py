"""Attribution of refusals to the profile version that refused, as readings carry theirs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.decode.profiles import ProfileSet
from sensegate.decode.routes import DeviceNames, TopicRoute
from sensegate.model import Fields

RouteOf = Callable[[int], TopicRoute]
"""Index of a message -> its route."""


def attributed(fields: Fields, profiles: ProfileSet, devices: DeviceNames, route_of: RouteOf) -> Fields:
    """Return the fields with ``vendor/model@version`` on each quarantined message and rejected value."""
    if not fields.quarantined and not fields.rejected:
        return fields
    names: dict[tuple[str, int], str] = {}

    def name(message: int, device: int) -> str:
        route = route_of(message)
        key = (route.version, device)
        profile = names.get(key)
        if profile is None:
            profile = names[key] = _name(route, device, profiles, devices)
        return profile

    return msgspec.structs.replace(
        fields,
        quarantined=[
            msgspec.structs.replace(item, profile=name(item.message, item.device)) for item in fields.quarantined
        ],
        rejected=[msgspec.structs.replace(item, profile=name(item.message, item.device)) for item in fields.rejected],
    )


def _name(route: TopicRoute, device: int, profiles: ProfileSet, devices: DeviceNames) -> str:
    """Return the version that decoded a message: the rule's; for a frame in an envelope, its device's own profile."""
    if device < 0:
        return route.version
    record = devices.record(device)
    if route.version and record.profile.partition("@")[0] == route.profile:
        return route.version
    own = profiles.of(record)
    return own.name if own else route.version
