"""The gateway's side: one exchange for a batch, children that die or stand still, and no child left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sensegate.scripts import pool, process
from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.process import ChildDied, ChildProcess
from sensegate.scripts.wire import CallResult, ScriptLimits, ScriptReply, ScriptRequest, ScriptRun
from tests.scripts.conftest import ask, source_of

GOOD = "function decodeUplink(input) { return { data: { value: input.bytes[0] } }; }"


class Counting(ChildProcess):
    """Counts what it is asked."""

    number = 0

    def request(self, request: ScriptRequest) -> ScriptReply:
        Counting.number += 1
        return super().request(request)


@pytest.fixture
def own() -> Iterator[ScriptPool]:
    """Children of one test."""
    made = ScriptPool()
    yield made
    made.close()


def values(outcomes: list[CallResult]) -> list[object]:
    """Return what good frames gave."""
    assert {outcome.kind for outcome in outcomes} == {""}
    return [msgspec.json.decode(outcome.text)["d"]["value"] for outcome in outcomes]


def test_a_batch_is_one_exchange() -> None:
    """All frames of all scripts go to the child at once."""
    scripts = ScriptPool(start=Counting)
    sources = [source_of(GOOD + f"// {number}") for number in range(5)]
    asks = [ask(sources[at % 5], bytes([at])) for at in range(100)]
    try:
        Counting.number = 0
        assert values(scripts.run(asks)) == list(range(100))
        assert Counting.number == 1
        assert values(scripts.run(asks * 6)) == [*range(100)] * 6
        assert Counting.number == 1 + -(-600 // pool.CALLS_MAX)
    finally:
        scripts.close()


@pytest.mark.slow
def test_many_scripts_outgrow_a_child(own: ScriptPool) -> None:
    """A child forgets the script that was not used for longest; it is given again when it is needed."""
    sources = [source_of(GOOD + f"// {number}") for number in range(70)]
    for _ in range(2):
        assert values(own.run([ask(source, bytes([at])) for at, source in enumerate(sources)])) == list(range(70))
    assert len(own.children) == 1


def test_inspections_of_the_newest_scripts_are_kept(own: ScriptPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that is changed all day leaves no text of each version."""
    monkeypatch.setattr(pool, "LEARNED_MAX", 2, raising=False)
    for number in range(5):
        own.run([ask(source_of(GOOD, file=f"v{number}.js"), b"\7")])
    assert [key.partition(" ")[0] for key in own._learned] == ["v3.js", "v4.js"]


def test_a_child_that_somebody_kills_is_replaced(own: ScriptPool) -> None:
    """The frames are decoded by the next one; nobody is blamed."""
    source = source_of(GOOD)
    own.run([ask(source, b"\1")])
    os.kill(own.children[0].pid, signal.SIGKILL)
    assert values(own.run([ask(source, b"\2"), ask(source, b"\3")])) == [2, 3]
    assert own.problems() == []


def test_a_child_that_is_stopped_is_killed(own: ScriptPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no progress, so it is replaced, and the frame is tried once more."""
    monkeypatch.setattr(process, "STALL_S", 0.2)
    source = source_of(GOOD)
    own.run([ask(source, b"\1")])
    stopped = own.children[0].pid
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    assert values(own.run([ask(source, b"\2")])) == [2]
    assert time.monotonic() - began < 30
    assert not Path(f"/proc/{stopped}").exists()


def test_a_child_that_cannot_start_loses_its_frames_only() -> None:
    """Nothing waits for ever, and the frames get a reason."""
    scripts = ScriptPool(start=lambda: ChildProcess((sys.executable, "-c", "raise SystemExit(1)")))
    outcomes = scripts.run([ask(source_of(GOOD), b"\1")] * 3)
    scripts.close()
    assert {(outcome.kind, outcome.text) for outcome in outcomes} == {
        ("script_failed", "no process for scripts can be started")
    }
    assert "ended its process" in scripts.inspect(source_of(GOOD)).error


def test_a_child_that_talks_nonsense_is_ended() -> None:
    """A length that is none is not waited for."""
    talker = ChildProcess((sys.executable, "-c", "import sys; sys.stdout.write('x' * 99); sys.stdout.flush(); input()"))
    with pytest.raises(ChildDied):
        talker.wait_ready()
    assert not Path(f"/proc/{talker.pid}").exists()


_TAKEN_OVER = """
import mmap, os, struct, sys, time
import msgspec
from sensegate.scripts.sandbox import SYSTEM_CALLS
from sensegate.scripts.wire import *

def send(body):
    os.write(1, LENGTH.pack(len(body)) + body)

def receive():
    (size,) = LENGTH.unpack(sys.stdin.buffer.read(4))
    return msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=ScriptRequest)

progress = mmap.mmap(int(sys.argv[-1]), PROGRESS.size)
send(msgspec.msgpack.encode(ChildHello((SYSTEM_CALLS,))))
while True:
    request = receive()
    info = [ScriptInfo(source.key) for source in request.load]
    call = CallResult("", '{"d":{"value":7}}')
    CODE
"""


def taken_over(code: str) -> ChildProcess:
    """Return a child in which a script runs code of its own."""
    return ChildProcess((sys.executable, "-c", _TAKEN_OVER.replace("CODE", code)))


LIES = {
    "no message": 'send(b"\\xc1\\xc1")',
    "not UTF-8": 'send(b"\\x81\\xa6loaded\\xa2\\xff\\xff")',
    "no results": "send(msgspec.msgpack.encode(ScriptReply(info, [], [], [])))",
    "no scripts": "send(msgspec.msgpack.encode(ScriptReply([], [[call]], [1.0], [[]])))",
    "costs of nobody": "send(msgspec.msgpack.encode(ScriptReply(info, [[call]], [1.0], [[SlowCall(9, 9.0)]])))",
    "no cost": "send(msgspec.msgpack.encode(ScriptReply(info, [[call]], [float('nan')], [[]])))",
    "nothing, again and again": "send(msgspec.msgpack.encode(ScriptReply(info, [[]], [1.0], [[]])))",
    "that it has no script": ("send(msgspec.msgpack.encode(ScriptReply(info, [[CallResult('', '')]], [1.0], [[]])))"),
    "a kind of its own": ("send(msgspec.msgpack.encode(ScriptReply(info, [[CallResult('mine', '')]], [1.0], [[]])))"),
    "an end at a frame that is none": "PROGRESS.pack_into(progress, 0, 99); os._exit(1)",
    "an end at a script that is none": "PROGRESS.pack_into(progress, 0, LOADING + 99); os._exit(1)",
    "an end beyond all": "PROGRESS.pack_into(progress, 0, 2**64 - 1); os._exit(1)",
    "an end in a batch, always": "PROGRESS.pack_into(progress, 0, BATCHED + 1); os._exit(1)",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_child_that_a_script_has_taken_over_harms_its_frames_only(lie: str) -> None:
    """Whatever it sends is no error of the gateway: its frames get a reason, and the next child is asked."""
    scripts = ScriptPool(start=lambda: taken_over(LIES[lie]))
    try:
        outcomes = scripts.run([ask(source_of(GOOD), b"\1")])
        assert [outcome.kind for outcome in outcomes] == ["script_failed"]
        scripts.inspect(source_of(GOOD))
    finally:
        scripts.close()


def test_a_child_that_trickles_its_answer_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is progress, of which there is an end."""
    monkeypatch.setattr(process, "ANSWER_S", 0.5, raising=False)
    trickle = (
        "body = msgspec.msgpack.encode(ScriptReply(info, [[call]], [1.0], [[]]))\n"
        "    for byte in LENGTH.pack(len(body)) + body: time.sleep(0.1); os.write(1, bytes([byte]))"
    )
    child = taken_over(trickle)
    source = source_of(GOOD)
    child.wait_ready()
    with pytest.raises(ChildDied):
        child.request(ScriptRequest([source], [ScriptRun(source.key, [ask(source, b"\1").call], 5.0)]))
    assert not Path(f"/proc/{child.pid}").exists()


def test_a_script_that_killed_its_child_runs_apart(own: ScriptPool) -> None:
    """The others do not lose their rooms a second time."""
    bad = source_of(
        "function decodeUplink(i) { if (i.bytes[0] === 1) 'a'.repeat(5e6).indexOf('a'.repeat(2e6) + 'b');"
        " return { data: { value: i.bytes[0] } }; }"
    )
    good = source_of(GOOD)
    own.run([ask(good, b"\7"), ask(bad, b"\1", sender="a")])
    own.children[-1].wait_ready()
    own.run([ask(good, b"\7"), ask(bad, b"\2")])
    common = own.children[0].pid
    assert values(own.run([ask(bad, b"\3")])) == [3]
    outcomes = own.run([ask(good, b"\7"), ask(bad, b"\1", sender="b")])
    assert outcomes[1].kind == "script_limit"
    assert values(outcomes[:1]) == [7]
    assert own.children[0].pid == common


def test_a_spare_stands_ready() -> None:
    """A kill costs no start: the next child is there already."""
    scripts = ScriptPool()
    try:
        scripts.start_children(1)
        assert len(scripts.children) == 2
        source = source_of(GOOD)
        scripts.run([ask(source, b"\1")])
        spare = scripts.children[1]
        spare.wait_ready()
        os.kill(scripts.children[0].pid, signal.SIGKILL)
        assert values(scripts.run([ask(source, b"\2")])) == [2]
        assert scripts.children[0] is spare
    finally:
        scripts.close()
    assert scripts.children == []


def test_children_end_with_their_gateway() -> None:
    """A gateway that is killed leaves no child behind, not even one that is busy."""
    program = (
        "import sys\nfrom sensegate.scripts.pool import PendingCall, ScriptPool\nfrom sensegate.scripts.wire import *\n"
        "s = ScriptPool(spares=1)\n"
        "x = ScriptSource('k', 'f.js', 'function decodeUplink(i) { return { data: {} }; }')\n"
        "s.run([PendingCall(x, ScriptCall(b'', 1, 0), 't')])\n"
        "print(*(c.pid for c in s.children), flush=True)\ninput()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        children = [int(pid) for pid in gateway.stdout.readline().split()]
        assert len(children) == 2
        gateway.kill()
    deadline = time.monotonic() + 10
    while any(_lives(pid) for pid in children) and time.monotonic() < deadline:
        pass
    assert not any(_lives(pid) for pid in children)


def _lives(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def test_limits_cut_large_requests(own: ScriptPool) -> None:
    """A few megabytes of frames go in several requests."""
    source = source_of("function decodeUplink(i) { return { data: { value: i.bytes.length } }; }",
                       limits=ScriptLimits(cpu_ms=100, mean_cpu_ms=20))  # fmt: skip
    assert values(own.run([ask(source, bytes(60_000))] * 40)) == [60_000] * 40


def test_large_results_come_in_several_replies(own: ScriptPool) -> None:
    """Two hundred results of sixty thousand characters: none is lost, and no message grows beyond its bound."""
    source = source_of("function decodeUplink(i) { return { data: { value: 'x'.repeat(60000) } }; }")
    assert set(values(own.run([ask(source, bytes([at])) for at in range(200)]))) == {"x" * 60_000}
