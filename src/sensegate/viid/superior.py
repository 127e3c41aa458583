"""A platform above by GA/T 1400: registration, keep-alive, our catalogue, and notifications of its subscriptions.

Each subscription goes on from its own place on the log, which moves only when a notification was taken: after a crash
of either side a notification is sent once more, with the same id and the same objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.decoding import decoder
from sensegate.bus.names import OBSERVATIONS
from sensegate.bus.unreadable import read_rows, read_subject
from sensegate.clock import Clock
from sensegate.config.viid import ViidSuperiorConfig
from sensegate.errors import PermissionDenied, SensegateError, Unavailable, combined
from sensegate.model import OBSERVATION, Entry
from sensegate.ports import Log
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_codes import CATALOGUE
from sensegate.video.formats.viid_records import CatalogueRecord as Listed
from sensegate.video.formats.viid_subscriptions import ViidSubscription
from sensegate.video.formats.viid_write import ViidObject, to_viid_object, with_peer_camera
from sensegate.video.observation import VideoObservation
from sensegate.viid.catalogue import Catalogue
from sensegate.viid.catalogue import written as entry_written
from sensegate.viid.client import TooLarge, ViidClient
from sensegate.viid.subscriptions import Orders, Place

PATH: Final = "/VIID/SubscribeNotifications"
FETCH_ENTRIES: Final = 500
POLL_S: Final = 2.0
SETTLE_S: Final = 0.02
"""Between notifications that are not full, so that objects gather."""
KEEP_S: Final = 10.0
"""So often a place is kept that moved past what nobody asked for."""
TRIES_MAX: Final = 4
"""So often a notification is sent whose content the other side does not want; then it is left out and counted."""
_LISTS: Final = {"APE": "DeviceList", "APEStatus": "DeviceStatusList"}
_log = structlog.get_logger("viid")
_decode = decoder(VideoObservation, "observation", json=True)

CodeOf = Callable[[str, str], str]
"""(device id, camera as the observation names it) -> the camera's code; empty where it has none."""


class _Part(NamedTuple):
    """What goes with one notification, and where the log stands behind it."""

    objects: list[ViidObject]
    place: Place
    full: bool
    at: int
    """When the last of its entries was stored, µs UTC: the same at each attempt, as is all of it."""


class Superior:
    """The way to one platform above; `run` until cancelled."""

    def __init__(
        self,
        config: ViidSuperiorConfig,
        client: ViidClient,
        *,
        orders: Orders,
        log: Log,
        catalogue: Catalogue,
        clock: Clock,
        code_of: CodeOf,
        roll: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`roll`: gives a random number between two, for the jitter."""
        self.config = config
        self._client = client
        self._orders = orders
        self._source = log
        self._catalogue = catalogue
        self._clock = clock
        self._code_of = code_of
        self._roll = roll
        self._there = dict(pair.split("=", 1) for pair in config.id_map)
        self._told: set[str] = set()
        """Cameras of which it knows since the registration."""
        self._lost = asyncio.Event()
        self._batch = config.batch_max
        self.addresses: frozenset[str] = frozenset()
        """Where it may ask from: it subscribes under its code alone."""
        self.registered = False
        self.trouble = "starting"

    # ── registration ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Register, serve, and register again whenever that ends."""
        attempt = 0
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    await self._life()
                except SensegateError as why:
                    if self.registered or attempt == 0:
                        _log.warning("VIID: a platform above is not reached", name=self.config.name, why=str(why))
                    self.trouble = str(why)
                finally:
                    self.registered = False
                attempt = 0 if self._clock.monotonic() - began > 60 else min(attempt + 1, 16)
                most = min(self.config.backoff_max_s, 0.25 * 2**attempt)
                metrics.RESTARTS.labels("viid superior").inc()
                await self._clock.sleep(self._roll(most / 2, most))
        finally:
            if self.trouble == "":
                with contextlib.suppress(SensegateError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._client.unregister()
            await self._client.close()

    async def _life(self) -> None:
        self._lost.clear()
        self._told.clear()
        self.addresses = await self._client.addresses()
        await self._client.register()
        self.registered, self.trouble = True, ""
        _log.info("VIID: registered above", name=self.config.name)
        try:
            async with asyncio.TaskGroup() as group:
                if self.config.catalogue:
                    await self._send_catalogue()
                group.create_task(self._keep_alive(), name=f"viid alive {self.config.name}")
                group.create_task(self._serve(), name=f"viid orders {self.config.name}")
        except* SensegateError as several:
            raise combined(several) from None

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(self._roll(0.8, 1.0) * self.config.keepalive_s)
            await self._client.keepalive()

    async def _send_catalogue(self) -> None:
        """Tell our cameras and tollgates."""
        cameras = self._catalogue.cameras()
        for kind, path, entries in (
            ("APE", "/VIID/APEs", cameras),
            ("Tollgate", "/VIID/Tollgates", self._catalogue.of("Tollgate")),
            ("Lane", "/VIID/Lanes", self._catalogue.of("Lane")),
        ):
            for start in range(0, len(entries), 500):
                await self._tell(kind, path, entries[start : start + 500])

    async def _tell(self, kind: str, path: str, entries: Sequence[Listed]) -> None:
        """Tell entries of a catalogue; a platform need not take them, and is not asked again in this registration."""
        objects = [self._entry(entry) for entry in entries]
        self._told.update(self._code_there(record.id) for record in entries)
        try:
            told = await self._client.send("POST", path, {f"{kind}ListObject": {f"{kind}Object": objects}})
        except (Unavailable, PermissionDenied) as why:  # what is lost is noticed by the next sign of life
            _log.info("VIID: a catalogue is not taken", name=self.config.name, kind=kind, why=str(why))
            return
        if bad := [item for item in told if item.code != answers.OK]:
            _log.info(
                "VIID: a catalogue is not taken", name=self.config.name, kind=kind, code=bad[0].code, of=len(told)
            )

    def _entry(self, entry: Listed) -> dict[str, Any]:
        told = entry_written(entry, online=self._catalogue.online(entry))
        for name in ("ApeID", "TollgateID", "OwnerApsID"):
            if name in told:
                told[name] = self._code_there(told[name])
        return told

    def _code_there(self, code: str) -> str:
        there = self._there.get(code[: ids.DEVICE])
        return code if there is None else there + code[ids.DEVICE :]

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        """Serve each subscription by a task of its own; one that ends is cancelled at once."""
        peer = self.config.server_id
        changed = self._orders.changed(peer)
        tasks: dict[str, tuple[ViidSubscription, asyncio.Task[None]]] = {}
        try:
            while True:
                changed.clear()
                now = self._clock.now()
                wanted = {order.id: order for order in self._orders.of(peer) if order.is_active(now)}
                for name, (order, task) in list(tasks.items()):
                    if task.done():
                        await task  # raises why
                    if wanted.get(name) != order:
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                        del tasks[name]
                for name, order in wanted.items():
                    if name not in tasks:
                        task = asyncio.create_task(self._feed(order), name=f"viid {self.config.name} {name}")
                        tasks[name] = (order, task)
                await self._until(changed, [task for _, task in tasks.values()])
        finally:
            for _, task in tasks.values():
                task.cancel()
            await asyncio.gather(*(task for _, task in tasks.values()), return_exceptions=True)

    @staticmethod
    async def _until(changed: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Wait until a subscription changed, a task ended, or it is time to look whether one has expired."""
        wait = asyncio.ensure_future(changed.wait())
        try:
            await asyncio.wait({wait, *tasks}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.cancel()

    async def _feed(self, order: ViidSubscription) -> None:
        lists: dict[str, dict[str, Any]] = {}
        place = self._orders.served(order)
        looked = kept = float("-inf")
        while self._holds(order):
            now = self._clock.monotonic()
            if now - looked >= self.config.keepalive_s:
                looked = now
                await self._notify_entries(order, lists)
            part = await self._part(order, place)
            if not self._holds(order):
                return  # cancelled or changed meanwhile: nothing more is sent by it
            if part is None:
                await self._source.changed(place.sequence, POLL_S)
            elif not part.objects:
                place = part.place
                if now - kept >= KEEP_S:  # after a crash a little of the log is looked through once more
                    kept = now
                    await self._orders.move(order, place)
            elif (done := await self._deliver(order, part)) is not None:
                place = done
                if not part.full:
                    await self._clock.sleep(order.interval_s or SETTLE_S)

    def _holds(self, order: ViidSubscription) -> bool:
        """Return whether a subscription is still what it was, and has not expired."""
        return self._orders.get(order.peer, order.id) == order and order.is_active(self._clock.now())

    async def _part(self, order: ViidSubscription, place: Place) -> _Part | None:
        """Return the next objects that are asked for; None at the end of the log."""
        entries = await self._source.fetch(place.sequence, limit=FETCH_ENTRIES)
        if not entries:
            return None
        found: list[ViidObject] = []
        for entry in entries:
            for row, one in self._objects(entry, order):
                if entry.sequence == place.sequence + 1 and row < place.row:
                    continue
                found.append(one)
                if len(found) >= self._batch:
                    # `row` counts from the entry behind the last whole one
                    return _Part(
                        found,
                        msgspec.structs.replace(place, sequence=entry.sequence - 1, row=row + 1),
                        True,
                        entry.time,
                    )
        last = entries[-1]
        return _Part(found, msgspec.structs.replace(place, sequence=last.sequence, row=0), False, last.time)

    def _objects(self, entry: Entry, order: ViidSubscription) -> Iterator[tuple[int, ViidObject]]:
        """Yield (row, object) of an entry of the log, as far as they are asked for and may be told."""
        if not entry.subject.startswith(f"{OBSERVATIONS}."):
            return
        found = read_subject(entry, "viid")
        if found is None or found.grade > self.config.grade_max or (batch := read_rows(entry, "viid")) is None:
            return
        devices = batch.origins.device
        for row in sorted(batch.text):
            if batch.properties[int(batch.property[row])] != OBSERVATION:
                continue
            try:
                seen = _decode(batch.text[row].encode())
            except ValueError:  # of another release
                metrics.VIID_SENT.labels("no_object").inc()
                continue
            one = to_viid_object(seen, self._code_of(devices[int(batch.origin[row])], seen.camera))
            if one is None:
                metrics.VIID_SENT.labels("no_object").inc()
                continue
            there = with_peer_camera(one, self._there)
            if self._wants(order, there.kind, there.camera):
                yield row, there

    def _wants(self, order: ViidSubscription, kind: str, camera: str) -> bool:
        """Return whether an object is asked for; who asks for all that we have names us."""
        return order.matches(kind, camera) or (self._client.code in order.resources and kind in order.kinds)

    async def _deliver(self, order: ViidSubscription, part: _Part) -> Place | None:
        """Send objects; return where the log stands behind them, kept; None: they are to be sent in smaller parts."""
        new = [element.camera for element in part.objects if element.camera not in self._told]
        if new and self.config.catalogue:
            entries = {self._code_there(camera.id): camera for camera in self._catalogue.cameras()}
            if known := [entries[code] for code in dict.fromkeys(new) if code in entries]:
                await self._tell("APE", "/VIID/APEs", known)
            self._told.update(new)
        lists: dict[str, list[dict[str, Any]]] = {}
        for element in part.objects:
            lists.setdefault(element.kind, []).append(element.fields)
        told = {f"{kind}ObjectList": {f"{kind}Object": objects} for kind, objects in lists.items()}
        place = part.place
        number = place.sequence * 7 + place.row
        if not await self._notify(order, (part.at, number), [element.id for element in part.objects], told):
            return None
        if not self._holds(order):
            return None  # made anew meanwhile: its place is another
        done = msgspec.structs.replace(place, notices=place.notices + 1, objects=place.objects + len(part.objects))
        await self._orders.move(order, done)
        return done

    async def _notify(
        self, order: ViidSubscription, number: tuple[int, int], names: Sequence[str], lists: dict[str, Any]
    ) -> bool:
        """Send one notification until it is taken, or is not wanted; False: it is to be made smaller, or not at all.

        `number`: time and sequence of its id.
        """
        local = answers.format_beijing(number[0])
        notice = ids.make_order_id(self.config.server_id[:6], ids.NOTIFICATION, local, number[1])
        body = {
            "SubscribeNotificationListObject": {
                "SubscribeNotificationObject": [
                    {
                        "NotificationID": notice,
                        "SubscribeID": order.id,
                        "Title": order.id,
                        "TriggerTime": local,
                        "InfoIDs": ",".join(names),
                        **lists,
                    }
                ]
            }
        }
        for attempt in range(1, TRIES_MAX + 1):
            if not self._holds(order):
                return False
            try:
                told = await self._client.send("POST", PATH, body)
            except TooLarge:
                if self._batch > 1:
                    self._batch = max(1, self._batch // 2)
                    return False
                told = [answers.ObjectResult(notice, answers.BAD_CONTENT)]
            one = answers.combine_results(told)
            if one.code == answers.OK:
                metrics.VIID_SENT.labels("0").inc(len(names))
                return True
            await self._clock.sleep(self._roll(0.1, 0.2) * 2**attempt)
            if one.code in answers.RETRYABLE:
                raise Unavailable("the platform above is busy")
        metrics.VIID_SENT.labels(str(one.code)).inc(len(names))
        _log.warning(
            "VIID: a notification is not wanted and is left out",
            name=self.config.name,
            code=one.code,
            objects=len(names),
        )
        return True

    async def _notify_entries(self, order: ViidSubscription, sent: dict[str, dict[str, Any]]) -> None:
        """Tell cameras, tollgates and lanes that are subscribed to, as far as they have changed since."""
        lists: dict[str, Any] = {}
        names: list[str] = []
        for kind in (*CATALOGUE, "APEStatus"):
            if kind not in order.kinds:
                continue
            of = "APE" if kind == "APEStatus" else kind
            entries = self._catalogue.cameras() if of == "APE" else self._catalogue.of(kind)
            fresh: list[dict[str, Any]] = []
            for entry in entries:
                if of == "APE" and not self._wants(order, kind, self._code_there(entry.id)):
                    continue
                told = self._entry(entry)
                if kind == "APEStatus":
                    told = {name: told[name] for name in ("ApeID", "IsOnline")}
                if sent.get(f"{kind} {entry.id}") != told:
                    sent[f"{kind} {entry.id}"] = told
                    fresh.append(told)
                    names.append(entry.id)
            if fresh:
                lists[_LISTS.get(kind, f"{kind}ObjectList")] = {f"{kind}Object": fresh}
        if lists:
            now = self._clock.now()
            await self._notify(order, (now, now // 1_000), names[:1_000], lists)
