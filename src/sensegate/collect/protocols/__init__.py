"""National protocols over TCP: what is particular to each, one file a protocol (`ports.Talk`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zoneinfo import ZoneInfo

from sensegate.collect.protocols.gbt26875 import FireTalk
from sensegate.collect.protocols.hj212 import Hj212Talk
from sensegate.collect.protocols.jtt808 import VehicleTalk
from sensegate.collect.protocols.sl651 import HydrologyTalk
from sensegate.config import TcpConfig
from sensegate.ports import Talk

TALKS: Final[dict[str, Callable[[TcpConfig, ZoneInfo], Talk]]] = {
    "hj212": lambda _config, _zone: Hj212Talk(),
    "sl651": lambda config, zone: HydrologyTalk(zone, hang_up=config.allow_offline),
    "gbt26875": lambda _config, zone: FireTalk(zone),
    "jtt808": lambda config, _zone: VehicleTalk(open_door=not config.passwords_file),
}
"""By the name in the configuration, which is also that of the format: our side of a new connection."""
