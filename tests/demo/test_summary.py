from __future__ import annotations

import stat
from pathlib import Path

import msgspec

from sensegate.demo.summary import (
    by_reason,
    duplicates,
    sum_ledgers,
    unrecognised_faults,
    with_verdict,
)
from tests.demo.made import SUMMARY

TOTALS = {
    "accepted": 90, "conflict": 2, "late": 3, "duplicate.repeat": 4, "suppressed.unchanged": 1,
    "quarantined.malformed": 5, "rejected.dimension": 6, "forwarded": 80, "withheld.grade": 10,
}  # fmt: skip
VERDICT = {
    "published": 10, "acknowledged": 9, "resent": 0,
    "injected_messages": {"plain": 7, "malformed": 5, "repeat": 2, "dimension": 6},
    "injected_values": {"plain": 14, "repeat": 4, "malformed": 0, "dimension": 6},
    "taps": {
        "centre": {
            "records": 80, "lost": 0, "doubled": 0, "phantom": 0, "corrupt": 0, "disordered": 0, "unmarked": 0,
            "leaked": 0, "latency_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0}, "live_latency_ms": {}, "samples": [],
        }
    },
}  # fmt: skip


def test_kinds_are_sorted_out_of_the_totals() -> None:
    """Families by their prefix; a conflict and what is unchanged are kinds of duplicates."""
    assert by_reason(TOTALS, "withheld") == {"grade": 10}
    assert duplicates(TOTALS) == {"repeat": 4, "unchanged": 1, "conflict": 2}
    assert sum_ledgers([TOTALS, TOTALS])["accepted"] == 180


def test_what_was_injected_is_recognised_or_named() -> None:
    """Equal counts say nothing; a difference is named with both numbers."""
    assert unrecognised_faults({"repeat": 4, "conflict": 2, "late": 3, "malformed": 5, "dimension": 6}, TOTALS) == {}
    assert unrecognised_faults({"repeat": 5, "not_utf8": 1}, TOTALS) == {"repeat": (5, 4), "not_utf8": (1, 0)}
    whole = with_verdict(SUMMARY, VERDICT, TOTALS)
    assert whole.recognised
    assert whole.injected == {"repeat": 4, "malformed": 5, "dimension": 6}
    assert whole.latency_ms == {"p50": 1.0, "p99": 2.0}
    assert whole.by_hand == 0
    assert with_verdict(SUMMARY, {**VERDICT, "by_hand": 3}, TOTALS).by_hand == 3


def test_anything_lost_doubled_or_unbalanced_is_guilt() -> None:
    """Each alone makes the demo fail."""
    good = with_verdict(SUMMARY, VERDICT, TOTALS)
    assert not good.failed
    for change in ({"lost": 1}, {"doubled": 1}, {"balanced": False}, {"verdicts": {"phantom": 1}}):
        assert msgspec.structs.replace(good, **change).failed
    missed = msgspec.structs.replace(good, unrecognised={"cross_path": (154, 0)})
    assert missed.failed
    assert not msgspec.structs.replace(missed, resent=1).failed, "a second delivery may have changed its kind"
    assert not msgspec.structs.replace(good, unrecognised={"repeat": (4, 5)}).failed, "published by hand"


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    """It holds tokens: only we may read it, and it is never half written."""
    path = tmp_path / "s.json"
    SUMMARY.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert msgspec.json.decode(path.read_bytes())["feeds"] == ["all"]
    assert [file.name for file in tmp_path.iterdir()] == ["s.json"]
