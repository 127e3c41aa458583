"""Camera simulator: GA/T 1400 with digest authentication, ONVIF by MQTT and HTTP, vendor quirks, injected faults.

A separate process like `simulator`, with the same commands, the same kind of file for the judge and the same status
lines: `python -m sensegate.demo.cameras PLAN.json`. A third of the cameras use each transport; every camera has quirks
by its number: strings for numbers, other spellings of keys, GBK, a single object without its list, local times of
several forms, and names and pictures that must not appear anywhere in the output.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from sensegate.demo.camera_messages import (
    SECOND,
    SimulatedCamera,
    Values,
    encode_envelope,
    encode_json_frame,
    encode_xml_frame,
    motion_alarm,
    onvif_frame,
    reported_object,
    video_label,
)
from sensegate.demo.intents import FORBIDDEN, REQUIRED, Intents, now
from sensegate.demo.simulator import Broker, DeviceConnection, run_plan
from sensegate.demo.viid_camera import MEDIA, HttpConnection, HttpStyle, ViidCamera

TICK_S = 0.02
TRIES = 24
RETRY_S = 0.5
VIID, ONVIF, PUSH = "viid", "onvif", "onvif_push"
TRANSPORTS = (VIID, ONVIF, PUSH)
PROFILES = {VIID: "sensegate/viid", ONVIF: "onvif/camera", PUSH: "onvif/camera"}
REDELIVERY, REPEAT, MALFORMED, UNKNOWN, PLAIN = "redelivery", "repeat", "malformed", "unknown_device", "plain"
FAULTS = (REDELIVERY, REPEAT, MALFORMED, UNKNOWN)
FAULT_SHARE = 0.03
"""Share of the good messages that are followed by a fault of each kind."""


class CameraEndpoints(msgspec.Struct, frozen=True):
    """Addresses to which a node's cameras connect."""

    mqtt: Broker
    viid: Broker
    http: Broker


class CameraPlan(msgspec.Struct, frozen=True):
    """Plan of the simulated cameras. Holds credentials: stored with mode 0600."""

    run: str
    ledger: str
    seed: int
    rate: float
    """Good messages per second of all cameras together."""
    places: dict[str, CameraEndpoints]
    cameras: list[SimulatedCamera]
    faults: float = 1.0
    drain_s: float = 60.0


class CameraMessage(NamedTuple):
    """A message under way, with the intent of each of its objects."""

    rids: tuple[str, ...]
    path: str
    """Collection for VIID, topic for ONVIF by MQTT."""
    body: bytes
    kind: str = PLAIN


def fleet(
    node: str, count: int, *, counties: Sequence[str], rng: random.Random, first: int = 0
) -> list[SimulatedCamera]:
    """Return a node's cameras: codes of 20 digits in its division, without passwords."""
    return [
        SimulatedCamera(
            f"{node}0000001190{number:06d}", node, rng.choice(counties), TRANSPORTS[number % len(TRANSPORTS)], number
        )
        for number in range(first, first + count)
    ]


# ── sending ─────────────────────────────────────────────────────────────────────────────────


class HttpCamera:
    """HTTP connection of one camera with its pending messages: one request at a time, repeated until answered."""

    def __init__(self, camera: SimulatedCamera, place: CameraEndpoints, intents: Intents, rng: random.Random) -> None:
        self.camera = camera
        self.pending: deque[CameraMessage] = deque()
        self.unexpected = 0
        """Number of answers other than the expected ones."""
        self._intents = intents
        self._rng = rng
        self._more = asyncio.Event()
        manners = HttpStyle(
            absolute=camera.number % 2 == 1,
            quoted=camera.number % 4 == 3,
            media=MEDIA[camera.number // 3 % len(MEDIA)],
            lower=camera.number % 5 == 1,
        )
        self.viid = ViidCamera(camera.id, camera.password, place.viid.host, place.viid.port, manners)
        self._http = HttpConnection(place.http.host, place.http.port)
        secret = base64.b64encode(f"{camera.id}:{camera.password}".encode()).decode()
        self._basic = f"Authorization: Basic {secret}\r\nContent-Type: application/xml\r\n"
        self.sent = False

    @property
    def can_send(self) -> bool:
        """Return whether the next message may be sent."""
        return len(self.pending) < 4

    @property
    def connected(self) -> bool:
        """Return whether the camera is registered, or its last push was answered."""
        return self.viid.registered if self.camera.transport == VIID else self.sent

    def send(self, job: CameraMessage) -> None:
        """Queue a message whose intents are written."""
        self.pending.append(job)
        self._more.set()

    async def run(self) -> None:
        """Send queued messages until cancelled."""
        if self.camera.transport == VIID:
            await self._keep_alive()
        while True:
            await self._more.wait()
            while self.pending:
                job = self.pending[0]
                try:
                    codes = await self._send(job)
                except OSError:
                    codes = []
                if not codes:
                    for rid in job.rids:
                        self._intents.resent(rid)
                    await asyncio.sleep(self._rng.uniform(RETRY_S / 2, RETRY_S))
                    continue
                self.pending.popleft()
                self._acknowledge(job, codes)
            self._more.clear()

    async def _keep_alive(self) -> None:
        with contextlib.suppress(OSError):
            await self.viid.keep_alive()

    async def _send(self, job: CameraMessage) -> list[int]:
        """Return a code for each object of a message; none if it must be sent again."""
        if self.camera.transport == PUSH:
            answer = await self._http.request("POST", f"/onvif/{self.camera.id}", job.body, self._basic)
            self.sent = answer.status == 202
            return [0 if self.sent else answer.status] * len(job.rids) if answer.status < 429 else []
        answer = await self.viid.post(job.path, job.body)
        if answer.status in {429, 500, 503} or 2 in answer.codes:
            return []
        codes = answer.codes
        return codes if len(codes) == len(job.rids) else (codes or [answer.status])[:1] * len(job.rids)

    def _acknowledge(self, job: CameraMessage, codes: Sequence[int]) -> None:
        for rid, code in zip(job.rids, codes, strict=True):
            must_fail = job.kind in {MALFORMED, UNKNOWN} and self.camera.transport == VIID
            self.unexpected += (code == 0) == must_fail
            self._intents.acknowledged(rid)

    async def close(self) -> None:
        """Unregister and close."""
        if self.camera.transport == VIID:
            await self.viid.unregister()
        self._http.close()


class CameraSimulator:
    """All cameras of a plan."""

    def __init__(self, plan: CameraPlan, intents: Intents) -> None:
        self.plan = plan
        self.intents = intents
        self.rng = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        self.rate = plan.rate
        self.sent = self.objects = self.skipped = 0
        self.stopping = asyncio.Event()
        self.publish_status: Callable[[dict[str, object]], None] = lambda _: None
        self._connections = {
            camera.id: DeviceConnection(camera.id, camera.password, plan.places[camera.node].mqtt, intents, self.rng)
            for camera in plan.cameras
            if camera.transport == ONVIF
        }
        self._http_cameras = {
            camera.id: HttpCamera(camera, plan.places[camera.node], intents, self.rng)
            for camera in plan.cameras
            if camera.transport != ONVIF
        }
        self._newest: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._first_faults = (
            [(kind, transport) for kind in FAULTS for transport in TRANSPORTS if _can_show(transport, kind)]
            if plan.faults
            else []
        )
        """First faults to send: each once per transport."""

    # ── message choice ─────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> None:
        """Record the intents of one good message, and of the fault after it."""
        step = SECOND
        for camera in self.rng.sample(self.plan.cameras, min(TRIES, len(self.plan.cameras))):
            at = max(now() // step * step, self._newest.get(camera.id, 0) + step)
            if at <= now() and self._can_send(camera):
                break
        else:
            self.skipped += 1
            return
        self._newest[camera.id] = at
        sequence = self._count[camera.id] = self._count.get(camera.id, -1) + 1
        (self._send_objects if camera.transport == VIID else self._send_frame)(camera, at, sequence)

    def _can_send(self, camera: SimulatedCamera) -> bool:
        line = self._connections.get(camera.id)
        return line.can_send if line is not None else self._http_cameras[camera.id].can_send

    def _fault(self, transport: str) -> str:
        """Return the fault after this message, or an empty string."""
        for due in self._first_faults:
            if due[1] == transport:
                self._first_faults.remove(due)
                return due[0]
        kind = self.rng.choice(FAULTS)
        return (
            kind
            if self.rng.random() < FAULT_SHARE * len(FAULTS) * self.plan.faults and _can_show(transport, kind)
            else ""
        )

    def _send_objects(self, camera: SimulatedCamera, at: int, sequence: int) -> None:
        """Send vehicles, people or counts by GA/T 1400."""
        if sequence % 4 == 3:
            fields, values = video_label(camera, at, sequence)
            body = encode_envelope(camera, "VideoLabel", [fields], odd=False)
            self._enqueue(camera, CameraMessage((self._intend(camera, at, values),), "VideoLabels", body))
            return
        kind = "Person" if sequence % 4 == 1 else "MotorVehicle"
        passages = [reported_object(camera, at, sequence, lane, kind) for lane in range(1, self.rng.randint(2, 4))]
        rids = tuple(self._intend(camera, at, passage_.values) for passage_ in passages)
        fields_of = [passage_.fields for passage_ in passages]
        path = f"{kind}s"
        job = CameraMessage(rids, path, encode_envelope(camera, kind, fields_of, odd=False))
        self._enqueue(camera, job)
        fault = self._fault(VIID)
        if fault == REPEAT and len(passages) == 1:
            fault = REDELIVERY  # a single object would be the same message
        if fault in {REDELIVERY, REPEAT}:
            # In another spelling it is the same message: its redacted form is identical byte for byte. An object that
            # comes without those that accompanied it is a repeat.
            first = 1 if fault == REPEAT else 0
            repeated_rids = tuple(
                self._intend(camera, at, passage_.values, kind=fault, original_rid=rid)
                for passage_, rid in zip(passages[first:], rids[first:], strict=True)
            )
            body = encode_envelope(camera, kind, fields_of[first:], odd=self.rng.random() < 0.5)
            self._enqueue(camera, CameraMessage(repeated_rids, path, body, fault))
        elif fault == MALFORMED:
            rid = self._intend(camera, at, [], kind=fault)
            self._enqueue(camera, CameraMessage((rid,), path, job.body[: len(job.body) // 2], fault))
        elif fault == UNKNOWN:
            stranger = msgspec.structs.replace(camera, id=f"{camera.id[:14]}9{camera.id[15:]}")
            stranger_passage = reported_object(stranger, at, sequence, 9, kind)
            rid = self._intend(camera, at, stranger_passage.values, kind=fault, requirement=FORBIDDEN)
            self._enqueue(
                camera,
                CameraMessage((rid,), path, encode_envelope(camera, kind, [stranger_passage.fields], odd=False), fault),
            )

    def _send_frame(self, camera: SimulatedCamera, at: int, sequence: int) -> None:
        """Send an ONVIF frame or alarm."""
        by_mqtt = camera.transport == ONVIF
        if by_mqtt and sequence % 5 == 4:
            body, values = motion_alarm(at, sequence // 5)
            topic = f"{camera.id}/onvif-ej/VideoSource/MotionAlarm/&VideoSource_1"
            self._enqueue(camera, CameraMessage((self._intend(camera, at, values),), topic, body))
            return
        things, values = onvif_frame(camera, sequence, self.rng.randint(1, 4))
        write = encode_json_frame if by_mqtt else encode_xml_frame
        topic = f"{camera.id}/onvif-mj/VideoAnalytics/Profile1/Module1"
        rid = self._intend(camera, at, values)
        job = CameraMessage((rid,), topic, write(camera, at, things, odd=False))
        self._enqueue(camera, job)
        fault = self._fault(camera.transport)
        if fault == REDELIVERY:
            body = write(camera, at, things, odd=self.rng.random() < 0.5)
            self._enqueue(
                camera,
                CameraMessage((self._intend(camera, at, values, kind=fault, original_rid=rid),), topic, body, fault),
            )
        elif fault == MALFORMED:
            broken = job.body[: len(job.body) // 2]
            self._enqueue(camera, CameraMessage((self._intend(camera, at, [], kind=fault),), topic, broken, fault))

    def _intend(
        self,
        camera: SimulatedCamera,
        at: int,
        values: Values,
        kind: str = PLAIN,
        original_rid: str = "-",
        requirement: str = REQUIRED,
    ) -> str:
        self.objects += len(values)
        return self.intents.intend(
            kind, camera.node, camera.id, at, values, requirement=requirement, original_rid=original_rid
        )

    def _enqueue(self, camera: SimulatedCamera, job: CameraMessage) -> None:
        self.intents.flush()
        self.sent += 1
        if (line := self._connections.get(camera.id)) is not None:
            line.send(job.rids[0], job.path.encode(), job.body)
        else:
            self._http_cameras[camera.id].send(job)

    # ── run ──────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send until `stopping` is set; then wait for unanswered messages."""
        self.intents.devices((camera.id for camera in self.plan.cameras), cameras=True)
        tasks = [asyncio.create_task(line.stay_connected(), name=name) for name, line in self._connections.items()]
        tasks += [asyncio.create_task(sender.run(), name=name) for name, sender in self._http_cameras.items()]
        try:
            await self._send()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.plan.drain_s):
                    while self._unacknowledged():
                        self.intents.flush()
                        await asyncio.sleep(TICK_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._give_up()
            await asyncio.gather(*(sender.close() for sender in self._http_cameras.values()), return_exceptions=True)
            self.intents.end()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        last, owed = loop.time(), 0.0
        while not self.stopping.is_set():
            at = loop.time()
            owed = min(owed + (at - last) * self.rate, self.rate)
            last = at
            for _ in range(int(owed)):
                self._next()
            owed -= int(owed)
            self.intents.flush()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), TICK_S)

    def _unacknowledged(self) -> int:
        return sum(line.unacknowledged for line in self._connections.values()) + sum(
            len(sender.pending) for sender in self._http_cameras.values()
        )

    def _give_up(self) -> None:
        for line in self._connections.values():
            if line.publisher:
                line.backlog.prepend(line.publisher.unacknowledged)
                line.publisher.close()
            while line.backlog:
                self.intents.give_up(line.backlog.pop()[0], "end of run")
        for sender in self._http_cameras.values():
            for job in sender.pending:
                for rid in job.rids:
                    self.intents.give_up(rid, "end of run")

    def status(self) -> dict[str, object]:
        """Return the present status."""
        lines, senders = self._connections.values(), self._http_cameras.values()
        return {
            "sent": self.sent,
            "objects": self.objects,
            "owed": self._unacknowledged(),
            "held": self.skipped,
            "connected": sum(connection.publisher is not None for connection in lines)
            + sum(sender.connected for sender in senders),
            "connections": len(self.plan.cameras),
            "registrations": sum(sender.viid.registrations for sender in senders),
            "unexpected": sum(sender.unexpected for sender in senders),
        }

    def command(self, text: str) -> None:
        """Obey one line of JSON."""
        order = json.loads(text)
        if "rate" in order:
            self.rate = float(order["rate"])
        if order.get("stop"):
            self.stopping.set()


def _can_show(transport: str, kind: str) -> bool:
    """Return whether cameras of a way can show a fault."""
    return kind not in {UNKNOWN, REPEAT} or transport == VIID


if __name__ == "__main__":
    sys.exit(run_plan(CameraPlan, CameraSimulator))
