"""Settings of the MQTT listener."""

from __future__ import annotations

from typing import Annotated

from sensegate.config.setting import ConfigRecord, doc


class MqttConfig(ConfigRecord, frozen=True):
    """The MQTT listener for devices and subscribers: 5.0, 3.1.1 and 3.1, with the certificates of engine.tls."""

    host: Annotated[str, doc("address to listen on; beyond loopback, set engine.tls")] = "127.0.0.1"
    port: Annotated[int, doc("port to listen on; 0: a free port below 32768", least=0, most=65_535)] = 0
    processes: Annotated[
        int, doc("processes that serve it, each on a core of its own; 0: the gateway's own process", least=0, most=64)
    ] = 1
    separate: Annotated[
        bool,
        doc("fronts run apart from the gateway, by `sensegate front`, on this and other machines of the node"),
    ] = False
    packet_bytes_max: Annotated[
        int, doc("largest packet; a client that sends a larger one is disconnected", least=256, most=67_108_864)
    ] = 1_032_192
    connections_max: Annotated[int, doc("most open connections of a process", least=1, most=1_000_000)] = 20_000
    connections_per_address_max: Annotated[
        int, doc("most open connections of a process from one address", least=1, most=1_000_000)
    ] = 20_000
    inflight_max: Annotated[
        int,
        doc("most messages of a connection that await their acknowledgement (Receive Maximum)", least=1, most=65_535),
    ] = 1_000
    queue_bytes_max: Annotated[
        int,
        doc(
            "most bytes of messages that a process has not stored; beyond it no connection is read",
            least=65_536,
            most=17_179_869_184,
        ),
    ] = 64 * 1024**2
    session_expiry_max_h: Annotated[int, doc("longest session without a connection", least=1, most=8_760)] = 168
    connect_timeout_s: Annotated[float, doc("time limit for CONNECT", least=1.0, most=600.0)] = 10.0
