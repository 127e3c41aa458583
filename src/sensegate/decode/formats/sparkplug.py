"""Sparkplug B (Eclipse Sparkplug 3.0): births give names, types, units and aliases; what follows is read by them.

    NBIRTH ─▶ the node's metrics; everything known before is void         its number is 0
    DBIRTH ─▶ a device's metrics
    NDATA, DDATA ─▶ values, mostly by alias                               the next number; after 255 comes 0
    DDEATH ─▶ the device is gone          NDEATH ─▶ the node and all its devices are gone (a will: bdSeq, no number)

The number says what was missed. It jumps ahead: messages were lost, no birth of the node among them (that would have
begun at 0 again), so the births still hold, in doubt. It falls back: the node may have been born anew, nothing holds.
Either way, and wherever a birth is missing, a new one is asked for (NCMD ``Node Control/Rebirth``), and what cannot be
resolved is refused: `unresolved`. The memory begins empty with the process, and `greet` asks every node for its birth
then: one that was missed meanwhile may have given an alias to another metric, which no table kept on disk could tell.

The tree is ``{type, group, node, device?, timestamp?, seq?, bdSeq?, control, count, metrics, tables}``; of `metrics`
each is ``{device, name, value, datatype, properties, time?, historical?, transient?, doubt?}``. What has parts is taken
apart: ``template/member``, ``array/0``, ``data set/0/column``; `tables` holds the rows of each data set as objects. A
metric ``online`` of our own tells of births and deaths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode.formats import json
from sensegate.decode.formats.sparkplug_payload import Metric, Payload, Table, Template, bounded_name, read
from sensegate.decode.formats.sparkplug_session import NUMBERS, Birth, Known, Node
from sensegate.decode.formats.sparkplug_types import UNKNOWN, type_name
from sensegate.decode.frame import MEMBERS_MAX, Format, Frame
from sensegate.decode.memory import DeviceRequest, Memory
from sensegate.decode.protobuf import bytes_field, number_field
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

NAMESPACE = "spBv1.0"
PARTS_MAX = 256
"""Longer arrays and data sets stay whole."""
HINDSIGHT_US = 600_000_000
"""A message that came so long before a birth may still be read by it: that birth was asked for because of it."""
ONLINE = "online"
REBIRTH = "Node Control/Rebirth"
_CONTROL = ("Node Control/", "Device Control/")
_BD_SEQ = "bdSeq"
_OF_NODE = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
_OF_DEVICE = ("DBIRTH", "DDATA", "DDEATH", "DCMD")
_PASSING = ("Quality",)
"""Properties of one value, not of the metric: a birth does not lend them to what follows (6.4.11)."""


class Address(NamedTuple):
    """What a topic says."""

    kind: str
    group: str
    node: str
    device: str = ""
    before: str = ""
    """Levels before the namespace, each with its slash: a bridge has put them there."""

    @property
    def key(self) -> tuple[str, str]:
        """Key of the node in the memory."""
        return "sparkplug", f"{self.before}{self.group}/{self.node}"

    def name_of(self, device: str) -> str:
        """Return the name by which the registry knows the node (empty) or one of its devices."""
        return f"{self.group}/{self.node}/{device}" if device else f"{self.group}/{self.node}"


def address_of(topic: str) -> Address:
    """Return what a topic says. Raises `Rejected` where it is none of Sparkplug's."""
    before, found, rest = f"/{topic}".partition(f"/{NAMESPACE}/")
    levels = rest.split("/")
    before = f"{before[1:]}/" if before else ""
    if found and all(levels):
        if len(levels) == 2 and levels[0] == "STATE":
            return Address("STATE", "", levels[1], before=before)
        if len(levels) == 3 and levels[1] in _OF_NODE:
            return Address(levels[1], levels[0], levels[2], before=before)
        if len(levels) == 4 and levels[1] in _OF_DEVICE:
            return Address(levels[1], levels[0], levels[2], levels[3], before)
    raise Rejected(QuarantineReason.SCHEMA, f"not a topic of Sparkplug: {NAMESPACE}/group/type/node[/device]")


def rebirth(address: Address, received: int) -> DeviceRequest:
    """Return the command that asks a node for all its births; `received`: the time now, µs."""
    now = number_field(1, received // 1_000)
    metric = bytes_field(1, REBIRTH.encode()) + number_field(3, received // 1_000) + number_field(4, 11)
    topic = f"{address.before}{NAMESPACE}/{address.group}/NCMD/{address.node}"
    about = f"{address.before}{NAMESPACE}/{address.group}/NBIRTH/{address.node}"
    return DeviceRequest(topic, now + bytes_field(2, metric + number_field(14, 1)), about)


def greet(name: str, now: int) -> DeviceRequest | None:
    """Return what is asked of a device when nothing is known yet; None where its name is no node's."""
    group, _, node = name.partition("/")
    return rebirth(Address("NCMD", group, node), now) if node and "/" not in node else None


def _unresolved(what: str) -> Rejected:
    return Rejected(QuarantineReason.UNRESOLVED, f"{what}; a new birth is asked for")


def parse(frame: Frame) -> Any:
    """Return the tree of a message. Raises `Rejected` on bytes that are none, and where a birth is missing."""
    address = address_of(frame.topic)
    if address.kind == "STATE":
        return _state(frame, address)
    payload = read(frame.payload, frame.nesting_max)
    memory = Memory() if frame.memory is None else frame.memory
    message = _Message(address, payload, memory, frame.received)
    return message.tree()


def _state(frame: Frame, address: Address) -> dict[str, Any]:
    """Return what a host application says of itself: JSON, or one word before Sparkplug 3.0."""
    tree: dict[str, Any] = {"type": "STATE", "host": address.node}
    if frame.payload in {b"ONLINE", b"OFFLINE"}:
        return {**tree, "online": frame.payload == b"ONLINE"}
    said = json.parse(frame.payload, frame.nesting_max)
    if not isinstance(said, dict) or not isinstance(said.get("online"), bool):
        raise Rejected(QuarantineReason.SCHEMA, "a host says whether it is online")
    return {**said, **tree}


class _Message:
    """One message of a node, against what is known of it."""

    def __init__(self, address: Address, payload: Payload, memory: Memory, received: int) -> None:
        self._address = address
        self._name = address.name_of(address.device)
        self._payload = payload
        self._memory = memory
        self._received = received
        self._node: Node | None = memory.get(address.key)
        self._metrics: list[dict[str, Any]] = []
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._control: dict[str, Any] = {}
        self._left = MEMBERS_MAX

    def tree(self) -> dict[str, Any]:
        """Return the tree, and take what the message says into the memory."""
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
        self._state(device, online=True, time=self._payload.timestamp)
        if device:
            node = self._heard() or Node().heard(self._payload.seq)[0]
            if "" not in node.births:
                self._ask()
        else:
            node = Node(sequence=(self._payload.seq or 0) % NUMBERS, bd_seq=_bd_seq(self._payload.metrics))
            if self._node is not None:
                kept = self._node.births if self._memory.hindsight else {}
                node = msgspec.structs.replace(node, online=self._node.online, births=kept)
        self._keep(node.born(device, birth))
        for metric in self._payload.metrics:
            self._take(metric.name or "", metric, birth.names[metric.name or ""], birth, self._payload.timestamp)

    def _data(self) -> None:
        device = self._address.device
        node = self._heard()
        if node is not None:
            self._keep(node)
        birth = node.births.get(device) if node is not None else None
        if birth is not None and self._memory.hindsight and birth.received - self._received > HINDSIGHT_US:
            birth = None  # of another life, perhaps
        if node is None or birth is None:
            self._ask()
            raise _unresolved(f"no birth of {self._address.name_of(device)} was heard")
        for metric in self._payload.metrics:
            known = birth.names.get(metric.name) if metric.name else birth.aliases.get(_alias(metric))
            if known is None and (not metric.name or metric.datatype is None):
                self._ask()
                what = f"'{metric.name}'" if metric.name else f"alias {metric.alias}"
                raise _unresolved(f"{what} is in no birth of {self._address.name_of(device)}")
            name = known.name if known else metric.name or ""
            self._take(name, metric, known, birth, self._payload.timestamp, doubt=node.doubt)

    def _death(self) -> None:
        device, known = self._address.device, self._node
        if device:
            self._state(device, online=False, time=self._payload.timestamp)
            node = self._heard()
            if node is None:
                self._ask()
            else:
                self._keep(node if self._memory.hindsight else node.without(device))
            return
        bd_seq = _bd_seq(self._payload.metrics)
        if bd_seq is not None:
            self._control[_BD_SEQ] = bd_seq
        if known is not None and None not in {known.bd_seq, bd_seq} and known.bd_seq != bd_seq:
            return  # the will of an earlier life, which the next birth has overtaken
        # The time in a will is that of the connection's beginning: the arrival tells more.
        for name in ("", *sorted(known.online if known else ())):
            self._state(name, online=False, time=None)
        if not self._memory.hindsight:
            self._memory.drop(self._address.key)

    def _command(self) -> None:
        for metric in self._payload.metrics:
            name = metric.name or f"alias {metric.alias}"
            self._control[name] = metric.read(None)

    # ── memory ───────────────────────────────────────────────────────────────────────────────────────

    def _heard(self) -> Node | None:
        """Return the node after this message's number; ask for births where numbers are missing."""
        if self._node is None or self._memory.hindsight:
            return self._node
        node, missed = self._node.heard(self._payload.seq)
        if missed:
            self._ask()
        return node

    def _keep(self, node: Node) -> None:
        if node is not self._node:
            self._memory.put(self._address.key, node, node.size)

    def _ask(self) -> None:
        if not self._memory.hindsight:
            self._memory.request(rebirth(self._address, self._received))

    # ── metrics ──────────────────────────────────────────────────────────────────────────────────────

    def _state(self, device: str, *, online: bool, time: int | None) -> None:
        found = {"device": self._address.name_of(device), "name": ONLINE, "value": online, "properties": {}}
        self._metrics.append(found if time is None else {**found, "time": time})

    def _take(
        self, name: str, metric: Metric, known: Known | None, birth: Birth, time: int | None, *, doubt: bool = False
    ) -> None:
        """Put a metric and its parts among the tree's; `time`: of what it is part of, ms."""
        datatype = metric.datatype if metric.datatype is not None else known.datatype if known else None
        if name == _BD_SEQ or name.startswith(_CONTROL):
            self._control[name] = metric.read(datatype)
            return
        time = metric.timestamp if metric.timestamp is not None else time
        raw = None if metric.null or metric.value is None else metric.value.raw
        if isinstance(raw, Template):
            for member in raw.metrics if not raw.definition else ():
                inner = bounded_name(f"{name}/{member.name or _alias(member)}")
                self._take(inner, member, birth.names.get(inner), birth, time, doubt=doubt)
            return
        value = metric.read(datatype)
        one: dict[str, Any] = {
            "device": self._name,
            "name": name,
            "value": value,
            "datatype": type_name(datatype or UNKNOWN),
            "properties": self._properties(known, metric),
        }
        if time is not None:
            one["time"] = time
        if metric.historical:
            one["historical"] = True
        if metric.transient:
            one["transient"] = True
        if doubt:
            one["doubt"] = True
        if isinstance(value, (list, dict)):
            self._metrics += [{**one, "name": part, "value": item} for part, item in self._parts(name, value, raw)]
        else:
            self._count(1)
            self._metrics.append(one)

    def _properties(self, known: Known | None, metric: Metric) -> Mapping[str, Any]:
        """Return a value's properties: those of the birth, with what came with the value."""
        lasting = known.properties if known else {}
        if not metric.properties or not lasting:
            return metric.properties or lasting
        self._count(len(lasting))
        return {**lasting, **metric.properties}

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} values")

    def _parts(self, name: str, value: Any, raw: Any) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of each part of a value that has parts, else of the value itself."""
        if isinstance(raw, Table):
            self._tables[name] = [dict(zip(raw.columns, row, strict=True)) for row in raw.rows]
        if isinstance(raw, Table) and len(raw.rows) * len(raw.columns) <= PARTS_MAX:
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


def _alias(metric: Metric) -> int:
    return -1 if metric.alias is None else metric.alias


def _bd_seq(metrics: tuple[Metric, ...]) -> int | None:
    found = next((metric.read(None) for metric in metrics if metric.name == _BD_SEQ), None)
    return found if isinstance(found, int) else None


def _birth_of(metrics: tuple[Metric, ...], received: int) -> Birth:
    """Return what a birth says of its metrics and of their members."""
    names: dict[str, Known] = {}
    aliases: dict[int, Known] = {}
    for name, metric in _all(metrics, ""):
        lasting = {key: value for key, value in (metric.properties or {}).items() if key not in _PASSING}
        known = names[name] = Known(name, metric.datatype, lasting)
        if metric.alias is not None and aliases.setdefault(metric.alias, known) is not known:
            raise Rejected(QuarantineReason.SCHEMA, f"alias {metric.alias} is given to two metrics")
    return Birth(names, aliases, received)


def _all(metrics: tuple[Metric, ...], before: str) -> Iterator[tuple[str, Metric]]:
    for metric in metrics:
        if not metric.name:
            raise Rejected(QuarantineReason.SCHEMA, "a birth names all its metrics")
        name = bounded_name(f"{before}{metric.name}")
        yield name, metric
        raw = metric.value.raw if metric.value else None
        if isinstance(raw, Template):
            yield from _all(raw.metrics, f"{name}/")


FORMAT: Final = Format(lambda _options, _setting: parse, remembers=True, greet=greet)
