"""National protocols over TCP (`ports.DeviceProtocol`), one module per protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zoneinfo import ZoneInfo

from sensegate.collect.protocols.gbt26875 import Gbt26875Protocol
from sensegate.collect.protocols.hj212 import Hj212Protocol
from sensegate.collect.protocols.jtt808 import Jtt808Protocol
from sensegate.collect.protocols.sl651 import Sl651Protocol
from sensegate.config import TcpConfig
from sensegate.ports import DeviceProtocol

PROTOCOLS: Final[dict[str, Callable[[TcpConfig, ZoneInfo], DeviceProtocol]]] = {
    "hj212": lambda _config, _zone: Hj212Protocol(),
    "sl651": lambda config, zone: Sl651Protocol(zone, hang_up=config.allow_offline),
    "gbt26875": lambda _config, zone: Gbt26875Protocol(zone),
    "jtt808": lambda config, _zone: Jtt808Protocol(open_registration=not config.passwords_file),
}
"""Name in the configuration (and of the payload format) -> the gateway's side of a new connection."""
