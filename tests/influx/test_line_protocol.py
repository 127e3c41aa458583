"""Records as line protocol: what the encoder writes is what the decoder of devices reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.influx import parse, split_lines
from sensegate.quantities.quality import Flag
from sensegate.share import line_protocol
from tests.share.made import Place, make_batch

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\t\0"), min_size=1, max_size=8).filter(
    lambda text: not text.endswith("\\")
)
# A backslash before a mark that is escaped cannot be told from two marks: names have none of both here.
NAME = TEXT.map(lambda text: text.replace("\\", "_"))
ROW = st.one_of(
    st.tuples(st.just(0), st.sampled_from(("air_temperature", "pm2_5#2")), st.floats(-1e300, 1e300)),
    st.tuples(st.just(0), st.just("motion"), st.sampled_from((0.0, 1.0))),
    st.tuples(st.just(0), st.just("state"), st.text(max_size=8)),
)


@given(
    NAME,
    st.lists(ROW, min_size=1, max_size=6),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from((Flag(0), Flag.LATE, Flag.WITHDRAWN, Flag.WITHDRAWN | Flag.LATE, Flag.CORRECTED)),
)
def test_round_trip(
    device: str, rows: list[tuple[int, str, float | str]], revision: int, quality: int, flags: Flag
) -> None:
    """Device, channel, value to the last bit, time, quality, revision and correction of every record come back."""
    size = len(rows)
    batch = make_batch(
        rows,
        places=[Place(device)],
        revision=np.full(size, revision, np.uint8),
        quality=np.full(size, quality, np.uint8),
        flags=np.full(size, int(flags), np.uint32),
    )
    correction = "withdrawn" if flags & Flag.WITHDRAWN else "annotated" if flags & Flag.CORRECTED else None
    points = parse("\n".join(line_protocol.lines(batch, np.arange(size))).encode())
    assert len(points) == size
    for row, point in enumerate(points):
        name = batch.properties[batch.property[row]]
        text = batch.text.get(row)
        expected = text if text is not None else float(batch.value[row])
        assert point["measurement"] == "reading"
        assert point["fields"] == {name.partition("#")[0]: expected}
        assert point["tags"]["device"] == device
        assert point["tags"].get("channel", "") == name.partition("#")[2]
        assert ("revision" in point["tags"]) == bool(revision)
        assert ("quality" in point["tags"]) == bool(quality)
        assert point["tags"].get("correction") == correction
        assert point["time"] == batch.time[row]


def test_a_record_without_a_value_is_a_comment() -> None:
    """So that the number of lines is the number of records that were delivered; stores skip it."""
    batch = make_batch([(0, "air_temperature", math.nan), (0, "air_temperature", 1.0)])
    lines = line_protocol.lines(batch, np.arange(2))
    assert [line.startswith("#") for line in lines] == [True, False]
    assert len(parse("\n".join(lines).encode())) == 1


@pytest.mark.parametrize(("name", "tag"), [("a\nb", "a_b"), ("end\\", "end_"), ("", "_"), ("a b,c=d", "a b,c=d")])
def test_what_no_tag_can_hold_becomes_an_underscore(name: str, tag: str) -> None:
    """A line break, a backslash at the end, nothing at all."""
    batch = make_batch([(0, "air_temperature", 1.0)], places=[Place(name)])
    (point,) = parse(line_protocol.lines(batch, np.arange(1))[0].encode())
    assert point["tags"]["device"] == tag


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("m f=1 5\nm f=2", [("m f=1", 5), ("m f=2", None)], 0),
        ("m f=\nm f=2 7\nm\nm,t= f=1", [("m f=2", 7)], 3),
        ('m f="two\nlines" 3\nm f=x 4\nm f=1i 5', [('m f="two\nlines"', 3), ("m f=1i", 5)], 1),
        ("# only\n\n", [], 0),
        (r"my\ m\,x,k\ 1=a\=b f=1 9", [(r"my\ m\,x,k\ 1=a\=b f=1", 9)], 0),
        ('m f="open\nm f=1', [("m f=1", None)], 1),
        ("m f=1 5 6\r\nm f=2 7\r\n", [("m f=2", 7)], 1),
    ],
)
def test_good_lines_are_told_from_bad_ones(text: str, good: list[tuple[str, int | None]], bad: int) -> None:
    """A bad line is left out alone, a quoted line break ends no line, and every bad line has a sentence."""
    split = split_lines(text, problems_max=10)
    assert [(line.text, line.time) for line in split.good] == good
    assert len(split.problems) == split.bad == bad
    assert all("line" in problem or "key" in problem for problem in split.problems)
