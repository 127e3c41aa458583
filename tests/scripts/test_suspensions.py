"""Suspensions of scripts: twice as long each time, up to an hour."""

from __future__ import annotations

import pytest

from sensegate.scripts import suspensions as module
from sensegate.scripts.suspensions import PAUSE_MAX_S, PAUSE_S, PROBATION, WINDOW_S, Suspensions


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


def test_one_sender_does_not_put_a_script_on_probation() -> None:
    """Less CPU time for all would have the longest frames of the others refused; two senders are not chance."""
    now = 0.0
    suspensions = Suspensions(lambda: now)
    for _ in range(5):
        suspensions.strike("codec", "evil", "too slow")
        assert suspensions.cpu_share("codec") == 1.0
        now += WINDOW_S + 1
    suspensions.strike("codec", "evil", "too slow")
    suspensions.strike("codec", "other", "too slow")
    assert suspensions.cpu_share("codec") == PROBATION
    now += WINDOW_S
    assert suspensions.cpu_share("codec") == 1.0


def test_a_sender_that_takes_the_time_of_a_script_is_suspended_in_its_place() -> None:
    """Its frames take less than a call may, and more than the mean: the frames of the others go on."""
    suspensions = Suspensions(lambda: 0.0)
    for _ in range(200):
        slow = [] if suspensions.reason("codec", "evil") else [("evil", 4.0)]
        suspensions.record_cost("codec", 10 + len(slow), 1.0 * 10 + 4.0 * len(slow), 1.0, slow)
    assert suspensions.suspended_scripts() == []
    assert "on average" in suspensions.reason("codec", "evil")
    assert suspensions.reason("codec", "good") == ""


def test_a_script_that_is_slow_whoever_sends_is_suspended() -> None:
    """No sender is to blame where all calls are slow, or where none has taken much."""
    suspensions = Suspensions(lambda: 0.0)
    suspensions.record_cost("alone", 50, 200.0, 1.0, [("one", 4.0)] * 50)
    for at in range(50):
        suspensions.record_cost("many", 2, 5.0, 1.0, [(f"s{at}", 4.0)])
    assert [name for name, _, _ in suspensions.suspended_scripts()] == ["alone", "many"]
    assert suspensions.reason("many", "s1") == suspensions.reason("many", "new")


def test_scripts_that_are_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of a script has a key of its own; the newest are kept."""
    monkeypatch.setattr(module, "SCRIPTS_MAX", 3, raising=False)
    suspensions = Suspensions(lambda: 0.0)
    for number in range(10):
        suspensions.record_cost(f"cheap {number}", 1, 0.0, 1.0)
        suspensions.record_cost(f"slow {number}", 1, 1_000.0, 1.0)
    kept = [len(value) for value in vars(suspensions).values() if isinstance(value, dict)]
    assert max(kept) == 3
    assert [name for name, _, _ in suspensions.suspended_scripts()] == ["slow 7", "slow 8", "slow 9"]
