"""Expressions of layouts: a small part of Python's grammar, parsed, checked node by node, and written anew as source.

No text of a profile is executed: only node types in the tables below are accepted, names become generated variables,
and operations that may grow without bound (powers, shifts) go through `runtime`.
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
"""`number`: int or float; `mixed`: a number, or text if the bytes are not a number."""

TEXT_MAX: Final = 500
"""Longest expression, in characters."""
WIDE: Final = 1_000
"""Bits of an integer without a known bound."""
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
_RUNTIME_OPERATORS: Final = {"**": "power", "<<": "left", ">>": "right"}
_INTEGERS: Final = {"bool", "int"}
_SAFE_OPERATORS: Final = ("+", "-", "*", "&", "|", "^")
"""Operators that make integers of integers and never fail."""
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


class ExpressionSource(NamedTuple):
    """An expression as Python source."""

    text: str
    kind: Kind
    safe: bool
    """True if it can never fail."""
    bits: int = 0
    """Bound of an integer: it is below two to the power of this."""


class Variable(NamedTuple):
    """The generated variable that a name stands for."""

    text: str
    kind: Kind
    bits: int = 0


Resolve = Callable[[str], Variable]
"""A name (special ones with $) to its variable. Raises `ValueError` if it must not be used here."""


def compile_expression(text: str | float, resolve: Resolve) -> ExpressionSource:
    """Compile an expression to source.

    Raises:
        ValueError: with the problem.
    """
    if isinstance(text, (int, float)):
        return _constant(text)
    if len(text) > TEXT_MAX:
        raise ValueError(f"is longer than {TEXT_MAX} characters")
    try:
        tree = ast.parse(_SPECIAL.sub(rf"{_MARK}\1", text.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"'{text}' is not an expression") from error
    return _ExpressionWriter(resolve).write(tree.body)


def _constant(value: object) -> ExpressionSource:
    if isinstance(value, bool):
        return ExpressionSource(str(int(value)), "int", safe=True, bits=1)
    if isinstance(value, int) and value.bit_length() <= _INT_BITS:
        return ExpressionSource(f"({value})" if value < 0 else str(value), "int", safe=True, bits=value.bit_length())
    if isinstance(value, float) and math.isfinite(value):
        return ExpressionSource(f"({value!r})" if value < 0 else repr(value), "float", safe=True)
    if isinstance(value, str) and len(value) <= TEXT_MAX:
        return ExpressionSource(repr(value), "text", safe=True)
    raise ValueError(f"{value!r} is not a number")


class _ExpressionWriter:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    def write(self, node: ast.expr) -> ExpressionSource:  # noqa: PLR0911 # one for each kind of node
        """Return the source of a node."""
        match node:
            case ast.Constant(value=value):
                return _constant(value)
            case ast.Name(id=name):
                variable = self._resolve(f"${name.removeprefix(_MARK)}" if name.startswith(_MARK) else name)
                return ExpressionSource(variable.text, variable.kind, safe=True, bits=variable.bits)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
                return self._binary(self._number(left), _SIGNS[type(op)], self._number(right), right)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, operand)
            case ast.BoolOp(op=op, values=values):
                parts = [self._truth(value) for value in values]
                word = " and " if isinstance(op, ast.And) else " or "
                return ExpressionSource(f"({word.join(p.text for p in parts)})", "bool", all(p.safe for p in parts), 1)
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition, first, second = self._truth(test), self._number(body), self._number(orelse)
                kind: Kind = first.kind if first.kind == second.kind else "number"
                text = f"({first.text} if {condition.text} else {second.text})"
                return ExpressionSource(
                    text, kind, condition.safe and first.safe and second.safe, max(first.bits, second.bits)
                )
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args)
        raise ValueError(f"'{ast.unparse(node)}' is not allowed in an expression")

    def _number(self, node: ast.expr) -> ExpressionSource:
        source = self.write(node)
        if source.kind == "text":
            raise ValueError(f"'{ast.unparse(node)}' is text, not a number")
        if source.kind == "mixed":
            return ExpressionSource(f"number({source.text})", "number", safe=True)
        return source

    def _truth(self, node: ast.expr) -> ExpressionSource:
        source = self._number(node)
        return source if source.kind == "bool" else ExpressionSource(f"({source.text} != 0)", "bool", source.safe, 1)

    @staticmethod
    def _binary(left: ExpressionSource, sign: str, right: ExpressionSource, right_node: ast.expr) -> ExpressionSource:
        ints = {left.kind, right.kind} <= _INTEGERS
        if sign in _RUNTIME_OPERATORS:
            kind: Kind = "float" if sign == "**" else "int"
            bits = left.bits if sign == ">>" else WIDE
            if sign == "<<" and isinstance(right_node, ast.Constant) and isinstance(right_node.value, int):
                bits = left.bits + right_node.value
            return ExpressionSource(
                f"{_RUNTIME_OPERATORS[sign]}({left.text}, {right.text})", kind, safe=False, bits=bits
            )
        if sign == "/" or (sign in {"+", "-", "*"} and "float" in {left.kind, right.kind}):
            kind = "float"
        else:
            kind = "int" if ints else "number"
        divisor = isinstance(right_node, ast.Constant) and right_node.value != 0
        quotient = sign in {"/", "//", "%"} and divisor and max(left.bits, right.bits) <= _INT_BITS
        safe = ints and left.safe and right.safe and (sign in _SAFE_OPERATORS or quotient)
        bits = left.bits + right.bits if sign == "*" else max(left.bits, right.bits) + 1
        return ExpressionSource(f"({left.text} {sign} {right.text})", kind, safe, min(bits, WIDE))

    def _unary(self, op: ast.unaryop, operand: ast.expr) -> ExpressionSource:
        if isinstance(op, ast.Not):
            source = self._truth(operand)
            return ExpressionSource(f"(not {source.text})", "bool", source.safe, 1)
        source = self._number(operand)
        if isinstance(op, ast.Invert):
            return ExpressionSource(
                f"(~{source.text})", "int", source.safe and source.kind in _INTEGERS, source.bits + 1
            )
        sign = "-" if isinstance(op, ast.USub) else "+"
        kind: Kind = "int" if source.kind == "bool" else source.kind
        return ExpressionSource(f"({sign}{source.text})", kind, source.safe, source.bits)

    def _compare(self, node: ast.Compare) -> ExpressionSource:
        parts = [self.write(part) for part in (node.left, *node.comparators)]
        signs = [_COMPARE.get(type(op), "") for op in node.ops]
        if not all(signs):
            raise ValueError("only == != < <= > >= may compare")
        if set(signs) - {"==", "!="}:
            if any(part.kind == "text" for part in parts):
                raise ValueError("text can be compared with == and != only")
            parts = [self._number(part) for part in (node.left, *node.comparators)]
        text = parts[0].text + "".join(f" {sign} {part.text}" for sign, part in zip(signs, parts[1:], strict=True))
        return ExpressionSource(f"({text})", "bool", all(part.safe for part in parts), 1)

    def _call(self, name: str, args: list[ast.expr]) -> ExpressionSource:
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else ", ".join(FUNCTIONS)
            raise ValueError(f"there is no function '{name}': {remedy}")
        function = FUNCTIONS[name]
        if not function.least <= len(args) <= function.most:
            raise ValueError(f"'{name}' takes {function.least} to {function.most} values, not {len(args)}")
        # `int` and `float` also read digits from text
        parts = [self.write(arg) if name in {"int", "float"} else self._number(arg) for arg in args]
        kind: Kind = function.kind
        return ExpressionSource(f"f_{name}({', '.join(part.text for part in parts)})", kind, safe=False, bits=WIDE)
