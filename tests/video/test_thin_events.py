"""Events that go on: told again they are one, changed they are told; sent again they are duplicates, never lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sensegate.video.downsampling import REASON_US, EventSample, StateReasons, combine_reasons, sample_event
from sensegate.video.observation import ObservationKind, VideoEvent, VideoObservation

SECOND = 1_000_000
WINDOW = 5 * SECOND


def event(at: int, *, state: bool | None = True) -> VideoObservation:
    return VideoObservation(
        id=f"{at}{state}",
        kind=ObservationKind.EVENT,
        camera="cam7",
        observed_at=at,
        time_quality="explicit",
        format="hikvision",
        event=VideoEvent("motion", state),
    )


def kept(*alarms: VideoObservation) -> list[str]:
    """Return the ids of those that are kept."""
    before: EventSample | None = None
    results: list[str] = []
    for alarm in alarms:
        repeated, before = sample_event(alarm, before, WINDOW)
        if not repeated:
            results.append(alarm.id)
    return results


def test_an_alarm_told_each_second_is_one() -> None:
    assert kept(*[event(at * SECOND) for at in range(60)]) == ["0True"]


def test_a_change_is_told_at_once_and_a_pause_begins_anew() -> None:
    alarms = [event(0), event(SECOND), event(2 * SECOND, state=False), event(3 * SECOND), event(20 * SECOND)]
    assert kept(*alarms) == ["0True", "2000000False", "3000000True", "20000000True"]


def test_one_that_is_sent_again_is_no_repetition() -> None:
    """It goes on to where duplicates are told, and counted as such."""
    assert kept(event(0), event(0)) == ["0True", "0True"]


def test_events_without_a_state_are_all_kept() -> None:
    assert kept(event(0, state=None), event(1, state=None)) == ["0None", "1None"]


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=40))
def test_the_last_state_is_always_known(alarms: list[tuple[int, bool]]) -> None:
    """Whatever comes in what order: the last one kept has the state of the last one told."""
    events = [event(at * SECOND, state=state) for at, state in alarms]
    result = kept(*events)
    states = {item.id: item.event.state for item in events if item.event}
    if events:
        assert events[-1].event is not None
        assert states[result[-1]] == events[-1].event.state


def states(*reports: tuple[str, bool, int]) -> list[bool]:
    before: StateReasons | None = None
    states: list[bool] = []
    for part, holds, at in reports:
        now, before = combine_reasons(part, holds=holds, at=at, before=before)
        states.append(now)
    return states


def test_a_field_is_occupied_while_anybody_is_in_it() -> None:
    events = [("1", True, 0), ("2", True, 1), ("1", False, 2), ("2", False, 3), ("2", False, 4)]
    assert states(*events) == [True, True, True, False, False]


def test_who_was_lost_does_not_stay_for_ever_and_old_news_change_nothing() -> None:
    assert states(("1", True, 0), ("2", True, REASON_US + 1), ("2", False, REASON_US + 2)) == [True, True, False]
    assert states(("1", True, 5), ("2", True, 4), ("1", False, 6)) == [True, True, False]


@given(st.lists(st.tuples(st.sampled_from("1234"), st.booleans()), max_size=60))
def test_together_is_any(reports: list[tuple[str, bool]]) -> None:
    now: dict[str, bool] = {}
    for (part, holds), row in zip(reports, states(*[(*item, at) for at, item in enumerate(reports)]), strict=True):
        now[part] = holds
        assert row == any(now.values())
