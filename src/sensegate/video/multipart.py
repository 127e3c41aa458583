"""Multipart as cameras send it: parts of metadata between pictures, with headers that are often wrong. No I/O.

What ends a part is the line of the boundary, not the length that its head claims; one that is complete by what it
holds goes sooner. The boundary is the one that is declared, or the one that is seen: some cameras write another.
Pictures are counted, never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

HEAD_MAX: Final = 4_096
PART_MAX: Final = 262_144
"""Bytes of a part of metadata; of a longer one nothing is kept."""
PARTS_MAX: Final = 64
"""Of one body."""
BOUNDARY_MAX: Final = 100
_TAIL: Final = BOUNDARY_MAX + 8
_HEADER = re.compile(rb"[A-Za-z0-9-]{1,40}")
_LENGTH = re.compile(rb"\d{1,10}")
_KIND = re.compile(r"[a-z0-9!#$&^_.+/-]{0,60}")
_SIGNS = re.compile(rb"[!-~ ]{1,%d}" % BOUNDARY_MAX)
_DECLARED = re.compile(r"""boundary\s*=\s*("[^"]*"|[^;]*)""", re.IGNORECASE)
_PICTURES: Final = ("image/", "video/", "audio/", "application/octet-stream")
_PICTURE_STARTS: Final = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF")
PICTURE: Final = "image/unknown"
TOO_LONG: Final = "application/x-too-long"
"""Kinds of the empty parts that stand in the place of pictures, and of what was too long."""
MULTIPART: Final = "multipart/"


class Part(msgspec.Struct, frozen=True):
    """One part."""

    kind: str
    """Media type of its head, lower case; empty where it names none."""
    content: bytes
    """Empty for a picture, and for a part that was too long."""
    picture: bool = False
    too_long: bool = False


class Head(NamedTuple):
    """What the head of a part says."""

    kind: str = ""
    length: int | None = None

    @property
    def picture(self) -> bool:
        """Whether the part is a picture by its own word."""
        return self.kind.startswith(_PICTURES)


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type declares, without the dashes before it; empty where there is none."""
    found = _DECLARED.search(content_type)
    if found is None or not content_type.isascii():
        return b""
    return found[1].strip().strip('"').encode()[:BOUNDARY_MAX]


def is_multipart(payload: bytes) -> bool:
    """Return whether a body looks like parts: its first line is a boundary, and a head follows."""
    head = payload[:HEAD_MAX].lstrip(b"\r\n")
    line, end, rest = head.partition(b"\n")
    return bool(end) and line.startswith(b"--") and rest[:8].lower().startswith((b"content-", b"\r\n", b"\n"))


def split(payload: bytes, declared: bytes = b"") -> list[Part]:
    """Return the parts of a whole body, the last one also without a closing boundary."""
    cutter = Cutter(declared)
    return [*cutter.feed(payload), *cutter.close()][:PARTS_MAX]


def without_pictures(payload: bytes, declared: bytes = b"") -> bytes:
    """Return a body of the same parts in which pictures are empty."""
    thin = Thin(declared)
    thin.feed(payload)
    return thin.close()


def after(dropped: Sequence[Part], content: bytes) -> bytes:
    """Return a document behind the empty parts of what was dropped before it: whoever cuts it counts them."""
    if not dropped:
        return content
    thin = Thin()
    for part in (*dropped[-PARTS_MAX + 1 :], Part("", content)):
        thin.add(part)
    return thin.close()


class Thin:
    """Makes a body without pictures as it comes: of them nothing is held."""

    def __init__(self, declared: bytes = b"") -> None:
        self._cutter = Cutter(declared)
        self._lines: list[bytes] = []
        self._parts = 0
        self.size = 0
        """Bytes held so far."""

    def feed(self, data: bytes) -> None:
        """Take more of the body."""
        for part in self._cutter.feed(data):
            self.add(part)

    def close(self) -> bytes:
        """Return what is left of the body."""
        for part in self._cutter.close():
            self.add(part)
        return b"\r\n".join([*self._lines, b"--part--", b""])

    def add(self, part: Part) -> None:
        """Take one part."""
        self._parts += 1
        if self._parts > PARTS_MAX:
            return
        kind = TOO_LONG if part.too_long else part.kind if not part.picture or Head(part.kind).picture else PICTURE
        self._lines += [b"--part", b"Content-Type: " + (kind or "text/plain").encode(), b"", part.content]
        self.size += len(part.content)


class _State(Enum):
    """What becomes of the part that is read."""

    READING = 0
    SKIPPING = 1
    """A picture."""
    GIVEN = 2
    """It went already, or was too long; the rest up to the boundary is passed over."""


class Cutter:
    """Cuts a stream of parts as it comes."""

    def __init__(self, declared: bytes = b"", *, whole: Callable[[bytes], bool] | None = None) -> None:
        """`whole`: whether a part is complete by what it holds, so that it need not wait for the next boundary."""
        self._tokens: set[bytes] = set()
        self._end: re.Pattern[bytes] | None = None
        if declared:
            # Some declare the boundary with the dashes that stand before it.
            self._know(b"--" + declared, declared if declared.startswith(b"--") else b"--" + declared)
        self._whole = whole
        self._buffer = bytearray()
        self._begun = False
        self._head: Head | None = None
        self._state = _State.READING
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[Part]:
        """Take more of the stream; yield the parts that are complete."""
        self._buffer += data
        while self._begun or self._begin():
            if self._head is None:
                self._head = self._read_head()
                if self._head is None:
                    return
                self._state = _State.SKIPPING if self._head.picture else _State.READING
                self._searched = 0
            found = self._end.search(self._buffer, self._searched) if self._end else None
            if found is None:
                if (early := self._early(self._head)) is not None:
                    yield early
                return
            if self._state is not _State.GIVEN:
                yield self._made(bytes(self._buffer[: found.start()]), self._head)
            del self._buffer[: found.end()]
            self._head = None

    def close(self) -> Iterator[Part]:
        """Yield the part that the end of the stream ends."""
        head, self._head = self._head, None
        if head is not None and self._state is not _State.GIVEN and (self._buffer.strip() or head.picture):
            content = bytes(self._buffer)
            for token in self._tokens:
                content = content.removesuffix(token)
            yield self._made(content, head)
        self._buffer.clear()
        self._begun = False

    def _know(self, *tokens: bytes) -> None:
        self._tokens.update(tokens)
        words = b"|".join(map(re.escape, sorted(self._tokens, key=len, reverse=True)))
        self._end = re.compile(rb"(?:\r?\n|\A)(?:(?:%b)(?:--)?[ \t]*\r?\n|(?:%b)--\Z)" % (words, words))

    def _begin(self) -> bool:
        """Pass over what stands before the first boundary."""
        at = 0
        while (end := self._buffer.find(b"\n", at)) >= 0:
            line = bytes(self._buffer[at:end]).strip()
            if line.startswith(b"--") and len(line) > len(b"--") and _SIGNS.fullmatch(line):
                self._know(line)
                del self._buffer[: end + 1]
                self._begun = True
                return True
            at = end + 1
        del self._buffer[:at]
        if len(self._buffer) > HEAD_MAX:
            self._buffer.clear()
        return False

    def _read_head(self) -> Head | None:
        """Read the head of a part, which an empty line ends, or what cannot be a head; None: more must come."""
        at = 0
        kind, length = "", None
        while True:
            end = self._buffer.find(b"\n", at)
            if end < 0:
                if len(self._buffer) - at <= HEAD_MAX:
                    return None
                break
            line = bytes(self._buffer[at:end]).strip()
            if not line:
                at = end + 1
                break
            name, colon, value = line.partition(b":")
            if not colon or end > HEAD_MAX or not _HEADER.fullmatch(name.strip()):
                break
            low = name.strip().lower()
            if low == b"content-type":
                kind = value.decode("ascii", "replace").partition(";")[0].strip().lower()
            elif low == b"content-length" and _LENGTH.fullmatch(value.strip()):
                length = int(value)
            at = end + 1
        del self._buffer[:at]
        return Head(kind if _KIND.fullmatch(kind) else "", length)

    def _early(self, head: Head) -> Part | None:
        """Return a part that is complete by its length, before the next boundary has come; let pictures pass."""
        part: Part | None = None
        if self._state is _State.READING:
            if self._buffer.startswith(_PICTURE_STARTS):
                self._state = _State.SKIPPING
            elif len(self._buffer) > PART_MAX:
                self._state = _State.GIVEN
                part = Part(head.kind, b"", too_long=True)
            elif self._whole is not None:
                # By its length, or whatever length its head claims, by what it holds.
                either = (bytes(self._buffer[: head.length or 0]), bytes(self._buffer).strip())
                if (content := next(filter(self._whole, either), None)) is not None:
                    self._state = _State.GIVEN
                    part = Part(head.kind, content.rstrip(b"\r\n"))
        if self._state is not _State.READING and len(self._buffer) > _TAIL:
            del self._buffer[:-_TAIL]  # only what may be the begin of a boundary's line is still needed
        self._searched = max(0, len(self._buffer) - _TAIL)
        return part

    def _made(self, content: bytes, head: Head) -> Part:
        if self._state is _State.SKIPPING or content.startswith(_PICTURE_STARTS):
            return Part(head.kind, b"", picture=True)
        if len(content) > PART_MAX or head.kind == TOO_LONG:
            return Part(head.kind, b"", too_long=True)
        if head.length is not None and head.length < len(content) and not content[head.length :].strip():
            content = content[: head.length]
        return Part(head.kind, content)
