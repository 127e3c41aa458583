"""The conservation ledger: what goes in is counted once, sums balance or raise."""

from __future__ import annotations

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
