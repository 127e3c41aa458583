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
from sensegate.scripts.seal import seal
from sensegate.scripts.wire import (
    LENGTH,
    LOADING,
    MESSAGE_BYTES_MAX,
    PROGRESS,
    Facts,
    Hello,
    Outcome,
    Reply,
    Request,
    Run,
)

SCRIPTS_MAX: Final = 64
"""Number of scripts held; the least recently used one is dropped."""
REPLY_CHARACTERS: Final = 8 * 1024**2
"""Length at which a reply ends early; the caller requests the rest again."""
PATIENCE_S: Final = 0.1
"""CPU time beyond the mean of its calls after which a run ends early."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode


class Child:
    """The scripts of one child process."""

    def __init__(self, progress: mmap.mmap) -> None:
        self._progress = progress
        self._scripts: OrderedDict[str, engine.Script] = OrderedDict()
        self._asked: list[engine.Script] = []
        self._room = REPLY_CHARACTERS

    def answer(self, request: Request) -> Reply:
        """Load and run the requested scripts."""
        loaded = []
        for at, source in enumerate(request.load, LOADING + 1):
            PROGRESS.pack_into(self._progress, 0, at)
            _deadline(engine.LOAD_S * 3)
            try:
                script = engine.Script(source, _deadline)
            except engine.LoadError as why:
                loaded.append(Facts(source.key, error=why.what, line=why.line))
                continue
            loaded.append(script.facts)
            self._scripts[source.key] = script
            if len(self._scripts) > SCRIPTS_MAX:
                self._scripts.popitem(last=False)
        self._room = REPLY_CHARACTERS
        outcomes, cpu_us = [], []
        place = 0
        for run in request.runs:
            began = time.process_time()
            outcomes.append(self._run(run, place))
            cpu_us.append((time.process_time() - began) * 1e6)
            place += len(run.calls)
        _deadline(0)
        PROGRESS.pack_into(self._progress, 0, 0)
        return Reply(loaded, outcomes, cpu_us)

    def rest(self) -> None:
        """Prepare the used scripts for the next request while nobody waits."""
        for script in self._asked:
            script.rest()
        self._asked.clear()
        _deadline(0)

    def _run(self, run: Run, place: int) -> list[Outcome]:
        script = self._scripts.get(run.key)
        if script is None:
            return [Outcome("", "")] * len(run.calls)
        self._scripts.move_to_end(run.key)
        self._asked.append(script)
        limits = script.source.limits
        if self._room < 0:
            return []
        script.limit(run.cpu_ms)
        began = time.process_time()
        found: list[Outcome] = []
        for at, call in enumerate(run.calls, place + 1):
            PROGRESS.pack_into(self._progress, 0, at)
            found.append(script.call(call.payload, call.port, call.received_ms))
            self._room -= len(found[-1].text)
            spent_s = time.process_time() - began
            if self._room < 0 or found[-1].costly or spent_s > PATIENCE_S + len(found) * limits.mean_cpu_ms / 1e3:
                break
        return found


def _deadline(seconds: float) -> None:
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
        child = Child(progress)
        _write(_encode(Hello(seal())))
        while True:
            (length,) = LENGTH.unpack(_read(LENGTH.size))
            if length > MESSAGE_BYTES_MAX:
                sys.exit(1)
            _write(_encode(child.answer(_decode(_read(length)))))
            child.rest()


if __name__ == "__main__":
    main()
