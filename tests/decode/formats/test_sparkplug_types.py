"""Sparkplug payloads: every data type there and back, the specification's own examples, and bytes that are none."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.sparkplug_payload import CELLS_MAX, FIELDS_MAX, METRICS_MAX, read
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from tests.decode.formats.sparkplug_payloads import (
    TYPES,
    block,
    data_set,
    key,
    metric,
    payload,
    properties,
    varint,
    whole,
)

NESTING = 32


def _float(number: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{f"Int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    "Float": st.floats(width=32, allow_nan=False),
    "Double": st.floats(allow_nan=False),
    "Boolean": st.booleans(),
    "DateTime": st.integers(0, 2**63 - 1),
    **dict.fromkeys(("String", "Text", "UUID"), texts),
    **dict.fromkeys(("Bytes", "File"), st.binary(max_size=20).map(bytes.hex)),
}
BASIC = [kind for kind in VALUES if kind not in {"Bytes", "File"}]
ARRAYS = {
    f"{kind}Array": st.lists(VALUES[kind].filter(bool) if kind == "String" else VALUES[kind], max_size=20)
    for kind in BASIC
    if f"{kind}Array" in TYPES
}
tables = st.lists(st.sampled_from(BASIC), min_size=1, max_size=4).flatmap(
    lambda kinds: st.fixed_dictionaries(
        {
            "columns": st.just([f"c{at}" for at in range(len(kinds))]),
            "types": st.just(kinds),
            "rows": st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in kinds)).map(list), max_size=4),
        }
    )
)
typed = st.sampled_from([*VALUES, *ARRAYS]).flatmap(lambda kind: st.tuples(st.just(kind), (VALUES | ARRAYS)[kind]))


def test_every_type_of_the_specification_is_tried() -> None:
    """Types 1 to 34, but for the two of properties and the two that are tried apart."""
    assert set(TYPES) == {*VALUES, *ARRAYS, "DataSet", "Template", "PropertySet", "PropertySetList"}
    assert sorted(TYPES.values()) == list(range(1, 35))


@given(typed)
def test_value_of_every_type_comes_back(case: tuple[str, Any]) -> None:
    """What is written by the schema is read as it was, with its type's name."""
    kind, value = case
    (result,) = read(payload(metric("m", kind, value, alias=7, timestamp=5)), NESTING).metrics
    assert result.tree() == {"name": "m", "alias": 7, "timestamp": 5, "datatype": kind, "value": value}


@given(tables)
def test_data_set_comes_back(table: dict[str, Any]) -> None:
    """Columns, types and cells, an empty cell as null."""
    (result,) = read(payload(metric("m", "DataSet", table)), NESTING).metrics
    assert result.tree()["value"] == table


@given(st.lists(typed, min_size=1, max_size=4), st.booleans())
def test_template_comes_back(members: list[tuple[str, Any]], definition: bool) -> None:  # noqa: FBT001
    """Members with their types, parameters, reference and version."""
    value = {
        "metrics": [metric(f"m{index}", kind, member) for index, (kind, member) in enumerate(members)],
        "parameters": [("limit", "Int8", -3)],
        "template_ref": "pump",
        "version": "2",
        "is_definition": definition,
    }
    (result,) = read(payload(metric("t", "Template", value)), NESTING).metrics
    assert result.tree()["value"] == {
        "is_definition": definition,
        "metrics": [
            {"name": f"m{index}", "datatype": kind, "value": member} for index, (kind, member) in enumerate(members)
        ],
        "parameters": [{"name": "limit", "type": "Int8", "value": -3}],
        "template_ref": "pump",
        "version": "2",
    }


@given(st.dictionaries(texts.filter(bool), st.sampled_from(BASIC).flatmap(lambda k: st.tuples(st.just(k), VALUES[k]))))
def test_properties_come_back(entries: dict[str, tuple[str, Any]]) -> None:
    """Values by name; a set and a list of sets inside, and null."""
    props = {
        **entries,
        "\0set": ("PropertySet", {"a": ("Int16", -1)}),
        "\0sets": ("PropertySetList", [{"a": ("String", "x")}, {}]),
        "\0null": ("Double", None),
    }
    (result,) = read(payload(metric("m", "Int8", 1, props=props)), NESTING).metrics
    plain = {name: value for name, (_, value) in entries.items()}
    assert result.properties == {**plain, "\0set": {"a": -1}, "\0sets": [{"a": "x"}, {}], "\0null": None}


# Worked examples of the specification (Eclipse Sparkplug 3.0.0, 6.4.17, array types); its -23 for ef is a slip: -17.
SPECIFIED = [
    (22, "ef7b", [-17, 123]),
    (24, "15cd5b07b168de3a", [123456789, 987654321]),
    (32, "0c00000034d0", [False, False, True, True, False, True, False, False, True, True, False, True]),
    (33, "4142430068656c6c6f00", ["ABC", "hello"]),
]


@pytest.mark.parametrize(("datatype", "raw", "value"), SPECIFIED)
def test_arrays_are_packed_as_specified(datatype: int, raw: str, value: list[Any]) -> None:
    """The bytes that the specification shows."""
    whole_metric = block(1, "m") + whole(4, datatype) + block(16, bytes.fromhex(raw))
    assert read(payload(whole_metric), NESTING).metrics[0].read(None) == value


SIGNED = [
    (1, 251, -5), (1, 0xFFFF_FFFB, -5), (1, 2**64 - 5, -5), (1, 127, 127), (2, 0xFFFF_FFD6, -42), (2, 0xFFD6, -42),
    (3, 0xFFFF_FFFF, -1), (4, 2**64 - 1, -1), (4, 2**63 - 1, 2**63 - 1), (7, 4294967290, 4294967290),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "raw", "value"), SIGNED)
def test_signed_numbers_travel_in_unsigned_fields(datatype: int, raw: int, value: int) -> None:
    """In the width of the type, or sign-extended to 32 or 64 bits; in the field for either width."""
    fields = [(11, raw)] if raw >= 2**32 else [(10, raw), (11, raw)]
    for number, written in fields:
        result = block(1, "m") + whole(4, datatype) + whole(number, written)
        assert read(payload(result), NESTING).metrics[0].read(None) == value


MISFITS = [
    ("a number too large for its type", block(1, "m") + whole(4, 1) + whole(10, 300)),
    ("an unsigned number too large", block(1, "m") + whole(4, 5) + whole(10, 256)),
    ("half sign-extended", block(1, "m") + whole(4, 1) + whole(10, 0x00FF_FFFB)),
    ("a text for a number", block(1, "m") + whole(4, 3) + block(15, "12")),
    ("a number for a text", block(1, "m") + whole(4, 12) + whole(10, 12)),
    ("a number for a boolean", block(1, "m") + whole(4, 11) + whole(10, 1)),
    ("a type that there is not", block(1, "m") + whole(4, 35) + whole(10, 1)),
    ("a property set as a metric", block(1, "m") + whole(4, 20) + whole(10, 1)),
]


@pytest.mark.parametrize(("case", "metric"), MISFITS, ids=[case for case, _ in MISFITS])
def test_value_that_is_not_of_its_type_is_refused(case: str, metric: bytes) -> None:
    """A wrong value is never guessed at."""
    del case
    with pytest.raises(Rejected) as refused:
        read(payload(metric), NESTING).metrics[0].read(None)
    assert refused.value.reason == QuarantineReason.SCHEMA


BROKEN = [
    ("cut in a varint", bytes.fromhex("0880"), QuarantineReason.MALFORMED),
    ("cut in a field", block(2, b"abc")[:-1], QuarantineReason.MALFORMED),
    ("an announced length of 2^60", key(2, 2) + varint(2**60), QuarantineReason.MALFORMED),
    (
        "an inner length beyond its message",
        block(2, key(1, 2) + varint(9) + b"m") + b"\0" * 20,
        QuarantineReason.MALFORMED,
    ),
    ("a number of 11 bytes", b"\x08" + b"\xff" * 10 + b"\x01", QuarantineReason.MALFORMED),
    ("a group", key(2, 3) + key(2, 4), QuarantineReason.MALFORMED),
    ("wire type 7", b"\x0f", QuarantineReason.MALFORMED),
    ("field 0", b"\x00\x01", QuarantineReason.MALFORMED),
    ("a name that is not UTF-8", payload(block(1, b"\xff\xfe")), QuarantineReason.NOT_UTF8),
    ("keys without values", payload(block(9, block(1, "engUnit"))), QuarantineReason.SCHEMA),
    ("a data set without types", payload(block(17, block(2, "c") + block(4, b""))), QuarantineReason.SCHEMA),
    (
        "a row of another width",
        payload(block(17, block(2, "c") + whole(3, 3) + block(4, b""))),
        QuarantineReason.SCHEMA,
    ),
    ("a name of 2,000 characters", payload(metric("m" * 2_000, "Int8", 1)), QuarantineReason.SCHEMA),
    ("too many fields", whole(7, 1) * (FIELDS_MAX + 1), QuarantineReason.SCHEMA),
    ("too many metrics", block(2, b"") * (METRICS_MAX + 1), QuarantineReason.SCHEMA),
    ("too many members", payload(metric("t", "Template", {"metrics": [b""] * METRICS_MAX})), QuarantineReason.SCHEMA),
    ("too many cells", payload(block(17, data_set(["c"], ["Int8"], [[1]] * (CELLS_MAX + 1)))), QuarantineReason.SCHEMA),
]


@pytest.mark.parametrize(("case", "raw", "reason"), BROKEN, ids=[case for case, _, _ in BROKEN])
def test_bytes_that_are_no_payload_are_refused(case: str, raw: bytes, reason: QuarantineReason) -> None:
    """With the reason, whatever is announced."""
    del case
    with pytest.raises(Rejected) as refused:
        read(raw, NESTING)
    assert refused.value.reason == reason


def test_templates_and_properties_nest_so_deep_and_no_deeper() -> None:
    """The bound of the configuration holds for both."""
    result = metric("m", "Int8", 1)
    for _ in range(5):
        result = metric("t", "Template", {"metrics": [result]})
    assert read(payload(result), 6).metrics
    with pytest.raises(Rejected, match="too_deep"):
        read(payload(result), 5)
    props: dict[str, tuple[str, Any]] = {"a": ("Int8", 1)}
    for _ in range(5):
        props = {"a": ("PropertySet", props)}
    assert read(payload(block(9, properties(props))), 8).metrics
    with pytest.raises(Rejected, match="too_deep"):
        read(payload(block(9, properties(props))), 5)


def test_unknown_fields_are_passed_over() -> None:
    """Extensions, and known numbers in another wire form, mean nothing to us."""
    extended = whole(9, 1) + block(200, b"x" * 10) + key(201, 5) + b"abcd" + key(202, 1) + b"abcdefgh"
    inner = metric("m", "Int8", 1) + block(19, b"?") + block(2, b"alias?") + whole(150, 3)
    parsed = read(payload(inner) + extended, NESTING)
    assert parsed.metrics[0].tree() == {"name": "m", "datatype": "Int8", "value": 1}


def test_floats_keep_what_is_not_a_number() -> None:
    """NaN and infinity are let through as such: the value is rejected, not its message."""
    values = [
        item.read(None)
        for item in read(payload(metric("a", "Double", math.nan), metric("b", "Float", math.inf)), 9).metrics
    ]
    assert math.isnan(values[0])
    assert values[1] == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("raw", [
    block(2, b"") * 100_000,
    block(2, block(9, (block(1, "k") + block(2, b"")) * 30_000)),
    payload(*[block(1, "m") + whole(4, 32) + block(16, struct.pack("<I", 60_000) + b"\xff" * 7_500)] * 30),
    payload(metric("t", "Template", {"metrics": [b""] * 60_000})),
    payload(block(17, data_set(["c"], ["Int8"], []) + block(4, block(1, b"")) * 60_000)),
], ids=["metrics", "properties", "booleans", "members", "rows"])  # fmt: skip
def test_memory_is_bounded_by_the_payload(raw: bytes) -> None:
    """A hostile payload of the largest size takes some tens of megabytes at most, and only for a moment."""
    tracemalloc.start()
    try:
        for item in read(raw[:262_144], NESTING).metrics:
            item.read(None)
    except Rejected:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 1024**2


def outcome(raw: bytes) -> QuarantineReason | None:
    """Return why bytes are no payload, None where they are one."""
    try:
        for item in read(raw, NESTING).metrics:
            item.tree()
    except Rejected as error:
        return QuarantineReason(error.reason)
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_refused(raw: bytes) -> None:
    """Random bytes raise `Rejected` or nothing."""
    assert outcome(raw) in {None, *QuarantineReason}


@given(st.data())
def test_spoilt_payloads_are_read_or_refused(data: st.DataObject) -> None:
    """Bytes of a rich payload changed, cut or doubled: the same."""
    table = {"columns": ["a", "b"], "types": ["Int32", "Double"], "rows": [[1, 2.5], [None, 1.0]]}
    members = [metric("x", "Int8", -1), metric("y", "StringArray", ["a", "b"])]
    rich = payload(
        metric("d", "DataSet", table, alias=3, props={"engUnit": ("String", "m"), "Quality": ("Int32", 192)}),
        metric("t", "Template", {"metrics": members, "parameters": [("p", "Float", 1.5)], "template_ref": "r"}),
        metric("b", "BooleanArray", [True] * 9),
        seq=3,
    )
    raw = bytearray(rich)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1)) if raw else 0
        change = data.draw(st.sampled_from(["set", "cut", "double"]))
        if change == "set" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del raw[at : at + data.draw(st.integers(1, 9))]
        else:
            raw[at:at] = raw[at : at + 20]
    assert outcome(bytes(raw)) in {None, *QuarantineReason}
