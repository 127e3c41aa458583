"""Trees taken apart: the quick path of all pure formats gives the rows of the general path."""

from __future__ import annotations

import random
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode import Decoder
from sensegate.decode.flatten import PURE, Flattened
from sensegate.decode.paths import walk
from sensegate.errors import Rejected
from sensegate.model import Message
from tests.bench.decode import NOW, Fleet
from tests.bench.formats import NAMES, makers, profiles
from tests.decode.decoding import same
from tests.support.profiles import Make

MADE = {name: maker for name, maker in makers().items() if name in PURE}


def test_every_pure_format_is_measured() -> None:
    """What may be taken apart has its line in the benchmark, and so its test here."""
    assert set(MADE) == set(PURE)


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Decoder]:
    """A decoder for each format."""
    loaded = profiles(MADE, tmp_path_factory.mktemp("formats"))
    return {name: Decoder(loaded, Fleet([f"bench/{index}"], 9)) for index, name in enumerate(MADE)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MADE))
def test_formats_give_the_same_by_both_paths(name: str, decoders: dict[str, Decoder]) -> None:
    """Good and damaged payloads of each format: equal in every column, and mostly by plan."""
    r = random.Random(3)
    number, machine = list(MADE).index(name), decoders[name]
    messages = []
    for at in range(400):
        payload = bytearray(MADE[name].payload((NOW // 10**6 + at, tuple(r.randrange(900) for _ in NAMES))))
        if r.random() < 0.3 and payload:
            payload[r.randrange(len(payload))] = r.choice(b'0919.,;=-"x\x00\xff\xf6\xcb')
        messages.append(Message(f"bench/{number}/d{at % 9:05d}", bytes(payload), NOW + at, at))
    for _ in range(3):
        fields = machine.decode(messages)
        same(fields, machine.decode_row_by_row(messages))
    assert machine.plans.count
    assert len(fields) > 100


ODD: list[Any] = [0, 1, -1, 21.5, True, None, "21.5", "x", float("nan"), float("inf"), [], {}, [1], {"a": 1}]


@pytest.mark.parametrize("name", ["messagepack", "cbor"])
def test_odd_numbers_go_the_general_way(name: str, decoders: dict[str, Decoder]) -> None:
    """Integers among floats, NaN, infinity, numbers beyond a float's range, and other types in their place."""
    r = random.Random(5)
    number, machine = list(MADE).index(name), decoders[name]
    huge = b"\xc2\x59\x01\x00" + b"\xff" * 256  # CBOR's integer of 2,048 bits
    messages = []
    for at in range(600):
        tree = {"ts": NOW // 10**6, **{key: r.choice(ODD[:4] * 5 + ODD) for key in NAMES}}
        payload = msgspec.msgpack.encode(tree)
        if name == "cbor":
            members = b"".join(
                _text(key) + (huge if r.random() < 0.02 else _cbor(value)) for key, value in tree.items()
            )
            payload = bytes([0xA0 | len(tree)]) + members
        messages.append(Message(f"bench/{number}/d{at % 9:05d}", payload, NOW + at, at))
    for _ in range(3):
        fields = machine.decode(messages)
        same(fields, machine.decode_row_by_row(messages))
    assert {value.reason.value for value in fields.rejected} >= {"not_finite", "wrong_type"}


def _text(text: str) -> bytes:
    return bytes([0x60 | len(text)]) + text.encode()


def _cbor(value: Any) -> bytes:
    if isinstance(value, bool) or value is None:
        return {True: b"\xf5", False: b"\xf4", None: b"\xf6"}[value]
    if isinstance(value, int):
        return b"\x1a" + struct.pack(">I", value) if value >= 0 else bytes([0x20 | (-1 - value)])
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return bytes([0x80 | len(value)]) + b"".join(map(_cbor, value))
    return bytes([0xA0 | len(value)]) + b"".join(_text(key) + _cbor(item) for key, item in value.items())


def test_json_inside_json_has_plans_too(make: Make) -> None:
    """What is unpacked or made into objects first has no plan by the JSON as it came, but one by its tree."""
    rules = """
  - topics: ["m/{device}"]
    unpack: {data: json}
    readings: [{field: data.t, property: air_temperature}]
"""
    machine = make(rules, "d1")
    messages = [Message("m/d1", b'{"data":"{\\"t\\":%d}"}' % at, NOW + at, at) for at in range(60)]
    for _ in range(3):
        fields = machine.decode(messages)
        same(fields, machine.decode_row_by_row(messages))
    assert machine.plans.count == 1
    assert fields.value.tolist() == list(range(60))


def test_what_never_has_a_plan_is_not_read_twice_for_ever(make: Make) -> None:
    """Frames of ever new shapes are tried for a while; then they go straight the general way."""
    rule = '  - {topics: ["m/{device}"], format: cbor, readings: [{field: t, property: air_temperature}]}'
    machine = make(f"\n{rule}\n", "d1")
    for batch in range(12):
        payloads = [b"\xa2\x61t\x01" + b"\x64" + b"%04x" % (batch * 500 + at) + b"\x02" for at in range(500)]
        messages = [Message("m/d1", payload, NOW + index, index) for index, payload in enumerate(payloads)]
        same(machine.decode(messages), machine.decode_row_by_row(messages))
    (reader,) = [known for known in machine.plans.readers._known.values() if known is not None]
    assert reader._rarely_hits()
    assert reader.count == 0


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=20,
)


@given(trees, trees)
def test_equal_shapes_hold_the_same_members(first: Any, other: Any) -> None:
    """Each leaf stands where its pointer says; two trees of one shape have the same pointers and types of leaves."""
    parse = Flattened(lambda frame: msgspec.json.decode(frame.payload), 32)
    results = []
    for tree in (first, other):
        payload = msgspec.json.encode(tree)
        shape, leaves = parse.flatten(payload, None)
        pointers = parse.pointers(payload, None)
        assert [walk(msgspec.json.decode(payload), pointer) for pointer in pointers] == leaves
        results.append((shape, pointers, [float if type(leaf) is int else type(leaf) for leaf in leaves]))
    if results[0][0] == results[1][0]:
        assert results[0] == results[1]


def test_large_trees_are_left_alone() -> None:
    """A tree with more leaves than a plan may have is not taken apart to its end."""
    parse = Flattened(lambda frame: list(range(len(frame.payload))), 32)
    with pytest.raises(Rejected, match="too many leaves"):
        parse.flatten(bytes(300), None)


def test_a_table_too_large_for_columns_is_read_once(make: Make) -> None:
    """It goes the general way: no message is decoded and refused as well."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    csv: {columns: [t]}\n    each: "."\n'
        "    readings: [{field: t, property: air_temperature}]\n"
    )
    payload = "\n".join(map(str, range(300))).encode()
    messages = [Message("acme/d1", payload, NOW + at, at) for at in range(12)]
    for _ in range(3):
        fields = decoder.decode(messages)
        assert not fields.quarantined
        assert len(fields) == 12 * 300
        same(fields, decoder.decode_row_by_row(messages))
