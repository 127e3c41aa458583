"""What an import makes: the text of a profile with the files it needs, and the report of how each member was taken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.yaml_text import comment, flow, text
from sensegate.config import yaml as yamls
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import parse
from sensegate.errors import ConfigError, ProfileError
from sensegate.model import Spec
from sensegate.quantities.properties import PROPERTIES, Kind
from sensegate.quantities.units import conversion

How = Literal["mapped", "guessed", "left"]


class Row(NamedTuple):
    """How one member of the source was taken."""

    field: str
    how: How
    property: str = ""
    unit: str = ""
    why: str = ""


class Imported(NamedTuple):
    """One profile."""

    profile: str
    """``vendor/model``"""
    text: str
    files: Mapping[str, str]
    """Name -> text of what must lie beside it."""
    rows: Sequence[Row]
    problem: str = ""
    """Why there is none, or why it does not load."""


_PART = re.compile(r"[^A-Za-z0-9_.\-]+")


def part(name: str) -> str:
    """Return a text as a part of a profile's name."""
    return _PART.sub("-", name.strip()).strip("-.").lower() or "unnamed"


def read_text(path: Path) -> str:
    """Return a file's text. Raises `ConfigError`."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError("cannot be read", file=str(path), remedy=str(why)) from why


def read_yaml(path: Path) -> Any:
    """Return the tree of somebody's YAML. Raises `ConfigError`."""
    try:
        return yamls.tree(read_text(path))
    except yaml.YAMLError as why:
        raise ConfigError("is no YAML", file=str(path), remedy=str(why).splitlines()[0]) from why


def expected(guess: Guess, value: Any) -> Any:
    """Return what a reading must be where the source says `value`; None: not measured, or nothing that it can be.

    The value is the maker's own, brought to the property's unit; nothing of ours has decoded it.
    """
    row = PROPERTIES.by_name(guess.property)
    if value is None or value in guess.missing:
        return None
    if guess.words is not None and isinstance(guess.words, Mapping):
        return guess.words.get(value)
    if row.kind is Kind.BOOLEAN:
        return bool(value) if isinstance(value, (bool, int)) and value in {0, 1} else None
    if row.kind is Kind.STRING:
        return value if isinstance(value, str) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    scale, offset = conversion(guess.unit or row.unit, row.unit)
    return float(f"{number * guess.scale * scale + offset:.12g}")


def loads(body: str, folder: Path) -> str:
    """Return why a text is no profile; empty where it is. `folder`: where files that it names lie."""
    try:
        source, lines = parse(body, file="profile")
        specs: list[Spec] = []
        Compiler(source, lines, str(folder / "profile.yaml"), specs).compile()
    except ProfileError as why:
        return str(why)
    return ""


def head(profile: str, zh: str, en: str, source: str, *notes: str, domain: str = "") -> list[str]:
    """Return the first lines of a profile."""
    lines = ["# yaml-language-server: $schema=../_schema.json", *(comment(note) for note in notes)]
    lines += [
        f"profile: {text(profile)}",
        "version: 1",
        f"label: {{zh: {text(zh)}, en: {text(en)}}}",
        f"source: {text(source)}",
    ]
    return [*lines, f"domain: {domain}"] if domain else lines


def reading(field: str, guess: Guess, *, channel: str = "", text_numbers: bool = False) -> str:
    """Return the line of a reading, with the reason where it was guessed."""
    row: dict[str, Any] = {"field": field, "property": guess.property}
    if channel:
        row["channel"] = channel
    if guess.unit and guess.unit != "1":
        row["unit"] = guess.unit
    if guess.scale != 1:
        row["scale"] = guess.scale
    if guess.words is not None:
        row["words"] = guess.words
    if guess.missing:
        row["missing"] = list(guess.missing)
    if text_numbers:
        row["text_numbers"] = True
    line = f"      - {flow(row)}"
    return line if guess.sure else f"{line} {comment(f'guess: {guess.reason}')}"
