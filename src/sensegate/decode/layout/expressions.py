"""Expressions of layouts: a small part of Python's grammar, parsed, checked node by node, and written anew as source.

Nothing of a profile's text is run: only nodes of the tables below are let through, names become variables of ours, and
what may grow without bound (powers, shifts) goes through `runtime`.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from sensegate.decode.layout.runtime import FUNCTIONS

Kind = Literal["bool", "int", "float", "number", "mixed", "text"]
"""`number`: int or float; `mixed`: a number, or text where the bytes are no number."""

TEXT_MAX: Final = 500
"""Characters of an expression."""
WIDE: Final = 1_000
"""Bits of an integer of which no bound is known."""
_INT_BITS: Final = 64
_SPECIAL = re.compile(r"\$([a-z]+)")
_MARK: Final = "special_"

_SIGNS: Final[dict[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.Pow: "**",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_CALLED: Final = {"**": "power", "<<": "left", ">>": "right"}
_INTEGERS: Final = {"bool", "int"}
_CLOSED: Final = ("+", "-", "*", "&", "|", "^")
"""Of integers they make integers and never fail."""
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


class Source(NamedTuple):
    """An expression as Python source."""

    text: str
    kind: Kind
    safe: bool
    """Whether it never fails."""
    bits: int = 0
    """Of an integer: it is below two to the power of so many."""


class Variable(NamedTuple):
    """What a name stands for."""

    text: str
    kind: Kind
    bits: int = 0


Resolve = Callable[[str], Variable]
"""A name (special ones with $) to its variable. Raises `ValueError` where it may not stand."""


def compile_expression(text: str | float, resolve: Resolve) -> Source:
    """Return the source of an expression.

    Raises:
        ValueError: with what is wrong with it.
    """
    if isinstance(text, (int, float)):
        return _constant(text)
    if len(text) > TEXT_MAX:
        raise ValueError(f"longer than {TEXT_MAX} characters")
    try:
        tree = ast.parse(_SPECIAL.sub(rf"{_MARK}\1", text.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"'{text}' is no expression") from error
    return _Writer(resolve).write(tree.body)


def _constant(value: object) -> Source:
    if isinstance(value, bool):
        return Source(str(int(value)), "int", safe=True, bits=1)
    if isinstance(value, int) and value.bit_length() <= _INT_BITS:
        return Source(f"({value})" if value < 0 else str(value), "int", safe=True, bits=value.bit_length())
    if isinstance(value, float) and math.isfinite(value):
        return Source(f"({value!r})" if value < 0 else repr(value), "float", safe=True)
    if isinstance(value, str) and len(value) <= TEXT_MAX:
        return Source(repr(value), "text", safe=True)
    raise ValueError(f"{value!r} is no number")


class _Writer:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    def write(self, node: ast.expr) -> Source:  # noqa: PLR0911 # one for each kind of node
        """Return the source of a node."""
        match node:
            case ast.Constant(value=value):
                return _constant(value)
            case ast.Name(id=name):
                found = self._resolve(f"${name.removeprefix(_MARK)}" if name.startswith(_MARK) else name)
                return Source(found.text, found.kind, safe=True, bits=found.bits)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
                return self._binary(self._number(left), _SIGNS[type(op)], self._number(right), right)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, operand)
            case ast.BoolOp(op=op, values=values):
                parts = [self._truth(value) for value in values]
                word = " and " if isinstance(op, ast.And) else " or "
                return Source(f"({word.join(p.text for p in parts)})", "bool", all(p.safe for p in parts), 1)
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition, one, other = self._truth(test), self._number(body), self._number(orelse)
                kind: Kind = one.kind if one.kind == other.kind else "number"
                text = f"({one.text} if {condition.text} else {other.text})"
                return Source(text, kind, condition.safe and one.safe and other.safe, max(one.bits, other.bits))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args)
        raise ValueError(f"'{ast.unparse(node)}' may not stand in an expression")

    def _number(self, node: ast.expr) -> Source:
        source = self.write(node)
        if source.kind == "text":
            raise ValueError(f"'{ast.unparse(node)}' is text, no number")
        if source.kind == "mixed":
            return Source(f"number({source.text})", "number", safe=True)
        return source

    def _truth(self, node: ast.expr) -> Source:
        source = self._number(node)
        return source if source.kind == "bool" else Source(f"({source.text} != 0)", "bool", source.safe, 1)

    @staticmethod
    def _binary(one: Source, sign: str, other: Source, right: ast.expr) -> Source:
        ints = {one.kind, other.kind} <= _INTEGERS
        if sign in _CALLED:
            kind: Kind = "float" if sign == "**" else "int"
            bits = one.bits if sign == ">>" else WIDE
            if sign == "<<" and isinstance(right, ast.Constant) and isinstance(right.value, int):
                bits = one.bits + right.value
            return Source(f"{_CALLED[sign]}({one.text}, {other.text})", kind, safe=False, bits=bits)
        if sign == "/" or (sign in {"+", "-", "*"} and "float" in {one.kind, other.kind}):
            kind = "float"
        else:
            kind = "int" if ints else "number"
        divisor = isinstance(right, ast.Constant) and right.value != 0
        quotient = sign in {"/", "//", "%"} and divisor and max(one.bits, other.bits) <= _INT_BITS
        safe = ints and one.safe and other.safe and (sign in _CLOSED or quotient)
        bits = one.bits + other.bits if sign == "*" else max(one.bits, other.bits) + 1
        return Source(f"({one.text} {sign} {other.text})", kind, safe, min(bits, WIDE))

    def _unary(self, op: ast.unaryop, operand: ast.expr) -> Source:
        if isinstance(op, ast.Not):
            source = self._truth(operand)
            return Source(f"(not {source.text})", "bool", source.safe, 1)
        source = self._number(operand)
        if isinstance(op, ast.Invert):
            return Source(f"(~{source.text})", "int", source.safe and source.kind in _INTEGERS, source.bits + 1)
        sign = "-" if isinstance(op, ast.USub) else "+"
        kind: Kind = "int" if source.kind == "bool" else source.kind
        return Source(f"({sign}{source.text})", kind, source.safe, source.bits)

    def _compare(self, node: ast.Compare) -> Source:
        parts = [self.write(part) for part in (node.left, *node.comparators)]
        signs = [_COMPARE.get(type(op), "") for op in node.ops]
        if not all(signs):
            raise ValueError("only == != < <= > >= compare")
        if set(signs) - {"==", "!="}:
            if any(part.kind == "text" for part in parts):
                raise ValueError("text is only the same or not the same")
            parts = [self._number(part) for part in (node.left, *node.comparators)]
        text = parts[0].text + "".join(f" {sign} {part.text}" for sign, part in zip(signs, parts[1:], strict=True))
        return Source(f"({text})", "bool", all(part.safe for part in parts), 1)

    def _call(self, name: str, args: list[ast.expr]) -> Source:
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else ", ".join(FUNCTIONS)
            raise ValueError(f"no function '{name}': {remedy}")
        function = FUNCTIONS[name]
        if not function.least <= len(args) <= function.most:
            raise ValueError(f"'{name}' takes {function.least} to {function.most} values, not {len(args)}")
        # `int` and `float` are there to read digits out of text
        parts = [self.write(arg) if name in {"int", "float"} else self._number(arg) for arg in args]
        kind: Kind = function.kind
        return Source(f"f_{name}({', '.join(part.text for part in parts)})", kind, safe=False, bits=WIDE)
