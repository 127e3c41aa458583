"""Steps that read or compute one value, check one, or pass bytes over."""

from __future__ import annotations

from typing import Any

from sensegate.decode.crc import checksum
from sensegate.decode.layout.context import Context, Path
from sensegate.decode.layout.expressions import Kind, Variable
from sensegate.decode.layout.output import Scope
from sensegate.decode.layout.run import Item, NextByte, variable_of
from sensegate.decode.layout.steps import Number, Step
from sensegate.decode.layout.types import Type, bits_of

_BYTES_MAX = 1 << 20
"""Bytes; no message is so long."""


class Elements(Context):
    """Elements, computed values, check values."""

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
        if self._run.open_bits or self._bitwise:
            return
        if self._run.in_bits:
            self._flush()
        elif step.equals is not None:
            self._checked()

    def _flush_before(self, variable: str) -> None:
        self._flush()
        if variable:
            self._waiting.add(variable)

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
            except ValueError as error:
                raise self._error(str(error), *here, "bits", name) from error
            field = self._variable(scope, name)
            self._run.field(field, variable, bits)
            try:
                self._put(scope, name, Variable(field, "int", bits.width), (*here, "bits"))
            except ValueError as error:
                raise self._error(str(error), *here, "bits", name) from error

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
        if isinstance(step.size, int) and not 1 <= step.size <= _BYTES_MAX:
            raise self._error(f"must be from 1 to {_BYTES_MAX}", *here, "size")
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
        if not size:
            self._flush()
        elif step.equals is not None:
            self._checked()

    def _stretch(self, step: Step, item: Item, scope: Scope, here: Path) -> None:
        """Read an element whose size is known when the frame is there."""
        start = self._next_byte.source
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
        self._next_byte = NextByte(moving=True, bytes=0)

    # ── computed ─────────────────────────────────────────────────────────────────────────────────────

    def _do_value(self, step: Step, scope: Scope, here: Path) -> None:
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
            found = Variable(variable, kind, source.bits)
            if step.map:
                found = self._mapped(step, found, here)
            self._put(scope, step.name, found, here)

        self._later(write, here, "name")

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
            if not 1 <= step.skip <= _BYTES_MAX:
                raise ValueError(f"must be from 1 to {_BYTES_MAX}")
            self._run.add(Item("", None, step.skip, little=False, turned=False, name="what is skipped"))
            return
        self._stop(here)
        start = self._next_byte.source
        size = self._count("z", step.skip or 0, f"{self._end} - ({start})", scope, *here, "skip")
        self._writer.line(f"at = {start} + {size}")
        self._next_byte = NextByte(moving=True, bytes=0)

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
            found = checksum(step.crc)
        except ValueError as error:
            raise self._error(f"no check value '{step.crc}'", *here, "crc", remedy=str(error)) from error
        self._stop(here)
        type_ = Type(f"u{found.size * 8}", "u", found.size * 8)
        start, stop = self._over(step, scope, here)
        variable = self._variable(scope, step.name)
        self._run.add(Item(variable, type_, found.size, self._little(step), turned=False, name=f"the {step.crc}"))
        self._flush()
        function = self._writer.fresh("F")
        self._writer.namespace[function] = found.compute
        with self._writer.block(f"if {function}(b[{start}:{stop}]) != {variable}:"):
            self._writer.line(f"raise malformed({f'{step.crc} is wrong'!r})")
        self._put(scope, step.name, Variable(variable, "int", type_.bits), here)

    def _over(self, step: Step, scope: Scope, here: Path) -> tuple[str, str]:
        """Return (from, to) of the bytes that a check value is of."""
        if not step.over:
            return "0", self._next_byte.source
        if len(step.over) != 2:
            raise self._error("from and to", *here, "over", remedy="e.g. [0, -2], as in a slice of the frame")
        bounds = [self._assign("x", bound, scope, *here, "over")[0] for bound in step.over]
        with self._writer.block(f"if {bounds[0]}.__class__ is not int or {bounds[1]}.__class__ is not int:"):
            self._writer.line("raise malformed('over is no range of bytes')")
        return bounds[0], bounds[1]
