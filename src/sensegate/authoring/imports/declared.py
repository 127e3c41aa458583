"""Import files that declare a device without decoding it (vendor, model, sensors, ports), as profiles to be completed.

If the folder above has vectors (``uplink-vectors.jsonl``: vendor, model, fPort, bytes_hex, expected), the members of
the maker's decoded output are listed with what they may measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensegate.authoring.imports.profile_text import (
    FieldMapping,
    ImportedProfile,
    head_lines,
    load_problem,
    name_part,
    read_text,
    read_yaml,
)
from sensegate.authoring.learn.fields import fields_of
from sensegate.authoring.learn.guess import guess
from sensegate.authoring.learn.names import matches
from sensegate.authoring.yaml_text import comment_text, flow_text
from sensegate.decode.paths import render
from sensegate.errors import ConfigError


def read(path: Path) -> Iterator[ImportedProfile]:
    """Yield a profile for each file that declares a device; nothing for other paths."""
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
    except ValueError as error:
        raise ConfigError("is not JSON", file=str(file), remedy=str(error)) from error
    return [entry for entry in entries if (entry.get("vendor"), entry.get("model")) == (tree["vendor"], tree["model"])]


def _profile(tree: dict[str, Any], vectors: list[dict[str, Any]]) -> ImportedProfile:
    profile = f"{name_part(tree['vendor'])}/{name_part(tree['model'])}"
    title = f"{tree['vendor']} {tree.get('name') or tree['model']}"
    ports = [port for port in tree.get("fPorts") or () if isinstance(port, int)]
    rows = [FieldMapping("(layout)", "skipped", reason="the source does not describe the layout of the bytes")]
    notes: list[str] = []
    for sensor in tree.get("sensors") or ():
        likely = ", ".join(match.property for match in matches((str(sensor),))[:2])
        rows.append(
            FieldMapping(
                str(sensor),
                "skipped",
                reason=f"a sensor without a position in the bytes; perhaps {likely or 'unknown'}",
            )
        )
        notes.append(f"sensor {sensor}: {likely or 'no property of this name'}")
    outputs = [
        vector["expected"]["data"] for vector in vectors if isinstance((vector.get("expected") or {}).get("data"), dict)
    ]
    for path, facts in fields_of(outputs).items():
        guessed = guess(facts)
        rows.append(
            FieldMapping(render(path), "guessed", guessed.property, guessed.unit, guessed.reason)
            if guessed
            else FieldMapping(render(path), "skipped", reason="no property of such a name and such values")
        )
        if guessed:
            notes.append(f"{render(path)}: {guessed.property}, {guessed.unit or guessed.reason} ({guessed.reason})")
    description = " ".join(str(tree.get("description") or "").split())
    lines = head_lines(
        profile,
        title,
        title,
        f"the declaration of the model by {tree['vendor']}; name the document of its payload here",
        f"TO BE COMPLETED: {description}",
        "Replace `ignore` by `binary:` or `script:` and `readings`.",
    )
    lines += ["messages:", "  - label: frames", f"    frames: {flow_text({'ports': ports} if ports else {})}"]
    lines += [f"    {comment_text(note)}" for note in notes]
    lines += ["    ignore: true"]
    if vectors:
        lines.append("# Test vectors of the maker, to become examples:")
    for vector in vectors:
        output = json.dumps(vector.get("expected"), ensure_ascii=False)
        lines.append(
            comment_text(
                f"port {vector.get('fPort')}, {vector.get('bytes_hex')}: {vector.get('description') or ''} {output}"
            )
        )
    body = "\n".join(lines) + "\n"
    return ImportedProfile(profile, body, {}, rows, load_problem(body, Path()))
