"""Veil, body, sieve and thinning: properties that hold of any message."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.clock import DAY_US
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import allowlist, stored
from sensegate.video.allowlist import REMOVED, AllowListRedactor, ListOf
from sensegate.video.downsampling import GAP_US, RULES, SamplingRule, TrackSample, sample_track
from sensegate.video.format import Redacted
from sensegate.video.observation import ObservationKind, TrackState, VideoObservation
from sensegate.video.pseudonyms import KeyedPseudonymiser, day_of, normalised_plate
from sensegate.video.values import OTHER, field_name

PSEUDONYMISER = KeyedPseudonymiser(b"tests")
AT = 1_795_832_104_000_000
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


# ── veil ─────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(min_size=1), st.text(min_size=1), st.integers(0, 4_000_000_000_000_000))
def test_pseudonyms_are_alike_for_alike_and_for_nothing_else(first: str, other: str, at: int) -> None:
    """Of one day and key; another day, another key and another kind give another one."""
    same = normalised_plate(first) == normalised_plate(other)
    assert (PSEUDONYMISER.plate(first, at) == PSEUDONYMISER.plate(other, at)) == same
    assert PSEUDONYMISER.plate(first, at) != PSEUDONYMISER.plate(first, at + DAY_US)
    assert PSEUDONYMISER.plate(first, at) != KeyedPseudonymiser(b"other").plate(first, at)
    assert PSEUDONYMISER.identifier(first) != PSEUDONYMISER.plate(first, at)
    assert (PSEUDONYMISER.identifier(first) == PSEUDONYMISER.identifier(other)) == (first == other)
    assert day_of(at + DAY_US) == day_of(at) + 1
    assert set(PSEUDONYMISER.plate(first, at)) <= set("0123456789abcdef")


# ── body ─────────────────────────────────────────────────────────────────────────────────────────────


@given(json_values, st.dictionaries(st.text(max_size=100), st.integers(1, 9), max_size=8))
def test_a_body_is_opened_as_it_was_made(tree: Any, removed: dict[str, int]) -> None:
    """What was let through comes back; every field is counted, under a name that may be told."""
    payload = msgspec.json.encode(tree)
    opened = stored.decode_stored(stored.encode_redacted("form", Redacted(payload, removed)))
    assert opened is not None
    assert (opened.video, bytes(opened.body), opened.reason) == ("form", payload, "")
    assert sum(opened.removed.values()) == sum(removed.values())
    assert all(name == OTHER or name in removed for name in opened.removed)


@given(st.binary(max_size=200))
def test_what_stands_instead_holds_nothing(payload: bytes) -> None:
    """Size, reason and a keyed digest, alike for equal messages; and it opens as a refusal."""
    why = Rejected(QuarantineReason.MALFORMED, "no whole JSON document")
    made = stored.encode_withheld("form", payload, why, PSEUDONYMISER)
    assert made == stored.encode_withheld("form", payload, why, PSEUDONYMISER)
    assert made != stored.encode_withheld("form", payload, why, KeyedPseudonymiser(b"other"))
    opened = stored.decode_stored(made)
    assert opened is not None
    assert opened.bytes == len(payload)
    assert stored.rejection(opened).reason == "malformed"
    assert (opened.video, opened.reason, opened.detail, opened.removed) == ("form", why.reason, why.detail, {})
    assert len(opened.digest) == 24


@given(st.binary() | json_values.map(msgspec.json.encode))
def test_nothing_else_is_a_body(payload: bytes) -> None:
    """Any other bytes are none; nor is one that says both, or neither."""
    assert stored.decode_stored(payload) is None
    assert stored.decode_stored(b'{"video":"form"}') is None
    assert stored.decode_stored(b'{"video":"form","body":{},"reason":"schema"}') is None


@given(st.text(max_size=100))
def test_names_of_fields_tell_of_nobody(name: str) -> None:
    """A told name is of Latin letters, its words have at most two digits behind them; any other is `other`."""
    label = field_name(name)
    assert label in {name, OTHER}
    if label != OTHER:
        assert set(label) <= set(string.ascii_letters + string.digits + "@#_.:/-[]")
        run = 0
        for sign in label:
            run = run + 1 if sign.isdigit() else 0
            assert run <= 2


@pytest.mark.parametrize(
    "name", ["SubImageInfoObject.Data", "StorageUrl1", "after.sub_label", "tt:Image", "@token", "a[].b"]
)
def test_names_of_formats_are_told(name: str) -> None:
    """The names that formats have are told as they are."""
    assert field_name(name) == name


# ── sieve ────────────────────────────────────────────────────────────────────────────────────────────

SHAPE: allowlist.ObjectRule = {
    "n": allowlist.allow_number(0, 10),
    "word": allowlist.allow_words("a", "b"),
    "name": allowlist.allow_slug,
    "id": allowlist.allow_id,
    "at": allowlist.allow_time,
    "plate": allowlist.pseudonymise_plate,
    "inner": {"n": allowlist.allow_number(0, 10)},
    "many": ListOf({"n": allowlist.allow_number(0, 10)}, 3),
}
members = st.dictionaries(st.sampled_from([*SHAPE, "other", "more"]), json_values, max_size=8)


def allowed(kept: dict[str, Any]) -> None:
    """Fail where something passed that the shape does not name."""
    assert kept.keys() <= SHAPE.keys()
    assert isinstance(kept.get("n", 0), (int, float))
    assert 0 <= kept.get("n", 0) <= 10
    assert kept.get("word", "a") in {"a", "b"}
    assert set(kept.get("inner", {})) <= {"n"}
    assert all(set(item) <= {"n"} for item in kept.get("many", []))
    assert set(kept.get("plate", {})) <= {"token", "region"}
    for name in ("name", "id"):
        assert kept.get(name, "a").isascii()
        assert len(kept.get(name, "a")) <= 48


@given(members)
def test_only_what_is_named_falls_through(tree: dict[str, Any]) -> None:
    """Whatever stands in a message: what passes is of the shape, what does not is counted; twice gives the same."""
    passing = AllowListRedactor(PSEUDONYMISER, AT)
    try:
        kept = passing.apply_object(tree, SHAPE)
    except Rejected as why:
        assert why.reason == "schema"  # noqa: PT017 - of some messages only
        return
    allowed(kept)
    for name, value in tree.items():
        if name not in kept and value not in (None, "", [], {}):
            assert any(removal.split(".")[0] in {name, OTHER} for removal in passing.removed), name
    repeated = AllowListRedactor(PSEUDONYMISER, AT).apply_object(tree, SHAPE)
    assert repeated == kept
    cut = passing.result(kept)
    assert json.loads(cut.payload) == json.loads(msgspec.json.encode(kept))


@given(st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=1, max_size=50))
def test_a_slug_is_no_number_of_anybody(text: str) -> None:
    """What passes as a name has no run of more than four digits, and none inside a word."""
    result = allowlist.allow_slug(text, AllowListRedactor(PSEUDONYMISER, AT))
    if result == text:
        assert text[0].isalpha()
        for word in text.replace("-", "_").split("_"):
            bare = word.rstrip(string.digits)
            assert len(word) - len(bare) <= 4
            assert not any(sign.isdigit() for sign in bare)


@pytest.mark.parametrize(
    "text", ["LK07XPD", "E83921746", "13987651234", "李雷", "a b", "wxid_8f3k2m9q7z1", "440106199003077758"]
)
def test_what_is_hidden(text: str) -> None:
    """Plates, numbers of documents and phones, names and texts have a pseudonym in their place."""
    passing = AllowListRedactor(PSEUDONYMISER, AT)
    assert allowlist.allow_slug(text, passing) == PSEUDONYMISER.identifier(text)
    assert allowlist.allow_id(text, passing) == PSEUDONYMISER.identifier(text)
    assert allowlist.allow_time(text, passing) is REMOVED


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    """No bytes raise anything else, and what is told of them quotes nothing."""
    try:
        allowlist.decode_object(payload)
    except Rejected as why:
        assert len(payload) < 8 or payload.decode("latin-1") not in why.detail  # noqa: PT017


@pytest.mark.parametrize("sent", [10**400, -(10**400), 2**64, math.nan, math.inf, "9" * 400, "1" * 20, True])
def test_a_number_beyond_all_bounds_is_none(sent: object) -> None:
    """JSON holds whole numbers that no float does."""
    assert allowlist.allow_number(-1e6, 1e6)(sent, AllowListRedactor(PSEUDONYMISER, AT)) is REMOVED


# ── thinning ─────────────────────────────────────────────────────────────────────────────────────────


def sighting(
    number: int, *, at: int = 0, sure: float = 0.5, x: float = 0.5, end: bool = False, **more: Any
) -> VideoObservation:
    return VideoObservation(
        id=f"{number:032x}", kind=ObservationKind.OBSERVATION, camera="c", observed_at=AT + at, time_quality="explicit",
        format="f", track="t", box=(x - 0.1, 0.4, x + 0.1, 0.6), confidence=sure,
        track_state=TrackState.END if end else None, **more,
    )  # fmt: skip


def walked(rule: SamplingRule, *observation: VideoObservation) -> list[bool]:
    """Return which of some sightings are kept."""
    track: TrackSample | None = None
    kept = []
    for item in observation:
        keep, track = sample_track(item, track, rule)
        kept.append(keep)
    return kept


EVERY = SamplingRule(frozenset(RULES))


def test_rules_of_thinning() -> None:
    """First, surer by a tenth, moved, another colour, the last; nothing between; after a gap it begins anew."""
    assert walked(EVERY, sighting(1), sighting(2, at=1), sighting(3, at=2, sure=0.59)) == [True, False, False]
    assert walked(EVERY, sighting(1), sighting(2, at=1, sure=0.6), sighting(3, at=2, sure=0.65)) == [True, True, False]
    assert walked(EVERY, sighting(1), sighting(2, at=1, x=0.69), sighting(3, at=2, x=0.71)) == [True, False, True]
    assert walked(EVERY, sighting(1), sighting(2, at=1, color="red"), sighting(3, at=2, color="red")) == [
        True,
        True,
        False,
    ]
    assert walked(EVERY, sighting(1), sighting(2, at=1, end=True)) == [True, True]
    assert walked(EVERY, sighting(1), sighting(2, at=GAP_US + 1)) == [True, True]
    assert walked(SamplingRule(frozenset({"last"})), sighting(1), sighting(2, at=1, end=True)) == [False, True]
    assert walked(SamplingRule(), sighting(1), sighting(2), sighting(3)) == [True, True, True]


sightings = st.lists(
    st.builds(
        lambda number, at, sure, x, end, color: sighting(number, at=at, sure=sure, x=x, end=end, color=color),
        st.integers(0, 9), st.integers(0, 2 * GAP_US), st.floats(0, 1), st.floats(0.1, 0.9), st.booleans(),
        st.sampled_from(["", "red", "blue"]),
    ),
    max_size=20,
)  # fmt: skip


@given(sightings, st.sets(st.sampled_from(RULES)))
def test_thinning_loses_no_track(observations: list[VideoObservation], rules: set[str]) -> None:
    """With `first`, something of every track is kept; each that ends it with `last`; one sent again is kept again."""
    rule = SamplingRule(frozenset(rules))
    kept = walked(rule, *observations)
    assert len(kept) == len(observations)
    if not rules:
        assert all(kept)
    if observations and "first" in rules:
        assert kept[0]
    if "last" in rules:
        assert all(keep for keep, item in zip(kept, observations, strict=True) if item.track_state is TrackState.END)
    for at, keep in enumerate(kept):
        if keep:
            assert walked(rule, *observations[: at + 1], observations[at])[-1]
    events = [msgspec.structs.replace(item, kind=ObservationKind.EVENT) for item in observations]
    assert all(walked(rule, *events))
