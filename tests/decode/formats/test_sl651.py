"""SL 651 as a format: elements, values that are missing, series in steps, both forms."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.sl651 import FORMAT, Sl651Part
from sensegate.decode.formats.sl651_elements import SYMBOLS
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.errors import ProfileError, Rejected
from sensegate.frames import sl651
from sensegate.model import QuarantineReason
from tests.frames.made import bcd, element, report, report_in_text

EIGHT = "2026-01-01T08:00:00"


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem)


def parse(frame: bytes, part: Sl651Part | None = None) -> Any:
    return FORMAT.compile(part, FormatContext("vendor/model", 1, Path(), _error))(PayloadFrame(frame, 16))


def refusal(frame: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse(frame)
    return caught.value


def values(tree: Any) -> list[tuple[str, Any, str]]:
    return [(entry["name"], entry["value"], entry["time"]) for entry in tree["elements"]]


def test_a_report_becomes_a_tree() -> None:
    """Head, class, observation time, and an element each with its symbol."""
    tree = parse(
        report(element(0x20, bcd(40, 3), 1) + element(0x39, bcd(10490, 4), 3) + element(0x38, bcd(1099, 2), 2))
    )
    assert (tree["centre"], tree["station"], tree["function"], tree["serial"], tree["class"]) == (
        "01",
        "0011223344",
        "32",
        1,
        "H",
    )
    assert (tree["sent"], tree["time"], tree["odd"]) == ("2026-01-01T08:00:12", EIGHT, [])
    assert values(tree) == [("PJ", 4.0, EIGHT), ("Z", 10.49, EIGHT), ("VT", 10.99, EIGHT)]
    assert "03E8" not in repr(tree)


@pytest.mark.parametrize(
    ("raw", "decimals", "value"),
    [
        (bytes.fromhex("00010490"), 3, 10.49),
        (bytes.fromhex("FF000345"), 3, -0.345),
        (bytes.fromhex("FFFFFFFF"), 3, None),
        (bytes.fromhex("AAAAAAAA"), 3, None),
        (bytes.fromhex("FF"), 0, None),
        (bytes.fromhex("0001049F"), 3, "0001049F"),
        (bytes.fromhex("FFFF0345"), 3, "FFFF0345"),
        (bytes.fromhex("99"), 1, 9.9),
    ],
)
def test_decimal_numbers(raw: bytes, decimals: int, value: Any) -> None:
    """FF in front is minus, all F is missing and never a number; what is no decimal is shown as it is."""
    assert values(parse(report(element(0x39, raw, decimals))))[0][1] == value


def test_rain_and_levels_of_an_hour() -> None:
    """DRP and DRZ: twelve values, five minutes apart, the last at the observation time; FF and FFFF are missing."""
    rain = bytes([0, 5, 0xFF, 12, 0, 0, 0, 0, 0, 0, 0, 254])
    level = b"".join(number.to_bytes(2) for number in (0, 1049, 0xFFFF, *range(9)))
    tree = parse(report(element(0xF4, rain) + element(0xF5, level), function=0x34))
    readings = values(tree)
    assert readings[:4] == [
        ("DRP", 0.0, "2026-01-01T07:05:00"),
        ("DRP", 0.5, "2026-01-01T07:10:00"),
        ("DRP", None, "2026-01-01T07:15:00"),
        ("DRP", 1.2, "2026-01-01T07:20:00"),
    ]
    assert readings[11] == ("DRP", 25.4, EIGHT)
    assert readings[12:15] == [
        ("DRZ1", 0.0, "2026-01-01T07:05:00"),
        ("DRZ1", 10.49, "2026-01-01T07:10:00"),
        ("DRZ1", None, "2026-01-01T07:15:00"),
    ]
    assert len(readings) == 24
    begins = values(parse(report(element(0xF4, rain), function=0x34), Sl651Part(hour="begins")))
    assert (begins[0][2], begins[11][2]) == ("2026-01-01T08:05:00", "2026-01-01T09:00:00")


@pytest.mark.parametrize(
    ("observed", "sent", "function", "first"),
    [
        ("2601010800", "260101080012", 0x34, "2026-01-01T07:05:00"),
        ("2601010800", "260101080912", 0x32, "2026-01-01T07:05:00"),
        ("2601010705", "260101080012", 0x34, "2026-01-01T07:05:00"),
        ("2601010700", "260101080012", 0x34, "2026-01-01T07:00:00"),
        ("2601010705", "260101080812", 0x32, "2026-01-01T07:05:00"),
        ("2601010705", "260102093012", 0x34, "2026-01-01T07:05:00"),  # from the store: the rule of the function
        ("2601010800", "260102093012", 0x32, "2026-01-01T07:05:00"),
        ("2601010705", "FFFFFFFFFFFF", 0x34, "2026-01-01T07:05:00"),
    ],
)
def test_the_time_of_sending_tells_where_the_observation_time_stands(
    observed: str, sent: str, function: int, first: str
) -> None:
    """An hour that is sent at once ends at its observation time; one that is sent an hour later begins there."""
    elements = element(0xF4, bytes(12)) + element(0xF5, bytes(24))
    readings = values(parse(report(elements, function=function, observed=observed, sent=sent)))
    assert [readings[0][2], readings[12][2]] == [first, first]
    assert all(earlier[2] < later[2] for earlier, later in itertools.pairwise(readings[:12]))


@pytest.mark.parametrize(("hour", "first"), [("ends", "07:05"), ("begins", "08:05"), ("first", "08:00")])
def test_a_profile_decides_where_the_observation_time_stands(hour: Any, first: str) -> None:
    """The key goes before what the time of sending tells."""
    readings = values(parse(report(element(0xF4, bytes(12)), function=0x34), Sl651Part(hour=hour)))
    assert readings[0][2] == f"2026-01-01T{first}:00"


@pytest.mark.parametrize(
    ("step", "count", "times"),
    [
        ("000005", 36, {0: "01T08:00", 11: "01T08:55", 12: "01T09:00", 35: "01T10:55"}),
        ("000100", 36, {0: "01T08:00", 11: "01T08:55", 12: "01T09:00", 35: "01T10:55"}),
        ("000010", 3, {0: "01T08:00", 2: "01T08:20"}),
        ("010000", 24, {0: "01T08:00", 11: "01T08:55", 12: "02T08:00"}),
    ],
)
@pytest.mark.parametrize(("number", "size", "scale"), [(0xF4, 1, 10), (0xF5, 2, 100), (0xFC, 2, 100)])
def test_series_of_five_minutes_in_an_answer(
    number: int, size: int, scale: int, step: str, count: int, times: dict[int, str]
) -> None:
    """38H with a step and DRP or DRZ: the values have their fixed width, whatever the definition byte says."""
    raw = b"".join(value.to_bytes(size) for value in [*range(count - 1), 256**size - 1])
    for shape in (12 * size << 3 & 0xFF, size << 3):
        tree = parse(report(b"\x04\x18" + bytes.fromhex(step) + bytes([number, shape]) + raw, function=0x38))
        readings = values(tree)
        assert [value for _, value, _ in readings] == [value / scale for value in range(count - 1)] + [None]
        assert {at: readings[at][2] for at in times} == {at: f"2026-01-{time}:00" for at, time in times.items()}


def test_an_hour_whose_definition_byte_is_wrong() -> None:
    """Twelve and twenty-four bytes are fixed; a definition that says otherwise is named odd (seen in the field: 5C)."""
    level = b"".join(number.to_bytes(2) for number in range(12))
    tree = parse(report(b"\xf5\x5c" + level + element(0x38, bcd(1234, 2), 2), function=0x34))
    assert (len(tree["elements"]), tree["odd"]) == (13, ["DRZ1"])
    assert values(tree)[-1] == ("VT", 12.34, EIGHT)


def test_a_series_in_steps() -> None:
    """31H: one element described once, its values from the observation time on, a step apart (6.6.4.4)."""
    series = b"\x04\x18" + bytes.fromhex("000005") + element(0x39, bcd(28960, 4), 3) + bcd(28970, 4) + b"\xff" * 4
    assert values(parse(report(series, function=0x31))) == [
        ("Z", 28.96, "2026-01-01T08:00:00"),
        ("Z", 28.97, "2026-01-01T08:05:00"),
        ("Z", None, "2026-01-01T08:10:00"),
    ]


def test_a_series_of_two_elements() -> None:
    """Against the standard's rule, and sent nevertheless: both described first, their values in turns."""
    described = b"\x04\x18" + bytes.fromhex("000100") + bytes([0x22, 0x19, 0x39, 0x22])
    series = described + b"".join(bcd(rain, 3) + bcd(level, 4) for rain, level in ((5, 100), (7, 200)))
    assert values(parse(report(series, function=0x31))) == [
        ("PN05", 0.5, "2026-01-01T08:00:00"),
        ("Z", 1.0, "2026-01-01T08:00:00"),
        ("PN05", 0.7, "2026-01-01T09:00:00"),
        ("Z", 2.0, "2026-01-01T09:00:00"),
    ]


def test_a_step_of_zero_goes_with_values_that_have_steps_of_their_own() -> None:
    """Step 000000 stands before DRP and DRZ (annex C, note g)."""
    series = b"\x04\x18\x00\x00\x00" + element(0xF4, bytes(12))
    assert len(values(parse(report(series, function=0x38)))) == 12


def test_states_and_lapses_and_wide_identifiers() -> None:
    """Each bit of the state word is an element; a lapse is minutes; FF begins an identifier of two bytes."""
    body = element(0x45, (0b11).to_bytes(4)) + element(0x05, bcd(130, 2)) + b"\xff\x12\x12" + bcd(1234, 2)
    selected = {name: value for name, value, _ in values(parse(report(body)))}
    assert selected["ZT.0"] == selected["ZT.1"] == 1
    assert selected["ZT.2"] == 0
    assert selected["DT"] == 90.0
    assert selected["FF12"] == 12.34


def test_pictures_and_text_by_hand_hold_no_numbers() -> None:
    """They take the rest of the report; a keep-alive has none at all."""
    assert parse(report(b"\xf3\xf3" + bytes(range(200)), function=0x36))["elements"] == []
    assert parse(report(b"\xf2\xf2" + b"hello", function=0x35))["elements"] == []
    alive = parse(report(b"", function=sl651.KEEP_ALIVE))
    assert (alive["function"], alive["elements"], alive["time"]) == ("2F", [], None)


def test_text_form_says_the_same() -> None:
    """The same report as text: decimal points as written, M and F for missing, DRP in hex."""
    tree = parse(report_in_text("PJ 4.0 Z -0.345 VT M DRP " + "05" * 11 + "FF"))
    assert (tree["station"], tree["class"], tree["time"]) == ("0011223344", "H", EIGHT)
    assert values(tree)[:3] == [("PJ", 4.0, EIGHT), ("Z", -0.345, EIGHT), ("VT", None, EIGHT)]
    assert values(tree)[3] == ("DRP", 0.5, "2026-01-01T07:05:00")
    assert values(tree)[14] == ("DRP", None, EIGHT)


def test_text_series() -> None:
    """DRN05 is a step of five minutes; several elements take turns."""
    tree = parse(report_in_text("DRN05 Z PN05 28.96 0.5 28.97 M", function=0x31))
    assert values(tree) == [
        ("Z", 28.96, EIGHT),
        ("PN05", 0.5, EIGHT),
        ("Z", 28.97, "2026-01-01T08:05:00"),
        ("PN05", None, "2026-01-01T08:05:00"),
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x39\x23\x00\x01", "truncated"),
        (b"\x39", "truncated"),
        (b"\x39\x00", "has no bytes"),
        (b"\xf4\x60\x00", "truncated"),
    ],
)
def test_what_is_cut_short_is_malformed(body: bytes, message: str) -> None:
    """Half an element is no element."""
    why = refusal(report(body))
    assert (why.reason, message in why.detail) == (QuarantineReason.MALFORMED, True)


def test_values_before_an_element_that_is_cut_short_are_kept() -> None:
    """What stands before the cut stays, with a warning."""
    tree = parse(report(element(0x39, bcd(10490, 4), 3) + b"\x38\x12\x12"))
    assert values(tree) == [("Z", 10.49, EIGHT)]
    assert tree.warnings == ("an element of 2 bytes is truncated",)


def test_a_wrong_crc_is_refused_by_its_own_reason() -> None:
    """In either form."""
    for frame in (report(element(0x39, bcd(1, 4), 3)), report_in_text("Z 1")):
        assert refusal(frame[:-1] + bytes([frame[-1] ^ 1])).reason == QuarantineReason.CRC_FAIL


def test_a_station_that_contradicts_itself_is_odd() -> None:
    """Head and body name two stations; a time that is none is odd too: its values are dated by arrival."""
    frame = report(b"", observed="2613010800")
    assert parse(frame)["odd"] == ["time"]
    body = (1).to_bytes(2) + bytes.fromhex("260101080012") + b"\xf1\xf1" + bytes.fromhex("0011223355") + b"H"
    assert parse(sl651.build(sl651.Sl651Head(1, "0011223344", "03E8", 0x32), body, sl651.ETX, up=True))["odd"] == [
        "station"
    ]


def test_midnight_may_be_24_hours() -> None:
    """2400 is the beginning of the next day."""
    assert parse(report(b"", observed="2512312400"))["time"] == "2026-01-01T00:00:00"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([number for number in SYMBOLS if number not in {4, 5, 0x45} and number < 0xF0]),
            st.integers(0, 10**6),
            st.integers(0, 4),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_what_is_written_is_read(elements: list[tuple[int, int, int, bool]]) -> None:
    """Every element comes back with its value, whatever its sign and decimals."""
    body = b"".join(
        element(number, bcd(-value if minus and value else value, 5), decimals)
        for number, value, decimals, minus in elements
    )
    assert [(item["id"], item["value"]) for item in parse(report(body))["elements"]] == [
        (f"{number:02X}", (-value if minus and value else value) / 10**decimals)
        for number, value, decimals, minus in elements
    ]


@given(st.binary(max_size=120))
def test_any_bytes_are_a_tree_or_refused(payload: bytes) -> None:
    """Alone, and as the body of a good frame of each kind."""
    frames = [
        payload,
        report(payload),
        report(payload, function=0x31),
        report(b"\x04\x18\0\0\5" + payload, function=0x31),
    ]
    frames.append(sl651.build(sl651.Sl651Head(1, "0011223344", "03E8", 0x31), payload, sl651.ETX, up=True, text=True))
    for frame in frames:
        with contextlib.suppress(Rejected):
            parse(frame)


@given(
    st.lists(
        st.sampled_from(["ST", "TT", "H", "DRN05", "DRH00", "Z", "M", "1.5", "DRP", "ZT", "PIC", "", "x"]), max_size=12
    )
)
def test_any_words_are_a_tree_or_refused(words: list[str]) -> None:
    """Words of the text form in any order."""
    for function in (0x31, 0x32):
        with contextlib.suppress(Rejected):
            parse(report_in_text(" ".join(words), function=function))


# Frames that public tests of other implementations carry (the bytes are facts; values read by hand from annex C).
HOUR_OF_RAIN = (
    "7E7E10001234567812343400570200031406120200 00F1F1001234567848F0F01406120200"
    "F460000000000000000000000000F5C00AAA0AAAFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
    "26190000002019000000 1A19000000391A00273038121290 03DD4E"
)
LEVELS_IN_STEPS = (
    "7E7E05001122334403E831004E020031170718110005F1F1001122334448F0F01707181005041800000539230000012200000122"
    "000002850001049000010490FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF0001049000010490037AC7"
)
RAIN_ASKED_FOR = (
    "7E7E05001122334403E83A0025020037170718110226F1F1001122334448F0F01707181005F4600500000014FFFFFFFFFF000003074E"
)


def test_an_hourly_report_of_a_public_test() -> None:
    """Rain and level of every five minutes of the hour before, totals, level, battery."""
    tree = parse(bytes.fromhex(HOUR_OF_RAIN))
    assert (tree["function"], tree["class"], tree["time"]) == ("34", "H", "2014-06-12T02:00:00")
    assert [(entry["name"], entry["value"]) for entry in tree["elements"]] == [
        *[("DRP", 0.0)] * 12,
        *[("DRZ1", 27.3)] * 2,
        *[("DRZ1", None)] * 10,
        ("PT", 0.0),
        ("PJ", 0.0),
        ("P1", 0.0),
        ("Z", 27.3),
        ("VT", 12.9),
    ]


def test_series_and_answers_begin_with_the_observation_time() -> None:
    """Even-interval report and answer of one station for one hour: the same instants, step or not."""
    steps = parse(bytes.fromhex(LEVELS_IN_STEPS))
    parsed = parse(bytes.fromhex(RAIN_ASKED_FOR))
    times = [f"2017-07-18T{10 + at // 12}:{at % 12 * 5:02d}:00" for at in range(1, 13)]
    assert [step["time"] for step in steps["elements"]] == times
    assert [step["value"] for step in steps["elements"]] == [
        0.122, 0.122, 0.285, 10.49, 10.49, None, None, None, None, None, 10.49, 10.49,
    ]  # fmt: skip
    assert [item["time"] for item in parsed["elements"]] == times
    assert [item["value"] for item in parsed["elements"]] == [0.5, 0, 0, 0, 2.0, None, None, None, None, None, 0, 0]


def test_an_answer_for_a_span_holds_as_many_hours_as_it_asks_for() -> None:
    """Function 38 with DRP: one identifier, 192 values of five minutes."""
    head = "7E7E10001234567812343800DE020031130325110533F1F1001234567848F0F013032410000418000000F460"
    tree = parse(bytes.fromhex(head + "00" * 192 + "1716F5"))
    assert len(tree["elements"]) == 192
    assert (tree["elements"][0]["time"], tree["elements"][-1]["time"]) == ("2013-03-24T10:00:00", "2013-03-25T01:55:00")


@pytest.mark.parametrize(
    "frame",
    [
        "7E7E001234567810123438801702000013032511053313032410130325100418000000F46005F800",
        "7E7E00112233440503E83A800A020000170718110230F460059B7B",
        (
            "7E7E050011223344123442003F02001F170718101913F1F1001122334420080121080522080823100300240805250910260910270802"
            "282300010000301B0002003812050040120003411200200342A6"
        ),
        "7E7E0500112233441234450021020022170718101955F1F10011223344114441544138362D53572D56312E3228482903C476",
        "7E7E0500112233441234490013020024170718102024F1F10011223344031003E803CEC8",
        "7E7E05001122334403E84E001302002B170718102309F1F100112233440101000203869B",
        (
            "7E7E05001122334403E850004F02002D170718102342F1F10011223344000000020000000000010000000000000000000000"
            "00000000000000000000710044000500000000000000000000000000000000000000000000000000000000036B0A"
        ),
    ],
    ids=["question for a span", "question", "settings", "version", "password", "gate", "events"],
)
def test_what_only_looks_like_elements_is_none(frame: str) -> None:
    """Questions of a centre, settings, passwords (which stay out of the tree), events."""
    tree = parse(bytes.fromhex(frame))
    assert tree["elements"] == []
    assert "03E8" not in repr(tree)


def test_a_lapse_may_be_text() -> None:
    """Element 05 as ``11.01``: eleven hours and a minute."""
    assert values(parse(report(element(0x05, b"11.01"))))[0][1] == 661.0


STEP = {"hour": "000100", "day": "010000", "five minutes": "000005"}


def series(function: int, step: str, elements: bytes, **more: Any) -> list[tuple[str, Any, str]]:
    """Return the values of a report with a step."""
    return values(parse(report(b"\x04\x18" + bytes.fromhex(STEP[step]) + elements, function=function, **more)))


LEVELS_OF_THREE = bytes([0x39, 4 << 3 | 3]) + bcd(10490, 4) + bcd(10500, 4) + bcd(10510, 4)
RAIN_OF_TWO = bytes([0x1F, 3 << 3 | 1]) + bcd(40, 3) + bcd(50, 3)
FIVE_MINUTES = b"\xf4\x60" + bytes(range(12))


@pytest.mark.parametrize(
    ("function", "step", "elements", "first", "last"),
    [
        (0x31, "hour", LEVELS_OF_THREE, ("Z", 10.49, EIGHT), ("Z", 10.51, "2026-01-01T10:00:00")),
        (0x38, "hour", LEVELS_OF_THREE, ("Z", 10.49, EIGHT), ("Z", 10.51, "2026-01-01T10:00:00")),
        (0x31, "day", RAIN_OF_TWO, ("PD", 4.0, EIGHT), ("PD", 5.0, "2026-01-02T08:00:00")),
        (0x38, "five minutes", FIVE_MINUTES, ("DRP", 0.0, EIGHT), ("DRP", 1.1, "2026-01-01T08:55:00")),
        (0x38, "hour", FIVE_MINUTES, ("DRP", 0.0, EIGHT), ("DRP", 1.1, "2026-01-01T08:55:00")),
    ],
)
def test_series_begin_at_the_observation_time(function: int, step: str, elements: bytes, first: Any, last: Any) -> None:
    """Periods that are sent or asked for: the step dates what follows; DRP keeps its five minutes."""
    result = series(function, step, elements)
    assert (result[0], result[-1]) == (first, last)


@pytest.mark.parametrize(
    ("observed", "first", "last"),
    [
        ("2601010800", "2026-01-01T07:05:00", EIGHT),
        ("2601010700", "2026-01-01T07:00:00", "2026-01-01T07:55:00"),
        ("2601010705", "2026-01-01T07:05:00", EIGHT),
    ],
)
def test_the_hour_of_function_34_is_told_by_the_time_of_sending(observed: str, first: str, last: str) -> None:
    """Sent at 8:00:12: whatever convention the station has, the values are those of seven to eight o'clock."""
    readings = values(parse(report(FIVE_MINUTES, function=0x34, observed=observed)))
    assert (readings[0][2], readings[-1][2]) == (first, last)


@pytest.mark.parametrize(
    ("symbol", "digits", "code", "times"),
    [
        ("DRP", "0A00FF" + "0C" * 9, "DRN05", ["01T08:00", "01T08:05", "01T08:55"]),
        ("DRP", "0A00FF" + "0C" * 9, "DRH01", ["01T08:00", "01T08:05", "01T08:55"]),
        ("DRZ1", "03E80000FFFF" + "0419" * 9, "DRN05", ["01T08:00", "01T08:05", "01T08:55"]),
        ("DRP", "0A00FF" + "0C" * 21, "DRH01", ["01T08:00", "01T08:05", "01T09:55"]),
    ],
)
def test_series_of_five_minutes_as_text(symbol: str, digits: str, code: str, times: list[str]) -> None:
    """An answer in the text form with a step and DRP or DRZ says what the binary form says."""
    readings = values(parse(report_in_text(f"{code} {symbol} {digits}", function=0x38)))
    assert [readings[at][1] for at in (0, 1, 2)] == [10.0 if symbol == "DRZ1" else 1.0, 0.0, None]
    assert {name for name, _, _ in readings} == {symbol}
    assert [readings[at][2] for at in (0, 1, -1)] == [f"2026-01-{time}:00" for time in times]


def test_a_series_as_text_that_is_no_hex() -> None:
    """Half a value, no value, or a number with a point."""
    for raw in ("0A0", "", "1.5", "0G"):
        assert refusal(report_in_text(f"DRN05 DRP {raw}", function=0x38)).reason is QuarantineReason.MALFORMED


@pytest.mark.parametrize(
    ("observed", "sent", "first", "last"),
    [
        ("2512312400", "260101000012", "2025-12-31T23:05:00", "2026-01-01T00:00:00"),
        ("2601010000", "260101000012", "2025-12-31T23:05:00", "2026-01-01T00:00:00"),
        ("2512312300", "260101000012", "2025-12-31T23:00:00", "2025-12-31T23:55:00"),
        ("2802282400", "280229000012", "2028-02-28T23:05:00", "2028-02-29T00:00:00"),
    ],
)
def test_hours_at_midnight(observed: str, sent: str, first: str, last: str) -> None:
    """The hour before midnight lies in the day before, at the end of a year and of a February."""
    readings = values(parse(report(FIVE_MINUTES, function=0x34, observed=observed, sent=sent)))
    assert (readings[0][2], readings[-1][2]) == (first, last)


def test_a_level_below_its_datum_in_a_series() -> None:
    """Negative, missing, invalid: each keeps its place in the steps."""
    levels = bytes([0x39, 4 << 3 | 3]) + bcd(-345, 4) + b"\xff" * 4 + b"\xaa" * 4 + bcd(0, 4)
    assert series(0x38, "five minutes", levels) == [
        ("Z", -0.345, EIGHT),
        ("Z", None, "2026-01-01T08:05:00"),
        ("Z", None, "2026-01-01T08:10:00"),
        ("Z", 0.0, "2026-01-01T08:15:00"),
    ]
