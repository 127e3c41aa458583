"""Checks of the border that are taken out of a copied tree, each with the tests that must miss it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from tests.ledger.controls import Edit

PATCHES = Path(__file__).parent / "patches"


class Removal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check that is taken out, and the tests that must miss it."""

    claim: str
    tests: list[str]
    edits: list[Edit]


REMOVALS = {
    file.stem: msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")), Removal)
    for file in sorted(PATCHES.glob("*.yaml"))
}
