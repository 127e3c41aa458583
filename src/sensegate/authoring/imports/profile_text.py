"""Text of an imported profile, the files that it needs, and a report of how each member was mapped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.yaml_text import DRAFT_LINE, comment_text, flow_text, plain_text
from sensegate.config import yaml as yamls
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import parse
from sensegate.decode.words import TABLES
from sensegate.errors import ConfigError, ProfileError
from sensegate.model import Spec
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.units import conversion

MappingOutcome = Literal["mapped", "guessed", "proposed", "skipped"]
"""`guessed`: to be checked, written as a comment if the name says more than the property; `proposed`: the property
table lacks it."""


class FieldMapping(NamedTuple):
    """Mapping of a member of the source to a reading."""

    field: str
    outcome: MappingOutcome
    property: str = ""
    unit: str = ""
    reason: str = ""


class ImportedProfile(NamedTuple):
    """A profile made by an import."""

    profile: str
    """``vendor/model``"""
    text: str
    files: Mapping[str, str]
    """Name -> text of the files that must lie beside it."""
    rows: Sequence[FieldMapping]
    problem: str = ""
    """Reason why there is no profile, or why it does not load; empty if it loads."""


def without_profile(profile: str, reason: str) -> ImportedProfile:
    """Return the report on a device that becomes no profile."""
    return ImportedProfile(profile, "", {}, [FieldMapping("(all)", "skipped", reason=reason)], reason)


_PART = re.compile(r"[^A-Za-z0-9_.\-]+")


def name_part(name: str) -> str:
    """Return a text in the form of a profile name's part."""
    return _PART.sub("-", name.strip()).strip("-.").lower() or "unnamed"


def read_text(path: Path) -> str:
    """Return the text of a file. Raises `ConfigError`."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot be read", file=str(path), remedy=str(error)) from error


def inside(folder: Path, name: str) -> Path:
    """Return a file that a description names, in a folder or below it. Raises `ConfigError` if it lies elsewhere."""
    file = folder / name.removeprefix("./")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ConfigError("lies outside of the imported folder", file=str(file), remedy="name a file within it")
    return file


def read_yaml(path: Path) -> Any:
    """Return the tree of a YAML file of foreign origin. Raises `ConfigError`."""
    try:
        return yamls.parse_tree(read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError("is not YAML", file=str(path), remedy=str(error).splitlines()[0]) from error


def expected_value(guess: Guess, value: Any) -> Any:
    """Return the value of a reading for the source's `value`; None if it is not measured or cannot be converted.

    The value is the maker's own, converted to the property's unit; no code of this project decoded it.
    """
    row = PROPERTIES.by_name(guess.property)
    if value is None or value in guess.missing:
        return None
    if guess.words is not None:
        pairs = TABLES[guess.words].words if isinstance(guess.words, str) else guess.words.items()
        return next((result for sent, result in pairs if type(sent) is type(value) and sent == value), None)
    if row.kind is ValueKind.BOOLEAN:
        return bool(value) if isinstance(value, (bool, int)) and value in {0, 1} else None
    if row.kind is ValueKind.STRING:
        return value if isinstance(value, str) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    scale, offset = conversion(guess.unit or row.unit, row.unit)
    return float(f"{number * guess.scale * scale + offset:.12g}")


def load_problem(body: str, folder: Path) -> str:
    """Return why a text does not load as a profile; empty if it does. `folder`: where the files that it names lie."""
    try:
        source, lines = parse(body, file="profile")
        specs: list[Spec] = []
        Compiler(source, lines, str(folder / "profile.yaml"), specs).compile()
    except ProfileError as error:
        return str(error)
    return ""


def head_lines(profile: str, zh: str, en: str, source: str, *notes: str, domain: str = "") -> list[str]:
    """Return the first lines of a profile."""
    lines = ["# yaml-language-server: $schema=../_schema.json", *(comment_text(note) for note in notes)]
    lines += [
        f"profile: {plain_text(profile)}",
        "version: 1",
        DRAFT_LINE,
        f"label: {{zh: {plain_text(zh)}, en: {plain_text(en)}}}",
        f"source: {plain_text(source)}",
    ]
    return [*lines, f"domain: {domain}"] if domain else lines


def reading_line(field: str, guess: Guess, *, channel: str = "", text_numbers: bool = False) -> str:
    """Return the line of a reading, with the reason if it is a guess."""
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
    line = f"      - {flow_text(row)}"
    return line if guess.sure else f"{line} {comment_text(f'guess: {guess.reason}')}"
