"""All contracts on one page. Every implementation passes the suite of its contract in `tests/contracts/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from sensegate.bus.timelines import Timelines
from sensegate.frames.framing import Framing
from sensegate.model import Delivery, Entry, Heard, Member, Outcome, Position, Shed

T = TypeVar("T")


class Source(Protocol):
    """The outside world, as deliveries.

    A source gives each message at least once until its delivery was acknowledged, in the order of its own
    sequence, and never acknowledges by itself. `ack()` of a delivery acknowledges it and all before it.
    """

    name: str

    async def start(self, committed: Position | None) -> None:
        """Connect; give nothing at or below `committed` again where the source has positions."""
        ...

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield deliveries until `stop`. Raises `Unavailable` when it has to be started again."""
        ...

    async def stop(self) -> None:
        """Disconnect; what was not acknowledged will come again."""
        ...


class Talk(Protocol):
    """Our side of one device's connection in a national protocol; one file each in `collect/protocols/`.

    A talk does no I/O and never waits: `collect/tcp.py` reads, asks the registry, and answers after the commit.
    """

    def cut(self, buffer: bytes) -> Framing:
        """Say where the next frame stands in what was read and not yet used."""
        ...

    def hear(self, frame: bytes) -> Heard:
        """Return who sent a frame, and how it proves that. Raises `Rejected` where it is none after all."""
        ...

    def answer(self, heard: Heard, outcome: Outcome, now: int) -> bytes:
        """Return what is said to the device when the outcome is certain; empty: nothing. `now`: µs UTC."""
        ...


class Log(Protocol):
    """The one durable record of a node or centre."""

    @property
    def epoch(self) -> str:
        """Identity of the log's life."""
        ...

    @property
    def timelines(self) -> Timelines:
        """Which run of the gateway wrote which range of it; each cursor names one."""
        ...

    async def write(self, members: Sequence[Member]) -> int:
        """Write all members or none; return the sequence of the last (members are consecutive).

        Raises `Fenced` (an expectation was wrong), `StoreFull`, `Unavailable` (outcome unknown: read the last commit).
        """
        ...

    async def last(self, subject: str) -> Entry | None:
        """Return the last entry of a literal subject, or None."""
        ...

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[Entry]:
        """Return the entries after a sequence, oldest first; empty at the end of the log. Sequences may have holes."""
        ...

    async def bounds(self) -> tuple[int, int]:
        """Return (first, last) sequence present; (last + 1, last) when empty."""
        ...

    async def sequence_at(self, time: int) -> int:
        """Return the sequence of the first entry stored at or after `time` (µs); last + 1 if none."""
        ...

    async def changed(self, after: int, timeout_s: float) -> bool:
        """Wait until the log has an entry after `after`; False after `timeout_s`."""
        ...


class Sink(Protocol):
    """Another system that receives what the log holds, each with its own resumable cursor."""

    name: str

    async def run(self) -> None:
        """Forward until cancelled; resume where the last confirmed write ended."""
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


class PushTransport(Protocol):
    """A transport that pushes to subscribers: webhook, MQTT, NATS (`publish.webhook.Poster`, `publish.brokered`)."""

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


SHED = PartKey[Callable[[], Sequence[Shed]]]("shed", absent="this gateway carries out no mode orders")
"""Returns the readings that active mode orders withhold from the centre."""
