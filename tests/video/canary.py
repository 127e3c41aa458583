"""Marked personal values, how they are planted into messages of cameras, and how they are looked for in any bytes.

Looked for in UTF-8, GBK, UTF-16 of both orders, base64 (of UTF-8 and GBK, at each of its alignments), hex, percent
and JSON escapes; numbers also as 8 bytes, integer or float, of both orders. Bytes that ours compresses (zstd) are
decompressed wherever a frame begins; what ours packs in columns is read by our own readers first (`unpacked`).
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import re2
import zstandard

from sensegate.authoring.examples import payload_of
from sensegate.decode.profiles import ProfileSet, any_video_profile, files
from sensegate.video.pseudonyms import KeyedPseudonymiser
from tests.video.viid_bodies import BODIES

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(64, 112)) + b"\xff\xd9").decode()
FEATURE = base64.b64encode(struct.pack("<16f", *(0.0173 * n - 0.11 for n in range(16)))).decode()

MARKS: Final[dict[str, str]] = {
    "name": "欧阳震华",
    "name in letters": "Zhang Weiming",
    "former name": "上官婉晴",
    "ID number": "440106199003077758",
    "ID number with X": "44010619880307773X",
    "passport": "E83921746",
    "permit": "C08271645",
    "officer's number": "粤公警字第0382917号",
    "phone": "13987651234",
    "phone abroad": "+8613987650987",
    "phone at home": "020-83726451",
    "mail": "weiming.zhang@example.cn",
    "plate": "粤B7K3M9",
    "plate of an electric car": "粤AD92837",
    "plate of Hong Kong": "粤Z7K3M港",
    "plate abroad": "LK07XPD",
    "chassis number": "LSVAU2180N2183294",
    "driving licence": "440106198811223345",
    "bank card": "6222021234567890123",
    "face": JPEG,
    "face in a URL": f"data:image/jpeg;base64,{JPEG[4:]}",
    "feature": FEATURE,
    "feature in numbers": "0.183726,-0.928371,0.445566,0.728394",
    "picture's URL": "http://10.83.72.64/pic/face_8827123.jpg",
    "stream's URL": "rtsp://admin:Qw3rty88@10.83.72.64/live",
    "picture's path": "/pic/2026/欧阳8827.jpg",
    "MAC": "3C:22:FB:7A:91:5E",
    "IMSI": "460018273645019",
    "IMEI": "867530912837465",
    "network": "欧阳家的WiFi",
    "address": "天河区体育东路138号502房",
    "free text": "穿红衣服的女子与王某争吵",
    "free text in letters": "woman in red argues with Mr Wang",
    "case": "粤公刑立字2026第8273号",
    "ethnic group": "畲族人士",
    "chat name": "wxid_8f3k2m9q7z1",
    "QQ": "QQ:2938471650",
    "birthday": "1987年3月19日",
    "password": "P@ssw0rd!88271",
    "iris": "a9f37c21d8e04b6592ffab3310cd7e84a9f37c21d8e04b65",
    "office": "市委办公室秘书处处长",
    "way": "113.327816,23.139274;113.328004,23.139301",
}
KINDS: Final = tuple(MARKS)


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what of a text's base64 does not depend on its neighbours, at each alignment."""
    for skip in range(3):
        whole = base64.b64encode(bytes(skip) + raw)
        core = whole[-(-skip * 8 // 6) : len(whole) - (4 if (len(raw) + skip) % 3 else 0)]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


@cache
def forms(value: str) -> tuple[bytes, ...]:
    """Return the bytes as which a value would be found."""
    utf8, gbk = value.encode(), value.encode("gb18030")
    result = {utf8, gbk, value.encode("utf-16-le"), value.encode("utf-16-be")}
    for raw in {utf8, gbk}:
        result |= {*_base64(raw), raw.hex().encode(), raw.hex().upper().encode()}
    result |= {quote(value, safe="").encode(), quote(value, safe="").lower().encode(), quote(value).encode()}
    escaped = json.dumps(value)[1:-1]
    result |= {escaped.encode(), escaped.upper().encode().replace(b"\\U", b"\\u")}
    bare = "".join(sign for sign in value if sign.isalnum())
    if value.isascii() and bare.isdecimal() and len(bare) < 20:
        number = int(bare)
        result.add(bare.encode())
        for order in "<>":
            result |= {struct.pack(f"{order}q", number) if number < 2**63 else b"", struct.pack(f"{order}d", number)}
    return tuple(sorted(item for item in result if len(item) >= 6))


def _any_mark() -> Any:
    """Return a pattern of all forms of all marks: one pass over bytes that hold none, where each form would be one."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 * 1024**2
    every = (form for value in MARKS.values() for form in forms(value))
    return re2.compile(b"|".join(b"".join(b"\\x%02x" % byte for byte in form) for form in every), options)


ANY_MARK = _any_mark()


def marks_in(blob: bytes) -> dict[str, int]:
    """Return kind of mark -> place of its first occurrence in some bytes."""
    if ANY_MARK.search(blob) is None:
        return {}
    marks: dict[str, int] = {}
    for kind, value in MARKS.items():
        places = [at for form in forms(value) if (at := blob.find(form)) >= 0]
        if places:
            marks[kind] = min(places)
    return marks


_ZSTD = b"\x28\xb5\x2f\xfd"


def opened(blob: bytes) -> Iterator[bytes]:
    """Yield some bytes, and what every zstd frame in them holds."""
    yield blob
    at = blob.find(_ZSTD)
    while at >= 0:
        try:
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob[at:])) as reader:
                yield reader.read(64 * 1024**2)
        except zstandard.ZstdError:
            pass
        at = blob.find(_ZSTD, at + 4)


# ── planting ─────────────────────────────────────────────────────────────────────────────────────────


def planted(payload: bytes, shift: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, message) for one mark in each place of a good message, and for many at once.

    `shift` says which kind comes to which place; over all shifts each comes to each.
    """
    try:
        tree = json.loads(payload)
    except ValueError:
        yield from _in_text(payload.decode("utf-8", "surrogateescape"), shift)
        return
    places = list(_places(tree))
    for at, place in enumerate(places):
        value = MARKS[KINDS[(at + shift) % len(KINDS)]]
        yield f"{place}", _dump(_put(tree, place, value))
        yield f"{place} in a list", _dump(_put(tree, place, [value, {"Name": value}]))
        if value.isdecimal():
            yield f"{place} as a number", _dump(_put(tree, place, int(value)))
    for at, place in enumerate([(), *(place for place in places if isinstance(_get(tree, place), dict))]):
        holder = _get(tree, place)
        if isinstance(holder, dict):
            value = MARKS[KINDS[(at + shift) % len(KINDS)]]
            more = {**holder, "Name": value, "IDNumber": value, "Data": value, "extra": {"deep": [value]}, value: 1}
            yield f"{place} with more members", _dump(_put(tree, place, more))
    whole = tree
    for at, place in enumerate(places):
        if not isinstance(_get(tree, place), (dict, list)):
            whole = _put(whole, place, MARKS[KINDS[(at * 7 + shift) % len(KINDS)]])
    yield "everywhere", _dump(whole)
    yield "everywhere as GBK", json.dumps(whole, ensure_ascii=False).encode("gb18030")
    yield "everywhere as UTF-16", json.dumps(whole, ensure_ascii=False).encode("utf-16")
    yield "everywhere, escaped", json.dumps(whole).encode()
    yield from malformed(_dump(whole))


def malformed(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield bodies that are no message of any format, with what was planted in them."""
    text = MARKS["free text"].encode()
    yield "cut off", good[: len(good) * 2 // 3]
    yield "text behind it", good + text
    yield "text before it", text + good
    yield "a list of it", b"[" + good + b"]"
    yield "a string", json.dumps(good.decode("utf-8", "replace")).encode()
    yield "a bare text", text
    yield "a bare number", MARKS["ID number"].encode()
    yield "nested", b'{"a":' * 200 + json.dumps(MARKS["name"]).encode() + b"}" * 200
    yield "NUL bytes", good.replace(b" ", b"\0")
    yield "a picture", base64.b64decode(JPEG)


def _in_text(text: str, shift: int) -> Iterator[tuple[str, bytes]]:
    """Plant in XML and other text: every run of characters that is a value, one by one and all at once."""
    values = list(
        re.finditer(r'(?<=>)[^<>]+(?=<)|(?<==")[^"<>]*(?=")|(?<=[:=])\s*"[^"]*"|(?<=[:=;])[^:=;"<>{}\[\],\r\n]+', text)
    )

    def with_marks(which: list[int]) -> bytes:
        parts: list[str] = []
        last = 0
        for at in which:
            result = values[at]
            value = MARKS[KINDS[(at + shift) % len(KINDS)]]
            quoted = f'"{value}"' if result[0].strip().startswith('"') else value
            parts += [text[last : result.start()], quoted]
            last = result.end()
        return "".join([*parts, text[last:]]).encode("utf-8", "surrogateescape")

    for at, entry in enumerate(values):
        yield f"{entry[0][:20]!r} at {entry.start()}", with_marks([at])
    everywhere = with_marks(list(range(len(values))))
    yield "everywhere", everywhere
    yield "everywhere as GBK", everywhere.decode("utf-8", "replace").encode("gb18030", "replace")
    name = MARKS[KINDS[shift % len(KINDS)]]
    if text.lstrip().startswith("<"):
        yield "an element more", text.replace("</", f"<Name>{name}</Name></", 1).encode("utf-8", "surrogateescape")
        yield "an entity", f'<!DOCTYPE a [<!ENTITY b "{name}">]>{text}'.encode("utf-8", "surrogateescape")
        yield "a comment", text.replace(">", f"><!-- {name} -->", 2).encode("utf-8", "surrogateescape")
    yield from malformed(everywhere)


def _places(tree: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, member in members:
        yield (*place, name)
        yield from _places(member, (*place, name))


def _get(tree: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def _put(tree: Any, place: tuple[str | int, ...], value: Any) -> Any:
    if not place:
        return value
    part, rest = place[0], place[1:]
    if isinstance(tree, dict):
        return {name: _put(item, rest, value) if name == part else item for name, item in tree.items()}
    if isinstance(tree, list):
        return [_put(item, rest, value) if at == part else item for at, item in enumerate(tree)]
    return tree


def _dump(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode()


PROFILES = [file for file in files([Path(__file__).parents[2] / "device_profiles"]) if any_video_profile([file])]


AT = 1_795_832_104_000_000


PSEUDONYMISER = KeyedPseudonymiser(b"canary")


def bases() -> dict[str, list[tuple[str, bytes]]]:
    """Return format -> (topic, payload) of the examples of its profiles."""
    bases: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    profiles = ProfileSet.load(PROFILES)
    for name in profiles.ids:
        profile = profiles.find(name)
        assert profile
        for example in profile.source.examples:
            matched = [rule.video for rule, _ in profiles.match(example.topic) if rule.video]
            names = matched or [rule.video for rule in profile.rules if rule.video]
            for form in dict.fromkeys(names):
                bases[form].append((example.topic, payload_of(example)))
    bases["viid"] += [("viid/network/objects", payload) for payload in BODIES.values()]
    return bases


BASES = bases()
