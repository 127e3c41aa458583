"""The simulated cameras at work: GA/T 1400 with a digest, ONVIF by MQTT and by HTTP, their quirks, faults on purpose.

A process of its own, like `simulator.py`, with the same orders, the same kind of file for the judge and the same
status lines: `python -m sensegate.demo.cameras PLAN.json`. A third of the cameras speak each of the three ways; every
camera has quirks by its number: texts for numbers, other spellings of keys, GBK, one object without its list, local
times of several forms, names and pictures in its objects that must be nowhere in what comes out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import msgspec

from sensegate.demo.intents import FORBIDDEN, REQUIRED, Intents, now
from sensegate.demo.judge import MARK
from sensegate.demo.simulator import Broker, Line, carry_out
from sensegate.demo.viid import MEDIA, Connection, Manners, ViidCamera

SECOND = 1_000_000
ZONE_S = 8 * 3600
TICK_S = 0.02
TRIES = 24
RETRY_S = 0.5
OBSERVATION = "video_observation"
PICTURE = base64.b64encode(MARK.encode() * 300).decode()
VIID, ONVIF, PUSH = "viid", "onvif", "onvif_push"
WAYS = (VIID, ONVIF, PUSH)
PROFILES = {VIID: "sensegate/viid", ONVIF: "onvif/camera", PUSH: "onvif/camera"}
REDELIVERY, REPEAT, MALFORMED, UNKNOWN, PLAIN = "redelivery", "repeat", "malformed", "unknown_device", "plain"
FAULTS = (REDELIVERY, REPEAT, MALFORMED, UNKNOWN)
SHARE = 0.03
"""Of the good messages, how many are followed by a fault of each kind."""
COLORS = {1: "black", 2: "white", 3: "grey", 4: "red", 5: "blue", 6: "yellow"}

Values = list[tuple[str, object]]


class Watcher(msgspec.Struct, frozen=True):
    """One camera, as registered."""

    id: str
    node: str
    division: str
    way: str
    number: int
    password: str = ""


class Place(msgspec.Struct, frozen=True):
    """Where a node's cameras connect."""

    mqtt: Broker
    viid: Broker
    http: Broker


class CameraPlan(msgspec.Struct, frozen=True):
    """What to simulate. Holds credentials: kept 0600."""

    run: str
    ledger: str
    seed: int
    rate: float
    """Good messages a second, of all cameras together."""
    places: dict[str, Place]
    cameras: list[Watcher]
    faults: float = 1.0
    drain_s: float = 60.0


class Job(NamedTuple):
    """A message on its way: for each of its objects the name of its intent."""

    rids: tuple[str, ...]
    path: str
    """Of VIID the collection, of ONVIF by MQTT the topic."""
    body: bytes
    kind: str = PLAIN


def fleet(node: str, count: int, *, counties: Sequence[str], rng: random.Random, first: int = 0) -> list[Watcher]:
    """Return a node's cameras: codes of 20 digits in its division, without their passwords."""
    return [
        Watcher(f"{node}0000001190{number:06d}", node, rng.choice(counties), WAYS[number % len(WAYS)], number)
        for number in range(first, first + count)
    ]


# ── what they say ────────────────────────────────────────────────────────────────────────────────────


def local(at: int, form: int) -> str:
    """Return Beijing time of µs UTC, as cameras of some kind write it."""
    seconds = at // SECOND
    moment = time.gmtime(seconds + ZONE_S)
    match form % 3:
        case 1:
            return time.strftime("%Y-%m-%d %H:%M:%S", moment)
        case 2:
            return str(seconds * 1000)
        case _:
            return time.strftime("%Y%m%d%H%M%S", moment)


class Passage(NamedTuple):
    """One vehicle or person that is reported."""

    native: str
    fields: dict[str, Any]
    seen: dict[str, object]
    """What must be read of it."""
    speed: int = 0
    """km/h, of a vehicle: a reading of its lane."""
    lane: int = 0

    @property
    def values(self) -> Values:
        """All that must be read of it."""
        found: Values = [(OBSERVATION, self.seen)]
        return [*found, (f"vehicle_speed#lane{self.lane}", self.speed)] if self.speed else found


def passage(camera: Watcher, at: int, sequence: int, lane: int, kind: str = "MotorVehicle") -> Passage:
    """Return an object as it is sent, and what must come out; its name and plate must not."""
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(at // SECOND + ZONE_S))
    source = f"{camera.id}02{stamp}{sequence % 100_000:05d}"
    native = f"{source}{'02' if kind == 'MotorVehicle' else '01'}{lane:05d}"
    number: Callable[[int], object] = str if camera.number % 4 == 1 else int
    times = local(at, camera.number // 3)
    fields: dict[str, Any] = {
        f"{kind}ID": native,
        "InfoKind": number(1),
        "SourceID": source,
        "DeviceID": camera.id,
        "LeftTopX": number(192),
        "LeftTopY": number(108),
        "RightBtmX": number(960),
        "RightBtmY": number(540),
        "SubImageList": {
            "SubImageInfoObject": [
                {
                    "ImageID": source,
                    "Type": "14",
                    "FileFormat": "Jpeg",
                    "ShotTime": times,
                    "Width": number(1920),
                    "Height": number(1080),
                    "StoragePath": f"http://10.0.0.1/{MARK}.jpg",
                    **({"Data": PICTURE} if camera.number % 5 == 0 else {}),
                }
            ]
        },
    }
    seen: dict[str, object] = {"kind": "observation", "native_id": native, "box": [0.1, 0.1, 0.5, 0.5], "images": 1}
    if kind == "MotorVehicle":
        color, speed = sequence % 6 + 1, 18 * (sequence % 5 + 1)
        fields |= {
            "PassTime": times,
            "LaneNo": number(lane),
            "HasPlate": "1",
            "PlateNo": f"粤B{MARK}{sequence % 1000:03d}",
            "PlateColor": "5",
            "VehicleColor": str(color),
            "Speed": number(speed),
            "VehicleBrand": "",
        }
        seen |= {"object_class": "vehicle", "lane": lane, "color": COLORS[color], "speed": speed / 3.6}
        seen["speed"] = round(speed / 3.6, 3)
    else:
        fields |= {"PersonAppearTime": times, "Name": f"{MARK}-李雷", "IDNumber": f"{MARK}110101199003074219"}
        fields |= {"GenderCode": "1", "AgeUpLimit": 0, "AgeLowerLimit": 0}
        seen |= {"object_class": "person"}
    return Passage(native, fields, seen, speed if kind == "MotorVehicle" else 0, lane)


def enveloped(camera: Watcher, kind: str, objects: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Return a body; `odd`: as this camera does not write it else."""
    form = camera.number // 3 + odd
    held: object = list(objects)
    if len(objects) == 1 and form % 4 == 2:
        held = objects[0]
    whole: dict[str, Any] = {f"{kind}ListObject": {f"{kind}Object": held}}
    if form % 4 == 3:
        whole = _lower(whole)
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":") if form % 2 else None)
    return text.encode("gbk" if camera.number % 7 == 3 else "utf-8")


def _lower(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name[:1].lower() + name[1:]: _lower(value) for name, value in tree.items()}
    return [_lower(one) for one in tree] if isinstance(tree, list) else tree


def label(camera: Watcher, at: int, sequence: int) -> tuple[dict[str, Any], Values]:
    """Return what a camera counts, and the readings that must come of it."""
    people, vehicles, flow = sequence * 3 % 40, sequence * 7 % 25, 60 * (sequence % 20)
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(at // SECOND + ZONE_S))
    fields = {
        "VideoLabelID": f"{camera.id}02{stamp}{sequence % 100_000:05d}0700001",
        "DeviceID": camera.id,
        "EventSort": "14",
        "CreateTimeAbs": stamp,
        "PersonNum": people,
        "VehicleNum": str(vehicles),
        "VehicleFlowRate": flow,
    }
    return fields, [("people_present", people), ("vehicles_present", vehicles), ("traffic_flow", flow)]


def utc(at: int, *, naive: bool) -> str:
    """Return UTC, with or without the letter that says so."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // SECOND)) + ("" if naive else "Z")


def frame(camera: Watcher, sequence: int, count: int) -> tuple[list[dict[str, Any]], Values]:
    """Return objects of a frame with their sides as sent, and what must be read of each."""
    pixels = camera.number % 2 == 0
    things, values = [], Values()
    for one in range(count):
        left, top = 0.125 * (one % 4), 0.25
        box = [left, top, left + 0.25, top + 0.5]
        sides = (
            [box[0] * 640, (1 - box[1]) * 480, box[2] * 640, (1 - box[3]) * 480]
            if pixels
            else [box[0] * 2 - 1, 1 - box[1] * 2, box[2] * 2 - 1, 1 - box[3] * 2]
        )
        person = one % 2 == 1
        number = sequence * 10 + one
        things.append({"id": number, "sides": sides, "class": "Human" if person else "Vehicle", "person": person})
        seen = {
            "kind": "observation",
            "track": str(number),
            "object_class": "person" if person else "vehicle",
            "box": box,
        }
        values.append((OBSERVATION, {**seen, "confidence": 0.75}))
    return things, values


def in_json(camera: Watcher, at: int, things: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Return a frame as ``onvif-mj``."""
    text: Callable[[float], object] = str if (camera.number // 3) % 2 else float
    objects = []
    for one in things:
        left, top, right, bottom = map(text, one["sides"])
        looks: dict[str, Any] = {
            "Shape": {"BoundingBox": {"@left": left, "@top": top, "@right": right, "@bottom": bottom}},
            "Class": {"Type": {"@Likelihood": text(0.75), "#text": one["class"]}},
        }
        if one["person"]:
            looks["HumanFace"] = {"Gender": "Male", "acme:Name": MARK}
            looks["Image"] = PICTURE
        objects.append({"@ObjectId": one["id"], "Appearance": looks})
    held: dict[str, Any] = {"@UtcTime": utc(at, naive=camera.number % 4 < 2), "@Source": "Module1"}
    if camera.number % 2 == 0:
        held["Transformation"] = {"Translate": {"@x": -1, "@y": -1}, "Scale": {"@x": 2 / 640, "@y": 2 / 480}}
    held["Object"] = objects[0] if len(objects) == 1 else objects
    return json.dumps({"Frame": [held]}, indent=1 if odd else None).encode()


def in_xml(camera: Watcher, at: int, things: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Return a frame as ``tt:MetadataStream``."""
    mark, end = ("onvif", "\n") if odd else ("tt", "")
    objects = ""
    for one in things:
        names = ("left", "top", "right", "bottom")
        sides = " ".join(f"{name}={quoteattr(str(side))}" for name, side in zip(names, one["sides"], strict=True))
        person = f"<{mark}:Image>{PICTURE}</{mark}:Image>" if one["person"] else ""
        objects += (
            f'<{mark}:Object ObjectId="{one["id"]}"><{mark}:Appearance><{mark}:Shape><{mark}:BoundingBox {sides}/>'
            f'</{mark}:Shape><{mark}:Class><{mark}:Type Likelihood="0.75">{one["class"]}</{mark}:Type></{mark}:Class>'
            f"{person}</{mark}:Appearance></{mark}:Object>{end}"
        )
    change = ""
    if camera.number % 2 == 0:
        change = (
            f'<{mark}:Transformation><{mark}:Translate x="-1" y="-1"/><{mark}:Scale x="{2 / 640}" y="{2 / 480}"/>'
            f"</{mark}:Transformation>"
        )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><{mark}:MetadataStream xmlns:{mark}="http://www.onvif.org/ver10/schema">'
        f'<{mark}:VideoAnalytics><{mark}:Frame UtcTime="{utc(at, naive=camera.number % 4 < 2)}">{change}{objects}'
        f"</{mark}:Frame></{mark}:VideoAnalytics></{mark}:MetadataStream>"
    ).encode()


def alarm(at: int, sequence: int) -> tuple[bytes, Values]:
    """Return a motion alarm as ``onvif-ej``, which begins and ends in turn, and what must be read of it."""
    state = sequence % 2 == 0
    data = {"UtcTime": utc(at, naive=False), "Source": {"Source": "VideoSource_1"}, "Data": {"State": state}}
    event = {"kind": "event", "event": {"type": "motion", "state": state}}
    return json.dumps(data).encode(), [(OBSERVATION, event), ("motion", state)]


# ── how they send it ─────────────────────────────────────────────────────────────────────────────────


class Sender:
    """One camera's connection by HTTP, and what it still owes: one request at a time, again until it is answered."""

    def __init__(self, camera: Watcher, place: Place, intents: Intents, rng: random.Random) -> None:
        self.camera = camera
        self.jobs: deque[Job] = deque()
        self.unexpected = 0
        """Answers that are none of those that must come."""
        self._intents = intents
        self._rng = rng
        self._more = asyncio.Event()
        manners = Manners(
            absolute=camera.number % 2 == 1,
            quoted=camera.number % 4 == 3,
            media=MEDIA[camera.number // 3 % len(MEDIA)],
            lower=camera.number % 5 == 1,
        )
        self.viid = ViidCamera(camera.id, camera.password, place.viid.host, place.viid.port, manners)
        self._http = Connection(place.http.host, place.http.port)
        secret = base64.b64encode(f"{camera.id}:{camera.password}".encode()).decode()
        self._basic = f"Authorization: Basic {secret}\r\nContent-Type: application/xml\r\n"
        self.sent = False

    @property
    def room(self) -> bool:
        """True when the next message may be sent."""
        return len(self.jobs) < 4

    @property
    def connected(self) -> bool:
        """True when the camera is registered, or its last push was answered."""
        return self.viid.registered if self.camera.way == VIID else self.sent

    def send(self, job: Job) -> None:
        """Send a message whose intents are written."""
        self.jobs.append(job)
        self._more.set()

    async def run(self) -> None:
        """Send what there is, for ever."""
        if self.camera.way == VIID:
            await self._greet()
        while True:
            await self._more.wait()
            while self.jobs:
                job = self.jobs[0]
                try:
                    codes = await self._ask(job)
                except OSError:
                    codes = []
                if not codes:
                    for rid in job.rids:
                        self._intents.sent_again(rid)
                    await asyncio.sleep(self._rng.uniform(RETRY_S / 2, RETRY_S))
                    continue
                self.jobs.popleft()
                self._told(job, codes)
            self._more.clear()

    async def _greet(self) -> None:
        with contextlib.suppress(OSError):
            await self.viid.alive()

    async def _ask(self, job: Job) -> list[int]:
        """Return a code for each object of a message; none where it must be sent again."""
        if self.camera.way == PUSH:
            answer = await self._http.ask("POST", f"/onvif/{self.camera.id}", job.body, self._basic)
            self.sent = answer.status == 202
            return [0 if self.sent else answer.status] * len(job.rids) if answer.status < 429 else []
        answer = await self.viid.post(job.path, job.body)
        if answer.status in {429, 500, 503} or 2 in answer.codes:
            return []
        codes = answer.codes
        return codes if len(codes) == len(job.rids) else (codes or [answer.status])[:1] * len(job.rids)

    def _told(self, job: Job, codes: Sequence[int]) -> None:
        for rid, code in zip(job.rids, codes, strict=True):
            must_fail = job.kind in {MALFORMED, UNKNOWN} and self.camera.way == VIID
            self.unexpected += (code == 0) == must_fail
            self._intents.acknowledged(rid)

    async def close(self) -> None:
        """Leave."""
        if self.camera.way == VIID:
            await self.viid.leave()
        self._http.close()


class Cameras:
    """All cameras of a plan."""

    def __init__(self, plan: CameraPlan, intents: Intents) -> None:
        self.plan = plan
        self.intents = intents
        self.rng = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        self.rate = plan.rate
        self.sent = self.objects = self.held = 0
        self.stopping = asyncio.Event()
        self.tell: Callable[[dict[str, object]], None] = lambda _: None
        self._lines = {
            one.id: Line(one.id, one.password, plan.places[one.node].mqtt, intents, self.rng)
            for one in plan.cameras
            if one.way == ONVIF
        }
        self._senders = {
            one.id: Sender(one, plan.places[one.node], intents, self.rng) for one in plan.cameras if one.way != ONVIF
        }
        self._newest: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._due = [(kind, way) for kind in FAULTS for way in WAYS if _shows(way, kind)] if plan.faults else []
        """Each fault once by each way, first of all."""

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> None:
        """Note the intents of one good message, and of what goes wrong after it."""
        step = SECOND
        for camera in self.rng.sample(self.plan.cameras, min(TRIES, len(self.plan.cameras))):
            at = max(now() // step * step, self._newest.get(camera.id, 0) + step)
            if at <= now() and self._room(camera):
                break
        else:
            self.held += 1
            return
        self._newest[camera.id] = at
        sequence = self._count[camera.id] = self._count.get(camera.id, -1) + 1
        (self._objects if camera.way == VIID else self._frames)(camera, at, sequence)

    def _room(self, camera: Watcher) -> bool:
        line = self._lines.get(camera.id)
        return line.room if line is not None else self._senders[camera.id].room

    def _fault(self, way: str) -> str:
        """Return what goes wrong after this message, if anything."""
        for one in self._due:
            if one[1] == way:
                self._due.remove(one)
                return one[0]
        kind = self.rng.choice(FAULTS)
        return kind if self.rng.random() < SHARE * len(FAULTS) * self.plan.faults and _shows(way, kind) else ""

    def _objects(self, camera: Watcher, at: int, sequence: int) -> None:
        """Send vehicles, people or counts by GA/T 1400."""
        if sequence % 4 == 3:
            fields, values = label(camera, at, sequence)
            body = enveloped(camera, "VideoLabel", [fields], odd=False)
            self._put(camera, Job((self._intend(camera, at, values),), "VideoLabels", body))
            return
        kind = "Person" if sequence % 4 == 1 else "MotorVehicle"
        found = [passage(camera, at, sequence, lane, kind) for lane in range(1, self.rng.randint(2, 4))]
        rids = tuple(self._intend(camera, at, one.values) for one in found)
        fields_of = [one.fields for one in found]
        path = f"{kind}s"
        job = Job(rids, path, enveloped(camera, kind, fields_of, odd=False))
        self._put(camera, job)
        fault = self._fault(VIID)
        if fault == REPEAT and len(found) == 1:
            fault = REDELIVERY  # alone it would be the same message
        if fault in {REDELIVERY, REPEAT}:
            # Sent again in other spelling it is the same message: what is kept of it is byte for byte the same. An
            # object that comes again without those that it came with is a repeat.
            first = 1 if fault == REPEAT else 0
            again = tuple(
                self._intend(camera, at, one.values, kind=fault, of=rid)
                for one, rid in zip(found[first:], rids[first:], strict=True)
            )
            body = enveloped(camera, kind, fields_of[first:], odd=self.rng.random() < 0.5)
            self._put(camera, Job(again, path, body, fault))
        elif fault == MALFORMED:
            rid = self._intend(camera, at, [], kind=fault)
            self._put(camera, Job((rid,), path, job.body[: len(job.body) // 2], fault))
        elif fault == UNKNOWN:
            stranger = msgspec.structs.replace(camera, id=f"{camera.id[:14]}9{camera.id[15:]}")
            one = passage(stranger, at, sequence, 9, kind)
            rid = self._intend(camera, at, one.values, kind=fault, need=FORBIDDEN)
            self._put(camera, Job((rid,), path, enveloped(camera, kind, [one.fields], odd=False), fault))

    def _frames(self, camera: Watcher, at: int, sequence: int) -> None:
        """Send a frame or an alarm of ONVIF."""
        by_mqtt = camera.way == ONVIF
        if by_mqtt and sequence % 5 == 4:
            body, values = alarm(at, sequence // 5)
            topic = f"{camera.id}/onvif-ej/VideoSource/MotionAlarm/&VideoSource_1"
            self._put(camera, Job((self._intend(camera, at, values),), topic, body))
            return
        things, values = frame(camera, sequence, self.rng.randint(1, 4))
        write = in_json if by_mqtt else in_xml
        topic = f"{camera.id}/onvif-mj/VideoAnalytics/Profile1/Module1"
        rid = self._intend(camera, at, values)
        job = Job((rid,), topic, write(camera, at, things, odd=False))
        self._put(camera, job)
        fault = self._fault(camera.way)
        if fault == REDELIVERY:
            body = write(camera, at, things, odd=self.rng.random() < 0.5)
            self._put(camera, Job((self._intend(camera, at, values, kind=fault, of=rid),), topic, body, fault))
        elif fault == MALFORMED:
            broken = job.body[: len(job.body) // 2]
            self._put(camera, Job((self._intend(camera, at, [], kind=fault),), topic, broken, fault))

    def _intend(  # noqa: PLR0917
        self, camera: Watcher, at: int, values: Values, kind: str = PLAIN, of: str = "-", need: str = REQUIRED
    ) -> str:
        self.objects += len(values)
        return self.intents.intend(kind, camera.node, camera.id, at, values, need=need, of=of)

    def _put(self, camera: Watcher, job: Job) -> None:
        self.intents.flush()
        self.sent += 1
        if (line := self._lines.get(camera.id)) is not None:
            line.send(job.rids[0], job.path.encode(), job.body)
        else:
            self._senders[camera.id].send(job)

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send until `stopping` is set; then wait for what is not answered."""
        self.intents.devices((one.id for one in self.plan.cameras), cameras=True)
        tasks = [asyncio.create_task(line.stay_connected(), name=name) for name, line in self._lines.items()]
        tasks += [asyncio.create_task(one.run(), name=name) for name, one in self._senders.items()]
        try:
            await self._send()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.plan.drain_s):
                    while self._owed():
                        self.intents.flush()
                        await asyncio.sleep(TICK_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._give_up()
            await asyncio.gather(*(one.close() for one in self._senders.values()), return_exceptions=True)
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

    def _owed(self) -> int:
        return sum(line.owed for line in self._lines.values()) + sum(len(one.jobs) for one in self._senders.values())

    def _give_up(self) -> None:
        for line in self._lines.values():
            if line.publisher:
                line.backlog.keep(line.publisher.unacknowledged)
                line.publisher.close()
            while line.backlog:
                self.intents.given_up(line.backlog.take()[0], "end of run")
        for one in self._senders.values():
            for job in one.jobs:
                for rid in job.rids:
                    self.intents.given_up(rid, "end of run")

    def status(self) -> dict[str, object]:
        """Return where things stand."""
        lines, senders = self._lines.values(), self._senders.values()
        return {
            "sent": self.sent,
            "objects": self.objects,
            "owed": self._owed(),
            "held": self.held,
            "connected": sum(one.publisher is not None for one in lines) + sum(one.connected for one in senders),
            "connections": len(self.plan.cameras),
            "registrations": sum(one.viid.registrations for one in senders),
            "unexpected": sum(one.unexpected for one in senders),
        }

    def command(self, text: str) -> None:
        """Obey one line of JSON."""
        order = json.loads(text)
        if "rate" in order:
            self.rate = float(order["rate"])
        if order.get("stop"):
            self.stopping.set()


def _shows(way: str, kind: str) -> bool:
    """Return whether cameras of a way can show a fault."""
    return kind not in {UNKNOWN, REPEAT} or way == VIID


if __name__ == "__main__":
    sys.exit(carry_out(CameraPlan, Cameras))
