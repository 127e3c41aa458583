"""The simulator's record of what it is about to send and what was acknowledged: the judge's first source.

The line format is documented in `judge`. Append-only; `I` is on disk before the message is sent.
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
    """The file of one simulator."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.run = run
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0
        self._lines: list[str] = []

    def devices(self, names: Iterable[str], *, cameras: bool = False) -> None:
        """Record the devices of the simulator."""
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
        requirement: str = REQUIRED,
        original_rid: str = "-",
    ) -> str:
        """Record a message about to be sent and return its rid. Call `flush` before sending."""
        self._count += 1
        rid = f"{self.run}-{self._count:010d}"
        pairs = values.items() if isinstance(values, Mapping) else values
        text = (
            ";".join(f"{name}{requirement}{json.dumps(value, separators=(',', ':'))}" for name, value in pairs) or "-"
        )
        self._lines.append(f"I {rid} {now()} {kind} {node} {device} {when} {original_rid} {text}")
        return rid

    def acknowledged(self, rid: str) -> None:
        """Record a PUBACK; written with the next flush."""
        self._lines.append(f"A {rid} {now()}")

    def resent(self, rid: str) -> None:
        """Record a retry after a lost connection."""
        self._lines.append(f"R {rid} {now()}")

    def give_up(self, rid: str, why: str) -> None:
        """Record a message of unknown outcome."""
        self._lines.append(f"U {rid} {now()} {why.replace(' ', '_')}")

    def flush(self) -> None:
        """Write the recorded lines in one write."""
        if not self._lines:
            return
        text = ("\n".join(self._lines) + "\n").encode()
        self._lines.clear()
        while text:
            text = text[os.write(self._file, text) :]

    def end(self) -> None:
        """Write the last line and close the file."""
        self._lines.append(f"E {now()}")
        self.flush()
        os.close(self._file)
