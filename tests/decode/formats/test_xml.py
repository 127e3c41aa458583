"""XML: elements and attributes as a tree, and every bomb refused."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.xml import XmlPart
from sensegate.errors import ProfileError, Rejected
from tests.decode.formats.compiled import parse_with

GOOD: list[tuple[XmlPart | None, str, Any]] = [
    (None, "<a>1</a>", {"a": "1"}),
    (None, "<a/>", {"a": None}),
    (None, "<a> \n </a>", {"a": None}),
    (None, '<a x="1" y=""/>', {"a": {"@x": "1", "@y": ""}}),
    (None, '<a x="1"> t <b/></a>', {"a": {"@x": "1", "b": None, "#text": "t"}}),
    (None, "<r><s>1</s><t>2</t><s>3</s><s/></r>", {"r": {"s": ["1", "3", None], "t": "2"}}),
    (XmlPart(lists=("s",)), "<r><s>1</s></r>", {"r": {"s": ["1"]}}),
    (None, "<r><![CDATA[a<b]]>&lt;&#x6e29;<!-- c --></r>", {"r": "a<b<温"}),
    (None, '<?xml version="1.0"?>\n<?target x?><r>1</r>\n', {"r": "1"}),
    (None, '<r xmlns="urn:a" xmlns:b="urn:b"><b:s b:k="v">1</b:s></r>', {"r": {"s": {"@k": "v", "#text": "1"}}}),
    (
        XmlPart(namespaces={"om": "urn:b"}),
        '<r xmlns="urn:a" xmlns:b="urn:b"><b:s b:k="v">1</b:s><s>2</s></r>',
        {"r": {"om:s": {"@om:k": "v", "#text": "1"}, "s": "2"}},
    ),
]


@pytest.mark.parametrize(("options", "text", "tree"), GOOD)
def test_a_document_becomes_a_tree(options: XmlPart | None, text: str, tree: Any) -> None:
    """Attributes, text, elements that repeat, namespaces."""
    assert parse_with("xml", options)(text.encode()) == tree


def test_character_sets() -> None:
    """The document's own word counts, that of the rule before it; a byte order mark may stand there."""
    document = '<?xml version="1.0" encoding="GB2312"?><站>广州</站>'
    assert parse_with("xml")(document.encode("gbk")) == {"站": "广州"}
    assert parse_with("xml", charset="gbk")('<?xml version="1.0" encoding="UTF-8"?><a>温</a>'.encode("gbk")) == {
        "a": "温"
    }
    assert parse_with("xml")("\ufeff<?xml version='1.0' encoding='utf-8'?><a>温</a>".encode()) == {"a": "温"}
    assert parse_with("xml", charset="utf-16")("<a>温</a>".encode("utf-16")) == {"a": "温"}
    with pytest.raises(Rejected, match="malformed: unknown character encoding 'ebcdic'"):
        parse_with("xml")(b'<?xml version="1.0" encoding="ebcdic"?><a/>')
    with pytest.raises(Rejected, match="not_utf8"):
        parse_with("xml")("<a>温</a>".encode("gbk"))


LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 10}">' for k in range(9)
) + "]><l>&j;</l>"  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "malformed: has a document type"),
        ('<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>', "malformed: has a document type"),
        ('<!DOCTYPE r SYSTEM "http://127.0.0.1/x.dtd"><r/>', "malformed: has a document type"),
        ("<!DOCTYPE r><r/>", "malformed: has a document type"),
        ("<r>&unknown;</r>", "malformed: is not XML at line 1, column 4"),
        ("", "malformed: is not XML"),
        ("text", "malformed: is not XML"),
        ("<a><b></a>", "malformed: is not XML at line 1"),
        ("<a/><b/>", "malformed"),
        ('<a x="1" x="2"/>', "malformed"),
        ("<a>\x00</a>", "malformed"),
        ('<a xmlns:p="urn:p" x="1" p:x="2"/>', "malformed: attributes of two namespaces"),
        ("<a>" * 33 + "</a>" * 33, "too_deep"),
        ("<a>" + "<b/>" * 70_000 + "</a>", "schema: more than"),
    ],
)
def test_what_is_no_document_is_refused(text: str, why: str) -> None:
    """Entities of every kind, documents cut short, nesting and numbers without end."""
    with pytest.raises(Rejected, match=why):
        parse_with("xml")(text.encode())


def test_one_namespace_has_one_prefix() -> None:
    """Two prefixes of one namespace would make its names a matter of chance."""
    with pytest.raises(ProfileError):
        parse_with("xml", XmlPart(namespaces={"a": "urn:x", "b": "urn:x"}))


names = st.text("abcdefgh", min_size=1, max_size=3)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"), max_size=8
)
elements = st.recursive(
    texts.map(str.strip).map(lambda text: text or None),
    lambda inner: st.dictionaries(
        names, inner | st.lists(inner, min_size=2, max_size=3), min_size=1, max_size=3
    ) | st.builds(lambda a, b: a | b, st.dictionaries(names.map("@{}".format), texts, min_size=1, max_size=2),
                  st.dictionaries(names, inner, max_size=2)),
    max_leaves=8,
)  # fmt: skip


def written(name: str, element: Any) -> str:
    """Return an element as XML."""
    if isinstance(element, list):
        return "".join(written(name, item) for item in element)
    if not isinstance(element, dict):
        return f"<{name}>{escape(element or '')}</{name}>"
    attributes = "".join(f" {key[1:]}={quoteattr(value)}" for key, value in element.items() if key.startswith("@"))
    inner = "".join(written(key, value) for key, value in element.items() if not key.startswith("@"))
    return f"<{name}{attributes}>{inner}</{name}>"


@given(names, elements)
def test_round_trip(name: str, element: Any) -> None:
    """What was written comes back."""
    assert parse_with("xml")(written(name, element).encode()) == {name: element}
