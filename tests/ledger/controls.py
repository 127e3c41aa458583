"""Negative controls: patched copies of the tree, in which the campaign must find what it finds nothing of in ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import msgspec
import yaml

SOURCE = Path(__file__).parents[2] / "src"
PATCHES = Path(__file__).parent / "patches"


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place of the source, and what stands there instead."""

    file: str
    old: str
    new: str


class Edited(Protocol):
    """What edits the product's source."""

    @property
    def edits(self) -> list[Edit]: ...


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to get it wrong."""

    claim: str
    caught: list[str]
    """Verdicts of which at least one must be more than zero."""
    targets: list[str]
    kills: int
    edits: list[Edit]
    delays_s: tuple[float, ...] = (0.1, 0.2, 0.3)
    """From the end of a burst to the kill, in turn: where the fault's window is."""
    faults: float = 1.0
    """Factor on the simulator's injections."""


class Stale(AssertionError):
    """The source has moved on: the control must be written anew."""


def controls() -> dict[str, Control]:
    """Return all controls by name."""
    return {
        file.stem: msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")), Control)
        for file in sorted(PATCHES.glob("*.yaml"))
    }


def replaced(text: str, edit: Edit) -> str:
    """Return a source with an edit applied, at whatever depth of indentation it stands.

    Raises:
        Stale: the lines to be replaced do not occur exactly once.
    """
    lines, old = text.splitlines(), edit.old.rstrip().splitlines()
    places = []
    for at in range(len(lines) - len(old) + 1):
        depth = len(lines[at]) - len(lines[at].lstrip())
        if all(line == (" " * depth + wanted if wanted else "") for line, wanted in zip(lines[at:], old, strict=False)):
            places.append((at, depth))
    if len(places) != 1:
        raise Stale(f"{edit.file}: occurs {len(places)} times, not once:\n{edit.old}")
    at, depth = places[0]
    new = [" " * depth + line if line else "" for line in edit.new.rstrip().splitlines()]
    return "\n".join([*lines[:at], *new, *lines[at + len(old) :]]) + "\n"


def edited_files(control: Edited) -> dict[str, str]:
    """Return the text of each file of the product that the edits change, with them applied.

    Raises:
        Stale: a text to be replaced does not occur exactly once.
    """
    texts: dict[str, str] = {}
    for edit in control.edits:
        file = SOURCE / "sensegate" / edit.file
        texts[edit.file] = replaced(texts.get(edit.file) or file.read_text(encoding="utf-8"), edit)
    for name, text in texts.items():
        compile(text, name, "exec")
    return texts


def patched(control: Edited, directory: Path) -> dict[str, str]:
    """Copy the tree, apply the edits; return the environment in which it is the one that runs.

    Raises:
        Stale: a text to be replaced does not occur exactly once.
    """
    target = directory / "src"
    # With its bytecode, which holds for what is not edited: the processes of a campaign start often.
    shutil.copytree(SOURCE, target)
    for name, text in edited_files(control).items():
        (target / "sensegate" / name).write_text(text, encoding="utf-8")
    return {"PYTHONPATH": str(target)}
