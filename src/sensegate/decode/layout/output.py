"""Emit the destination of a layout's values: a tree, or a list with the branches taken.

Both forms are emitted by the same traversal of the steps, so that they agree in members and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sensegate.decode.layout.expressions import Variable
from sensegate.decode.layout.source import SourceWriter

Mode = Literal["tree", "values", "pointers", "line"]
"""`values`: (branches, values); `pointers`: [(path, value)] in the same order; `line`: the values of frames with given
branches, None for all others."""


class ObjectScope:
    """An object of the tree: its members so far, and the variables that expressions may use."""

    def __init__(self, number: int, parent: ObjectScope | None, variable: str, pointer: tuple[str, ...]) -> None:
        self.number = number
        self.parent = parent
        self.variable = variable
        """The object's own variable (tree)."""
        self.pointer = pointer
        """Source of each step of its path (pointers)."""
        self.variables: dict[str, Variable] = {}
        """Variables that are certain to have been read."""
        self.present: dict[str, bool] = {}
        """Names in the tree -> whether they are certain to be present."""
        self.loops = 0
        """Enclosing repeats without a name: names in them may occur several times."""
        self.replace_duplicates = False
        """True if a repeated name replaces the earlier value."""

    def find(self, name: str) -> Variable | None:
        """Return the variable of a name, in this or an enclosing object."""
        variable = self.variables.get(name)
        return variable if variable or self.parent is None else self.parent.find(name)


class Name(NamedTuple):
    """The name of a member in the tree."""

    source: str
    """Source of the text."""
    plain: str
    """The text itself, empty if it is computed."""


class Output:
    """Emits the storing of each value."""

    def __init__(self, writer: SourceWriter, mode: Mode, branches: Sequence[Any] = ()) -> None:
        self.writer = writer
        self.mode = mode
        self._branches = list(reversed(branches))
        self._pending: list[str] = []
        self._open = False
        """True if values or branches were emitted before the end."""
        self._scopes = 0

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────

    def root(self) -> ObjectScope:
        """Return the scope of the whole frame."""
        if self.mode == "tree":
            self.writer.line("t = {}")
        return self._scope(None, "t", ())

    def inside(self, scope: ObjectScope, name: Name) -> ObjectScope:
        """Return the scope of a member object."""
        variable = self.writer.fresh("t")
        if self.mode == "tree":
            self._refuse_duplicate(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable} = {{}}")
        elif not name.plain:
            self._record_or_require(name.source)
        self._mark_present(scope, name)
        return self._scope(scope, variable, (*scope.pointer, name.source))

    def items(self, scope: ObjectScope, name: Name) -> str:
        """Start a list in an object; return its variable."""
        variable = self.writer.fresh("l")
        if self.mode == "tree":
            self._refuse_duplicate(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable} = []")
        self._mark_present(scope, name)
        return variable

    def item(self, scope: ObjectScope, items: str, name: Name, index: str) -> ObjectScope:
        """Return the scope of an object appended to a list."""
        variable = self.writer.fresh("t")
        if self.mode == "tree":
            self.writer.line(f"{variable} = {{}}")
            self.writer.line(f"{items}.append({variable})")
        return self._scope(scope, variable, (*scope.pointer, name.source, index))

    def appended(self, scope: ObjectScope, name: Name) -> ObjectScope:
        """Return the scope of an object appended to a list that may exist already."""
        variable, index = self.writer.fresh("t"), self.writer.fresh("i")
        if self.mode == "tree":
            self.writer.line(f"{variable} = {{}}")
            self.writer.line(f"append({scope.variable}, {name.source}, {variable})")
        elif self.mode == "pointers":
            path = self._path((*scope.pointer, name.source))
            self.writer.line(f"{index} = c.get({path}, 0)")
            self.writer.line(f"c[{path}] = {index} + 1")
        scope.present.setdefault(name.plain, False)
        return self._scope(scope, variable, (*scope.pointer, name.source, index))

    def _scope(self, parent: ObjectScope | None, variable: str, pointer: tuple[str, ...]) -> ObjectScope:
        self._scopes += 1
        return ObjectScope(self._scopes, parent, variable, pointer)

    # ── values ───────────────────────────────────────────────────────────────────────────────────────

    def leaf(self, scope: ObjectScope, name: Name, variable: str, *, mixed: bool) -> None:
        """Store a value in an object; `mixed`: its type is known at run time only."""
        if self.mode == "tree":
            self._refuse_duplicate(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable}")
        elif self.mode == "pointers":
            self.writer.line(f"o.append(({self._path((*scope.pointer, name.source))}, {variable}))")
        else:
            if mixed:
                self._record_or_require(f"{variable}.__class__")
            if not name.plain:
                self._record_or_require(name.source)
            self._pending.append(variable)
        self._mark_present(scope, name)

    def _mark_present(self, scope: ObjectScope, name: Name) -> None:
        if name.plain:
            scope.present[name.plain] = not scope.loops

    def _refuse_duplicate(self, scope: ObjectScope, name: Name) -> None:
        """Refuse a duplicate name."""
        if name.plain and scope.present.get(name.plain):
            raise ValueError(f"'{name.plain}' occurs twice")
        known = name.plain in scope.present or scope.loops or not name.plain
        if known and not scope.replace_duplicates:
            with self.writer.block(f"if {name.source} in {scope.variable}:"):
                self.writer.line(f"raise duplicate({name.source})")

    @staticmethod
    def _path(steps: tuple[str, ...]) -> str:
        return f"({', '.join(steps)},)"

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    def branch(self, source: str) -> None:
        """Record a decision: frames with the same decisions have the same members."""
        if self.mode == "values":
            self._open = True
            self.writer.line(f"s.append({source})")

    def next(self) -> Any:
        """Return the next given branch (`line`). Raises `LookupError` if there is none."""
        if not self._branches:
            raise LookupError("no more branches")
        return self._branches.pop()

    @property
    def left(self) -> int:
        """Number of given branches that are not consumed yet."""
        return len(self._branches)

    def _record_or_require(self, source: str) -> None:
        """Record a decision, or accept only frames in which it is the same."""
        if self.mode == "line":
            expected = self.writer.constant("q", self.next())
            with self.writer.block(f"if {source} != {expected}:"):
                self.writer.line("return None")
        else:
            self.branch(source)

    def flush_values(self) -> None:
        """Emit the pending values: a branch starts."""
        if self.mode == "line":
            return
        if len(self._pending) == 1:
            self._open = True
            self.writer.line(f"o.append({self._pending.pop()})")
        elif self._pending:
            self._open = True
            self.writer.line(f"o += {self._tuple()}")

    def _tuple(self) -> str:
        text = f"({', '.join(self._pending)}{',' if len(self._pending) == 1 else ''})"
        self._pending = []
        return text

    def finish(self) -> None:
        """Emit the return statement; another path through the frame may follow."""
        if self.mode == "line":
            self.writer.line(f"return {self._tuple()}")
        elif self.mode != "values":
            self.writer.line("return t" if self.mode == "tree" else "return o")
        elif not self._open:
            self.writer.line(f"return (), {self._tuple()}")
        else:
            self.flush_values()
            self.writer.line("return tuple(s), o")

    def begin(self) -> None:
        """Insert the initialisations that the emitted lines need."""
        if self.mode == "pointers":
            self.writer.first("o = []", "c = {}")
        elif self.mode == "values" and self._open:
            self.writer.first("o = []", "s = []")
