"""Steps that decide which other steps are present, and how often.

Before and after branches and repeats, the position of the next byte is in the variable `at`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sensegate.decode.layout.context import Path
from sensegate.decode.layout.elements import Elements
from sensegate.decode.layout.expressions import Variable
from sensegate.decode.layout.output import Name, ObjectScope
from sensegate.decode.layout.run import NextByte, RunItem
from sensegate.decode.layout.runtime import ELEMENTS_MAX
from sensegate.decode.layout.steps import Step
from sensegate.decode.layout.types import Type, type_of

HALVED_FROM = 4
"""Above this number of cases, they are found by binary search."""
NONE = 255
"""Stands for "no case" in a table of bytes."""

Write = Callable[[Sequence[Step], Path], None]


class _NoCase(NamedTuple):
    """Action for a value that has no case."""

    refusal: str
    """Message, if it is refused."""
    skip: str = "pass"
    """Statement, if it is accepted."""


class Branches(Elements):
    """Objects, conditions, switches, repeats, tags."""

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _branch(self, scope: ObjectScope) -> Iterator[None]:
        """Emit steps that may be absent: what they read is not certain afterwards."""
        variables, present = dict(scope.variables), dict(scope.present)
        yield
        self._output.flush_values()
        self._sync_position()
        scope.variables = variables
        scope.present = {name: present.get(name, False) for name in scope.present}

    def _start_branch(self, here: Path) -> None:
        """Emit all pending code before a branch."""
        self._flush_run(here)
        self._output.flush_values()
        self._sync_position()

    def _do_read(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _inner(self, step: Step, scope: ObjectScope, here: Path) -> ObjectScope:
        """Return the scope for the values of inner steps: an object of their own if the step has a name."""
        if not step.name:
            return scope
        self._flush_run(here)
        name = self._name(step.name, scope, here)
        if name is None:
            raise self._error("the name of an object must not start with _", *here, "name")
        return self._output.inside(scope, name)

    def _do_append(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._flush_run(here)
        name = self._name(step.append, scope, here)
        if name is None or not name.plain:
            raise ValueError("the name of a list must be plain text that does not start with _")
        self._output.branch("0")
        self._block(step.read, self._output.appended(scope, name), (*here, "read"))

    def _do_when(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._start_branch(here)
        text = step.when if step.when is not None else 0
        condition, source = self._assign("c", text, scope, *here, "when")
        if source.kind == "text":
            raise ValueError("is text, not a condition")
        if source.kind != "bool":
            self._writer.line(f"{condition} = {condition} != 0")
        self._output.branch(condition)
        with self._writer.block(f"if {condition}:"), self._branch(scope):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _do_within(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._start_branch(here)
        size = self._count("e", step.within or 0, f"{self._end} - at", scope, *here, "within")
        self._writer.line(f"{size} += at")
        with self._limit(size):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))
            self._end_limit(size, step)

    @contextmanager
    def _limit(self, end: str) -> Iterator[None]:
        outer, self._end = self._end, end
        yield
        self._end = outer

    def _end_limit(self, end: str, step: Step) -> None:
        """Continue at the end of the announced bytes."""
        if step.rest == "refuse":
            place = self._next_byte.source
            with self._writer.block(f"if {place} != {end}:"):
                self._writer.line(f"raise left_over({place}, {end})")
        self._writer.line(f"at = {end}")
        self._next_byte = NextByte(moving=True, bytes=0)

    def _do_switch(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._start_branch(here)
        text = step.switch if step.switch is not None else 0
        value, source = self._assign("x", text, scope, *here, "switch")
        if step.default == "stop":
            raise self._error("has no meaning beside `switch`", *here, "default", remedy="refuse, skip or steps")
        message = f"{step.switch} is not described"
        self._cases(step, value, scope, here, otherwise=_NoCase(message), text=source.kind == "text")

    def _cases(
        self,
        step: Step,
        value: str,
        scope: ObjectScope,
        here: Path,
        *,
        otherwise: _NoCase,
        text: bool = False,
        narrow: bool = False,
    ) -> None:
        """Emit one block for each case; names that all of them read are certain afterwards.

        `narrow`: the value is a byte.
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
        present = dict(scope.present)
        present_by_case: list[dict[str, bool]] = []

        def block(steps: Sequence[Step], path: Path) -> None:
            self._next_byte = start
            scope.variables, scope.present = dict(known), dict(present)
            self._block(steps, scope, path)
            self._output.flush_values()
            self._sync_position()
            ends.append(scope.variables)
            present_by_case.append(scope.present)

        bodies = [(steps, (*here, "cases", str(key))) for key, steps in step.cases.items()]
        with self._writer.block(f"if {case} {none}:"):
            if isinstance(step.default, tuple):
                block(step.default, (*here, "default"))
            elif step.default == "refuse":
                shown = repr(otherwise.refusal) if text else f"{f'{otherwise.refusal}: '!r} + str({value})"
                self._writer.line(f"raise unsupported({shown})")
            else:
                self._writer.line(otherwise.skip)
                ends.append(dict(known))
                present_by_case.append(dict(present))
        with self._writer.block("else:"):
            self._binary_search(case, 0, len(bodies), bodies, block)
        scope.variables = _common(ends)
        names = {name for case_present in present_by_case for name in case_present}
        scope.present = {name: all(case_present.get(name, False) for case_present in present_by_case) for name in names}
        self._next_byte = NextByte(moving=True, bytes=0)

    def _table(self, step: Step, here: Path, *, text: bool) -> dict[int | str, int]:
        """Return value -> number of its case."""
        if not step.cases:
            raise self._error("there is no case", *here, "cases")
        table: dict[int | str, int] = {}
        for number, key in enumerate(step.cases):
            for code in [str(key)] if text else self._keys(key, *here, "cases", str(key)):
                if code in table:
                    raise self._error("the value occurs twice", *here, "cases", str(key))
                table[code] = number
        return table

    def _binary_search(
        self, case: str, low: int, high: int, bodies: Sequence[tuple[Sequence[Step], Path]], block: Write
    ) -> None:
        """Emit the choice between cases: a few by comparison, many by binary search."""
        if high - low > HALVED_FROM:
            middle = (low + high) // 2
            with self._writer.block(f"if {case} < {middle}:"):
                self._binary_search(case, low, middle, bodies, block)
            with self._writer.block("else:"):
                self._binary_search(case, middle, high, bodies, block)
            return
        for index in range(low, high):
            head = (
                "else:"
                if index == high - 1 and high - low > 1
                else f"{'if' if index == low else 'elif'} {case} == {index}:"
            )
            with self._writer.block("if 1:" if high - low == 1 else head):
                block(*bodies[index])

    # ── repeats ──────────────────────────────────────────────────────────────────────────────────────

    def _do_repeat(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._start_branch(here)
        if step.repeat != "end" and step.leave:
            raise self._error("is allowed with `repeat: end` only", *here, "leave")
        self._check_replacement(step)
        width = self._bit_width(step.read, here)
        end = self._read_limit(step, scope, here)
        name = self._name(step.name, scope, here) if step.name else None
        if step.name and (name is None or not name.plain):
            raise self._error("the name of a list must be plain text that does not start with _", *here, "name")
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

    def _check_replacement(self, step: Step) -> None:
        if step.twice == "last":
            self.flat = False

    def _read_limit(self, step: Step, scope: ObjectScope, here: Path) -> str:
        """Return the end up to which steps may read."""
        if not step.leave:
            return self._end
        left = self._count("y", step.leave, f"{self._end} - at", scope, *here, "leave")
        self._writer.line(f"{left} = {self._end} - {left}")
        return left

    def _budget(self, passes: str) -> None:
        self._writer.line(f"k += {passes}")
        with self._writer.block("if k > ELEMENTS_MAX:"):
            self._writer.line("raise unsupported('too many elements')")

    @contextmanager
    def _pass(self, scope: ObjectScope, index: str, *, loop: bool, last: bool) -> Iterator[None]:
        """Emit the steps of one pass of a repeat."""
        outer, self._index = self._index, index
        before = scope.replace_duplicates
        scope.loops += loop
        scope.replace_duplicates = last if loop else before
        with self._branch(scope):
            yield
        scope.loops -= loop
        scope.replace_duplicates = before
        self._index = outer

    def _bit_width(self, steps: Sequence[Step], here: Path) -> int:
        """Return the bits of a pass if they are not whole bytes, else 0."""
        bits = 0
        for index, step in enumerate(steps):
            kind = self._kind(step, (*here, "read", index))
            if kind == "type":
                try:
                    bits += type_of(step.type).bits
                except ValueError:
                    return 0  # reported where the step is emitted
            if kind not in {"type", "value", "text"} or step.at is not None or "{" in step.name:
                return 0
        return bits if bits % 8 else 0

    def _bit_order(self, step: Step, here: Path) -> bool:
        """Return whether the bits of a repeat are read from the least significant one on."""
        orders = {self._little(inner_step) for inner_step in step.read if inner_step.type}
        if len(orders) > 1:
            raise self._error("elements that share bytes must have the same bit order", *here, "read")
        return orders.pop()

    def _bit_pass(self, step: Step, scope: ObjectScope, source: str, here: Path) -> None:
        """Emit the fields of one pass, which are in an integer."""
        self._bitwise = True
        for index, inner_step in enumerate(step.read):
            self._step(inner_step, scope, (*here, "read", index))
        after = self._run.flush_bits(source)
        self._waiting.clear()
        for write in after:
            write()
        self._bitwise = False

    def _bit_repeat(
        self,
        step: Step,
        width: int,
        end: str,
        index: str,
        scope: ObjectScope,
        target: tuple[Name | None, str],
        here: Path,
    ) -> None:
        """Emit a repeat of fields that are not whole bytes together; the last byte is consumed."""
        name, items = target
        if step.repeat == "end":
            count = self._writer.fresh("r")
            self._writer.line(f"{count} = ({end} - at) * 8 // {width}")
        else:
            count = self._count("r", step.repeat or 0, str(ELEMENTS_MAX), scope, *here, "repeat")
        self._writer.line(f"at_end = at + ({count} * {width} + 7) // 8")
        with self._writer.block(f"if at_end > {end}:"):
            self._writer.line(f"raise truncated(at, {end}, (('the repeat', at_end - at),))")
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

    def _do_tlv(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._start_branch(here)
        self._check_replacement(step)
        tag_type, length_type = self._tag_type(step.tlv, here, "tlv"), None
        if step.length:
            length_type = self._tag_type(step.length, here, "length")
        elif step.default == "skip":
            raise self._error(
                "without `length` the size of an unknown tag is unknown",
                *here,
                "default",
                remedy="refuse, stop or steps",
            )
        if step.rest == "allow" and not step.length:
            raise self._error("is allowed with `length` only", *here, "rest")
        end = self._read_limit(step, scope, here)
        index, tag, length = self._writer.fresh("i"), self._writer.fresh("g"), self._writer.fresh("z")
        counted = "$index" in repr(step.cases)
        if counted:
            self._writer.line(f"{index} = -1")
        with self._writer.block(f"if {end} - at > TAGS_BYTES_MAX:"):  # each pass consumes a byte at least
            self._writer.line("raise unsupported('too many elements')")
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
                self._run.add(RunItem(tag, tag_type, tag_type.bits // 8, little, turned=False, name="the tag"))
            if length_type:
                self._run.add(
                    RunItem(
                        length, length_type, length_type.bits // 8, little, turned=False, name="the length of a tag"
                    )
                )
            self._flush()
            value_end = end
            if length_type:
                self._sync_position()
                value_end = self._writer.fresh("e")
                self._writer.line(f"{value_end} = at + {length}")
                with self._writer.block(f"if {value_end} > {end}:"):
                    self._writer.line(f"raise truncated(at, {end}, (('the value of a tag', {length}),))")
            skip = f"at = {value_end}" if step.default == "skip" else f"at = {end}; break"
            message = f"{step.tlv} tag is not described"
            with self._limit(value_end):
                self._cases(step, tag, scope, here, otherwise=_NoCase(message, skip), narrow=narrow)
                if length_type:
                    self._end_limit(value_end, step)
        self._tag = outer_tag
        self._output.branch("-2")
        self._next_byte = NextByte(moving=True, bytes=0)

    def _tag_type(self, text: str, here: Path, key: str) -> Type:
        type_ = self._type(text, *here, key)
        if type_.family != "u" or type_.bits % 8:
            raise self._error("must be u8, u16, u24 or u32", *here, key)
        return type_


def _common(ends: Sequence[dict[str, Variable]]) -> dict[str, Variable]:
    """Return the variables that are certain to have been read, whichever case applied."""
    common: dict[str, Variable] = {}
    for name, first in ends[0].items():
        others = [other[name] for other in ends if name in other]
        if len(others) == len(ends) and all((other.text, other.kind) == (first.text, first.kind) for other in others):
            common[name] = Variable(first.text, first.kind, max(other.bits for other in others))
    return common
