"""Compile a binary layout: bytes to a tree, or to flat values for the fast path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sensegate.decode.frame import ErrorAt, PayloadFrame
from sensegate.decode.layout.emit import Emitter
from sensegate.decode.layout.line import LineEmitter
from sensegate.decode.layout.output import Mode
from sensegate.decode.layout.runtime import from_base64, from_hex
from sensegate.decode.layout.steps import BinaryPart
from sensegate.decode.paths import Path
from sensegate.errors import ProfileError, Rejected

_LINES_MAX = 8
"""Most specialised functions for frames of one length that are tried before the general one."""
_ALL_LINES_MAX = 128

Read = Callable[[bytes, "int | None"], Any]

_UNWRAP: dict[str, Callable[[bytes], bytes] | None] = {"raw": None, "hex": from_hex, "base64": from_base64}


class Layout:
    """The functions of one layout. Calling it is the slow path (`frame.Parse`)."""

    exact = True

    def __init__(self, part: BinaryPart, error: ErrorAt) -> None:
        """Compile the layout. Raises `ProfileError` with the key of the first problem."""
        self._part = part
        self._error = error
        self._unwrap = _UNWRAP[part.encoding]
        emitter = Emitter(part, error, "tree")
        self._tree: Read = emitter.function()
        self.columnar = emitter.flat
        """True if `flatten` may be used: its branches determine all members."""
        self._values: Read | None = None
        self._pointers: Read | None = None
        self._lines: dict[int, list[tuple[tuple[Any, ...], Read]]] = {}
        """Bytes of a frame -> (branches, function for frames with these branches)."""

    def __call__(self, frame: PayloadFrame) -> dict[str, Any]:
        """Return the tree of a frame. Raises `Rejected` and nothing else."""
        payload = frame.payload if self._unwrap is None else self._unwrap(frame.payload)
        return self._tree(payload, frame.port)  # type: ignore[no-any-return] # generated

    def flatten(self, payload: bytes, port: int | None) -> tuple[tuple[Any, ...], Sequence[Any]]:
        """Return (branches taken, values): frames with the same branches have the same members in the same positions.

        Raises `Rejected` if the frame is refused.
        """
        if self._values is None:
            self._values = self._function("values")
        data = payload if self._unwrap is None else self._unwrap(payload)
        for branches, line in self._lines.get(len(data), ()):
            try:
                values = line(data, port)
            except Rejected:  # the frame took other branches
                continue
            if values is not None:
                return branches, values
        return self._values(data, port)  # type: ignore[no-any-return] # generated

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Compile a specialised function for the branches of this frame. It only makes later frames faster."""
        data = payload if self._unwrap is None else self._unwrap(payload)
        lines = self._lines.setdefault(len(data), [])
        branches, _ = self.flatten(payload, port)
        full = len(lines) >= _LINES_MAX or sum(map(len, self._lines.values())) >= _ALL_LINES_MAX
        if full or any(known == branches for known, _ in lines):
            return
        with suppress(LookupError, ProfileError):  # too long for a specialised function
            lines.append((branches, LineEmitter(self._part, self._error, branches, len(data)).function()))

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return the pointer of each of `flatten`'s values in the tree."""
        if self._pointers is None:
            self._pointers = self._function("pointers")
        data = payload if self._unwrap is None else self._unwrap(payload)
        return [pointer for pointer, _ in self._pointers(data, port)]

    def _function(self, mode: Mode) -> Read:
        """Return another form of the layout: compiled when first needed, because most never are."""
        return Emitter(self._part, self._error, mode).function()  # type: ignore[no-any-return] # generated
