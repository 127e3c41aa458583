"""An audit trail in memory, with the same chain as the durable one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority.chain import (
    Algorithm,
    AuditRecord,
    ChainHead,
    HeadSigner,
    SignedHead,
    TrailSearch,
    decode,
    digest,
    shortened,
)
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts, MemoryTrail
from sensegate.clock import Clock


class MemoryAudit(MemoryTrail):
    """A chain in memory with a generated key."""

    def __init__(self, clock: Clock, *, gateway: str = "4401", algorithm: Algorithm = Algorithm.SHA256) -> None:
        super().__init__()
        self._clock = clock
        self._signer = HeadSigner(Ed25519PrivateKey.generate(), gateway)
        self._algorithm = algorithm
        self.raw: list[bytes] = []

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        await super().record(by, action, target, before=before, after=after)
        head = self.head()
        record = AuditRecord(
            head.number + 1,
            head.hash,
            self._clock.now(),
            by.id,
            by.role,
            action,
            target,
            nonce=str(head.number),
            before=before,
            after=after,
            hash=head.algorithm,
        )
        self.raw.append(shortened(record))

    async def usage(self) -> float:
        """Return 0: the memory has no size limit."""
        return 0.0

    @property
    def key(self) -> bytes:
        """The public key of the signer."""
        return self._signer.public

    def head(self) -> ChainHead:
        """Return the head of the chain."""
        if not self.raw:
            return ChainHead(algorithm=self._algorithm)
        return ChainHead(len(self.raw), digest(self.raw[-1], self._algorithm), len(self.raw), self._algorithm)

    async def signed(self) -> SignedHead:
        """Return the head of the chain with a signature."""
        return self._signer.sign(self.head(), first=1, time=self._clock.now())

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, AuditRecord]]:
        """Return (number, record) after a number, oldest first."""
        rows = enumerate(self.raw[after : after + limit], after + 1)
        return [(number, decode(raw)) for number, raw in rows]

    async def newest(
        self, needle: bytes, match: Callable[[AuditRecord], bool], limit: int, *, before: int = 0
    ) -> TrailSearch:
        """Return the newest records that match, newest first."""
        end = before or len(self.raw) + 1
        rows = [(number, decode(raw)) for number, raw in enumerate(self.raw, 1) if number < end and needle in raw]
        matching = [(number, record) for number, record in reversed(rows) if match(record)]
        following = matching[limit - 1][0] if len(matching) > limit else 0
        return TrailSearch(tuple(matching[:limit]), decode(self.raw[0]).time if self.raw else 0, following)

    async def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as stored, oldest first."""
        for raw in self.raw[:limit]:
            yield raw
