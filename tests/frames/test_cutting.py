"""Cutters: every frame is found however the bytes come, rubbish costs no frame, nothing is looked at for ever."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.frames import gbt26875, hj212, sl651
from sensegate.frames.framing import FrameFinder
from tests.frames import made
from tests.frames.made import AIR, FRAMES, WATER

PROTOCOLS = sorted(FRAMES)


def feed(cut: FrameFinder, pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Return (the frames found in a stream that comes in pieces, what was skipped)."""
    buffer, frames, skipped = b"", [], b""
    for piece in pieces:
        buffer += piece
        while True:
            result = cut(buffer)
            assert result.skip + result.length <= len(buffer)
            skipped += buffer[: result.skip]
            if not result.length:
                buffer = buffer[result.skip :]
                break
            frames.append(buffer[result.skip : result.skip + result.length])
            buffer = buffer[result.skip + result.length :]
    return frames, skipped


@pytest.mark.parametrize("name", PROTOCOLS)
@given(data=st.data())
def test_frames_come_out_however_they_are_split(name: str, data: st.DataObject) -> None:
    """Two in one segment, one in two segments, byte by byte: the same frames in the same order, nothing skipped."""
    cut, known = FRAMES[name]
    sent = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=5))
    stream = b"".join(sent)
    places = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    frames, skipped = feed(cut, pieces)
    assert [frame.rstrip(b"\r\n") if name == "hj212" else frame for frame in frames] == [
        frame.rstrip(b"\r\n") if name == "hj212" else frame for frame in sent
    ]
    assert skipped.strip(b"\r\n") == b""


@pytest.mark.parametrize("name", PROTOCOLS)
@given(noise=st.lists(st.text(alphabet="abcxyz 019=;\n", max_size=30).map(str.encode), min_size=1, max_size=4))
def test_rubbish_between_frames_costs_none(name: str, noise: list[bytes]) -> None:
    """What belongs to no frame is skipped; the frames behind it are found."""
    cut, known = FRAMES[name]
    stream = b"".join(piece + known[0] for piece in noise)
    frames, _ = feed(cut, [stream])
    assert [frame.rstrip(b"\r\n") for frame in frames] == [known[0].rstrip(b"\r\n")] * len(noise)


@pytest.mark.parametrize("name", PROTOCOLS)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_cut_without_end(name: str, data: bytes) -> None:
    """A cutter comes to an end on any bytes, and what it takes for a frame lies within them."""
    feed(FRAMES[name][0], [data])


@pytest.mark.parametrize("name", PROTOCOLS)
@given(data=st.data())
def test_a_frame_cut_short_costs_itself_alone(name: str, data: st.DataObject) -> None:
    """A line that broke within a frame and went on with the next: that one, or the one behind it, is found."""
    cut, known = FRAMES[name]
    at = data.draw(st.integers(0, len(known[0]) - 1))
    frames, _ = feed(cut, [known[0][:at] + known[1] + known[2] + known[1] + known[2]])
    tail = [frame.rstrip(b"\r\n") for frame in frames][-2:]
    assert tail == [known[1].rstrip(b"\r\n"), known[2].rstrip(b"\r\n")]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_frame_cut_short_does_not_hold_up_the_next(name: str) -> None:
    """A sound frame behind it comes out at once, though the length of the first covers it and more is awaited."""
    cut, known = FRAMES[name]
    for first in known:
        for behind in known:
            for at in range(len(first) - (name == "jtt808")):  # there the mark of the next would end the first
                frames, _ = feed(cut, [first[:at] + behind])
                assert frames[-1:] == [behind], (at, first)


def _announcing(name: str, size: int) -> bytes:
    """Return the head of a frame that ends `size` bytes behind it."""
    if name == "hj212":
        return b"##%04d" % (size - 6)
    if name == "gbt26875":
        return b"@@" + bytes(22) + (size - 3).to_bytes(2, "little") + b"\x02"
    head = sl651.MARK + bytes.fromhex("010011223344" + "03E8" + "32") + (size - 3).to_bytes(2)
    return head + bytes([sl651.STX])


@pytest.mark.parametrize("name", ["gbt26875", "hj212", "sl651"])
def test_a_head_takes_no_frame_of_others_with_it(name: str) -> None:
    """Its length reaches to the end of the frame of another station on the same connection, whose end it has."""
    cut, known = FRAMES[name]
    for good in (known[0], known[0] + known[2]):
        made_up = _announcing(name, len(good))
        assert feed(cut, [made_up + good])[0] == [known[0]] + [known[2]] * (good != known[0])


@pytest.mark.parametrize("name", ["gbt26875", "hj212", "sl651"])
def test_a_sound_frame_that_holds_another_is_one(name: str) -> None:
    """What stands within a frame with the right checksum is its content, not a frame."""
    cut, known = FRAMES[name]
    outer = {
        "hj212": lambda: hj212.build(b"QN=1;CP=&&" + known[0] + b"&&"),
        "gbt26875": lambda: gbt26875.build(
            msgspec.structs.replace(gbt26875.parse(known[0]), data=b"1" + known[0] + b"2")
        ),
        "sl651": lambda: made.report(known[0]),
    }[name]()
    assert feed(cut, [outer])[0] == [outer]


def test_a_length_of_three_digits_is_no_frame() -> None:
    """``##453`` is skipped, the frame behind it found; so are marks in a row."""
    frames, skipped = feed(hj212.next_frame, [b"##453QN=20160801085000001;ST=22;CP=&&&&c0c1\r\n###" + AIR[1:]])
    assert frames == [AIR]
    assert skipped.startswith(b"##453")


def test_some_devices_end_without_a_new_line() -> None:
    """Where the CRC fits the frame is whole; else its end is waited for."""
    frames, _ = feed(hj212.next_frame, [AIR[:-2] + WATER[:-2]])
    assert frames == [AIR[:-2], WATER[:-2]]
    wrong = AIR[:-6] + b"0000"
    assert feed(hj212.next_frame, [wrong]) == ([], b"")
    assert feed(hj212.next_frame, [wrong, b"\r\n"])[0] == [wrong + b"\r\n"]


def test_a_long_length_does_not_hide_what_follows() -> None:
    """A head that announces 9,999 bytes gives way to a frame that begins on a new line."""
    frames, _ = feed(hj212.next_frame, [b"##9999QN=1;\r\n" + AIR])
    assert frames == [AIR]


def test_a_wrong_sum_is_still_a_frame() -> None:
    """It is told by its marks and length: to be refused by name, not to be lost in silence."""
    for name, at in (("sl651", -1), ("gbt26875", -3), ("jtt808", -2)):
        cut, known = FRAMES[name]
        wrong = bytearray(known[0])
        wrong[at] ^= 0x21
        assert feed(cut, [bytes(wrong) + known[1]])[0] == [bytes(wrong), known[1]]


SIZE = 65_536
ROWS = [
    b"\x01",
    b"\x7e",
    b"\x7e\x7e",
    b"#",
    b"##",
    b"@",
    b"@@",
    b"##9999",
    b"##9999aaaa",
    b"##0009aaaa",
    b"\x7e\x02",
    b"\x01AA",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_rubbish_costs_no_more_than_its_size(name: str, row: bytes) -> None:
    """Beginnings of frames one after the other: not each is looked into to its end."""
    stream = row * (SIZE // len(row))
    start = time.process_time()
    feed(FRAMES[name][0], [stream[at : at + 16_384] for at in range(0, len(stream), 16_384)])
    assert time.process_time() - start < 1.5
