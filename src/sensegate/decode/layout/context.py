"""State shared by the steps while they are emitted: position of the next byte, variables, names, expressions.

The position of the next byte is `NextByte`: a constant as long as all preceding elements have a known size, afterwards
the variable `at`. Elements of known size are collected in a run and read together; code that uses them is deferred
(`_defer`) until the run is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sensegate.decode.frame import ErrorAt
from sensegate.decode.layout.expressions import ExpressionSource, Resolve, Variable, compile_expression
from sensegate.decode.layout.output import Name, ObjectScope, Output
from sensegate.decode.layout.run import Deferred, ElementRun, NextByte
from sensegate.decode.layout.source import SourceWriter
from sensegate.decode.layout.steps import BinaryPart, Number, Step
from sensegate.decode.layout.types import Type, numbers_of, type_of
from sensegate.decode.part import Scalar

DEPTH_MAX = 16
STEPS_MAX = 2_000

_KINDS = {
    "type": {"name", "endian", "size", "until", "at", "equals", "reason", "bits", "map"},
    "value": {"name", "map"},
    "text": {"name"},
    "skip": set(),
    "align": set(),
    "crc": {"over", "endian", "name"},
    "when": {"name", "read"},
    "switch": {"cases", "default"},
    "repeat": {"name", "read", "leave", "twice"},
    "tlv": {"cases", "default", "endian", "length", "leave", "twice", "rest"},
    "within": {"name", "read", "rest"},
    "append": {"read"},
    "read": {"name"},
}
"""Kind of step -> the other keys that it may have."""

_BLANK = Step()

Path = tuple[str | int, ...]
_TEMPLATE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_FORM = re.compile(r"0?[0-9]{0,2}[xX]?")


class Context:
    """The state of emitting a layout."""

    def __init__(self, part: BinaryPart, error: ErrorAt, output: Callable[[SourceWriter], Output]) -> None:
        self._part = part
        self._error = error
        self._writer = SourceWriter()
        self._output = output(self._writer)
        self._run = ElementRun(self._writer)
        self._next_byte = NextByte(moving=False, bytes=0)
        self._end = "n"
        self._least = 0
        self._index = ""
        self._tag = ""
        self._steps = 0
        self._depth = 0
        self._bitwise = False
        """True if a repeat of fields that are not whole bytes is being emitted."""
        self._variables: dict[tuple[int, str], str] = {}
        self._waiting: set[str] = set()
        """Variables of the run that is not emitted yet."""
        self.flat = True
        """True if branches determine the members; they do not if a name may replace another."""

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────

    def _block(self, steps: Sequence[Step], scope: ObjectScope, path: Path) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"is nested more than {DEPTH_MAX} deep", *path)
        for index, step in enumerate(steps):
            self._steps += 1
            if self._steps > STEPS_MAX:
                raise self._error(f"the layout has more than {STEPS_MAX} steps", *path)
            self._step(step, scope, (*path, index))
        self._aligned((*path, len(steps) - 1) if steps else path)
        self._end_block()
        self._depth -= 1

    def _end_block(self) -> None:
        self._flush()

    def _step(self, step: Step, scope: ObjectScope, here: Path) -> None:
        kind = self._kind(step, here)
        try:
            getattr(self, f"_do_{kind}")(step, scope, here)
        except ValueError as error:
            raise self._error(str(error), *here, kind) from error

    def _kind(self, step: Step, here: Path) -> str:
        given = {key for key in Step.__struct_fields__ if getattr(step, key) != getattr(_BLANK, key)}
        kinds = [kind for kind in _KINDS if kind in given and kind != "read"]
        kind = kinds[0] if kinds else "read"
        if len(kinds) > 1:
            raise self._error(
                f"`{kinds[0]}` and `{kinds[1]}` in one step", *here, kinds[1], remedy="make two steps of it"
            )
        if not kinds and not step.read:
            raise self._error("the step is empty", *here, remedy=f"a step has one of {', '.join(_KINDS)}")
        for other in sorted(given - {kind} - _KINDS[kind]):
            known = ", ".join(sorted(_KINDS[kind])) or "no other key"
            raise self._error(f"has no meaning with `{kind}`", *here, other, remedy=f"keys with {kind}: {known}")
        if "read" in _KINDS[kind] and not step.read:
            raise self._error("there are no inner steps", *here, remedy="give `read`")
        return kind

    def _aligned(self, here: Path) -> None:
        if self._run.open_bits:
            bits = 8 - self._run.open_bits
            remedy = f"{{align: true}}, or {{type: u{bits}}} for the rest of the byte"
            raise self._error("the element before ends within a byte", *here, remedy=remedy)

    def _flush(self) -> None:
        least = self._least if self._end == "n" else int(self._end) if self._end.isdigit() else 0
        self._next_byte, after = self._run.flush(self._next_byte, self._end, least)
        self._waiting.clear()
        for write in after:
            write()

    def _sync_position(self) -> None:
        """Store the position of the next byte in `at`: a branch starts or ends."""
        if self._next_byte != NextByte(moving=True, bytes=0):
            self._writer.line(f"at = {self._next_byte.source}")
            self._next_byte = NextByte(moving=True, bytes=0)

    def _flush_run(self, here: Path) -> None:
        """Emit the pending run: the next step is not an element of known size."""
        self._aligned(here)
        self._flush()

    def _flush_after_check(self) -> None:
        """Emit the pending run after an element was checked, so that a refusal comes before anything else is read."""
        self._flush()

    # ── names and expressions ────────────────────────────────────────────────────────────────────────

    def _resolve(self, scope: ObjectScope) -> Resolve:
        def resolve(name: str) -> Variable:
            if name.startswith("$"):
                return self._special(name)
            variable = scope.find(name)
            if variable is None:
                raise ValueError(f"'{name}' is not certain to have been read here")
            return variable

        return resolve

    def _special(self, name: str) -> Variable:
        place = self._next_byte.source
        known = {
            "$size": Variable("n", "int", 32),
            "$at": Variable(f"({place})", "int", 32),
            "$left": Variable(f"({self._end} - ({place}))", "int", 33),
            "$port": Variable("port", "number", 16),
        }
        if self._index:
            known["$index"] = Variable(self._index, "int", 16)
        if self._tag:
            known["$tag"] = Variable(self._tag, "int", 64)
        if name not in known:
            raise ValueError(f"there is no '{name}' here; available: {', '.join(known)}")
        return known[name]

    def _source(self, text: Number | float, scope: ObjectScope, *path: str | int) -> ExpressionSource:
        try:
            return compile_expression(text, self._resolve(scope))
        except ValueError as error:
            raise self._error(str(error), *path) from error

    def _assign(self, letter: str, text: Number, scope: ObjectScope, *path: str | int) -> tuple[str, ExpressionSource]:
        """Emit an expression whose failure makes the frame malformed; return its variable."""
        source = self._source(text, scope, *path)
        variable = self._writer.fresh(letter)
        if source.safe:
            self._writer.line(f"{variable} = {source.text}")
        else:
            fault = f"raise malformed({f'{text} cannot be computed'!r}) from None"
            self._writer.attempt(variable, source.text, fault)
        return variable, source

    def _count(self, letter: str, text: Number, maximum: str, scope: ObjectScope, *path: str | int) -> str:
        """Return the variable of a size or count that is checked at run time."""
        if isinstance(text, int) and text < 0:
            raise self._error("must not be negative", *path)
        variable, _ = self._assign(letter, text, scope, *path)
        self._writer.line(f"{variable} = whole({variable}, {str(path[-1])!r}, {maximum})")
        return variable

    def _name(self, text: str, scope: ObjectScope, here: Path) -> Name | None:
        """Return a name in the tree, None for a value that is used in expressions only."""
        if not text or text.startswith("_"):
            return None
        if "{" not in text and "}" not in text:
            return Name(repr(text), text)
        parts, _ = self._template(text, scope, (*here, "name"), plain=True)
        variable = self._writer.fresh("m")
        self._writer.line(f"{variable} = name_of(({', '.join(parts)},))")
        return Name(variable, "")

    def _template(self, text: str, scope: ObjectScope, path: Path, *, plain: bool) -> tuple[list[str], bool]:
        """Return (sources of the parts of a text with {names} in it, whether none of them can fail)."""
        parts: list[str] = []
        position, safe = 0, True
        if set("{}") & set(_TEMPLATE.sub("", text)):
            raise self._error("a brace is not closed or not opened", *path)
        for placeholder in _TEMPLATE.finditer(text):
            if placeholder.start() > position:
                parts.append(repr(text[position : placeholder.start()]))
            position = placeholder.end()
            source = self._source(placeholder[1], scope, *path)
            form = placeholder[2]
            if source.kind in {"float", "number"} or (plain and form):
                raise self._error(f"'{placeholder[0]}' must be an integer or text", *path)
            if form is not None and not _FORM.fullmatch(form):
                raise self._error(
                    f"'{placeholder[0]}'", *path, remedy="{name}, {name:02} (two digits), {name:04x} (in hex)"
                )
            safe = safe and source.safe and (source.kind == "int" or (source.kind == "text" and not form))
            parts.append(source.text if plain else f"format({source.text}, {form or ''!r})")
        return parts + ([repr(text[position:])] if text[position:] else []), safe

    def _put(
        self,
        scope: ObjectScope,
        name: str,
        variable: Variable,
        here: Path,
        *,
        mixed: bool = False,
        tree_only: bool = False,
    ) -> None:
        """Store a value in the tree, and, unless `tree_only`, as a variable for expressions."""
        if name:
            if member := self._name(name, scope, here):
                self._output.leaf(scope, member, variable.text, mixed=mixed)
            if not tree_only:
                scope.variables[name] = variable

    def _defer(self, write: Deferred, here: Path, key: str) -> None:
        """Emit code once the elements so far are read, with the position and limit that hold now."""
        captured = (self._next_byte.plus(self._run.size), self._end, self._index, self._tag)

        def emit() -> None:
            current = (self._next_byte, self._end, self._index, self._tag)
            self._next_byte, self._end, self._index, self._tag = captured
            try:
                write()
            except ValueError as error:
                raise self._error(str(error), *here, key) from error
            self._next_byte, self._end, self._index, self._tag = current

        self._run.then(emit)

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────────

    def _type(self, text: str, *path: str | int) -> Type:
        try:
            return type_of(text)
        except ValueError as error:
            raise self._error(f"there is no type '{text}'", *path, remedy=str(error)) from error

    def _little(self, step: Step) -> bool:
        return (step.endian or self._part.endian) == "little"

    def _variable(self, scope: ObjectScope, name: str) -> str:
        """Return the variable of a name: the same in all branches that read it."""
        shared = self._variables.setdefault((scope.number, name), self._writer.fresh("v"))
        if not name or "{" in name or name in scope.variables or shared in self._waiting:
            return self._writer.fresh("v")
        self._waiting.add(shared)
        return shared

    def _keys(self, key: Scalar, *path: str | int) -> list[int]:
        try:
            return numbers_of(key)
        except ValueError as error:
            raise self._error(str(error), *path) from error
