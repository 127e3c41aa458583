"""A vendor folder of ChirpStack's device profiles: ``vendor.toml``, ``devices/*.toml``, ``codecs/*.js`` with tests.

The tests of a codec (``test_decode_<codec>.json``) hold comments and hexadecimal numbers, which JSON does not know.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensegate.authoring.imports.codecs import Codec, CodecExample, Model, profile_of, received_of
from sensegate.authoring.imports.made import Imported, Row, part, read_text, read_yaml
from sensegate.errors import ConfigError


def read(path: Path) -> Iterator[Imported]:
    """Yield a profile for each device of a vendor's folder, or of all below ``vendors/``; nothing where it is none."""
    if not path.is_dir():
        return
    for folder in sorted(_vendors(path)):
        vendor = _table(next(folder.glob("vendor.*"))).get("vendor") or {}
        name = str(vendor.get("name") or folder.name)
        for file in sorted((folder / "devices").glob("*.*")):
            if file.suffix in {".toml", ".yaml", ".yml"}:
                yield _device(folder, name, file)


def _vendors(path: Path) -> Iterator[Path]:
    for place in (path, *sorted(path.glob("vendors/*")), *sorted(path.glob("*"))):
        if place.is_dir() and (place / "devices").is_dir() and any(place.glob("vendor.*")):
            yield place


def _table(file: Path) -> dict[str, Any]:
    """Return a TOML or YAML file. Raises `ConfigError`."""
    if file.suffix != ".toml":
        tree = read_yaml(file)
        return tree if isinstance(tree, dict) else {}
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as why:
        raise ConfigError("is no TOML", file=str(file), remedy=str(why)) from why


def _device(folder: Path, vendor: str, file: Path) -> Imported:
    profile = f"{part(folder.name)}/{part(file.stem)}"
    try:
        device = _table(file).get("device") or {}
        script = _script(folder, device, file.stem)
        if script is None:
            why = "the device names no codec"
            return Imported(profile, "", {}, [Row("(all)", "left", why=why)], why)
        codec = Codec(f"{part(file.stem)}.js", read_text(script), list(_examples(script)))
    except ConfigError as error:
        return Imported(profile, "", {}, [Row("(all)", "left", why=str(error))], str(error))
    link = str((device.get("metadata") or {}).get("product_url") or "")
    source = f"{link + '; ' if link else ''}ChirpStack device profiles, vendors/{folder.name}/codecs/{script.name}"
    described = str(device.get("description") or "")
    return profile_of(Model(profile, vendor, str(device.get("name") or file.stem), described, source), codec)


def _script(folder: Path, device: dict[str, Any], stem: str) -> Path | None:
    """Return the script of the last firmware that names one, or the one of the device's own name."""
    named = [str(one["codec"]) for one in device.get("firmware") or () if isinstance(one, dict) and one.get("codec")]
    for name in [*reversed(named), f"{stem}.js"]:
        script = folder / "codecs" / Path(name).name
        if script.exists():
            return script
    return None


def _examples(script: Path) -> Iterator[CodecExample]:
    """Yield the tests of a codec. Raises `ConfigError`."""
    file = script.with_name(f"test_decode_{script.stem}.json")
    if not file.exists():
        return
    try:
        entries = json.loads(_plain(read_text(file)))
    except ValueError as why:
        raise ConfigError("is no JSON", file=str(file), remedy=str(why)) from why
    for entry in entries if isinstance(entries, list) else []:
        given, wanted = entry.get("input") or {}, entry.get("expected") or {}
        try:
            payload = bytes(given.get("bytes") or ())
        except (TypeError, ValueError):
            continue
        port = given.get("fPort")
        errors = tuple(map(str, wanted.get("errors") or ()))
        yield CodecExample(
            str(entry.get("name") or ""),
            port if isinstance(port, int) else None,
            payload,
            wanted.get("data"),
            None,
            errors,
            received_of(given.get("recvTime")),
        )


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|\b0[xX][0-9a-fA-F]+\b|,(?=\s*[\]}])', re.DOTALL)


def _plain(body: str) -> str:
    """Return JSON without the comments, hexadecimal numbers and last commas that JavaScript allows."""

    def change(found: re.Match[str]) -> str:
        token = found[0]
        if token.startswith('"'):
            return token
        return str(int(token, 16)) if token[:2].lower() == "0x" else ""

    return _TOKENS.sub(change, body)
