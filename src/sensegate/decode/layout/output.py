"""Where the values of a layout go: into a tree, or into a list with the branches taken (`Flat`).

The two are written by the same walk over the steps, so they agree in what is there and in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sensegate.decode.layout.expressions import Variable
from sensegate.decode.layout.source import Writer

Mode = Literal["tree", "values", "pointers", "line"]
"""`values`: (branches, values); `pointers`: [(path, value)] in the same order; `line`: the values of frames with
branches that are given, None for all others."""


class Scope:
    """One object of the tree: what it holds so far, and what expressions may use of it."""

    def __init__(self, number: int, parent: Scope | None, variable: str, pointer: tuple[str, ...]) -> None:
        self.number = number
        self.parent = parent
        self.variable = variable
        """The object's own variable (tree)."""
        self.pointer = pointer
        """Source of each step of its path (pointers)."""
        self.variables: dict[str, Variable] = {}
        """What is certain to have been read."""
        self.held: dict[str, bool] = {}
        """Names in the tree -> whether they are certain to be there."""
        self.loops = 0
        """Repeats without a name around what is read now: their names may come again."""
        self.last = False
        """Whether a name that comes again replaces the one before."""

    def find(self, name: str) -> Variable | None:
        """Return what a name stands for, here or in an object around."""
        found = self.variables.get(name)
        return found if found or self.parent is None else self.parent.find(name)


class Name(NamedTuple):
    """A name in the tree."""

    source: str
    """Source of the text."""
    plain: str
    """The text itself, empty if it is made of an element."""


class Output:
    """Writes what becomes of each value."""

    def __init__(self, writer: Writer, mode: Mode, branches: Sequence[Any] = ()) -> None:
        self.writer = writer
        self.mode = mode
        self._branches = list(reversed(branches))
        self._pending: list[str] = []
        self._open = False
        """Whether values or branches were written before the end."""
        self._scopes = 0

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────

    def root(self) -> Scope:
        """Return the object of the whole frame."""
        if self.mode == "tree":
            self.writer.line("t = {}")
        return self._scope(None, "t", ())

    def inside(self, scope: Scope, name: Name) -> Scope:
        """Return an object that stands in another under a name."""
        variable = self.writer.fresh("t")
        if self.mode == "tree":
            self._once(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable} = {{}}")
        elif not name.plain:
            self._same(name.source)
        self._hold(scope, name)
        return self._scope(scope, variable, (*scope.pointer, name.source))

    def items(self, scope: Scope, name: Name) -> str:
        """Begin a list in an object; return its variable."""
        variable = self.writer.fresh("l")
        if self.mode == "tree":
            self._once(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable} = []")
        self._hold(scope, name)
        return variable

    def item(self, scope: Scope, items: str, name: Name, index: str) -> Scope:
        """Return an object at the end of a list."""
        variable = self.writer.fresh("t")
        if self.mode == "tree":
            self.writer.line(f"{variable} = {{}}")
            self.writer.line(f"{items}.append({variable})")
        return self._scope(scope, variable, (*scope.pointer, name.source, index))

    def appended(self, scope: Scope, name: Name) -> Scope:
        """Return an object at the end of a list that may be there already."""
        variable, index = self.writer.fresh("t"), self.writer.fresh("i")
        if self.mode == "tree":
            self.writer.line(f"{variable} = {{}}")
            self.writer.line(f"append({scope.variable}, {name.source}, {variable})")
        elif self.mode == "pointers":
            path = self._path((*scope.pointer, name.source))
            self.writer.line(f"{index} = c.get({path}, 0)")
            self.writer.line(f"c[{path}] = {index} + 1")
        scope.held.setdefault(name.plain, False)
        return self._scope(scope, variable, (*scope.pointer, name.source, index))

    def _scope(self, parent: Scope | None, variable: str, pointer: tuple[str, ...]) -> Scope:
        self._scopes += 1
        return Scope(self._scopes, parent, variable, pointer)

    # ── values ───────────────────────────────────────────────────────────────────────────────────────

    def leaf(self, scope: Scope, name: Name, variable: str, *, mixed: bool) -> None:
        """Put a value into an object; `mixed`: its type is known at run time only."""
        if self.mode == "tree":
            self._once(scope, name)
            self.writer.line(f"{scope.variable}[{name.source}] = {variable}")
        elif self.mode == "pointers":
            self.writer.line(f"o.append(({self._path((*scope.pointer, name.source))}, {variable}))")
        else:
            if mixed:
                self._same(f"{variable}.__class__")
            if not name.plain:
                self._same(name.source)
            self._pending.append(variable)
        self._hold(scope, name)

    def _hold(self, scope: Scope, name: Name) -> None:
        if name.plain:
            scope.held[name.plain] = not scope.loops

    def _once(self, scope: Scope, name: Name) -> None:
        """Refuse a name that is there already."""
        if name.plain and scope.held.get(name.plain):
            raise ValueError(f"'{name.plain}' occurs twice")
        known = name.plain in scope.held or scope.loops or not name.plain
        if known and not scope.last:
            with self.writer.block(f"if {name.source} in {scope.variable}:"):
                self.writer.line(f"raise twice({name.source})")

    @staticmethod
    def _path(steps: tuple[str, ...]) -> str:
        return f"({', '.join(steps)},)"

    # ── branches ─────────────────────────────────────────────────────────────────────────────────────

    def branch(self, source: str) -> None:
        """Note what decided: frames in which all of these are the same hold the same members."""
        if self.mode == "values":
            self._open = True
            self.writer.line(f"s.append({source})")

    def next(self) -> Any:
        """Return the next of the branches that are given (`line`). Raises `LookupError` where there is none."""
        if not self._branches:
            raise LookupError("no more branches")
        return self._branches.pop()

    @property
    def left(self) -> int:
        """Branches that are given and not taken yet."""
        return len(self._branches)

    def _same(self, source: str) -> None:
        """Note what decided, or let only frames through in which it is the same."""
        if self.mode == "line":
            wanted = self.writer.constant("q", self.next())
            with self.writer.block(f"if {source} != {wanted}:"):
                self.writer.line("return None")
        else:
            self.branch(source)

    def settle(self) -> None:
        """Write the values that wait for it: a branch comes."""
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
        """Return what was written; another way through the frame may follow."""
        if self.mode == "line":
            self.writer.line(f"return {self._tuple()}")
        elif self.mode != "values":
            self.writer.line("return t" if self.mode == "tree" else "return o")
        elif not self._open:
            self.writer.line(f"return (), {self._tuple()}")
        else:
            self.settle()
            self.writer.line("return tuple(s), o")

    def begin(self) -> None:
        """Put before everything what the lines written need."""
        if self.mode == "pointers":
            self.writer.first("o = []", "c = {}")
        elif self.mode == "values" and self._open:
            self.writer.first("o = []", "s = []")
