"""Pool of script child processes: frames in, results or reasons out; children are killed when they must be.

Decoding waits for the result, so its cost is bounded four times: the engine stops a call at its CPU limit; the child's
own timer kills it where native code exceeds that; a child without progress is killed by the pool; and a script or
sender that has repeatedly done so is suspended (`suspensions`). Spare children are kept ready, so that a kill costs no
start-up time. A script that has killed a child runs isolated from the others from then on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final

import msgspec

from sensegate import metrics
from sensegate.scripts.process import ChildDied, ChildProcess
from sensegate.scripts.sandbox import SYSTEM_CALLS
from sensegate.scripts.suspensions import KILL_WEIGHT, Suspensions
from sensegate.scripts.wire import (
    BATCHED,
    FAILED,
    LIMIT,
    LOADING,
    SEPARATOR,
    CallResult,
    DecodedCalls,
    ScriptCall,
    ScriptInfo,
    ScriptReply,
    ScriptRequest,
    ScriptRun,
    ScriptSource,
)

CALLS_MAX: Final = 512
BYTES_MAX: Final = 1 << 20
"""Limits of one request: if a child dies during it, none of its frames has a result."""
SPARES: Final = 2
"""Spare children kept ready in a gateway: for a lane that lost its child, and for isolated scripts."""
LEARNED_MAX: Final = 1_024
"""Number of scripts whose inspection is kept for the next child."""
DEATHS_MAX: Final = 3
"""Number of deaths without a frame to blame after which a run is given up."""
SUSPENDED: Final = "script_suspended"
"""Value of `QuarantineReason`."""
_NOT_TRIED: Final = CallResult("", "")


class PendingCall(msgspec.Struct, frozen=True, gc=False):
    """A frame for a script."""

    source: ScriptSource
    call: ScriptCall
    sender: str
    """Suspended if the frame makes the script exceed its limits: the topic."""


class UnfilteredError(Exception):
    """The kernel does not filter the system calls of the child, and the configuration requires it."""

    def __init__(self) -> None:
        super().__init__(
            "codec scripts do not run: the system does not filter their system calls (seccomp); permit seccomp for "
            "this process, or set scripts.require_seccomp: false"
        )


class _Lane:
    """The child that runs a group of scripts."""

    def __init__(self) -> None:
        self.process: ChildProcess | None = None


class ScriptPool:
    """Runs codec scripts in child processes. Thread-safe; one caller at a time."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        spares: int = 0,
        start: Callable[[], ChildProcess] = ChildProcess,
        require_filter: bool = True,
    ) -> None:
        """`require_filter`: run nothing in a child whose system calls the kernel does not filter."""
        self._require_filter = require_filter
        self._is_unfiltered = False
        """True if a child ran without the seccomp filter."""
        self.suspensions = Suspensions(monotonic)
        self._start = start
        self._spares_kept = spares
        self._spares: list[ChildProcess] = []
        self._shared, self._isolated = _Lane(), _Lane()
        self._crashing: set[str] = set()
        self._retried: set[tuple[str, ScriptCall]] = set()
        self._singly: set[str] = set()
        self._deaths = 0
        self._learned: dict[str, str] = {}
        self._lock = threading.Lock()

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────

    def run(self, asks: Sequence[PendingCall]) -> list[CallResult]:
        """Return the result of each frame."""
        with self._lock:
            results: list[CallResult] = [_NOT_TRIED] * len(asks)
            left: dict[str, list[int]] = {}
            for at, ask in enumerate(asks):
                left.setdefault(ask.source.key, []).append(at)
            while left := self._send_all(asks, results, left):
                if self._deaths > DEATHS_MAX:
                    for at in (at for places in left.values() for at in places):
                        results[at] = CallResult(FAILED, "no process for scripts can be started")
                    break
            self._deaths = 0
            self._retried.clear()
            self._singly.clear()
            for kind, count in Counter(result.kind for result in results).items():
                metrics.SCRIPT_CALLS.labels(kind or "decoded").inc(count)
            return results

    def inspect(self, source: ScriptSource) -> ScriptInfo:
        """Load a script and describe it, or say why it cannot be used."""
        with self._lock:
            try:
                return self._send(self._shared, ScriptRequest([source])).loaded[0]
            except ChildDied:
                return ScriptInfo(source.key, error="loading it ended its process")
            except UnfilteredError as why:
                return ScriptInfo(source.key, error=str(why))

    def start_children(self, spares: int = SPARES) -> None:
        """Start the processes needed, and keep this many spare ones from now on, without waiting for them."""
        with self._lock:
            self._spares_kept = spares
            if self._shared.process is None:
                self._shared.process = self._take_spare()

    def close(self) -> None:
        """End all children; the next frame starts new ones."""
        with self._lock:
            for process in self.children:
                process.kill()
            self._shared, self._isolated, self._spares = _Lane(), _Lane(), []

    @property
    def active(self) -> list[ChildProcess]:
        """Children that are given frames."""
        return [process for process in (self._shared.process, self._isolated.process) if process is not None]

    @property
    def children(self) -> list[ChildProcess]:
        """All running children."""
        return [*self.active, *self._spares]

    def problems(self) -> list[str]:
        """Return a sentence for each suspended script, and one if system calls are not filtered."""
        unfiltered = []
        if self._is_unfiltered and self._require_filter:
            unfiltered = [f"{UnfilteredError()}; their messages are quarantined"]
        elif self._is_unfiltered:
            unfiltered = ["codec scripts run without a filter of their system calls (scripts.require_seccomp: false)"]
        return unfiltered + [
            f"script {key} is suspended for another {left_s:.0f} s: {why}; its messages are quarantined"
            for key, why, left_s in self.suspensions.suspended_scripts()
        ]

    # ── rounds ───────────────────────────────────────────────────────────────────────────────────────

    def _send_all(
        self, asks: Sequence[PendingCall], results: list[CallResult], left: dict[str, list[int]]
    ) -> dict[str, list[int]]:
        """Send the remaining calls once, or give all of them up; return those that still remain."""
        try:
            return self._send_pending(asks, results, left)
        except UnfilteredError as why:
            results[:] = [CallResult(FAILED, str(why)) if result is _NOT_TRIED else result for result in results]
            return {}

    def _send_pending(
        self, asks: Sequence[PendingCall], results: list[CallResult], left: dict[str, list[int]]
    ) -> dict[str, list[int]]:
        """Send the remaining calls once; return those that still remain."""
        for key, places in left.items():
            allowed = []
            for at in places:
                if why := self.suspensions.reason(key, asks[at].sender):
                    results[at] = CallResult(SUSPENDED, why)
                else:
                    allowed.append(at)
            left[key] = allowed
        # A script that has killed a child runs isolated as soon as that child is ready; nobody waits for it.
        apart = self._isolated.process is not None and self._isolated.process.ready
        killers = [key for key in left if apart and key in self._crashing]
        for lane, keys in ((self._shared, [key for key in left if key not in killers]), (self._isolated, killers)):
            for runs in _batches(asks, left, keys):
                self._send_batch(lane, asks, results, runs)
        unanswered = {key: [at for at in places if results[at] is _NOT_TRIED] for key, places in left.items()}
        return {key: places for key, places in unanswered.items() if places}

    def _send_batch(
        self, lane: _Lane, asks: Sequence[PendingCall], results: list[CallResult], runs: dict[str, list[int]]
    ) -> None:
        loaded = lane.process.loaded if lane.process is not None else set()
        sources = [
            msgspec.structs.replace(
                asks[places[0]].source, inspection=self._learned.get(key) or asks[places[0]].source.inspection
            )
            for key, places in runs.items()
            if key not in loaded
        ]
        request = ScriptRequest(sources, [self._run(key, [asks[at] for at in places]) for key, places in runs.items()])
        try:
            reply = self._send(lane, request)
        except ChildDied as death:
            self._handle_death(death, asks, results, [at for places in runs.values() for at in places], sources)
            return
        self._learned.update((facts.key, facts.inspection) for facts in reply.loaded if not facts.error)
        while len(self._learned) > LEARNED_MAX:
            del self._learned[next(iter(self._learned))]
        failed = {facts.key: facts for facts in reply.loaded if facts.error}
        sent = {source.key for source in sources}
        settled = 0
        for (key, places), outcomes, cpu_us, slow in zip(
            runs.items(), reply.results, reply.cpu_us, reply.slow, strict=True
        ):
            source = asks[places[0]].source
            if key in failed:
                why = CallResult(FAILED, f"it cannot be loaded: {failed[key].error}")
                results[:] = [why if asks[at].source.key == key else result for at, result in enumerate(results)]
                settled += 1
                continue
            if outcomes and outcomes[0] == _NOT_TRIED and lane.process is not None:
                lane.process.loaded.discard(key)  # the child had dropped it
                settled += key not in sent
                continue
            each = list(_each(outcomes))
            slow_calls = [(asks[places[call.index]].sender, call.cpu_ms) for call in slow]
            self.suspensions.record_cost(key, len(each), cpu_us / 1e3, source.limits.mean_cpu_ms, slow_calls)
            for at, outcome in zip(places, each, strict=False):
                results[at] = outcome
                if outcome.costly:
                    self.suspensions.strike(key, asks[at].sender, outcome.text)
            settled += len(each)
        if not settled:
            self._deaths += 1  # it lives and does nothing

    def _run(self, key: str, asks: list[PendingCall]) -> ScriptRun:
        cpu_ms = asks[0].source.limits.cpu_ms * self.suspensions.cpu_share(key)
        singly = key in self._singly or key in self._crashing
        return ScriptRun(key, [ask.call for ask in asks], cpu_ms, singly)

    def _handle_death(
        self,
        death: ChildDied,
        asks: Sequence[PendingCall],
        results: list[CallResult],
        places: list[int],
        sources: list[ScriptSource],
    ) -> None:
        """Determine during which frame a child died, and keep that frame from the next child."""
        kind, index = death.index & -LOADING, death.index & LOADING - 1
        if death.index < 0 or kind > BATCHED or index >= len(sources if kind == LOADING else places):
            self._deaths += 1  # it did not start, was ended between two frames, or does not say what it did
            return
        if kind == BATCHED:  # one of several frames, which are called singly now
            key = asks[places[index]].source.key
            self._deaths += key in self._singly
            self._singly.add(key)
            return
        if kind == LOADING:
            key = sources[index].key
            self._isolate(key)
            for at in places:
                if asks[at].source.key == key:
                    results[at] = CallResult(FAILED, "it cannot be loaded: loading ended its process")
            return
        at = places[index]
        ask = asks[at]
        mark = (ask.source.key, ask.call)
        if not death.by_cpu and mark not in self._retried:
            self._retried.add(mark)  # possibly killed from outside: retried once
            return
        self._isolate(ask.source.key)
        why = "more CPU time than it may have, in a single step" if death.by_cpu else "it ended its process twice"
        results[at] = CallResult(LIMIT, why, costly=True)
        self.suspensions.strike(ask.source.key, ask.sender, why, KILL_WEIGHT)

    def _isolate(self, key: str) -> None:
        self._crashing.add(key)
        if self._isolated.process is None:
            self._isolated.process = self._start()

    # ── children ─────────────────────────────────────────────────────────────────────────────────────

    def _send(self, lane: _Lane, request: ScriptRequest) -> ScriptReply:
        if lane.process is None:
            lane.process = self._take_spare()
        try:
            lane.process.wait_ready()
            if SYSTEM_CALLS not in lane.process.sandbox:
                self._is_unfiltered = True
                if self._require_filter:
                    raise UnfilteredError
            return lane.process.request(request)
        except ChildDied:
            lane.process = self._start() if lane is self._isolated else None
            metrics.SCRIPT_KILLS.inc()
            raise

    def _take_spare(self) -> ChildProcess:
        process = self._spares.pop(0) if self._spares else self._start()
        while len(self._spares) < self._spares_kept:
            self._spares.append(self._start())
        return process


def _each(results: Iterable[CallResult | DecodedCalls]) -> Iterator[CallResult]:
    """Yield the result of each call."""
    for result in results:
        if isinstance(result, DecodedCalls):
            yield from map(CallResult, repeat(""), result.text.split(SEPARATOR))
        else:
            yield result


def _batches(
    asks: Sequence[PendingCall], left: dict[str, list[int]], keys: Sequence[str]
) -> Iterator[dict[str, list[int]]]:
    """Split the remaining calls into requests of bounded size: script -> indices."""
    runs: dict[str, list[int]] = {}
    calls = size = 0
    for key in keys:
        for at in left[key]:
            runs.setdefault(key, []).append(at)
            calls += 1
            size += len(asks[at].call.payload)
            if calls >= CALLS_MAX or size >= BYTES_MAX:
                yield runs
                runs, calls, size = {}, 0, 0
    if runs:
        yield runs


_require_filter = [True]
_shared: list[ScriptPool] = []
_inspector: list[ScriptPool] = []
_once = threading.Lock()


def decoding_pool() -> ScriptPool:
    """Return the pool of this process that decoding uses."""
    with _once:
        if not _shared:
            _shared.append(ScriptPool(require_filter=_require_filter[0]))
        return _shared[0]


def inspection_pool() -> ScriptPool:
    """Return the pool that inspects scripts when profiles are loaded, separate from decoding."""
    with _once:
        if not _inspector:
            _inspector.append(ScriptPool(require_filter=_require_filter[0]))
        return _inspector[0]


def configure(*, require_filter: bool) -> None:
    """Set whether the pools of this process require the filter of system calls; before anything is decoded."""
    with _once:
        if _require_filter[0] != require_filter:
            for scripts in (*_shared, *_inspector):
                scripts.close()
            _shared.clear()
            _inspector.clear()
            _require_filter[0] = require_filter


def start_children() -> None:
    """Start the children that decoding will need if any script was inspected; end the inspecting ones."""
    if _inspector:
        inspection_pool().close()
        decoding_pool().start_children()


def problems() -> list[str]:
    """Return why scripts are suspended or do not run, a sentence each."""
    return list(dict.fromkeys(problem for scripts in (*_shared, *_inspector) for problem in scripts.problems()))


def close() -> None:
    """End all children of this process; the next gateway in it starts them only if it inspects a script."""
    for scripts in (*_shared, *_inspector):
        scripts.close()
    with _once:
        _inspector.clear()
