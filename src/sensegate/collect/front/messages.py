"""Messages between fronts and their gateway, over core NATS: admission, disconnection, reports.

front ──front.admit──▶ gateway      which device is this, and what may it do? several clients in one request
gateway ──front.close──▶ fronts     credentials or rights have changed: close, and ask again when it comes back
front ──front.report──▶ gateway     refused operations, limits that were reached, connections
front ──front.hello──▶ fronts       who else is there?
front ──front.arriving──▶ fronts    a client that is no device connects here: the broker will close its older connection
front ──front.connected──▶ fronts   a client has connected here: close its older connection
front ──front.service.*──▶ gateway  a client that is no device publishes, or subscribes at a service of the gateway
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from sensegate.collect.front.limits import FrontLimits
from sensegate.config import EngineConfig

ADMIT, CHECK, CLOSE = "front.admit", "front.check", "front.close"
REPORT, CONNECTED, ARRIVING, HELLO = "front.report", "front.connected", "front.arriving", "front.hello"
SERVICE_PUBLISH, SERVICE_SUBSCRIBE = "front.service.publish", "front.service.subscribe"
"""Subjects of services; the service name follows the first as one more level."""
QUESTIONS_MAX = 500
"""Most clients in one request."""


class Question(msgspec.Struct, frozen=True, array_like=True):
    """A client that connects."""

    user: str
    password: str
    address: str
    common_name: str = ""
    """Common name of the client's certificate; empty: it has shown none."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The registry's decision on a client."""

    is_known: bool
    """False: it is no device, the broker behind decides."""
    is_admitted: bool = False
    until: int = 0
    """End of the validity of the credential, µs UTC; 0: none."""
    publish: tuple[str, ...] = ()
    """Topic filters to which it may publish."""
    subscribe: tuple[str, ...] = ()
    best_effort: tuple[str, ...] = ()
    """Topic filters of which messages at QoS 0 are taken."""
    credential: bytes = b""
    """Hash of the device's credentials."""

    @property
    def state(self) -> bytes:
        """Hash by which a change of the rights is seen."""
        rights = (self.publish, self.subscribe, self.best_effort, self.credential)
        return hashlib.blake2b(msgspec.msgpack.encode(rights), digest_size=16).digest()


class Questions(msgspec.Struct, frozen=True, array_like=True):
    """A request of a front."""

    questions: tuple[Question, ...]


class Answers(msgspec.Struct, frozen=True, array_like=True):
    """The response, in the order of the questions."""

    answers: tuple[Answer, ...]


class Check(msgspec.Struct, frozen=True, array_like=True):
    """Devices with `Answer.credential` and `Answer.state` by which they were admitted."""

    states: Mapping[str, tuple[bytes, bytes]]


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """The response to `Check`."""

    close: tuple[str, ...]
    """Devices that may not stay connected, or not with that credential."""
    rights: Mapping[str, Answer]
    """Devices that may, with other rights."""


class Close(msgspec.Struct, frozen=True, array_like=True):
    """Users whose connections are to be closed; empty: a front is to check all."""

    users: tuple[str, ...]


class Arriving(msgspec.Struct, frozen=True, array_like=True):
    """A client that is no device connects to a front; the broker behind has not answered yet."""

    front: str
    user: str
    client_id: str


class Connected(msgspec.Struct, frozen=True, array_like=True):
    """A client has connected to a front: a device, or by its user name another one."""

    front: str
    device: str
    client_id: str
    born: int
    clean: bool = False
    """True if its session begins anew."""


class RefusedOperation(msgspec.Struct, frozen=True, array_like=True):
    """A refused operation, as often as it was met."""

    user: str
    operation: str
    detail: str
    address: str
    count: int


class Report(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a front since its last report, and its current state."""

    front: str
    refusals: tuple[RefusedOperation, ...]
    limits: Mapping[str, int]
    connections: int
    queued_bytes: int
    problem: str
    """Reason why messages are not stored now; empty: they are stored."""


class ServicePublish(msgspec.Struct, frozen=True, array_like=True):
    """A message that a client publishes. The broker behind has verified its token."""

    token: str
    service: str
    topic: str
    payload: bytes


class ServiceSubscribe(msgspec.Struct, frozen=True, array_like=True):
    """Topics to which a client of a service subscribes."""

    token: str
    service: str
    topics: tuple[str, ...]


class ServiceCodes(msgspec.Struct, frozen=True, array_like=True):
    """The response: a reason code of MQTT 5.0 for the message, or for each topic."""

    codes: tuple[int, ...]


class FrontSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that a front process reads at its start; they hold secrets."""

    name: str
    host: str
    port: int
    limits: FrontLimits
    engine: EngineConfig
    urls: tuple[str, ...]
    user: str
    password: str
    inbox_prefix: str
    broker_host: str
    broker_port: int
    """0: there is no broker behind."""
    facts_key: bytes
    sessions_bytes_max: int = 256 * 1024**2
    """Size limit of the bucket of sessions."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
