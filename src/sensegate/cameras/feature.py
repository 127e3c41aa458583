"""Wiring of cameras: what is kept of their metadata, alarms that are fetched from them, when they may publish.

Keyring ─▶ Cutting ─▶ the walk ◀─ CameraSource ─▶ alarm streams of cameras
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from sensegate.authority.callout import TopicsOf
from sensegate.authority.devices import Devices
from sensegate.bus.engine import Engine
from sensegate.cameras.alert_stream import CameraSource
from sensegate.cameras.keyring import Keyring
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.redaction import MessageRedactor
from sensegate.model import Device
from sensegate.publish.egress import Egress, EgressResolver
from sensegate.video.formats import FORMATS


class Cameras:
    """What all cameras of a gateway need beside the walk; `tasks` run as long as the gateway."""

    def __init__(
        self, config: Config, clock: Clock, engine: Engine, devices: Devices, profiles: Callable[[], ProfileSet]
    ) -> None:
        """Read the keys, or make them. Raises `ConfigError`."""
        self._config = config
        self._clock = clock
        self._engine = engine
        self._devices = devices
        self._profiles = profiles
        self.keyring = Keyring(
            Path(config.video.keys_file or Path(config.directory) / "video.keys"),
            clock,
            days=config.video.plate_key_days,
            basis=config.video.basis,
            known=self._known,
        )
        largest = max(config.engine.max_payload_bytes, config.web.body_bytes_max)
        self.cutting = MessageRedactor(FORMATS, self.keyring, bytes_max=largest)
        self.alarms: CameraSource | None = None
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {"keyring": self.keyring.run}

    def opened(self) -> Sequence[CameraSource]:
        """Return the source of the alarm streams that the configuration names, if it names any."""
        config = self._config
        if not config.cameras:
            return []
        way = Egress(config.egress.cameras, key="egress.cameras")
        self.alarms = CameraSource(
            config.cameras, config.ingest, self._clock, way, partial(EgressResolver, way), known=self._known
        )
        self.tasks["cameras"] = self.alarms.run
        return [self.alarms]

    def includes(self, device: Device) -> bool:
        """Return whether a device is a camera, by its profile."""
        return self._profiles().is_video(device.profile.partition("@")[0])

    def guarded(self, topics_of: TopicsOf) -> TopicsOf:
        """Return the topics of devices; of cameras none while the broker would store in clear what they send."""

        def topics(device: Device) -> tuple[list[str], list[str]]:
            publish, subscribe = topics_of(device)
            in_clear = not self._engine.sealed and self._config.engine.encryption != "off" and self.includes(device)
            return ([] if in_clear else publish), subscribe

        return topics

    def troubles(self) -> list[str]:
        """Return what keeps their messages from coming, or would have them stand in clear; a sentence each."""
        found = self.alarms.troubles() if self.alarms else []
        if self._profiles().video and not self._engine.sealed:
            consequence = "" if self._config.engine.encryption == "off" else ": they may not publish by MQTT"
            remedy = "; set engine.encryption: convert (embedded), or on where you have encrypted a server of your own"
            found.append(
                f"engine: a profile takes cameras, the store is not known to be encrypted{consequence}{remedy}"
            )
        return found

    def _known(self, device: str) -> bool:
        return self._devices.find(device) >= 0
