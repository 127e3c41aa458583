"""Deliveries to a topic of a subscriber's own MQTT broker, under the egress rules of HTTP addresses.

Each delivery has a connection of its own to an address that was judged, and is accepted once the broker has
acknowledged it (QoS 1 or 2), or once it is sent (QoS 0).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
import weakref
from concurrent.futures import Executor
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from sensegate.authority.egress import URL_MAX, Egress, EgressDenied, EgressResolver, dialled_host
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport

CONNECTIONS_MAX, PER_ADDRESS_MAX = 32, 4
"""Most deliveries at a time, and to one address, so that one that does not answer holds up few others."""
TOPIC_MAX = 1_024
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_STEP_S = 0.2
_VERSIONS = {"mqtt3.1.1": MQTTProtocolVersion.MQTTv311, "mqtt5.0": MQTTProtocolVersion.MQTTv5}


class BrokerTopic(msgspec.Struct, frozen=True):
    """Topic of a broker, as a URL names it."""

    host: str
    port: int
    topic: str
    user: str = ""
    password: str = ""
    is_encrypted: bool = False


def parse_broker_url(url: str) -> BrokerTopic:
    """Return the topic of ``mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC``. Raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        host, port = dialled_host(url), parts.port
    except ValueError:
        raise _bad("is not a URL", "give mqtts://HOST/TOPIC") from None
    if len(url) > URL_MAX or not url.isprintable() or " " in url:
        raise _bad("is too long, or has spaces or control characters", "give mqtts://HOST/TOPIC")
    if parts.scheme not in _PORTS or not host or ("%" in host and ":" not in host) or set("?#") & set(url):
        raise _bad("is not mqtts://HOST/TOPIC", "give the address of a broker with a topic")
    topic = unquote(parts.path.removeprefix("/"))
    if not topic or len(topic) > TOPIC_MAX or not topic.isprintable() or set("+#") & set(topic) or topic[0] == "$":
        raise _bad("has no topic, or one with + or #", "give mqtts://HOST/TOPIC/SUBTOPIC")
    return BrokerTopic(
        host,
        port or _PORTS[parts.scheme],
        topic,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        is_encrypted=parts.scheme == "mqtts",
    )


class OutboundBrokers:
    """Brokers of subscribers; `transport` makes the transport of a subscription."""

    def __init__(self, egress: Egress, executor: Executor, timeout_s: float) -> None:
        """`executor`: runs connections, at most as many at a time as it has threads."""
        self._egress = egress
        self._executor = executor
        self._timeout_s = timeout_s
        self._turns: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    def transport(self, *, qos: int, version: str) -> PushTransport:
        """Return a transport that publishes at a QoS, by ``mqtt3.1.1`` or ``mqtt5.0``."""
        return _BrokerTransport(self, qos, version)

    def check(self, target: str) -> BrokerTopic:
        """Return the topic of a URL if deliveries to it are allowed by its text. Raises `ConfigError`."""
        topic = parse_broker_url(target)
        self._egress.check_host(topic.host, encrypted="" if topic.is_encrypted else "mqtts")
        return topic

    async def publish(self, delivery: OutboundDelivery, qos: int, version: str) -> DeliveryResult:
        """Attempt one delivery within the time limit."""
        try:
            topic = self.check(delivery.target)
            async with asyncio.timeout(self._timeout_s):
                resolved = await EgressResolver(self._egress).resolve(topic.host, topic.port)
            address = resolved[0]["host"]
        except (ConfigError, EgressDenied) as why:
            return DeliveryResult(accepted=False, reason=str(why))
        except (TimeoutError, OSError, IndexError):
            return DeliveryResult(accepted=False, reason="the name cannot be resolved")
        publication = _Publication(topic, address, qos, version, self._timeout_s)
        turn = self._turns.get(address)
        if turn is None:
            turn = self._turns[address] = asyncio.Semaphore(PER_ADDRESS_MAX)
        async with turn:
            loop = asyncio.get_running_loop()
            reason = await loop.run_in_executor(self._executor, publication.send, delivery.body)
        return DeliveryResult(accepted=not reason, reason=reason)


class _BrokerTransport:
    """Transport of one subscription; a `PushTransport`."""

    def __init__(self, brokers: OutboundBrokers, qos: int, version: str) -> None:
        self._brokers = brokers
        self._qos = qos
        self._version = version

    def check(self, target: str) -> None:
        self._brokers.check(target)

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        return await self._brokers.publish(delivery, self._qos, self._version)


class _Client(paho.Client):
    """Client that dials an address that was judged, whatever its host resolves to a moment later."""

    address: str
    address_port: int

    def _create_socket_connection(self) -> socket.socket:
        # Overridden because paho resolves the name itself, and has no public hook for the connection.
        return socket.create_connection((self.address, self.address_port), timeout=self.connect_timeout)


class _Publication:
    """Publication of one message to a broker, in a thread of its own."""

    def __init__(self, topic: BrokerTopic, address: str, qos: int, version: str, timeout_s: float) -> None:
        self._topic = topic
        self._qos = qos
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._refused = ""
        self._connected = False
        self._client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"sensegate-{secrets.token_hex(6)}",
            protocol=_VERSIONS[version],
            reconnect_on_failure=False,
        )
        client.address, client.address_port = address, topic.port
        client.connect_timeout = timeout_s
        if topic.user:
            client.username_pw_set(topic.user, topic.password or None)
        if topic.is_encrypted:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish

    def send(self, body: bytes) -> str:
        """Publish; return why it was not accepted, or nothing."""
        self._deadline = time.monotonic() + self._timeout_s
        client = self._client
        try:
            client.connect(self._topic.host, self._topic.port)
            if not self._until(lambda: self._connected):
                return self._refused or "the broker does not answer, or has closed the connection"
            sent = client.publish(self._topic.topic, body, qos=self._qos)
            if not self._until(sent.is_published):
                return self._refused or "the broker does not acknowledge the message"
            client.disconnect()
        except (ssl.SSLError, ssl.CertificateError):
            return "the certificate is not trusted, or TLS failed"
        except (OSError, ValueError, RuntimeError):
            return "the connection failed"
        finally:
            if (open_socket := client.socket()) is not None:
                open_socket.close()
        return self._refused

    def _until(self, is_done: Any) -> bool:
        """Handle packets until something holds; False: it does not in time, or was refused."""
        while not is_done() and not self._refused:
            if time.monotonic() > self._deadline or self._client.loop(_STEP_S) is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        return bool(is_done()) and not self._refused

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"the broker refuses the connection: {reason}"
        self._connected = True

    def _on_publish(self, _client: Any, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"the broker refuses the message: {reason}"


def _bad(problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, key="url", remedy=remedy)
