"""SenML as flat values: packs of one form are read by msgspec straight into structs, and resolved by a few sums.

A form is everything of a pack but its numbers, base names and other texts: keys, names, units, versions. Packs without
a form go through their trees (`flatten.Flattened`), with which this must agree value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec

from sensegate.decode.extract import Leaf
from sensegate.decode.flatten import Flattened
from sensegate.decode.formats import json, senml
from sensegate.decode.frame import Parse
from sensegate.decode.paths import Path
from sensegate.decode.plan import ShapeType, skeleton
from sensegate.errors import Rejected

FORMS_MAX: Final = 128
"""Most forms of one rule's packs."""
_SIGHTINGS: Final = 3
_SEEN_MAX: Final = 4_096
_NEVER: Final = -(2**31)
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
_FIXED: Final = frozenset({"n", "u", "bu", "bver"})
"""Members whose values belong to the form."""
_BASES: Final = (("v", "bv"), ("s", "bs"), ("t", "bt"))
_OTHERS: Final = ("vs", "vb", "vd")


class _Form(msgspec.Struct, frozen=True, eq=False):
    """Reader of packs of one form; leaves are numbered, and after the last stands a 0."""

    decode: Callable[[bytes], Any]
    leaves: Callable[[Any], tuple[Any, ...]]
    sums: tuple[tuple[int, int], ...]
    """Leaves whose sums are values and times; each pair once."""
    numbers: Callable[[Sequence[Any]], tuple[Any, ...]]
    """From the sums to the values and times of all records."""
    bases: tuple[int, ...]
    """Leaves that are base names."""
    names: tuple[tuple[int, str], ...]
    """(index of the base name, name after it) of each record."""
    others: tuple[int, ...]
    """Leaves that are values of their own."""
    constants: tuple[Any, ...]
    pointers: list[Path]


class SenmlColumns(Flattened):
    """The parse of SenML packs, also as flat values."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        super().__init__(parse, nesting_max)
        self._nesting_max = nesting_max
        self._forms: dict[tuple[int, int], list[_Form]] = {}
        """By quotation marks and braces."""
        self._count = 0
        self._seen: dict[Hashable, int] = {}

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:
        """Return (form or shape, values). Raises `Rejected`."""
        known = self._known(payload)
        if known is not None:
            return known
        shape, values = super().flatten(payload, port)
        if self._count < FORMS_MAX:
            if len(self._seen) > _SEEN_MAX:
                self._seen.clear()
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] == _SIGHTINGS:
                self._seen[shape] = 0 if self._add(payload) else _NEVER
                return self._known(payload) or (shape, values)
        return shape, values

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return the pointer of each value in the tree."""
        known = self._known(payload)
        return super().pointers(payload, port) if known is None else known[0].pointers

    def _known(self, payload: bytes) -> tuple[_Form, Sequence[Any]] | None:
        """Return (form, values) of a pack of a known form."""
        if b"\\" in payload:  # then quotation marks do not tell whether a key is there twice
            return None
        for form in self._forms.get((payload.count(b'"'), payload.count(b"{")), ()):
            try:
                leaves = (*form.leaves(form.decode(payload)), 0)
                sums = [leaves[base] + leaves[own] for base, own in form.sums]
            except _FAULTS:
                continue
            bases = [leaves[place] for place in form.bases]
            if not all(map(senml.is_name, bases)):
                return None
            bases = bases or [""]
            devices = [base.rstrip(senml.SEPARATORS) for base in bases]
            named = [bases[index] for index, _ in form.names]
            return form, (
                *form.numbers(sums),
                *[leaves[place] for place in form.others],
                *[base + name for base, (_, name) in zip(named, form.names, strict=True)],
                *named,
                *[devices[index] for index, _ in form.names],
                *[len(set(named))] * len(named),
                *form.constants,
            )
        return None

    def _add(self, payload: bytes) -> bool:
        """Add the form of a pack; return whether it has one."""
        try:
            pack = json.parse(payload, self._nesting_max)
            form = _form_of(pack)
        except (Rejected, ValueError, TypeError):
            return False
        self._count += 1
        self._forms.setdefault((payload.count(b'"'), payload.count(b"{")), []).append(form)
        return True


def _form_of(pack: list[dict[str, Any]]) -> _Form:
    """Return the form of a pack. Raises `ValueError` or `TypeError` if it has none."""
    fixed = [Leaf((index, key), record[key]) for index, record in enumerate(pack) for key in _FIXED if key in record]
    shape = skeleton(pack, fixed)
    if shape is None or any(isinstance(value, (dict, list)) for record in pack for value in record.values()):
        raise ValueError("no shape")
    types = ShapeType(frozenset())
    decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
    paths = list(types.attributes)
    place = {pointer: index for index, pointer in enumerate(paths)}
    zero = len(paths)
    base: dict[str, int] = {}
    bases: list[int] = []
    unit = ""
    sums: dict[tuple[int, int], int] = {}
    numbers: list[tuple[Path, int]] = []
    others: list[tuple[Path, int]] = []
    names: list[tuple[int, str]] = []
    constants: list[tuple[Path, Any]] = []
    for index, record in enumerate(pack):
        for key in ("bt", "bv", "bs"):
            if key in record:
                base[key] = place[index, key]
        if "bn" in record:
            bases.append(place[index, "bn"])
        unit = record.get("bu", unit)
        kinds = {"vs", "vb", "vd", "s"} & record.keys()
        if "v" not in record and not kinds:
            if "bv" in base:
                raise ValueError("whether the base alone is a value depends on its value")
            continue
        number = len(names)
        if names and bool(bases) != (names[0][0] >= 0):
            raise ValueError("some records have a base name and some have none")
        names.append((len(bases) - 1, record.get("n", "")))
        for key, of_base in _BASES:
            if key in record or key == "t":
                pair = base.get(of_base, zero), place.get((index, key), zero)
                numbers.append(((number, key), sums.setdefault(pair, len(sums))))
        others += [((number, key), place[index, key]) for key in _OTHERS if key in record]
        constants.append(((number, "n"), record.get("n", "")))
        if own := record.get("u", unit):
            constants += [((number, "u"), own), ((number, "ucum"), senml.UNITS.get(own, own))]
    if not names or not all(senml.continues_name(name) if bases else senml.is_name(name) for _, name in names):
        raise ValueError("no names")
    order = [sum_ for _, sum_ in numbers]
    attributes = [types.attributes[path] for path in paths]
    leaves: Any = attrgetter(*attributes)
    getter: Any = itemgetter(*order)
    return _Form(
        decode=decode,
        leaves=leaves if len(attributes) > 1 else lambda pack_: (leaves(pack_),),
        sums=tuple(sums),
        numbers=getter if len(order) > 1 else lambda values: (getter(values),),
        bases=tuple(bases),
        names=tuple(names) if bases else tuple((0, name) for _, name in names),
        others=tuple(place_ for _, place_ in others),
        constants=tuple(constant for _, constant in constants),
        pointers=[
            *(pointer for pointer, _ in numbers),
            *(pointer for pointer, _ in others),
            *((number, key) for key in ("name", "bn", "device", "bases") for number in range(len(names))),
            *(pointer for pointer, _ in constants),
        ],
    )
