"""XML as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.decode import Decoder
from sensegate.decode.formats.xml import FORMAT, XmlPart
from sensegate.decode.frame import FormatContext
from sensegate.decode.learned_forms import FORMS_MAX
from sensegate.decode.xml_columns import XmlColumns
from sensegate.errors import ProfileError
from sensegate.model import Message
from tests.bench.decode import NOW, Fleet
from tests.bench.formats import NAMES, makers, profiles
from tests.decode.bulk import FEW, assert_bulk_is_single, mutated, mutations
from tests.decode.formats.flat_values import flat, same_values, tree_of


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def columns(options: XmlPart | None = None) -> XmlColumns:
    """Return a new parse."""
    return XmlColumns(FORMAT.compile(options, FormatContext("vendor/model", 1, Path(), _error)), 16)


def agrees(parse: XmlColumns, document: bytes) -> bool:
    """Return whether a document has flat values that are those of its tree; assert that others have none."""
    values = flat(parse, document)
    expected = tree_of(parse._parse, document)
    if values is None:
        return False
    assert same_values(values, expected)
    return True


VALUES = st.sampled_from(
    ["1", "21.5", " 3 ", "", " ", "\n", "a\nb", "x y", '"q"', "it's", "a>b", "]]>", "温", "\t1", "\x7f"]
)
NAMED = st.sampled_from(["a", "b", "v:c", "temp", "_x"])
ATTRIBUTES = st.dictionaries(st.sampled_from(["id", "v:k", "value", "xmlns:v", "xml:lang"]), VALUES, max_size=3)
NESTED = st.recursive(VALUES, lambda inner: st.lists(st.tuples(NAMED, ATTRIBUTES, inner), max_size=3), max_leaves=6)


def _element(name: str, attributes: dict[str, str], inner: Any) -> str:
    held = "".join(f" {key}={_quoted(value)}" for key, value in attributes.items())
    if isinstance(inner, str):
        return f"<{name}{held}>{inner if inner == ']]>' else escape(inner, {'>': '>'})}</{name}>"
    members = "".join(_element(*member) for member in inner)
    return f"<{name}{held}>{members}</{name}>" if members else f"<{name}{held}/>"


def _quoted(value: str) -> str:
    mark = "'" if '"' in value else '"'
    return f"{mark}{escape(value, {'>': '>'})}{mark}"


@given(
    st.lists(st.tuples(NAMED, ATTRIBUTES, NESTED), min_size=1, max_size=2),
    st.sampled_from(["", '<?xml version="1.0" encoding="UTF-8"?>\n', ' <?xml version="1.0"?>', "<!-- c -->", "\r\n"]),
    st.sampled_from([None, XmlPart(lists=("a",)), XmlPart(namespaces={"o": "urn:v"})]),
    st.data(),
)
def test_values_are_those_of_the_tree(
    members: list[tuple[str, dict[str, str], Any]], start: str, options: XmlPart | None, data: st.DataObject
) -> None:
    """Before and after a form is learned, for documents that differ in texts, attributes and single bytes."""
    parse = columns(options)
    inner = "".join(_element(*member) for member in members)
    document = f'{start}<r xmlns:v="urn:v">{inner}</r>'.encode()
    for _ in range(4):
        agrees(parse, document)
    for old in ("1", "21.5", "x y"):
        for new in data.draw(st.lists(VALUES, max_size=2)):
            agrees(parse, document.replace(f">{old}<".encode(), f">{new}<".encode()))
            agrees(parse, document.replace(f'"{old}"'.encode(), f'"{new}"'.encode()))
    for changed in mutated([document] * 4, data.draw(mutations(8))):
        agrees(parse, changed)


USUAL = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<report xmlns="urn:r" id="{number}">\n'
    "  <at>2026-01-01T00:00:0{number}Z</at>\n"
    '  <value name="t" unit="Cel">{value}</value>\n  <value name="h" v="{value}"/>\n  <note></note>\n</report>\n'
)


def test_usual_documents_have_a_form() -> None:
    """Elements and attributes, a declaration, a namespace, white space and what is empty."""
    parse = columns()
    for number in range(6):
        document = USUAL.format(number=number, value=number / 2).encode()
        assert agrees(parse, document)
    assert parse.known(document) is not None
    assert parse.count == 1
    for place, byte in (
        (b"urn:r", b"urn:s"),
        (b"UTF-8", b"GBK"),
        (b"<at>2", b"<at>&lt;"),
        (b"<note></note>", b"<note>x</note>"),
    ):
        assert parse.known(document.replace(place, byte)) is None
        assert agrees(parse, document.replace(place, byte))


@pytest.mark.parametrize(
    "other",
    [
        b"<r><a></a></r>", b"<r><a> </a></r>", b"<r>t<a>1</a></r>", b"<r><a>1</a>t</r>", b"<r><a>1>2</a></r>",
        b"<r><a>]]></a></r>", b"<r><a>&amp;</a></r>", b"<r><a>\xff</a></r>", b"<r><a>\x01</a></r>", b"<r><a>1</b></r>",
        b"<r><a>1</a></r><r/>", b"<r><a>1</a>", b"x<r><a>1</a></r>", b"<r><a>1\r2</a></r>", b"<r><a>1\t2</a></r>",
    ],
)  # fmt: skip
def test_other_documents_are_not_of_a_form(other: bytes) -> None:
    """What looks like a form and is another document, or none, is read or refused as by its tree."""
    parse = columns()
    for number in range(5):
        assert agrees(parse, b"<r><a>%d</a></r>" % number)
    assert parse.count == 1
    assert parse.known(other) is None
    assert agrees(parse, other) == (tree_of(parse._parse, other) is not None)


def test_forms_are_bounded() -> None:
    """Beyond the limit further documents go through their trees."""
    parse = columns()
    for number in range(FORMS_MAX + 9):
        for _ in range(4):
            assert agrees(parse, b"<a%d>1</a%d>" % (number, number))
    assert parse.count == FORMS_MAX


@settings(max_examples=FEW)
@given(mutations(), st.integers(0, 9))
def test_bulk_is_single(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int]], seed: int
) -> None:
    """Documents of a fleet, whole and spoilt, give the same in bulk as one by one."""
    r = random.Random(seed)
    maker = makers()["xml"]
    loaded = profiles({"xml": maker}, tmp_path_factory.mktemp("xml"))
    batches = []
    for _ in range(2):
        sent = [maker.payload((NOW // 10**6, tuple(r.randrange(900) for _ in NAMES))) for _ in range(24)]
        batches.append(
            [
                Message(f"bench/0/d{number % 3:05d}", raw, NOW + number, number)
                for number, raw in enumerate(mutated(sent, changes))
            ]
        )
    bulk = assert_bulk_is_single(lambda: Decoder(loaded, Fleet(["bench/0"], 3)), batches)
    assert bulk.plans.count
