"""Sparkplug B (Eclipse Sparkplug 3.0): births define names, types, units and aliases, by which later data is decoded.

    NBIRTH ─▶ the node's metrics; all earlier state is void               its sequence number is 0
    DBIRTH ─▶ a device's metrics
    NDATA, DDATA ─▶ values, mostly by alias                               the next number; after 255 comes 0
    DDEATH ─▶ the device is offline       NDEATH ─▶ the node and all its devices are (a will: bdSeq, no number)

The sequence number reveals missed messages. If it jumps forward, messages were lost, but no node birth (that would have
restarted it at 0), so the births remain valid, with doubt. If it falls back, the node may have been born again, and
nothing is valid. In both cases, and if a birth is missing, a rebirth is requested (NCMD ``Node Control/Rebirth``), and
what cannot be resolved is refused: `unresolved`. The memory starts empty with the process, and `initial_request` then
asks every node for its birth: one missed meanwhile may have reassigned an alias, which no table on disk could tell.

The tree is ``{type, group, node, device?, timestamp?, seq?, bdSeq?, control, count, metrics, tables}``; each of
`metrics` is ``{device, name, value, datatype, properties, time?, historical?, transient?, doubt?}``. Composite values
are split: ``template/member``, ``array/0``, ``data set/0/column``; `tables` holds the rows of each data set as objects.
A metric ``online`` is added for births and deaths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode.formats import json
from sensegate.decode.formats.sparkplug_columns import DataColumns, values_of, varint_of
from sensegate.decode.formats.sparkplug_payload import (
    DataSet,
    SparkplugMetric,
    SparkplugPayload,
    SparkplugTemplate,
    bounded_name,
    read,
)
from sensegate.decode.formats.sparkplug_session import NUMBERS, Birth, BirthModels, MetricDefinition, NodeSession
from sensegate.decode.formats.sparkplug_types import UNKNOWN, type_name
from sensegate.decode.frame import MEMBERS_MAX, FormedTree, OrderedParse, PayloadFormat, PayloadFrame
from sensegate.decode.memory import DecoderMemory, DeviceRequest
from sensegate.decode.protobuf import bytes_field, number_field
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

NAMESPACE = "spBv1.0"
PARTS_MAX = 256
"""Longer arrays and data sets are not split."""
HINDSIGHT_US = 600_000_000
"""A message up to this long before a birth may be decoded by it: that birth was requested because of the message."""
ONLINE = "online"
REBIRTH = "Node Control/Rebirth"
_CONTROL = ("Node Control/", "Device Control/")
_BD_SEQ = "bdSeq"
_OF_NODE = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
_OF_DEVICE = ("DBIRTH", "DDATA", "DDEATH", "DCMD")
_DATA = frozenset({"NDATA", "DDATA"})
_MODELS: Final = BirthModels()
_TRANSIENT_PROPERTIES = ("Quality",)
"""Properties of a single value, not of the metric: a birth does not pass them on to later values (6.4.11)."""


class SparkplugTopic(NamedTuple):
    """A parsed topic."""

    kind: str
    group: str
    node: str
    device: str = ""
    prefix: str = ""
    """Levels before the namespace, each with its slash, as a bridge adds them."""

    @property
    def key(self) -> tuple[str, str]:
        """Key of the node in the memory."""
        return "sparkplug", f"{self.prefix}{self.group}/{self.node}"

    def name_of(self, device: str) -> str:
        """Return the name under which the registry knows the node (empty) or one of its devices."""
        return f"{self.group}/{self.node}/{device}" if device else f"{self.group}/{self.node}"


def parse_topic(topic: str) -> SparkplugTopic:
    """Parse a topic. Raises `Rejected` if it is not one of Sparkplug's."""
    prefix, namespace, rest = f"/{topic}".partition(f"/{NAMESPACE}/")
    levels = rest.split("/")
    prefix = f"{prefix[1:]}/" if prefix else ""
    if namespace and all(levels):
        if len(levels) == 2 and levels[0] == "STATE":
            return SparkplugTopic("STATE", "", levels[1], prefix=prefix)
        if len(levels) == 3 and levels[1] in _OF_NODE:
            return SparkplugTopic(levels[1], levels[0], levels[2], prefix=prefix)
        if len(levels) == 4 and levels[1] in _OF_DEVICE:
            return SparkplugTopic(levels[1], levels[0], levels[2], levels[3], prefix)
    raise Rejected(QuarantineReason.SCHEMA, f"the topic is not one of Sparkplug: {NAMESPACE}/group/type/node[/device]")


def rebirth(address: SparkplugTopic, received: int) -> DeviceRequest:
    """Return the command that requests all births of a node; `received`: the current time, µs."""
    now = number_field(1, received // 1_000)
    metric = bytes_field(1, REBIRTH.encode()) + number_field(3, received // 1_000) + number_field(4, 11)
    topic = f"{address.prefix}{NAMESPACE}/{address.group}/NCMD/{address.node}"
    about = f"{address.prefix}{NAMESPACE}/{address.group}/NBIRTH/{address.node}"
    return DeviceRequest(topic, now + bytes_field(2, metric + number_field(14, 1)), about)


def initial_request(name: str, now: int) -> DeviceRequest | None:
    """Return the request to a device when nothing is known yet; None if its name is not a node's."""
    group, _, node = name.partition("/")
    return rebirth(SparkplugTopic("NCMD", group, node), now) if node and "/" not in node else None


def _unresolved(detail: str) -> Rejected:
    return Rejected(QuarantineReason.UNRESOLVED, f"{detail}; a rebirth is requested")


class SparkplugParse(OrderedParse):
    """The parse of messages, and of data messages of a known layout into flat values."""

    key = "sparkplug"

    def __init__(self) -> None:
        self._columns = DataColumns(_is_control)

    def __call__(self, frame: PayloadFrame) -> Any:
        """Parse one message."""
        return parse(frame)

    def read(self, frame: PayloadFrame) -> Any:
        """Return the values of a message that has a form, else its tree. Raises `Rejected`."""
        return self.formed(frame) or parse(frame)

    def formed(self, frame: PayloadFrame) -> FormedTree | None:
        """Return the values of a data message, and update the memory; None, and no change: it has no form."""
        memory, address = frame.memory, _address_of(frame.topic)
        if memory is None or memory.hindsight or address is None or address.kind not in _DATA:
            return None
        layout = self._columns.layout(frame.payload)
        node: NodeSession | None = memory.get(address.key)
        birth = node.births.get(address.device) if node is not None and not node.doubt else None
        if node is None or birth is None or layout is None:
            return None
        resolved = self._columns.resolve(layout, birth, of_device=bool(address.device))
        raws = layout.unpack(frame.payload)
        after, missed = node.advance(varint_of(raws[layout.sequence]) if layout.sequence >= 0 else None)
        if resolved is None or missed:
            return None
        head = (address.kind, address.group, address.node, *((address.device,) if address.device else ()))
        try:
            values = values_of(layout, resolved, raws, head, address.name_of(address.device))
        except (Rejected, UnicodeDecodeError):
            return None
        if after is not node:
            memory.put(address.key, after, after.size)
        return FormedTree(resolved.form, values, lambda: _data_tree(frame, address, after))


def _is_control(name: str) -> bool:
    return name == _BD_SEQ or name.startswith(_CONTROL)


_TOPIC_MAX: Final = 256
"""Longest topic that is kept once it was read, in characters."""


def _address_of(topic: str) -> SparkplugTopic | None:
    """Return a parsed topic, None if it is not one of Sparkplug's."""
    return _kept_address(topic) if len(topic) <= _TOPIC_MAX else _address(topic)


def _address(topic: str) -> SparkplugTopic | None:
    try:
        return parse_topic(topic)
    except Rejected:
        return None


_kept_address = lru_cache(65_536)(_address)


def _data_tree(frame: PayloadFrame, address: SparkplugTopic, node: NodeSession) -> dict[str, Any]:
    """Return the tree of a data message, given the state of its node after it."""
    memory = DecoderMemory()
    memory.put(address.key, node, node.size)
    return _Message(address, read(frame.payload, frame.nesting_max), memory, frame.received).tree()


def parse(frame: PayloadFrame) -> Any:
    """Return the tree of a message. Raises `Rejected` on malformed bytes, and if a birth is missing."""
    address = parse_topic(frame.topic)
    if address.kind == "STATE":
        return _state(frame, address)
    payload = read(frame.payload, frame.nesting_max)
    memory = DecoderMemory() if frame.memory is None else frame.memory
    message = _Message(address, payload, memory, frame.received)
    return message.tree()


def _state(frame: PayloadFrame, address: SparkplugTopic) -> dict[str, Any]:
    """Return the state of a host application: JSON, or one word before Sparkplug 3.0."""
    tree: dict[str, Any] = {"type": "STATE", "host": address.node}
    if frame.payload in {b"ONLINE", b"OFFLINE"}:
        return {**tree, "online": frame.payload == b"ONLINE"}
    state = json.parse(frame.payload, frame.nesting_max)
    if not isinstance(state, dict) or not isinstance(state.get("online"), bool):
        raise Rejected(QuarantineReason.SCHEMA, "the host's state lacks `online`")
    return {**state, **tree}


class _Message:
    """A message of a node, decoded with the known state of the node."""

    def __init__(
        self, address: SparkplugTopic, payload: SparkplugPayload, memory: DecoderMemory, received: int
    ) -> None:
        self._address = address
        self._name = address.name_of(address.device)
        self._payload = payload
        self._memory = memory
        self._received = received
        self._node: NodeSession | None = memory.get(address.key)
        self._metrics: list[dict[str, Any]] = []
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._control: dict[str, Any] = {}
        self._remaining = MEMBERS_MAX

    def tree(self) -> dict[str, Any]:
        """Return the tree, and update the memory."""
        address, payload = self._address, self._payload
        kind = address.kind[1:]
        if kind == "BIRTH":
            self._birth()
        elif kind == "DATA":
            self._data()
        elif kind == "DEATH":
            self._death()
        else:
            self._command()
        tree: dict[str, Any] = {"type": address.kind, "group": address.group, "node": address.node}
        if address.device:
            tree["device"] = address.device
        if payload.timestamp is not None:
            tree["timestamp"] = payload.timestamp
        if payload.seq is not None:
            tree["seq"] = payload.seq
        if _BD_SEQ in self._control:
            tree[_BD_SEQ] = self._control.pop(_BD_SEQ)
        return {
            **tree,
            "control": self._control,
            "count": len(self._metrics),
            "metrics": self._metrics,
            "tables": self._tables,
        }

    # ── kinds of messages ────────────────────────────────────────────────────────────────────────────

    def _birth(self) -> None:
        device = self._address.device
        birth = _birth_of(self._payload.metrics, self._received)
        self._add_online(device, online=True, time=self._payload.timestamp)
        if device:
            node = self._advance() or NodeSession().advance(self._payload.seq)[0]
            if "" not in node.births:
                self._request_rebirth()
        else:
            sequence, bd_seq = (self._payload.seq or 0) % NUMBERS, _bd_seq(self._payload.metrics)
            node = self._node or NodeSession()
            if self._memory.hindsight:
                node = msgspec.structs.replace(node, sequence=sequence, bd_seq=bd_seq, doubt=False)
            else:
                node = node.without_births(sequence, bd_seq)
        self._store(node.with_birth(device, birth))
        for metric in self._payload.metrics:
            self._add_metric(metric.name or "", metric, birth.names[metric.name or ""], birth, self._payload.timestamp)

    def _data(self) -> None:
        device = self._address.device
        node = self._advance()
        if node is not None:
            self._store(node)
        birth = node.births.get(device) if node is not None else None
        if birth is not None and self._memory.hindsight and birth.received - self._received > HINDSIGHT_US:
            birth = None  # perhaps of another session
        if node is None or birth is None:
            self._request_rebirth()
            raise _unresolved(f"there is no birth of {self._address.name_of(device)}")
        for metric in self._payload.metrics:
            known = birth.names.get(metric.name) if metric.name else birth.aliases.get(_alias(metric))
            if known is None and (not metric.name or metric.datatype is None):
                self._request_rebirth()
                subject = f"'{metric.name}'" if metric.name else f"alias {metric.alias}"
                raise _unresolved(f"{subject} is in no birth of {self._address.name_of(device)}")
            name = known.name if known else metric.name or ""
            self._add_metric(name, metric, known, birth, self._payload.timestamp, doubt=node.doubt)

    def _death(self) -> None:
        device, known = self._address.device, self._node
        if device:
            self._add_online(device, online=False, time=self._payload.timestamp)
            node = self._advance()
            if node is None:
                self._request_rebirth()
            else:
                self._store(node if self._memory.hindsight else node.without_device(device))
            return
        bd_seq = _bd_seq(self._payload.metrics)
        if bd_seq is not None:
            self._control[_BD_SEQ] = bd_seq
        if known is not None and None not in {known.bd_seq, bd_seq} and known.bd_seq != bd_seq:
            return  # the will of an earlier session, which a later birth has replaced
        # The time in a will is that of the start of the connection: the time of arrival is better.
        for name in ("", *sorted(known.online if known else ())):
            self._add_online(name, online=False, time=None)
        if not self._memory.hindsight:
            self._memory.drop(self._address.key)

    def _command(self) -> None:
        for metric in self._payload.metrics:
            name = metric.name or f"alias {metric.alias}"
            self._control[name] = metric.read(None)

    # ── memory ───────────────────────────────────────────────────────────────────────────────────────

    def _advance(self) -> NodeSession | None:
        """Return the node after this message's sequence number; request a rebirth if messages are missing."""
        if self._node is None or self._memory.hindsight:
            return self._node
        node, missed = self._node.advance(self._payload.seq)
        if missed:
            self._request_rebirth()
        return node

    def _store(self, node: NodeSession) -> None:
        if node is not self._node:
            self._memory.put(self._address.key, node, node.size)

    def _request_rebirth(self) -> None:
        if not self._memory.hindsight:
            self._memory.request(rebirth(self._address, self._received))

    # ── metrics ──────────────────────────────────────────────────────────────────────────────────────

    def _add_online(self, device: str, *, online: bool, time: int | None) -> None:
        metric = {"device": self._address.name_of(device), "name": ONLINE, "value": online, "properties": {}}
        self._metrics.append(metric if time is None else {**metric, "time": time})

    def _add_metric(
        self,
        name: str,
        metric: SparkplugMetric,
        known: MetricDefinition | None,
        birth: Birth,
        time: int | None,
        *,
        doubt: bool = False,
    ) -> None:
        """Add a metric and its members to the tree; `time`: that of the enclosing element, ms."""
        datatype = metric.datatype if metric.datatype is not None else known.datatype if known else None
        if _is_control(name):
            self._control[name] = metric.read(datatype)
            return
        time = metric.timestamp if metric.timestamp is not None else time
        raw = None if metric.null or metric.value is None else metric.value.raw
        if isinstance(raw, SparkplugTemplate):
            for member in raw.metrics if not raw.definition else ():
                inner = bounded_name(f"{name}/{member.name or _alias(member)}")
                self._add_metric(inner, member, birth.names.get(inner), birth, time, doubt=doubt)
            return
        value = metric.read(datatype)
        entry: dict[str, Any] = {
            "device": self._name,
            "name": name,
            "value": value,
            "datatype": type_name(datatype or UNKNOWN),
            "properties": self._properties(known, metric),
        }
        if time is not None:
            entry["time"] = time
        if metric.historical:
            entry["historical"] = True
        if metric.transient:
            entry["transient"] = True
        if doubt:
            entry["doubt"] = True
        if isinstance(value, (list, dict)):
            self._metrics += [{**entry, "name": part, "value": item} for part, item in self._split(name, value, raw)]
        else:
            self._count(1)
            self._metrics.append(entry)

    def _properties(self, known: MetricDefinition | None, metric: SparkplugMetric) -> Mapping[str, Any]:
        """Return a value's properties: those of the birth, overridden by those sent with the value."""
        lasting = known.properties if known else {}
        if not metric.properties or not lasting:
            return metric.properties or lasting
        self._count(len(lasting))
        return {**lasting, **metric.properties}

    def _count(self, items: int) -> None:
        self._remaining -= items
        if self._remaining < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} values")

    def _split(self, name: str, value: Any, raw: Any) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) for each part of a composite value, else for the value itself."""
        if isinstance(raw, DataSet):
            self._tables[name] = [dict(zip(raw.columns, row, strict=True)) for row in raw.rows]
        if isinstance(raw, DataSet) and len(raw.rows) * len(raw.columns) <= PARTS_MAX:
            cells = [
                (f"{name}/{index}/{column}", cell)
                for index, row in enumerate(raw.rows)
                for column, cell in zip(raw.columns, row, strict=True)
            ]
        elif isinstance(value, list) and len(value) <= PARTS_MAX:
            cells = [(f"{name}/{index}", item) for index, item in enumerate(value)]
        else:
            cells = [(name, value)]
        self._count(len(value) if isinstance(value, list) else len(cells))
        yield from cells


def _alias(metric: SparkplugMetric) -> int:
    return -1 if metric.alias is None else metric.alias


def _bd_seq(metrics: tuple[SparkplugMetric, ...]) -> int | None:
    value = next((metric.read(None) for metric in metrics if metric.name == _BD_SEQ), None)
    return value if isinstance(value, int) else None


def _birth_of(metrics: tuple[SparkplugMetric, ...], received: int) -> Birth:
    """Return the definitions that a birth gives for its metrics and their members."""
    names: dict[str, MetricDefinition] = {}
    aliases: dict[int, MetricDefinition] = {}
    for name, metric in _flat_metrics(metrics, ""):
        lasting = {key: value for key, value in (metric.properties or {}).items() if key not in _TRANSIENT_PROPERTIES}
        known = names[name] = MetricDefinition(name, metric.datatype, lasting)
        if metric.alias is not None and aliases.setdefault(metric.alias, known) is not known:
            raise Rejected(QuarantineReason.SCHEMA, f"alias {metric.alias} is used for two metrics")
    return _MODELS.numbered(Birth(names, aliases, received))


def _flat_metrics(metrics: tuple[SparkplugMetric, ...], prefix: str) -> Iterator[tuple[str, SparkplugMetric]]:
    for metric in metrics:
        if not metric.name:
            raise Rejected(QuarantineReason.SCHEMA, "a birth must name all its metrics")
        name = bounded_name(f"{prefix}{metric.name}")
        yield name, metric
        raw = metric.value.raw if metric.value else None
        if isinstance(raw, SparkplugTemplate):
            yield from _flat_metrics(raw.metrics, f"{name}/")


FORMAT: Final = PayloadFormat(
    lambda _options, _setting: SparkplugParse(), remembers=True, initial_request=initial_request
)
