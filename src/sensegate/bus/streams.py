"""Definition and creation of the streams; an existing stream is only changed where nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.bus.connect import BusClient
from sensegate.config import StoreConfig
from sensegate.errors import EngineError, NotFound

_log = structlog.get_logger("bus")

EPOCH_KEY = "sensegate_epoch"
"""Metadata key of a LOG that is a copy: the epoch of the original."""
LOG, LEDGER, AUDIT, INTAKE, MQTT_MESSAGES = "LOG", "LEDGER", "AUDIT", "INTAKE", "$MQTT_msgs"
LOG_SUBJECTS = (
    "raw.>",
    "seen.>",
    "readings.>",
    "observations.>",
    "quarantine.>",
    "ledger.>",
    "carried.>",
    "sequences.>",
    "refused.>",
    "displaced.>",
    "alarms.>",
    "alarm.>",
    "recovered.>",
    "commit.>",
)
LEDGER_SUBJECTS = ("hours.>",)
AUDIT_SUBJECTS = ("audit.>",)
INTAKE_SUBJECT = "intake"
"""Subject on which fronts store batches of device messages (`collect.intake.batch`)."""
STREAMS_MAX = 1_000
"""Most streams of one account that are listed."""
DUPLICATE_WINDOW_S = 120
"""Time in which the server drops a batch whose `Nats-Msg-Id` it has seen: a first filter; commits keep numbers."""

_ORIGIN_MINUTE = 26_297_280
"""2020-01-01T00:00Z."""

_CHANGEABLE = frozenset({"max_bytes", "num_replicas", "allow_atomic"})
"""Settings of every stream that follow the configuration."""
_CHANGEABLE_OF: Mapping[str, frozenset[str]] = {
    AUDIT: frozenset({"max_age"}),
    MQTT_MESSAGES: frozenset({"allow_msg_ttl"}),
}
"""Further ones, by stream. A shorter `max_age` deletes older messages, so no stream of readings has one."""


async def ensure(nc: Client, config: Mapping[str, Any]) -> str:
    """Create a stream, or check that it matches `config`; return its creation time.

    Over a client of the engine each stream is recorded (`inventory`), and a known one is not created again. It has as
    many replicas as `engine.replicas` says: more are added to an existing one, and the server fills them.

    Raises:
        EngineError: it exists with other settings, which only a migration may change.
        StreamLost: a known stream is missing, or was created again.
        Unavailable: the server did not answer.
    """
    name = config["name"]
    known = nc.known_streams if isinstance(nc, BusClient) else None
    config = {**config, "num_replicas": nc.replicas if isinstance(nc, BusClient) else 1}
    try:
        info = json.loads(await api.request(nc, f"$JS.API.STREAM.INFO.{name}"))
    except NotFound:
        if known:
            known.verify(name, "")
        info = json.loads(await api.request(nc, f"$JS.API.STREAM.CREATE.{name}", config))
        _log.info("stream created", stream=name)
        if known:
            known.record(name, str(info["created"]))
        return str(info["created"])
    if known:
        known.verify(name, str(info["created"]))
        known.record(name, str(info["created"]))
    present = info["config"]
    differing = {key for key, value in config.items() if present.get(key, _absent(value)) != value}
    differing -= {"first_seq", "metadata"}  # these only matter when the stream is created
    fixed = differing - _CHANGEABLE - _CHANGEABLE_OF.get(name, frozenset())
    if set(present["subjects"]) < set(config["subjects"]):
        fixed.discard("subjects")  # an additional subject does not affect stored messages
    if fixed:
        differences = ", ".join(f"{key}: {present.get(key)!r}, not {config[key]!r}" for key in sorted(fixed))
        raise EngineError(f"stream {name} has other settings ({differences}) and was not changed; migrate it first")
    if differing:
        changed = {**present, **{key: config[key] for key in differing}}
        if known and "num_replicas" in differing:
            known.copy_metadata(name)
            known.copy_settings(name, present)
        await api.request(nc, f"$JS.API.STREAM.UPDATE.{name}", changed)
        if known:
            known.copy_metadata(name)
        _log.info("stream changed", stream=name, **{key: config[key] for key in sorted(differing)})
    return str(info["created"])


async def verify(link: BusClient, name: str) -> None:
    """Check that a known stream exists and is still the same. Raises `StreamLost`, `Unavailable`."""
    try:
        created = await created_at(link, name)
    except NotFound:
        created = ""
    if link.known_streams:
        link.known_streams.verify(name, created)


async def created_at(nc: Client, name: str) -> str:
    """Return the creation time of a stream, which identifies its incarnation. Raises `NotFound`, `Unavailable`."""
    return str(json.loads(await api.request(nc, f"$JS.API.STREAM.INFO.{name}"))["created"])


async def ensure_subscriber_streams(nc: Client) -> None:
    """Create the MQTT broker's streams in the account of subscribers, with limits; `nc`: a client of `User.FEEDS`."""
    mib = 1024**2
    await ensure(nc, _stream(MQTT_MESSAGES, ("$MQTT.msgs.>",), 512 * mib, retention="interest"))
    newest = {"max_msgs_per_subject": 1, "discard": "old"}
    await ensure(nc, _stream("$MQTT_sess", ("$MQTT.sess.>",), 64 * mib, **newest))
    await ensure(nc, _stream("$MQTT_rmsgs", ("$MQTT.rmsgs.>",), 64 * mib, **newest))


async def usage(nc: Client, name: str) -> float:
    """Return the used share of a stream's `max_bytes`; 0 where it has no limit. Raises `NotFound`, `Unavailable`."""
    info = json.loads(await api.request(nc, f"$JS.API.STREAM.INFO.{name}"))
    limit = info["config"]["max_bytes"]
    return info["state"]["bytes"] / limit if limit > 0 else 0.0


class _Total(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    consumer_count: int = 0
    last_ts: str = ""


class _Limits(msgspec.Struct, frozen=True):
    name: str
    max_bytes: int = -1


class _Listed(msgspec.Struct, frozen=True):
    config: _Limits
    state: _Total


class _StreamPage(msgspec.Struct, frozen=True):
    total: int = 0
    streams: list[_Listed] | None = None


class StreamUsage(msgspec.Struct, frozen=True):
    """Use of a stream's limits."""

    name: str
    messages: int
    bytes: int
    bytes_max: int
    """0: no limit of its own."""
    consumers: int
    last: str
    """Time of its last message; empty: none."""


async def usages(nc: Client) -> list[StreamUsage]:
    """Return how full each stream of the client's account is, by name. Raises `Unavailable`."""
    rows: list[StreamUsage] = []
    while True:
        page = msgspec.json.decode(
            await api.request(nc, "$JS.API.STREAM.LIST", {"offset": len(rows)}), type=_StreamPage
        )
        for listed in page.streams or ():
            state, limit = listed.state, max(listed.config.max_bytes, 0)
            last = "" if state.last_ts.startswith("0001-") else state.last_ts
            rows.append(StreamUsage(listed.config.name, state.messages, state.bytes, limit, state.consumer_count, last))
        if not page.streams or len(rows) >= min(page.total, STREAMS_MAX):
            return sorted(rows, key=lambda row: row.name)


def _absent(value: object) -> object:
    """Return the value of a missing setting: the server omits values that are false, zero or empty."""
    return type(value)() if isinstance(value, (bool, int, str)) else None


def _stream(name: str, subjects: tuple[str, ...], max_bytes: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": list(subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": max_bytes,
        "max_age": 0,
        "max_msgs": -1,
        "max_consumers": -1,
        **more,
    }


def first_unused_sequence(now: int) -> int:
    """Return the first sequence of a log that replaces a lost one: greater than any that the lost one can have had.

    Cursors and record ids contain sequences; 2,000 a second are reserved, more than a log assigns.
    """
    return (now // 60_000_000 - _ORIGIN_MINUTE) << 17


def log_stream(store: StoreConfig, first: int = 1, epoch: str = "") -> dict[str, Any]:
    """Return the settings of LOG: each message has its own lifetime; a full log refuses writes and drops nothing.

    Args:
        store: sizes of the streams.
        first: sequence of the first entry, where the stream is created.
        epoch: epoch of the log of which it is a copy; empty: an epoch of its own, its creation time.
    """
    return _stream(
        LOG,
        LOG_SUBJECTS,
        store.log_bytes,
        allow_atomic=True,
        allow_msg_ttl=True,
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
        **({"first_seq": first} if first > 1 else {}),
        **({"metadata": {EPOCH_KEY: epoch}} if epoch else {}),
    )


def intake_stream(store: StoreConfig) -> dict[str, Any]:
    """Return the settings of INTAKE: a batch is stored before its devices get a PUBACK, and goes with its commit.

    A full stream refuses batches, so that devices wait; it drops none.
    """
    return _stream(
        INTAKE,
        (INTAKE_SUBJECT,),
        store.intake_bytes,
        retention="workqueue",
        allow_direct=True,
        duplicate_window=DUPLICATE_WINDOW_S * 1_000_000_000,
    )


async def ensure_streams(nc: Client, store: StoreConfig, *, audit_ttl_h: int = 0, log_first: int = 1) -> None:
    """Create LOG, INTAKE, LEDGER and AUDIT; `nc`: a client of `User.GATEWAY`.

    Args:
        nc: the client.
        store: sizes of the streams.
        audit_ttl_h: lifetime of audit records; 0: unlimited.
        log_first: first sequence of LOG, where it is created.
    """
    await ensure(nc, log_stream(store, log_first))
    await ensure(nc, intake_stream(store))
    await ensure_ledger_and_audit(nc, store, audit_ttl_h=audit_ttl_h)


async def ensure_ledger_and_audit(nc: Client, store: StoreConfig, *, audit_ttl_h: int = 0) -> None:
    """Create only LEDGER and AUDIT, as `ensure_streams` does."""
    atomic = {"allow_atomic": True, "allow_msg_ttl": True, "allow_direct": True, "deny_delete": True}
    await ensure(nc, _stream(LEDGER, LEDGER_SUBJECTS, store.ledger_bytes, allow_rollup_hdrs=True, **atomic))
    await ensure(
        nc,
        _stream(
            AUDIT,
            AUDIT_SUBJECTS,
            store.audit_bytes,
            allow_direct=True,
            deny_delete=True,
            deny_purge=True,
            max_age=audit_ttl_h * 3_600_000_000_000,
        ),
    )


async def ensure_mqtt_streams(nc: Client, store: StoreConfig) -> str:
    """Create the MQTT broker's streams before a device connects, with limits; return the creation time of `$MQTT_msgs`.

    The server uses existing ones. Commands have lifetimes of their own in `$MQTT_msgs`.
    Unlimited, as the server would create them itself, a device that fills its session or
    the retained messages would fill the account. `nc`: a client of `User.INTAKE`.
    """
    mib = 1024**2
    messages = _stream(MQTT_MESSAGES, ("$MQTT.msgs.>",), store.intake_bytes, retention="interest", allow_msg_ttl=True)
    created = await ensure(nc, messages)
    one_each = {"max_msgs_per_subject": 1, "discard": "old"}
    await ensure(nc, _stream("$MQTT_sess", ("$MQTT.sess.>",), 128 * mib, **one_each))
    await ensure(nc, _stream("$MQTT_rmsgs", ("$MQTT.rmsgs.>",), 128 * mib, **one_each))
    return created
