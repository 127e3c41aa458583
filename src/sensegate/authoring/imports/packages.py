"""Import codecs that come as packages: ``package.json``, a script and ``examples.json``, one folder for each device.

Drivers of ThingPark and packages that makers publish have this layout. An example has its bytes as a list or in hex,
under ``input.bytes`` or beside its name; only examples of uplinks are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sensegate.authoring.imports import json5
from sensegate.authoring.imports.codecs import Codec, CodecExample, DeviceModel, profile_of, received_of
from sensegate.authoring.imports.profile_text import ImportedProfile, inside, name_part, read_text, without_profile
from sensegate.errors import ConfigError

PACKAGES_MAX: Final = 2_000
_DEPTHS: Final = ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/")
_DECODES: Final = re.compile(r"function\s+(?:decodeUplink|Decoder?|rawDecode|decoder?)\s*\(|\bdecodeUplink\s*[:=]")
_LOADS_FILES: Final = re.compile(r"\brequire\s*\(|^\s*import\s.*\bfrom\b", re.MULTILINE)


def read(path: Path) -> Iterator[ImportedProfile]:
    """Yield a profile for each package in a folder or below it that has examples; nothing for other paths."""
    if not path.is_dir():
        return
    packages = (
        file
        for depth in _DEPTHS
        for file in sorted(path.glob(f"{depth}package.json"))
        if "node_modules" not in file.relative_to(path).parts and any(_example_files(file.parent))
    )
    for _, file in zip(range(PACKAGES_MAX), packages, strict=False):
        yield _package(file)


def _example_files(folder: Path) -> Iterator[Path]:
    if (folder / "examples.json").exists():
        yield folder / "examples.json"
    yield from sorted(folder.glob("examples/*.json"))


def _package(file: Path) -> ImportedProfile:
    folder = file.parent
    parents = [part.name for part in (folder.parent, folder.parent.parent) if part.name not in {"drivers", ""}]
    profile = f"{name_part(parents[0] if parents else folder.name)}/{name_part(folder.name)}"
    try:
        package = json5.loads(read_text(file))
        if not isinstance(package, dict):
            return without_profile(profile, "package.json is no object")
        script = _script(folder, str(package.get("main") or "index.js"))
        if script is None:
            return without_profile(profile, "no script of the package decodes uplinks without loading other files")
        examples = [example for entry in _entries(folder) if (example := _example(entry)) is not None]
    except (ConfigError, ValueError) as error:
        return without_profile(profile, str(error))
    author = package.get("author")
    vendor = author.get("name") if isinstance(author, dict) else author
    model = DeviceModel(
        profile,
        "",
        str(package.get("name") or folder.name),
        str(package.get("description") or ""),
        f"package {package.get('name') or folder.name} {package.get('version') or ''}".strip()
        + (f" by {vendor}" if isinstance(vendor, str) and vendor else ""),
    )
    return profile_of(model, Codec(f"{name_part(folder.name)}.js", read_text(script), examples))


def _script(folder: Path, main: str) -> Path | None:
    """Return the script that decodes uplinks by itself: that of the package, or another beside it."""
    first = inside(folder, main)
    for script in (first, first.with_suffix(".js"), *sorted(folder.glob("*.js")), *sorted(folder.glob("src/*.js"))):
        if script.is_file() and script.suffix == ".js":
            text = read_text(script)
            if _DECODES.search(text) and not _LOADS_FILES.search(text):
                return script
    return None


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    for file in _example_files(folder):
        tree = json5.loads(read_text(file))
        for entry in tree if isinstance(tree, list) else []:
            if isinstance(entry, dict):
                yield entry


def _example(entry: dict[str, Any]) -> CodecExample | None:
    """Return an example of an uplink; None for downlinks and for examples without bytes."""
    if "uplink" not in str(entry.get("type") or "uplink"):
        return None
    inner, stated = entry.get("input"), entry.get("output")
    given: dict[str, Any] = inner if isinstance(inner, dict) else entry
    output: dict[str, Any] = stated if isinstance(stated, dict) else {"data": entry.get("decoded")}
    payload = _bytes(next((given[key] for key in ("bytes", "payloadHex", "payload", "hex") if key in given), None))
    if payload is None:
        return None
    port = given.get("fPort")
    return CodecExample(
        str(entry.get("description") or entry.get("name") or ""),
        port if isinstance(port, int) else None,
        payload,
        output.get("data"),
        None,
        tuple(map(str, output.get("errors") or entry.get("errors") or ())),
        received_of(given.get("recvTime")),
    )


def _bytes(value: Any) -> bytes | None:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else bytes(value or ())
    except (TypeError, ValueError):
        return None
