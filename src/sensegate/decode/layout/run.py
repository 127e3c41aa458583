"""Runs of elements at positions known in advance: read by one `struct`, checked by one comparison."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from sensegate.decode.layout.expressions import Kind, Variable
from sensegate.decode.layout.source import SourceWriter
from sensegate.decode.layout.types import Bits, Type

CHARSETS = {"ascii": "ascii", "utf8": "utf-8", "gbk": "gb18030"}

Deferred = Callable[[], None]
"""Emits the use of an element after it is read."""


class RunItem(NamedTuple):
    """An element of a run; with an empty variable it is skipped."""

    variable: str
    type: Type | None
    """None: bytes without meaning."""
    size: int
    """Bytes; 0 within a byte."""
    little: bool
    turned: bool
    """True if a text of bytes is read last byte first."""
    name: str


class NextByte(NamedTuple):
    """Position of the next byte: a constant, from the start or from the variable `at`."""

    moving: bool
    bytes: int

    @property
    def source(self) -> str:
        """Source of the position."""
        if not self.moving:
            return str(self.bytes)
        return f"at + {self.bytes}" if self.bytes else "at"

    def plus(self, size: int) -> NextByte:
        """Return the position so many bytes further."""
        return NextByte(self.moving, self.bytes + size)


def number_kind(type_: Type) -> Kind:
    """Return the kind that a type has in expressions."""
    if type_.family == "text":
        return "text"
    return {"f": "float", "bcd": "mixed"}.get(type_.family, "int")  # type: ignore[return-value] # words of Kind


def variable_of(source: str, type_: Type) -> Variable:
    """Return the variable of an element in expressions."""
    return Variable(source, number_kind(type_), type_.bits)


class ElementRun:
    """Consecutive elements that are pending to be read."""

    def __init__(self, writer: SourceWriter) -> None:
        self._writer = writer
        self._items: list[RunItem] = []
        self._after: list[Deferred] = []
        self._bits = 0
        self._little = False

    @property
    def open_bits(self) -> int:
        """Bits used of the last byte; 0: the next element starts at a whole byte."""
        return self._bits % 8

    def add(self, item: RunItem) -> None:
        """Add an element of whole bytes."""
        self._items.append(item)

    def add_bits(self, item: RunItem) -> None:
        """Add an element that may end within a byte. Raises `ValueError` if its neighbour has another bit order."""
        if self._bits and item.little != self._little:
            raise ValueError("shares a byte with an element of another bit order")
        self._little = item.little
        self._bits += item.type.bits if item.type else 0
        self._items.append(item)

    def then(self, after: Deferred) -> None:
        """Call a function when the elements so far are read."""
        self._after.append(after)

    @property
    def size(self) -> int:
        """Pending whole bytes."""
        return self._bits // 8 if self._bits else sum(item.size for item in self._items)

    @property
    def in_bits(self) -> bool:
        """Return whether elements are read bit by bit."""
        return self._bits > 0

    @property
    def little(self) -> bool:
        """Return whether bits are read from the least significant one on."""
        return self._little

    def flush(self, next_byte: NextByte, end: str, least: int) -> tuple[NextByte, list[Deferred]]:
        """Emit the reading of the run; return the position of the next byte, and the deferred functions.

        `least` is the number of bytes that the frame is known to have, if the end is that of the frame.
        """
        items = self._items
        if self._bits:
            size = self._bits // 8
            self._check_length(next_byte, end, least, [(items[0].name, size)])
            data = f"b[{next_byte.source}:{next_byte.plus(size).source}]"
            self.fields(items, f"from_bytes({data}, {'little' if self._little else 'big'!r})", self._bits)
        else:
            size = sum(item.size for item in items)
            if items:
                self._check_length(next_byte, end, least, [(item.name, item.size) for item in items])
            self._read(items, next_byte)
        return next_byte.plus(size), self._take_deferred()

    def flush_bits(self, source: str) -> list[Deferred]:
        """Emit the extraction of the pending elements from an integer; return the deferred functions."""
        self.fields(self._items, source, self._bits)
        return self._take_deferred()

    def _take_deferred(self) -> list[Deferred]:
        after = self._after
        self._items, self._after, self._bits = [], [], 0
        return after

    def _check_length(self, next_byte: NextByte, end: str, least: int, run: list[tuple[str, int]]) -> None:
        size = sum(part[1] for part in run)
        if not next_byte.moving and next_byte.bytes + size <= least:
            return
        table = self._writer.constant("r", tuple(run))
        with self._writer.block(f"if {next_byte.plus(size).source} > {end}:"):
            self._writer.line(f"raise truncated({next_byte.source}, {end}, {table})")

    # ── whole bytes ──────────────────────────────────────────────────────────────────────────────────

    def _read(self, items: list[RunItem], next_byte: NextByte) -> None:
        """Emit the reading of whole bytes, with as few `struct` calls as the byte orders allow."""
        part: list[RunItem] = []
        order = ""
        for item in items:
            letter = _order(item)
            if letter and order and letter != order:
                next_byte = self._unpack(part, order, next_byte)
                part, order = [], ""
            part.append(item)
            order = order or letter
        self._unpack(part, order, next_byte)

    def _unpack(self, items: list[RunItem], order: str, next_byte: NextByte) -> NextByte:
        needed = [item for item in items if item.variable]
        start = next_byte
        for item in items:
            if item.variable:
                break
            start = start.plus(item.size)
        if len(needed) == 1:
            self.emit_element(needed[0], start.source, start.plus(needed[0].size).source)
        elif needed:
            span = items[items.index(needed[0]) : items.index(needed[-1]) + 1]
            form = (order or ">") + "".join(_letters(item) for item in span)
            unpack = self._writer.constant("s", form)
            self._writer.namespace[unpack] = struct.Struct(form).unpack_from
            self._writer.line(f"{', '.join(item.variable for item in needed)} = {unpack}(b, {start.source})")
            for item in needed:
                self.convert(item, item.variable)
        return next_byte.plus(sum(item.size for item in items))

    def emit_element(self, item: RunItem, start: str, stop: str) -> None:
        """Emit the reading of one element of whole bytes."""
        if item.type and item.type.family == "u" and item.type.bits == 8:
            self._writer.line(f"{item.variable} = b[{start}]")
        elif item.type and item.type.struct:
            form = ("<" if item.little else ">") + item.type.struct
            unpack = self._writer.constant("s", form)
            self._writer.namespace[unpack] = struct.Struct(form).unpack_from
            self._writer.line(f"({item.variable},) = {unpack}(b, {start})")
        else:
            self.convert(item, f"b[{start}:{stop}]")

    def convert(self, item: RunItem, source: str) -> None:
        """Emit the conversion of an element from its bytes, or from the integer that `struct` read."""
        type_, variable = item.type, item.variable
        if type_ is None or (type_.struct and source == variable):
            return
        order = "little" if item.little else "big"
        turned = f"{source}[::-1]" if item.turned else source
        if type_.family in {"u", "s"}:
            signed = ", signed=True" if type_.family == "s" else ""
            self._writer.line(f"{variable} = from_bytes({source}, {order!r}{signed})")
        elif type_.family == "m":
            self._writer.line(f"{variable} = from_bytes({source}, {order!r})")
            self.sign("m", variable, type_.bits)
        elif type_.family == "bcd":
            self._writer.line(f"{variable} = bcd({turned})")
        elif type_.name in CHARSETS:
            self._writer.line(f"{variable} = plain_text({source}, {CHARSETS[type_.name]!r})")
        elif type_.name == "hex":
            self._writer.line(f"{variable} = ({turned}).hex()")
        else:
            self._writer.line(f"{variable} = {'digits' if type_.name == 'digits' else 'byte_list'}({turned})")

    # ── bits ─────────────────────────────────────────────────────────────────────────────────────────

    def fields(self, items: list[RunItem], source: str, total: int) -> None:
        """Emit the extraction of consecutive elements from an integer of so many bits."""
        integer = self._writer.fresh("w")
        self._writer.line(f"{integer} = {source}")
        position = 0
        for item in items:
            width = item.type.bits if item.type else 0
            if item.variable and item.type:
                shift = position if item.little else total - position - width
                self.field(item.variable, integer, Bits("u", shift, width))
                if item.type.family == "bcd":
                    self._writer.line(f"{item.variable} = nibbles({item.variable}, {width // 4})")
                else:
                    self.sign(item.type.family, item.variable, width)
            position += width

    def field(self, variable: str, whole: str, bits: Bits) -> None:
        """Emit the extraction of a field from an integer."""
        shifted = f"{whole} >> {bits.low}" if bits.low else whole
        self._writer.line(f"{variable} = {shifted} & {(1 << bits.width) - 1}")
        self.sign(bits.family, variable, bits.width)

    def sign(self, family: str, variable: str, width: int) -> None:
        """Emit the sign conversion of an unsigned integer."""
        half = 1 << (width - 1)
        if family == "s":
            self._writer.line(f"{variable} = ({variable} ^ {half}) - {half}")
        elif family == "m":
            self._writer.line(f"{variable} = {half} - {variable} if {variable} & {half} else {variable}")


def _order(item: RunItem) -> str:
    """Return the byte order that `struct` needs for an item, empty if it does not matter."""
    if not item.variable or item.type is None or not item.type.struct or item.type.bits == 8:
        return ""
    return "<" if item.little else ">"


def _letters(item: RunItem) -> str:
    if not item.variable or item.type is None:
        return f"{item.size}x"
    return item.type.struct or f"{item.size}s"
