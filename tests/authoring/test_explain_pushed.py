"""What a device says on a line of its own (TCP): its own profile decodes it, in examples and in `explain` as well."""

from __future__ import annotations

from sensegate.authoring.examples import message_of
from sensegate.authoring.explain import explain
from sensegate.clock import FakeClock
from sensegate.decode import ProfileSet
from sensegate.decode.grammar import Example
from tests.frames import made

FRAME = made.upload("DataTime=20260101080000;a34004-Rtd=35.2,a34004-Flag=M")


def explanation(profiles: ProfileSet, topic: str, profile: str) -> str:
    stages = explain(profiles, topic, FRAME, profile=profile, clock=FakeClock())
    return "\n".join(f"{stage['stage']}: {line}" for stage in stages for line in stage["lines"])


def test_a_frame_from_a_listener_is_explained(profiles: ProfileSet) -> None:
    """Whose line it was, by which profile, with which rule, and what its flag did."""
    text = explanation(profiles, "tcp/hj212/d1", "hj212/air")
    assert "claim: the sender logged in as 'd1'" in text
    assert "format hj212): matches" in text
    assert "pm2_5 = 35.2 ug/m3 at 2026-01-01T00:00:00.000000Z" in text
    assert "commit: 1 message decoded: 1 value to check for duplicates, 0 rejected, 0 empty" in text


def test_without_the_profile_it_says_what_is_missing(profiles: ProfileSet) -> None:
    """Negative control: no topic tells the profile, and one of another protocol takes no such frame."""
    assert "name it with `profile` to see how" in explanation(profiles, "tcp/hj212/d1", "")
    assert "quarantined: no_profile: its profile has no rule for hj212" in explanation(
        profiles, "tcp/hj212/d1", "sl651/soil"
    )


def test_an_example_may_come_from_a_listener() -> None:
    """The device of the example is the one whose line it was, or the gateway that it names."""
    alone = Example(label="x", topic="tcp/hj212/d1", payload="x", devices=("d1",))
    assert message_of(alone).principal == "d1"
    behind = Example(label="x", topic="tcp/gbt26875/g1", payload="x", devices=("d1",), gateway="g1")
    assert message_of(behind).principal == "g1"
    assert message_of(Example(label="x", topic="hj212/d1/up", payload="x")).principal == ""
