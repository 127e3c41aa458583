"""The conservation ledger: what goes in is counted once, sums balance or raise."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.bus.ledger import Ledger
from sensegate.errors import Unbalanced
from tests.bus.damage import damaged, opened

COUNT = st.tuples(
    st.integers(490_000, 490_003),
    st.sampled_from(["", "a", "b", "c"]),
    st.sampled_from(["mqtt", "http"]),
    st.sampled_from(["messages", "decoded", "quarantined.schema", "values", "accepted", "duplicate.repeat"]),
    st.integers(1, 1 << 40),
)


def summed(rows: list[tuple[int, str, str, str, int]]) -> dict[tuple[int, str, str, str], int]:
    """Return the plain sums."""
    sums: dict[tuple[int, str, str, str], int] = {}
    for hour, device, source, kind, count in rows:
        place = (hour, device, source, kind)
        sums[place] = sums.get(place, 0) + count
    return sums


def content(ledger: Ledger) -> dict[tuple[int, str, str, str], int]:
    """Return the ledger as plain sums."""
    return {(row.hour, row.device, row.source, row.kind): row.count for row in ledger.rows()}


@given(st.lists(st.lists(COUNT, max_size=12), max_size=5))
def test_merging_and_coding_lose_no_count(parts: list[list[tuple[int, str, str, str, int]]]) -> None:
    """Property: the sum of ledgers, encoded and decoded, is the plain sum of all rows."""
    whole = Ledger()
    for part in parts:
        ledger = Ledger()
        for hour, device, source, kind, count in part:
            ledger.add(hour, device, source, kind, count)
        whole.merge(Ledger.decode(ledger.encode()))
    plain = summed([row for part in parts for row in part])
    assert content(whole) == plain
    assert sum(whole.totals().values()) == sum(plain.values())


@given(st.lists(COUNT, max_size=30))
def test_the_ledgers_of_the_hours_are_the_ledger(rows: list[tuple[int, str, str, str, int]]) -> None:
    """Property: each has its hour's counts, with no other names, and the places of its devices."""
    whole = Ledger()
    for hour, device, source, kind, count in rows:
        whole.add(hour, device, source, kind, count)
    whole.set_places(["a", "c"], ["440106/eco", "440305"])
    hours = Ledger.decode(whole.encode()).by_hour()
    assert list(hours) == sorted({row[0] for row in rows})
    sums = Ledger()
    for hour, part in hours.items():
        plain = summed([row for row in rows if row[0] == hour])
        assert content(part) == plain
        if len(hours) > 1:
            names = [sorted(names) for names in part.names()]
            assert names == [sorted({place[at] for place in plain}) for at in (1, 2, 3)]
        assert {device: part.place_of(device) for device in "abc" if device in part.names()[0]} == {
            device: whole.place_of(device) for device in "abc" if device in part.names()[0]
        }
        sums.merge(part)
    assert content(sums) == content(whole)


def test_many_counts_of_two_hours_are_split_in_no_time() -> None:
    """A payload of some kilobytes may have very many: the process that splits them does nothing else meanwhile."""
    ledger = Ledger()
    ledger.device_numbers(["d"])
    cells = np.arange(1_000_000, dtype=np.int64)
    for number in range(1_000):
        ledger.kind_number(f"returned.{number}"), ledger.source_number(f"s{number}")
    zeros = np.zeros(len(cells), np.int64)
    for hour in (490_000, 490_001):
        ledger.add_cells(zeros + hour, cells % 1_000, cells // 1_000, zeros, zeros + 1)
    began = time.process_time()
    parts = ledger.by_hour()
    assert [len(part) for part in parts.values()] == [1_000_000, 1_000_000]
    assert time.process_time() - began < 5.0  # some 20 s count by count


def _some() -> Ledger:
    ledger = Ledger()
    for at, kind in enumerate(["messages", "decoded", "values", "accepted"]):
        ledger.add(490_000 + at // 2, "ab"[at % 2], "mqtt", kind, at + 1)
    return ledger


@settings(max_examples=settings().max_examples * 6)
@given(damaged(opened(_some().encode())))
def test_any_members_are_a_ledger_or_a_value_error(payload: bytes) -> None:
    """Property: a ledger whose inside is wrong is refused, or can be summed up."""
    try:
        decoded = Ledger.decode(payload)
    except ValueError:
        return
    assert sum(row.count for row in decoded.rows()) == sum(decoded.totals().values())


def test_counts_of_many_devices_are_added_at_once() -> None:
    """What bincount gives is added as it is; zeros make no row."""
    ledger = Ledger()
    places = ledger.device_numbers(["x", "y", "z"])
    ledger.add_counts(1, "mqtt", "messages", places, np.array([3, 0, 2]))
    assert content(ledger) == {(1, "x", "mqtt", "messages"): 3, (1, "z", "mqtt", "messages"): 2}


def balanced() -> Ledger:
    """Return a ledger that balances."""
    ledger = Ledger()
    for kind, count in {
        "messages": 10,
        "decoded": 7,
        "quarantined.schema": 2,
        "quarantined.rate": 1,
        "values": 20,
        "accepted": 12,
        "conflict": 3,
        "late": 5,
        "duplicate.repeat": 4,
        "duplicate.redelivery": 1,
        "suppressed.unchanged": 2,
        "rejected.not_finite": 1,
    }.items():
        ledger.add(5, "d", "mqtt", kind, count)
    return ledger


def test_balance() -> None:
    """Messages = decoded + quarantined; values = accepted + duplicates + suppressed + rejected."""
    balanced().check()


@pytest.mark.parametrize("kind", ["messages", "decoded", "quarantined.x", "values", "accepted", "rejected.x"])
def test_a_count_too_many_is_unbalanced(kind: str) -> None:
    """Each kind of the two sums is caught when it is off by one; parts of `accepted` are not in the sum."""
    ledger = balanced()
    ledger.add(5, "d", "mqtt", kind)
    with pytest.raises(Unbalanced, match="device 'd'"):
        ledger.check()


def test_two_devices_do_not_make_up_for_each_other() -> None:
    """The sums must balance for each device, not only over all."""
    ledger = Ledger()
    ledger.add(5, "a", "mqtt", "messages")
    ledger.add(5, "b", "mqtt", "decoded")
    with pytest.raises(Unbalanced):
        ledger.check()


def test_damage_is_an_error() -> None:
    """What is not a ledger raises ValueError."""
    with pytest.raises(ValueError, match="ledger"):
        Ledger.decode(b"nonsense")


def test_a_ledger_says_where_devices_stand() -> None:
    """Places go with the counts through encoding and merging; the newest word holds; unknown devices have none."""
    ledger = Ledger()
    for device in ("a", "b", "c"):
        ledger.add(1, device, "mqtt", "messages")
    ledger.set_places(["a", "b"], ["440106", "440103/police"])
    whole = Ledger()
    whole.merge(Ledger.decode(ledger.encode()))
    assert [whole.place_of(device) for device in ("a", "b", "c")] == [("440106", ""), ("440103", "police"), ("", "")]
    whole.set_places(["a"], ["440111"])
    assert Ledger.decode(whole.encode()).place_of("a") == ("440111", "")
