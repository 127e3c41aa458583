"""Import a vendor folder of The Things Network's device repository: ``index.yaml``, devices, codecs and scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensegate.authoring.imports.codecs import Codec, CodecExample, DeviceModel, profile_of, received_of
from sensegate.authoring.imports.profile_text import (
    FieldMapping,
    ImportedProfile,
    inside,
    name_part,
    read_text,
    read_yaml,
    without_profile,
)
from sensegate.errors import ConfigError


def read(path: Path) -> Iterator[ImportedProfile]:
    """Yield a profile for each device of a vendor's folder (or of one device file); nothing for other paths."""
    if path.is_file() and path.suffix in {".yaml", ".yml"} and (path.parent / "index.yaml").exists():
        folder, devices = path.parent, [path.stem]
    elif path.is_dir() and (path / "index.yaml").exists():
        index = read_yaml(path / "index.yaml")
        listed = index.get("endDevices") if isinstance(index, dict) else None
        folder, devices = path, [str(name) for name in listed or ()]
    else:
        return
    for name in devices:
        yield _device(folder, name)


def _device(folder: Path, name: str) -> ImportedProfile:
    profile = f"{name_part(folder.name)}/{name_part(name)}"
    try:
        device = read_yaml(folder / f"{name}.yaml")
        codecs = _codecs(device) if isinstance(device, dict) else []
        if not codecs:
            return without_profile(profile, "the device has no codec in this folder")
        codec = _codec(folder, codecs[0], profile)
    except ConfigError as error:
        return without_profile(profile, str(error))
    if isinstance(codec, str):
        return without_profile(profile, codec)
    link = next((str(device[key]) for key in ("dataSheetURL", "productURL") if device.get(key)), "")
    model = DeviceModel(
        profile,
        folder.name,
        str(device.get("name") or name),
        str(device.get("description") or ""),
        f"{link + '; ' if link else ''}The Things Network device repository, vendor/{folder.name}/{codecs[0]}.yaml",
    )
    imported = profile_of(model, codec)
    if len(codecs) > 1:
        rows = [
            *imported.rows,
            *(
                FieldMapping(f"codec {other}", "skipped", reason="for another firmware: import it as a version")
                for other in codecs[1:]
            ),
        ]
        imported = imported._replace(rows=rows)
    return imported


def _codecs(device: dict[str, Any]) -> list[str]:
    """Return the codecs of a device's firmware versions, the last version first."""
    codecs: dict[str, None] = {}
    for firmware in reversed(device.get("firmwareVersions") or []):
        for profile in (firmware.get("profiles") or {}).values() if isinstance(firmware, dict) else ():
            if isinstance(profile, dict) and profile.get("codec"):
                codecs[str(profile["codec"])] = None
    return list(codecs)


def _codec(folder: Path, name: str, profile: str) -> Codec | str:
    """Return a codec with its script and examples, or why there is none. Raises `ConfigError`."""
    tree = read_yaml(inside(folder, f"{name}.yaml"))
    decoder = tree.get("uplinkDecoder") if isinstance(tree, dict) else None
    if not isinstance(decoder, dict) or not decoder.get("fileName"):
        return f"codec {name} decodes no uplinks"
    script = read_text(inside(folder, str(decoder["fileName"])))
    examples = [example for entry in decoder.get("examples") or () if (example := _example(entry)) is not None]
    return Codec(f"{profile.partition('/')[2]}.js", script, examples)


def _example(entry: Any) -> CodecExample | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), dict):
        return None
    given, output = entry["input"], entry.get("output") or {}
    try:
        payload = bytes(given.get("bytes") or ())
    except (TypeError, ValueError):
        return None
    port = given.get("fPort")
    normalised = (entry.get("normalizedOutput") or {}).get("data")
    return CodecExample(
        str(entry.get("description") or ""),
        port if isinstance(port, int) else None,
        payload,
        output.get("data"),
        normalised,
        tuple(map(str, output.get("errors") or ())),
        received_of(given.get("recvTime")),
    )
