"""A device's own flags become quality, or make the value no reading."""

from __future__ import annotations

from typing import Any

import pytest

from sensegate.decode.flags import REJECT, WORDS, QualityFlags, compile_words, verdict
from sensegate.errors import ProfileError
from sensegate.model import Message, RejectReason
from sensegate.quantities.quality import Quality
from tests.support.profiles import Make

FLAT = """
  - topics: ["acme/{device}/up"]
    quality: {words: {ok: good, cal: uncertain_calibration, off: reject}, absent: good}
    readings:
      - {field: t, flag: tf, property: air_temperature}
      - {field: h, property: relative_humidity}
"""
LISTED = """
  - topics: ["acme/{device}/up"]
    each: v
    named: {name: n, value: [v]}
    quality: {field: f, words: hj212, doubt: $.odd}
    readings:
      - {field: "a34004-{channel}", channels: {Rtd: "", Avg: mean}, property: pm2_5}
      - {field: a01001, property: air_temperature}
"""


def message(payload: str) -> Message:
    return Message("acme/d1/up", payload.encode(), 1_767_225_600_000_000, 1)


def test_a_flag_beside_its_value(make: Make) -> None:
    """Each value's own flag judges it alone; what has none has the quality of an absent flag."""
    fields = make(FLAT).decode([message('{"t": 20, "tf": "cal", "h": 50}'), message('{"t": 21, "tf": "ok", "h": 51}')])
    assert fields.value.tolist() == [20, 50, 21, 51]
    assert fields.source_quality == {0: Quality.UNCERTAIN_CALIBRATION}


def test_a_value_that_the_device_disowns_is_rejected(make: Make) -> None:
    """`reject` makes it no reading, with a reason of its own; a flag nobody knows only marks it."""
    fields = make(FLAT).decode([message('{"t": 20, "tf": "off", "h": 50}'), message('{"t": 21, "tf": "??", "h": 51}')])
    assert fields.value.tolist() == [50, 21, 51]
    assert [(value.field, value.reason) for value in fields.rejected] == [("t", RejectReason.FLAGGED)]
    assert fields.source_quality == {1: Quality.UNCERTAIN_UNKNOWN}


def test_flags_of_elements_by_the_table_of_hj212(make: Make) -> None:
    """N is good, M and C are not; none is unknown; what makes for doubt leaves worse alone; channels are renamed."""
    payload = (
        '{"v": [{"n": "a34004-Rtd", "v": 1, "f": "N"}, {"n": "a34004-Avg", "v": 2, "f": "M"}, '
        '{"n": "a01001", "v": 3}, {"n": "a01001", "v": 4, "f": ""}]%s}'
    )
    decoder = make(LISTED)
    fields = decoder.decode([message(payload % ""), message(payload % ', "odd": ["st"]')])
    unknown, maintained = Quality.UNCERTAIN_UNKNOWN, Quality.UNCERTAIN_MAINTENANCE
    assert fields.source_quality == {
        1: maintained,
        2: unknown,
        3: unknown,
        4: Quality.UNCERTAIN,
        5: maintained,
        6: unknown,
        7: unknown,
    }
    assert [decoder.profiles.specs[at].channel for at in fields.spec[:2]] == ["", "mean"]


def test_many_messages_with_flags_keep_them_in_their_rows(make: Make) -> None:
    """Flags stay with their values among messages that are decoded by columns."""
    plain = '  - topics: ["acme/{device}/plain"]\n    readings: [{field: t, property: air_temperature}]\n'
    decoder = make(FLAT + plain)
    messages = []
    for number in range(100):
        messages.append(Message("acme/d1/plain", b'{"t": %d}' % number, 1_767_225_600_000_000, number))
        messages.append(message(f'{{"t": {number}, "tf": "cal"}}'))
    for _ in range(2):
        fields = decoder.decode(messages)
        assert sorted(fields.source_quality) == [row for row in range(200) if row % 2]


@pytest.mark.parametrize(
    ("table", "raw", "expected"),
    [
        ("hj212", "N", Quality.GOOD),
        ("hj212", "D", Quality.BAD_SENSOR),
        ("hj212", "?", Quality.UNCERTAIN_UNKNOWN),
        ("hj212", 3, Quality.UNCERTAIN_LAST),
        ("opcua", 0x808C0000, Quality.BAD_SENSOR),
        ("opcua", "192", Quality.UNCERTAIN_LAST),
        ("wmo", 4, Quality.BAD),
    ],
)
def test_tables_of_flags(table: str, raw: Any, expected: Quality) -> None:
    """Each table knows its flags; what is none of its kind has the quality of `other`."""
    from sensegate.decode.flags import TABLES

    assert QualityFlags(None, TABLES[table], Quality.GOOD, Quality.UNCERTAIN_LAST, None).judge(raw, None) == expected


def test_words_tell_true_from_one() -> None:
    """`true` and 1 are two flags; lists and objects are none."""
    flags = QualityFlags(
        None, compile_words({True: "bad"}) | compile_words({1: "good"}), Quality.GOOD, Quality.UNCERTAIN, None
    )
    sent: list[Any] = [True, 1, [1], {}, None]
    assert [flags.judge(raw, None) for raw in sent] == [
        Quality.BAD,
        Quality.GOOD,
        Quality.UNCERTAIN,
        Quality.UNCERTAIN,
        Quality.GOOD,
    ]


def test_every_word_means_something() -> None:
    """All words of the quality table may be written, and the one for a rejection."""
    assert {verdict(word) for word in WORDS} == {*Quality, RejectReason.FLAGGED}
    assert REJECT in WORDS


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ("{field: f, words: {N: god}}", "unknown word 'god'; did you mean 'good'?"),
        ("{field: f, words: hj213}", "unknown word 'hj213'; did you mean 'hj212'?"),
        ("{field: f, words: hj212, absent: dunno}", "absent: unknown word 'dunno'"),
        ("{words: hj212}", "no path to a flag"),
    ],
)
def test_wrong_words_are_said(make: Make, quality: str, message: str) -> None:
    """A wrong word names its key and the nearest right one."""
    with pytest.raises(ProfileError, match=r"x\.yaml:\d+") as caught:
        make(
            FLAT.replace("{words: {ok: good, cal: uncertain_calibration, off: reject}, absent: good}", quality).replace(
                "flag: tf, ", ""
            )
        )
    assert message in str(caught.value)


def test_a_flag_without_a_meaning_is_refused(make: Make) -> None:
    """`flag` in a reading asks for `quality` in its rule."""
    lines = [line for line in FLAT.splitlines() if "quality" not in line]
    with pytest.raises(ProfileError, match="give `quality`"):
        make("\n".join(lines))
