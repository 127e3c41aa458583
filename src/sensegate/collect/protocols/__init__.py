"""National protocols over TCP: a module for each (`ProtocolSession`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zoneinfo import ZoneInfo

from sensegate.collect.contract import ProtocolSession
from sensegate.collect.protocols.gbt26875 import Gbt26875Session
from sensegate.collect.protocols.hj212 import Hj212Session
from sensegate.collect.protocols.jtt808 import Jtt808Session
from sensegate.collect.protocols.sl651 import Sl651Session
from sensegate.config import TcpConfig

PROTOCOLS: Final[dict[str, Callable[[TcpConfig, ZoneInfo], ProtocolSession]]] = {
    "hj212": lambda _config, _zone: Hj212Session(),
    "sl651": lambda config, zone: Sl651Session(zone, allow_offline=config.allow_offline),
    "gbt26875": lambda _config, zone: Gbt26875Session(zone),
    "jtt808": lambda config, _zone: Jtt808Session(accept_any=not config.passwords_file),
}
"""Factories of sessions, by the name of the protocol, which is also the name of its format."""
