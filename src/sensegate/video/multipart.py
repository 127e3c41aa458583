"""Multipart bodies as cameras send them: metadata parts between pictures, with unreliable headers. No I/O.

A part ends at the boundary line and not after the length that its header claims; a part whose content is complete is
emitted earlier. The boundary is the declared one, or the one observed: some cameras write another. Pictures are
counted, never stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

import msgspec

HEAD_MAX: Final = 4_096
PART_MAX: Final = 262_144
"""Greatest size of a metadata part in bytes; a longer one is dropped."""
PARTS_MAX: Final = 64
"""Greatest number of parts of one body; one that is too long stands for all others."""
TRIED_MAX: Final = 128 * PART_MAX
"""Bytes of one part, each counted as often as it is examined, after which the part waits for its boundary: a stream in
chunks of a few bytes, each like the end of a part, would have every one of them examined again for each chunk."""
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
"""Media types of the empty parts that replace pictures and oversized parts."""
MULTIPART: Final = "multipart/"


class BodyPart(msgspec.Struct, frozen=True):
    """A part of a multipart body."""

    kind: str
    """Media type from its header, lower case; empty if missing."""
    content: bytes
    """Empty for a picture and for an oversized part."""
    picture: bool = False
    too_long: bool = False
    """An oversized part, or all that are too many."""


class PartHead(NamedTuple):
    """Header of a part."""

    kind: str = ""
    length: int | None = None

    @property
    def picture(self) -> bool:
        """Return whether the header declares a picture."""
        return self.kind.startswith(_PICTURES)


def boundary_of(content_type: str) -> bytes:
    """Return the boundary declared in a content type, without leading dashes; empty if there is none."""
    declared = _DECLARED.search(content_type)
    if declared is None or not content_type.isascii():
        return b""
    return declared[1].strip().strip('"').encode()[:BOUNDARY_MAX]


def is_multipart(payload: bytes) -> bool:
    """Return whether a body looks like multipart: it starts with a boundary line and a header."""
    head = payload[:HEAD_MAX].lstrip(b"\r\n")
    line, end, following = head.partition(b"\n")
    return bool(end) and line.startswith(b"--") and following[:8].lower().startswith((b"content-", b"\r\n", b"\n"))


def split(payload: bytes, declared: bytes = b"") -> list[BodyPart]:
    """Return the parts of a complete body; the last one may lack its closing boundary.

    Behind `PARTS_MAX` parts stands at most one more, which is too long; the rest of the body is not read.
    """
    parser = MultipartParser(declared)
    parts = list(islice(parser.feed(payload), PARTS_MAX + 1))
    if len(parts) <= PARTS_MAX:
        parts += parser.close()
    return parts if len(parts) <= PARTS_MAX else [*parts[:PARTS_MAX], BodyPart(TOO_LONG, b"", too_long=True)]


def without_pictures(payload: bytes, declared: bytes = b"") -> bytes:
    """Return the body with its pictures emptied."""
    stripper = PictureStripper(declared)
    stripper.feed(payload)
    return stripper.close()


def prepend_empty_parts(dropped: Sequence[BodyPart], content: bytes) -> bytes:
    """Return a document preceded by the empty parts dropped before it, so that redaction counts them."""
    if not dropped:
        return content
    stripper = PictureStripper()
    for part in (*dropped[-PARTS_MAX + 1 :], BodyPart("", content)):
        stripper.add(part)
    return stripper.close()


class PictureStripper:
    """Builds a body without pictures from a stream; pictures are never buffered."""

    def __init__(self, declared: bytes = b"") -> None:
        self._parser = MultipartParser(declared)
        self._lines: list[bytes] = []
        self._parts = 0
        self.size = 0
        """Bytes buffered so far."""

    def feed(self, data: bytes) -> None:
        """Process more of the body."""
        for part in self._parser.feed(data):
            self.add(part)

    def close(self) -> bytes:
        """Return the resulting body."""
        for part in self._parser.close():
            self.add(part)
        return b"\r\n".join([*self._lines, b"--part--", b""])

    def add(self, part: BodyPart) -> None:
        """Add one part."""
        self._parts += 1
        if self._parts > PARTS_MAX + 1:
            return
        if self._parts > PARTS_MAX:
            part = BodyPart(TOO_LONG, b"", too_long=True)
        kind = TOO_LONG if part.too_long else part.kind if not part.picture or PartHead(part.kind).picture else PICTURE
        self._lines += [b"--part", b"Content-Type: " + (kind or "text/plain").encode(), b"", part.content]
        self.size += len(part.content)


class _State(Enum):
    """Treatment of the part being read."""

    READING = 0
    SKIPPING = 1
    """A picture."""
    EMITTED = 2
    """Already emitted, or oversized; the rest up to the boundary is skipped."""


class MultipartParser:
    """Incremental parser of a multipart stream."""

    def __init__(self, declared: bytes = b"", *, is_complete: Callable[[bytes], bool] | None = None) -> None:
        """`is_complete` tells whether content is a complete part, which need not wait for the next boundary."""
        self._tokens: set[bytes] = set()
        self._end: re.Pattern[bytes] | None = None
        if declared:
            # Some cameras declare the boundary including its leading dashes.
            self._add_boundaries(b"--" + declared, declared if declared.startswith(b"--") else b"--" + declared)
        self._is_complete = is_complete
        self._buffer = bytearray()
        self._started = False
        self._head: PartHead | None = None
        self._state = _State.READING
        self._searched = 0
        self._tried = 0
        """Bytes of the part examined so far for whether it is complete."""

    def feed(self, data: bytes) -> Iterator[BodyPart]:
        """Process more of the stream; yield completed parts."""
        self._buffer += data
        while self._started or self._skip_preamble():
            if self._head is None:
                self._head = self._read_head()
                if self._head is None:
                    return
                self._state = _State.SKIPPING if self._head.picture else _State.READING
                self._searched = self._tried = 0
            end = self._end.search(self._buffer, self._searched) if self._end else None
            if end is None:
                if (early := self._emit_early(self._head)) is not None:
                    yield early
                return
            if self._state is not _State.EMITTED:
                yield self._finish_part(bytes(self._buffer[: end.start()]), self._head)
            del self._buffer[: end.end()]
            self._head = None

    def close(self) -> Iterator[BodyPart]:
        """Yield the part ended by the end of the stream."""
        head, self._head = self._head, None
        if head is not None and self._state is not _State.EMITTED and (self._buffer.strip() or head.picture):
            content = bytes(self._buffer)
            for token in self._tokens:
                content = content.removesuffix(token)
            yield self._finish_part(content, head)
        self._buffer.clear()
        self._started = False

    def _add_boundaries(self, *tokens: bytes) -> None:
        self._tokens.update(tokens)
        words = b"|".join(map(re.escape, sorted(self._tokens, key=len, reverse=True)))
        self._end = re.compile(rb"(?:\r?\n|\A)(?:(?:%b)(?:--)?[ \t]*\r?\n|(?:%b)--\Z)" % (words, words))

    def _skip_preamble(self) -> bool:
        """Skip everything before the first boundary."""
        at = 0
        while (end := self._buffer.find(b"\n", at)) >= 0:
            line = bytes(self._buffer[at:end]).strip()
            if line.startswith(b"--") and len(line) > len(b"--") and _SIGNS.fullmatch(line):
                self._add_boundaries(line)
                del self._buffer[: end + 1]
                self._started = True
                return True
            at = end + 1
        del self._buffer[:at]
        if len(self._buffer) > HEAD_MAX:
            self._buffer.clear()
        return False

    def _read_head(self) -> PartHead | None:
        """Read the header of a part, up to an empty or non-header line; None: more data is needed."""
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
        return PartHead(kind if _KIND.fullmatch(kind) else "", length)

    def _emit_early(self, head: PartHead) -> BodyPart | None:
        """Return a part that is complete before its boundary has arrived, or start skipping a picture."""
        part: BodyPart | None = None
        if self._state is _State.READING:
            if self._buffer.startswith(_PICTURE_STARTS):
                self._state = _State.SKIPPING
            elif len(self._buffer) > PART_MAX:
                self._state = _State.EMITTED
                part = BodyPart(head.kind, b"", too_long=True)
            elif self._is_complete is not None and self._tried < TRIED_MAX:
                self._tried += len(self._buffer)
                # Try the length that the header claims, then everything buffered.
                either = (bytes(self._buffer[: head.length or 0]), bytes(self._buffer).strip())
                if (content := next(filter(self._is_complete, either), None)) is not None:
                    self._state = _State.EMITTED
                    part = BodyPart(head.kind, content.rstrip(b"\r\n"))
        if self._state is not _State.READING and len(self._buffer) > _TAIL:
            del self._buffer[:-_TAIL]  # keep only what may be the start of a boundary line
        self._searched = max(0, len(self._buffer) - _TAIL)
        return part

    def _finish_part(self, content: bytes, head: PartHead) -> BodyPart:
        if self._state is _State.SKIPPING or content.startswith(_PICTURE_STARTS):
            return BodyPart(head.kind, b"", picture=True)
        if len(content) > PART_MAX or head.kind == TOO_LONG:
            return BodyPart(head.kind, b"", too_long=True)
        if head.length is not None and head.length < len(content) and not content[head.length :].strip():
            content = content[: head.length]
        return BodyPart(head.kind, content)
