"""The simulator's own record of what it means to send and what was acknowledged: the judge's first witness.

The form of the lines is written at the head of `judge.py`. Append-only; `I` is on disk before the message is sent.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

REQUIRED, ALLOWED, FORBIDDEN = "=~!"


def now() -> int:
    """Return µs since 1970."""
    return time.time_ns() // 1000


class Intents:
    """One simulator's file."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.run = run
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0
        self._lines: list[str] = []

    def devices(self, names: Iterable[str], *, cameras: bool = False) -> None:
        """Write which devices are the simulator's."""
        self._lines += [f"{'C' if cameras else 'D'} {name}" for name in names]
        self.flush()

    def intend(
        self,
        kind: str,
        node: str,
        device: str,
        when: int,
        values: Mapping[str, object] | Sequence[tuple[str, object]],
        *,
        need: str = REQUIRED,
        of: str = "-",
    ) -> str:
        """Note a message that is about to be sent and return its rid. `flush` before sending."""
        self._count += 1
        rid = f"{self.run}-{self._count:010d}"
        pairs = values.items() if isinstance(values, Mapping) else values
        text = ";".join(f"{name}{need}{json.dumps(value, separators=(',', ':'))}" for name, value in pairs) or "-"
        self._lines.append(f"I {rid} {now()} {kind} {node} {device} {when} {of} {text}")
        return rid

    def acknowledged(self, rid: str) -> None:
        """Note a PUBACK; written with the next flush."""
        self._lines.append(f"A {rid} {now()}")

    def sent_again(self, rid: str) -> None:
        """Note a retry after a lost connection."""
        self._lines.append(f"R {rid} {now()}")

    def given_up(self, rid: str, why: str) -> None:
        """Note a message of which nobody will know whether it arrived."""
        self._lines.append(f"U {rid} {now()} {why.replace(' ', '_')}")

    def flush(self) -> None:
        """Write what is noted: one write of whole lines."""
        if not self._lines:
            return
        text = ("\n".join(self._lines) + "\n").encode()
        self._lines.clear()
        while text:
            text = text[os.write(self._file, text) :]

    def end(self) -> None:
        """Write the last line and close."""
        self._lines.append(f"E {now()}")
        self.flush()
        os.close(self._file)
