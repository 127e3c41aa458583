"""The streams: made once, changed only by the few migrations that lose nothing, never emptied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import structlog
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.bus.connect import Link
from sensegate.config import StoreConfig
from sensegate.errors import EngineError, NotFound

_log = structlog.get_logger("bus")

LIFE = "sensegate_life"
"""Metadata of a LOG that is a copy: the life of the one that it is a copy of."""
LOG, LEDGER, AUDIT, INTAKE = "LOG", "LEDGER", "AUDIT", "$MQTT_msgs"
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
    "commit.>",
)
LEDGER_SUBJECTS = ("hours.>",)
AUDIT_SUBJECTS = ("audit.>",)

_ORIGIN_MINUTE = 26_297_280
"""2020-01-01T00:00Z."""

_CHANGEABLE: Mapping[str, frozenset[str]] = {AUDIT: frozenset({"max_bytes", "max_age"})}
"""What may follow the configuration, by stream; all others: `max_bytes` alone. A shorter `max_age` ends the life of
what is older, so no stream of readings ever has one."""


async def ensure(nc: Client, wanted: Mapping[str, Any]) -> str:
    """Make a stream, or see that it is as `wanted`; return when it was created (its life).

    Over a connection of the engine each stream is recorded (`inventory`), and one that existed is not made again.

    Raises:
        EngineError: it exists with other settings, which only a migration may change.
        StreamLost: it existed and is missing, or it is another one than it was.
        Unavailable: the server did not answer.
    """
    name = wanted["name"]
    known = nc.streams if isinstance(nc, Link) else None
    try:
        told = json.loads(await api.call(nc, f"$JS.API.STREAM.INFO.{name}"))
    except NotFound:
        if known:
            known.judge(name, "")
        told = json.loads(await api.call(nc, f"$JS.API.STREAM.CREATE.{name}", wanted))
        _log.info("stream made", stream=name)
        if known:
            known.note(name, str(told["created"]))
        return str(told["created"])
    if known:
        known.judge(name, str(told["created"]))
        known.note(name, str(told["created"]))
    present = told["config"]
    differing = {key for key, value in wanted.items() if present.get(key, _absent(value)) != value}
    differing -= {"first_seq", "metadata"}  # say where it began and of what it is a copy, not how it is
    fixed = differing - _CHANGEABLE.get(name, frozenset({"max_bytes"}))
    if set(present["subjects"]) < set(wanted["subjects"]):
        fixed.discard("subjects")  # one more kind of member: what is stored is not touched
    if fixed:
        what = ", ".join(f"{key}: {present.get(key)!r}, not {wanted[key]!r}" for key in sorted(fixed))
        raise EngineError(f"stream {name} was made with other settings ({what}); it is left as it is: migrate it first")
    if differing:
        changed = {**present, **{key: wanted[key] for key in differing}}
        await api.call(nc, f"$JS.API.STREAM.UPDATE.{name}", changed)
        if known:
            known.copy(name)
        _log.info("stream changed", stream=name, **{key: wanted[key] for key in sorted(differing)})
    return str(told["created"])


async def compare(link: Link, name: str) -> None:
    """See that a stream that is known to exist is there, and the same one. Raises `StreamLost`, `Unavailable`."""
    try:
        created = await life(link, name)
    except NotFound:
        created = ""
    if link.streams:
        link.streams.judge(name, created)


async def life(nc: Client, name: str) -> str:
    """Return when a stream was created: the identity of its present life. Raises `NotFound`, `Unavailable`."""
    return str(json.loads(await api.call(nc, f"$JS.API.STREAM.INFO.{name}"))["created"])


async def ensure_outlet(nc: Client) -> None:
    """Make the broker's own streams of the subscribers' account, with caps; `nc` is a connection of `User.FEEDS`."""
    mib = 1024**2
    await ensure(nc, _stream(INTAKE, ("$MQTT.msgs.>",), 512 * mib, retention="interest"))
    newest = {"max_msgs_per_subject": 1, "discard": "old"}
    await ensure(nc, _stream("$MQTT_sess", ("$MQTT.sess.>",), 64 * mib, **newest))
    await ensure(nc, _stream("$MQTT_rmsgs", ("$MQTT.rmsgs.>",), 64 * mib, **newest))


async def used(nc: Client, name: str) -> float:
    """Return which part of its cap a stream uses; 0 where it has none. Raises `NotFound`, `Unavailable`."""
    told = json.loads(await api.call(nc, f"$JS.API.STREAM.INFO.{name}"))
    most = told["config"]["max_bytes"]
    return told["state"]["bytes"] / most if most > 0 else 0.0


def _absent(value: object) -> object:
    """Return what a missing key means: the server leaves out what is false, zero or empty."""
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
        "num_replicas": 1,
        **more,
    }


def first_again(now: int) -> int:
    """Return with which sequence a log begins in place of one that is gone: beyond all that it can have given.

    Cursors and ids of records hold sequences; each minute has more of them (2,000 a second) than a log is given in it.
    """
    return (now // 60_000_000 - _ORIGIN_MINUTE) << 17


def log_stream(store: StoreConfig, first: int = 1, life: str = "") -> dict[str, Any]:
    """Return the settings of LOG: each member brings its own life; full means refused, never forgotten.

    Args:
        store: sizes.
        first: sequence of the first entry of one that is made now.
        life: identity of the log of which it is made as a copy; empty: its own, the time when it is made.
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
        **({"metadata": {LIFE: life}} if life else {}),
    )


async def ensure_streams(nc: Client, store: StoreConfig, *, audit_ttl_h: int = 0, log_first: int = 1) -> None:
    """Make LOG, LEDGER and AUDIT; `nc` is a connection of `User.GATEWAY`.

    Args:
        nc: the connection.
        store: sizes.
        audit_ttl_h: life of audit records; 0 keeps them for ever.
        log_first: sequence with which a LOG that is made now begins.
    """
    await ensure(nc, log_stream(store, log_first))
    await ensure_books(nc, store, audit_ttl_h=audit_ttl_h)


async def ensure_books(nc: Client, store: StoreConfig, *, audit_ttl_h: int = 0) -> None:
    """Make LEDGER and AUDIT alone, as `ensure_streams` does."""
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


async def ensure_intake(nc: Client, store: StoreConfig) -> str:
    """Make the broker's own streams before a device connects, with caps; return the life of `$MQTT_msgs`.

    The server takes them as they are. Uncapped, as it would make them itself, one device that fills its session or
    the retained messages would fill the account. `nc` is a connection of `User.INTAKE`.
    """
    mib = 1024**2
    life = await ensure(nc, _stream(INTAKE, ("$MQTT.msgs.>",), store.intake_bytes, retention="interest"))
    one_each = {"max_msgs_per_subject": 1, "discard": "old"}
    await ensure(nc, _stream("$MQTT_sess", ("$MQTT.sess.>",), 128 * mib, **one_each))
    await ensure(nc, _stream("$MQTT_rmsgs", ("$MQTT.rmsgs.>",), 128 * mib, **one_each))
    return life
