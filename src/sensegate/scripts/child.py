"""Child process, ``python -m sensegate.scripts.child PROGRESS_FD``: requests in, replies out, until its input ends.

It imports little, so that it starts in a fraction of a second, and its two pipes are its only connection.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from collections import OrderedDict
from typing import Final

import msgspec

from sensegate.scripts import engine
from sensegate.scripts.batching import BATCH_MAX
from sensegate.scripts.sandbox import enter_sandbox
from sensegate.scripts.wire import (
    BATCHED,
    LENGTH,
    LOADING,
    MESSAGE_BYTES_MAX,
    PROGRESS,
    CallResult,
    ChildHello,
    DecodedCalls,
    ScriptInfo,
    ScriptReply,
    ScriptRequest,
    ScriptRun,
    SlowCall,
)

SCRIPTS_MAX: Final = 64
"""Number of scripts held; the least recently used one is dropped."""
REPLY_CHARACTERS: Final = 8 * 1024**2
"""Length at which a reply ends early; the caller requests the rest again."""
OVERRUN_S: Final = 0.1
"""CPU time beyond the mean of its calls after which a run ends early."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ScriptRequest).decode


class ScriptChild:
    """The scripts of one child process."""

    def __init__(self, progress: mmap.mmap) -> None:
        self._progress = progress
        self._scripts: OrderedDict[str, engine.Script] = OrderedDict()
        self._used: list[engine.Script] = []
        self._characters_left = REPLY_CHARACTERS

    def handle(self, request: ScriptRequest) -> ScriptReply:
        """Load and run the requested scripts."""
        loaded = []
        for at, source in enumerate(request.load, LOADING + 1):
            PROGRESS.pack_into(self._progress, 0, at)
            _set_cpu_deadline(engine.LOAD_S * 3)
            try:
                script = engine.Script(source, _set_cpu_deadline)
            except engine.LoadError as why:
                loaded.append(ScriptInfo(source.key, error=why.message, line=why.line))
                continue
            loaded.append(script.info)
            self._scripts[source.key] = script
            if len(self._scripts) > SCRIPTS_MAX:
                self._scripts.popitem(last=False)
        self._characters_left = REPLY_CHARACTERS
        outcomes, cpu_us = [], []
        slow: list[list[SlowCall]] = []
        place = 0
        for run in request.runs:
            began = time.thread_time()
            slow.append([])
            outcomes.append(self._run(run, place, slow[-1]))
            cpu_us.append((time.thread_time() - began) * 1e6)
            place += len(run.calls)
        _set_cpu_deadline(0)
        PROGRESS.pack_into(self._progress, 0, 0)
        return ScriptReply(loaded, outcomes, cpu_us, slow)

    def prepare(self) -> None:
        """Prepare the used scripts for the next request while nobody waits."""
        for script in self._used:
            script.prepare()
        self._used.clear()
        _set_cpu_deadline(0)

    def _run(self, run: ScriptRun, place: int, slow: list[SlowCall]) -> list[CallResult | DecodedCalls]:
        """Return the results of a run whose calls begin at `place` of the request, and add its slow ones to `slow`."""
        script = self._scripts.get(run.key)
        if script is None:
            return [CallResult("", "")] * len(run.calls)
        self._scripts.move_to_end(run.key)
        self._used.append(script)
        limits = script.source.limits
        if self._characters_left < 0:
            return []
        script.set_cpu_limit(run.cpu_ms)
        began = time.thread_time()
        results: list[CallResult | DecodedCalls] = []
        done = 0
        while done < len(run.calls):
            calls = run.calls[done : done + BATCH_MAX]
            count = 1 if run.singly else script.batch_size(calls)
            PROGRESS.pack_into(self._progress, 0, place + done + 1 + (BATCHED if count > 1 else 0))
            call_began = time.thread_time()
            if count > 1:
                made = script.call_many(calls[:count])
            else:
                made = [script.call(calls[0].payload, calls[0].port, calls[0].received_ms)]
            costly = False
            for result in made:
                done += result.count if isinstance(result, DecodedCalls) else 1
                costly = isinstance(result, CallResult) and result.costly
                self._characters_left -= len(result.text)
            results += made
            if made and not costly:
                if count > 1:
                    call_began = time.thread_time()
                script.prepare()  # a realm that is dropped is the cost of the call that spoilt it
            cost_ms = (time.thread_time() - call_began) * 1e3
            if cost_ms > limits.mean_cpu_ms and made:
                slow.append(SlowCall(done - 1, cost_ms))
            spent_s = time.thread_time() - began
            if self._characters_left < 0 or costly or spent_s > OVERRUN_S + done * limits.mean_cpu_ms / 1e3:
                break
        return results


def _set_cpu_deadline(seconds: float) -> None:
    """Have the kernel end the process after this much further CPU time, even within native code."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _read(count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(0, min(count - len(parts), 1 << 20))
        if not part:
            sys.exit(0)  # the gateway has ended, or needs this child no more
        parts += part
    return bytes(parts)


def _write(message: bytes) -> None:
    left = memoryview(LENGTH.pack(len(message)) + message)
    while left:
        left = left[os.write(1, left) :]


def main() -> None:
    """Serve requests until the input ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the gateway, which ends its children
    engine.preload()
    with mmap.mmap(int(sys.argv[1]), PROGRESS.size) as progress:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        child = ScriptChild(progress)
        _write(_encode(ChildHello(enter_sandbox())))
        while True:
            (length,) = LENGTH.unpack(_read(LENGTH.size))
            if length > MESSAGE_BYTES_MAX:
                sys.exit(1)
            _write(_encode(child.handle(_decode(_read(length)))))
            child.prepare()


if __name__ == "__main__":
    main()
