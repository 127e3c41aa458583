"""Readings as columns: what goes in comes out, in few bytes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sensegate.bus.columns import Batch, concat, decode, encode
from sensegate.bus.packing import pack, pack_values, unpack, unpack_values
from sensegate.model import I64
from tests.bus.commit_columns import batch
from tests.bus.damage import damaged, opened

INTS = hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(-(1 << 63), (1 << 63) - 1))
FLOATS = st.one_of(
    st.floats(width=64, allow_nan=False),
    st.integers(-100_000, 100_000).map(lambda n: n / 100),
    st.sampled_from([0.1, 1e22, 1e-9, 5e-324, 1.7976931348623157e308, 9007199254740993.0, -0.0]),
)


@given(column=INTS, delta=st.booleans())
def test_any_integers_come_back(*, column: I64, delta: bool) -> None:
    """Property: every column of 64-bit integers is packed without loss, whatever its span."""
    assert unpack(pack(column, (1_000_000, 1_000), delta=delta), len(column)).tolist() == column.tolist()


@given(st.lists(st.lists(FLOATS, min_size=1, max_size=12), min_size=1, max_size=4))
def test_any_values_come_back(segments: list[list[float]]) -> None:
    """Property: every finite value comes back to the bit (but for the sign of zero)."""
    value = np.array([x for part in segments for x in part])
    counts = np.array([len(part) for part in segments])
    back = unpack_values(pack_values(value, counts), counts)
    assert (back.view(np.int64) == (value + 0.0).view(np.int64)).all()


def test_a_slow_series_is_packed_as_changes() -> None:
    """Many readings of few series cost a byte each, not the width of their range."""
    value = np.concatenate([np.arange(300) / 10 + base for base in (0.0, 5_000.0)])
    packed = pack_values(value, np.array([600]))
    assert packed[2] is True
    assert (unpack_values(packed, np.array([600])) == value).all()


def facts(whole: Batch, *, identity: bool = False) -> list[tuple[object, ...]]:
    """Return the rows as plain tuples, in order."""
    rows = []
    for row in range(len(whole)):
        entry = int(whole.origin[row])
        origins = whole.origins
        place = (origins.lon[entry], origins.lat[entry])
        rows.append(
            (
                origins.device[entry],
                origins.division[entry],
                origins.department[entry],
                origins.domain[entry],
                origins.profile[entry],
                None if np.isnan(place[0]) else place,
                int(origins.grade[entry]),
                "".join(whole.variables()[whole.property[row]]),
                int(whole.time[row]),
                int(whole.received[row]),
                whole.text.get(row, None if np.isnan(whole.value[row]) else float(whole.value[row])),
                int(whole.quality[row]),
                int(whole.flags[row]),
                int(whole.time_quality[row]),
                int(whole.revision[row]),
                *((int(whole.seq[row]), int(whole.index[row])) if identity else ()),
                *(
                    ()
                    if whole.local is None
                    else (
                        int(whole.local.key[row]),
                        int(whole.local.path[row]),
                        int(whole.local.identity[row]),
                        int(whole.local.digest[whole.local.message[row]]),
                    )
                ),
            )
        )
    return rows


@given(st.integers(0, 80), st.integers(0, 1 << 20))
def test_a_batch_comes_back(rows: int, seed: int) -> None:
    """Property: every row comes back whole; order is property, device, then the order given."""
    whole = batch(rows, seed)
    back = decode(encode(whole), sequence=77)
    expected = sorted(facts(whole), key=lambda row: (row[7], row[0]))
    assert facts(back) == expected
    assert back.seq.tolist() == [77] * rows
    assert back.index.tolist() == list(range(rows))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 1 << 20), st.integers(0, 255))
def test_a_merged_batch_keeps_each_identity(sizes: list[int], seed: int, kept: int) -> None:
    """Property: rows of many commits in one message keep (seq, index) of where they were first committed."""
    parts = [decode(encode(batch(size, seed + n)), sequence=10 + 3 * n) for n, size in enumerate(sizes)]
    parts = [part.take((np.arange(len(part)) * 37 + kept) % 5 != 0) for part in parts]
    merged = decode(encode(concat(parts)), sequence=999)
    expected = [row for part in parts for row in facts(part.without_local(), identity=True)]
    assert sorted(facts(merged, identity=True), key=lambda r: r[-2:]) == sorted(expected, key=lambda r: r[-2:])


def test_take_keeps_the_rows_and_shrinks_the_tables() -> None:
    """A part of a batch holds its rows and no device that is not among them."""
    whole = decode(encode(batch(60, 3)), sequence=5)
    mask = whole.origin == 2
    part = whole.take(mask)
    assert facts(part, identity=True) == [
        row for row, chosen in zip(facts(whole, identity=True), mask, strict=True) if chosen
    ]
    assert part.origins.device == ["dev-002"]
    assert len(part.local.digest if part.local else ()) <= len(part)


def test_identity_is_the_same_on_every_tier() -> None:
    """`record_id` names node, partition, sequence and index of the first commit."""
    whole = decode(encode(batch(4, 3)), sequence=12)
    assert whole.record_id(3) == "4401-0-00000000000012-3"
    assert decode(encode(concat([whole])), sequence=88).record_id(3) == whole.record_id(3)


def test_batches_of_two_nodes_are_not_merged() -> None:
    """An identity holds one node for the whole batch."""
    with pytest.raises(ValueError, match="different nodes"):
        concat([batch(2), batch(2, node="4403")])


@pytest.mark.parametrize("payload", [b"", b"x", b"\x28\xb5\x2f\xfd", encode(batch(3))[:-4]])
def test_damage_is_an_error(payload: bytes) -> None:
    """What is not a batch raises ValueError, nothing else."""
    with pytest.raises(ValueError, match="batch of readings"):
        decode(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_a_value_error(payload: bytes) -> None:
    """Property: decoding never raises anything else."""
    with pytest.raises(ValueError, match="batch of readings"):
        decode(payload)


@settings(max_examples=settings().max_examples * 10)
@given(damaged(opened(encode(batch(9)))))
def test_any_members_are_a_batch_or_a_value_error(payload: bytes) -> None:
    """Property: a batch whose inside is wrong is refused likewise, or can be worked with."""
    try:
        decoded = decode(payload)
    except ValueError as why:
        assert "batch of readings" in str(why)  # noqa: PT017
        return
    assert len(decoded) < 1_000
    assert len(decoded.take(np.ones(len(decoded), np.bool_))) == len(decoded)
    assert [decoded.origins.device[entry] for entry in decoded.origin]
    assert len(facts(decoded)) == len(decoded)


def test_local_columns_do_not_travel() -> None:
    """Without the local columns the batch is smaller and has none after decoding."""
    whole = batch(50, 1)
    sent = encode(whole.without_local())
    assert len(sent) < len(encode(whole))
    assert decode(sent).local is None
    assert msgspec.structs.asdict(whole)["local"] is not None
