"""SenML as flat values: packs of one form are read straight into numbers and texts, and resolved by a few sums.

A form is everything of a pack but its numbers, base names and other texts: keys, names, units, versions. Packs without
a form go through their trees (`flatten.Flattened`), with which this must agree value by value. JSON is read by msgspec
into structs; CBOR by `struct`, as all but the values of a pack are the same bytes at the same places.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec

from sensegate.decode.extract import Leaf
from sensegate.decode.formats import json, senml, senml_cbor
from sensegate.decode.frame import Parse
from sensegate.decode.learned_forms import LearnedForms
from sensegate.decode.masked import MaskedForms
from sensegate.decode.paths import Path
from sensegate.decode.plan import ShapeType, skeleton
from sensegate.errors import Rejected

_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError, OverflowError)
_FIXED: Final = frozenset({"n", "u", "bu", "bver"})
"""Members whose values belong to the form."""
_BASES: Final = (("v", "bv"), ("s", "bs"), ("t", "bt"))
_OTHERS: Final = ("vs", "vb", "vd")


class PackForm(msgspec.Struct, frozen=True, eq=False):
    """Reader of packs of one form; leaves are numbered, and after the last stands a 0."""

    decode: Callable[[bytes], Any]
    leaves: Callable[[Any], Sequence[Any]]
    sums: tuple[tuple[int, int], ...]
    """Leaves whose sums are values and times; each pair once."""
    numbers: Callable[[Sequence[Any]], tuple[Any, ...]]
    """Function from the sums to the values and times of all records."""
    bases: tuple[int, ...]
    """Leaves that are base names."""
    names: tuple[tuple[int, str], ...]
    """(index of the base name, name after it) of each record."""
    others: tuple[int, ...]
    """Leaves that are values of their own."""
    constants: tuple[Any, ...]
    pointers: list[Path]


class _PackColumns(LearnedForms):
    """A parse of packs, also as flat values."""

    @abstractmethod
    def forms(self, payload: bytes) -> Iterable[PackForm]:
        """Return the forms that a pack may have."""

    def known(self, payload: bytes) -> tuple[PackForm, Sequence[Any]] | None:
        """Return (form, values) of a pack of a known form."""
        for form in self.forms(payload):
            try:
                leaves = (*form.leaves(form.decode(payload)), 0)
                sums = [leaves[base] + leaves[own] for base, own in form.sums]
                finite = isfinite(sum(sums))
            except _FAULTS:
                continue
            bases = [leaves[place] for place in form.bases]
            if not finite or not all(len(base) <= senml.BASE_NAME_MAX and senml.is_name(base) for base in bases):
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


class SenmlColumns(_PackColumns):
    """The parse of SenML in JSON, also as flat values."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        super().__init__(parse, nesting_max)
        self._nesting_max = nesting_max
        self._forms: dict[tuple[int, int], list[PackForm]] = {}
        """Forms by the positions of quotation marks and braces."""

    def forms(self, payload: bytes) -> Iterable[PackForm]:
        """Return the forms that a pack may have."""
        if b"\\" in payload:  # then quotation marks do not tell whether a key is there twice
            return ()
        return self._forms.get((payload.count(b'"'), payload.count(b"{")), ())

    def add(self, payload: bytes) -> bool:
        """Add the form of a pack; return whether it has one."""
        try:
            form = _json_form(json.parse(payload, self._nesting_max))
        except (Rejected, ValueError, TypeError):
            return False
        self._forms.setdefault((payload.count(b'"'), payload.count(b"{")), []).append(form)
        return True


class SenmlCborColumns(_PackColumns):
    """The parse of SenML in CBOR, also as flat values."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        super().__init__(parse, nesting_max)
        self._nesting_max = nesting_max
        self._forms: MaskedForms[PackForm] = MaskedForms()

    def forms(self, payload: bytes) -> Iterable[PackForm]:
        """Return the forms that a pack may have."""
        return self._forms.matching(payload)

    def add(self, payload: bytes) -> bool:
        """Add the form of a pack; return whether it has one."""
        try:
            pack = senml_cbor.pack_of(payload, self._nesting_max)
            places = senml_cbor.places_of(payload)
            index = {pointer: number for number, pointer in enumerate(places.pointers)}
            form = _form_of(pack, index, places.bytes_.unpack, places.leaves)
        except (Rejected, ValueError, TypeError, LookupError):
            return False
        self._forms.add(payload, places.bytes_.mask, form)
        return True


def _json_form(pack: list[dict[str, Any]]) -> PackForm:
    """Return the form of a pack in JSON. Raises `ValueError` or `TypeError` if it has none."""
    fixed = [Leaf((index, key), record[key]) for index, record in enumerate(pack) for key in _FIXED if key in record]
    shape = skeleton(pack, fixed)
    if shape is None or any(isinstance(value, (dict, list)) for record in pack for value in record.values()):
        raise ValueError("no shape")
    types = ShapeType(frozenset())
    decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
    place = {pointer: index for index, pointer in enumerate(types.attributes)}
    attributes = list(types.attributes.values())
    leaves: Any = attrgetter(*attributes)
    return _form_of(pack, place, decode, leaves if len(attributes) > 1 else lambda read: (leaves(read),))


def _form_of(
    pack: list[dict[str, Any]],
    place: Mapping[Path, int],
    decode: Callable[[bytes], Any],
    leaves: Callable[[Any], Sequence[Any]],
) -> PackForm:
    """Return the form of a pack whose values that differ have numbers. Raises `ValueError` if it has none."""
    zero = len(place)
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
    getter: Any = itemgetter(*order)
    return PackForm(
        decode=decode,
        leaves=leaves,
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
