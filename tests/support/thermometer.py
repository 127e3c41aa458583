"""A profile of a thermometer that a test writes."""

from __future__ import annotations

from pathlib import Path

THERMOMETER = """\
profile: acme/th
version: 1
label: {zh: 温度计, en: thermometer}
source: made for the test
messages:
  - label: telemetry
    topics: ["acme/{device}/up"]
    readings:
      - {field: t, property: air_temperature, unit: Cel, scale: 0.1}
examples:
  - label: one
    topic: acme/d1/up
    payload: {"t": 215}
    expect:
      - {property: air_temperature, value: 21.5}
"""


def write(folder: Path, text: str) -> Path:
    """Write the thermometer's profile as an editor does: whole, in place of the old one."""
    file = folder / "acme" / "th.yaml"
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
    return file
