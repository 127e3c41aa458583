"""Import device descriptions of other projects as profiles: one module for each form, one report for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensegate.authoring.imports.chirpstack import read as read_chirpstack
from sensegate.authoring.imports.declared import read as read_declared
from sensegate.authoring.imports.packages import read as read_packages
from sensegate.authoring.imports.profile_text import FieldMapping, ImportedProfile
from sensegate.authoring.imports.thethings import read as read_thethings
from sensegate.authoring.imports.zigbee2mqtt import read as read_zigbee2mqtt
from sensegate.errors import ConfigError

__all__ = ["FieldMapping", "ImportedProfile", "import_from"]

_FORMS = (
    "a vendor folder of The Things Network's device repository (index.yaml), of ChirpStack's device profiles "
    "(vendor.toml), packages of codecs (package.json, examples.json), a Zigbee2MQTT `exposes` file (JSON or JSON "
    "lines), or files that declare a device (vendor, model)"
)


def import_from(path: Path) -> Iterator[ImportedProfile]:
    """Yield the profiles that a file or folder describes, each with its report.

    Raises:
        ConfigError: the form is not known, or a file in it cannot be read.
    """
    if not path.exists():
        raise ConfigError("does not exist", file=str(path), remedy="name an existing file or folder")
    any_imported = False
    for reader in (read_thethings, read_chirpstack, read_packages, read_zigbee2mqtt, read_declared):
        for imported in reader(path):
            any_imported = True
            yield imported
        if any_imported:
            return
    raise ConfigError("is in no form that can be imported", file=str(path), remedy=f"give {_FORMS}")
