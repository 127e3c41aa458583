"""Emit a layout specialised for frames of one length with known branches: straight-line code.

All conditions become comparisons with their outcome in the frame from which the branches come; tags, flags and values
are read together by one `struct`. The function returns the values, or None for any other frame, which then goes through
the general function: errors are reported there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from sensegate.decode.frame import ErrorAt
from sensegate.decode.layout.branches import NONE
from sensegate.decode.layout.context import Path
from sensegate.decode.layout.emit import Emitter
from sensegate.decode.layout.output import Name, ObjectScope
from sensegate.decode.layout.run import NextByte, RunItem
from sensegate.decode.layout.steps import BinaryPart, Step
from sensegate.decode.layout.types import type_of

_WHOLE_BITS_MAX = 512
"""Largest repeat, in bits, that is read as one integer."""


class LineEmitter(Emitter):
    """Emits one path through a layout."""

    def __init__(self, part: BinaryPart, error: ErrorAt, branches: Sequence[Any], size: int) -> None:
        """`branches` are those of a frame of `size` bytes that the layout accepts."""
        super().__init__(part, error, "line", branches)
        self._least = size
        self._writer.quiet = True
        self._has_own_branches = False
        """True if pending elements have branches of their own: a type or a name that the frame decides."""

    # ── the frame ────────────────────────────────────────────────────────────────────────────────────

    def function(self) -> Any:
        """Return the function of (bytes, port). Raises `LookupError` if no frame has these branches."""
        part, writer = self._part, self._writer
        if part.ports or "$port" in repr(part):
            with writer.block("if port is None:"):
                writer.line("port = -1")
        writer.line(f"n = {self._least}")
        steps, path = part.read, ("read",)
        if part.ports:
            case = self._output.next()
            known = [set(self._keys(key)) for key in part.ports]
            inside = known[case] if case >= 0 else set().union(*known)
            ports = writer.constant("p", frozenset(inside))
            with writer.block(f"if port {'not in' if case >= 0 else 'in'} {ports}:"):
                writer.line("return None")
            if case >= 0:
                key = list(part.ports)[case]
                steps, path = part.ports[key], ("ports", str(key))  # type: ignore[assignment] # both are paths
        self._emit_frame(steps, path)
        if self._output.left:
            raise LookupError("more branches than the layout has")
        return writer.function("layout", "b, port")

    def _emit_frame(self, steps: tuple[Step, ...], path: Path) -> None:
        self._next_byte = NextByte(moving=False, bytes=0)
        self._block(steps, self._output.root(), path)
        self._flush()
        if self._part.rest == "refuse" and self._next_byte != NextByte(moving=False, bytes=self._least):
            with self._writer.block(f"if {self._next_byte.source} != n:"):
                self._writer.line("return None")
        self._output.finish()

    # ── longer runs than in the general function ─────────────────────────────────────────────────────

    def _end_block(self) -> None:
        """Keep the run pending: following elements are read with it."""

    def _flush_after_check(self) -> None:
        """Keep the run pending: refusals are reported by the general function."""

    def _flush(self) -> None:
        super()._flush()
        self._has_own_branches = False

    def _variable(self, scope: ObjectScope, name: str) -> str:  # noqa: ARG002 # branches never join again
        return self._writer.fresh("v")

    def _step(self, step: Step, scope: ObjectScope, here: Path) -> None:
        if step.type.startswith("bcd") or step.text or "{" in step.name or any("{" in name for name in step.bits):
            self._has_own_branches = True
        super()._step(step, scope, here)

    def _next(self) -> Any:
        """Return the next branch; the pending run is emitted first if it has branches of its own."""
        if self._has_own_branches:
            self._flush()
        return self._output.next()

    def _require(self, test: str) -> None:
        with self._writer.block(f"if not ({test}):"):
            self._writer.line("return None")

    @contextmanager
    def _scoped_names(self, scope: ObjectScope) -> Iterator[None]:
        """Discard the names that are read inside."""
        saved: list[dict[str, Any]] = []
        self._run.then(lambda: saved.append(dict(scope.variables)))
        yield

        def restore() -> None:
            scope.variables = saved.pop()

        self._run.then(restore)

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    def _inner(self, step: Step, scope: ObjectScope, here: Path) -> ObjectScope:
        if "{" in step.name:
            self._flush_run(here)
        name = self._name(step.name, scope, here) if step.name else None
        return scope if name is None else self._output.inside(scope, name)

    def _do_append(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._next()
        self._block(step.read, self._output.appended(scope, Name(repr(step.append), step.append)), (*here, "read"))

    def _do_when(self, step: Step, scope: ObjectScope, here: Path) -> None:
        text = step.when if step.when is not None else 0
        taken = self._next()

        def write() -> None:
            condition, _ = self._assign("c", text, scope, *here, "when")
            self._require(f"{condition} {'!=' if taken else '=='} 0")

        self._defer(write, here, "when")
        if taken:
            with self._scoped_names(scope):
                self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _do_within(self, step: Step, scope: ObjectScope, here: Path) -> None:
        self._flush_run(here)
        start = self._next_byte.source
        size = self._count("e", step.within or 0, f"{self._end} - ({start})", scope, *here, "within")
        self._writer.line(f"{size} += {start}")
        with self._limit(size):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))
            self._flush()
            self._end_limit(size, step)

    def _end_limit(self, end: str, step: Step) -> None:
        if step.rest == "allow":
            super()._end_limit(end, step)
        else:
            self._require(f"{self._next_byte.source} == {end}")

    def _do_switch(self, step: Step, scope: ObjectScope, here: Path) -> None:
        text = step.switch if step.switch is not None else 0
        case = self._next()

        def write() -> None:
            value, source = self._assign("x", text, scope, *here, "switch")
            self._require_case(step, value, case, here, text=source.kind == "text")

        self._defer(write, here, "switch")
        self._case(step, case, scope, here)

    def _require_case(self, step: Step, value: str, case: int, here: Path, *, text: bool) -> None:
        """Accept only frames in which a value has this case."""
        table = self._table(step, here, text=text)
        codes = [code for code, number in table.items() if number == case]
        if len(codes) == 1:
            self._require(f"{value} == {codes[0]!r}")
        else:
            self._require(f"{self._writer.constant('d', table)}.get({value}, -1) == {case}")

    def _case(self, step: Step, case: int, scope: ObjectScope, here: Path) -> None:
        if case >= 0:
            key = list(step.cases)[case]
            self._block(step.cases[key], scope, (*here, "cases", str(key)))
        elif isinstance(step.default, tuple):
            self._block(step.default, scope, (*here, "default"))

    # ── repeats ──────────────────────────────────────────────────────────────────────────────────────

    def _read_limit(self, step: Step, scope: ObjectScope, here: Path) -> str:
        if isinstance(step.leave, int) and (self._end == "n" or self._end.isdigit()):
            end = self._least if self._end == "n" else int(self._end)
            return str(end - step.leave)
        if not step.leave:
            return self._end
        self._flush_run(here)
        left = self._count("y", step.leave, f"{self._end} - ({self._next_byte.source})", scope, *here, "leave")
        self._writer.line(f"{left} = {self._end} - {left}")
        return left

    def _do_repeat(self, step: Step, scope: ObjectScope, here: Path) -> None:
        width = self._bit_width(step.read, here)
        if self._has_own_branches or width or isinstance(step.leave, str):
            self._flush_run(here)
        end = self._read_limit(step, scope, here)
        name = Name(repr(step.name), step.name) if step.name else None
        items = self._output.items(scope, name) if name else ""
        if step.repeat == "end" and not width:
            index = 0
            while self._next() == 1:
                self._emit_pass(step, scope, name, items, index, end, here)
                index += 1
            self._require_end(end)
            return
        count = self._next()

        def write() -> None:
            if step.repeat == "end":
                actual = f"({end} - ({self._next_byte.source})) * 8 // {width}"
            else:
                actual, _ = self._assign("r", step.repeat or 0, scope, *here, "repeat")
            self._require(f"{actual} == {count}")

        self._defer(write, here, "repeat")
        if width:
            self._flush()
            self._emit_bit_repeat(step, width, count, scope, (name, items), end, here)
            return
        for index in range(count):
            self._emit_pass(step, scope, name, items, index, end, here)

    def _emit_pass(
        self, step: Step, scope: ObjectScope, name: Name | None, items: str, index: int, end: str, here: Path
    ) -> None:
        outer, self._index = self._index, str(index)
        with self._limit(end), self._scoped_names(scope):
            inner = self._output.item(scope, items, name, str(index)) if name else scope
            self._block(step.read, inner, (*here, "read"))
        self._index = outer

    def _require_end(self, end: str) -> None:
        """Accept only frames that end here."""
        size = self._least if end == "n" else int(end) if end.isdigit() else None
        waiting = self._run.size
        if self._next_byte.moving or size is None:
            self._flush()
            self._require(f"{self._next_byte.source} >= {end}")
        elif self._next_byte.bytes + waiting < size:
            raise LookupError("the frame ends too early")

    def _emit_bit_repeat(
        self,
        step: Step,
        width: int,
        count: int,
        scope: ObjectScope,
        target: tuple[Name | None, str],
        end: str,
        here: Path,
    ) -> None:
        name, items = target
        little = self._bit_order(step, here)
        used = (count * width + 7) // 8
        start, stop = self._next_byte, self._next_byte.plus(used)
        self._require(f"{stop.source} <= {end}")
        order = "little" if little else "big"
        whole = ""
        if count and 8 * used <= _WHOLE_BITS_MAX:
            whole = self._writer.fresh("w")
            self._writer.line(f"{whole} = from_bytes(b[{start.source}:{stop.source}], {order!r})")
        for index in range(count):
            first, mask = index * width, (1 << width) - 1
            if whole:
                shift = first if little else 8 * used - first - width
                source = f"{whole} >> {shift} & {mask}"
            else:
                low, high = start.plus(first >> 3), start.plus((first + width + 7) >> 3)
                shift = first & 7 if little else -(first + width) & 7
                source = f"from_bytes(b[{low.source}:{high.source}], {order!r}) >> {shift} & {mask}"
            outer, self._index = self._index, str(index)
            variables = dict(scope.variables)
            self._bit_pass(step, self._output.item(scope, items, name, str(index)) if name else scope, source, here)
            scope.variables = variables
            self._index = outer
        self._next_byte = stop

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────

    def _do_tlv(self, step: Step, scope: ObjectScope, here: Path) -> None:
        if self._has_own_branches or isinstance(step.leave, str):
            self._flush_run(here)
        end = self._read_limit(step, scope, here)
        tag_type = type_of(step.tlv)
        narrow = tag_type.bits == 8 and not step.length and len(step.cases) < NONE
        outer_index, outer_tag, index = self._index, self._tag, 0
        while (case := self._next()) != -2:
            if narrow and case == NONE:
                case = -1
            self._index, self._tag = str(index), self._writer.fresh("g")
            little = self._little(step)
            self._run.add(RunItem(self._tag, tag_type, tag_type.bits // 8, little, turned=False, name="the tag"))
            self._defer(partial(self._require_case, step, self._tag, case, here, text=False), here, "tlv")
            with self._limit(end), self._scoped_names(scope):
                self._emit_tag_value(step, case, scope, here)
            index += 1
        self._index, self._tag = outer_index, outer_tag
        self._require_end(end)

    def _emit_tag_value(self, step: Step, case: int, scope: ObjectScope, here: Path) -> None:
        """Emit the value of a tag."""
        if not step.length:
            if case < 0 and not isinstance(step.default, tuple):
                self._flush()
                self._writer.line(f"at = {self._end}")
                self._next_byte = NextByte(moving=True, bytes=0)
            self._case(step, case, scope, here)
            return
        length_type, length = type_of(step.length), self._writer.fresh("z")
        size = length_type.bits // 8
        self._run.add(RunItem(length, length_type, size, self._little(step), turned=False, name="the length"))
        self._flush()
        stop = self._writer.fresh("e")
        self._writer.line(f"{stop} = {self._next_byte.source} + {length}")
        self._require(f"{stop} <= {self._end}")
        with self._limit(stop):
            self._case(step, case, scope, here)
            self._flush()
            if case < 0 and step.default == "skip":
                self._writer.line(f"at = {stop}")
                self._next_byte = NextByte(moving=True, bytes=0)
            self._end_limit(stop, step)
