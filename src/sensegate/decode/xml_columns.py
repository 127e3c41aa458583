"""XML as flat values: documents of one form are taken apart by their separators, without a tree.

A form is everything of a document but its texts and the values of its attributes. Which member of the tree a text is,
the parse itself tells: once, of a document with marks in place of all texts. Documents that are unusual in any way
(other than ASCII, entities, comments, CDATA, apostrophes in tags, text beside elements) have no form: they go through
their trees (`flatten.Flattened`), with which this must agree value by value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode.frame import Parse, PayloadFrame
from sensegate.decode.learned_forms import LearnedForms
from sensegate.decode.paths import Path
from sensegate.errors import Rejected

_SIZE_MAX: Final = 65_536
_PARTS_MAX: Final = 1_024
_NOT_SEPARATORS: Final = bytes(set(range(256)) - set(b'<>"'))
_UNIFIED: Final = bytes.maketrans(b'>"', b"<<")
_PLAIN: Final = bytes([*b"\t\n", *(byte for byte in range(0x20, 0x7F) if byte != ord("&"))])
_BREAKS: Final = (b"\n", b"\t")
_MARK: Final = "sensegate-value-{}-"
_TAGS = re.compile(rb'(?:<(?:"")*>)*')
"""The separators of tags whose attributes are in quotation marks."""
_NAME = re.compile(rb"[/?]?[A-Za-z_]")
"""Start of a tag that is no comment, section or type."""

Parts = Sequence[bytes]
Getter = Callable[[Parts], tuple[bytes, ...]]


def _getter(places: Sequence[int]) -> Getter:
    """Return a getter of the parts at some places, as a tuple also for one or none."""
    if not places:
        return lambda _: ()
    if len(places) == 1:
        place = places[0]
        return lambda parts: (parts[place],)
    return itemgetter(*places)


class XmlForm(msgspec.Struct, frozen=True, eq=False):
    """Positions of the values in documents of a form, and the parts that these documents have in common."""

    fixed: Getter
    """Values of attributes that belong to the form: encoding, namespaces."""
    fixed_values: tuple[bytes, ...]
    blank: Getter
    """White space between elements."""
    texts: Getter
    attributes: Getter
    constants: tuple[Any, ...]
    pointers: list[Path]


class _Layout(NamedTuple):
    """Documents with equal separators: where their tags stand, and their forms by these."""

    pieces: Getter
    forms: dict[tuple[bytes, ...], list[XmlForm]]


class XmlColumns(LearnedForms):
    """The parse of documents, also as flat values."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        super().__init__(parse, nesting_max)
        self._tree = parse
        self._deepest = nesting_max
        self._layouts: dict[bytes, _Layout] = {}

    def known(self, payload: bytes) -> tuple[XmlForm, Sequence[Any]] | None:
        """Return (form, values) of a document of a known form."""
        layout = self._layouts.get(payload.translate(None, _NOT_SEPARATORS))
        if layout is None or payload.translate(None, _PLAIN):
            return None
        parts = payload.translate(_UNIFIED).split(b"<")
        for form in layout.forms.get(layout.pieces(parts), ()):
            if form.fixed(parts) != form.fixed_values:
                continue
            texts = [text.strip() for text in form.texts(parts)]
            attributes = form.attributes(parts)
            joined = b"<".join([*texts, *attributes])
            if b"" in texts or b"".join(form.blank(parts)).strip() or any(mark in joined for mark in _BREAKS):
                return None
            values = joined.decode().split("<") if texts or attributes else ()
            return form, (*values, *form.constants)
        return None

    def add(self, payload: bytes) -> bool:
        """Add the form of a document; return whether it has one."""
        if len(payload) > _SIZE_MAX or payload.translate(None, _PLAIN):
            return False
        separators = payload.translate(None, _NOT_SEPARATORS)
        document = _Document(separators, payload.translate(_UNIFIED).split(b"<"))
        if len(separators) > _PARTS_MAX or not document.sort():
            return False
        try:
            tree = self._tree(PayloadFrame(document.marked(), self._deepest))
        except Rejected:
            return False
        form = document.form(tree)
        if form is None:
            return False
        layout = self._layouts.setdefault(separators, _Layout(_getter(document.pieces), {}))
        layout.forms.setdefault(layout.pieces(document.parts), []).append(form)
        return True


class _Document:
    """The parts of a document between its separators, while its form is made."""

    def __init__(self, separators: bytes, parts: list[bytes]) -> None:
        self.parts = parts
        self._separators = separators
        self.pieces: list[int] = []
        """Indices of the parts that are names, as below."""
        self._fixed: list[int] = []
        self._blank: list[int] = []
        self._texts: list[int] = []
        self._attributes: list[int] = []

    def sort(self) -> bool:
        """Sort the parts by kind; return whether such documents have a form."""
        if not _TAGS.fullmatch(self._separators):
            return False
        quoted = declares = False
        for index, part in enumerate(self.parts):
            before = self._separators[index - 1 : index] if index else b">"
            if before == b">":
                (self._texts if part.strip() else self._blank).append(index)
                continue
            quoted = before == b'"' and not quoted
            if quoted:
                fixed = declares or b"xmlns" in self.parts[index - 1]
                (self._fixed if fixed else self._attributes).append(index)
                continue
            if before == b"<":
                declares = part.startswith(b"?")
                if not _NAME.match(part) or (declares and (index > 1 or self.parts[0])):
                    return False
                self._fixed += [0] * declares  # nothing may stand before a declaration
            if b"'" in part:
                return False
            self.pieces.append(index)
        return True

    def marked(self) -> bytes:
        """Return the document with a mark in place of each value."""
        parts = list(self.parts)
        for number, index in enumerate((*self._texts, *self._attributes)):
            parts[index] = _MARK.format(number).encode()
        ends = [bytes([byte]) for byte in self._separators] + [b""]
        return b"".join(part + end for part, end in zip(parts, ends, strict=True))

    def form(self, tree: Any) -> XmlForm | None:
        """Return the form, given the tree of the marked document; None: a mark is not a value of its own."""
        marks = {_MARK.format(number): number for number in range(len(self._texts) + len(self._attributes))}
        places: dict[int, Path] = {}
        constants: list[tuple[Path, Any]] = []
        for pointer, leaf in _leaves(tree, ()):
            if leaf in marks:
                places[marks[leaf]] = pointer
            else:
                constants.append((pointer, leaf))
        if len(places) < len(marks) or any(_MARK[:16] in str(leaf) for _, leaf in constants):
            return None
        return XmlForm(
            fixed=_getter(self._fixed),
            fixed_values=_getter(self._fixed)(self.parts),
            blank=_getter(self._blank),
            texts=_getter(self._texts),
            attributes=_getter(self._attributes),
            constants=tuple(leaf for _, leaf in constants),
            pointers=[*(places[number] for number in range(len(marks))), *(pointer for pointer, _ in constants)],
        )


def _leaves(tree: Any, path: Path) -> list[tuple[Path, Any]]:
    if isinstance(tree, (dict, list)):
        members = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, member in members for leaf in _leaves(member, (*path, key))]
    return [(path, tree)]
