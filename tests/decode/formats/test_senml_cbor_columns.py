"""SenML CBOR as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder
from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext
from sensegate.decode.learned_forms import FORMS_MAX
from sensegate.decode.senml_columns import SenmlCborColumns
from sensegate.errors import ProfileError
from sensegate.model import Message
from tests.bench.decode import NOW
from tests.decode.bulk import FEW, assert_bulk_is_single, mutated, mutations
from tests.decode.formats.flat_values import flat, same_values, tree_of
from tests.support.profiles import library

LABELS = {"bs": -6, "bv": -5, "bu": -4, "bt": -3, "bn": -2, "bver": -1, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4}
LABELS |= {"s": 5, "t": 6, "ut": 7, "vd": 8}


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def columns() -> SenmlCborColumns:
    """Return a new parse."""
    parse = FORMATS["senml_cbor"].compile(None, FormatContext("vendor/model", 1, Path(), _error))
    return SenmlCborColumns(parse, 32)


def head(major: int, value: int, width: int = 0) -> bytes:
    """Return the head of an item, in at least `width` steps of length."""
    sizes = [(24, 0), (1 << 8, 1), (1 << 16, 2), (1 << 32, 4), (1 << 64, 8)]
    size = max(next(size for bound, size in sizes if value < bound), (0, 1, 2, 4, 8)[width])
    if not size:
        return bytes([major << 5 | value])
    return bytes([major << 5 | 23 + size.bit_length()]) + value.to_bytes(size)


def item(value: Any, width: int = 0) -> bytes:  # noqa: PLR0911 - one for each kind
    """Return a scalar in CBOR; `width`: with how many bytes more than needed a number is written."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, int):
        return head(0, value, width) if value >= 0 else head(1, -1 - value, width)
    if value is None:
        return b"\xf6"
    if width == 1 and (math.isnan(value) or abs(value) < 60_000):
        return b"\xf9" + struct.pack(">e", value)
    if width == 2 and (not math.isfinite(value) or abs(value) < 1e38):
        return b"\xfa" + struct.pack(">f", value)
    return b"\xfb" + struct.pack(">d", value)


def pack(records: list[dict[str, Any]], width: int = 0) -> bytes:
    """Return a pack."""
    members = [[item(LABELS.get(key, key)) + item(value, width) for key, value in record.items()] for record in records]
    return head(4, len(records)) + b"".join(head(5, len(record)) + b"".join(record) for record in members)


NUMBERS = st.one_of(
    st.integers(-30, 30), st.floats(), st.integers(-(2**64), 2**64 - 1), st.sampled_from([-0.0, 1.5, 1e308, 65_504.0])
)
TEXTS = st.sampled_from(["a", "b:", "", "-x", "temp", "温", "a b", "urn:dev:1_"])
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
        "vs": TEXTS | st.just(b"a"),
        "vb": st.booleans() | st.none(),
        "vd": st.binary(max_size=3) | st.just("AA"),
        "s": NUMBERS,
        "t": NUMBERS,
        "x": st.sampled_from([None, 1, "y", 1.5]),
        "must_": st.just(1),
    },
)
PLAIN = st.fixed_dictionaries(
    {"n": st.sampled_from(["a", "b", "c"])},
    optional={"v": NUMBERS, "t": NUMBERS, "u": st.just("Cel"), "vb": st.booleans(), "vs": TEXTS},
)
PACKS = (
    st.lists(RECORDS, max_size=4) | st.lists(PLAIN, min_size=1, max_size=4) | st.tuples(RECORDS, PLAIN, PLAIN).map(list)
)


def _other(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, bool):
        return data.draw(st.booleans())
    if isinstance(value, str):
        return data.draw(st.sampled_from([value, value[::-1]]))
    return data.draw(NUMBERS) if isinstance(value, (int, float)) else value


@given(PACKS, st.integers(0, 3), st.data())
def test_values_are_those_of_the_tree(records: list[dict[str, Any]], width: int, data: st.DataObject) -> None:
    """Before and after a form is learned, for packs that differ in numbers, texts and single bytes."""
    parse = columns()
    for _ in range(5):
        other = [
            {key: value if key == "bver" else _other(value, data) for key, value in record.items()}
            for record in records
        ]
        payload, second = pack(records, width), pack(other, width)
        for sent in (payload, second, *mutated([second], data.draw(mutations(2)))):
            values = flat(parse, sent)
            if values is not None and not any(value != value for value in values.values()):  # noqa: PLR0124 - NaN
                assert same_values(values, tree_of(parse._parse, sent))


@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_usual_packs_have_a_form(width: int) -> None:
    """A gateway's pack with base name, time and unit is resolved without its tree, in numbers of any width."""
    parse = columns()
    for number in range(6):
        records: list[dict[str, Any]] = [
            {"bn": f"urn:dev:mac:{number:04x}:", "bt": 1_700_000_000 + number, "bu": "Cel", "n": "t1", "v": number},
            {"n": "t2", "v": number / 2, "t": -1 - number},
            {"n": "on", "vb": bool(number & 1), "u": "/"},
            {"n": "data", "vd": bytes([number])},
            {"n": "text", "vs": f"x{number}"},
        ]
        payload = pack(records, width)
        values = flat(parse, payload)
        assert values is not None
        assert same_values(values, tree_of(parse._parse, payload))
    assert parse.known(payload) is not None


@pytest.mark.parametrize(
    ("good", "bad"),
    [(b"\x02", b"\x18"), (b"\xfb" + bytes(8), b"\xfb\x7f\xf0" + bytes(6)), (b"\x61a", b"\x61\xff")],
    ids=["a number that is longer", "infinity", "not UTF-8"],
)
def test_a_value_of_another_kind_has_no_form(good: bytes, bad: bytes) -> None:
    """The same bytes around it do not make it a value of that form: it is refused, as by the tree."""
    key = b"\x21" if good.startswith(b"\x61") else b"\x02"
    tail = b"\x00\x61x" + (b"\x02\x01" if key == b"\x21" else b"")
    parse = columns()
    start = b"\x81" + (b"\xa3" if key == b"\x21" else b"\xa2") + key
    for _ in range(4):
        assert flat(parse, start + good + tail) is not None
    assert parse.count == 1
    assert parse.known(start + bad + tail) is None
    assert tree_of(parse._parse, start + bad + tail) is None


def test_forms_are_bounded() -> None:
    """Beyond the limit further packs go through their trees."""
    parse = columns()
    for number in range(FORMS_MAX + 9):
        for _ in range(4):
            assert flat(parse, pack([{"n": f"a{number}", "v": 1}])) is not None
    assert parse.count == FORMS_MAX


@settings(max_examples=FEW)
@given(mutations(), st.integers(0, 9))
def test_bulk_is_single(changes: list[tuple[int, int, int]], seed: int) -> None:
    """Packs of one device and of several behind one, whole and spoilt, give the same in bulk as one by one."""
    r = random.Random(seed)
    profiles = library()
    batches = []
    for at in range(2):
        sent = [
            pack(
                [
                    {"bn": r.choice(["d1", "d2", "d3:"]), "bt": NOW // 10**6 + at, "n": "", "u": "Cel"},
                    {"n": "temperature", "v": r.choice([21.5, 3, 300])},
                    {"n": "humidity", "v": r.randrange(1000) / 10, "u": "%RH"},
                ][seed % 2 :],
                r.choice([0, 0, 3]),
            )
            for _ in range(24)
        ]
        topics = ["gateways/g1/senml/cbor", "senml/d1/cbor"]
        batches.append(
            [Message(r.choice(topics), raw, NOW + at, number) for number, raw in enumerate(mutated(sent, changes))]
        )
    bulk = assert_bulk_is_single(
        lambda: Decoder(profiles, NamedDevices(["d1", "d2", "urn:dev:mac:01"], "senml/pack-cbor", gateway="g1")),
        batches,
    )
    assert bulk.plans.count
