"""Publishes the numbers 0 to COUNT - 1 at QoS 1 with awscrt: ``python awscrt_client.py PORT LEVEL COUNT``.

A process of its own: the library's threads end with it.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

from awscrt import io, mqtt, mqtt5

WAIT_S = 30


def _bootstrap() -> io.ClientBootstrap:
    group = io.EventLoopGroup(1)
    return io.ClientBootstrap(group, io.DefaultHostResolver(group))


def _by_3_1_1(port: int, payloads: list[bytes]) -> None:
    connection = mqtt.Connection(
        mqtt.Client(_bootstrap()),
        "127.0.0.1",
        port,
        client_id="d1",
        username="d1",
        password="right",
        disable_metrics=True,  # they are appended to the user name
    )
    connection.connect().result(WAIT_S)
    for sent, _ in [connection.publish("up/d1", payload, mqtt.QoS.AT_LEAST_ONCE) for payload in payloads]:
        sent.result(WAIT_S)
    connection.disconnect().result(WAIT_S)


def _by_5(port: int, payloads: list[bytes]) -> None:
    connected: Future[None] = Future()
    stopped: Future[None] = Future()
    client = mqtt5.Client(
        mqtt5.ClientOptions(
            host_name="127.0.0.1",
            port=port,
            bootstrap=_bootstrap(),
            disable_metrics=True,
            connect_options=mqtt5.ConnectPacket(client_id="d1", username="d1", password="right"),
            on_lifecycle_event_connection_success_fn=lambda _: connected.set_result(None),
            on_lifecycle_event_stopped_fn=lambda _: stopped.set_result(None),
        )
    )
    client.start()
    connected.result(WAIT_S)
    packets = [mqtt5.PublishPacket(topic="up/d1", payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE) for payload in payloads]
    answers: list[Any] = [client.publish(packet).result(WAIT_S) for packet in packets]
    assert {answer.puback.reason_code for answer in answers} == {mqtt5.PubackReasonCode.SUCCESS}, answers[0].puback
    client.stop()
    stopped.result(WAIT_S)


if __name__ == "__main__":
    listening, level, count = map(int, sys.argv[1:])
    numbers = [str(number).encode() for number in range(count)]
    (_by_5 if level == 5 else _by_3_1_1)(listening, numbers)
