"""One LoRaWAN frame as several network servers bring it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

EUI = "70b3d5e7a0000109"
SOIL = bytes.fromhex("0b45 0105 05dc 0105 00c8 00".replace(" ", ""))
VALUES = 5


def _iso(at: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat(timespec="microseconds")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


Say = Callable[[bytes, int, int, int], tuple[str, Any]]
"""(bytes, port, frame counter, µs) -> (topic, message) as one kind of server has it."""
SAY: dict[str, Say] = {
    "chirp4": lambda data, port, count, at: (
        f"application/a/device/{EUI}/event/up",
        {"time": _iso(at), "deviceInfo": {"devEui": EUI}, "fCnt": count, "fPort": port, "data": _b64(data)},
    ),
    "chirp3": lambda data, port, count, at: (
        f"application/1/device/{EUI}/event/up",
        {"devEUI": EUI, "publishedAt": _iso(at), "fCnt": count, "fPort": port, "data": _b64(data)},
    ),
    "tts": lambda data, port, count, at: (
        f"v3/app@ttn/devices/eui-{EUI}/up",
        {"uplink_message": {"f_port": port, "f_cnt": count, "frm_payload": _b64(data), "received_at": _iso(at)}},
    ),
    "loriot": lambda data, port, count, at: (
        f"loriot/{EUI.upper()}/rx",
        {"cmd": "rx", "EUI": EUI.upper(), "ts": at // 1000, "fcnt": count, "port": port, "data": data.hex()},
    ),
    "actility": lambda data, port, count, at: (
        f"mqtt/things/{EUI.upper()}/uplink",
        {"DevEUI_uplink": {"Time": _iso(at), "FPort": port, "FCntUp": count & 0xFFFF, "payload_hex": data.hex()}},
    ),
    "aws": lambda data, port, count, at: (
        f"lorawan/uplink/{EUI}",
        {
            "PayloadData": _b64(data),
            "WirelessMetadata": {"LoRaWAN": {"DevEui": EUI, "FPort": port, "FCnt": count, "Timestamp": _iso(at)}},
        },
    ),
    "milesight": lambda data, port, count, at: (
        f"milesight/uplink/{EUI}",
        {"data": _b64(data), "devEUI": EUI, "fCnt": count, "fPort": port, "time": _iso(at)},
    ),
    "helium": lambda data, port, count, at: (
        f"helium/{EUI}/rx",
        {"dev_eui": EUI.upper(), "fcnt": count, "payload": _b64(data), "port": port, "reported_at": at // 1000},
    ),
}
