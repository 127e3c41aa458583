"""Deliveries as nats-server sends them."""

from __future__ import annotations

SID = 7


def delivery(
    number: int,
    payload: bytes = b"x",
    *,
    sequence: int = 0,
    delivered: int = 1,
    sid: int = SID,
    headers: bool = True,
    subject: str = "$MQTT.msgs.sg.d1.up",
) -> bytes:
    """One message as the server sends it."""
    head = b"NATS/1.0\r\nNmqtt-Pub:1\r\n\r\n" if headers else b""
    reply = f"$JS.ACK.$MQTT_msgs.ingest-0.{delivered}.{sequence or number + 100}.{number}.1767225600123456789.0"
    sizes = f"{len(head)} {len(head) + len(payload)}" if headers else f"{len(payload)}"
    return f"{'H' if headers else ''}MSG {subject} {sid} {reply} {sizes}\r\n".encode() + head + payload + b"\r\n"
