"""A centre's view of the devices of all gateways: its own registry, and its copies of the nodes' registries."""

from __future__ import annotations

from sensegate.authority.device_table import StoredDevice, decode_stored, encode_stored
from sensegate.authority.devices import Devices
from sensegate.bus.contract import Log
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.model import DeviceState
from sensegate.tiers.members import Members
from sensegate.tiers.move_records import UncarriedState
from sensegate.tiers.node_states import lane_records
from sensegate.tiers.registry_copies import RegistryCopies


class RegistryView:
    """Devices of all gateways of a province; implements `move_register.RegistryAccess`."""

    def __init__(self, home: str, log: Log, devices: Devices, copies: RegistryCopies, members: Members) -> None:
        """`home`: division of the centre."""
        self._home = home
        self._log = log
        self._devices = devices
        self._copies = copies
        self._members = members

    def is_own(self, device: str) -> bool:
        """Return whether a device is in the centre's own registry and in use."""
        stored = self._devices.stored(device)
        return stored is not None and stored.device.state is not DeviceState.RETIRED

    async def find(self, division: str, device: str) -> StoredDevice | None:
        """Return a device's entry: of the centre's registry, or of a node's as it was last copied here."""
        if division == self._home:
            return self._devices.stored(device)
        row = await self._copies.find(division, "devices", device)
        # The copy has what the node sent, whatever it is.
        return read_row(KvRow(device, row, 0), "device", decode_stored) if row else None

    async def amend(self, division: str, stored: StoredDevice) -> None:
        """Replace an entry in a node's copy; entries of the centre's own registry stay as they are."""
        if division != self._home:
            await self._copies.overwrite(division, "devices", stored.device.id, encode_stored(stored))

    def is_gone(self, division: str) -> bool:
        """Return whether a gateway is no longer a member: no credential of it is valid."""
        return division != self._home and self._members.is_gone(division)

    def is_new(self, division: str) -> bool:
        """Return whether no gateway of a division was ever a member."""
        return division != self._home and self._members.never_joined(division)

    async def uncarried(self, division: str) -> UncarriedState:
        """Return which entries of a gateway were not forwarded. Raises `Unavailable`."""
        records = await lane_records(self._log, division)
        return UncarriedState(
            max((record.committed_at for record in records), default=0),
            sum(until - after for record in records for after, until in record.ranges),
        )
