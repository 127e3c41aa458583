"""The JSON Schema of profiles, for editors: ``python -m sensegate.authoring.schema`` prints it.

`device_profiles/_schema.json` is its output; a test compares them. A profile names it in its first line:
``# yaml-language-server: $schema=../_schema.json``.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from sensegate.decode.formats import FORMATS
from sensegate.decode.grammar import ProfileFile
from sensegate.quantities.properties import PROPERTIES


def schema() -> dict[str, Any]:
    """Return the schema, with the names of all known properties and formats."""
    tree = msgspec.json.schema(ProfileFile)
    parts = tree["$defs"]
    for part in ("ReadingRule", "Expected"):
        parts[part]["properties"]["property"]["enum"] = sorted(PROPERTIES.names)
    parts["MessageRule"]["properties"]["format"]["enum"] = ["", *sorted(FORMATS)]
    parts["ProfileFile"]["properties"]["format"]["enum"] = sorted(FORMATS)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sensegate device profile", **tree}


def text() -> str:
    """Return the schema as text, as in the file."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="deterministic"), indent=1).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
