"""SenML in CBOR: the same records as from JSON, by the labels of RFC 8428."""

from __future__ import annotations

import base64
import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with

parse = parse_with("senml_cbor")
parse_json = parse_with("senml")

LABELS = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6}
LABELS |= {"n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8}
"""RFC 8428, table 6 (the other way round than in the decoder)."""

SECTION_6 = """
    87 a7 21 78 1b 75 72 6e 3a 64 65 76 3a 6f 77 3a 31 30 65 32 30 37 33 61 30 31 30 38 30 30 36 3a
    22 fb 41 d3 03 a1 5b 00 10 62 23 61 41 20 05 00 67 76 6f 6c 74 61 67 65 01 61 56 02 fb 40 5e 06 66 66 66 66 66
    a3 00 67 63 75 72 72 65 6e 74 06 24 02 fb 3f f3 33 33 33 33 33 33 a3 00 67 63 75 72 72 65 6e 74 06 23 02 fb 3f f4
    cc cc cc cc cc cd a3 00 67 63 75 72 72 65 6e 74 06 22 02 fb 3f f6 66 66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74
    06 21 02 f9 3e 00 a3 00 67 63 75 72 72 65 6e 74 06 20 02 fb 3f f9 99 99 99 99 99 9a a3 00 67 63 75 72 72 65 6e 74
    06 00 02 fb 3f fb 33 33 33 33 33 33
"""
"""The example of RFC 8428, section 6: that of 5.1.3 (five seconds of a current) in CBOR."""


def test_the_example_of_the_standard() -> None:
    """Base name, time and unit are resolved; a whole number and half precision are numbers."""
    records = parse(bytes.fromhex(SECTION_6))
    rows = [(record["n"], record["u"], round(record["t"], 3), record["v"]) for record in records]
    at = 1_276_020_076.001
    assert rows == [
        ("voltage", "V", at, 120.1),
        *(("current", "A", round(at - 5 + k, 3), value) for k, value in enumerate([1.2, 1.3, 1.4, 1.5, 1.6, 1.7])),
    ]
    assert {record["name"] for record in records} == {"urn:dev:ow:10e2073a0108006:" + n for n in ("voltage", "current")}


def to_cbor(pack: list[dict[str, Any]]) -> bytes:
    """Return a pack with integer labels, data as bytes."""
    return cbor2.dumps(
        [
            {
                LABELS.get(key, key): base64.urlsafe_b64decode(v + "==") if key == "vd" else v
                for key, v in record.items()
            }
            for record in pack
        ]
    )


numbers = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9)
record = st.fixed_dictionaries(
    {"n": st.sampled_from(["temperature", "a", "b:c"])},
    optional={
        "bn": st.sampled_from(["urn:dev:ow:1:", "x/"]),
        "bt": numbers,
        "bu": st.sampled_from(["Cel", "V"]),
        "bv": numbers,
        "bs": numbers,
        "u": st.sampled_from(["%RH", "W"]),
        "t": numbers,
        "s": numbers,
        "ut": numbers,
        "foo": st.text(max_size=4),
    },
)
value = st.one_of(
    st.fixed_dictionaries({"v": numbers}),
    st.fixed_dictionaries({"vs": st.text(max_size=8)}),
    st.fixed_dictionaries({"vb": st.booleans()}),
    st.fixed_dictionaries(
        {"vd": st.binary(max_size=8).map(lambda r: base64.urlsafe_b64encode(r).decode().rstrip("="))}
    ),
)
packs = st.lists(st.tuples(record, value).map(lambda two: two[0] | two[1]), min_size=1, max_size=5)


@given(packs)
def test_both_forms_of_a_pack_are_the_same(pack: list[dict[str, Any]]) -> None:
    """A pack in CBOR gives, to the last bit, what it gives in JSON."""
    assert parse(to_cbor(pack)) == parse_json(json.dumps(pack).encode())


@pytest.mark.parametrize(
    ("pack", "why"),
    [
        ({0: "a", 2: 1}, "schema: a SenML pack must be a list"),
        ([], "schema"),
        ([1], "schema"),
        ([{0: 1, 2: 1}], "schema: record 0: 'n'"),
        ([{0: "a", 4: 1}], "schema: record 0: 'vb'"),
        ([{0: "a", 2: b"1"}], "schema: record 0: 'v'"),
        ([{-1: 11, 0: "a", 2: 1}], "schema: record 0: SenML version"),
        ([{0: "a", "n": "b", 2: 1}], "malformed: record 0 has a label"),
        ([{0: "a", 2: 1, "x_": 1}], "schema: record 0: 'x_' must be understood"),
    ],
)
def test_what_is_no_pack_is_refused(pack: Any, why: str) -> None:
    """Wrong types, labels twice, a version of the future, and members that must be understood."""
    with pytest.raises(Rejected, match=why):
        parse(cbor2.dumps(pack))
