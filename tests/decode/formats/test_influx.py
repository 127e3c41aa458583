"""Line protocol: the examples of InfluxData's reference, what is refused, and a round trip."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import influx
from sensegate.decode.formats.influx import BAD_LINES_MAX, split_lines
from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with

parse = parse_with("influx")

GOOD: list[tuple[str, list[tuple[str, dict[str, str], dict[str, Any], int | None]]]] = [
    (
        'myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000',
        [("myMeasurement", {"tag1": "value1", "tag2": "value2"}, {"fieldKey": "fieldValue"}, 1556813561098000000)],
    ),
    ("m f=1.0\nm f=1\nm f=-1.234456e+78\n", [("m", {}, {"f": 1.0}, None), ("m", {}, {"f": 1.0}, None),
                                             ("m", {}, {"f": -1.234456e78}, None)]),
    ("m a=1i,b=12485903i,c=-12485903i", [("m", {}, {"a": 1, "b": 12485903, "c": -12485903}, None)]),
    ("m a=1u,b=18446744073709551615u", [("m", {}, {"a": 1, "b": 2**64 - 1}, None)]),
    ("m a=true,b=T,c=f,d=FALSE", [("m", {}, {"a": True, "b": True, "c": False, "d": False}, None)]),
    (r'm f="say \"hi\" \\ C:\dir"', [("m", {}, {"f": r'say "hi" \ C:\dir'}, None)]),
    ('m f="two\nlines, and = marks" 1', [("m", {}, {"f": "two\nlines, and = marks"}, 1)]),
    (r'my\ Measurement\,x,tag\ Key1=tag\ Value1,k\=2=a\,b fieldKey="x"',
     [("my Measurement,x", {"tag Key1": "tag Value1", "k=2": "a,b"}, {"fieldKey": "x"}, None)]),
    (r"m,path=C:\temp f=1", [("m", {"path": r"C:\temp"}, {"f": 1.0}, None)]),
    ("# comment\n\nm f=1 -5\r\n   m f=2   7  \n#end", [("m", {}, {"f": 1.0}, -5), ("m", {}, {"f": 2.0}, 7)]),
    ("温度,站=广州 值=21.5", [("温度", {"站": "广州"}, {"值": 21.5}, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "points"), GOOD)
def test_lines_become_points(text: str, points: list[Any]) -> None:
    """Tags, typed fields, escapes, comments, times."""
    parsed = parse(text.encode())
    assert [(p["measurement"], p["tags"], p["fields"], p["time"]) for p in parsed] == points


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed: the payload is empty"),
        ("# only a comment\n", "malformed: the payload is empty"),
        ("m", "a space and fields"),
        ("m ", "a key"),
        ("m,t=1", "a space and fields"),
        ("m,t f=1", "an equals sign"),
        ("m,=1 f=1", "a key"),
        ("m,t= f=1", "a tag's value"),
        (",t=1 f=1", "a measurement"),
        ("m f=", "a field's value"),
        ("m f=1,", "a key"),
        ("m f=abc", "a number, true"),
        ("m f=NaN", "a number, true"),
        ("m f=1,f=2", "a key occurs twice"),
        ("m,a=1,a=2 f=1", "a key occurs twice"),
        ('m f="open', "a number, true"),
        ('m f="a"b', "a time or the end"),
        ("m f=1 12.5", "a time or the end"),
        ("m f=1 12 13", "a time or the end"),
        ("m f=9223372036854775808i", "a number, true"),
        ("m f=18446744073709551616u", "a number, true"),
        ("m f=-1u", "a number, true"),
        ("m f=1\nm g", r"an equals sign was expected at character 9 \(line 2\)"),
        ("m " + ",".join(f"f{k}=1" for k in range(70_000)), "schema: more than"),
        ("m f=1\n" * 4_097, "schema: more than 4096 points"),
    ],
)
def test_what_is_no_line_is_refused(text: str, why: str) -> None:
    """A line without fields, a key twice, numbers that none of the types can hold."""
    with pytest.raises(Rejected, match=why):
        parse(text.encode())


def escaped(text: str, marks: str) -> str:
    return "".join(f"\\{c}" if c in marks else c for c in text)


def written(value: object) -> str:
    """Return a field's value as the protocol writes it."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}i" if isinstance(value, int) else repr(value)


# a backslash before a mark that ends a name cannot be written in the protocol: names have none here
names = st.text(st.characters(codec="utf-8", exclude_characters="\\\r\n\0"), min_size=1, max_size=6).filter(
    lambda text: not text.isspace() and text[0] not in "# \t"
)
values = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
points = st.tuples(
    names,
    st.dictionaries(names, names, max_size=3),
    st.dictionaries(names, values, min_size=1, max_size=3),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)


@given(st.lists(points, min_size=1, max_size=3))
def test_round_trip(written_points: list[tuple[str, dict[str, str], dict[str, Any], int | None]]) -> None:
    """Names and texts with every mark in them come back, and numbers to the last bit."""
    lines = []
    for measurement, tags, fields, time in written_points:
        head = [escaped(measurement, ", "), *(f"{escaped(k, ',= ')}={escaped(v, ',= ')}" for k, v in tags.items())]
        body = ",".join(f"{escaped(k, ',= ')}={written(v)}" for k, v in fields.items())
        lines.append(" ".join([",".join(head), body, *([] if time is None else [str(time)])]))
    parsed = parse("\n".join(lines).encode())
    assert [(p["measurement"], p["tags"], p["fields"], p["time"]) for p in parsed] == written_points


def test_bad_lines_are_counted_once_each() -> None:
    """Each problem names its line, and the text before it is read once for all of them."""

    class Text(str):
        counted = 0
        __slots__ = ()

        def count(self, *args: Any) -> int:
            _, start, end = args
            Text.counted += end - start
            return str.count(self, *args)

    text = Text("x\n" * 1_000)
    split = split_lines(text, problems_max=1_000)
    assert not split.good
    assert [problem.rpartition("(line ")[2] for problem in split.problems] == [
        f"{number})" for number in range(1, 1_001)
    ]
    assert Text.counted <= len(text)


def test_bad_lines_beyond_those_that_are_named_cost_nothing() -> None:
    """All are counted, but only the first are described: a description takes seventy times its line."""
    split = split_lines("x\n" * 1_000 + "m a=1\n" + "x\n" * 1_000, problems_max=10)
    assert (len(split.good), len(split.problems), split.bad) == (1, 10, 2_000)


@pytest.mark.parametrize("bad", ["x\n", "=\n", "m a=1,a=1\n", "m a=1 x\n", "\\\n"])
def test_a_text_of_bad_lines_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """A megabyte of bad lines would take seconds; good lines before the limit are kept, the rest is named as unread."""
    tried = []
    point = influx._Lines._point

    def counted(lines: influx._Lines) -> dict[str, Any]:
        tried.append(lines)
        return point(lines)

    monkeypatch.setattr(influx._Lines, "_point", counted)
    split = split_lines("m a=1\n" + bad * 50_000, problems_max=3)
    assert len(tried) <= 1 + BAD_LINES_MAX
    assert (len(split.good), split.bad, len(split.problems)) == (1, 50_000, 3)
    assert f"more than {BAD_LINES_MAX} bad lines: what follows character" in split.problems[0]
    assert "(line 2)" in split.problems[1] or "twice" in split.problems[1]


def test_bad_lines_up_to_the_limit_leave_the_good_ones() -> None:
    """Reading ends only where something is left to read."""
    split = split_lines("x\n" * BAD_LINES_MAX + " \n", problems_max=1)
    assert (split.bad, len(split.problems)) == (BAD_LINES_MAX, 1)
    assert "was not read" not in split.problems[0]
    split = split_lines("x\nm a=1\n" * (BAD_LINES_MAX - 1), problems_max=1)
    assert (len(split.good), split.bad) == (BAD_LINES_MAX - 1, BAD_LINES_MAX - 1)


@pytest.mark.parametrize("blank", ["#\n", " \n#\n", "\n\r\n"])
def test_lines_of_nothing_take_no_memory(blank: str) -> None:
    """Comments and empty lines are skipped without a place to go back to for each: it took a hundred bytes per byte."""
    text = blank * 100_000 + "m a=1"
    process = subprocess.run(
        [sys.executable, "-c", _PEAK], input=text.encode(), capture_output=True, check=True, timeout=60
    )
    assert int(process.stdout) < 8 * len(text)


_PEAK = """
import resource, sys
from sensegate.decode.formats.influx import split_lines
text = sys.stdin.buffer.read().decode()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(split_lines(text, problems_max=1).good) == 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
