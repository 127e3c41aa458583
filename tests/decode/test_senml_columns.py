"""SenML as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext
from sensegate.decode.learned_forms import FORMS_MAX
from sensegate.decode.senml_columns import SenmlColumns
from sensegate.decode.times import TimeReader
from sensegate.errors import ProfileError, Rejected
from tests.bench.decode import NOW
from tests.decode.formats.flat_values import flat, same_values, tree_of


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def columns() -> SenmlColumns:
    """Return a new parse."""
    return SenmlColumns(FORMATS["senml"].compile(None, FormatContext("v/m", 1, __file__, _error)), 32)  # type: ignore[arg-type]


NUMBERS = st.one_of(
    st.integers(-5, 5), st.floats(allow_nan=False), st.integers(-(2**70), 2**70), st.sampled_from([-0.0, 1.5])
)
TEXTS = st.sampled_from(["a", "b:", "", "-x", "temp", "温", "a b", 'q"', "\\", "urn:dev:1_", "n" * 1_025])
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "bn": TEXTS,
        "bt": NUMBERS,
        "bu": st.sampled_from(["Cel", "", "%RH"]),
        "bv": NUMBERS,
        "bs": NUMBERS,
        "bver": st.sampled_from([10, 11, 10.0]),
        "n": TEXTS,
        "u": st.sampled_from(["Cel", "lat", ""]),
        "v": NUMBERS,
        "vs": TEXTS,
        "vb": st.booleans(),
        "s": NUMBERS,
        "t": NUMBERS,
        "x": st.sampled_from([None, 1, "y", [1]]),
        "must_": st.just(1),
    },
)
PLAIN = st.fixed_dictionaries(
    {"n": st.sampled_from(["a", "b", "c"])}, optional={"v": NUMBERS, "t": NUMBERS, "u": st.just("Cel")}
)
PACKS = (
    st.lists(RECORDS, max_size=4) | st.lists(PLAIN, min_size=1, max_size=4) | st.tuples(RECORDS, PLAIN, PLAIN).map(list)
)


def _other_numbers(value: Any, data: st.DataObject) -> Any:
    return data.draw(NUMBERS) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@given(PACKS, st.data())
def test_values_are_those_of_the_tree(pack: list[dict[str, Any]], data: st.DataObject) -> None:
    """Before and after a form is learned, for packs that differ in numbers and in their base names."""
    parse = columns()
    for _ in range(5):
        other = [
            {
                key: data.draw(TEXTS) if key == "bn" else value if key == "bver" else _other_numbers(value, data)
                for key, value in record.items()
            }
            for record in pack
        ]
        for sent in (pack, other):
            payload = json.dumps(sent, ensure_ascii=False).encode()
            values = flat(parse, payload)
            if values is not None and all(value is not None for value in values.values()):
                assert same_values(values, tree_of(parse._parse, payload))


def test_usual_packs_have_a_form() -> None:
    """A gateway's pack with base name, time and unit is resolved without its tree; a key given twice is not."""
    parse = columns()
    for number in range(6):
        pack = [
            {"bn": f"urn:dev:mac:{number:04x}:", "bt": 1.7e9 + number, "bu": "Cel", "n": "t1", "v": number},
            {"n": "t2", "v": 0.5, "t": -1},
            {"n": "on", "vb": True, "u": "/"},
        ]
        payload = msgspec.json.encode(pack)
        values = flat(parse, payload)
        assert values is not None
        assert same_values(values, tree_of(parse._parse, payload))
    assert parse.known(payload) is not None
    twice = payload.replace(b'{"n":"t2",', b'{"n":"t2","n":"t2",')
    assert parse.known(twice) is None
    assert flat(parse, twice) is None
    assert parse.known(payload.replace(b"urn:dev:mac:", b"m" * 1_025)) is None


def test_forms_are_bounded() -> None:
    """Beyond the limit further packs go through their trees."""
    parse = columns()
    for number in range(FORMS_MAX + 9):
        payload = msgspec.json.encode([{"n": f"a{number}", "v": 1}])
        for _ in range(4):
            assert flat(parse, payload) is not None
    assert parse.count == FORMS_MAX


@given(st.lists(st.integers(-(2**33), 2**33), min_size=1) | st.lists(st.floats(-(2.0**33), 2.0**33), min_size=1))
def test_times_of_a_column_are_those_of_each(raws: list[Any]) -> None:
    """Small numbers count from the arrival, others are Unix seconds."""
    reader = TimeReader(("senml",))
    received = NOW + np.arange(len(raws))
    time, quality = reader.column(raws, received)
    expected = [reader.parse(raw, int(at)) for raw, at in zip(raws, received, strict=True)]
    assert list(zip(time.tolist(), quality.tolist(), strict=True)) == expected


def test_a_damaged_pack_is_refused() -> None:
    """As by its tree."""
    parse = columns()
    for payload in (b"", b"{}", b"[]", b'[{"n":"a","v":"1"}]', b'[{"n":"a","v":1,"vs":"x"}]'):
        try:
            parse.flatten(payload, None)
        except Rejected:
            assert tree_of(parse._parse, payload) is None
