"""XML: an object under the root element's name; elements are objects, attributes ``@name``, text ``#text``; all text.

An element with text alone becomes that text, an empty one null; a repeated one becomes a list (`lists` names those that
always are). A document type, and with it every entity, is refused (defusedxml). Names are without namespaces, except
for those in `namespaces`. The character encoding is the one that the document declares, unless the rule sets another.
"""

from __future__ import annotations

import re
from typing import Annotated, Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import MEMBERS_MAX, FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_DECLARED = re.compile(rb"""(?:\xef\xbb\xbf)?<\?xml\s[^>]{0,80}?encoding=["']([A-Za-z0-9_.-]{1,20})["']""")
_CHARSETS = {
    "utf-8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "gb2312": "gbk",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "iso-8859-1": "latin-1",
}


class XmlPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the conversion of the document to a tree."""

    lists: Annotated[tuple[str, ...], description("elements that are always lists, even if they occur once")] = ()
    namespaces: Annotated[dict[str, str], description("prefix -> namespace: its names become prefix:name")] = {}


class _Tree:
    """Builds the tree, as the parser's target."""

    def __init__(self, options: XmlPart, nesting_max: int) -> None:
        self._lists = frozenset(options.lists)
        self._prefixes = {uri: f"{prefix}:" for prefix, uri in options.namespaces.items()}
        self._nesting_max = nesting_max
        self._members = 0
        self._root: dict[str, Any] = {}
        self._open: list[dict[str, Any]] = [self._root]
        self._text: list[list[str]] = [[]]

    def start(self, _tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) > self._nesting_max:
            raise Rejected(QuarantineReason.TOO_DEEP, "nested too deeply")
        self._members += 1 + len(attributes)
        if self._members > MEMBERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} elements")
        element = {f"@{self._name(name)}": value for name, value in attributes.items()}
        if len(element) < len(attributes):
            raise Rejected(QuarantineReason.MALFORMED, "attributes of two namespaces have the same name")
        self._open.append(element)
        self._text.append([])

    def data(self, text: str) -> None:
        self._text[-1].append(text)

    def end(self, tag: str) -> None:
        element = self._open.pop()
        text = "".join(self._text.pop()).strip()
        if element and text:
            element["#text"] = text
        name, value = self._name(tag), element or text or None
        parent = self._open[-1]
        if name not in parent:
            parent[name] = [value] if name in self._lists else value
        elif isinstance(parent[name], list):
            parent[name].append(value)
        else:
            parent[name] = [parent[name], value]

    def close(self) -> dict[str, Any]:
        return self._root

    def _name(self, tag: str) -> str:
        if not tag.startswith("{"):
            return tag
        uri, _, name = tag[1:].rpartition("}")
        return self._prefixes.get(uri, "") + name


class _Document:
    """The parse of one kind of document."""

    def __init__(self, options: XmlPart, charset: str) -> None:
        self._options = options
        self._charset = charset

    def __call__(self, frame: PayloadFrame) -> Any:
        """Return the tree. Raises `Rejected` if the payload is not XML, or has a document type."""
        text = text_of(frame.payload, self._charset_of(frame.payload)).removeprefix("\ufeff")
        parser = DefusedXMLParser(target=_Tree(self._options, frame.nesting_max), forbid_dtd=True)
        try:
            parser.feed(text)  # text, not bytes: the declaration is not evaluated again
            return parser.close()
        except ParseError as error:
            line, column = error.position
            raise Rejected(QuarantineReason.MALFORMED, f"is not XML at line {line}, column {column + 1}") from error
        except DefusedXmlException as error:
            raise Rejected(QuarantineReason.MALFORMED, "has a document type or entities") from error

    def _charset_of(self, payload: bytes) -> str:
        match = _DECLARED.match(payload) if self._charset == "utf-8" else None
        if match is None:
            return self._charset
        name = match[1].decode().lower()
        if name not in _CHARSETS:
            raise Rejected(QuarantineReason.MALFORMED, f"unknown character encoding '{name}'")
        return _CHARSETS[name]


def _compile(options: XmlPart | None, context: FormatContext) -> Parse:
    options = options or XmlPart()
    if len(set(options.namespaces.values())) < len(options.namespaces):
        raise context.error("one namespace has two prefixes", "namespaces")
    return _Document(options, context.charset)


FORMAT = PayloadFormat(_compile, XmlPart, text=True, typed=False)
