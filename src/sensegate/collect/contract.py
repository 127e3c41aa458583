"""The contracts of intake: a source of messages, and a device connection of a national protocol.

Every implementation passes the suite of its contract in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sensegate.model import Delivery, FrameOutcome, Framing, ReceivedFrame, SourcePosition


class Source(Protocol):
    """A source of messages from outside, as deliveries.

    A source delivers each message at least once until its delivery was acknowledged, in the order of its own
    sequence, and never acknowledges by itself.
    """

    name: str

    async def start(self, committed: SourcePosition | None) -> None:
        """Connect; where the source has positions, deliver nothing at or below `committed`."""
        ...

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield deliveries until `stop`. Raises `Unavailable` when it must be restarted."""
        ...

    async def stop(self) -> None:
        """Disconnect; unacknowledged messages are delivered again after the next start."""
        ...


class ProtocolSession(Protocol):
    """The gateway's side of a device connection in a national protocol; see `collect/protocols/`.

    A session does no I/O and never waits: `collect/tcp.py` reads, asks the registry, and replies after the commit.
    """

    def find_frame(self, buffer: bytes) -> Framing:
        """Return the position of the next frame in the unread bytes."""
        ...

    def parse(self, frame: bytes) -> ReceivedFrame:
        """Return the sender of a frame and its proof. Raises `Rejected` if the bytes are not a frame."""
        ...

    def build_reply(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:
        """Return the reply to the device once the outcome is certain; empty: none. `now` is µs UTC."""
        ...
