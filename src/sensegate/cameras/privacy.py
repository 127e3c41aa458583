"""Privacy of cameras: what of their metadata is kept, by which keys, and whether the store may hold it.

Keyring ─▶ MessageRedactor ─▶ the ingest pipeline
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from sensegate.authority.callout import TopicsOf
from sensegate.authority.devices import Devices
from sensegate.bus.opening import Core
from sensegate.cameras.keyring import Keyring
from sensegate.decode.profiles import any_video_profile
from sensegate.decode.redaction import MessageRedactor
from sensegate.decode.watch import ProfileWatcher
from sensegate.model import Device
from sensegate.video.formats import FORMATS


class CameraPrivacy(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Redaction of video metadata, and the rights of cameras while the store is not known to be encrypted."""

    core: Core
    profiles: ProfileWatcher
    keyring: Keyring
    redactor: MessageRedactor

    @property
    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Name -> task that runs as long as the gateway."""
        return {"keyring": self.keyring.run}

    def is_camera(self, device: Device) -> bool:
        """Return whether a device is a camera, by its profile."""
        return self.profiles.set.is_video(device.profile.partition("@")[0])

    def guarded(self, topics_of: TopicsOf) -> TopicsOf:
        """Return the topics of devices; of cameras none while the broker would store in clear what they send."""
        engine, settings = self.core.engine, self.core.config.engine

        def topics(device: Device) -> tuple[list[str], list[str]]:
            publish, subscribe = topics_of(device)
            in_clear = not engine.sealed and settings.encryption != "off" and self.is_camera(device)
            return ([] if in_clear else publish), subscribe

        return topics

    def warnings(self) -> list[str]:
        """Return a sentence where the store is not known to be encrypted although a profile takes cameras."""
        if not self.profiles.set.video or self.core.engine.sealed:
            return []
        consequence = "" if self.core.config.engine.encryption == "off" else ": they may not publish by MQTT"
        remedy = "; set engine.encryption: convert (embedded), or on where you have encrypted a server of your own"
        return [f"engine: a profile takes cameras, the store is not known to be encrypted{consequence}{remedy}"]


def takes_cameras(places: Sequence[str]) -> bool:
    """Return whether a profile in folders or files is of cameras: the store may then hold data of persons."""
    return any_video_profile(places)


def open_privacy(core: Core, profiles: ProfileWatcher, devices: Devices) -> CameraPrivacy:
    """Read the keys, or create them. Raises `ConfigError`."""
    config = core.config
    keyring = Keyring(
        Path(config.video.keys_file or core.directory / "video.keys"),
        core.clock,
        days=config.video.plate_key_days,
        basis=config.video.basis,
        known=lambda device: devices.find(device) >= 0,
    )
    largest = max(config.engine.max_payload_bytes, config.web.body_bytes_max)
    redactor = MessageRedactor(FORMATS, keyring, bytes_max=largest)
    return CameraPrivacy(core=core, profiles=profiles, keyring=keyring, redactor=redactor)
