"""A script child process as the gateway sees it: started, used and killed. Every wait has a bound."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from sensegate.scripts.wire import (
    LENGTH,
    MESSAGE_BYTES_MAX,
    PROGRESS,
    RESULT_KINDS,
    ChildHello,
    DecodedCalls,
    ScriptReply,
    ScriptRequest,
)

START_S: Final = 15.0
"""Time by which a child must have sent its hello."""
STALL_S: Final = 2.0
"""Time without progress or CPU use after which a child is killed; one that uses CPU is ended by its own timer."""
ANSWER_S: Final = 120.0
"""Time after which a child is killed whatever it does: one that a script has taken over may go on for ever."""
_POLL_S: Final = 0.05

_encode = msgspec.msgpack.Encoder().encode
_reply = msgspec.msgpack.Decoder(ScriptReply).decode
_hello = msgspec.msgpack.Decoder(ChildHello).decode


class ChildDied(Exception):
    """The child ended during a request."""

    def __init__(self, place: int, *, by_cpu: bool) -> None:
        super().__init__(f"at {place}")
        self.index = place
        """Index of the frame under way (from 0), or of the script plus `LOADING`; -1 if there was none."""
        self.by_cpu = by_cpu
        """True if its CPU timer ended it."""


class ChildProcess:
    """A child process that runs scripts. Not thread-safe."""

    def __init__(self, command: tuple[str, ...] = ()) -> None:
        """Start the process without waiting for it. `command` replaces the child's program, for tests."""
        self.loaded: set[str] = set()
        """Keys of the scripts that it has loaded."""
        self.sandbox: tuple[str, ...] = ()
        """Sandbox restrictions in force, once it has been waited for."""
        self._ready = False
        shared = os.memfd_create("sensegate-scripts")
        try:
            os.ftruncate(shared, PROGRESS.size)
            self._progress = mmap.mmap(shared, PROGRESS.size)
            program = command or (sys.executable, "-I", "-m", "sensegate.scripts.child")
            self._popen = subprocess.Popen(
                [*program, str(shared)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(shared,),
                bufsize=0,
                env={},
                start_new_session=True,
            )
        finally:
            os.close(shared)
        if self._popen.stdin is None or self._popen.stdout is None:
            raise AssertionError("Popen was called with pipes")
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._popen.pid

    @property
    def ready(self) -> bool:
        """Return whether it would answer immediately."""
        if not self._ready and select.select([self._out], [], [], 0)[0]:
            with contextlib.suppress(ChildDied):  # the next request raises it
                self.wait_ready()
        return self._ready

    def wait_ready(self) -> None:
        """Wait until it is in its sandbox. Raises `ChildDied` if it does not start."""
        if not self._ready:
            try:
                self.sandbox = _hello(self._receive(START_S, lambda: -1)).sandbox
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._raise_died(-1)
            self._ready = True

    def request(self, request: ScriptRequest) -> ScriptReply:
        """Send a request and return the reply.

        Raises:
            ChildDied: the child ended during it, or was killed because it did not reply, or not to this request.
        """
        self.wait_ready()
        body = _encode(request)
        if len(body) > MESSAGE_BYTES_MAX:
            raise AssertionError("requests are split to this size before")
        self._send(LENGTH.pack(len(body)) + body)
        try:
            reply = _reply(self._receive(STALL_S, self._current_index))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._raise_died(self._current_index())
        if not _answers(request, reply):
            self._raise_died(self._current_index())
        self.loaded.update(facts.key for facts in reply.loaded if not facts.error)
        return reply

    def kill(self) -> None:
        """Kill the process and release its resources."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(ValueError):
            self._progress.close()

    def _current_index(self) -> int:
        place: int = PROGRESS.unpack_from(self._progress, 0)[0]
        return place - 1

    def _cpu_s(self) -> float:
        """Return the CPU time that it has used (clock_getcpuclockid(3))."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def _send(self, message: bytes) -> None:
        left = memoryview(message)
        last = time.monotonic()
        while left:
            _, writable, _ = select.select([], [self._in], [], _POLL_S)
            if writable:
                try:
                    left = left[os.write(self._in, left) :]
                except BrokenPipeError:
                    self._raise_died(-1)
                last = time.monotonic()
            elif time.monotonic() - last > STALL_S:
                self._raise_died(-1)

    def _receive(self, still_s: float, progress: Callable[[], int]) -> bytes:
        """Return the body of the next message."""
        parts = bytearray()
        want = LENGTH.size
        head = True
        last, place = time.monotonic(), (progress(), self._cpu_s())
        latest = last + ANSWER_S
        while True:
            if time.monotonic() > latest:
                self._raise_died(progress())
            readable, _, _ = select.select([self._out], [], [], _POLL_S)
            if readable:
                part = os.read(self._out, 1 << 20)
                if not part:
                    self._raise_died(progress())
                parts += part
                if head and len(parts) >= want:
                    want += LENGTH.unpack_from(parts)[0]
                    head = False
                    if want > MESSAGE_BYTES_MAX:
                        self._raise_died(progress())
                if not head and len(parts) >= want:
                    return bytes(parts[LENGTH.size :])
                last = time.monotonic()
                continue
            now, here = time.monotonic(), (progress(), self._cpu_s())
            if here != place:
                last, place = now, here
            elif now - last > still_s:
                self._raise_died(here[0])

    def _raise_died(self, place: int) -> NoReturn:
        """Release the process; raises `ChildDied`."""
        self._popen.kill()
        status = self._popen.wait()
        self.kill()
        raise ChildDied(place, by_cpu=status == -signal.SIGPROF)


def _answers(request: ScriptRequest, reply: ScriptReply) -> bool:
    """Return whether a reply is one to this request: a script may have taken over the child that sends it."""
    runs = request.runs
    return (
        [source.key for source in request.load] == [info.key for info in reply.loaded]
        and len(reply.results) == len(reply.cpu_us) == len(reply.slow) == len(runs)
        and all(0 <= cpu_us < math.inf for cpu_us in reply.cpu_us)
        and all(
            0 <= call.index < len(run.calls) and 0 <= call.cpu_ms < math.inf
            for run, slow in zip(runs, reply.slow, strict=True)
            for call in slow
        )
        and all(
            isinstance(result, DecodedCalls) or result.kind in RESULT_KINDS
            for results in reply.results
            for result in results
        )
    )
