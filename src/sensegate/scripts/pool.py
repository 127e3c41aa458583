"""Pool of script child processes: frames in, results or reasons out; children are killed when they must be.

Decoding waits for the result, so its cost is bounded four times: the engine stops a call at its CPU limit; the child's
own timer kills it where native code exceeds that; a child without progress is killed by the pool; and a script or
sender that has repeatedly done so is suspended (`suspensions`). Spare children are kept ready, so that a kill costs no
start-up time. A script that has killed a child runs isolated from the others from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from sensegate import metrics
from sensegate.scripts.conduct import KILL, Conduct
from sensegate.scripts.process import Died, Process
from sensegate.scripts.wire import LOADING, Call, Facts, Outcome, Reply, Request, Run, Source

CALLS_MAX: Final = 512
BYTES_MAX: Final = 1 << 20
"""Limits of one request: if a child dies during it, none of its frames has a result."""
SPARES: Final = 2
"""Spare children kept ready in a gateway: for a lane that lost its child, and for isolated scripts."""
LOST_MAX: Final = 3
"""Number of deaths without a frame to blame after which a run is given up."""
LIMIT: Final = "script_limit"
FAILED: Final = "script_failed"
SUSPENDED: Final = "script_suspended"
"""Values of `QuarantineReason`."""
_NOT_TRIED: Final = Outcome("", "")

_log = structlog.get_logger("scripts")


class Ask(NamedTuple):
    """A frame for a script."""

    source: Source
    call: Call
    sender: str
    """Suspended if the frame makes the script exceed its limits: the topic."""


class _Lane:
    """The child that runs a group of scripts."""

    def __init__(self) -> None:
        self.process: Process | None = None


class Scripts:
    """Runs codec scripts in child processes. Thread-safe; one caller at a time."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        spares: int = 0,
        start: Callable[[], Process] = Process,
    ) -> None:
        self.conduct = Conduct(monotonic)
        self._start = start
        self._spares_kept = spares
        self._spares: list[Process] = []
        self._common, self._apart = _Lane(), _Lane()
        self._killers: set[str] = set()
        self._again: set[tuple[str, Call]] = set()
        self._lost = 0
        self._learned: dict[str, str] = {}
        self._lock = threading.Lock()

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────

    def run(self, asks: Sequence[Ask]) -> list[Outcome]:
        """Return the result of each frame."""
        with self._lock:
            found: list[Outcome] = [_NOT_TRIED] * len(asks)
            left: dict[str, list[int]] = {}
            for at, ask in enumerate(asks):
                left.setdefault(ask.source.key, []).append(at)
            while left := self._round(asks, found, left):
                if self._lost > LOST_MAX:
                    for at in (at for places in left.values() for at in places):
                        found[at] = Outcome(FAILED, "no process for scripts can be started")
                    break
            self._lost = 0
            self._again.clear()
            for outcome in found:
                metrics.SCRIPT_CALLS.labels(outcome.kind or "decoded").inc()
            return found

    def inspect(self, source: Source) -> Facts:
        """Load a script and describe it, or say why it cannot be used."""
        with self._lock:
            try:
                return self._ask(self._common, Request([source])).loaded[0]
            except Died:
                return Facts(source.key, error="loading it ended its process")

    def warm(self, spares: int = SPARES) -> None:
        """Start the processes needed, and keep this many spare ones from now on, without waiting for them."""
        with self._lock:
            self._spares_kept = spares
            if self._common.process is None:
                self._common.process = self._fresh()

    def close(self) -> None:
        """End all children; the next frame starts new ones."""
        with self._lock:
            for process in self.children:
                process.end()
            self._common, self._apart, self._spares = _Lane(), _Lane(), []

    @property
    def asked(self) -> list[Process]:
        """Children that are given frames."""
        return [one for one in (self._common.process, self._apart.process) if one is not None]

    @property
    def children(self) -> list[Process]:
        """All running children."""
        return [*self.asked, *self._spares]

    def troubles(self) -> list[str]:
        """Return a sentence for each suspended script."""
        return [
            f"script {key} is suspended for another {left_s:.0f} s: {why}; its messages are quarantined"
            for key, why, left_s in self.conduct.suspended()
        ]

    # ── rounds ───────────────────────────────────────────────────────────────────────────────────────

    def _round(self, asks: Sequence[Ask], found: list[Outcome], left: dict[str, list[int]]) -> dict[str, list[int]]:
        """Send what is left once; return what is still left."""
        for key, places in left.items():
            kept = []
            for at in places:
                if why := self.conduct.refusal(key, asks[at].sender):
                    found[at] = Outcome(SUSPENDED, why)
                else:
                    kept.append(at)
            left[key] = kept
        # A script that has killed a child runs isolated as soon as that child is ready; nobody waits for it.
        apart = self._apart.process is not None and self._apart.process.ready
        killers = [key for key in left if apart and key in self._killers]
        for lane, keys in ((self._common, [key for key in left if key not in killers]), (self._apart, killers)):
            for runs in _requests(asks, left, keys):
                self._request(lane, asks, found, runs)
        unanswered = {key: [at for at in places if found[at] is _NOT_TRIED] for key, places in left.items()}
        return {key: places for key, places in unanswered.items() if places}

    def _request(self, lane: _Lane, asks: Sequence[Ask], found: list[Outcome], runs: dict[str, list[int]]) -> None:
        loaded = lane.process.loaded if lane.process is not None else set()
        sources = [
            msgspec.structs.replace(
                asks[places[0]].source, learned=self._learned.get(key) or asks[places[0]].source.learned
            )
            for key, places in runs.items()
            if key not in loaded
        ]
        request = Request(sources, [self._run(key, [asks[at] for at in places]) for key, places in runs.items()])
        try:
            reply = self._ask(lane, request)
        except Died as death:
            self._over(death, asks, found, [at for places in runs.values() for at in places], sources)
            return
        self._learned.update((facts.key, facts.learned) for facts in reply.loaded if not facts.error)
        failed = {facts.key: facts for facts in reply.loaded if facts.error}
        for (key, places), outcomes, cpu_us in zip(runs.items(), reply.outcomes, reply.cpu_us, strict=True):
            source = asks[places[0]].source
            if key in failed:
                why = Outcome(FAILED, f"it cannot be loaded: {failed[key].error}")
                found[:] = [why if asks[at].source.key == key else one for at, one in enumerate(found)]
                continue
            if outcomes and outcomes[0] == _NOT_TRIED and lane.process is not None:
                lane.process.loaded.discard(key)  # the child had dropped it
                continue
            self.conduct.spent(key, len(outcomes), cpu_us / 1e3, source.limits.mean_cpu_ms)
            for at, outcome in zip(places, outcomes, strict=False):
                found[at] = outcome
                if outcome.costly:
                    self.conduct.strike(key, asks[at].sender, outcome.text)

    def _run(self, key: str, asks: list[Ask]) -> Run:
        cpu_ms = asks[0].source.limits.cpu_ms * self.conduct.share(key)
        return Run(key, [ask.call for ask in asks], cpu_ms)

    def _over(
        self, death: Died, asks: Sequence[Ask], found: list[Outcome], places: list[int], sources: list[Source]
    ) -> None:
        """Determine during which frame a child died, and keep that frame from the next child."""
        if death.place < 0:
            self._lost += 1  # it did not start, or was ended between two frames
            return
        if death.place >= LOADING:
            key = sources[death.place - LOADING].key
            self._kills(key)
            for at in places:
                if asks[at].source.key == key:
                    found[at] = Outcome(FAILED, "it cannot be loaded: loading ended its process")
            return
        at = places[death.place]
        ask = asks[at]
        mark = (ask.source.key, ask.call)
        if not death.by_cpu and mark not in self._again:
            self._again.add(mark)  # possibly killed from outside: retried once
            return
        self._kills(ask.source.key)
        why = "more CPU time than it may have, in a single step" if death.by_cpu else "it ended its process twice"
        found[at] = Outcome(LIMIT, why, costly=True)
        self.conduct.strike(ask.source.key, ask.sender, why, KILL)

    def _kills(self, key: str) -> None:
        self._killers.add(key)
        if self._apart.process is None:
            self._apart.process = self._start()

    # ── children ─────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, lane: _Lane, request: Request) -> Reply:
        if lane.process is None:
            lane.process = self._fresh()
        try:
            return lane.process.ask(request)
        except Died:
            lane.process = self._start() if lane is self._apart else None
            metrics.SCRIPT_KILLS.inc()
            raise

    def _fresh(self) -> Process:
        process = self._spares.pop(0) if self._spares else self._start()
        while len(self._spares) < self._spares_kept:
            self._spares.append(self._start())
        return process


def _requests(asks: Sequence[Ask], left: dict[str, list[int]], keys: Sequence[str]) -> Iterator[dict[str, list[int]]]:
    """Split what is left into requests of bounded size: script -> indices."""
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


_shared: list[Scripts] = []
_inspector: list[Scripts] = []
_once = threading.Lock()


def shared() -> Scripts:
    """Return the pool of this process that decoding uses."""
    with _once:
        if not _shared:
            _shared.append(Scripts())
        return _shared[0]


def inspector() -> Scripts:
    """Return the pool that inspects scripts when profiles are loaded, separate from decoding."""
    with _once:
        if not _inspector:
            _inspector.append(Scripts())
        return _inspector[0]


def warm() -> None:
    """Start the children that decoding will need if any script was inspected; end the inspecting ones."""
    if _inspector:
        inspector().close()
        shared().warm()


def close() -> None:
    """End all children of this process."""
    for scripts in (*_shared, *_inspector):
        scripts.close()
