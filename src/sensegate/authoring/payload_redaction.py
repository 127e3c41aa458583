"""Redaction of payloads for the maker of a device: the form of a message stays, what may name a person or a place goes.

The rules of masks, applied to what no profile has read yet:

* ids of devices become pseudonyms (``device-1``);
* texts stay only where the profile itself contains them, or where they are times or numbers; else their length
  is shown;
* coordinates are rounded to a tenth of a degree, about ten kilometres;
* numbers of 11 digits and more that are no times, as of telephones and identity cards, become nines;
* frames, as hexadecimal or base64 in a field that the profile names, and bytes that are no text, stay where the profile
  reads no position; else only the first of them.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec

from sensegate.model import is_slug

DEPTH_MAX = 32
TEXT_MAX = 65_536
HEAD_BYTES = 16
_PLACE_KEY = re.compile(
    r"(?i)(?:^|[_.-])(?:lat|lon|lng|long|latitude|longitude|coord\w*|gps\w*|position|location)(?:$|[_.-])"
)
_POSITION = re.compile(r"(?i)\b(?:lat|lon|latitude|longitude|position|jtt808)\b")
_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}([T ]?\d{2}:?\d{2}(:?\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,12})?([eE][+-]?\d{1,2})?")
_TOKEN = re.compile(r"[^,;|&=\s\"'{}\[\]()<>]+")
_LONG = 11
"""Digits from which a number may be that of a person."""
_TIMES = ((10, 1_000_000_000, 4_000_000_000),)
_FACTORS = (1, 1_000, 1_000_000, 1_000_000_000)


class Redactor:
    """Redacts the payloads of one profile's devices, with the same pseudonym for the same device."""

    def __init__(self, profile_text: str) -> None:
        """`profile_text`: whose words are no secret."""
        words = re.findall(r"[\w.%°/µ-]+", profile_text)
        self._words = frozenset(part for word in words for part in (word, *word.split(".")))
        self._reads_positions = bool(_POSITION.search(profile_text))
        self._names: dict[str, str] = {}

    def pseudonym(self, *names: str) -> str:
        """Return the pseudonym of a device, and replace all its names by it from now on."""
        known = [name for name in names if name]
        given = next(
            (self._names[name] for name in known if name in self._names), f"device-{len(set(self._names.values())) + 1}"
        )
        for name in known:
            self._names.setdefault(name, given)
        return given

    def text(self, text: str) -> str:
        """Return a text (a topic, a detail) with pseudonyms, without words that the profile does not know."""
        return _TOKEN.sub(lambda match: self._word(match[0]), self._named(text))

    def topic(self, topic: str) -> str:
        """Return a topic with pseudonyms; a level that is no plain identifier is replaced."""
        levels = self._named(topic).split("/")
        return "/".join(level if is_slug(level) or level in self._words else self._string(level) for level in levels)

    def payload(self, payload: bytes) -> bytes:
        """Return a payload that may be passed on."""
        part = payload[:TEXT_MAX]
        try:
            text = part.decode()
        except UnicodeDecodeError:
            return self._bytes(payload)
        if not all(letter.isprintable() or letter in "\r\n\t" for letter in text):
            return self._bytes(payload)
        try:
            tree = msgspec.json.decode(part)
        except (msgspec.DecodeError, RecursionError):
            return self.text(text).encode()
        return msgspec.json.encode(self._tree(tree, "", 0))

    def _bytes(self, payload: bytes) -> bytes:
        return payload[:HEAD_BYTES] if self._reads_positions else payload

    def _tree(self, value: Any, key: str, depth: int) -> Any:
        if depth > DEPTH_MAX:
            return None
        match value:
            case dict():
                return {self._key(name): self._tree(item, name, depth + 1) for name, item in value.items()}
            case list():
                return [self._tree(item, key, depth + 1) for item in value]
            case bool() | None:
                return value
            case int() | float():
                return self._number(value, key)
            case _:
                return self._string(self._named(str(value)), key)

    def _key(self, name: str) -> str:
        named = self._named(name)
        return named if is_slug(named) or named in self._words else self._string(named)

    def _number(self, value: float, key: str) -> float:
        if _PLACE_KEY.search(key):
            return round(value, 1)
        digits = len(str(abs(int(value)))) if abs(value) < 1e18 else _LONG
        if digits < _LONG or _is_time(int(value)):
            return value
        return int("9" * min(digits, 18))

    def _named(self, text: str) -> str:
        for name, given in self._names.items():
            text = text.replace(name, given)
        return text

    def _word(self, word: str) -> str:
        return word if word.rstrip(".:") in self._words else self._string(word)

    def _string(self, text: str, key: str = "") -> str:
        if not text or text in self._words or text in self._names.values() or _TIME.fullmatch(text):
            return text
        if _NUMBER.fullmatch(text):
            number = self._number(float(text), key)
            return text if number == float(text) else str(number)
        if key in self._words and (blob := _blob(text)) is not None:
            return text if self._bytes(blob) == blob else f"<{len(blob)} bytes>"
        return f"<text of {len(text)}>"


def _is_time(value: int) -> bool:
    """Return whether a number is a time from 2001 to 2096, in s, ms, µs or ns, or as 20260102030405."""
    _, low, high = _TIMES[0]
    return (
        any(low * factor <= value < high * factor for factor in _FACTORS)
        or 2_000_0101_000000 <= value < 2_099_1231_240000
    )


def _blob(text: str) -> bytes | None:
    """Return the bytes of a hexadecimal or base64 text that holds no readable text; None: it is something else."""
    if len(text) < 8:
        return None
    try:
        data = bytes.fromhex(text) if re.fullmatch(r"[0-9A-Fa-f]+", text) else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    if re.search(rb"[A-Za-z\x80-\xff]{4}", data) and _is_text(data):
        return None
    return data


def _is_text(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False
