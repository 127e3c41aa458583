"""The catalogue of cameras, tollgates and lanes by GA/T 1400, reported by platforms and offered to superior ones.

Cameras (APEs) are devices, too: a camera that is not registered is registered behind the platform that reports it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.config.viid import ViidConfig
from sensegate.errors import ConfigError, Conflict, PermissionDenied
from sensegate.model import Datum, Device, DeviceState
from sensegate.video.formats.viid_records import CatalogueRecord

_log = structlog.get_logger("viid")
_PREFIX: Final = "entry."
ENTRIES_MAX: Final = 10_000
"""Most entries of one sender beside the cameras that it may register: the bucket holds the subscriptions, too."""
_ID_NAMES: Final = {"APE": "ApeID", "APS": "ApsID", "Tollgate": "TollgateID", "Lane": "LaneID"}
_FUNCTION_CODES: Final = {
    "vehicle": "1",
    "person": "2",
    "mini": "3",
    "feature": "4",
    "common": "5",
    "high_altitude": "6",
}


class StoredEntry(msgspec.Struct, frozen=True):
    """A catalogue entry with the device that reported it."""

    sender: str
    entry: CatalogueRecord
    format: int = 1


_decode = msgspec.json.Decoder(StoredEntry).decode


class ViidCatalogue:
    """The catalogue entries of this gateway."""

    def __init__(self, bucket: Bucket, devices: Devices, config: ViidConfig, *, home: str) -> None:
        self._bucket = bucket
        self._devices = devices
        self._config = config
        self._home = home
        self._entries: dict[tuple[str, str], StoredEntry] = {}
        self._entries_of: Counter[str] = Counter()
        """Number of entries, by sender."""
        self._by = Principal("viid", Role.ADMIN, scope(home), name="catalogues of platforms")

    async def load(self) -> None:
        """Read the stored entries."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.key.startswith(_PREFIX) and row.value is not None:
                stored = _decode(row.value)
                self._entries[entry_key(stored.entry)] = stored
        self._entries_of = Counter(stored.sender for stored in self._entries.values())

    async def take(self, sender: Device, entries: Sequence[CatalogueRecord]) -> None:
        """Store reported entries; register new cameras behind the device that reported them.

        New entries of a sender that has too many are left out, and counted.

        Raises:
            StoreFull, Unavailable: not stored; the device has to send them again.
        """
        for entry in entries:
            record = msgspec.structs.replace(entry, time=0, time_quality="", deviations=(), removed=())
            key = entry_key(record)
            before = self._entries.get(key)
            if before is not None and before.sender != sender.id:
                continue  # the first platform to report an entry owns it
            if before is None and self._entries_of[sender.id] >= self._config.catalogue_cameras_max + ENTRIES_MAX:
                metrics.LIMIT_HITS.labels("viid_catalogue").inc()
                continue
            if entry.kind == "APE":
                await self._register(sender, entry)
            stored = StoredEntry(sender.id, record)
            if stored != before:
                await self._bucket.put(f"{_PREFIX}{'.'.join(key)}", msgspec.json.encode(stored))
                self._entries[key] = stored
                self._entries_of[sender.id] += before is None

    async def _register(self, sender: Device, entry: CatalogueRecord) -> None:
        if self._devices.find(entry.id) >= 0:
            return
        if len(self._devices.children(sender.id)) >= self._config.catalogue_cameras_max or sender.gateway:
            return
        location = self._location(entry)
        device = Device(
            entry.id,
            self._division(sender, entry),
            sender.profile,
            gateway=sender.id,
            department=sender.department,
            domain=sender.domain,
            lon=location[0] if location else None,
            lat=location[1] if location else None,
            datum=Datum(self._config.datum) if location else Datum.WGS84,
            grade=sender.grade,
            owner=sender.owner,
        )
        try:
            try:
                await self._devices.add(device, by=self._by)
            except ConfigError as why:
                if why.key != "division":
                    raise
                device = msgspec.structs.replace(device, division=sender.division)  # a code that is not in the table
                await self._devices.add(device, by=self._by)
        except (ConfigError, Conflict, PermissionDenied) as why:
            _log.warning("camera of a catalogue not registered", camera=entry.id, platform=sender.id, reason=str(why))

    def _location(self, entry: CatalogueRecord) -> tuple[float, float] | None:
        """Return plausible coordinates if the datum is configured; swapped coordinates are not corrected."""
        if not self._config.datum or entry.lon is None or entry.lat is None:
            return None
        return (entry.lon, entry.lat) if 73 <= entry.lon <= 136 and 3 <= entry.lat <= 54 else None

    def _division(self, sender: Device, entry: CatalogueRecord) -> str:
        """Return the reported division, else that of the code, if it lies in the sender's; else the sender's."""
        for code in (entry.division, entry.id[:6]):
            if code and code.startswith(sender.division.rstrip("0") or self._home):
                return code
        return sender.division

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────

    def entries(self, kind: str, sender: str | None = None) -> list[CatalogueRecord]:
        """Return the entries of a kind, of a sender or of all."""
        return [
            stored.entry
            for key, stored in sorted(self._entries.items())
            if key[0] == kind and sender in {None, stored.sender}
        ]

    def cameras(self, owner: str | None = None) -> list[CatalogueRecord]:
        """Return all cameras: those of catalogues, and registered devices with the code of a camera.

        With `owner`, only the device itself and the cameras that it reported.
        """
        cameras = {entry.id: entry for entry in self.entries("APE", owner)}
        devices = self._devices.list(limit=10**9) if owner is None else [self._devices.get(owner)]
        for device in devices:
            if device.state in {DeviceState.RETIRED, DeviceState.DISABLED}:
                continue
            code = device.id if _is_code(device.id) else device.alias
            if _is_code(code) and code not in cameras:
                cameras[code] = CatalogueRecord(
                    kind="APE",
                    id=code,
                    unique_id=True,
                    camera=code,
                    lon=device.lon,
                    lat=device.lat,
                    division=f"{device.division:0<6}"[:6],
                )
        return [cameras[code] for code in sorted(cameras)]

    def envelope(self, kind: str, owner: str | None, names: Sequence[str]) -> bytes:
        """Return the entries as ``{KindListObject: {KindObject: […]}}``, restricted to `names` if given."""
        entries = self.cameras(owner) if kind == "APE" else self.entries(kind, owner)
        selected = frozenset(names)
        objects = [
            to_object(entry, online=self.online(entry) if self._is_of(entry.id, owner) else entry.online)
            for entry in entries
            if not selected or entry.id in selected
        ]
        return msgspec.json.encode({f"{kind}ListObject": {f"{kind}Object": objects}})

    def _is_of(self, camera: str, owner: str | None) -> bool:
        """Return whether a camera belongs to a device, which may report the ids of others; None: of any."""
        at = self._devices.find(camera)
        return owner is None or at < 0 or owner in {self._devices.id(at), *self._devices.record(at).gateways}

    def online(self, entry: CatalogueRecord) -> bool | None:
        """Return whether a camera is online, by the registry's state."""
        at = self._devices.find(entry.id)
        if at < 0:
            return entry.online
        return {"active": True, "silent": False}.get(self._devices.record(at).state.value, entry.online)


def entry_key(entry: CatalogueRecord) -> tuple[str, str]:
    """Return the key of an entry; numbers of lanes are unique only within a tollgate."""
    return entry.kind, f"{entry.owner}-{entry.id}" if entry.kind == "Lane" else entry.id


def _is_code(text: str) -> bool:
    return len(text) == 20 and text.isascii() and text.isdigit()


def to_object(entry: CatalogueRecord, *, online: bool | None) -> dict[str, Any]:
    """Return an entry as an object of the standard, without names and addresses, which are not stored."""
    fields: dict[str, Any] = {_ID_NAMES[entry.kind]: entry.id}
    if entry.kind in {"APE", "APS", "Tollgate"}:
        fields["Name"] = entry.id
        fields["PlaceCode"] = entry.division
        if entry.lon is not None and entry.lat is not None:
            fields |= {"Longitude": entry.lon, "Latitude": entry.lat}
    if entry.kind in {"APE", "APS"}:
        fields["IsOnline"] = "9" if online is None else "1" if online else "2"
        if entry.owner:
            fields["OwnerApsID"] = entry.owner
        if entry.functions:
            fields["FunctionType"] = "/".join(_FUNCTION_CODES.get(function, "99") for function in entry.functions)
    if entry.kind == "Tollgate" and entry.lanes is not None:
        fields["LaneNum"] = entry.lanes
    if entry.kind == "Lane" and entry.owner:
        fields["TollgateID"] = entry.owner
    return fields
