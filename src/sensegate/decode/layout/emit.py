"""Check the steps of a layout and emit them as Python source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensegate.decode.frame import ErrorAt
from sensegate.decode.layout.branches import Branches
from sensegate.decode.layout.context import Path
from sensegate.decode.layout.output import Mode, Output
from sensegate.decode.layout.run import NextByte
from sensegate.decode.layout.steps import BinaryPart, Step


class Emitter(Branches):
    """Emits one layout as one function: (bytes, port) to its tree, its values, or its pointers."""

    def __init__(self, part: BinaryPart, error: ErrorAt, mode: Mode, branches: Sequence[Any] = ()) -> None:
        super().__init__(part, error, lambda writer: Output(writer, mode, branches))

    # ── the frame ────────────────────────────────────────────────────────────────────────────────────

    def function(self) -> Any:
        """Return the function of (bytes, port). Raises `ProfileError` if the layout is wrong."""
        part, writer = self._part, self._writer
        if not part.read and not part.ports:
            raise self._error("there are no steps", remedy="give `read`")
        writer.line("n = len(b)")
        writer.line("k = 0")
        with writer.block("if port is None:"):
            writer.line("port = -1")
        self._length()
        seen: set[int] = set()
        for index, (key, steps) in enumerate(part.ports.items()):
            ports = self._keys(key, "ports", str(key))
            if min(ports) < 0:
                raise self._error("a port must be 0 or more", "ports", str(key))
            if seen & set(ports):
                raise self._error("a port occurs twice", "ports", str(key))
            seen |= set(ports)
            with writer.block(f"if port in {writer.constant('p', frozenset(ports))}:"):
                self._output.branch(str(index))
                self._emit_frame(steps, ("ports", str(key)))
        if part.ports:
            self._output.branch("-1")
        if part.read:
            self._emit_frame(part.read, ("read",))
        else:
            writer.line(
                "raise unsupported(f'no layout for port {port}' if port >= 0 else 'no layout for a frame without port')"
            )
        self._output.begin()
        try:
            return writer.function("layout", "b, port")
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise self._error("is nested too deeply", remedy="nest fewer repeats and switches") from error

    def _length(self) -> None:
        length = self._part.length
        if length is None:
            return
        low, high = (length, length) if isinstance(length, int) else length
        if not 0 < low <= high:
            raise self._error("the lower bound must not be above the upper", "length")
        self._least = low
        expected = f"{low} bytes" if low == high else f"{low} to {high} bytes"
        test = f"n != {low}" if low == high else f"not {low} <= n <= {high}"
        with self._writer.block(f"if {test}:"):
            self._writer.line(f"raise unsupported(f'{{n}} bytes, not {expected}')")

    def _emit_frame(self, steps: tuple[Step, ...], path: Path) -> None:
        """Emit one path through the frame, from its first byte to its last."""
        self._next_byte = NextByte(moving=False, bytes=0)
        self._block(steps, self._output.root(), path)
        if self._part.rest == "refuse":
            known = not self._next_byte.moving and self._part.length == self._next_byte.bytes
            if not known:
                with self._writer.block(f"if {self._next_byte.source} != n:"):
                    self._writer.line(f"raise left_over({self._next_byte.source}, n)")
        self._output.finish()
