"""Helpers shared by the detector formats: allow-list checks, and objects with the names of their removed fields."""

from __future__ import annotations

import re
from typing import Any, Final

from sensegate.video import codes
from sensegate.video.allowlist import REMOVED, AllowListRedactor, Check, ListOf, ObjectRule
from sensegate.video.format import Pseudonymiser
from sensegate.video.observation import ObjectClass
from sensegate.video.values import OTHER

PRESENCE_PROPERTIES: Final[dict[ObjectClass, str]] = {
    ObjectClass.PERSON: "people_present",
    ObjectClass.FACE: "faces_present",
    ObjectClass.VEHICLE: "vehicles_present",
    ObjectClass.NONMOTOR: "nonmotors_present",
    ObjectClass.ANIMAL: "animals_present",
    ObjectClass.THING: "things_present",
}
"""Class -> property for the number of such objects in view."""
SPEEDS: Final = {"km/h": 1 / 3.6, "m/s": 1.0, "[mi_i]/h": 0.44704}
"""Unit of a speed -> factor to m/s."""
_CAMERA = re.compile(
    r"(?=.{1,96}\Z)[A-Za-z]+\d{0,4}(?:[_.-]+(?:[A-Za-z]+\d{0,4}|\d{1,4}))*|\d{1,4}|\d{20}|(?=.*[A-F])[0-9A-F]{12}",
    re.ASCII,
)
"""Usual camera names: words with short numbers, a GB/T 28181 code, a hexadecimal serial number.

Any other name is kept if a device is registered under it (`cameras.keyring`).
"""
_TRACK = re.compile(r"\d{1,6}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
"""A longer number is pseudonymised: it may identify somebody (a telephone, an identity card)."""


class NamingRedactor(AllowListRedactor):
    """A redactor that reports removed fields by names of the format only: any other name may identify somebody."""

    def __init__(self, pseudonymiser: Pseudonymiser, at: int, known: frozenset[str]) -> None:
        super().__init__(pseudonymiser, at)
        self.known_names = known | {"label"}

    def count_removed(self, path: str, value: Any) -> None:
        around, dot, name = path.rpartition(".")
        super().count_removed(path if name in self.known_names else f"{around}{dot}{OTHER}", value)

    def removed_member(self) -> dict[str, list[str]]:
        """Return the names of the fields removed so far, as the member ``removed``."""
        return {"removed": sorted(self.removed)} if self.removed else {}


def member_names(*shapes: ObjectRule) -> frozenset[str]:
    """Return the names of all members of these rules."""
    names: set[str] = set()
    for shape in shapes:
        for name, rule in shape.items():
            names.add(name)
            inner = rule.rule if isinstance(rule, ListOf) else rule
            if not callable(inner) and not isinstance(inner, ListOf):
                names |= member_names(inner)
    return frozenset(names)


def allow_camera(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept the usual name of a camera; pseudonymise any other text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return REMOVED
    return value if _CAMERA.fullmatch(value) else redactor.pseudonymiser.identifier(value)


def allow_track_id(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept a short number or a UUID; pseudonymise any other id."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return REMOVED
    return value if _TRACK.fullmatch(value) else redactor.pseudonymiser.identifier(value)


def ignore_field(value: Any, redactor: AllowListRedactor) -> None:  # noqa: ARG001
    """Omit a field without counting it: it is not personal and carries no further information."""
    return


def allow_class(make: str) -> Check:
    """Return a check that replaces a label by ``class`` or ``class:kind``; an unknown label becomes `other`."""

    def check(value: Any, redactor: AllowListRedactor) -> Any:
        if not isinstance(value, str) or not value:
            return REMOVED
        object_class, kind = codes.object_class(make, value)
        if object_class is ObjectClass.OTHER and codes.word("class", make, value) is None:
            redactor.count_removed("label", value)
        return f"{object_class.value}:{kind}" if kind else object_class.value

    return check


def split_class(word: str) -> tuple[ObjectClass | None, str]:
    """Return (class, kind) of a value made by `allow_class`."""
    name, _, kind = word.partition(":")
    return (ObjectClass(name) if name else None), kind


def allow_coded_word(table: str, make: str) -> Check:
    """Return a check that replaces a code by the word of a code table; an unknown code is removed."""

    def check(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
        if not isinstance(value, str):
            return REMOVED
        return codes.word(table, make, value.strip()) or REMOVED

    return check


def allow_color(make: str) -> Check:
    """Return a check that replaces a colour by its word."""

    def check(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
        return (codes.color(make, value) or REMOVED) if isinstance(value, str) else REMOVED

    return check


def redact_separately(redactor: NamingRedactor, value: Any, shape: ObjectRule, path: str) -> dict[str, Any]:
    """Redact one of several objects; the names of its removed fields are its member ``removed``."""
    inner = NamingRedactor(redactor.pseudonymiser, redactor.seen_at, redactor.known_names)
    members = inner.apply_object(value, shape, path) if isinstance(value, dict) else {}
    add_removed(redactor, inner)
    return {**members, **inner.removed_member()}


def add_removed(redactor: NamingRedactor, inner: NamingRedactor) -> None:
    """Add the counts of another redactor."""
    for field, count in inner.removed.items():
        redactor.removed[field] = redactor.removed.get(field, 0) + count


def presence_property(label: str) -> tuple[str, str]:
    """Return (property, channel) of the number of objects in view with a label; ``all`` means every object."""
    if label == "all":
        return "objects_present", ""
    object_class, kind = codes.object_class("", label)
    name = PRESENCE_PROPERTIES.get(object_class)
    if name is None:
        return "objects_present", OTHER  # a free label may identify somebody
    return name, kind or (label if object_class in {ObjectClass.ANIMAL, ObjectClass.THING} else "")
