"""Device simulator: real MQTT connections, write-ahead intents, injected faults. A separate process.

`python -m sensegate.demo.simulator PLAN.json` reads commands as lines of JSON from standard input
(``{"rate": 500}``, ``{"burst": 3000, "node": "4401"}``, ``{"stop": true}``) and writes a status line twice a second.
It ends after `stop`, or when standard input ends, once everything is acknowledged or the drain time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TextIO, TypeVar

import msgspec
import uvloop

from sensegate.demo.faults import GoodMessage, Injection, Injector
from sensegate.demo.fleet import CLASSIFIED_GRADE, KINDS, MS, DeviceFrame, SimulatedDevice, measure
from sensegate.demo.intents import FORBIDDEN, REQUIRED, Intents, now
from sensegate.demo.mqtt import Backlog, Publisher, RefusedConnection

TICK_S = 0.01
WINDOW = 400
"""Greatest number of messages of one connection that await their PUBACK."""
TRIES = 24
"""Number of devices tried before a message is skipped."""
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.05, 1.0


class Broker(msgspec.Struct, frozen=True):
    """Address to which a node's devices connect."""

    host: str
    port: int


class SimulationPlan(msgspec.Struct, frozen=True):
    """Plan of the simulated devices. Holds credentials: stored with mode 0600."""

    run: str
    """8 hex digits, unique among runs on the same stores."""
    ledger: str
    """Path of the file of intents."""
    seed: int
    rate: float
    """Good messages per second of all nodes together; faults are added to it."""
    brokers: dict[str, Broker]
    devices: list[SimulatedDevice]
    faults: float = 1.0
    """Factor for the shares of all faults; 0: none."""
    drain_s: float = 60.0


@dataclass
class DeviceConnection:
    """Connection of one device (or gateway) with its unacknowledged messages."""

    username: str
    password: str = field(repr=False)
    broker: Broker
    intents: Intents
    rng: random.Random
    publisher: Publisher | None = None
    backlog: Backlog = field(default_factory=Backlog)
    refused: int = 0
    connections: int = 0
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.disconnected.set()

    @property
    def can_send(self) -> bool:
        """Return whether the next message may be sent."""
        publisher = self.publisher
        return publisher is not None and not self.backlog and publisher.can_send and len(publisher.in_flight) < WINDOW

    @property
    def unacknowledged(self) -> int:
        """Number of unacknowledged messages."""
        return len(self.backlog) + (len(self.publisher.in_flight) if self.publisher else 0)

    def send(self, rid: str, topic: bytes, payload: bytes) -> None:
        """Send a message whose intent is written."""
        if self.publisher is None:
            self.backlog.prepend([(rid, topic, payload)])
            return
        self.publisher.publish(rid, topic, payload)

    def _lost(self) -> None:
        if self.publisher:
            self.backlog.prepend(self.publisher.unacknowledged)
            self.publisher = None
        self.disconnected.set()

    async def stay_connected(self) -> None:
        """Stay connected until cancelled; after a reconnect resend unacknowledged messages in order."""
        wait_s = RECONNECT_MIN_S
        while True:
            await self.disconnected.wait()
            try:
                self.publisher = await Publisher.connect(
                    self.broker.host,
                    self.broker.port,
                    client_id=self.username,
                    username=self.username,
                    password=self.password,
                    acknowledged=self.intents.acknowledged,
                    lost=self._lost,
                )
            except RefusedConnection:
                self.refused += 1
            except OSError:
                pass
            else:
                self.disconnected.clear()
                self.connections += 1
                wait_s = RECONNECT_MIN_S
                await self._send_again()
                continue
            await asyncio.sleep(wait_s * self.rng.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RECONNECT_MAX_S)

    async def _send_again(self) -> None:
        while self.backlog and self.publisher:
            for _ in range(min(len(self.backlog), 100)):
                if len(self.publisher.in_flight) >= WINDOW:
                    break
                rid, topic, payload = self.backlog.pop()
                self.intents.resent(rid)
                self.publisher.publish(rid, topic, payload)
            self.intents.flush()
            await asyncio.sleep(TICK_S)


class Simulator:
    """All devices of a plan."""

    def __init__(self, plan: SimulationPlan, intents: Intents) -> None:
        self.plan = plan
        self.intents = intents
        self.rng = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        self.rate = plan.rate
        self.bursts: dict[str, int] = {}
        """Node (empty: all) -> number of messages to send at once, as fast as the sockets accept them."""
        self.bursts_sent = 0
        self.publish_status: Callable[[dict[str, object]], None] = lambda _: None
        """Called with the status twice a second, and immediately after a burst has been sent."""
        self.skipped = 0
        """Number of times a device could not send when its turn came."""
        self.sent = 0
        self.stopping = asyncio.Event()
        victims = {device.node: device for device in plan.devices if device.kind == "water"}
        self.injector = Injector(self.rng, share=plan.faults, peers=victims)
        self.lines = {
            device.username: DeviceConnection(
                device.username, device.password, plan.brokers[device.node], intents, self.rng
            )
            for device in plan.devices
        }
        self._counters: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._rotations = {node: self._rotation(node) for node in ("", *plan.brokers)}
        self._ready: deque[tuple[DeviceConnection, str, bytes, bytes]] = deque()

    def _rotation(self, node: str) -> Iterator[SimulatedDevice]:
        devices = [device for device in self.plan.devices if not node or device.node == node]
        while devices:
            self.rng.shuffle(devices)
            yield from list(devices)

    def _can_send(self, device: SimulatedDevice) -> bool:
        """Return whether a device may send now: its connection has room and its clock has advanced."""
        if not self.lines[device.username].can_send:
            self.skipped += 1
            return False
        step = KINDS[device.kind].resolution
        return step == MS or self._newest.get(device.id, 0) + 2 * step <= now()

    def _frame(self, device: SimulatedDevice) -> DeviceFrame:
        # Every other counter value and clock step is reserved for the injector.
        counter = self._counters[device.id] = self._counters.get(device.id, -2) + 2
        step = KINDS[device.kind].resolution
        at = max(now() // step * step, self._newest.get(device.id, 0) + (step if step == MS else 2 * step))
        self._newest[device.id] = at
        return DeviceFrame(device, at, measure(KINDS[device.kind], device, counter // 2), counter)

    def _next(self, node: str) -> None:
        """Record the intent of one good message, and of the fault after it."""
        device = next(
            (candidate for candidate in islice(self._rotations[node], TRIES) if self._can_send(candidate)), None
        )
        if device is None:
            return
        line = self.lines[device.username]
        frame = self._frame(device)
        topic, payload = KINDS[device.kind].encode(frame)
        need = FORBIDDEN if device.grade == CLASSIFIED_GRADE else REQUIRED
        rid = self.intents.intend("plain", device.node, device.id, frame.time, frame.values, requirement=need)
        self._ready.append((line, rid, topic.encode(), payload))
        if need is FORBIDDEN:
            return
        injection = self.injector.after(GoodMessage(rid, frame, topic, payload))
        if injection is not None:
            self._inject(line, injection)

    def _inject(self, line: DeviceConnection, injection: Injection) -> None:
        rid = self.intents.intend(
            injection.kind,
            injection.device.node,
            injection.victim or injection.device.id,
            injection.time,
            injection.values,
            requirement=injection.requirement,
            original_rid=injection.original_rid,
        )
        self._ready.append((line, rid, injection.topic.encode(), injection.payload))

    def tick(self, due: int) -> None:
        """Send `due` good messages and the requested bursts: first all intents to disk, then all messages."""
        for _ in range(due):
            self._next("")
        bursts, self.bursts = self.bursts, {}
        # In turns, so that bursts of several nodes are under way at the same time.
        for number in range(max(bursts.values(), default=0)):
            for node, count in bursts.items():
                if number < count:
                    self._next(node)
        self.intents.flush()
        self.sent += len(self._ready)
        while self._ready:
            line, rid, topic, payload = self._ready.popleft()
            line.send(rid, topic, payload)
        if bursts:
            self.bursts_sent += len(bursts)
            self.publish_status(self.status())

    async def run(self) -> None:
        """Send until `stopping` is set; then wait for unacknowledged messages."""
        self.intents.devices(device.id for device in self.plan.devices)
        connectors = [asyncio.create_task(line.stay_connected(), name=line.username) for line in self.lines.values()]
        try:
            await self._send()
            await self._drain()
        finally:
            for task in connectors:
                task.cancel()
            await asyncio.gather(*connectors, return_exceptions=True)
            self._give_up()
            for line in self.lines.values():
                if line.publisher:
                    line.publisher.close()
            self.intents.end()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        last, owed = loop.time(), 0.0
        while not self.stopping.is_set():
            at = loop.time()
            owed = min(owed + (at - last) * self.rate, self.rate)
            last = at
            due = int(owed)
            owed -= due
            self.tick(due)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), TICK_S)

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.plan.drain_s):
                while any(line.unacknowledged for line in self.lines.values()):
                    self.intents.flush()
                    await asyncio.sleep(TICK_S)
        self.intents.flush()

    def _give_up(self) -> None:
        for line in self.lines.values():
            if line.publisher:
                line.backlog.prepend(line.publisher.unacknowledged)
            while line.backlog:
                self.intents.give_up(line.backlog.pop()[0], "end of run")

    def status(self) -> dict[str, object]:
        """Return the present status."""
        return {
            "sent": self.sent,
            "owed": sum(line.unacknowledged for line in self.lines.values()),
            "held": self.skipped,
            "connected": sum(line.publisher is not None for line in self.lines.values()),
            "connections": len(self.lines),
            "refused_connections": sum(line.refused for line in self.lines.values()),
            "bursts": self.bursts_sent,
        }

    def command(self, text: str) -> None:
        """Execute one command line of JSON."""
        order = json.loads(text)
        if "rate" in order:
            self.rate = float(order["rate"])
        if "burst" in order:
            node = order.get("node", "")
            self.bursts[node] = self.bursts.get(node, 0) + int(order["burst"])
        if order.get("stop"):
            self.stopping.set()


class Commandable(Protocol):
    """A simulator that takes commands and has a status."""

    stopping: asyncio.Event
    publish_status: Callable[[dict[str, object]], None]

    def command(self, text: str) -> None:
        """Execute one command line of JSON."""
        ...

    def status(self) -> dict[str, object]:
        """Return the present status."""
        ...

    async def run(self) -> None:
        """Run the plan until stopped."""
        ...


async def read_commands(simulator: Commandable, reader: asyncio.StreamReader) -> None:
    """Execute commands until standard input ends, which also stops the simulator."""
    while line := await reader.readline():
        simulator.command(line.decode())
    simulator.stopping.set()


async def report(simulator: Commandable, out: TextIO) -> None:
    """Write the status twice a second, and whenever it is pushed."""

    def tell(status: dict[str, object]) -> None:
        out.write(json.dumps(status) + "\n")
        out.flush()

    simulator.publish_status = tell
    while True:
        tell(simulator.status())
        await asyncio.sleep(0.5)


async def simulate(simulator: Commandable) -> dict[str, object]:
    """Run a simulator under the commands of standard input; return its last status."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    helpers = [
        asyncio.create_task(read_commands(simulator, reader), name="obey"),
        asyncio.create_task(report(simulator, sys.stdout), name="report"),
    ]
    try:
        await simulator.run()
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
    return simulator.status()


class RunPlan(Protocol):
    """Members common to all plans."""

    @property
    def run(self) -> str:
        """Identifier of the run."""
        ...

    @property
    def ledger(self) -> str:
        """Path of the file of intents."""
        ...


_Plan = TypeVar("_Plan", bound=RunPlan)


def run_plan(form: type[_Plan], create: Callable[[_Plan, Intents], Commandable]) -> int:
    """Simulate the plan in the given file; return the exit code of this process."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=form)

    async def whole() -> dict[str, object]:
        return await simulate(create(plan, Intents(Path(plan.ledger), plan.run)))

    sys.stdout.write(json.dumps(uvloop.run(whole())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_plan(SimulationPlan, Simulator))
