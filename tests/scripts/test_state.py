"""Nothing passes from one frame to the next: each way that a script could keep something, tried."""

from __future__ import annotations

import msgspec
import pytest

from sensegate.scripts import engine
from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.wire import CallResult
from tests.scripts.channels import CHANNELS, READ, WRITE, script
from tests.scripts.conftest import ask, source_of


def value_read(outcome: CallResult) -> object:
    """Return what a read saw."""
    assert not outcome.kind, outcome
    return msgspec.json.decode(outcome.text)["d"].get("seen")


@pytest.mark.parametrize("name", CHANNELS)
def test_nothing_is_kept(name: str, scripts: ScriptPool) -> None:
    """What one frame writes no later frame reads; a script that tries may be refused, its innocent frames are not."""
    source = source_of(script(*CHANNELS[name]), variables='{"inner": {}}', file=name)
    frames = [READ, WRITE, READ, WRITE, WRITE, READ, READ]
    outcomes = scripts.run([ask(source, frame) for frame in frames])
    for frame, outcome in zip(frames, outcomes, strict=True):
        if frame == READ:
            assert value_read(outcome) is None
        else:
            assert outcome.kind in {"", "script_state", "script_failed"}, outcome


def test_state_on_the_global_object_is_refused(scripts: ScriptPool) -> None:
    """A name that the script forgot to declare becomes its own; what else it leaves on the global object is refused."""
    source = source_of(script("", "globalThis.n = 1;", "1"))
    first, second, third = scripts.run([ask(source, WRITE)] * 3)
    assert first.kind == ""  # may be a forgotten declaration
    assert (second.kind, second.text) == ("script_state", "n was left on the global object")
    assert third.kind == "script_state"


def test_names_made_of_a_frame_are_no_variables_of_the_script() -> None:
    """They would become parameters of its top level, for all devices, until no call fits the stack any more."""
    text = (
        "function decodeUplink(input) { var b = input.bytes; forgotten = b[0];"
        " if (b.length > 1) for (var k = 0; k < 200; k++) globalThis['v' + b.join('_') + '_' + k] = 1;"
        " return { data: { value: forgotten } }; }"
    )
    room = engine.Script(source_of(text))
    for number in range(100):
        result = room.call(bytes([1, number]), 1, 0)
        assert (result.kind, result.text[:3]) == ("script_state", "'v1")
        assert room.call(b"\7", 1, 0).text == '{"d":{"value":7}}'
    assert room._declared == ["forgotten"]


def test_no_more_names_are_declared_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that would add one are refused, the others go on."""
    monkeypatch.setattr(engine, "IMPLICIT_MAX", 2)
    room = engine.Script(
        source_of(
            "function decodeUplink(i) { if (i.bytes[0]) { a = 1; b = 2; c = 3; } else d = 1; return { data: {} }; }"
        )
    )
    assert room.call(b"\1", 1, 0).kind == "script_state"
    assert room.call(b"\0", 1, 0).kind == ""
    assert room.call(b"\1", 1, 0).kind == "script_state"
    assert room._declared == ["d"]


def _unfrozen(text: str) -> str:
    """Return the harness without its freezing and restoring."""
    leaky = text.replace("    freezeAll(openMembers);\n", "")
    leaky = leaky.replace('hasOpenMembers ? openMembers.restore() : "";', '"";')
    assert len(leaky) < len(text) - 30
    return leaky


def test_a_script_that_answers_otherwise_the_second_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a room that is neither frozen nor tidied is found out by comparison with a fresh one."""
    text = engine._text("harness.js")
    leaky = _unfrozen(text).replace(
        "return ownKeys(world).length === known ? answer : tidied(answer);", "return answer;"
    )
    assert leaky != text
    source = source_of(
        "function decodeUplink(input) { Math.n = (Math.n || 0) + 1; return { data: { n: Math.n } }; }",
        file="counter.js",
    )
    files = {"harness.js": leaky, "shims.js": engine._text("shims.js")}
    monkeypatch.setattr(engine, "_text", files.__getitem__)
    room = engine.Script(source)
    assert room.call(READ, 1, 0).text == '{"d":{"n":1}}'
    result = room.call(READ, 1, 0)
    assert (result.kind, result.text) == ("script_state", "its result depends on earlier calls")


def test_every_so_manieth_call_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """State that shows late is found too."""
    monkeypatch.setattr(engine, "VERIFY_CALLS", 8)
    text = engine._text("harness.js")
    files = {"harness.js": _unfrozen(text), "shims.js": engine._text("shims.js")}
    monkeypatch.setattr(engine, "_text", files.__getitem__)
    source = source_of(
        "function decodeUplink(i) { Math.n = (Math.n || 0) + 1; return { data: { late: Math.n > 5 } }; }"
    )
    room = engine.Script(source)
    kinds = [room.call(READ, 1, 0).kind for _ in range(8)]
    assert kinds == [""] * 7 + ["script_state"]


def test_a_room_is_left_after_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the engine gathers goes with the room."""
    monkeypatch.setattr(engine, "CALLS_MAX", 3)
    room = engine.Script(source_of("function decodeUplink(i) { return { data: {} }; }"))
    rooms = []
    for _ in range(7):
        room.call(READ, 1, 0)
        rooms.append(room._realm)
    assert [room is None for room in rooms] == [False, False, True, False, False, True, False]
    assert room._calls == 1
