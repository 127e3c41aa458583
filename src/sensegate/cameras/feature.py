"""Wiring of cameras: redaction of their metadata, alarm streams, and restrictions on publishing.

Keyring ─▶ MessageRedactor ─▶ ingest pipeline ◀─ CameraSource ◀─ alarm streams of cameras
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


class CameraFeature:
    """The camera parts of a gateway; `tasks` run as long as the gateway."""

    def __init__(
        self, config: Config, clock: Clock, engine: Engine, devices: Devices, profiles: Callable[[], ProfileSet]
    ) -> None:
        """Load or create the keys. Raises `ConfigError`."""
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
        self.redactor = MessageRedactor(FORMATS, self.keyring, bytes_max=largest)
        self.alarms: CameraSource | None = None
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {"keyring": self.keyring.run}

    def open_source(self) -> Sequence[CameraSource]:
        """Return the source of the configured alarm streams, if there are any."""
        config = self._config
        if not config.cameras:
            return []
        egress = Egress(config.egress.cameras, key="egress.cameras")
        self.alarms = CameraSource(
            config.cameras, config.ingest, self._clock, egress, partial(EgressResolver, egress), known=self._known
        )
        self.tasks["cameras"] = self.alarms.run
        return [self.alarms]

    def includes(self, device: Device) -> bool:
        """Return whether a device is a camera by its profile."""
        return self._profiles().is_video(device.profile.partition("@")[0])

    def guard_topics(self, topics_of: TopicsOf) -> TopicsOf:
        """Return a function for topics that denies cameras publishing into an unencrypted store."""

        def topics(device: Device) -> tuple[list[str], list[str]]:
            publish, subscribe = topics_of(device)
            unencrypted = not self._engine.sealed and self._config.engine.encryption != "off" and self.includes(device)
            return ([] if unencrypted else publish), subscribe

        return topics

    def warnings(self) -> list[str]:
        """Return warnings about closed streams and an unencrypted store."""
        warnings = self.alarms.warnings() if self.alarms else []
        if self._profiles().video and not self._engine.sealed:
            consequence = "" if self._config.engine.encryption == "off" else ": cameras may not publish by MQTT"
            remedy = "; set engine.encryption: convert (embedded), or on for an encrypted external server"
            warnings.append(
                f"engine: a profile takes camera metadata, but the store may be unencrypted{consequence}{remedy}"
            )
        return warnings

    def _known(self, device: str) -> bool:
        return self._devices.find(device) >= 0
