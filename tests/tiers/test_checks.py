"""The checks of what a member sends: each refuses what it must, and nothing that is merely odd."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.bus import columns, sequences
from sensegate.bus.batch import Batch, WordColumn
from sensegate.bus.ledger import Ledger
from sensegate.bus.packing import encode_map
from sensegate.quantities.quality import Flag
from sensegate.tiers.checks import check_ledger, check_rows, check_sequences
from sensegate.tiers.judging import Judge
from sensegate.tiers.protocol import PART_ROWS_MAX, PartKind, SpanPart
from sensegate.tiers.verdict import CheckedRows, MemberFacts, Reason, RowMark, Rules
from tests.bus.damage import damaged, opened
from tests.tiers.batches import NOW, batch

SENDER = MemberFacts("4401", "4401", ("4401", "441502"))


class Owners:
    """Owners of devices, given by hand."""

    def __init__(self, foreign: frozenset[str] = frozenset(), room: int = 1_000) -> None:
        self._foreign, self._room = foreign, room

    def owner(self, device: str) -> str:
        return "4403" if device in self._foreign else "4401" if device.startswith("own") else ""

    def may_send(self, member: str, device: str) -> bool:
        return self.owner(device) == member

    def room(self, member: str) -> int:
        del member
        return self._room


RULES = Rules(Owners(), lambda _property, _department: 1)


def check(
    sent: Batch | bytes, *, kind: str = "readings", grade: int = 2, rules: Rules = RULES, **more: Any
) -> CheckedRows:
    """Return what becomes of a part that 4401 sends."""
    payload = sent if isinstance(sent, bytes) else columns.encode(sent)
    return check_rows(payload, kind, grade, sender=SENDER, rules=rules, now=NOW, **more)


def rows_of(checked: CheckedRows) -> list[tuple[str, int, int]]:
    """Return (device, sequence, index) of each row that is taken, sorted."""
    return sorted(
        (part.batch.origins.device[origin], int(part.batch.seq[row]), int(part.batch.index[row]))
        for part in checked.accepted
        for row, origin in enumerate(part.batch.origin.tolist())
    )


def test_a_sound_part_is_taken_whole() -> None:
    """Control: an honest part is taken as it is, and devices that were nobody's are to be claimed."""
    checked = check(batch())
    assert [(part.kind, part.grade, len(part.batch)) for part in checked.accepted] == [("readings", 2, 6)]
    assert (checked.refusals, checked.marks, checked.claims) == ((), {}, ("a", "b"))
    first = {"a": 0, "b": 1, "own-c": 2}
    assert rows_of(checked) == [(device, 77, at + index) for device, at in first.items() for index in (0, 3)]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{}", Reason.UNREADABLE),
        (batch(node="4403"), Reason.FOREIGN_NODE),
        (batch(partition=-1), Reason.FOREIGN_NODE),
        (batch(seq=np.zeros(6, np.int64)), Reason.IDENTITY),
        (batch(properties=["air_temperature", "a\nb"]), Reason.NAME),
    ],
)
def test_an_unsound_part_is_refused_whole(sent: Batch | bytes, reason: Reason) -> None:
    """A part that is of another node, has no identities or does not decode is refused with its bytes."""
    checked = check(sent)
    assert not checked.accepted
    (refusal,) = checked.refusals
    assert (refusal.reason, refusal.devices) == (reason, ())
    assert refusal.payload == (sent if isinstance(sent, bytes) else columns.encode(sent))


@pytest.mark.parametrize(("kind", "grade"), [("commit", 2), ("seen", 2), ("readings", 0), ("readings", 5)])
def test_only_rows_of_a_known_kind_and_grade_are_taken(kind: str, grade: int) -> None:
    """Nothing but readings and observations of the grades 1 to 4 becomes a member of the log."""
    assert [refusal.reason for refusal in check(batch(), kind=kind, grade=grade).refusals] == [Reason.KIND]


@pytest.mark.parametrize(
    ("sent", "rules", "reason", "refused"),
    [
        (batch(division=WordColumn.of(["440106", "440306", "440106"])), RULES, Reason.AREA, ["b"]),
        (batch(division=WordColumn.of(["440106", "44", "440106"])), RULES, Reason.AREA, ["b"]),
        (batch(division=WordColumn.of(["440106", "", "440106"])), RULES, Reason.AREA, ["b"]),
        (batch(device=["a", "b\0", "own-c"]), RULES, Reason.NAME, ["b\0"]),
        (batch(), Rules(Owners(frozenset("b")), RULES.floor), Reason.FOREIGN_DEVICE, ["b"]),
        (batch(), Rules(Owners(room=1), RULES.floor), Reason.DEVICE_LIMIT, ["b"]),
        (batch(time=np.array([NOW, 1 << 62] + [NOW] * 4)), RULES, Reason.TIME, ["b"]),
        (batch(received=np.array([NOW, -(1 << 61)] + [NOW] * 4)), RULES, Reason.TIME, ["b"]),
    ],
)
def test_rows_of_an_unsound_device_are_refused_and_the_others_taken(
    sent: Batch, rules: Rules, reason: Reason, refused: list[str]
) -> None:
    """One device outside the areas, of another member or with an impossible time costs no other its rows."""
    checked = check(sent, rules=rules)
    (refusal,) = checked.refusals
    assert (refusal.reason, list(refusal.devices), refusal.rows) == (reason, refused, 2)
    assert columns.decode(refusal.payload).origins.device == refused
    assert [row[0] for row in rows_of(checked)] == ["a", "a", "own-c", "own-c"]
    assert not set(refused) & set(checked.claims)


def test_a_part_that_is_sent_again_gives_the_refused_rows_alone() -> None:
    """What was taken the first time is not taken twice."""
    first = check(batch(), rules=Rules(Owners(frozenset("b")), RULES.floor))
    second = check(batch(), only=first.refusals[0].devices)
    assert sorted([*rows_of(first), *rows_of(second)]) == rows_of(check(batch()))


def test_what_is_odd_is_taken_and_marked() -> None:
    """A wrong clock, a property, a profile or a code of a newer release, a place beyond the poles cost no reading."""
    sent = batch(
        received=np.full(6, NOW + 86_400_000_000),
        properties=["air_temperature", "of_tomorrow"],
        profile=WordColumn.of(["acme/th@1", "acme/th@9", "acme/th@1"]),
        quality=np.array([0, 99, 0, 0, 0, 0], np.uint8),
        lat=np.array([93.0, 23.0, np.inf]),
    )
    rules = Rules(Owners(), RULES.floor, lambda name: name != "of_tomorrow", lambda name: not name.endswith("9"))
    checked = check(sent, rules=rules)
    assert len(rows_of(checked)) == 6
    assert not checked.refusals
    assert checked.marks == {
        RowMark.CLOCK: 6,
        RowMark.PROPERTY: 3,
        RowMark.PROFILE: 2,
        RowMark.QUALITY: 1,
        RowMark.PLACE: 4,
    }
    part = checked.accepted[0].batch
    assert bool((part.flags & np.uint32(Flag.CLOCK)).all())
    assert np.isnan(part.origins.lat).tolist() == [True, False, True]


def test_a_grade_is_never_below_the_floor_nor_below_what_was_said() -> None:
    """Rows below the catalogue's floor rise to it, in the record and in its subject; none falls."""
    floors = {("pm2_5", "eco"): 4, ("air_temperature", "eco"): 1}
    rules = Rules(Owners(), lambda name, department: floors.get((name, department), 1))
    checked = check(batch(), rules=rules)
    assert [(part.grade, set(part.batch.origins.grade.tolist())) for part in checked.accepted] == [(2, {2}), (4, {4})]
    assert set(checked.accepted[1].batch.properties) == {"pm2_5"}
    assert checked.marks == {RowMark.GRADE: 2}
    assert [part.grade for part in check(batch(grade=np.array([3, 3, 3], np.uint8))).accepted] == [3]


def test_rows_that_the_bytes_do_not_hold_are_refused_before_they_are_allocated() -> None:
    """A few hundred bytes that claim millions of rows cost no memory."""
    tree = opened(columns.encode(batch()))
    rows = (1 << 24) - 1
    tree["rows"] = rows
    tree["props"], tree["counts"] = ["x"], [0, rows]
    for name in tree["cols"]:
        tree["cols"][name] = [0, 1]
    tree["origins"]["device"] = ["a"]
    for claim in ([b"\x00", [0, 0], False, 1, b"", b""], [b"\x00", [0, 0], False, 1, b"\x00" * 6, b""]):
        tree["value"] = claim
        payload = encode_map({key: value for key, value in tree.items() if key != "v"})
        assert len(payload) < 400
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert [refusal.reason for refusal in check(payload).refusals] == [Reason.OVERSIZED]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_part_has_a_greatest_number_of_rows() -> None:
    """Equal rows compress to nothing: their number is limited whatever the bytes."""
    many = PART_ROWS_MAX + 1
    big = batch(
        many,
        device=["a", "b", "own-c"],
        time=np.full(many, NOW),
        received=np.full(many, NOW),
        value=np.zeros(many),
        origin=np.zeros(many, np.uint32),
        property=np.zeros(many, np.uint16),
    )
    assert [refusal.reason for refusal in check(big).refusals] == [Reason.OVERSIZED]


@settings(max_examples=settings().max_examples * 5)
@given(damaged(opened(columns.encode(batch()))))
def test_any_damage_is_judged(payload: bytes) -> None:
    """Property: whatever a part holds, each of its rows is taken or refused, and nothing is raised."""
    checked = check(payload)
    for part in checked.accepted:
        assert part.batch.node == "4401"
        assert columns.decode(columns.encode(part.batch)).seq.min() > 0
        assert all(code.startswith(SENDER.areas) for code in part.batch.origins.division.tolist())


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(payload: bytes) -> None:
    """Property: bytes that nobody encoded are refused as unreadable or oversized, by each of the checks."""
    for refusal in (
        check(payload).refusals[0],
        check_ledger(payload, sender=SENDER).refusal,
        check_sequences(payload).refusal,
    ):
        assert refusal is not None
        assert refusal.reason in {Reason.UNREADABLE, Reason.OVERSIZED}


# ── counts and numbers ───────────────────────────────────────────────────────────────────────────────


def counts(*rows: tuple[int, str, str, int], place: str = "440106/eco") -> bytes:
    """Return a ledger of (hour, device, kind, count)."""
    made = Ledger()
    for hour, device, kind, count in rows:
        made.add(hour, device, "mqtt", kind, count)
        made.set_places([device], [place])
    return made.encode()


BALANCED = ((490_000, "a", "messages", 5), (490_000, "a", "decoded", 4), (490_000, "a", "quarantined.schema", 1))


def test_a_ledger_that_balances_is_taken() -> None:
    """Control: honest counts are added up, a release of `withheld.mode` too; a kind of a newer release is marked."""
    checked = check_ledger(counts(*BALANCED, (490_000, "a", "withheld.mode", -3)), sender=SENDER)
    assert checked.counts is not None
    assert checked.counts.totals() == {"messages": 5, "decoded": 4, "quarantined.schema": 1, "withheld.mode": -3}
    assert check_ledger(counts((1, "a", "of_tomorrow", 1)), sender=SENDER).marks == {RowMark.LEDGER_KIND: 1}


def test_counts_of_devices_elsewhere_stay_with_the_node() -> None:
    """Without them nothing would balance; but nobody there is shown them."""
    checked = check_ledger(counts(*BALANCED, place="440306/eco"), sender=SENDER)
    assert checked.marks == {RowMark.LEDGER_PLACE: 1}
    assert checked.counts is not None
    assert checked.counts.place_of("a") == ("", "")
    inside = check_ledger(counts(*BALANCED), sender=SENDER).counts
    assert inside is not None
    assert inside.place_of("a") == ("440106", "eco")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (counts(*BALANCED[:2]), Reason.BALANCE),
        (counts((490_000, "a", "forwarded", -1)), Reason.COUNT),
        (counts((490_000, "a", "forwarded", 1 << 51)), Reason.COUNT),
        (counts((-1, "a", "forwarded", 1)), Reason.COUNT),
        (counts(*((hour, "a", "returned", 1) for hour in range(1_001))), Reason.COUNT),
        (counts((490_000, "a\n", "forwarded", 1)), Reason.NAME),
        (counts((490_000, "a", "x" * 300, 1)), Reason.NAME),
        (encode_map({"rows": (1 << 24) - 1, "devices": ["a"], "sources": ["s"], "kinds": ["k"],
               "hour": [2, 0, 1, 1, 0, b""], "kind": [0, 0], "source": [0, 0], "device": [0, 0],
               "count": [0, 1]}), Reason.OVERSIZED),
    ],
)  # fmt: skip
def test_a_ledger_that_does_not_add_up_is_refused(payload: bytes, reason: Reason) -> None:
    """Counts that do not balance, are negative or of places elsewhere never reach the sums of the centre."""
    checked = check_ledger(payload, sender=SENDER)
    assert checked.counts is None
    assert checked.refusal is not None
    assert checked.refusal.reason == reason


@pytest.mark.parametrize(("hours", "refused"), [(500, False), (501, True)])
def test_the_ledgers_of_a_span_have_a_greatest_number_of_hours(hours: int, *, refused: bool) -> None:
    """All together: they become one ledger of the centre's log."""
    ranges = (range(hours), range(500, 500 + hours))
    payloads = [counts(*((hour, "a", "returned", 1) for hour in part)) for part in ranges]
    parts = [SpanPart(PartKind.LEDGER, payload) for payload in payloads]
    judged = Judge(lambda _member: SENDER, RULES).judge("4401", parts, NOW)
    assert [refusal.reason for refusal in judged.refusals] == ([Reason.COUNT] if refused else [])
    assert judged.counts.totals() == ({} if refused else {"returned": 2 * hours})


@given(damaged(opened(counts(*BALANCED))))
def test_any_damaged_ledger_is_judged(payload: bytes) -> None:
    """Property: whatever a ledger holds, it is taken with a balance or refused with a reason."""
    checked = check_ledger(payload, sender=SENDER)
    assert (checked.counts is None) is (checked.refusal is not None)


def encoded_runs(devices: Mapping[str, list[int]]) -> bytes:
    """Return sequence numbers as one member."""
    return msgspec.msgpack.encode(sequences.SequenceRuns("life", dict(devices)))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (encoded_runs({"a": [1, 5, 7, 7]}), None),
        (encoded_runs({"a": [5, 1]}), Reason.UNREADABLE),
        (encoded_runs({"a": [1, 5, 3, 9]}), Reason.UNREADABLE),
        (encoded_runs({"a": [1]}), Reason.UNREADABLE),
        (encoded_runs({"a\n": [1, 1]}), Reason.NAME),
        (b"\x93" + b"\x91" * 100_000, Reason.UNREADABLE),
        (b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0", Reason.UNREADABLE),
    ],
)
def test_sequence_numbers_are_runs_that_rise(payload: bytes, reason: Reason | None) -> None:
    """Only runs that rise are taken: what is missing is named by them."""
    checked = check_sequences(payload)
    assert (checked.refusal.reason if checked.refusal else None) == reason
    assert (checked.runs is None) is (reason is not None)
