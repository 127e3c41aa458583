"""How many messages were uncommitted at a moment, told afterwards and exactly: the simulator's file against the log.

The judge sees a commit only when a subscriber has it; the log itself knows when it stored each commit.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from sensegate.bus.engine import Engine
from sensegate.bus.ledger import Ledger
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import User
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, StoreConfig
from sensegate.demo.city import CityMember

UNCOUNTED = frozenset(("refused",))
"""Kinds that the broker acknowledges and drops: they are never committed."""


class Steps:
    """A count that rises over time; added to in the order of time."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._sums = [0]

    def add(self, time: int, count: int = 1) -> None:
        """Count so many more at a time (µs UTC)."""
        # Times come from one clock, but a line may be written a moment after another's.
        self._times.append(max(time, self._times[-1]) if self._times else time)
        self._sums.append(self._sums[-1] + count)

    def between(self, since: int, until: int) -> int:
        """Return what was counted after `since`, up to `until`."""
        return self._sums[bisect_right(self._times, until)] - self._sums[bisect_right(self._times, since)]


class Sent:
    """What the simulator meant to send and what was acknowledged, by node over time; read as its file grows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.intended: dict[str, Steps] = {}
        self.acknowledged: dict[str, Steps] = {}
        self._node_of: dict[str, str] = {}
        self._offset = 0

    def read(self) -> None:
        """Take the new lines."""
        with self.file.open("rb") as lines:
            lines.seek(self._offset)
            fresh = lines.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            words = line.split(" ", 5)
            if words[0] == "I" and words[3] not in UNCOUNTED:
                self._node_of[words[1]] = words[4]
                self.intended.setdefault(words[4], Steps()).add(int(words[2]))
            elif words[0] == "A" and (node := self._node_of.pop(words[1], "")):
                self.acknowledged.setdefault(node, Steps()).add(int(words[2]))


class Committed:
    """Messages committed on a member's log, by node over time; read as it grows."""

    def __init__(self, member: CityMember) -> None:
        self.member = member
        self.messages: dict[str, Steps] = {}
        self._at = 0

    async def read(self) -> None:
        """Take the new ledgers."""
        config = EngineConfig(
            url=f"nats://127.0.0.1:{self.member.nats_port}",
            credentials_file=str(self.member.directory / "store" / "engine" / "engine.json"),
        )
        engine = Engine(config, StoreConfig(), self.member.directory, name=self.member.division, clock=SystemClock())
        async with engine:
            connection = await engine.connect(User.GATEWAY, name="harness")
            log = JetStreamLog(connection)
            await log.open()
            while entries := await log.fetch(self._at):
                self._at = entries[-1].sequence
                for entry in entries:
                    kind, _, rest = entry.subject.partition(".")
                    if kind == "ledger":
                        count = Ledger.decode(entry.payload).totals().get("messages", 0)
                        self.messages.setdefault(rest.partition("-")[0], Steps()).add(entry.time, count)
            await log.close()
            await connection.close()
