"""All contracts on one page. Every implementation passes the suite of its contract in `tests/contracts/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from sensegate.bus.timelines import Timelines
from sensegate.model import (
    Delivery,
    FrameOutcome,
    Framing,
    LogEntry,
    LogMessage,
    ReceivedFrame,
    SheddingRule,
    SourcePosition,
)

T = TypeVar("T")


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


class Log(Protocol):
    """The one durable record of a node or centre."""

    @property
    def epoch(self) -> str:
        """Identity of the log; another one after it was created again."""
        ...

    @property
    def timelines(self) -> Timelines:
        """Timelines: which run of the gateway wrote which range; each cursor names one."""
        ...

    async def write(self, messages: Sequence[LogMessage]) -> int:
        """Write all messages or none, with consecutive sequences; return the sequence of the last.

        Raises `Fenced` (an expected sequence is wrong), `StoreFull`, `Unavailable` (unknown outcome: read the last
        commit).
        """
        ...

    async def last(self, subject: str) -> LogEntry | None:
        """Return the last entry of a literal subject; None: there is none."""
        ...

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        """Return the entries after a sequence, oldest first; empty at the end of the log. Sequences may have gaps."""
        ...

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the next entries of a subject after a sequence, oldest first; tokens of the subject may be ``*``."""
        ...

    async def bounds(self) -> tuple[int, int]:
        """Return (first, last) sequence; (last + 1, last) for an empty log."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether this is known to be the log that readers follow; of two centres only after the other was heard."""
        ...

    async def stored_end(self) -> int:
        """Return the last sequence that is stored; of two centres it may not be visible yet (`bounds`)."""
        ...

    async def sequence_at(self, time: int) -> int:
        """Return the sequence of the first entry stored at or after `time` (µs); last + 1 if none."""
        ...

    async def changed(self, after: int, timeout_s: float) -> bool:
        """Wait until the log has an entry after `after`; return False after `timeout_s`."""
        ...


class OutboundDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Records of a feed on their way to a subscriber."""

    target: str
    """HTTP address of the subscriber, or the topic or subject on which it listens."""
    id: str
    """Stays the same at each attempt, so that the subscriber recognises a repetition."""
    body: bytes
    media: str
    headers: tuple[tuple[str, str], ...] = ()
    algorithm: str = "hmac-sha256"
    """Signature algorithm: ``hmac-sha256`` or ``hmac-sm3``."""
    secret: bytes = b""


class DeliveryResult(msgspec.Struct, frozen=True):
    """Outcome of one attempt to deliver."""

    accepted: bool
    """True only for a 2xx status where the delivery goes by HTTP."""
    reason: str = ""
    """Why it was not accepted, as the subscriber may see it; never a part of the response body."""
    retry_after_s: float = 0.0
    gone: bool = False
    """The receiver has ended the subscription (410)."""
    too_large: bool = False
    """A delivery of fewer records may be accepted."""
    unavailable: bool = False
    """No subscriber listens, or the previous delivery is not yet acknowledged: not a failure; retried soon."""
    records: int | None = None
    """How many of its records the subscriber got, where the transport left some out; None: all."""


class PushTransport(Protocol):
    """A transport that pushes to subscribers (`publish.webhook.WebhookPublisher`, `publish.brokered`)."""

    def check(self, target: str) -> None:
        """Return if deliveries to an address are allowed, as far as its text shows. Raises `ConfigError`."""
        ...

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        """Attempt one delivery within a time limit; never raises for what the receiver does."""
        ...


class PartKey(Generic[T]):
    """Typed key of a part that a feature provides to its routes (`Call.part`) and to other features."""

    def __init__(self, name: str, *, absent: str) -> None:
        """`absent`: detail of the 404 response of a gateway without the feature."""
        self.name = name
        self.absent = absent


SHED = PartKey[Callable[[], Sequence[SheddingRule]]]("shed", absent="this gateway carries out no mode orders")
"""Returns the readings that active mode orders withhold from the centre."""
