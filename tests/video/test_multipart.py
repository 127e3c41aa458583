"""Multipart of cameras: whatever its lengths and boundaries say, whole parts come out, and no picture does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.video import multipart
from sensegate.video.multipart import BodyPart, MultipartParser, boundary_of, is_multipart, split, without_pictures

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40 + b"\xff\xd9"
ALERT = b"<EventNotificationAlert><eventType>VMD</eventType></EventNotificationAlert>"


def part(content: bytes, kind: bytes = b"application/xml", *, length: int | None = -1, token: bytes = b"b") -> bytes:
    """Return one part with the length that it has, another, or none."""
    declared = len(content) if length == -1 else length
    head = b"" if declared is None else b"Content-Length: %d\r\n" % declared
    return b"--" + token + b"\r\nContent-Type: " + kind + b"\r\n" + head + b"\r\n" + content + b"\r\n"


def whole(content: bytes) -> bool:
    return content.strip().endswith(b"</EventNotificationAlert>")


@pytest.mark.parametrize("length", [-1, None, 0, 7, 10_000_000])
@pytest.mark.parametrize("declared", [b"", b"b", b"--b", b"another"])
def test_a_body_is_split_whatever_it_says(length: int | None, declared: bytes) -> None:
    body = part(ALERT, length=length) + part(JPEG, b"image/jpeg", length=length) + part(ALERT * 2) + b"--b--\r\n"
    assert is_multipart(body)
    assert split(body, declared) == [
        BodyPart("application/xml", ALERT),
        BodyPart("image/jpeg", b"", picture=True),
        BodyPart("application/xml", ALERT * 2),
    ]


def test_odd_bodies() -> None:
    """No closing boundary, line feeds alone, no head, a boundary in angle brackets, a picture that is called text."""
    assert [item.content for item in split(part(ALERT))] == [ALERT]
    assert [item.content for item in split(part(ALERT).replace(b"\r\n", b"\n"))] == [ALERT]
    assert [item.content for item in split(b"--b\r\n" + ALERT + b"\r\n--b--")] == [ALERT]
    assert [item.content for item in split(part(ALERT, token=b"<boundary>"), b"<boundary>")] == [ALERT]
    assert split(part(JPEG, b"text/plain"))[0] == BodyPart("text/plain", b"", picture=True)
    assert split(b"preamble\r\n\r\n" + part(ALERT))[0].content == ALERT
    assert split(b"") == split(b"--") == split(b"no parts at all\n") == []
    assert split(part(b"x" * (multipart.PART_MAX + 1)))[0] == BodyPart("application/xml", b"", too_long=True)
    assert not is_multipart(ALERT)
    assert not is_multipart(b"--")


def test_declared_boundaries() -> None:
    assert boundary_of("multipart/x-mixed-replace; boundary=myboundary") == b"myboundary"
    assert boundary_of('multipart/mixed; boundary="a b"; charset=x') == b"a b"
    assert boundary_of("multipart/mixed; boundary=<boundary>") == b"<boundary>"
    assert boundary_of("multipart/mixed") == boundary_of("text/plain; boundary=\u00e9") == b""


def test_pictures_are_left_out_and_still_counted() -> None:
    body = part(ALERT) + part(JPEG, b"image/jpeg") + part(JPEG, b"application/octet-stream") + part(JPEG, b"")
    left = without_pictures(body)
    assert JPEG[:16] not in left
    assert len(left) < 500
    long = split(without_pictures(part(b"x" * (multipart.PART_MAX + 1))))
    assert [(item.too_long, item.picture) for item in long] == [(True, False)]
    kinds = [(item.content, item.picture) for item in split(left)]
    assert kinds == [(ALERT, False), (b"", True), (b"", True), (b"", True)]


def test_parts_are_limited() -> None:
    """A part that is too long stands for all that are too many, also after pictures were left out; none is read."""
    most = multipart.PARTS_MAX
    for count in (most, most + 1, most + 2, 100 * most):
        body = part(ALERT) * count + b"--b--\r\n"
        parts = split(body)
        assert [item.content for item in parts[:most]] == [ALERT] * most
        assert [item.too_long for item in parts[most:]] == [True] * (count > most)
        assert split(without_pictures(body)) == parts
        assert split(without_pictures(without_pictures(body))) == parts


def test_a_body_of_parts_alone_is_not_split_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part takes six bytes of a body and a hundred of memory."""
    finish = MultipartParser._finish_part
    parts = 0

    def count(parser: MultipartParser, content: bytes, head: multipart.PartHead) -> BodyPart:
        nonlocal parts
        parts += 1
        return finish(parser, content, head)

    monkeypatch.setattr(MultipartParser, "_finish_part", count)
    split(b"--b\n\n" * 10_000)
    assert parts == multipart.PARTS_MAX + 1


def test_a_part_goes_as_soon_as_it_is_whole() -> None:
    """A camera sends the next boundary with the next part, which may be minutes away."""
    cutter = MultipartParser(b"b", is_complete=whole)
    for length in (-1, None, 5, 100_000):
        sent = part(ALERT, length=length)[:-2]
        assert [item.content for item in cutter.feed(sent[:-1])] == []
        assert [item.content for item in cutter.feed(sent[-1:])] == [ALERT]
        assert list(cutter.feed(b"\r\n")) == []
    assert list(cutter.close()) == []


def test_a_part_in_tiny_chunks_is_not_examined_for_each() -> None:
    """Every chunk looks like the end; what is examined has a limit, and the part still comes with its boundary."""
    examined = 0

    def never(content: bytes) -> bool:
        nonlocal examined
        examined += len(content)
        return False

    parser = MultipartParser(b"b", is_complete=never)
    chunk = b'{"a":[]}' * 4
    content = chunk * (multipart.PART_MAX // len(chunk))
    assert not list(parser.feed(b"--b\r\n\r\n"))
    for at in range(0, len(content), len(chunk)):
        assert not list(parser.feed(content[at : at + len(chunk)]))
    assert [item.content for item in parser.feed(b"\r\n--b\r\n")] == [content]
    assert examined <= 130 * multipart.PART_MAX
    first = examined
    assert not list(parser.feed(b"\r\n" + chunk))
    assert examined > first  # the limit is that of a part


def test_the_largest_part_in_packets_goes_at_once() -> None:
    """The limit leaves room for a part of the greatest size in the packets of a network, each examined."""
    parser = MultipartParser(b"b", is_complete=whole)
    content = ALERT[:-25].ljust(multipart.PART_MAX - 25, b" ") + ALERT[-25:]
    sent = b"--b\r\n\r\n" + content
    parts = [item for at in range(0, len(sent), 1_200) for item in parser.feed(sent[at : at + 1_200])]
    assert [item.content for item in parts] == [content]


def test_half_a_part_is_no_part_before_it_ends() -> None:
    cutter = MultipartParser(b"b", is_complete=whole)
    assert list(cutter.feed(part(ALERT)[:40])) == []
    assert [whole(item.content) for item in cutter.close()] in ([], [False])


def test_a_stream_holds_little_in_memory() -> None:
    """A picture without end, a text without end, rubbish without a boundary."""
    for begin in (b"--b\r\nContent-Type: image/jpeg\r\n\r\n", b"--b\r\n\r\n<a>", b"rubbish", b"--b\r\nX: "):
        cutter = MultipartParser(b"b", is_complete=whole)
        list(cutter.feed(begin))
        for _ in range(100):
            list(cutter.feed(b"0" * 65_536))
        assert len(cutter._buffer) <= multipart.PART_MAX + 65_536
    assert [item.content for item in cutter.feed(b"\r\n" + part(ALERT) * 2)][-1:] == [ALERT]


@given(st.lists(st.integers(1, 400), max_size=60), st.sampled_from([-1, None, 3, 10**6]))
def test_however_the_stream_is_cut_the_parts_are_the_same(cuts: list[int], length: int | None) -> None:
    body = part(ALERT, length=length) + part(JPEG[:600], b"image/jpeg", length=length) + part(ALERT + b" ") + b"--b--"
    results: list[BodyPart] = []
    cutter, at = MultipartParser(b"b"), 0
    for size in cuts:
        results += cutter.feed(body[at : at + size])
        at += size
    results += [*cutter.feed(body[at:]), *cutter.close()]
    assert [(item.content.strip(), item.picture) for item in results if item.content or item.picture] == [
        (ALERT, False),
        (b"", True),
        (ALERT, False),
    ]


@given(st.binary(max_size=600), st.binary(max_size=20))
def test_nothing_crashes(payload: bytes, declared: bytes) -> None:
    for item in split(payload, declared):
        assert not (item.picture and item.content)
    without_pictures(payload, declared)
    list(MultipartParser(declared, is_complete=whole).feed(payload))
