"""Import a vendor folder of ChirpStack's device profiles: ``vendor.toml``, ``devices/*.toml``, ``codecs/*.js``.

The tests of a codec (``test_decode_<codec>.json``) are JavaScript more than JSON: comments, hexadecimal
numbers, names without quotes (JSON5).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensegate.authoring.imports import json5
from sensegate.authoring.imports.codecs import Codec, CodecExample, DeviceModel, profile_of, received_of
from sensegate.authoring.imports.profile_text import (
    ImportedProfile,
    inside,
    name_part,
    read_text,
    read_yaml,
    without_profile,
)
from sensegate.errors import ConfigError


def read(path: Path) -> Iterator[ImportedProfile]:
    """Yield a profile for each device of a vendor's folder, or of all under ``vendors/``; nothing for other paths."""
    if not path.is_dir():
        return
    for folder in sorted(_vendors(path)):
        vendor = _table(next(folder.glob("vendor.*"))).get("vendor") or {}
        name = str(vendor.get("name") or folder.name)
        for file in sorted((folder / "devices").glob("*.*")):
            if file.suffix in {".toml", ".yaml", ".yml"}:
                yield _device(folder, name, file)


def _vendors(path: Path) -> Iterator[Path]:
    for folder in (path, *sorted(path.glob("vendors/*")), *sorted(path.glob("*"))):
        if folder.is_dir() and (folder / "devices").is_dir() and any(folder.glob("vendor.*")):
            yield folder


def _table(file: Path) -> dict[str, Any]:
    """Parse a TOML or YAML file. Raises `ConfigError`."""
    if file.suffix != ".toml":
        tree = read_yaml(file)
        return tree if isinstance(tree, dict) else {}
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("is not TOML", file=str(file), remedy=str(error)) from error


def _device(folder: Path, vendor: str, file: Path) -> ImportedProfile:
    profile = f"{name_part(folder.name)}/{name_part(file.stem)}"
    try:
        device = _table(file).get("device") or {}
        script = _script_file(folder, device, file.stem)
        if script is None:
            return without_profile(profile, "the device names no codec")
        codec = Codec(f"{name_part(file.stem)}.js", read_text(script), list(_examples(script)))
    except ConfigError as error:
        return without_profile(profile, str(error))
    link = str((device.get("metadata") or {}).get("product_url") or "")
    source = f"{link + '; ' if link else ''}ChirpStack device profiles, vendors/{folder.name}/codecs/{script.name}"
    description = str(device.get("description") or "")
    return profile_of(DeviceModel(profile, vendor, str(device.get("name") or file.stem), description, source), codec)


def _script_file(folder: Path, device: dict[str, Any], stem: str) -> Path | None:
    """Return the script of the last firmware that names one, or else the script named like the device."""
    named = [
        str(firmware["codec"])
        for firmware in device.get("firmware") or ()
        if isinstance(firmware, dict) and firmware.get("codec")
    ]
    for name in [*reversed(named), f"{stem}.js"]:
        script = inside(folder / "codecs", name)
        if script.exists():
            return script
    return None


def _examples(script: Path) -> Iterator[CodecExample]:
    """Yield the tests of a codec as examples. Raises `ConfigError`."""
    file = script.with_name(f"test_decode_{script.stem}.json")
    if not file.exists():
        return
    try:
        entries = json5.loads(read_text(file))
    except ValueError as error:
        raise ConfigError("is not JSON5", file=str(file), remedy=str(error)) from error
    for entry in entries if isinstance(entries, list) else []:
        given, output = entry.get("input") or {}, entry.get("expected") or {}
        try:
            payload = bytes(given.get("bytes") or ())
        except (TypeError, ValueError):
            continue
        port = given.get("fPort")
        errors = tuple(map(str, output.get("errors") or ()))
        yield CodecExample(
            str(entry.get("name") or ""),
            port if isinstance(port, int) else None,
            payload,
            output.get("data"),
            None,
            errors,
            received_of(given.get("recvTime")),
        )
