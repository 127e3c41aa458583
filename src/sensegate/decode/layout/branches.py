"""Steps that say which other steps are there, and how often.

Branches and repeats begin and end with the place of the next byte in the variable `at`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sensegate.decode.layout.context import Path
from sensegate.decode.layout.elements import Elements
from sensegate.decode.layout.expressions import Variable
from sensegate.decode.layout.output import Name, Scope
from sensegate.decode.layout.run import Item, NextByte
from sensegate.decode.layout.runtime import ELEMENTS_MAX
from sensegate.decode.layout.steps import Step
from sensegate.decode.layout.types import Type, type_of

HALVED_FROM = 4
"""More cases than these are found by halving."""
NONE = 255
"""In a table of bytes: no case."""

Write = Callable[[Sequence[Step], Path], None]


class Branches(Elements):
    """Objects, conditions, choices, repeats, tags."""

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
            place = self._next_byte.source
            with self._writer.block(f"if {place} != {end}:"):
                self._writer.line(f"raise left_over({place}, {end})")
        self._writer.line(f"at = {end}")
        self._next_byte = NextByte(moving=True, bytes=0)

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
        table = self._table(step, here, text=text)
        case, none = self._writer.fresh("j"), "< 0"
        if narrow and len(step.cases) < NONE:
            row = self._writer.constant("d", bytes(table.get(code, NONE) for code in range(256)))
            self._writer.line(f"{case} = {row}[{value}]")
            none = f"== {NONE}"
        else:
            self._writer.line(f"{case} = {self._writer.constant('d', table)}.get({value}, -1)")
        self._output.branch(case)
        start = self._next_byte
        known = dict(scope.variables)
        ends: list[dict[str, Variable]] = []
        held = dict(scope.held)
        helds: list[dict[str, bool]] = []

        def block(steps: Sequence[Step], path: Path) -> None:
            self._next_byte = start
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
        self._next_byte = NextByte(moving=True, bytes=0)

    def _table(self, step: Step, here: Path, *, text: bool) -> dict[int | str, int]:
        """Return value -> number of its case."""
        if not step.cases:
            raise self._error("no case", *here, "cases")
        table: dict[int | str, int] = {}
        for number, key in enumerate(step.cases):
            for code in [str(key)] if text else self._keys(key, *here, "cases", str(key)):
                if code in table:
                    raise self._error("stands there twice", *here, "cases", str(key))
                table[code] = number
        return table

    def _halve(
        self, case: str, low: int, high: int, bodies: Sequence[tuple[Sequence[Step], Path]], block: Write
    ) -> None:
        """Write the choice between cases: few one after the other, many by halving."""
        if high - low > HALVED_FROM:
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
        for index, step in enumerate(steps):
            kind = self._kind(step, (*here, "read", index))
            if kind == "type":
                try:
                    bits += type_of(step.type).bits
                except ValueError:
                    return 0  # told where the step is written
            if kind not in {"type", "value", "text"} or step.at is not None or "{" in step.name:
                return 0
        return bits if bits % 8 else 0

    def _bit_order(self, step: Step, here: Path) -> bool:
        """Return whether the bits of a repeat are taken from the least significant one on."""
        orders = {self._little(one) for one in step.read if one.type}
        if len(orders) > 1:
            raise self._error("elements that share bytes have one order of bits", *here, "read")
        return orders.pop()

    def _bit_pass(self, step: Step, scope: Scope, source: str, here: Path) -> None:
        """Write the fields of one pass, which stand in an integer."""
        self._bitwise = True
        for index, one in enumerate(step.read):
            self._step(one, scope, (*here, "read", index))
        after = self._run.flush_bits(source)
        self._waiting.clear()
        for write in after:
            write()
        self._bitwise = False

    def _bit_repeat(  # noqa: PLR0917
        self, step: Step, width: int, end: str, index: str, scope: Scope, kept: tuple[Name | None, str], here: Path
    ) -> None:
        """Write a repeat of fields that are no whole bytes together; the last byte is used up."""
        name, items = kept
        if step.repeat == "end":
            count = self._writer.fresh("r")
            self._writer.line(f"{count} = ({end} - at) * 8 // {width}")
        else:
            count = self._count("r", step.repeat or 0, str(ELEMENTS_MAX), scope, *here, "repeat")
        self._writer.line(f"at_end = at + ({count} * {width} + 7) // 8")
        with self._writer.block(f"if at_end > {end}:"):
            self._writer.line(f"raise cut(at, {end}, (('the repeat', at_end - at),))")
        self._budget(count)
        self._output.branch(count)
        little = self._bit_order(step, here)
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
            self._bit_pass(step, inner, source, here)
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
                self._next_byte = NextByte(moving=True, bytes=1)
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
        self._next_byte = NextByte(moving=True, bytes=0)

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
