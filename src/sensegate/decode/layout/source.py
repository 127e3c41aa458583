"""Collect Python source: lines, indentation, constants, and unique names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sensegate.decode.layout.runtime import NAMESPACE


class SourceWriter:
    """The source of one function, and the constants that it refers to."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = dict(NAMESPACE)
        self._lines: list[str] = []
        self._indent = 1
        self.quiet = False
        """True if refusals are replaced by returning None."""
        self._count = 0
        self._constants: dict[Any, str] = {}

    def fresh(self, letter: str) -> str:
        """Return an unused name."""
        self._count += 1
        return f"{letter}{self._count}"

    def constant(self, letter: str, value: Any) -> str:
        """Return the name of a value that the source refers to; equal values share a name."""
        key = (letter, repr(value))
        if key not in self._constants:
            name = self._constants[key] = self.fresh(letter.upper())
            self.namespace[name] = value
        return self._constants[key]

    def line(self, text: str) -> None:
        """Add a line at the present indentation."""
        if self.quiet and text.startswith("raise "):
            text = "return None"
        self._lines.append("    " * self._indent + text)

    def first(self, *lines: str) -> None:
        """Insert lines before all others."""
        self._lines[:0] = ["    " + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Indent the lines added inside the context under a head line."""
        self.line(head)
        self._indent += 1
        length = len(self._lines)
        yield
        if len(self._lines) == length:
            self.line("pass")
        self._indent -= 1

    def attempt(self, target: str, source: str, fault: str) -> None:
        """Assign an expression that may fail; `fault` is the statement for that case."""
        with self.block("try:"):
            self.line(f"{target} = {source}")
        with self.block("except FAULTS:"):
            self.line(fault)

    def function(self, name: str, arguments: str) -> Any:
        """Return the function of all lines."""
        text = "\n".join([f"def {name}({arguments}):", *self._lines])
        # The text is generated: numbers, operators and fresh names; text of the profile occurs in it as repr() only.
        exec(compile(text, "<layout>", "exec"), self.namespace)  # noqa: S102
        return self.namespace[name]
