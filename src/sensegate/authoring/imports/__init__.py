"""What others wrote down of their devices, made into profiles: one file for each form, one report for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensegate.authoring.imports.chirpstack import read as read_chirpstack
from sensegate.authoring.imports.declared import read as read_declared
from sensegate.authoring.imports.made import Imported, Row
from sensegate.authoring.imports.thethings import read as read_thethings
from sensegate.authoring.imports.zigbee2mqtt import read as read_zigbee2mqtt
from sensegate.errors import ConfigError

__all__ = ["Imported", "Row", "import_from"]

_FORMS = (
    "a vendor folder of The Things Network's device repository (index.yaml), of ChirpStack's device profiles "
    "(vendor.toml), a Zigbee2MQTT `exposes` file (JSON or JSON lines), or files that declare a device (vendor, model)"
)


def import_from(path: Path) -> Iterator[Imported]:
    """Yield the profiles that a file or folder describes, each with its report.

    Raises:
        ConfigError: it is in no form that is known here, or a file in it cannot be read.
    """
    if not path.exists():
        raise ConfigError("is not there", file=str(path), remedy="name a file or a folder")
    found = False
    for reader in (read_thethings, read_chirpstack, read_zigbee2mqtt, read_declared):
        for one in reader(path):
            found = True
            yield one
        if found:
            return
    raise ConfigError("is in no form that can be imported", file=str(path), remedy=f"give {_FORMS}")
