"""One node that floods its centre, as a process of its own: ``python -m tests.border.flooder PLAN``.

The plan is JSON on the command line; a line of JSON with what came back is written at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path

import msgspec

from sensegate.tiers import envelope
from sensegate.tiers.envelope import PROTOCOL_VERSIONS, LinkRequest
from tests.border.wire import Frame, WireClient

ROOT = Path(__file__).parents[2]
IN_FLIGHT = 200
"""Frames between two looks at what came back."""
CONNECTING = 8
"""Connections that are opened at once, again and again."""
SPAN_BYTES = 5_000
FRAME_BYTES = 1_000_000
END_S = 20.0
LONGEST_S = 20.0
"""A machine may be so busy that a second of flooding reaches no quota."""


class Kind(StrEnum):
    """What a node floods with."""

    SPANS = "spans"
    QUESTIONS = "questions"
    CONNECTS = "connects"
    CREDENTIALS = "bad credentials"
    FRAMES = "1 MiB frames"


class Plan(msgspec.Struct, frozen=True):
    """What the process is to do."""

    kind: Kind
    port: int
    slot: str
    secret: str
    seconds: float
    question: str = "report"
    until_bounded: bool = False
    """Whether to go on after `seconds` until a line comes and the flood is bounded, for `LONGEST_S` at most."""
    nice: int = 0
    """Priority given up; with most of it the process takes little from those who share the machine with it."""


class Flooded(msgspec.Struct):
    """What came of it."""

    sent: int = 0
    """Frames, or connections that were tried."""
    taken: int = 0
    """Requests that were answered, or connections that were let in."""
    asked_to_wait: int = 0
    """Requests that were answered with a pause."""
    unheard: int = 0
    """Requests that met no subscription of the centre."""
    refused: int = 0
    """Connections that were not let in, and requests that were refused."""


def is_bounded(kind: Kind, flooded: Flooded) -> bool:
    """Return whether the flooding node was served up to its quota, and told of it."""
    if kind is Kind.CONNECTS:
        return flooded.taken > 0
    if kind is Kind.CREDENTIALS:
        return flooded.refused > 0 and flooded.taken == 0
    return flooded.taken > 0 and flooded.asked_to_wait > 0


def request(plan: Plan) -> Frame:
    """Return what is sent again and again."""
    channel, size = {
        Kind.SPANS: ("live", SPAN_BYTES),
        Kind.QUESTIONS: ("ask", 10),
        Kind.FRAMES: ("backlog", FRAME_BYTES),
    }[plan.kind]
    body = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, plan.question, b"x" * size))
    return Frame(f"up.{plan.slot}.{channel}", body, f"_INBOX_{plan.slot}.flood")


def note(flooded: Flooded, client: WireClient) -> None:
    """Count what came back, and forget it."""
    for message in client.received:
        if not message.is_answer:
            flooded.unheard += 1
            continue
        answer = envelope.decode_answer(message.payload)
        if answer.retry_after_s:
            flooded.asked_to_wait += 1
        elif answer.refusal:
            flooded.refused += 1
        else:
            flooded.taken += 1
    client.received.clear()


async def requests(plan: Plan, flooded: Flooded) -> None:
    """Send requests until cancelled, as fast as the server takes them."""
    frame = request(plan)
    burst = max(1, IN_FLIGHT * SPAN_BYTES // max(SPAN_BYTES, len(frame.payload)))
    while True:
        with contextlib.suppress(OSError):
            async with WireClient(plan.port, f"node-{plan.slot}", plan.secret) as client:
                await client.subscribe(f"_INBOX_{plan.slot}.>")
                while await client.flush():
                    flooded.sent += await client.send([frame] * burst)
                    note(flooded, client)
        await asyncio.sleep(0)


async def connects(plan: Plan, flooded: Flooded, secret: str) -> None:
    """Connect and hang up until cancelled."""
    while True:
        flooded.sent += 1
        try:
            async with WireClient(plan.port, f"node-{plan.slot}", secret) as client:
                admitted = await client.admitted()
        except (OSError, TimeoutError):
            admitted = False
        flooded.taken += admitted
        flooded.refused += not admitted


async def flood(plan: Plan) -> Flooded:
    """Flood for the time of the plan; return what came of it."""
    flooded = Flooded()
    secret = plan.secret if plan.kind is Kind.CONNECTS else "not the secret"
    work = (
        [connects(plan, flooded, secret) for _ in range(CONNECTING)]
        if plan.kind in {Kind.CONNECTS, Kind.CREDENTIALS}
        else [requests(plan, flooded)]
    )
    floods = asyncio.gather(*work)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(plan.seconds):
            await asyncio.shield(floods)
    if plan.until_bounded:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                await asyncio.to_thread(sys.stdin.readline)
                while not is_bounded(plan.kind, flooded):
                    await asyncio.sleep(0.02)
    floods.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await floods
    return flooded


@contextlib.asynccontextmanager
async def flooding(plan: Plan, enough: asyncio.Event | None = None) -> AsyncIterator[asyncio.Task[Flooded]]:
    """Have a process flood; yield once it has begun. What came of it is the task's result.

    `enough`: of a plan with `until_bounded`: set when the flood may end.
    """
    command = (sys.executable, "-m", "tests.border.flooder", msgspec.json.encode(plan).decode())
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    to_child = child.stdin
    out = child.stdout
    assert await out.readline() == b"begun\n"

    async def result() -> Flooded:
        if enough is not None:
            await enough.wait()
            to_child.write(b"enough\n")
        return msgspec.json.decode(await out.readline(), type=Flooded)

    task = asyncio.create_task(result(), name=f"flood of {plan.kind}")
    try:
        yield task
        async with asyncio.timeout(plan.seconds + (LONGEST_S if plan.until_bounded else 0) + END_S):
            await task
    finally:
        task.cancel()
        if child.returncode is None:
            child.kill()
        await child.wait()


async def main() -> None:
    """Flood as the command line says."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    os.nice(plan.nice)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdout.write(msgspec.json.encode(await flood(plan)).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main())
