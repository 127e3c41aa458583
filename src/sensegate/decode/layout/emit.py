"""A layout's steps, checked and written as Python source.

The place of the next byte is `Cursor`: a constant as long as all before it is of known size, then the variable `at`.
Branches and repeats begin and end with `at`. Elements of known size wait in a `Run` and are read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sensegate.decode.crc import check
from sensegate.decode.frame import ErrorAt
from sensegate.decode.layout.expressions import Kind, Source, Variable, compile_expression
from sensegate.decode.layout.output import Mode, Name, Output, Scope
from sensegate.decode.layout.run import After, Cursor, Item, Run, variable_of
from sensegate.decode.layout.runtime import ELEMENTS_MAX
from sensegate.decode.layout.source import Writer
from sensegate.decode.layout.steps import BinaryPart, Number, Step
from sensegate.decode.layout.types import Type, bits_of, numbers_of, type_of
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
_BRANCHES_MAX = 4
"""More cases than these are found by halving."""
_NONE = 255
"""In a table of bytes: no case."""


class Emitter:
    """Writes one layout as one function: (bytes, port) to its tree, its values, or its pointers."""

    def __init__(self, part: BinaryPart, error: ErrorAt, mode: Mode) -> None:
        self._part = part
        self._error = error
        self._writer = Writer()
        self._output = Output(self._writer, mode)
        self._run = Run(self._writer)
        self._cursor = Cursor(moving=False, bytes=0)
        self._end = "n"
        self._least = 0
        self._index = ""
        self._tag = ""
        self._steps = 0
        self._depth = 0
        self._bitwise = False
        """Whether a repeat of fields that are no whole bytes is written."""
        self._variables: dict[tuple[int, str], str] = {}
        self._waiting: set[str] = set()
        """Variables of the run that is not written yet."""
        self.flat = True
        """Whether branches tell what is there (they do not where a name may replace another)."""

    # ── the frame ────────────────────────────────────────────────────────────────────────────────────

    def function(self) -> Any:
        """Return the function of (bytes, port). Raises `ProfileError` where the layout is wrong."""
        part, writer = self._part, self._writer
        if not part.read and not part.ports:
            raise self._error("no step is described", remedy="give `read`")
        writer.line("n = len(b)")
        writer.line("k = 0")
        with writer.block("if port is None:"):
            writer.line("port = -1")
        self._length()
        others: set[int] = set()
        for at, (key, steps) in enumerate(part.ports.items()):
            ports = self._keys(key, "ports", str(key))
            if min(ports) < 0:
                raise self._error("a port is 0 or more", "ports", str(key))
            if others & set(ports):
                raise self._error("names a port twice", "ports", str(key))
            others |= set(ports)
            with writer.block(f"if port in {writer.constant('p', frozenset(ports))}:"):
                self._output.branch(str(at))
                self._whole(steps, ("ports", str(key)))
        if part.ports:
            self._output.branch("-1")
        if part.read:
            self._whole(part.read, ("read",))
        else:
            writer.line(
                "raise strange(f'no layout for port {port}' if port >= 0 else 'no layout for a frame without port')"
            )
        self._output.begin()
        try:
            return writer.function("layout", "b, port")
        except (SyntaxError, RecursionError, MemoryError) as why:
            raise self._error("nested too deeply", remedy="fewer repeats and switches inside others") from why

    def _length(self) -> None:
        length = self._part.length
        if length is None:
            return
        low, high = (length, length) if isinstance(length, int) else length
        if not 0 < low <= high:
            raise self._error("the lower bound, then the upper", "length")
        self._least = low
        what = f"{low} bytes" if low == high else f"{low} to {high} bytes"
        test = f"n != {low}" if low == high else f"not {low} <= n <= {high}"
        with self._writer.block(f"if {test}:"):
            self._writer.line(f"raise strange(f'{{n}} bytes, not {what}')")

    def _whole(self, steps: tuple[Step, ...], path: Path) -> None:
        """Write one way through the frame, from its first byte to its last."""
        self._cursor = Cursor(moving=False, bytes=0)
        self._block(steps, self._output.root(), path)
        if self._part.rest == "refuse":
            known = not self._cursor.moving and self._part.length == self._cursor.bytes
            if not known:
                with self._writer.block(f"if {self._cursor.source} != n:"):
                    self._writer.line(f"raise left_over({self._cursor.source}, n)")
        self._output.finish()

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────

    def _block(self, steps: Sequence[Step], scope: Scope, path: Path) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"nested more than {DEPTH_MAX} deep", *path)
        for at, step in enumerate(steps):
            self._steps += 1
            if self._steps > STEPS_MAX:
                raise self._error(f"more than {STEPS_MAX} steps", *path)
            self._step(step, scope, (*path, at))
        self._aligned((*path, len(steps) - 1) if steps else path)
        self._flush()
        self._depth -= 1

    def _step(self, step: Step, scope: Scope, here: Path) -> None:
        kind = self._kind(step, here)
        try:
            getattr(self, f"_do_{kind}")(step, scope, here)
        except ValueError as why:
            raise self._error(str(why), *here, kind) from why

    def _kind(self, step: Step, here: Path) -> str:
        given = {key for key in Step.__struct_fields__ if getattr(step, key) != getattr(_BLANK, key)}
        kinds = [kind for kind in _KINDS if kind in given and kind != "read"]
        kind = kinds[0] if kinds else "read"
        if len(kinds) > 1:
            raise self._error(f"`{kinds[0]}` and `{kinds[1]}` in one step", *here, kinds[1], remedy="make two of it")
        if not kinds and not step.read:
            raise self._error("says nothing", *here, remedy=f"a step has one of {', '.join(_KINDS)}")
        for other in sorted(given - {kind} - _KINDS[kind]):
            known = ", ".join(sorted(_KINDS[kind])) or "no other key"
            raise self._error(f"has no meaning beside `{kind}`", *here, other, remedy=f"{kind} knows: {known}")
        if "read" in _KINDS[kind] and not step.read:
            raise self._error("no steps inside", *here, remedy="give `read`")
        return kind

    def _aligned(self, here: Path) -> None:
        if self._run.open_bits:
            bits = 8 - self._run.open_bits
            remedy = f"{{align: true}}, or {{type: u{bits}}} for what is left of the byte"
            raise self._error("the next whole byte is not reached", *here, remedy=remedy)

    def _flush(self) -> None:
        least = self._least if self._end == "n" else 0
        self._cursor, after = self._run.flush(self._cursor, self._end, least)
        self._waiting.clear()
        for write in after:
            write()

    def _settle(self) -> None:
        """Make `at` the place of the next byte, and write what waits: a branch comes or ends."""
        if self._cursor != Cursor(moving=True, bytes=0):
            self._writer.line(f"at = {self._cursor.source}")
            self._cursor = Cursor(moving=True, bytes=0)

    def _stop(self, here: Path) -> None:
        """Read what waits: the next step is no element of known size."""
        self._aligned(here)
        self._flush()

    # ── names and expressions ────────────────────────────────────────────────────────────────────────

    def _resolve(self, scope: Scope) -> Any:
        def resolve(name: str) -> Variable:
            if name.startswith("$"):
                return self._special(name)
            found = scope.find(name)
            if found is None:
                raise ValueError(f"'{name}' is not certain to have been read here")
            return found

        return resolve

    def _special(self, name: str) -> Variable:
        place = self._cursor.source
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
            raise ValueError(f"no '{name}' here; there is {', '.join(known)}")
        return known[name]

    def _source(self, text: Number | float, scope: Scope, *path: str | int) -> Source:
        try:
            return compile_expression(text, self._resolve(scope))
        except ValueError as why:
            raise self._error(str(why), *path) from why

    def _assign(self, letter: str, text: Number, scope: Scope, *path: str | int) -> tuple[str, Source]:
        """Write an expression whose failure makes the frame malformed; return its variable."""
        source = self._source(text, scope, *path)
        variable = self._writer.fresh(letter)
        if source.safe:
            self._writer.line(f"{variable} = {source.text}")
        else:
            fault = f"raise malformed({f'{text} cannot be computed'!r}) from None"
            self._writer.attempt(variable, source.text, fault)
        return variable, source

    def _count(self, letter: str, text: Number, most: str, scope: Scope, *path: str | int) -> str:
        """Return the source of a size or count that is checked when the frame is there."""
        if isinstance(text, int) and text < 0:
            raise self._error("must not be negative", *path)
        variable, _ = self._assign(letter, text, scope, *path)
        self._writer.line(f"{variable} = whole({variable}, {str(path[-1])!r}, {most})")
        return variable

    def _name(self, text: str, scope: Scope, here: Path) -> Name | None:
        """Return a name in the tree, None for a value that is for expressions only."""
        if not text or text.startswith("_"):
            return None
        if "{" not in text and "}" not in text:
            return Name(repr(text), text)
        parts, _ = self._template(text, scope, (*here, "name"), plain=True)
        variable = self._writer.fresh("m")
        self._writer.line(f"{variable} = name_of(({', '.join(parts)},))")
        return Name(variable, "")

    def _template(self, text: str, scope: Scope, path: Path, *, plain: bool) -> tuple[list[str], bool]:
        """Return (sources of the parts of a text with {names} in it, whether it never fails)."""
        parts: list[str] = []
        at, safe = 0, True
        if set("{}") & set(_TEMPLATE.sub("", text)):
            raise self._error("a brace without its other", *path)
        for found in _TEMPLATE.finditer(text):
            if found.start() > at:
                parts.append(repr(text[at : found.start()]))
            at = found.end()
            source = self._source(found[1], scope, *path)
            form = found[2]
            if source.kind in {"float", "number"} or (plain and form):
                raise self._error(f"'{found[0]}' must be a whole number or a text", *path)
            if form is not None and not _FORM.fullmatch(form):
                raise self._error(f"'{found[0]}'", *path, remedy="{name}, {name:02} (two digits), {name:04x} (in hex)")
            safe = safe and source.safe and (source.kind == "int" or (source.kind == "text" and not form))
            parts.append(source.text if plain else f"format({source.text}, {form or ''!r})")
        return parts + ([repr(text[at:])] if text[at:] else []), safe

    def _put(
        self, scope: Scope, name: str, variable: Variable, here: Path, *, mixed: bool = False, kept: bool = False
    ) -> None:
        """Put a value where it belongs: into the tree, and (unless `kept` from them) among what expressions may use."""
        if name:
            if found := self._name(name, scope, here):
                self._output.leaf(scope, found, variable.text, mixed=mixed)
            if not kept:
                scope.variables[name] = variable

    # ── elements ─────────────────────────────────────────────────────────────────────────────────────

    def _do_type(self, step: Step, scope: Scope, here: Path) -> None:
        type_ = self._type(step.type, *here, "type")
        if type_.family == "text":
            self._text_element(step, type_, scope, here)
            return
        if step.size is not None or step.until is not None:
            raise self._error("is for text types", *here, "size" if step.size is not None else "until")
        little = self._little(step)
        needed = bool(step.name or step.bits or step.equals is not None)
        item = Item(
            self._variable(scope, step.name) if needed else "",
            type_,
            type_.bits // 8,
            little,
            little and type_.family == "bcd",
            f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}",
        )
        if step.at is not None:
            self._elsewhere(step, item, scope, here)
        elif type_.bits % 8 or self._run.in_bits or self._bitwise:
            if type_.family == "f":
                raise ValueError("begins within a byte")
            if not self._run.in_bits and not self._bitwise:
                self._flush_before(item.variable)
            self._run.add_bits(item)
        else:
            self._run.add(item)
        self._later(lambda: self._number_read(step, type_, item.variable, scope, here), here, "name")
        ends = step.equals is not None or self._run.in_bits  # what is refused is refused before the rest is looked at
        if ends and not self._run.open_bits and not self._bitwise:
            self._flush()

    def _flush_before(self, variable: str) -> None:
        self._flush()
        if variable:
            self._waiting.add(variable)

    def _type(self, text: str, *path: str | int) -> Type:
        try:
            return type_of(text)
        except ValueError as why:
            raise self._error(f"no type '{text}'", *path, remedy=str(why)) from why

    def _little(self, step: Step) -> bool:
        return (step.endian or self._part.endian) == "little"

    def _variable(self, scope: Scope, name: str) -> str:
        """Return the variable of a name: the same in all branches that read it."""
        shared = self._variables.setdefault((scope.number, name), self._writer.fresh("v"))
        if not name or "{" in name or name in scope.variables or shared in self._waiting:
            return self._writer.fresh("v")
        self._waiting.add(shared)
        return shared

    def _number_read(self, step: Step, type_: Type, variable: str, scope: Scope, here: Path) -> None:
        if not variable:
            return
        if step.bits and not type_.unsigned:
            raise self._error("only an unsigned integer has bits", *here, "bits")
        found = variable_of(variable, type_)
        if step.equals is not None:
            self._equals(step, found, scope, here)
        if step.map:
            found = self._mapped(step, found, here)
        self._put(scope, step.name, found, here, mixed=found.kind == "mixed")
        for name, text in step.bits.items():
            try:
                bits = bits_of(text, type_.bits)
            except ValueError as why:
                raise self._error(str(why), *here, "bits", name) from why
            field = self._variable(scope, name)
            self._run.field(field, variable, bits)
            try:
                self._put(scope, name, Variable(field, "int", bits.width), (*here, "bits"))
            except ValueError as why:
                raise self._error(str(why), *here, "bits", name) from why

    def _mapped(self, step: Step, found: Variable, here: Path) -> Variable:
        table: dict[Any, float] = {}
        for key, value in step.map.items():
            for code in [key] if found.kind == "text" else self._keys(key, *here, "map", str(key)):
                if code in table:
                    raise self._error("stands there twice", *here, "map", str(key))
                table[code] = value
        name = self._writer.constant("m", table)
        self._writer.line(f"{found.text} = {name}.get({found.text}, NAN)")
        return Variable(found.text, "float")

    def _keys(self, key: Scalar, *path: str | int) -> list[int]:
        try:
            return numbers_of(key)
        except ValueError as why:
            raise self._error(str(why), *path) from why

    def _equals(self, step: Step, found: Variable, scope: Scope, here: Path) -> None:
        wanted = step.equals if isinstance(step.equals, tuple) else (step.equals,)
        sources: list[str] = []
        for one in wanted:
            if found.kind == "text":
                sources.append(repr(str(one)))
                continue
            source = self._source(one if isinstance(one, (int, float, str)) else 0, scope, *here, "equals")
            if source.kind == "text" or not (source.safe or len(wanted) == 1):
                raise self._error(f"{one!r} is no number", *here, "equals")
            sources.append(source.text)
            if not source.safe:
                one_wanted = self._writer.fresh("q")
                self._writer.attempt(
                    one_wanted, source.text, f"raise malformed({f'{one} cannot be computed'!r}) from None"
                )
                sources = [one_wanted]
        refuse = "strange" if step.reason == "schema" else "malformed"
        what = f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}"
        words = " or ".join(map(str, wanted))
        told = repr(f"{what} is not {words}")
        if found.kind != "text":
            told = f"{f'{what} is '!r} + str({found.text}) + {f', not {words}'!r}"
        test = f"{found.text} != {sources[0]}" if len(sources) == 1 else f"{found.text} not in ({', '.join(sources)})"
        with self._writer.block(f"if {test}:"):
            self._writer.line(f"raise {refuse}({told})")

    def _elsewhere(self, step: Step, item: Item, scope: Scope, here: Path) -> None:
        """Read an element at a place of its own."""
        if item.type is None or (item.type.bits % 8):
            raise ValueError("an element with `at` has whole bytes; give its container and `bits`")
        self._stop(here)
        place = self._absolute(step.at or 0, item.size, item.name, scope, here)
        if item.variable:
            self._run.one(item, place, f"{place} + {item.size}")

    def _absolute(self, at: Number, size: int, name: str, scope: Scope, here: Path) -> str:
        """Return the variable of a place in the frame at which so many bytes stand."""
        place, _ = self._assign("a", at, scope, *here, "at")
        with self._writer.block(f"if {place} < 0:"):
            self._writer.line(f"{place} += n")
        with self._writer.block(f"if {place}.__class__ is not int or not 0 <= {place} <= n - {size}:"):
            self._writer.line(f"raise malformed({f'{name} stands outside of the frame'!r})")
        return place

    def _text_element(self, step: Step, type_: Type, scope: Scope, here: Path) -> None:
        turned = step.endian == "little" and type_.name in {"hex", "digits"}
        needed = bool(step.name) or step.equals is not None
        what = f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}"
        variable = self._variable(scope, step.name) if needed else ""
        if (step.size is None) == (step.until is None):
            raise self._error("how long is it?", *here, remedy="give `size` (bytes, or rest) or `until`")
        if step.bits:
            raise self._error("only an unsigned integer has bits", *here, "bits")
        if type_.name == "bytes" and (step.equals is not None or step.map):
            raise self._error("cannot be compared", *here, "type", remedy="take `hex`: equals: 'a55a'")
        if isinstance(step.size, int) and step.size < 1:
            raise self._error("must be 1 or more", *here, "size")
        size = step.size if isinstance(step.size, int) else 0
        item = Item(variable, type_, size, little=False, turned=turned, name=what)
        if step.at is not None:
            if not size:
                raise self._error("an element with `at` has a size in figures", *here, "size")
            self._stop(here)
            place = self._absolute(step.at, size, what, scope, here)
            if variable:
                self._run.convert(item, f"b[{place}:{place} + {size}]")
        elif size:
            self._aligned(here)
            self._run.add(item)
        else:
            self._stop(here)
            self._stretch(step, item, scope, here)

        def read() -> None:
            if variable:
                found = variable_of(variable, type_)
                if step.equals is not None:
                    self._equals(step, found, scope, here)
                if step.map:
                    found = self._mapped(step, found, here)
                self._put(scope, step.name, found, here, kept=type_.name == "bytes")

        self._later(read, here, "name")
        if step.equals is not None or not size:
            self._flush()

    def _stretch(self, step: Step, item: Item, scope: Scope, here: Path) -> None:
        """Read an element whose size is known when the frame is there."""
        start = self._cursor.source
        if step.until is not None:
            if not 0 <= step.until <= 255:
                raise self._error("a byte is 0 to 255", *here, "until")
            stop = self._writer.fresh("z")
            mark = self._writer.constant("b", bytes([step.until]))
            self._writer.line(f"{stop} = b.find({mark}, {start}, {self._end})")
            with self._writer.block(f"if {stop} < 0:"):
                self._writer.line(f"raise malformed({f'{item.name} has no end'!r})")
            after = f"{stop} + 1"
        elif step.size == "rest":
            stop = after = self._end
        else:
            stop = self._count("z", step.size or 0, f"{self._end} - ({start})", scope, *here, "size")
            self._writer.line(f"{stop} += {start}")
            after = stop
        if item.variable:
            self._run.convert(item, f"b[{start}:{stop}]")
        self._writer.line(f"at = {after}")
        self._cursor = Cursor(moving=True, bytes=0)

    # ── computed ─────────────────────────────────────────────────────────────────────────────────────

    def _do_value(self, step: Step, scope: Scope, here: Path) -> None:
        self._no_name(step, here)
        text = step.value if step.value is not None else 0
        if isinstance(text, str) and ("$at" in text or "$left" in text):
            self._stop(here)

        def write() -> None:
            source = self._source(text, scope, *here, "value")
            if source.kind == "text":
                raise self._error("is text", *here, "value", remedy="use `text`")
            variable = self._variable(scope, step.name)
            kind: Kind = "number"
            out = source.text
            if source.kind == "float" or (source.kind == "int" and source.bits < 64):
                kind = source.kind
            elif source.kind == "bool":
                out, kind = f"int({out})", "int"
            else:
                out = f"number({out})"
            if source.safe:
                self._writer.line(f"{variable} = {out}")
            else:
                kind = "number" if kind == "int" else kind
                self._writer.attempt(variable, out, f"{variable} = NAN")
            found = Variable(variable, kind, source.bits)
            if step.map:
                found = self._mapped(step, found, here)
            self._put(scope, step.name, found, here)

        self._later(write, here, "name")

    def _later(self, write: After, here: Path, key: str) -> None:
        """Write something as soon as the elements before it are read."""

        def guarded() -> None:
            try:
                write()
            except ValueError as why:
                raise self._error(str(why), *here, key) from why

        self._run.then(guarded)

    def _do_text(self, step: Step, scope: Scope, here: Path) -> None:
        self._no_name(step, here)

        def write() -> None:
            parts, safe = self._template(step.text, scope, (*here, "text"), plain=False)
            variable = self._variable(scope, step.name)
            source = " + ".join(parts)
            if safe:
                self._writer.line(f"{variable} = {source}")
            else:
                self._writer.attempt(variable, source, f"{variable} = NAN")
            self._put(scope, step.name, Variable(variable, "text" if safe else "mixed"), here, mixed=not safe)

        self._later(write, here, "name")

    def _no_name(self, step: Step, here: Path) -> None:
        if not step.name:
            raise self._error("a value without a name", *here, remedy="give `name`")

    # ── bytes that mean nothing, check values ────────────────────────────────────────────────────────

    def _do_skip(self, step: Step, scope: Scope, here: Path) -> None:
        self._aligned(here)
        if isinstance(step.skip, int):
            if step.skip < 1:
                raise ValueError("must be 1 or more")
            self._run.add(Item("", None, step.skip, little=False, turned=False, name="what is skipped"))
            return
        self._stop(here)
        start = self._cursor.source
        size = self._count("z", step.skip or 0, f"{self._end} - ({start})", scope, *here, "skip")
        self._writer.line(f"at = {start} + {size}")
        self._cursor = Cursor(moving=True, bytes=0)

    def _do_align(self, step: Step, scope: Scope, here: Path) -> None:  # noqa: ARG002 # one form for all steps
        if self._run.open_bits:
            width = 8 - self._run.open_bits
            little = self._run.little
            self._run.add_bits(
                Item("", Type(f"u{width}", "u", width), 0, little, turned=False, name="the rest of a byte")
            )
            self._flush()

    def _do_crc(self, step: Step, scope: Scope, here: Path) -> None:
        try:
            found = check(step.crc)
        except ValueError as why:
            raise self._error(f"no check value '{step.crc}'", *here, "crc", remedy=str(why)) from why
        self._stop(here)
        type_ = Type(f"u{found.size * 8}", "u", found.size * 8)
        start, stop = self._over(step, scope, here)
        variable = self._variable(scope, step.name)
        self._run.add(Item(variable, type_, found.size, self._little(step), turned=False, name=f"the {step.crc}"))
        self._flush()
        function = self._writer.fresh("F")
        self._writer.namespace[function] = found.of
        with self._writer.block(f"if {function}(b[{start}:{stop}]) != {variable}:"):
            self._writer.line(f"raise malformed({f'{step.crc} is wrong'!r})")
        self._put(scope, step.name, Variable(variable, "int", type_.bits), here)

    def _over(self, step: Step, scope: Scope, here: Path) -> tuple[str, str]:
        """Return (from, to) of the bytes that a check value is of."""
        if not step.over:
            return "0", self._cursor.source
        if len(step.over) != 2:
            raise self._error("from and to", *here, "over", remedy="e.g. [0, -2], as in a slice of the frame")
        bounds = [self._assign("x", bound, scope, *here, "over")[0] for bound in step.over]
        with self._writer.block(f"if {bounds[0]}.__class__ is not int or {bounds[1]}.__class__ is not int:"):
            self._writer.line("raise malformed('over is no range of bytes')")
        return bounds[0], bounds[1]

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _branch(self, scope: Scope) -> Iterator[None]:
        """Write steps that are there or not: what they read is not certain afterwards."""
        variables, held = dict(scope.variables), dict(scope.held)
        yield
        self._output.settle()
        self._settle()
        scope.variables = variables
        scope.held = {name: held.get(name, False) for name in scope.held}

    def _fork(self, here: Path) -> None:
        """Write all that waits: a branch comes."""
        self._stop(here)
        self._output.settle()
        self._settle()

    def _do_read(self, step: Step, scope: Scope, here: Path) -> None:
        self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _inner(self, step: Step, scope: Scope, here: Path) -> Scope:
        """Return where steps inside put their values: into an object of their own where the step has a name."""
        if not step.name:
            return scope
        self._stop(here)
        name = self._name(step.name, scope, here)
        if name is None:
            raise self._error("an object has a name without _", *here, "name")
        return self._output.inside(scope, name)

    def _do_append(self, step: Step, scope: Scope, here: Path) -> None:
        self._stop(here)
        name = self._name(step.append, scope, here)
        if name is None or not name.plain:
            raise ValueError("a list has a plain name without _")
        self._output.branch("0")
        self._block(step.read, self._output.appended(scope, name), (*here, "read"))

    def _do_when(self, step: Step, scope: Scope, here: Path) -> None:
        self._fork(here)
        text = step.when if step.when is not None else 0
        condition, source = self._assign("c", text, scope, *here, "when")
        if source.kind == "text":
            raise ValueError("is text, no condition")
        if source.kind != "bool":
            self._writer.line(f"{condition} = {condition} != 0")
        self._output.branch(condition)
        with self._writer.block(f"if {condition}:"), self._branch(scope):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _do_within(self, step: Step, scope: Scope, here: Path) -> None:
        self._fork(here)
        size = self._count("e", step.within or 0, f"{self._end} - at", scope, *here, "within")
        self._writer.line(f"{size} += at")
        with self._limit(size):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))
            self._up_to(size, step)

    @contextmanager
    def _limit(self, end: str) -> Iterator[None]:
        outer, self._end = self._end, end
        yield
        self._end = outer

    def _up_to(self, end: str, step: Step) -> None:
        """End at the end of what was announced."""
        if step.rest == "refuse":
            place = self._cursor.source
            with self._writer.block(f"if {place} != {end}:"):
                self._writer.line(f"raise left_over({place}, {end})")
        self._writer.line(f"at = {end}")
        self._cursor = Cursor(moving=True, bytes=0)

    def _do_switch(self, step: Step, scope: Scope, here: Path) -> None:
        self._fork(here)
        text = step.switch if step.switch is not None else 0
        value, source = self._assign("x", text, scope, *here, "switch")
        if step.default == "stop":
            raise self._error("has no meaning beside `switch`", *here, "default", remedy="refuse, skip or steps")
        what = f"{step.switch} is not described"
        self._cases(step, value, scope, here, text=source.kind == "text", refuse=what)

    def _cases(
        self,
        step: Step,
        value: str,
        scope: Scope,
        here: Path,
        *,
        refuse: str,
        skip: str = "pass",
        text: bool = False,
        narrow: bool = False,
    ) -> None:
        """Write one block for each case; names that all of them read are certain afterwards.

        `skip` is the statement for a value without case, where that is let through; `narrow`: the value is a byte.
        """
        if not step.cases:
            raise self._error("no case", *here, "cases")
        table: dict[int | str, int] = {}
        for number, key in enumerate(step.cases):
            for code in [str(key)] if text else self._keys(key, *here, "cases", str(key)):
                if code in table:
                    raise self._error("stands there twice", *here, "cases", str(key))
                table[code] = number
        case, none = self._writer.fresh("j"), "< 0"
        if narrow and len(step.cases) < _NONE:
            row = self._writer.constant("d", bytes(table.get(code, _NONE) for code in range(256)))
            self._writer.line(f"{case} = {row}[{value}]")
            none = f"== {_NONE}"
        else:
            self._writer.line(f"{case} = {self._writer.constant('d', table)}.get({value}, -1)")
        self._output.branch(case)
        start = self._cursor
        known = dict(scope.variables)
        ends: list[dict[str, Variable]] = []
        held = dict(scope.held)
        helds: list[dict[str, bool]] = []

        def block(steps: Sequence[Step], path: Path) -> None:
            self._cursor = start
            scope.variables, scope.held = dict(known), dict(held)
            self._block(steps, scope, path)
            self._output.settle()
            self._settle()
            ends.append(scope.variables)
            helds.append(scope.held)

        bodies = [(steps, (*here, "cases", str(key))) for key, steps in step.cases.items()]
        with self._writer.block(f"if {case} {none}:"):
            if isinstance(step.default, tuple):
                block(step.default, (*here, "default"))
            elif step.default == "refuse":
                shown = repr(refuse) if text else f"{f'{refuse}: '!r} + str({value})"
                self._writer.line(f"raise strange({shown})")
            else:
                self._writer.line(skip)
                ends.append(dict(known))
                helds.append(dict(held))
        with self._writer.block("else:"):
            self._halve(case, 0, len(bodies), bodies, block)
        scope.variables = _common(ends)
        names = {name for one in helds for name in one}
        scope.held = {name: all(one.get(name, False) for one in helds) for name in names}
        self._cursor = Cursor(moving=True, bytes=0)

    def _halve(self, case: str, low: int, high: int, bodies: Sequence[tuple[Sequence[Step], Path]], block: Any) -> None:
        """Write the choice between cases: few one after the other, many by halving."""
        if high - low > _BRANCHES_MAX:
            middle = (low + high) // 2
            with self._writer.block(f"if {case} < {middle}:"):
                self._halve(case, low, middle, bodies, block)
            with self._writer.block("else:"):
                self._halve(case, middle, high, bodies, block)
            return
        for at in range(low, high):
            head = "else:" if at == high - 1 and high - low > 1 else f"{'if' if at == low else 'elif'} {case} == {at}:"
            with self._writer.block("if 1:" if high - low == 1 else head):
                block(*bodies[at])

    # ── repeats ──────────────────────────────────────────────────────────────────────────────────────

    def _do_repeat(self, step: Step, scope: Scope, here: Path) -> None:
        self._fork(here)
        if step.repeat != "end" and step.leave:
            raise self._error("goes with `repeat: end`", *here, "leave")
        self._twice(step)
        width = self._bit_width(step.read, here)
        end = self._before(step, scope, here)
        name = self._name(step.name, scope, here) if step.name else None
        if step.name and (name is None or not name.plain):
            raise self._error("a list has a plain name without _", *here, "name")
        items = self._output.items(scope, name) if name else ""
        index = self._writer.fresh("i")
        if width:
            self._bit_repeat(step, width, end, index, scope, (name, items), here)
            return
        if step.repeat == "end":
            self._writer.line(f"{index} = -1")
            head = f"while at < {end}:"
        else:
            count = self._count("r", step.repeat or 0, str(ELEMENTS_MAX), scope, *here, "repeat")
            self._output.branch(count)
            self._budget(count)
            head = f"for {index} in range({count}):"
        with (
            self._writer.block(head),
            self._limit(end),
            self._pass(scope, index, loop=not name, last=step.twice == "last"),
        ):
            if step.repeat == "end":
                self._writer.line(f"{index} += 1")
                self._output.branch("1")
                self._budget("1")
            inner = self._output.item(scope, items, name, index) if name else scope
            self._block(step.read, inner, (*here, "read"))
        if step.repeat == "end":
            self._output.branch("0")

    def _twice(self, step: Step) -> None:
        if step.twice == "last":
            self.flat = False

    def _before(self, step: Step, scope: Scope, here: Path) -> str:
        """Return the end up to which steps may read."""
        if not step.leave:
            return self._end
        left = self._count("y", step.leave, f"{self._end} - at", scope, *here, "leave")
        self._writer.line(f"{left} = {self._end} - {left}")
        return left

    def _budget(self, passes: str) -> None:
        self._writer.line(f"k += {passes}")
        with self._writer.block("if k > ELEMENTS_MAX:"):
            self._writer.line("raise strange('too many elements')")

    @contextmanager
    def _pass(self, scope: Scope, index: str, *, loop: bool, last: bool) -> Iterator[None]:
        """Write the steps of one pass of a repeat."""
        outer, self._index = self._index, index
        before = scope.last
        scope.loops += loop
        scope.last = last if loop else before
        with self._branch(scope):
            yield
        scope.loops -= loop
        scope.last = before
        self._index = outer

    def _bit_width(self, steps: Sequence[Step], here: Path) -> int:
        """Return the bits of a pass that ends within a byte, 0 for one of whole bytes."""
        bits = 0
        for at, step in enumerate(steps):
            kind = self._kind(step, (*here, "read", at))
            if kind == "type":
                try:
                    bits += type_of(step.type).bits
                except ValueError:
                    return 0  # told where the step is written
            if kind not in {"type", "value", "text"} or step.at is not None or "{" in step.name:
                return 0
        return bits if bits % 8 else 0

    def _bit_repeat(  # noqa: PLR0917
        self, step: Step, width: int, end: str, index: str, scope: Scope, kept: tuple[Name | None, str], here: Path
    ) -> None:
        """Write a repeat of fields that are no whole bytes together; the last byte is used up."""
        name, items = kept
        if step.repeat == "end":
            count = self._writer.fresh("r")
            self._writer.line(f"{count} = ({end} - at) * 8 // {width}")
            self._writer.line(f"at_end = {end}")
        else:
            count = self._count("r", step.repeat or 0, str(ELEMENTS_MAX), scope, *here, "repeat")
            self._writer.line(f"at_end = at + ({count} * {width} + 7) // 8")
            with self._writer.block(f"if at_end > {end}:"):
                self._writer.line(f"raise cut(at, {end}, (('the repeat', at_end - at),))")
        self._budget(count)
        self._output.branch(count)
        orders = {self._little(one) for one in step.read if one.type}
        if len(orders) > 1:
            raise self._error("elements that share bytes have one order of bits", *here, "read")
        little = orders.pop()
        with (
            self._writer.block(f"for {index} in range({count}):"),
            self._pass(scope, index, loop=not name, last=step.twice == "last"),
        ):
            inner = self._output.item(scope, items, name, index) if name else scope
            first, mask = self._writer.fresh("f"), (1 << width) - 1
            self._writer.line(f"{first} = {index} * {width}")
            data = f"b[at + ({first} >> 3):at + (({first} + {width + 7}) >> 3)]"
            shift = f"({first} & 7)" if little else f"(-({first} + {width}) & 7)"
            source = f"from_bytes({data}, {'little' if little else 'big'!r}) >> {shift} & {mask}"
            self._bitwise = True
            for at, one in enumerate(step.read):
                self._step(one, inner, (*here, "read", at))
            after = self._run.flush_bits(source)
            self._waiting.clear()
            for write in after:
                write()
            self._bitwise = False
        self._writer.line("at = at_end")

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────

    def _do_tlv(self, step: Step, scope: Scope, here: Path) -> None:
        self._fork(here)
        self._twice(step)
        tag_type, length_type = self._tag_type(step.tlv, here, "tlv"), None
        if step.length:
            length_type = self._tag_type(step.length, here, "length")
        elif step.default == "skip":
            raise self._error(
                "without `length` nobody knows how long", *here, "default", remedy="refuse, stop or steps"
            )
        if step.rest == "allow" and not step.length:
            raise self._error("goes with `length`", *here, "rest")
        end = self._before(step, scope, here)
        index, tag, length = self._writer.fresh("i"), self._writer.fresh("g"), self._writer.fresh("z")
        counted = "$index" in repr(step.cases)
        if counted:
            self._writer.line(f"{index} = -1")
        with self._writer.block(f"if {end} - at > TAGS_BYTES_MAX:"):  # each pass uses up a byte at least
            self._writer.line("raise strange('too many elements')")
        outer_tag, self._tag = self._tag, tag
        with (
            self._writer.block(f"while at < {end}:"),
            self._limit(end),
            self._pass(scope, index, loop=True, last=step.twice == "last"),
        ):
            if counted:
                self._writer.line(f"{index} += 1")
            little = self._little(step)
            narrow = tag_type.bits == 8 and length_type is None
            if narrow:
                self._writer.line(f"{tag} = b[at]")
                self._cursor = Cursor(moving=True, bytes=1)
            else:
                self._run.add(Item(tag, tag_type, tag_type.bits // 8, little, turned=False, name="the tag"))
            if length_type:
                self._run.add(
                    Item(length, length_type, length_type.bits // 8, little, turned=False, name="the length of a tag")
                )
            self._flush()
            value_end = end
            if length_type:
                self._settle()
                value_end = self._writer.fresh("e")
                self._writer.line(f"{value_end} = at + {length}")
                with self._writer.block(f"if {value_end} > {end}:"):
                    self._writer.line(f"raise cut(at, {end}, (('the value of a tag', {length}),))")
            skip = f"at = {value_end}" if step.default == "skip" else f"at = {end}; break"
            what = f"{step.tlv} tag is not described"
            with self._limit(value_end):
                self._cases(step, tag, scope, here, refuse=what, skip=skip, narrow=narrow)
                if length_type:
                    self._up_to(value_end, step)
        self._tag = outer_tag
        self._output.branch("-2")
        self._cursor = Cursor(moving=True, bytes=0)

    def _tag_type(self, text: str, here: Path, key: str) -> Type:
        type_ = self._type(text, *here, key)
        if type_.family != "u" or type_.bits % 8:
            raise self._error("must be u8, u16, u24 or u32", *here, key)
        return type_


def _common(ends: Sequence[dict[str, Variable]]) -> dict[str, Variable]:
    """Return what is certain to have been read whichever of some ways was taken."""
    found: dict[str, Variable] = {}
    for name, first in ends[0].items():
        others = [other[name] for other in ends if name in other]
        if len(others) == len(ends) and all((one.text, one.kind) == (first.text, first.kind) for one in others):
            found[name] = Variable(first.text, first.kind, max(one.bits for one in others))
    return found
