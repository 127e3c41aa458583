"""A superior platform by GA/T 1400: registration, keep-alive, catalogue, and notifications for its subscriptions.

Each subscription has its own offset on the log, which advances only when a notification was accepted: after a crash of
either side a notification is repeated with the same id and objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.names import OBSERVATIONS
from sensegate.bus.unreadable import read_rows, read_subject
from sensegate.clock import Clock
from sensegate.config.viid import ViidSuperiorConfig
from sensegate.errors import CancellableTaskGroup, PermissionDenied, SensegateError, Unavailable, combined
from sensegate.model import OBSERVATION, LogEntry
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_codes import CATALOGUE
from sensegate.video.formats.viid_records import CatalogueRecord as Listed
from sensegate.video.formats.viid_subscriptions import ViidSubscription
from sensegate.video.formats.viid_write import ViidObject, to_viid_object, with_peer_camera
from sensegate.video.observation import VideoObservation
from sensegate.viid.catalogue import ViidCatalogue, entry_key
from sensegate.viid.catalogue import to_object as entry_written
from sensegate.viid.client import PayloadTooLarge, ViidClient
from sensegate.viid.subscriptions import SubscriptionOffset, ViidSubscriptions

PATH: Final = "/VIID/SubscribeNotifications"
FETCH_ENTRIES: Final = 500
POLL_S: Final = 2.0
SETTLE_S: Final = 0.02
"""Pause after a partial notification, so that objects accumulate."""
OFFSET_INTERVAL_S: Final = 10.0
"""Interval of storing an offset that advanced without matching objects."""
ATTEMPTS_MAX: Final = 4
"""Most attempts for a notification that the platform rejects; then it is skipped and counted."""
_LISTS: Final = {"APE": "DeviceList", "APEStatus": "DeviceStatusList"}
_log = structlog.get_logger("viid")
_decode = decoder(VideoObservation, "observation", json=True)

CodeOf = Callable[[str, str], str]
"""(device id, camera of the observation) -> code of the camera; empty if it has none."""


class _Batch(NamedTuple):
    """The objects of a notification, and the offset after them."""

    objects: list[ViidObject]
    place: SubscriptionOffset
    full: bool
    at: int
    """Storage time of its last entry, µs UTC, which is the same for repetitions."""


class _ChangedEntry(NamedTuple):
    """An entry of the catalogue that a subscription has not been sent as it is."""

    kind: str
    key: str
    """Key among the entries that were sent."""
    name: str
    fields: dict[str, Any]


class SuperiorRecords(msgspec.Struct, frozen=True, eq=False):
    """Records that a superior platform is sent."""

    orders: ViidSubscriptions
    log: Log
    catalogue: ViidCatalogue


class ViidSuperior:
    """The connection to a superior platform; `run` maintains it until cancelled."""

    def __init__(
        self,
        config: ViidSuperiorConfig,
        client: ViidClient,
        *,
        records: SuperiorRecords,
        clock: Clock,
        code_of: CodeOf,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`uniform` returns a random number between two bounds, for the jitter."""
        self.config = config
        self._client = client
        self._orders = records.orders
        self._source = records.log
        self._catalogue = records.catalogue
        self._clock = clock
        self._code_of = code_of
        self._uniform = uniform
        self._peer_ids = dict(pair.split("=", 1) for pair in config.id_map)
        self._known_cameras: set[str] = set()
        """Cameras that were sent since the registration."""
        self._lost = asyncio.Event()
        self._batch = config.batch_max
        self.addresses: frozenset[str] = frozenset()
        """Addresses of the platform, which subscribes by its code without authentication."""
        self.registered = False
        self.problem = "starting"

    # ── registration ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Register and serve; register again whenever that ends."""
        attempt = 0
        try:
            while True:
                started = self._clock.monotonic()
                try:
                    await self._run_registration()
                except SensegateError as why:
                    if self.registered or attempt == 0:
                        _log.warning("VIID: superior platform not reachable", name=self.config.name, reason=str(why))
                    self.problem = str(why)
                finally:
                    self.registered = False
                attempt = 0 if self._clock.monotonic() - started > 60 else min(attempt + 1, 16)
                longest_s = min(self.config.backoff_max_s, 0.25 * 2**attempt)
                metrics.RESTARTS.labels("viid superior").inc()
                await self._clock.sleep(self._uniform(longest_s / 2, longest_s))
        finally:
            if self.problem == "":
                with contextlib.suppress(SensegateError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._client.unregister()
            await self._client.close()

    async def _run_registration(self) -> None:
        self._lost.clear()
        self._known_cameras.clear()
        self.addresses = await self._client.addresses()
        await self._client.register()
        self.registered, self.problem = True, ""
        _log.info("VIID: registered at superior platform", name=self.config.name)
        try:
            async with CancellableTaskGroup() as group:
                if self.config.catalogue:
                    await self._send_catalogue()
                group.create_task(self._keep_alive(), name=f"viid alive {self.config.name}")
                group.create_task(self._serve(), name=f"viid orders {self.config.name}")
        except* SensegateError as several:
            raise combined(several) from None

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(self._uniform(0.8, 1.0) * self.config.keepalive_s)
            await self._client.keepalive()

    async def _send_catalogue(self) -> None:
        """Send the catalogue of cameras, tollgates and lanes."""
        cameras = self._catalogue.cameras()
        for kind, path, entries in (
            ("APE", "/VIID/APEs", cameras),
            ("Tollgate", "/VIID/Tollgates", self._catalogue.entries("Tollgate")),
            ("Lane", "/VIID/Lanes", self._catalogue.entries("Lane")),
        ):
            for start in range(0, len(entries), 500):
                await self._send_entries(kind, path, entries[start : start + 500])

    async def _send_entries(self, kind: str, path: str, entries: Sequence[Listed]) -> None:
        """Send catalogue entries; if the platform rejects them, they are not repeated during this registration."""
        objects = [self._entry(entry) for entry in entries]
        self._known_cameras.update(self._peer_id(record.id) for record in entries)
        try:
            results = await self._client.send("POST", path, {f"{kind}ListObject": {f"{kind}Object": objects}})
        except (Unavailable, PermissionDenied) as why:  # the next keep-alive detects a lost connection
            _log.info("VIID: catalogue rejected", name=self.config.name, kind=kind, reason=str(why))
            return
        if rejected := [item for item in results if item.code != answers.OK]:
            _log.info(
                "VIID: catalogue rejected", name=self.config.name, kind=kind, code=rejected[0].code, of=len(results)
            )

    def _entry(self, entry: Listed) -> dict[str, Any]:
        fields = entry_written(entry, online=self._catalogue.online(entry))
        for name in ("ApeID", "TollgateID", "OwnerApsID"):
            if name in fields:
                fields[name] = self._peer_id(fields[name])
        return fields

    def _peer_id(self, code: str) -> str:
        peer_id = self._peer_ids.get(code[: ids.DEVICE])
        return code if peer_id is None else peer_id + code[ids.DEVICE :]

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        """Serve each subscription by a task, which is cancelled when the subscription ends or changes."""
        peer = self.config.server_id
        changed = self._orders.changed(peer)
        tasks: dict[str, tuple[ViidSubscription, asyncio.Task[None]]] = {}
        try:
            while True:
                changed.clear()
                now = self._clock.now()
                active = {order.id: order for order in self._orders.of_peer(peer) if order.is_active(now)}
                for name, (order, task) in list(tasks.items()):
                    if task.done():
                        await task  # raises its error
                        # It ended since the subscription changed, also where that was changed back meanwhile.
                        del tasks[name]
                    elif active.get(name) != order:
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                        del tasks[name]
                for name, order in active.items():
                    if name not in tasks:
                        task = asyncio.create_task(
                            self._serve_subscription(order), name=f"viid {self.config.name} {name}"
                        )
                        tasks[name] = (order, task)
                await self._until(changed, [task for _, task in tasks.values()])
        finally:
            for _, task in tasks.values():
                task.cancel()
            await asyncio.gather(*(task for _, task in tasks.values()), return_exceptions=True)

    @staticmethod
    async def _until(changed: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Wait until a subscription changes, a task ends, or it is time to check for expired ones."""
        wait = asyncio.ensure_future(changed.wait())
        try:
            await asyncio.wait({wait, *tasks}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.cancel()

    async def _serve_subscription(self, order: ViidSubscription) -> None:
        lists: dict[str, dict[str, Any]] = {}
        offset = self._orders.offset(order)
        last_entries = last_stored = float("-inf")
        while self._is_current(order):
            now = self._clock.monotonic()
            if now - last_entries >= self.config.keepalive_s:
                last_entries = now
                await self._notify_entries(order, lists)
            batch = await self._next_batch(order, offset)
            if not self._is_current(order):
                return  # cancelled or changed meanwhile
            if batch is None:
                await self._source.changed(offset.sequence, POLL_S)
            elif not batch.objects:
                offset = batch.place
                if now - last_stored >= OFFSET_INTERVAL_S:  # after a crash a part of the log is scanned again
                    last_stored = now
                    await self._orders.set_offset(order, offset)
            elif (done := await self._deliver(order, batch)) is not None:
                offset = done
                if not batch.full:
                    await self._clock.sleep(order.interval_s or SETTLE_S)

    def _is_current(self, order: ViidSubscription) -> bool:
        """Return whether a subscription is unchanged and not expired."""
        return self._orders.get(order.peer, order.id) == order and order.is_active(self._clock.now())

    async def _next_batch(self, order: ViidSubscription, offset: SubscriptionOffset) -> _Batch | None:
        """Return the next matching objects; None at the end of the log."""
        entries = await self._source.fetch(offset.sequence, limit=FETCH_ENTRIES)
        if not entries:
            return None
        objects: list[ViidObject] = []
        for entry in entries:
            for row, element in self._objects(entry, order):
                if entry.sequence == offset.sequence + 1 and row < offset.row:
                    continue
                objects.append(element)
                if len(objects) >= self._batch:
                    # `row` counts from the entry after the last complete one
                    return _Batch(
                        objects,
                        msgspec.structs.replace(offset, sequence=entry.sequence - 1, row=row + 1),
                        True,
                        entry.time,
                    )
        last = entries[-1]
        return _Batch(objects, msgspec.structs.replace(offset, sequence=last.sequence, row=0), False, last.time)

    def _objects(self, entry: LogEntry, order: ViidSubscription) -> Iterator[tuple[int, ViidObject]]:
        """Yield (row, object) of an entry of the log that match a subscription and are permitted."""
        if not entry.subject.startswith(f"{OBSERVATIONS}."):
            return
        subject_ = read_subject(entry, "viid")
        if subject_ is None or subject_.grade > self.config.grade_max or (batch := read_rows(entry, "viid")) is None:
            return
        devices = batch.origins.device
        for row in sorted(batch.text):
            if batch.properties[int(batch.property[row])] != OBSERVATION:
                continue
            try:
                seen = _decode(batch.text[row].encode())
            except ValueError:  # written by another release
                metrics.VIID_SENT.labels("no_object").inc()
                continue
            element = to_viid_object(seen, self._code_of(devices[int(batch.origin[row])], seen.camera))
            if element is None:
                metrics.VIID_SENT.labels("no_object").inc()
                continue
            peer_object = with_peer_camera(element, self._peer_ids)
            if self._wants(order, peer_object.kind, peer_object.camera):
                yield row, peer_object

    def _wants(self, order: ViidSubscription, kind: str, camera: str) -> bool:
        """Return whether a subscription matches an object; a subscription to our own code matches everything."""
        return order.matches(kind, camera) or (self._client.code in order.resources and kind in order.kinds)

    async def _deliver(self, order: ViidSubscription, batch: _Batch) -> SubscriptionOffset | None:
        """Send a batch; return the stored offset after it, or None if it must be sent in smaller batches."""
        new = [element.camera for element in batch.objects if element.camera not in self._known_cameras]
        if new and self.config.catalogue:
            entries = {self._peer_id(camera.id): camera for camera in self._catalogue.cameras()}
            if entries_ := [entries[code] for code in dict.fromkeys(new) if code in entries]:
                await self._send_entries("APE", "/VIID/APEs", entries_)
            self._known_cameras.update(new)
        lists: dict[str, list[dict[str, Any]]] = {}
        for element in batch.objects:
            lists.setdefault(element.kind, []).append(element.fields)
        body = {f"{kind}ObjectList": {f"{kind}Object": objects} for kind, objects in lists.items()}
        offset = batch.place
        if not await self._notify(
            order, (batch.at, _number(order, offset.notices)), [element.id for element in batch.objects], body
        ):
            return None
        if not self._is_current(order):
            return None  # replaced meanwhile: the offset belongs to the old one
        advanced = msgspec.structs.replace(
            offset, notices=offset.notices + 1, objects=offset.objects + len(batch.objects)
        )
        await self._orders.set_offset(order, advanced)
        return advanced

    async def _notify(
        self, order: ViidSubscription, number: tuple[int, int], names: Sequence[str], lists: dict[str, Any]
    ) -> bool:
        """Send a notification until it is accepted or finally rejected; False: it must be split, or not be sent.

        `number` is the time and sequence for its id.
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
        for attempt in range(1, ATTEMPTS_MAX + 1):
            if not self._is_current(order):
                return False
            try:
                results = await self._client.send("POST", PATH, body)
            except PayloadTooLarge:
                if self._batch > 1:
                    self._batch = max(1, self._batch // 2)
                    return False
                results = [answers.ObjectResult(notice, answers.BAD_CONTENT)]
            result = answers.combine_results(results)
            if result.code == answers.OK:
                metrics.VIID_SENT.labels("0").inc(len(names))
                return True
            await self._clock.sleep(self._uniform(0.1, 0.2) * 2**attempt)
            if result.code in answers.RETRYABLE:
                raise Unavailable("the superior platform is busy")
        metrics.VIID_SENT.labels(str(result.code)).inc(len(names))
        _log.warning(
            "VIID: notification rejected and skipped",
            name=self.config.name,
            code=result.code,
            objects=len(names),
        )
        return True

    async def _notify_entries(self, order: ViidSubscription, sent: dict[str, dict[str, Any]]) -> None:
        """Send the changed entries of subscribed cameras, tollgates and lanes; `sent`: those that were accepted."""
        changed: list[_ChangedEntry] = []
        for kind in (*CATALOGUE, "APEStatus"):
            if kind not in order.kinds:
                continue
            source_kind = "APE" if kind == "APEStatus" else kind
            entries = self._catalogue.cameras() if source_kind == "APE" else self._catalogue.entries(kind)
            for entry in entries:
                if source_kind == "APE" and not self._wants(order, kind, self._peer_id(entry.id)):
                    continue
                fields = self._entry(entry)
                if kind == "APEStatus":
                    fields = {name: fields[name] for name in ("ApeID", "IsOnline")}
                key = f"{kind} {entry_key(entry)[1]}"
                if sent.get(key) != fields:
                    changed.append(_ChangedEntry(kind, key, entry.id, fields))
        start = 0
        while start < len(changed) and self._is_current(order):
            part = changed[start : start + self._batch]
            lists: dict[str, dict[str, list[dict[str, Any]]]] = {}
            for kind, _, _, fields in part:
                objects = lists.setdefault(_LISTS.get(kind, f"{kind}ObjectList"), {f"{kind}Object": []})
                objects[f"{kind}Object"].append(fields)
            now = self._clock.now()
            number = _number(order, now // 1_000 + start)
            if await self._notify(order, (now, number), [name for _, _, name, _ in part], lists):
                sent |= {key: fields for _, key, _, fields in part}
                start += len(part)


def _number(order: ViidSubscription, count: int) -> int:
    """Return the number for the id of a notification: another for each `count` and, as a rule, for each subscription.

    The id has only five digits beside the second, so the number is counted and not made of a position on the log.
    """
    return zlib.crc32(order.id.encode()) + count
