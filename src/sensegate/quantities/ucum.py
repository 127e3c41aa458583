"""Exact evaluation of UCUM codes: scale, offset and dimensions of any unit of the UCUM grammar.

Grammar and definitions are those of UCUM 2.2 as shipped by the package ucumvert (a lark grammar and
`ucum-essence.xml`). They are read from its files without pint, which computes in binary fractions and treats every
arbitrary unit and every logarithm as dimensionless. Intentional differences from UCUM:

* a mole, a bit and every arbitrary unit (``[CFU]``, ``[iU]``) are dimensions of their own, not the number one;
* special units: a temperature in degrees is converted with its offset when it stands alone and as a difference within
  a term (``Cel/min`` is ``K/min``); levels (``B``, ``dB[mV]``, ``B[kW]``), neper, pH, slope and the like are
  dimensions of their own. Only levels of the same quantity are convertible (``dB[mV]`` to ``dB[V]``), because a
  logarithm is not a linear map;
* homeopathic potencies are rejected: they measure nothing.
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
"""Greatest length of a code in characters."""
EXPONENT_MAX: Final = 99
FACTOR_DIGITS_MAX: Final = 9

Dimensions = tuple[tuple[str, int], ...]
"""(base, power) sorted by base, powers not 0: ``(("g", 1), ("m", -3))``."""


class Amount(NamedTuple):
    """Evaluated unit: ``base = value * scale + offset`` in the base units of its dimensions."""

    scale: F
    offset: F
    dimensions: Dimensions


UNITY: Final = Amount(F(1), F(0), ())

_OWN_BASES: Final = frozenset({"mol", "bit"})
"""Dimensionless in UCUM, dimensions here: a mole must not equal the number 6e23, nor a bit the number 1."""
_CELSIUS: Final[Mapping[str, F]] = {"Cel": F("273.15"), "degF": F("459.67"), "degRe": F("218.52")}
"""Function of a temperature scale -> absolute zero below its zero point, in its own degrees."""
_OWN_DIMENSIONS: Final[Mapping[str, str]] = {
    "pH": "acidity",
    "ln": "natural level",
    "ld": "binary level",
    "tanTimes100": "slope",
    "100tan": "slope",
    "sqrt": "root of acceleration density",
}
"""UCUM function -> its own dimension."""


class UcumError(ValueError):
    """The text is not a usable UCUM code; the message says why."""


@functools.lru_cache(maxsize=4096)
def evaluate(code: str) -> Amount:
    """Evaluate a UCUM code (case-sensitive form).

    Raises:
        UcumError: if the text is not a UCUM code, is a homeopathic potency, or is out of the supported range.
    """
    from lark.exceptions import LarkError  # noqa: PLC0415 - few processes see a unit outside of the table

    if len(code) > CODE_MAX:
        raise UcumError(f"longer than {CODE_MAX} characters")
    try:
        tree = _parser().parse(code)
    except LarkError as why:
        raise UcumError("not a UCUM code") from why
    return _sized(_term(tree, alone=True))


def _sized(amount: Amount) -> Amount:
    size = float(amount.scale) if amount.scale < F(10) ** 300 else math.inf
    if not 0 < size < math.inf:
        raise UcumError("its size is zero or not finite")
    return amount


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────


class _Atom(NamedTuple):
    """A unit definition of UCUM."""

    value: F
    unit: str
    function: str
    """Name of the function of a special unit, otherwise empty."""
    arbitrary: bool
    base: bool


def _folder() -> Path:
    spec = importlib.util.find_spec("ucumvert")  # located only: importing it would import pint
    if spec is None or not spec.submodule_search_locations:
        raise UcumError("the package ucumvert is not installed")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _parser() -> Lark:
    from lark import Lark  # noqa: PLC0415 - as above

    return Lark((_folder() / "ucum_grammar.lark").read_text(encoding="utf-8"), start="main_term")


@functools.cache
def _essence() -> tuple[dict[str, F], dict[str, _Atom]]:
    """Return (prefixes, atoms) of the UCUM definitions."""
    from defusedxml.ElementTree import parse  # noqa: PLC0415 - as above

    root = parse(_folder() / "vendor" / "ucum-essence.xml").getroot()
    if root is None:
        raise UcumError("the definitions of ucumvert are empty")
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
    """Return the codes of all UCUM units."""
    return tuple(_essence()[1])


@functools.lru_cache(maxsize=1024)
def _atom(code: str) -> Amount:
    """Evaluate one unit without a prefix; a temperature scale keeps its offset."""
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
    return Amount(F(1), F(0), ((_OWN_DIMENSIONS[atom.function], 1),))


def _level(code: str, atom: _Atom) -> Amount:
    """Return a level in bel; levels of power and voltage refer to 1 W or 1 V, any other level is a ratio."""
    if code in {"B", "B[SPL]"}:  # sound levels are format_dimensions as dB or dB[SPL] interchangeably
        return Amount(F(1), F(0), (("level", 1),))
    times, name = (2, "V") if atom.function == "lgTimes2" else (1, "W")
    reference = atom.value * evaluate(atom.unit).scale / evaluate(name).scale
    return Amount(F(1), F(round(times * math.log10(reference))), ((f"level of {name}", 1),))


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────


def _term(node: Any, *, alone: bool) -> Amount:
    """Evaluate a node of the grammar; `alone`: it is the whole code, so the offset of a scale applies."""
    kind = getattr(node, "data", None)
    if kind is None:  # an annotation
        return UNITY
    parts = node.children
    if kind == "simple_unit":
        return _simple_unit(parts, alone=alone)
    if kind == "annotatable":
        return _power(_term(parts[0], alone=False), parts[1]) if len(parts) > 1 else _term(parts[0], alone=alone)
    if kind == "main_term" and len(parts) == 2:
        return _power(_term(parts[1], alone=False), "-1")
    if kind == "component" or len(parts) == 1:  # a unit with its annotation, or a term in brackets
        return _term(parts[0], alone=alone)
    left, operator, right = parts
    left_amount, right_amount = _term(left, alone=False), _term(right, alone=False)
    return _product(left_amount, right_amount if operator == "." else _power(right_amount, "-1"))


def _simple_unit(parts: list[Any], *, alone: bool) -> Amount:
    prefixes, _ = _essence()
    *before, last = (str(part) for part in parts)
    if parts[-1].type == "FACTOR":
        if len(last) > FACTOR_DIGITS_MAX:
            raise UcumError(f"a factor has more than {FACTOR_DIGITS_MAX} digits")
        return Amount(F(int(last)), F(0), ())
    scale, offset, dimensions = _atom(last)
    scale = scale * prefixes[before[0]] if before else scale
    return Amount(scale, offset if alone else F(0), dimensions)


def _power(amount: Amount, exponent: str) -> Amount:
    power = int(exponent)
    if abs(power) > EXPONENT_MAX:
        raise UcumError(f"an exponent is above {EXPONENT_MAX}")
    return _sized(Amount(amount.scale**power, F(0), tuple((base, exp * power) for base, exp in amount.dimensions)))


def _product(left: Amount, right: Amount) -> Amount:
    powers = dict(left.dimensions)
    for base, power in right.dimensions:
        powers[base] = powers.get(base, 0) + power
    dimensions = tuple(sorted((base, power) for base, power in powers.items() if power))
    return _sized(Amount(left.scale * right.scale, F(0), dimensions))


def format_dimensions(dimensions: Dimensions) -> str:
    """Format dimensions as a term of base units: ``g.m-3``; ``1`` for a dimensionless number."""
    return ".".join(base if power == 1 else f"{base}{power}" for base, power in dimensions) or "1"
