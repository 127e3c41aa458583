"""A layout for frames of one length with branches that are known: one straight line.

All conditions become comparisons with what they were in the frame that the branches are of; tags, flags and values are
read by one `struct` together. The function returns the values, or None for any other frame, which then goes the usual
way: it says neither what is wrong nor where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sensegate.decode.frame import ErrorAt
from sensegate.decode.layout.branches import NONE
from sensegate.decode.layout.context import Path
from sensegate.decode.layout.emit import Emitter
from sensegate.decode.layout.output import Name, Scope
from sensegate.decode.layout.run import Item, NextByte
from sensegate.decode.layout.steps import BinaryPart, Step
from sensegate.decode.layout.types import type_of

_WHOLE_BITS_MAX = 512
"""Up to so many bits of a repeat are one integer."""


class LineEmitter(Emitter):
    """Writes one way through a layout."""

    def __init__(self, part: BinaryPart, error: ErrorAt, branches: Sequence[Any], size: int) -> None:
        """`branches` are those of a frame of `size` bytes that the layout takes."""
        super().__init__(part, error, "line", branches)
        self._least = size
        self._writer.quiet = True
        self._loose = False
        """Whether what waits has branches of its own: a type or a name that a frame decides."""

    # ── the frame ────────────────────────────────────────────────────────────────────────────────────

    def function(self) -> Any:
        """Return the function of (bytes, port). Raises `LookupError` where the branches are of no frame."""
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
        self._whole(steps, path)
        if self._output.left:
            raise LookupError("branches are left over")
        return writer.function("layout", "b, port")

    def _whole(self, steps: tuple[Step, ...], path: Path) -> None:
        self._next_byte = NextByte(moving=False, bytes=0)
        self._block(steps, self._output.root(), path)
        self._flush()
        if self._part.rest == "refuse" and self._next_byte != NextByte(moving=False, bytes=self._least):
            with self._writer.block(f"if {self._next_byte.source} != n:"):
                self._writer.line("return None")
        self._output.finish()

    # ── what waits longer than elsewhere ─────────────────────────────────────────────────────────────

    def _end_block(self) -> None:
        """Let what waits wait: what follows is read with it."""

    def _checked(self) -> None:
        """Let what waits wait: why a frame is refused is said elsewhere."""

    def _flush(self) -> None:
        super()._flush()
        self._loose = False

    def _variable(self, scope: Scope, name: str) -> str:  # noqa: ARG002 # nothing comes together again
        return self._writer.fresh("v")

    def _step(self, step: Step, scope: Scope, here: Path) -> None:
        if step.type.startswith("bcd") or step.text or "{" in step.name or any("{" in name for name in step.bits):
            self._loose = True
        super()._step(step, scope, here)

    def _next(self) -> Any:
        """Return the next branch; what waits is read first if it has branches of its own."""
        if self._loose:
            self._flush()
        return self._output.next()

    def _refuse_unless(self, test: str) -> None:
        with self._writer.block(f"if not ({test}):"):
            self._writer.line("return None")

    @contextmanager
    def _kept(self, scope: Scope) -> Iterator[None]:
        """Let names that are read inside mean nothing afterwards."""
        saved: list[dict[str, Any]] = []
        self._run.then(lambda: saved.append(dict(scope.variables)))
        yield

        def restore() -> None:
            scope.variables = saved.pop()

        self._run.then(restore)

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    def _inner(self, step: Step, scope: Scope, here: Path) -> Scope:
        if "{" in step.name:
            self._stop(here)
        name = self._name(step.name, scope, here) if step.name else None
        return scope if name is None else self._output.inside(scope, name)

    def _do_append(self, step: Step, scope: Scope, here: Path) -> None:
        self._next()
        self._block(step.read, self._output.appended(scope, Name(repr(step.append), step.append)), (*here, "read"))

    def _do_when(self, step: Step, scope: Scope, here: Path) -> None:
        text = step.when if step.when is not None else 0
        there = self._next()

        def write() -> None:
            condition, _ = self._assign("c", text, scope, *here, "when")
            self._refuse_unless(f"{condition} {'!=' if there else '=='} 0")

        self._later(write, here, "when")
        if there:
            with self._kept(scope):
                self._block(step.read, self._inner(step, scope, here), (*here, "read"))

    def _do_within(self, step: Step, scope: Scope, here: Path) -> None:
        self._stop(here)
        start = self._next_byte.source
        size = self._count("e", step.within or 0, f"{self._end} - ({start})", scope, *here, "within")
        self._writer.line(f"{size} += {start}")
        with self._limit(size):
            self._block(step.read, self._inner(step, scope, here), (*here, "read"))
            self._flush()
            self._up_to(size, step)

    def _up_to(self, end: str, step: Step) -> None:
        if step.rest == "allow":
            super()._up_to(end, step)
        else:
            self._refuse_unless(f"{self._next_byte.source} == {end}")

    def _do_switch(self, step: Step, scope: Scope, here: Path) -> None:
        text = step.switch if step.switch is not None else 0
        case = self._next()

        def write() -> None:
            value, source = self._assign("x", text, scope, *here, "switch")
            self._is_case(step, value, case, here, text=source.kind == "text")

        self._later(write, here, "switch")
        self._case(step, case, scope, here)

    def _is_case(self, step: Step, value: str, case: int, here: Path, *, text: bool) -> None:
        """Let only frames through in which a value has this case."""
        table = self._table(step, here, text=text)
        codes = [code for code, number in table.items() if number == case]
        if len(codes) == 1:
            self._refuse_unless(f"{value} == {codes[0]!r}")
        else:
            self._refuse_unless(f"{self._writer.constant('d', table)}.get({value}, -1) == {case}")

    def _case(self, step: Step, case: int, scope: Scope, here: Path) -> None:
        if case >= 0:
            key = list(step.cases)[case]
            self._block(step.cases[key], scope, (*here, "cases", str(key)))
        elif isinstance(step.default, tuple):
            self._block(step.default, scope, (*here, "default"))

    # ── repeats ──────────────────────────────────────────────────────────────────────────────────────

    def _before(self, step: Step, scope: Scope, here: Path) -> str:
        if isinstance(step.leave, int) and (self._end == "n" or self._end.isdigit()):
            end = self._least if self._end == "n" else int(self._end)
            return str(end - step.leave)
        if not step.leave:
            return self._end
        self._stop(here)
        left = self._count("y", step.leave, f"{self._end} - ({self._next_byte.source})", scope, *here, "leave")
        self._writer.line(f"{left} = {self._end} - {left}")
        return left

    def _do_repeat(self, step: Step, scope: Scope, here: Path) -> None:
        width = self._bit_width(step.read, here)
        if self._loose or width or isinstance(step.leave, str):
            self._stop(here)
        end = self._before(step, scope, here)
        name = Name(repr(step.name), step.name) if step.name else None
        items = self._output.items(scope, name) if name else ""
        if step.repeat == "end" and not width:
            at = 0
            while self._next() == 1:
                self._one_pass(step, scope, name, items, at, end, here)
                at += 1
            self._at_end(end)
            return
        count = self._next()

        def write() -> None:
            if step.repeat == "end":
                found = f"({end} - ({self._next_byte.source})) * 8 // {width}"
            else:
                found, _ = self._assign("r", step.repeat or 0, scope, *here, "repeat")
            self._refuse_unless(f"{found} == {count}")

        self._later(write, here, "repeat")
        if width:
            self._flush()
            self._line_of_bits(step, width, count, scope, (name, items), end, here)
            return
        for at in range(count):
            self._one_pass(step, scope, name, items, at, end, here)

    def _one_pass(  # noqa: PLR0917
        self, step: Step, scope: Scope, name: Name | None, items: str, at: int, end: str, here: Path
    ) -> None:
        outer, self._index = self._index, str(at)
        with self._limit(end), self._kept(scope):
            inner = self._output.item(scope, items, name, str(at)) if name else scope
            self._block(step.read, inner, (*here, "read"))
        self._index = outer

    def _at_end(self, end: str) -> None:
        """Let only frames through that end here."""
        size = self._least if end == "n" else int(end) if end.isdigit() else None
        waiting = self._run.size
        if self._next_byte.moving or size is None:
            self._flush()
            self._refuse_unless(f"{self._next_byte.source} >= {end}")
        elif self._next_byte.bytes + waiting < size:
            raise LookupError("ends too early")

    def _line_of_bits(  # noqa: PLR0917
        self, step: Step, width: int, count: int, scope: Scope, kept: tuple[Name | None, str], end: str, here: Path
    ) -> None:
        name, items = kept
        little = self._bit_order(step, here)
        used = (count * width + 7) // 8
        start, stop = self._next_byte, self._next_byte.plus(used)
        self._refuse_unless(f"{stop.source} <= {end}")
        order = "little" if little else "big"
        whole = ""
        if count and 8 * used <= _WHOLE_BITS_MAX:
            whole = self._writer.fresh("w")
            self._writer.line(f"{whole} = from_bytes(b[{start.source}:{stop.source}], {order!r})")
        for at in range(count):
            first, mask = at * width, (1 << width) - 1
            if whole:
                shift = first if little else 8 * used - first - width
                source = f"{whole} >> {shift} & {mask}"
            else:
                low, high = start.plus(first >> 3), start.plus((first + width + 7) >> 3)
                shift = first & 7 if little else -(first + width) & 7
                source = f"from_bytes(b[{low.source}:{high.source}], {order!r}) >> {shift} & {mask}"
            outer, self._index = self._index, str(at)
            variables = dict(scope.variables)
            self._bit_pass(step, self._output.item(scope, items, name, str(at)) if name else scope, source, here)
            scope.variables = variables
            self._index = outer
        self._next_byte = stop

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────

    def _do_tlv(self, step: Step, scope: Scope, here: Path) -> None:
        if self._loose or isinstance(step.leave, str):
            self._stop(here)
        end = self._before(step, scope, here)
        tag_type = type_of(step.tlv)
        narrow = tag_type.bits == 8 and not step.length and len(step.cases) < NONE
        outer_index, outer_tag, at = self._index, self._tag, 0
        while (case := self._next()) != -2:
            if narrow and case == NONE:
                case = -1
            self._index, self._tag = str(at), self._writer.fresh("g")
            little = self._little(step)
            self._run.add(Item(self._tag, tag_type, tag_type.bits // 8, little, turned=False, name="the tag"))
            self._later(lambda tag=self._tag, case=case: self._is_case(step, tag, case, here, text=False), here, "tlv")  # type: ignore[misc] # bound now
            with self._limit(end), self._kept(scope):
                self._tagged(step, case, scope, here)
            at += 1
        self._index, self._tag = outer_index, outer_tag
        self._at_end(end)

    def _tagged(self, step: Step, case: int, scope: Scope, here: Path) -> None:
        """Write the value of a tag."""
        if not step.length:
            if case < 0 and not isinstance(step.default, tuple):
                self._flush()
                self._writer.line(f"at = {self._end}")
                self._next_byte = NextByte(moving=True, bytes=0)
            self._case(step, case, scope, here)
            return
        length_type, length = type_of(step.length), self._writer.fresh("z")
        size = length_type.bits // 8
        self._run.add(Item(length, length_type, size, self._little(step), turned=False, name="the length"))
        self._flush()
        stop = self._writer.fresh("e")
        self._writer.line(f"{stop} = {self._next_byte.source} + {length}")
        self._refuse_unless(f"{stop} <= {self._end}")
        with self._limit(stop):
            self._case(step, case, scope, here)
            self._flush()
            if case < 0 and step.default == "skip":
                self._writer.line(f"at = {stop}")
                self._next_byte = NextByte(moving=True, bytes=0)
            self._up_to(stop, step)
