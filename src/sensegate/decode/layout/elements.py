"""Steps that read, compute or check one value, or skip bytes."""

from __future__ import annotations

from typing import Any

from sensegate.decode.crc import checksum
from sensegate.decode.layout.context import Context, Path
from sensegate.decode.layout.expressions import Kind, Variable
from sensegate.decode.layout.output import ObjectScope
from sensegate.decode.layout.run import NextByte, RunItem, variable_of
from sensegate.decode.layout.steps import Number, Step
from sensegate.decode.layout.types import Type, bits_of

_BYTES_MAX = 1 << 20
"""Largest size of an element; no message is longer."""


class Elements(Context):
    """Elements, computed values, checksums."""

    # ── elements ─────────────────────────────────────────────────────────────────────────────────────

    def _do_type(self, step: Step, scope: ObjectScope, here: Path) -> None:
        type_ = self._type(step.type, *here, "type")
        if type_.family == "text":
            self._text_element(step, type_, scope, here)
            return
        if step.size is not None or step.until is not None:
            raise self._error("is allowed with text types only", *here, "size" if step.size is not None else "until")
        little = self._little(step)
        needed = bool(step.name or step.bits or step.equals is not None)
        item = RunItem(
            self._variable(scope, step.name) if needed else "",
            type_,
            type_.bits // 8,
            little,
            little and type_.family == "bcd",
            f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}",
        )
        if step.at is not None:
            self._element_at(step, item, scope, here)
        elif type_.bits % 8 or self._run.in_bits or self._bitwise:
            if type_.family == "f":
                raise ValueError("must not start within a byte")
            if not self._run.in_bits and not self._bitwise:
                self._flush_before(item.variable)
            self._run.add_bits(item)
        else:
            self._run.add(item)
        self._defer(lambda: self._number_read(step, type_, item.variable, scope, here), here, "name")
        if self._run.open_bits or self._bitwise:
            return
        if self._run.in_bits:
            self._flush()
        elif step.equals is not None:
            self._flush_after_check()

    def _flush_before(self, variable: str) -> None:
        self._flush()
        if variable:
            self._waiting.add(variable)

    def _number_read(self, step: Step, type_: Type, variable: str, scope: ObjectScope, here: Path) -> None:
        if not variable:
            return
        if step.bits and not type_.unsigned:
            raise self._error("only an unsigned integer can have `bits`", *here, "bits")
        read = variable_of(variable, type_)
        if step.equals is not None:
            self._equals(step, read, scope, here)
        if step.map:
            read = self._mapped(step, read, here)
        self._put(scope, step.name, read, here, mixed=read.kind == "mixed")
        for name, text in step.bits.items():
            try:
                bits = bits_of(text, type_.bits)
            except ValueError as error:
                raise self._error(str(error), *here, "bits", name) from error
            field = self._variable(scope, name)
            self._run.field(field, variable, bits)
            try:
                self._put(scope, name, Variable(field, "int", bits.width), (*here, "bits"))
            except ValueError as error:
                raise self._error(str(error), *here, "bits", name) from error

    def _mapped(self, step: Step, read: Variable, here: Path) -> Variable:
        table: dict[Any, float] = {}
        for key, value in step.map.items():
            for code in [key] if read.kind == "text" else self._keys(key, *here, "map", str(key)):
                if code in table:
                    raise self._error("the value occurs twice", *here, "map", str(key))
                table[code] = value
        name = self._writer.constant("m", table)
        self._writer.line(f"{read.text} = {name}.get({read.text}, NAN)")
        return Variable(read.text, "float")

    def _equals(self, step: Step, read: Variable, scope: ObjectScope, here: Path) -> None:
        accepted = step.equals if isinstance(step.equals, tuple) else (step.equals,)
        sources: list[str] = []
        for value in accepted:
            if read.kind == "text":
                sources.append(repr(str(value)))
                continue
            source = self._source(value if isinstance(value, (int, float, str)) else 0, scope, *here, "equals")
            if source.kind == "text" or not (source.safe or len(accepted) == 1):
                raise self._error(f"{value!r} is not a number", *here, "equals")
            sources.append(source.text)
            if not source.safe:
                computed = self._writer.fresh("q")
                self._writer.attempt(
                    computed, source.text, f"raise malformed({f'{value} cannot be computed'!r}) from None"
                )
                sources = [computed]
        refuse = "unsupported" if step.reason == "schema" else "malformed"
        title = f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}"
        words = " or ".join(map(str, accepted))
        message = repr(f"{title} is not {words}")
        if read.kind != "text":
            message = f"{f'{title} is '!r} + str({read.text}) + {f', not {words}'!r}"
        test = f"{read.text} != {sources[0]}" if len(sources) == 1 else f"{read.text} not in ({', '.join(sources)})"
        with self._writer.block(f"if {test}:"):
            self._writer.line(f"raise {refuse}({message})")

    def _element_at(self, step: Step, item: RunItem, scope: ObjectScope, here: Path) -> None:
        """Read an element at an explicit position."""
        if item.type is None or (item.type.bits % 8):
            raise ValueError("an element with `at` must be whole bytes; give its container and `bits`")
        self._flush_run(here)
        position = self._absolute(step.at or 0, item.size, item.name, scope, here)
        if item.variable:
            self._run.emit_element(item, position, f"{position} + {item.size}")

    def _absolute(self, at: Number, size: int, name: str, scope: ObjectScope, here: Path) -> str:
        """Return the variable of a position in the frame at which so many bytes are available."""
        position, _ = self._assign("a", at, scope, *here, "at")
        with self._writer.block(f"if {position} < 0:"):
            self._writer.line(f"{position} += n")
        with self._writer.block(f"if {position}.__class__ is not int or not 0 <= {position} <= n - {size}:"):
            self._writer.line(f"raise malformed({f'{name} is outside of the frame'!r})")
        return position

    def _text_element(self, step: Step, type_: Type, scope: ObjectScope, here: Path) -> None:
        turned = step.endian == "little" and type_.name in {"hex", "digits"}
        needed = bool(step.name) or step.equals is not None
        title = f"'{step.name}'" if step.name else f"the {step.type} of step {here[-1]}"
        variable = self._variable(scope, step.name) if needed else ""
        if (step.size is None) == (step.until is None):
            raise self._error("the size is missing", *here, remedy="give `size` (bytes, or rest) or `until`")
        if step.bits:
            raise self._error("only an unsigned integer can have `bits`", *here, "bits")
        if type_.name == "bytes" and (step.equals is not None or step.map):
            raise self._error("cannot be compared", *here, "type", remedy="use `hex`: equals: 'a55a'")
        if isinstance(step.size, int) and not 1 <= step.size <= _BYTES_MAX:
            raise self._error(f"must be from 1 to {_BYTES_MAX}", *here, "size")
        size = step.size if isinstance(step.size, int) else 0
        item = RunItem(variable, type_, size, little=False, turned=turned, name=title)
        if step.at is not None:
            if not size:
                raise self._error("an element with `at` needs a constant size", *here, "size")
            self._flush_run(here)
            position = self._absolute(step.at, size, title, scope, here)
            if variable:
                self._run.convert(item, f"b[{position}:{position} + {size}]")
        elif size:
            self._aligned(here)
            self._run.add(item)
        else:
            self._flush_run(here)
            self._variable_element(step, item, scope, here)

        def read() -> None:
            if variable:
                read_value = variable_of(variable, type_)
                if step.equals is not None:
                    self._equals(step, read_value, scope, here)
                if step.map:
                    read_value = self._mapped(step, read_value, here)
                self._put(scope, step.name, read_value, here, tree_only=type_.name == "bytes")

        self._defer(read, here, "name")
        if not size:
            self._flush()
        elif step.equals is not None:
            self._flush_after_check()

    def _variable_element(self, step: Step, item: RunItem, scope: ObjectScope, here: Path) -> None:
        """Read an element whose size is known at run time only."""
        start = self._next_byte.source
        if step.until is not None:
            if not 0 <= step.until <= 255:
                raise self._error("a byte must be 0 to 255", *here, "until")
            stop = self._writer.fresh("z")
            terminator = self._writer.constant("b", bytes([step.until]))
            self._writer.line(f"{stop} = b.find({terminator}, {start}, {self._end})")
            with self._writer.block(f"if {stop} < 0:"):
                self._writer.line(f"raise malformed({f'{item.name} is not terminated'!r})")
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
        self._next_byte = NextByte(moving=True, bytes=0)

    # ── computed values ──────────────────────────────────────────────────────────────────────────────

    def _do_value(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._no_name(step, here)
        text = step.value if step.value is not None else 0

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
            computed = Variable(variable, kind, source.bits)
            if step.map:
                computed = self._mapped(step, computed, here)
            self._put(scope, step.name, computed, here)

        self._defer(write, here, "name")

    def _do_text(self, step: Step, scope: ObjectScope, here: Path) -> None:
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

        self._defer(write, here, "name")

    def _no_name(self, step: Step, here: Path) -> None:
        if not step.name:
            raise self._error("the value has no name", *here, remedy="give `name`")

    # ── skipped bytes, checksums ─────────────────────────────────────────────────────────────────────

    def _do_skip(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._aligned(here)
        if isinstance(step.skip, int):
            if not 1 <= step.skip <= _BYTES_MAX:
                raise ValueError(f"must be from 1 to {_BYTES_MAX}")
            self._run.add(RunItem("", None, step.skip, little=False, turned=False, name="the skipped bytes"))
            return
        self._flush_run(here)
        start = self._next_byte.source
        size = self._count("z", step.skip or 0, f"{self._end} - ({start})", scope, *here, "skip")
        self._writer.line(f"at = {start} + {size}")
        self._next_byte = NextByte(moving=True, bytes=0)

    def _do_align(self, step: Step, scope: ObjectScope, here: Path) -> None:  # noqa: ARG002 # same signature for all steps
        if self._run.open_bits:
            width = 8 - self._run.open_bits
            little = self._run.little
            self._run.add_bits(
                RunItem("", Type(f"u{width}", "u", width), 0, little, turned=False, name="the rest of a byte")
            )
            self._flush()

    def _do_crc(self, step: Step, scope: ObjectScope, here: Path) -> None:
        try:
            algorithm = checksum(step.crc)
        except ValueError as error:
            raise self._error(f"there is no checksum '{step.crc}'", *here, "crc", remedy=str(error)) from error
        self._flush_run(here)
        type_ = Type(f"u{algorithm.size * 8}", "u", algorithm.size * 8)
        start, stop = self._crc_range(step, scope, here)
        variable = self._variable(scope, step.name)
        self._run.add(
            RunItem(variable, type_, algorithm.size, self._little(step), turned=False, name=f"the {step.crc}")
        )
        self._flush()
        function = self._writer.fresh("F")
        self._writer.namespace[function] = algorithm.compute
        with self._writer.block(f"if {function}(b[{start}:{stop}]) != {variable}:"):
            self._writer.line(f"raise malformed({f'{step.crc} does not match'!r})")
        self._put(scope, step.name, Variable(variable, "int", type_.bits), here)

    def _crc_range(self, step: Step, scope: ObjectScope, here: Path) -> tuple[str, str]:
        """Return the bounds of the bytes that a checksum covers."""
        if not step.over:
            return "0", self._next_byte.source
        if len(step.over) != 2:
            raise self._error("must be two bounds", *here, "over", remedy="e.g. [0, -2], as in a slice of the frame")
        bounds = [self._assign("x", bound, scope, *here, "over")[0] for bound in step.over]
        with self._writer.block(f"if {bounds[0]}.__class__ is not int or {bounds[1]}.__class__ is not int:"):
            self._writer.line("raise malformed('over is not a range of bytes')")
        return bounds[0], bounds[1]
