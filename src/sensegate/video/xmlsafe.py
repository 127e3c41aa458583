"""Bounded parsing of untrusted XML to a tree, without document types, in the character sets that cameras declare.

The tree has the form of ONVIF's JSON: elements are dicts, attributes ``@name``, text beside attributes ``#text``; an
element with text only is that text, an empty one None, and a repeated one a list. Names lose their namespace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

BYTES_MAX: Final = 262_144
DEPTH_MAX: Final = 32
ATTRIBUTES_MAX: Final = 64
"""Greatest number of attributes of one element."""
MEMBERS_MAX: Final = 50_000
"""Greatest number of elements and attributes of a document."""

Tree = dict[str, Any]

_DECLARATION = re.compile(r"""\s*<\?xml\s[^>]{0,160}?\?>""")
_ENCODING = re.compile(
    rb"""^(?:\xef\xbb\xbf)?\s{0,16}<\?xml\s[^>]{0,120}?encoding\s{0,4}=\s{0,4}["']([A-Za-z0-9_.:-]{1,20})["']"""
)
_FORBIDDEN = re.compile(r"<!\s*(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    # not supported by expat; the largest set covers the smaller ones
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "gb18030": "gb18030",
    "gb_2312-80": "gb18030",
}


def text_of(payload: bytes) -> str:
    """Decode a document to text without its XML declaration.

    Raises:
        Rejected: if it is too large, has an unsupported or wrong character set, or a document type or entities.
    """
    if len(payload) > BYTES_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"XML of {len(payload)} bytes; at most {BYTES_MAX}")
    charset = "utf-8"
    if payload[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        charset = "utf-16"
    elif encoding := _ENCODING.match(payload):
        name = encoding[1].decode("ascii").lower()
        if name not in _CHARSETS:
            raise Rejected(QuarantineReason.MALFORMED, "the character set is not supported; send UTF-8 or GB 18030")
        charset = _CHARSETS[name]
    try:
        text = payload.decode(charset).removeprefix("\ufeff")
    except UnicodeDecodeError as why:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {why.start} is not {charset.upper()}") from None
    if _FORBIDDEN.search(text):
        raise Rejected(QuarantineReason.MALFORMED, "the document has a document type or entities")
    # Anchored at the start: a search would retry before every blank of a long run.
    declared = _DECLARATION.match(text)
    return text[declared.end() :] if declared else text


class _TreeBuilder:
    """Parser target that builds the tree."""

    def __init__(self) -> None:
        self._members = 0
        self._open: list[Tree] = [{}]
        self._text: list[list[str]] = [[]]

    def start(self, _tag: str, attributes: Mapping[str, str]) -> None:
        if len(self._open) > DEPTH_MAX + 1:
            raise Rejected(QuarantineReason.TOO_DEEP, f"elements nested deeper than {DEPTH_MAX}")
        if len(attributes) > ATTRIBUTES_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"an element with more than {ATTRIBUTES_MAX} attributes")
        self._members += 1 + len(attributes)
        if self._members > MEMBERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} elements and attributes")
        self._open.append({f"@{name.rpartition('}')[2]}": value for name, value in attributes.items()})
        self._text.append([])

    def data(self, text: str) -> None:
        self._text[-1].append(text)

    def end(self, tag: str) -> None:
        element = self._open.pop()
        text = "".join(self._text.pop()).strip()
        if element and text:
            element["#text"] = text
        name = tag.rpartition("}")[2]
        value: Any = element or text or None
        parent = self._open[-1]
        if name not in parent:
            parent[name] = value
        elif isinstance(present := parent[name], list):
            present.append(value)
        else:
            parent[name] = [present, value]

    def close(self) -> Tree:
        return self._open[0]


def tree(payload: bytes, prefixes: Mapping[str, str] | None = None) -> Tree:
    """Parse a document with one root, or a fragment with several.

    `prefixes` (prefix -> namespace) apply if the document does not declare them, as fragments do not.

    Raises:
        Rejected: if it is not XML, or exceeds a limit; the detail quotes nothing of it.
    """
    text = text_of(payload)
    bound = "".join(f" xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in (prefixes or {}).items())
    parser = DefusedXMLParser(target=_TreeBuilder(), forbid_dtd=True)
    try:
        parser.feed(f"<_{bound}>{text}</_>")
        grown = cast("Tree", parser.close())
    except ParseError as why:
        line, column = why.position
        raise Rejected(
            QuarantineReason.MALFORMED, f"the document is not XML at line {line}, column {column + 1}"
        ) from None
    except DefusedXmlException:
        raise Rejected(QuarantineReason.MALFORMED, "the document has a document type or entities") from None
    except ValueError:  # a NUL or surrogate that expat rejects
        raise Rejected(QuarantineReason.MALFORMED, "the document has characters that XML does not allow") from None
    top = grown["_"]
    if not isinstance(top, dict) or "#text" in top:
        raise Rejected(QuarantineReason.MALFORMED, "the document has no root element, or text beside it")
    return top
