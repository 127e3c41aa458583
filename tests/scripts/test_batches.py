"""Calls in one evaluation of the engine: each has the result that it has by itself, and costs no other its result."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from sensegate.scripts import engine
from sensegate.scripts.batching import BATCH_BYTES, BATCH_MAX, SHARE, BatchSize
from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.process import ChildDied, ChildProcess
from sensegate.scripts.wire import (
    BATCHED,
    SEPARATOR,
    CallResult,
    DecodedCalls,
    ScriptCall,
    ScriptLimits,
    ScriptReply,
    ScriptRequest,
    ScriptSource,
)
from tests.scripts.channels import CHANNELS, READ, WRITE, script
from tests.scripts.conftest import CODECS, PATIENT, RECEIVED_MS, ask, source_of
from tests.scripts.hostile import RUNAWAYS, hostile

MIXED = """
function decodeUplink(input) {
  var b = input.bytes, kind = b[0];
  if (kind === 1) return { errors: ["too short", "\\u001e"] };
  if (kind === 2) throw new Error("no\\u001e\\u0000");
  if (kind === 3) return { data: { text: "\\u001e\\u0000\\ud800" } };
  if (kind === 4) return { data: { n: NaN }, warnings: ["hot"] };
  if (kind === 5) return { data: { t: "x".repeat(70000) } };
  if (kind === 6) return;
  if (kind === 7) throw null;
  if (kind === 8) undeclared = 1;
  if (kind === 9) { var target = Math; target["tr" + "unc"] = function () { return 5; }; }
  if (kind === 10) return { data: { a: 1 }, get errors() { globalThis.left = 1; } };
  return {
    data: { b: b.join(), list: Array.isArray(b), at: input.recvTime.getTime(), port: input.fPort, t: Math.trunc(2.5) }
  };
}
"""


def calls_of(payloads: Sequence[bytes]) -> list[ScriptCall]:
    """Return frames that arrived one after another, by different ports."""
    return [ScriptCall(payload, at % 7 - 1, RECEIVED_MS + 1_000 * (at % 3)) for at, payload in enumerate(payloads)]


def singly(source: ScriptSource, calls: Sequence[ScriptCall]) -> list[CallResult]:
    """Return the results of calls that are evaluated one by one."""
    loaded = engine.Script(source)
    return [loaded.call(call.payload, call.port, call.received_ms) for call in calls]


def together(loaded: engine.Script, calls: Sequence[ScriptCall], sizes: list[int]) -> list[CallResult]:
    """Return the results of calls as a child makes them, and note how many went into each evaluation."""
    results: list[CallResult] = []
    while len(results) < len(calls):
        left = calls[len(results) :][:BATCH_MAX]
        count = loaded.batch_size(left)
        sizes.append(count)
        if count == 1:
            results.append(loaded.call(left[0].payload, left[0].port, left[0].received_ms))
            continue
        for result in loaded.call_many(left[:count]):
            if isinstance(result, DecodedCalls):
                texts = result.text.split(SEPARATOR)
                assert len(texts) == result.count
                results += [CallResult("", text) for text in texts]
            else:
                results.append(result)
    return results


@pytest.mark.parametrize("name", sorted(path.name for path in CODECS.glob("*.js"))[::4])
def test_a_batch_gives_what_single_calls_give(name: str) -> None:
    """Scripts as makers write them, every fourth, and random frames: the same results, refusals and errors as text."""
    chance = random.Random(name)
    source = source_of((CODECS / name).read_text(encoding="utf-8"), file=name)
    calls = calls_of([chance.randbytes(chance.randrange(24)) for _ in range(60)])
    sizes: list[int] = []
    assert together(engine.Script(source), calls, sizes) == singly(source, calls)
    assert max(sizes) >= 8


def test_each_kind_of_answer_stands_in_a_batch() -> None:
    """Refusals, errors, separators in texts, long results, null thrown, undeclared names, changed built-in objects."""
    chance = random.Random(1)
    source = source_of(MIXED, limits=ScriptLimits(cpu_ms=50, mean_cpu_ms=50, output_kb=200))
    kinds = [bytes([20, *range(256)])] * 12 + [bytes([kind, 7]) for kind in range(12) for _ in range(3)]
    chance.shuffle(kinds)
    calls = calls_of([b"\x14"] * 20 + kinds)
    sizes: list[int] = []
    results = together(engine.Script(source), calls, sizes)
    expected = singly(source, calls)
    assert results == expected
    assert {result.kind for result in results} == {"", "script_refused", "script_failed", "script_state"}
    assert max(sizes) >= 8


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls go into one evaluation, from the first one on."""
    monkeypatch.setattr(BatchSize, "of", lambda _self, calls, _at_most: len(calls))


TAKEN = {
    "global object, taken away by its reader": (
        "",
        "globalThis.n = 1;",
        "(function () { var n = globalThis.n; delete globalThis.n; return n; })()",
    ),
    "prototype of the global object, put back by its reader": (
        "var ancestor = Object.getPrototypeOf(globalThis);",
        "Object.setPrototypeOf(globalThis, Object.create(ancestor, { n: { value: 1 } }));",
        "(function () { var n = globalThis.n; Object.setPrototypeOf(globalThis, ancestor); return n; })()",
    ),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", [*(name for name in CHANNELS if name.startswith("global object")), *TAKEN])
def test_nothing_passes_between_calls_of_one_evaluation(name: str) -> None:
    """What one call writes the next one of its evaluation does not read, even if that removes the trace."""
    source = source_of(script(*{**CHANNELS, **TAKEN}[name]), variables='{"inner": {}}')
    loaded = engine.Script(source)
    calls = calls_of([READ, WRITE, READ, WRITE, WRITE, READ, READ])
    for call, result in zip(calls, together(loaded, calls, []), strict=True):
        if call.payload == READ:
            assert result == CallResult("", '{"d":{}}')
        else:
            assert result.kind in {"", "script_state", "script_failed"}, result


@pytest.mark.usefixtures("at_once")
def test_a_batch_that_is_tidied_at_its_end_alone_would_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the look after each call, a reader that takes the trace away is not found out."""
    text = engine._text("harness.js")
    leaky = text.replace("return ownKeys(world).length === known ? answer : tidied(answer);", "return answer;")
    assert leaky != text
    files = {"harness.js": leaky, "shims.js": engine._text("shims.js")}
    monkeypatch.setattr(engine, "_text", files.__getitem__)
    source = source_of(script(*TAKEN["global object, taken away by its reader"]))
    results = together(engine.Script(source), calls_of([READ, WRITE, READ]), [])
    assert results[-1].text == '{"d":{"seen":1}}'


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────


class NotingProcess(ChildProcess):
    """Notes how children died."""

    deaths: ClassVar[list[ChildDied]] = []

    def request(self, request: ScriptRequest) -> ScriptReply:
        try:
            return super().request(request)
        except ChildDied as death:
            self.deaths.append(death)
            raise


@pytest.fixture
def own() -> Iterator[ScriptPool]:
    """Children of one test."""
    NotingProcess.deaths.clear()
    made = ScriptPool(start=NotingProcess)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    ["endless loop", "memory bomb", "regular expression bomb", "deep recursion", "native search", "typed array"],
)
def test_a_runaway_within_a_batch_costs_its_own_message_alone(own: ScriptPool, attack: str) -> None:
    """The others of its evaluation have their results, whether the engine stops it or the kernel ends the process."""
    source = source_of(hostile(RUNAWAYS[attack]), file=f"{attack}.js")
    good = [bytes([7 + at]) for at in range(40)]
    own.run([ask(source, payload) for payload in good])  # the batches grow
    frames = [*good[:20], b"\1", *good[20:]]
    results = own.run([ask(source, payload, sender="evil" if payload == b"\1" else "t") for payload in frames])
    bad = results.pop(20)
    assert bad.kind in {"script_limit", "script_failed"}, bad
    assert [result.text for result in results] == [f'{{"d":{{"value":{payload[0]}}}}}' for payload in good]
    if attack == "native search":  # once within the batch, once at the frame itself
        assert [death.index >= BATCHED for death in NotingProcess.deaths] == [True, False]
        assert all(death.by_cpu for death in NotingProcess.deaths)


def test_a_batch_that_exceeds_the_limit_of_a_call_is_made_again_singly() -> None:
    """Frames that each keep within the limit have results, though all together exceed it."""
    slow = "function decodeUplink(i) { for (var n = 0, k = 0; k < 3e5; k++) n += k; return { data: { n: n } }; }"
    source = source_of(slow, limits=ScriptLimits(cpu_ms=100, mean_cpu_ms=20))
    loaded = engine.Script(source)
    calls = calls_of([bytes([at]) for at in range(BATCH_MAX)])
    assert loaded.call_many(calls) == []
    assert loaded.batch_size(calls) == 1
    assert {result.kind for result in together(loaded, calls[:9], [])} == {""}


def test_a_frame_that_fills_the_memory_with_others_is_called_by_itself() -> None:
    """The frames of an evaluation share a realm; that costs none of them its result."""
    greedy = """function decodeUplink(i) {
      var list = []; for (var k = 0; k < 40000; k++) list.push(k + 0.5);
      return { data: { text: "x".repeat(30000), n: list.length } }; }"""
    limits = ScriptLimits(cpu_ms=200, mean_cpu_ms=200, memory_mb=3, output_kb=200)
    source = source_of(greedy, limits=limits)
    calls = calls_of([bytes(200)] * 24)
    assert together(engine.Script(source), calls, []) == singly(source, calls)


# ── size ─────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_grow_while_they_cost_little() -> None:
    """From one call to the greatest number, halved by one that takes a good part of the limit."""
    size = BatchSize()
    calls = calls_of([b"\1"] * 100)
    results = []
    for _ in range(8):
        results.append(size.of(calls, 100))
        size.record(results[-1], 0.1, 5)
    assert results == [1, 2, 4, 8, 16, 32, BATCH_MAX, BATCH_MAX]
    size.record(BATCH_MAX, 5 * SHARE + 0.01, 5)
    assert size.of(calls, 100) == BATCH_MAX // 2
    assert size.of(calls, 5) == 5
    size.record(5, 0.1, 5)  # a short one says nothing of a long one
    assert size.of(calls, 100) == BATCH_MAX // 2


def test_a_stop_makes_as_many_single_calls() -> None:
    """Then batches grow from the smallest again."""
    size = BatchSize()
    calls = calls_of([b"\1"] * 9)
    for count in (1, 2, 4):
        size.record(count, 0.1, 5)
    size.record_stop(3)
    results = []
    for _ in range(6):
        results.append(size.of(calls, 9))
        size.record(results[-1], 0.1, 5)
    assert results == [1, 1, 1, 1, 2, 4]


def test_large_frames_are_called_by_themselves() -> None:
    """The frames of an evaluation are held twice: together they are small."""
    size = BatchSize()
    for count in (1, 2, 4):
        size.record(count, 0.1, 5)
    half = ScriptCall(bytes(BATCH_BYTES // 2), 1, 0)
    assert size.of([half] * 4, 4) == 2
    assert size.of([ScriptCall(bytes(BATCH_BYTES + 1), 1, 0)] * 4, 4) == 1


def test_no_batch_passes_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is compared with a fresh realm, or at which the memory is measured, is evaluated by itself."""
    monkeypatch.setattr(engine, "MEMORY_CHECK_CALLS", 10)
    loaded = engine.Script(source_of("function decodeUplink(i) { return { data: {} }; }", limits=PATIENT))
    sizes: list[int] = []
    together(loaded, calls_of([b""] * 43), sizes)
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    assert {10, 20, 30, 40} <= set(ends)
    assert all(size == 1 for size, end in zip(sizes, ends, strict=True) if not end % 10)
    assert max(sizes) > 4
