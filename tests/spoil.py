"""Good messages, spoilt in one place by what senders really write there: other types, shapes, cases and sizes.

`spoilt` yields (what was done, how it is made) for each change in each place, by what the payload is: JSON, XML,
MessagePack, CBOR, text, bytes; `swollen` what is as large as a message may be. Check values of the national protocols
are made right again, else nothing behind them were seen.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final
from xml.etree import ElementTree as ET

import cbor2
import msgspec

from sensegate.errors import Rejected
from sensegate.frames import checks, gbt26875, hj212, jtt808
from sensegate.video import xmlsafe
from tests.video.canary import MARKS

MARK: Final = MARKS["plate"] + MARKS["name"]
"""What nobody may be told of a message of video metadata."""
BIG: Final = 10**400
"""More than a float holds, and JSON may hold it."""
TEXTS: Final = (
    "", " ", "0", "-1", "1.", "1e999", "nan", "-inf", "Infinity", "²", "٣", "Ⅷ", "1_000", "0x1F", "+8613987651234",
    "1,5", "True", "null", "\x00", "\x7f", "\u202e", "\u2028", "ﬀ", "İ", "a" * 300, "1" * 5_000, "-" * 40, "." * 40,
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60-14:00", "2026-02-30T25:61:61Z", "00000000000000",
    "99991231235959999", "2026-01-01T00:00:00+99:99", "/", "a/b", "#", "+", "$x", "=", ";", "]]>", MARK,
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 255, 65_536, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**18, 10**30, BIG, -BIG,
    0.5, -0.0, 1e15, 1e16, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf,
)  # fmt: skip
TREES: Final[tuple[Any, ...]] = (
    None, True, False, [], {}, [[]], [{}], [None], [[[1]]], [True], ["a", 1], [[1, 2], [3, 4]], {"": None},
    {"#text": []}, {"@x": {}}, {"v": [1]}, {"a": {"a": {"a": [1]}}}, [BIG], {"x": BIG},
)  # fmt: skip
ODD: Final = (*TEXTS, *NUMBERS, *TREES, "\ud800", "a\udfff")
_SHAPES: Final[dict[str, Callable[[Any], Any]]] = {
    "in a list": lambda old: [old],
    "in two lists": lambda old: [[old]],
    "twice": lambda old: [old, old],
    "with null": lambda old: [None, old],
    "as text": json.dumps,
    "as a member": lambda old: {"value": old},
    "as its pairs": lambda old: [list(pair) for pair in old.items()] if isinstance(old, dict) else [old, old, old],
    "by its places": lambda old: (
        {str(at): value for at, value in enumerate(old)} if isinstance(old, list) else {"0": old}
    ),
    "as a number": lambda old: float(old) if isinstance(old, (int, str)) and str(old).isdecimal() else -1e9,
    "as a number of text": lambda old: str(old) if isinstance(old, (int, float)) else f" {old} ",
    "negative": lambda old: -old if isinstance(old, (int, float)) else f"-{old}",
}
_NAMES: Final[dict[str, Callable[[str], str]]] = {
    "upper": str.upper,
    "lower": str.lower,
    "swapped": str.swapcase,
    "with @": lambda name: f"@{name}",
    "with a prefix": lambda name: f"ns:{name}",
    "with a blank": lambda name: f"{name} ",
    "empty": lambda _: "",
    "marked": lambda _: MARK,
    "a number": lambda _: "0",
}
PLACES: Final = 150
"""Places that are changed of one message; of a larger one they are taken evenly."""

Place = tuple[str | int, ...]
Make = Callable[[], bytes]
"""Makes the message when it is asked for; raises one of `UNWRITABLE` where the form has no word for it."""
UNWRITABLE: Final = (OverflowError, ValueError, TypeError, cbor2.CBOREncodeError)
Changes = Iterator[tuple[str, Make]]


def spoilt(payload: bytes) -> Changes:
    """Yield (what was done, how it is made) for each change of a message in each place."""
    start = payload.lstrip()[:1]
    if framed(payload):
        yield from in_frame(payload)
        return
    if start in {b"{", b"["}:
        with suppress(ValueError):
            tree = json.loads(payload)
            yield from in_tree(tree, dumped)
            yield from in_bytes(payload, 12)
            return
    if start == b"<":
        with suppress(ET.ParseError, Rejected):
            text = xmlsafe.text_of(payload)
            yield from in_xml(text)
            yield from in_text(text)
            return
    for load, dump in _BINARY:
        tree = load(payload)
        if isinstance(tree, (dict, list)):
            yield from in_tree(tree, dump)
    with suppress(UnicodeDecodeError):
        text = payload.decode()
        if sum(sign.isprintable() or sign.isspace() for sign in text) > len(text) * 0.9:
            yield from in_text(text)
            return
    yield from in_bytes(payload)


def in_tree(tree: Any, dump: Callable[[Any], bytes]) -> Changes:
    """Yield a tree with each of its members spoilt."""
    for place in _some([(), *_places(tree)]):
        for odd in ODD:
            yield f"{place} = {_described(odd)}", partial(_with, dump, tree, place, odd)
        for label, shape in _SHAPES.items():
            yield f"{place} {label}", partial(_shaped, dump, tree, place, shape)
        if not place:
            continue
        yield f"{place} left out", partial(_with, dump, tree, place, _GONE)
        if isinstance(place[-1], str):
            for label, name in _NAMES.items():
                yield f"{place} named {label}", partial(_named, dump, tree, place, name)


def dumped(tree: Any) -> bytes:
    """Return a tree as JSON, with what JSON has no word for as people write it."""
    return json.dumps(tree).encode()


_GONE: Final = object()


def _described(odd: Any) -> str:
    text = "a big number" if isinstance(odd, int) and abs(odd) == BIG else repr(odd)
    return text if len(text) < 60 else f"{text[:20]}… ({len(text)})"


def _with(dump: Callable[[Any], bytes], tree: Any, place: Place, value: Any) -> bytes:
    return dump(_put(tree, place, value))


def _shaped(dump: Callable[[Any], bytes], tree: Any, place: Place, shape: Callable[[Any], Any]) -> bytes:
    return dump(_put(tree, place, shape(_get(tree, place))))


def _named(dump: Callable[[Any], bytes], tree: Any, place: Place, name: Callable[[str], str]) -> bytes:
    holder, old = _get(tree, place[:-1]), str(place[-1])
    return dump(_put(tree, place[:-1], {name(old) if key == old else key: value for key, value in holder.items()}))


def _places(tree: Any, place: Place = ()) -> Iterator[Place]:
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, member in members:
        yield (*place, name)
        yield from _places(member, (*place, name))


def _some(places: list[Any], most: int = PLACES) -> list[Any]:
    return places if len(places) <= most else [places[at * len(places) // most] for at in range(most)]


def _get(tree: Any, place: Place) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def _put(tree: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    part, rest = place[0], place[1:]
    if isinstance(tree, dict):
        pairs = ((name, _put(element, rest, value) if name == part else element) for name, element in tree.items())
        return {name: pair for name, pair in pairs if pair is not _GONE}
    members = (_put(element, rest, value) if at == part else element for at, element in enumerate(tree))
    return [member for member in members if member is not _GONE]


SIZE: Final = 200_000


def swollen(payload: bytes) -> Changes:
    """Yield (what was done, how it is made) for messages almost as large as they may be, in one place each."""
    fills = {
        "letters": "a" * SIZE,
        "digits": "1" * SIZE,
        "blanks": " " * SIZE,
        "marks": "<!" * (SIZE // 2),
        "dots": "a." * (SIZE // 2),
        "lines": "a\n" * (SIZE // 2),
        "pairs": "a=1;" * (SIZE // 4),
        "dashes": "1-" * (SIZE // 2),
        "names": MARK * (SIZE // 40),
    }
    start = payload.lstrip()[:1]
    with suppress(ValueError):
        tree = json.loads(payload) if start in {b"{", b"["} else None
        for place in _some([(), *_places(tree)], 40) if tree is not None else ():
            for label, fill in fills.items():
                yield f"{place} of {label}", partial(_with, dumped, tree, place, fill)
            yield f"{place} very often", partial(_shaped, dumped, tree, place, _often)
            yield f"{place} of many members", partial(_with, dumped, tree, place, {f"a{at}": at for at in range(9_000)})
            yield f"{place} of lists", partial(_with, dumped, tree, place, [[1]] * 30_000)
            yield f"{place} of objects", partial(_with, dumped, tree, place, [{"a": None}] * 15_000)
    if start == b"<":
        with suppress(ET.ParseError, Rejected):
            document = xmlsafe.text_of(payload)
            every = list(enumerate(ET.fromstring(document).iter()))  # noqa: S314 - our own examples
            for at, token in _some(every, 40):
                name = f"{token.tag.rpartition('}')[2]} ({at})"
                for label, fill in fills.items():
                    yield f"{name} of {label}", partial(_element, document, at, partial(_text, fill))
                    for key in list(token.attrib)[:2]:
                        altered = partial(_attribute, key, fill)
                        yield f"{name} @{key} of {label}", partial(_element, document, at, altered)
                yield f"{name} very often", partial(_element, document, at, partial(_shape, "very often"))
    with suppress(UnicodeDecodeError):
        text = payload.decode()
        for part in _some(list(_TOKEN.finditer(text)), 12):
            for label, fill in fills.items():
                yield f"{part[0][:20]!r} of {label}", partial(_replaced, text, part.start(), part.end(), fill)
        for at in _some([at for at, sign in enumerate(text) if _TOKEN.match(sign) is None], 12):
            yield f"{text[at]!r} at {at} very often", partial(_replaced, text, at, at, text[at] * SIZE)
    for at in _some(list(range(len(payload))), 12):
        for value in (0, 1, 0x20, 0x7F, 0xFF, payload[at]):
            yield f"byte {at} then {value} very often", partial(_spliced, payload, at, at, bytes([value]) * SIZE)
    yield "very often", partial(_spliced, payload, 0, 0, payload * max(1, SIZE // max(1, len(payload))))


def _often(old: Any) -> list[Any]:
    return [old] * max(2, SIZE // (len(json.dumps(old)) + 2))


# ── MessagePack and CBOR ─────────────────────────────────────────────────────────────────────────────


def _messagepack(payload: bytes) -> Any:
    with suppress(ValueError, TypeError, msgspec.DecodeError):
        return msgspec.msgpack.decode(payload)
    return None


def _cbor(payload: bytes) -> Any:
    with suppress(ValueError, TypeError, cbor2.CBORDecodeError):
        return cbor2.loads(payload)
    return None


_BINARY: Final[tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...]] = (
    (_messagepack, msgspec.msgpack.encode),
    (_cbor, cbor2.dumps),
)


# ── XML ──────────────────────────────────────────────────────────────────────────────────────────────

_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def in_xml(document: str) -> Changes:
    """Yield a document with each element and attribute spoilt."""
    root = ET.fromstring(document)  # noqa: S314 - our own examples
    texts = [text for text in (*TEXTS, "1e308", "9" * 20, "-0", " 1 ") if not _ILLEGAL.search(text)]
    for at, token in _some(list(enumerate(root.iter()))):
        name = f"{token.tag.rpartition('}')[2]} ({at})"
        for text in texts:
            yield f"{name} = {_described(text)}", partial(_element, document, at, partial(_text, text))
        for key in token.attrib:
            for text in texts:
                yield (
                    f"{name} @{key} = {_described(text)}",
                    partial(_element, document, at, partial(_attribute, key, text)),
                )
            yield f"{name} without @{key}", partial(_element, document, at, partial(_attribute, key, None))
        for label in (
            "twice",
            "thrice",
            "out",
            "in itself",
            "empty",
            "renamed",
            "upper",
            "lower",
            "and text",
            "a child",
        ):
            yield f"{name} {label}", partial(_element, document, at, partial(_shape, label))


Alter = Callable[[ET.Element, "ET.Element | None"], None]


def _element(document: str, at: int, alter: Alter) -> bytes:
    tree = ET.fromstring(document)  # noqa: S314 - our own examples
    every = list(tree.iter())
    parents = {child: parent for parent in every for child in parent}
    alter(every[at], parents.get(every[at]))
    written: bytes = ET.tostring(tree, encoding="utf-8")
    return written


def _text(text: str, element: ET.Element, _parent: ET.Element | None) -> None:
    element.text = text


def _attribute(key: str, text: str | None, element: ET.Element, _parent: ET.Element | None) -> None:
    if text is None:
        del element.attrib[key]
    else:
        element.set(key, text)


def _shape(mutation: str, element: ET.Element, parent: ET.Element | None) -> None:
    copy = ET.fromstring(ET.tostring(element).strip())  # noqa: S314 - our own examples
    copy.tail = None
    bare = "}" not in element.tag
    if mutation in {"twice", "thrice"} and parent is not None:
        parent.extend([copy] * (1 if mutation == "twice" else 2))
    elif mutation == "very often" and parent is not None:
        parent.extend([copy] * (SIZE // len(ET.tostring(copy))))
    elif mutation == "out" and parent is not None:
        parent.remove(element)
    elif mutation == "in itself":
        element.append(copy)
    elif mutation == "empty":
        element[:] = []
        element.text = None
        element.attrib.clear()
    elif mutation == "renamed":
        element.tag = "x"
    elif mutation in {"upper", "lower"} and bare:
        element.tag = element.tag.upper() if mutation == "upper" else element.tag.lower()
    elif mutation == "and text":
        element.tail = MARK
    elif mutation == "a child":
        element.append(ET.Element("Name", {"a": MARK}))


# ── text and bytes ───────────────────────────────────────────────────────────────────────────────────

_TOKEN = re.compile(r"""[^\s,;=&|:<>"'{}\[\]()#/]+""")


def in_text(text: str) -> Changes:
    """Yield a text with each word and each mark between words spoilt."""
    for token in _some(list(_TOKEN.finditer(text)), 60):
        for odd in (*TEXTS, "1e308", "9" * 20, "-5", "(1)", '"', "'", "\n", "\t", "\\"):
            yield f"{token[0][:20]!r} -> {_described(odd)}", partial(_replaced, text, token.start(), token.end(), odd)
    for at in _some([at for at, sign in enumerate(text) if _TOKEN.match(sign) is None], 60):
        for put in ("", text[at] * 2, text[at] * 40, " ", "=", ";", "\n", "x"):
            yield f"{text[at]!r} at {at} -> {put[:4]!r}", partial(_replaced, text, at, at + 1, put)
    for at in _some(list(range(len(text))), 60):
        yield f"cut at {at}", partial(_replaced, text, at, len(text), "")


def _replaced(text: str, start: int, stop: int, by: str) -> bytes:
    return (text[:start] + by + text[stop:]).encode()


def in_bytes(payload: bytes, most: int = 200) -> Changes:
    """Yield bytes with each of them changed, left out, doubled, and cut off there."""
    for at in _some(list(range(len(payload))), most):
        old = payload[at]
        for value in sorted({0, 1, 0x7F, 0x80, 0xFF, old ^ 1, old ^ 0x80, (old + 1) & 0xFF}):
            yield f"byte {at} = {value}", partial(_spliced, payload, at, at + 1, bytes([value]))
        yield f"byte {at} left out", partial(_spliced, payload, at, at + 1, b"")
        yield f"byte {at} doubled", partial(_spliced, payload, at, at, payload[at : at + 1])
        yield f"{at} bytes", partial(_spliced, payload, at, len(payload), b"")
        yield f"bytes from {at} on twice", partial(_spliced, payload, at, at, payload[at:])


def _spliced(payload: bytes, start: int, stop: int, by: bytes) -> bytes:
    return payload[:start] + by + payload[stop:]


# ── frames of the national protocols ─────────────────────────────────────────────────────────────────


def framed(payload: bytes) -> bool:
    """Return whether it is a frame of HJ 212, SL 651, JT/T 808 or GB/T 26875."""
    ends = payload.startswith(jtt808.MARK) and payload.endswith(jtt808.MARK)
    return (
        ends
        or payload.startswith((b"##", b"\x7e\x7e"))
        or (payload.startswith(b"@@") and payload.endswith(b"##"))
        or (payload[:1] == b"\x01" and payload[1:11].isalnum())
    )


def in_frame(frame: bytes) -> Changes:
    """Yield a frame with its content spoilt and lengths and check values that fit again."""
    if frame.startswith(b"##"):
        content = frame[6:-6] if frame.endswith(b"\r\n") else frame[6:-4]
        with suppress(UnicodeDecodeError):
            yield from _around(in_text(content.decode()), hj212.build)
        yield from _around(in_bytes(content, 60), hj212.build)
    elif frame.startswith(b"@@"):
        with suppress(Rejected):
            yield from _around(in_bytes(gbt26875.parse(frame).data), partial(_gbt26875, gbt26875.parse(frame)))
        yield from _around(in_bytes(frame[2:-3]), _summed)
    elif frame.startswith(b"\x7e\x7e") or frame[:1] == b"\x01":
        is_text = frame[:1] == b"\x01"
        inner = frame[: -4 if is_text else -2]
        of_text = in_text(inner.decode("latin-1")) if is_text else ()
        for fits in (False, True):
            yield from _around(itertools.chain(in_bytes(inner), of_text), partial(_sl651, len(inner), fits))
    else:
        inner = jtt808.unescape(frame[1:-1])[:-1]
        for fits in (False, True):
            yield from _around(in_bytes(inner), partial(_jtt808, len(inner), fits))
    yield from in_bytes(frame, 20)


def _around(changes: Iterable[tuple[str, Make]], build: Callable[[bytes], bytes]) -> Changes:
    for name, make in changes:
        yield name, partial(_built, build, make)


def _built(build: Callable[[bytes], bytes], make: Make) -> bytes:
    return build(make())


def _gbt26875(unit: gbt26875.Gbt26875Frame, data: bytes) -> bytes:
    return gbt26875.build(msgspec.structs.replace(unit, data=data))


def _summed(inner: bytes) -> bytes:
    return b"@@" + inner + bytes([checks.sum8(inner)]) + b"##"


def _jtt808(before: int, fits: bool, inner: bytes) -> bytes:  # noqa: FBT001 - the announced length is made to fit
    if fits:
        word = (int.from_bytes(inner[2:4]) + len(inner) - before) & 0xFFFF
        inner = inner[:2] + word.to_bytes(2) + inner[4:]
    return jtt808.MARK + jtt808.escape(inner + bytes([checks.xor8(inner)])) + jtt808.MARK


def _sl651(before: int, fits: bool, frame: bytes) -> bytes:  # noqa: FBT001 - the announced length is made to fit
    is_text, grown = frame[:1] == b"\x01", len(frame) - before
    if fits and is_text and grown:
        frame = frame[:19] + b"%04X" % ((int(frame[19:23], 16) + grown) & 0xFFFF) + frame[23:]
    elif fits and grown:
        frame = frame[:11] + ((int.from_bytes(frame[11:13]) + grown) & 0xFFFF).to_bytes(2) + frame[13:]
    crc = checks.crc_modbus(frame)
    return frame + (b"%04X" % crc if is_text else crc.to_bytes(2))
