"""What platforms say of cameras, tollgates and lanes by GA/T 1400: kept as entries, given to the platforms above.

Cameras (APEs) are devices besides: one that a platform names and nobody has registered is registered behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from sensegate.authority.bucket import Bucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.config.viid import ViidConfig
from sensegate.errors import ConfigError, Conflict, PermissionDenied
from sensegate.model import Datum, Device, DeviceState
from sensegate.video.formats.viid_records import CatalogueRecord

_log = structlog.get_logger("viid")
_PREFIX: Final = "entry."
_ID_NAMES: Final = {"APE": "ApeID", "APS": "ApsID", "Tollgate": "TollgateID", "Lane": "LaneID"}
_WORDS: Final = {"vehicle": "1", "person": "2", "mini": "3", "feature": "4", "common": "5", "high_altitude": "6"}


class Held(msgspec.Struct, frozen=True):
    """One entry, and which device said it."""

    sender: str
    entry: CatalogueRecord
    format: int = 1


_decode = msgspec.json.Decoder(Held).decode


class Catalogue:
    """All entries of this gateway."""

    def __init__(self, bucket: Bucket, devices: Devices, config: ViidConfig, *, home: str) -> None:
        self._bucket = bucket
        self._devices = devices
        self._config = config
        self._home = home
        self._held: dict[tuple[str, str], Held] = {}
        self._by = Principal("viid", Role.ADMIN, scope(home), name="catalogues of platforms")

    async def load(self) -> None:
        """Read what is kept."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.key.startswith(_PREFIX) and row.value is not None:
                held = _decode(row.value)
                self._held[_key(held.entry)] = held

    async def note(self, sender: Device, entries: Sequence[CatalogueRecord]) -> None:
        """Keep what a device says; register cameras that it names behind it.

        Raises:
            StoreFull, Unavailable: not kept; the device is to send it again.
        """
        for entry in entries:
            kept = msgspec.structs.replace(entry, time=0, time_quality="", deviations=(), removed=())
            key = _key(kept)
            before = self._held.get(key)
            if before is not None and before.sender != sender.id:
                continue  # another platform's: who says it first has it
            if entry.kind == "APE":
                await self._register(sender, entry)
            held = Held(sender.id, kept)
            if held != before:
                await self._bucket.put(f"{_PREFIX}{'.'.join(key)}", msgspec.json.encode(held))
                self._held[key] = held

    async def _register(self, sender: Device, entry: CatalogueRecord) -> None:
        if self._devices.find(entry.id) >= 0:
            return
        if len(self._devices.children(sender.id)) >= self._config.catalogue_cameras_max or sender.gateway:
            return
        place = self._place(entry)
        device = Device(
            entry.id,
            self._division(sender, entry),
            sender.profile,
            gateway=sender.id,
            department=sender.department,
            domain=sender.domain,
            lon=place[0] if place else None,
            lat=place[1] if place else None,
            datum=Datum(self._config.datum) if place else Datum.WGS84,
            grade=sender.grade,
            owner=sender.owner,
        )
        try:
            try:
                await self._devices.add(device, by=self._by)
            except ConfigError as why:
                if why.key != "division":
                    raise
                device = msgspec.structs.replace(device, division=sender.division)  # a code that the table lacks
                await self._devices.add(device, by=self._by)
        except (ConfigError, Conflict, PermissionDenied) as why:
            _log.warning("a camera of a catalogue is not registered", camera=entry.id, platform=sender.id, why=str(why))

    def _place(self, entry: CatalogueRecord) -> tuple[float, float] | None:
        """Return the place, if its datum is declared: (0, 0) is none, and swapped ones are not guessed at."""
        if not self._config.datum or entry.lon is None or entry.lat is None:
            return None
        return (entry.lon, entry.lat) if 73 <= entry.lon <= 136 and 3 <= entry.lat <= 54 else None

    def _division(self, sender: Device, entry: CatalogueRecord) -> str:
        """Return the division: as said, else of the code, where it lies in the sender's; else the sender's."""
        for code in (entry.division, entry.id[:6]):
            if code and code.startswith(sender.division.rstrip("0") or self._home):
                return code
        return sender.division

    # ── giving ───────────────────────────────────────────────────────────────────────────────────────

    def of(self, kind: str, sender: str | None = None) -> list[CatalogueRecord]:
        """Return the entries of a kind; of one sender, or of all."""
        return [one.entry for key, one in sorted(self._held.items()) if key[0] == kind and sender in {None, one.sender}]

    def cameras(self, owner: str | None = None) -> list[CatalogueRecord]:
        """Return all cameras: those of catalogues, and devices of the registry that have a camera's code.

        `owner`: only what this device said, and itself.
        """
        found = {entry.id: entry for entry in self.of("APE", owner)}
        devices = self._devices.list(limit=10**9) if owner is None else [self._devices.get(owner)]
        for device in devices:
            if device.state in {DeviceState.RETIRED, DeviceState.DISABLED}:
                continue
            code = device.id if _is_code(device.id) else device.alias
            if _is_code(code) and code not in found:
                found[code] = CatalogueRecord(
                    kind="APE",
                    id=code,
                    unique_id=True,
                    camera=code,
                    lon=device.lon,
                    lat=device.lat,
                    division=f"{device.division:0<6}"[:6],
                )
        return [found[code] for code in sorted(found)]

    def envelope(self, kind: str, owner: str | None, names: Sequence[str]) -> bytes:
        """Return the entries as ``{KindListObject: {KindObject: […]}}``; `names`: only these."""
        entries = self.cameras(owner) if kind == "APE" else self.of(kind, owner)
        wanted = frozenset(names)
        found = [written(entry, online=self.online(entry)) for entry in entries if not wanted or entry.id in wanted]
        return msgspec.json.encode({f"{kind}ListObject": {f"{kind}Object": found}})

    def online(self, entry: CatalogueRecord) -> bool | None:
        """Return whether a camera is on line, as it was heard here."""
        at = self._devices.find(entry.id)
        if at < 0:
            return entry.online
        return {"active": True, "silent": False}.get(self._devices.record(at).state.value, entry.online)


def _key(entry: CatalogueRecord) -> tuple[str, str]:
    """Return what tells an entry: lanes are numbered anew at each tollgate."""
    return entry.kind, f"{entry.owner}-{entry.id}" if entry.kind == "Lane" else entry.id


def _is_code(text: str) -> bool:
    return len(text) == 20 and text.isascii() and text.isdigit()


def written(entry: CatalogueRecord, *, online: bool | None) -> dict[str, Any]:
    """Return an entry as an object of the standard; names and addresses are not told, for we do not know them."""
    told: dict[str, Any] = {_ID_NAMES[entry.kind]: entry.id}
    if entry.kind in {"APE", "APS", "Tollgate"}:
        told["Name"] = entry.id
        told["PlaceCode"] = entry.division
        if entry.lon is not None and entry.lat is not None:
            told |= {"Longitude": entry.lon, "Latitude": entry.lat}
    if entry.kind in {"APE", "APS"}:
        told["IsOnline"] = "9" if online is None else "1" if online else "2"
        if entry.owner:
            told["OwnerApsID"] = entry.owner
        if entry.functions:
            told["FunctionType"] = "/".join(_WORDS.get(function, "99") for function in entry.functions)
    if entry.kind == "Tollgate" and entry.lanes is not None:
        told["LaneNum"] = entry.lanes
    if entry.kind == "Lane" and entry.owner:
        told["TollgateID"] = entry.owner
    return told
