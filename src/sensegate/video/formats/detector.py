"""What the formats of detectors share: allow-lists of their own values, objects with what was taken out of each."""

from __future__ import annotations

import re
from typing import Any, Final

from sensegate.video import codes
from sensegate.video.allowlist import GONE, Check, Many, Shape, Sieve
from sensegate.video.format import Veil
from sensegate.video.observation import ObjectClass
from sensegate.video.values import OTHER

PRESENT: Final[dict[ObjectClass, str]] = {
    ObjectClass.PERSON: "people_present",
    ObjectClass.FACE: "faces_present",
    ObjectClass.VEHICLE: "vehicles_present",
    ObjectClass.NONMOTOR: "nonmotors_present",
    ObjectClass.ANIMAL: "animals_present",
    ObjectClass.THING: "things_present",
}
"""Class -> the property that tells how many of it are in view."""
SPEEDS: Final = {"km/h": 1 / 3.6, "m/s": 1.0, "[mi_i]/h": 0.44704}
"""Unit of a speed -> factor to m/s."""
_CAMERA = re.compile(
    r"(?=.{1,96}\Z)[A-Za-z]+\d{0,4}(?:[_.-]+(?:[A-Za-z]+\d{0,4}|\d{1,4}))*|\d{1,4}|\d{20}|(?=.*[A-F])[0-9A-F]{12}",
    re.ASCII,
)
"""What cameras are called: words with short numbers behind them, a code of GB/T 28181, a serial number of hex digits.

Any other name passes where a device is registered by it (`authority.keyring`).
"""
_TRACK = re.compile(r"\d{1,6}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
"""A longer number is hidden: it may be somebody's (a telephone, an identity card)."""


class Telling(Sieve):
    """A sieve that tells what it took out by names of the format only: any other name may be somebody's."""

    def __init__(self, veil: Veil, at: int, known: frozenset[str]) -> None:
        super().__init__(veil, at)
        self.known = known | {"label"}

    def out(self, path: str, value: Any) -> None:
        around, dot, name = path.rpartition(".")
        super().out(path if name in self.known else f"{around}{dot}{OTHER}", value)

    def told(self) -> dict[str, list[str]]:
        """Return the names of what was taken out so far, as a member of what is kept."""
        return {"removed": sorted(self.removed)} if self.removed else {}


def names_in(*shapes: Shape) -> frozenset[str]:
    """Return the names of all members of these shapes."""
    found: set[str] = set()
    for shape in shapes:
        for name, rule in shape.items():
            found.add(name)
            inner = rule.rule if isinstance(rule, Many) else rule
            if not callable(inner) and not isinstance(inner, Many):
                found |= names_in(inner)
    return frozenset(found)


def camera_name(value: Any, sieve: Sieve) -> Any:
    """Let the name of a camera pass; hide any other text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return GONE
    return value if _CAMERA.fullmatch(value) else sieve.veil.word(value)


def track_id(value: Any, sieve: Sieve) -> Any:
    """Let a short number and a UUID pass; hide any other id."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return GONE
    return value if _TRACK.fullmatch(value) else sieve.veil.word(value)


def silent(value: Any, sieve: Sieve) -> None:  # noqa: ARG001
    """Leave a field out that says nothing of anybody, and nothing that is not said elsewhere: it is not counted."""
    return


def class_of(make: str) -> Check:
    """Return a check that puts ``class`` or ``class:kind`` in place of a label; one that is in no table is `other`."""

    def check(value: Any, sieve: Sieve) -> Any:
        if not isinstance(value, str) or not value:
            return GONE
        found, kind = codes.seen_as(make, value)
        if found is ObjectClass.OTHER and codes.word("class", make, value) is None:
            sieve.out("label", value)
        return f"{found.value}:{kind}" if kind else found.value

    return check


def classes(word: str) -> tuple[ObjectClass | None, str]:
    """Return (class, kind) of what `class_of` let through."""
    name, _, kind = word.partition(":")
    return (ObjectClass(name) if name else None), kind


def word_of(table: str, make: str) -> Check:
    """Return a check that puts the word of a code table in place of a code; what is in no table does not pass."""

    def check(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
        if not isinstance(value, str):
            return GONE
        return codes.word(table, make, value.strip()) or GONE

    return check


def color_of(make: str) -> Check:
    """Return a check that puts the word of a colour in place of its name."""

    def check(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
        return (codes.color(make, value) or GONE) if isinstance(value, str) else GONE

    return check


def apart(sieve: Telling, value: Any, shape: Shape, path: str) -> dict[str, Any]:
    """Return what passes of one object among several, with the names of what was taken out of it under ``removed``."""
    inner = Telling(sieve.veil, sieve.at, sieve.known)
    kept = inner.object(value, shape, path) if isinstance(value, dict) else {}
    add(sieve, inner)
    return {**kept, **inner.told()}


def add(sieve: Telling, inner: Telling) -> None:
    """Count what an inner sieve took out."""
    for field, count in inner.removed.items():
        sieve.removed[field] = sieve.removed.get(field, 0) + count


def present(label: str) -> tuple[str, str]:
    """Return (property, channel) of a count of objects in view, by their label; ``all`` is every one."""
    if label == "all":
        return "objects_present", ""
    found, kind = codes.seen_as("", label)
    name = PRESENT.get(found)
    if name is None:
        return "objects_present", OTHER  # a label of free choice may be somebody's name
    return name, kind or (label if found in {ObjectClass.ANIMAL, ObjectClass.THING} else "")
