"""Tell by topic which messages may be addressed to a profile, so that the others need not be decoded."""

from __future__ import annotations

from sensegate.decode.decode import Decoder
from sensegate.decode.routes import DeviceNames, Routes, TopicRoute
from sensegate.model import Message


class ProfileFilter:
    """Predicate over messages; asks a decoder's routes and remembers the answer by topic."""

    def __init__(self, decoder: Decoder, devices: DeviceNames, profile: str) -> None:
        self._decoder = decoder
        self._devices = devices
        self._profile = profile
        self._routes: Routes | None = None
        self._topics: dict[str, bool] = {}

    def __call__(self, message: Message) -> bool:
        """Return whether a message may be of the profile, or carry a frame of one of its devices."""
        if self._decoder.routes.outdated:
            self._decoder.set_profiles(self._decoder.profiles)
        routes = self._decoder.routes
        if routes is not self._routes:
            self._routes, self._topics = routes, {}
        key = message.topic if not message.principal else f"{message.topic}\0{message.principal}"
        relevant = self._topics.get(key)
        if relevant is None:
            relevant = self._topics[key] = self._of_profile(routes.routes[routes.number(key)])
        return relevant

    def _of_profile(self, route: TopicRoute) -> bool:
        if route.profile == self._profile:
            return True
        if route.device >= 0:
            return self._devices.record(route.device).profile.partition("@")[0] == self._profile
        return any(rule.profile == self._profile or rule.chains for rule, _ in route.rules)
