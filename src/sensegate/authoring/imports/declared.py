"""Files that declare a device and decode nothing: vendor, model, sensors, ports. They make a profile to begin with.

If vectors stand in the folder above (``uplink-vectors.jsonl``: vendor, model, fPort, bytes_hex, expected), the members
of what the maker's decoder gives are named with what they may be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensegate.authoring.imports.made import Imported, Row, head, loads, part, read_text, read_yaml
from sensegate.authoring.learn.fields import fields_of
from sensegate.authoring.learn.guess import guess
from sensegate.authoring.learn.names import matches
from sensegate.authoring.yaml_text import comment, flow
from sensegate.decode.paths import render
from sensegate.errors import ConfigError


def read(path: Path) -> Iterator[Imported]:
    """Yield a profile for each file that declares a device; nothing where there is none."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path] if path.suffix == ".yaml" else []
    for file in files:
        tree = read_yaml(file)
        if isinstance(tree, dict) and isinstance(tree.get("vendor"), str) and isinstance(tree.get("model"), str):
            yield _profile(tree, _vectors(file.parent.parent / "uplink-vectors.jsonl", tree))


def _vectors(file: Path, tree: dict[str, Any]) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    try:
        entries = [json.loads(line) for line in read_text(file).splitlines() if line.strip()]
    except ValueError as why:
        raise ConfigError("is no JSON", file=str(file), remedy=str(why)) from why
    return [one for one in entries if (one.get("vendor"), one.get("model")) == (tree["vendor"], tree["model"])]


def _profile(tree: dict[str, Any], vectors: list[dict[str, Any]]) -> Imported:
    profile = f"{part(tree['vendor'])}/{part(tree['model'])}"
    title = f"{tree['vendor']} {tree.get('name') or tree['model']}"
    ports = [port for port in tree.get("fPorts") or () if isinstance(port, int)]
    rows = [Row("(layout)", "left", why="nothing says how the bytes are laid out")]
    notes: list[str] = []
    for sensor in tree.get("sensors") or ():
        likely = ", ".join(one.property for one in matches((str(sensor),))[:2])
        rows.append(
            Row(
                str(sensor), "left", why=f"a sensor without a place in the bytes; perhaps {likely or 'nothing we know'}"
            )
        )
        notes.append(f"sensor {sensor}: {likely or 'no property of this name'}")
    shown = [one["expected"]["data"] for one in vectors if isinstance((one.get("expected") or {}).get("data"), dict)]
    for path, facts in fields_of(shown).items():
        found = guess(facts)
        rows.append(
            Row(render(path), "guessed", found.property, found.unit, found.reason)
            if found
            else Row(render(path), "left", why="no property of such a name and such values")
        )
        if found:
            notes.append(f"{render(path)}: {found.property}, {found.unit or found.reason} ({found.reason})")
    described = " ".join(str(tree.get("description") or "").split())
    lines = head(
        profile,
        title,
        title,
        f"what {tree['vendor']} declares of the model; name the document of its payload here",
        f"TO BE COMPLETED: {described}",
        "Write `binary:` or `script:` and `readings` in place of `ignore`.",
    )
    lines += ["messages:", "  - label: frames", f"    frames: {flow({'ports': ports} if ports else {})}"]
    lines += [f"    {comment(note)}" for note in notes]
    lines += ["    ignore: true"]
    if vectors:
        lines.append("# Vectors of the maker, to become examples:")
    for one in vectors:
        gives = json.dumps(one.get("expected"), ensure_ascii=False)
        lines.append(
            comment(f"port {one.get('fPort')}, {one.get('bytes_hex')}: {one.get('description') or ''} {gives}")
        )
    body = "\n".join(lines) + "\n"
    return Imported(profile, body, {}, rows, loads(body, Path()))
