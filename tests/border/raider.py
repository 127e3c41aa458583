"""A node that lies, raids and floods without pause while others work, at whichever of two centres answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec

from sensegate.errors import Unavailable
from sensegate.failover.lease import LeaseRequest
from sensegate.tiers import envelope
from sensegate.tiers.envelope import PROTOCOL_VERSIONS, LinkRequest
from sensegate.tiers.link import Channel
from sensegate.tiers.protocol import SpanAnswer, SpanOutcome
from tests.border import raid
from tests.border.hostile import HostileNode, Lie, Silent, WireTransport, outcome, part, rows
from tests.border.lies import FOREIGN_DEVICE, OWN_DEVICE, OWN_DIVISION, SENDER, frame_lies, lies
from tests.border.wire import Frame, WireClient

START = 1_767_225_600_000_000
FRAMES = 200
"""Frames of the raid between two spans."""
FLOOD = 10
"""Spans without an answer awaited, and questions, at once."""
ANSWER_S = 3.0
"""A centre that was killed does not answer."""
AGAIN_S = 0.2
"""Pause before another attempt to connect."""
GARBAGE = (b"", b"{}", b"\xc1" * 64, b"\xdd\xff\xff\xff\xff", b"\x91" * 50_000, b"\x00" * 100_000, b"9" * 5_000)
TERM_FAR = 2**39
_TRANSIENT = (OSError, TimeoutError, Silent, Unavailable, msgspec.DecodeError)
"""What a centre that is killed does to a request."""


class Raider:
    """The hostile node. `run` attacks until cancelled; `attacks`, `refused` and `wrong` say what came of it."""

    def __init__(
        self, ports: Sequence[int], secret: str, *, foreign_device: str = FOREIGN_DEVICE, pause_s: float = 0.0
    ) -> None:
        """Prepare it.

        Args:
            ports: of the servers of the centres.
            secret: its own, right one.
            foreign_device: a device that another node owns.
            pause_s: between two attacks, for a machine that others use.
        """
        self._ports = ports
        self._secret = secret
        self._foreign_device = foreign_device
        self._pause_s = pause_s
        self.attacks: Counter[str] = Counter()
        """Kind of attack -> how many were sent."""
        self.refused: Counter[str] = Counter()
        """Reason -> parts of spans that the centre refused for it."""
        self.good = 0
        """Readings beside the lies that a centre has taken."""
        self.connections = 0
        self.wrong: list[str] = []
        """Lies that a centre has taken."""
        self._numbers = itertools.count(1)
        self._frames: Iterator[Frame] = iter(())

    def __str__(self) -> str:
        """Return what was done, in a line."""
        done = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.attacks.items()))
        return (
            f"hostile node {SENDER}: {done}; {sum(self.refused.values()):,} parts refused for {len(self.refused)} "
            f"reasons, {self.good:,} good readings taken, {len(self.wrong)} lies taken, {self.connections} connections"
        )

    async def run(self) -> None:
        """Attack until cancelled, at one centre after the other."""
        for port in itertools.cycle(self._ports):
            with contextlib.suppress(*_TRANSIENT):
                await self._attack(port)
            await asyncio.sleep(AGAIN_S)

    async def _attack(self, port: int) -> None:
        """Attack over one connection until it breaks, or nobody answers there."""
        async with WireClient(port, f"node-{SENDER}", self._secret) as wire:
            if not await wire.admitted():
                return
            await wire.subscribe(f"_INBOX_{SENDER}.>")
            hostile = HostileNode(WireTransport(wire, SENDER, answer_s=ANSWER_S))
            # Only the active centre answers.
            if not (await hostile.claim()).granted:
                return
            self.connections += 1
            turns: tuple[Callable[[HostileNode], Awaitable[None]], ...] = (
                self._raid,
                self._lie_in_frames,
                self._send_garbage,
                self._claim_terms,
                self._forge_replies,
                self._flood,
            )
            for turn in itertools.cycle(turns):
                await self._lie(hostile)
                await turn(hostile)
                wire.received.clear()
                if wire.closed.is_set():
                    return
                await asyncio.sleep(self._pause_s)

    # ── attacks ──────────────────────────────────────────────────────────────────────────────────────────

    async def _lie(self, hostile: HostileNode) -> None:
        for lie in lies(START, foreign_device=self._foreign_device):
            await self._one_lie(hostile, lie)
            await asyncio.sleep(self._pause_s)

    async def _one_lie(self, hostile: HostileNode, lie: Lie) -> None:
        good = rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=START + next(self._numbers) * 1_000_000)
        self.attacks["spans with a lie"] += 1
        answer = await hostile.span(hostile.request(part(good, grade=2), *lie.parts))
        if not isinstance(answer, SpanAnswer):
            return  # told to wait, or the centre is going
        if answer.outcome is not SpanOutcome.ACCEPTED:
            await hostile.claim()  # it says where the lanes are
            return
        self.good += 1
        reasons = {refusal.reason for refusal in answer.refused}
        self.refused.update(str(reason) for reason in reasons)
        if reasons != lie.reasons:
            self.wrong.append(f"{lie.name}: refused for {sorted(reasons)}, not {sorted(lie.reasons)}")

    async def _lie_in_frames(self, hostile: HostileNode) -> None:
        for name, (request, expected) in frame_lies(hostile).items():
            self.attacks["frames that lie"] += 1
            became = outcome(await hostile.span(request))
            if became == "accepted":
                self.wrong.append(f"{name}: accepted, not {expected}")

    async def _raid(self, hostile: HostileNode) -> None:
        chosen = list(itertools.islice(self._frames, FRAMES))
        if not chosen:
            self._frames = raid.frames(SENDER)
            chosen = list(itertools.islice(self._frames, FRAMES))
        wire = self._wire(hostile)
        self.attacks["frames of the raid"] += await wire.send(chosen)
        await wire.flush()

    async def _send_garbage(self, hostile: HostileNode) -> None:
        frames = [
            Frame(f"up.{SENDER}.{channel}", body, f"_INBOX_{SENDER}.garbage") for channel in Channel for body in GARBAGE
        ]
        self.attacks["garbage"] += await self._wire(hostile).send(frames)

    async def _claim_terms(self, hostile: HostileNode) -> None:
        """Report a term that no centre has, and grants to another centre."""
        self.attacks["false terms"] += 1
        lie = LeaseRequest(TERM_FAR, granted_elsewhere=TERM_FAR, voters_version=(TERM_FAR, 1), unreplicated=True)
        await hostile.ask("lease", msgspec.msgpack.encode(lie))
        await hostile.ask("position", term=TERM_FAR)

    async def _forge_replies(self, hostile: HostileNode) -> None:
        request = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, "position", b""))
        replies = ("$JS.API.STREAM.DELETE.AUDIT", "audit.forged", "$KV.tokens.x", "_INBOX_4401.1")
        frames = [Frame(f"up.{SENDER}.{Channel.QUESTIONS}", request, reply) for reply in replies]
        self.attacks["forged replies"] += await self._wire(hostile).send(frames)

    async def _flood(self, hostile: HostileNode) -> None:
        """Send more at once than the quotas allow, and a connection with a wrong secret."""
        request = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, "report", b"x" * 5_000))
        frames = [
            Frame(f"up.{SENDER}.{channel}", request, f"_INBOX_{SENDER}.flood")
            for channel in (Channel.LIVE, Channel.BACKLOG, Channel.QUESTIONS)
        ]
        self.attacks["requests of floods"] += await self._wire(hostile).send(frames * FLOOD)

    @staticmethod
    def _wire(hostile: HostileNode) -> WireClient:
        assert isinstance(hostile.transport, WireTransport)
        return hostile.transport.wire


@contextlib.asynccontextmanager
async def raiding(raider: Raider) -> AsyncIterator[Raider]:
    """Have a hostile node attack while the body runs."""
    task = asyncio.create_task(raider.run(), name="raider")
    try:
        yield raider
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
