"""The JSON Schema for editors is generated from the grammar."""

from __future__ import annotations

from pathlib import Path

from sensegate.authoring.schema import schema, text
from sensegate.decode.formats import FORMATS

FILE = Path(__file__).parents[2] / "device_profiles" / "_schema.json"


def test_schema_file_is_what_the_grammar_gives() -> None:
    """`make docs` brings it up to date."""
    assert FILE.read_text(encoding="utf-8") == text()


def test_schema_names_properties_and_formats() -> None:
    """An editor completes the names of the property table and the formats."""
    parts = schema()["$defs"]
    assert "air_temperature" in parts["ReadingRule"]["properties"]["property"]["enum"]
    assert parts["ProfileFile"]["properties"]["format"]["enum"] == sorted(FORMATS)
