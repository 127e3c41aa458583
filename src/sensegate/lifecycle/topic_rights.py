"""MQTT topics of devices by the profile versions in force for them, and connections that a change of rights closes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sensegate.authority.callout import TopicsOf, profile_topics
from sensegate.authority.devices import Devices
from sensegate.authority.renewals import Differ
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.watch import ProfileWatcher
from sensegate.model import Device

Renew = Callable[[str, Differ], None]
"""(profile, whether a device's topics have changed): closes the connections of such devices."""


class TopicRights:
    """Topics that devices may use, by the profiles of the start until `follow` was called."""

    def __init__(self, profiles: ProfileWatcher, devices: Devices) -> None:
        self._profiles = profiles
        self._devices = devices
        self._granted = profiles.set
        """Profiles by which devices may publish."""
        self.topics_of: TopicsOf = profile_topics(self._publish_topics, devices, self._subscribe_topics)

    def _publish_topics(
        self, device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str
    ) -> list[str]:
        return self._granted.publish_topics(device, names, gateways, carrier)

    def _subscribe_topics(self, device: Device, names: Sequence[str]) -> list[str]:
        return self._granted.subscribe_topics(device, names)

    def follow(self, renew: Renew) -> None:
        """Apply later changes of profiles to the topics, and close connections whose rights have changed."""

        def changed(profiles: ProfileSet, names: Sequence[str]) -> None:
            before, self._granted = self._granted, profiles
            topics_before, topics_now = (
                profile_topics(in_force.publish_topics, self._devices, in_force.subscribe_topics)
                for in_force in (before, profiles)
            )
            for name in names:
                rights = profiles.topic_rights(name)
                if rights != before.topic_rights(name) or len(rights) > 1:
                    renew(name, lambda device: topics_before(device) != topics_now(device))

        self._profiles.on_change.append(changed)
