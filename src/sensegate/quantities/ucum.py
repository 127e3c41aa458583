"""The whole grammar of UCUM, evaluated exactly: a code to its size, its zero and its dimensions.

Grammar and definitions are those of UCUM 2.2 as the package ucumvert ships them (a lark grammar and
`ucum-essence.xml`); they are read from its files, without pint, which counts in binary fractions and takes every
arbitrary unit and every logarithm for a plain number. Differences from UCUM, each on purpose:

* a mole, a bit and every arbitrary unit (``[CFU]``, ``[iU]``) are dimensions of their own, not the number one;
* special units: degrees of temperature are converted, alone as points on their scale and within a term as differences
  (``Cel/min`` is ``K/min``); levels (``B``, ``dB[mV]``, ``B[kW]``), neper, pH, slope and the like are dimensions of
  their own. Only levels of one quantity are converted (``dB[mV]`` to ``dB[V]``), for a logarithm is no linear map;
* homeopathic potencies are refused: they measure nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from fractions import Fraction as F  # noqa: N817 - as in units.py
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from lark import Lark

CODE_MAX: Final = 64
"""Most characters of a code."""
EXPONENT_MAX: Final = 99
FACTOR_DIGITS_MAX: Final = 9

Dimensions = tuple[tuple[str, int], ...]
"""(base, power) sorted by base, powers not 0: ``(("g", 1), ("m", -3))``."""


class Amount(NamedTuple):
    """What a code stands for: ``base = value * scale + offset`` in the base units of its dimensions."""

    scale: F
    offset: F
    dimensions: Dimensions


ONE: Final = Amount(F(1), F(0), ())

_OWN_BASES: Final = frozenset({"mol", "bit"})
"""Plain numbers to UCUM; here dimensions, for a mole is not the same as the number 6e23, nor a bit as the number 1."""
_CELSIUS: Final[Mapping[str, F]] = {"Cel": F("273.15"), "degF": F("459.67"), "degRe": F("218.52")}
"""Function of a temperature scale -> its zero above absolute zero, in its own degrees."""
_DIFFERENT: Final[Mapping[str, str]] = {
    "pH": "acidity",
    "ln": "natural level",
    "ld": "binary level",
    "tanTimes100": "slope",
    "100tan": "slope",
    "sqrt": "root of acceleration density",
}
"""Function -> dimension of its own."""


class UcumError(ValueError):
    """The text is no code of UCUM, or one that cannot be used; the text says why."""


@functools.lru_cache(maxsize=4096)
def evaluate(code: str) -> Amount:
    """Return what a UCUM code (case-sensitive form) stands for.

    Raises:
        UcumError: if it is none, is homeopathic, or is too long or too large to be meant.
    """
    from lark.exceptions import LarkError  # noqa: PLC0415 - few processes meet a unit that is not in the table

    if len(code) > CODE_MAX:
        raise UcumError(f"longer than {CODE_MAX} characters")
    try:
        tree = _parser().parse(code)
    except LarkError as why:
        raise UcumError("no code of UCUM") from why
    return _sized(_term(tree, alone=True))


def _sized(amount: Amount) -> Amount:
    size = float(amount.scale) if amount.scale < F(10) ** 300 else math.inf
    if not 0 < size < math.inf:
        raise UcumError("of no size")
    return amount


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────


class _Atom(NamedTuple):
    """One row of the table of UCUM."""

    value: F
    unit: str
    function: str
    """Name of the function of a special unit, else empty."""
    arbitrary: bool
    base: bool


def _folder() -> Path:
    spec = importlib.util.find_spec("ucumvert")  # found, not imported: importing it imports pint
    if spec is None or not spec.submodule_search_locations:
        raise UcumError("the package ucumvert is not installed")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _parser() -> Lark:
    from lark import Lark  # noqa: PLC0415 - as above

    return Lark((_folder() / "ucum_grammar.lark").read_text(encoding="utf-8"), start="main_term")


@functools.cache
def _essence() -> tuple[dict[str, F], dict[str, _Atom]]:
    """Return (prefixes, atoms) of UCUM's own table."""
    from defusedxml.ElementTree import parse  # noqa: PLC0415 - as above

    root = parse(_folder() / "vendor" / "ucum-essence.xml").getroot()
    if root is None:
        raise UcumError("the table of ucumvert is empty")
    prefixes: dict[str, F] = {}
    atoms: dict[str, _Atom] = {}
    for element in root:
        kind, code = element.tag.rpartition("}")[2], element.get("Code", "")
        value = element.find("{*}value")
        if kind == "prefix" and value is not None:
            prefixes[code] = F(value.get("value", "1"))
        elif kind == "base-unit":
            atoms[code] = _Atom(F(1), "1", "", arbitrary=False, base=True)
        elif kind == "unit" and value is not None:
            function = value.find("{*}function")
            source = value if function is None else function
            atoms[code] = _Atom(
                F(source.get("value", "1")),
                source.get("Unit", "1"),
                "" if function is None else function.get("name", ""),
                arbitrary=element.get("isArbitrary") == "yes",
                base=code in _OWN_BASES,
            )
    return prefixes, atoms


def atoms() -> tuple[str, ...]:
    """Return the codes of all units of UCUM."""
    return tuple(_essence()[1])


@functools.lru_cache(maxsize=1024)
def _atom(code: str) -> Amount:
    """Return the amount of one unit without prefix; of a temperature scale as a point on it."""
    atom = _essence()[1][code]
    if atom.base:
        return Amount(F(1), F(0), ((code, 1),))
    if atom.function.startswith("hp") or code.startswith(("[hp_", "[kp_")):
        raise UcumError("a homeopathic potency measures nothing")
    if atom.arbitrary:
        return Amount(F(1), F(0), ((code, 1),))
    if not atom.function:
        inner = evaluate(atom.unit)
        return Amount(atom.value * inner.scale, F(0), inner.dimensions)
    if atom.function in _CELSIUS:
        inner = evaluate(atom.unit)
        degree = atom.value * inner.scale
        return Amount(degree, _CELSIUS[atom.function] * degree, inner.dimensions)
    if atom.function in {"lg", "lgTimes2"}:
        return _level(code, atom)
    return Amount(F(1), F(0), ((_DIFFERENT[atom.function], 1),))


def _level(code: str, atom: _Atom) -> Amount:
    """Return a level in bel; levels of powers and voltages have the reference 1 W or 1 V, others stand for a ratio."""
    if code in {"B", "B[SPL]"}:  # a sound level is given in dB or dB[SPL]; both mean the same
        return Amount(F(1), F(0), (("level", 1),))
    times, name = (2, "V") if atom.function == "lgTimes2" else (1, "W")
    reference = atom.value * evaluate(atom.unit).scale / evaluate(name).scale
    return Amount(F(1), F(round(times * math.log10(reference))), ((f"level of {name}", 1),))


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────


def _term(node: Any, *, alone: bool) -> Amount:
    """Return the amount of a node of the grammar; `alone`: nothing stands beside it, so a scale's zero counts."""
    kind = getattr(node, "data", None)
    if kind is None:  # an annotation
        return ONE
    parts = node.children
    if kind == "simple_unit":
        return _simple(parts, alone=alone)
    if kind == "annotatable":
        return _power(_term(parts[0], alone=False), parts[1]) if len(parts) > 1 else _term(parts[0], alone=alone)
    if kind == "main_term" and len(parts) == 2:
        return _power(_term(parts[1], alone=False), "-1")
    if kind == "component" or len(parts) == 1:  # a unit with its annotation, or a term in brackets
        return _term(parts[0], alone=alone)
    left, operator, right = parts
    one, other = _term(left, alone=False), _term(right, alone=False)
    return _product(one, other if operator == "." else _power(other, "-1"))


def _simple(parts: list[Any], *, alone: bool) -> Amount:
    prefixes, _ = _essence()
    *before, last = (str(part) for part in parts)
    if parts[-1].type == "FACTOR":
        if len(last) > FACTOR_DIGITS_MAX:
            raise UcumError(f"a factor of more than {FACTOR_DIGITS_MAX} digits")
        return Amount(F(int(last)), F(0), ())
    scale, offset, dimensions = _atom(last)
    scale = scale * prefixes[before[0]] if before else scale
    return Amount(scale, offset if alone else F(0), dimensions)


def _power(amount: Amount, exponent: str) -> Amount:
    power = int(exponent)
    if abs(power) > EXPONENT_MAX:
        raise UcumError(f"a power above {EXPONENT_MAX}")
    return _sized(Amount(amount.scale**power, F(0), tuple((base, many * power) for base, many in amount.dimensions)))


def _product(one: Amount, other: Amount) -> Amount:
    powers = dict(one.dimensions)
    for base, many in other.dimensions:
        powers[base] = powers.get(base, 0) + many
    dimensions = tuple(sorted((base, many) for base, many in powers.items() if many))
    return _sized(Amount(one.scale * other.scale, F(0), dimensions))


def written(dimensions: Dimensions) -> str:
    """Return dimensions as a term of base units: ``g.m-3``; ``1`` for a plain number."""
    return ".".join(base if many == 1 else f"{base}{many}" for base, many in dimensions) or "1"
