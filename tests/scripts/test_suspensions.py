"""Suspensions of scripts: twice as long each time, up to an hour."""

from __future__ import annotations

from sensegate.scripts.suspensions import PAUSE_MAX_S, PAUSE_S, Suspensions


def test_a_script_that_is_too_slow_for_months_is_suspended_for_an_hour_each_time() -> None:
    """The pause doubles up to its maximum and stays there, however often."""
    now = 0.0
    suspensions = Suspensions(lambda: now)
    pauses = []
    for _ in range(1_100):
        suspensions.record_cost("slow", 1, 1_000.0, 1.0)
        [(_, _, left_s)] = suspensions.suspended_scripts()
        pauses.append(left_s)
        now += left_s
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert set(pauses[10:]) == {PAUSE_MAX_S}
