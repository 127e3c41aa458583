"""Wiring of the audit trail: the chain with its key, and its hourly entries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from sensegate.authority.audit import Audit
from sensegate.authority.chain import Algorithm
from sensegate.authority.heads import HourlyHeads, load_or_create_key, signer
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.shared_secrets import synchronise_secret
from sensegate.authority.trail import Facts
from sensegate.bus import restores
from sensegate.bus.inventory import Inventory
from sensegate.bus.kv import KvBucket
from sensegate.clock import Clock
from sensegate.config import Config

HEADS = "audit-heads.ndjson"
KEY = "audit.key"


async def open_audit(bus: Client, clock: Clock, config: Config, bucket: Callable[[str], Awaitable[KvBucket]]) -> Audit:
    """Return the trail of this gateway; its key is generated at the first start.

    Two centres share a trail and its key: without a configured file it is in a bucket that the standby copies.

    Raises:
        ConfigError: the key cannot be read.
        Unavailable: the bucket does not answer.
    """
    file = Path(config.audit.key_file or Path(config.directory) / KEY)
    if config.peer.url and not config.audit.key_file:
        await synchronise_secret(file, partial(load_or_create_key, setting="audit.key_file"), await bucket("seals"))
    return Audit(
        bus,
        clock,
        gateway=config.division,
        algorithm=Algorithm(config.audit.hash),
        signer=signer(file, config.division),
        expires=bool(config.audit.ttl_h),
    )


async def record_legal_bases(audit: Audit, config: Config) -> None:
    """Record the written legal bases of video metadata, at each start. Raises as `Audit.record`."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    for basis in config.video.basis:
        facts: Facts = {
            "purpose": basis.purpose,
            "law": basis.law,
            "kinds": list(basis.kinds),
            "fields": list(basis.fields),
            "expires": basis.expires,
        }
        await audit.record(by, "video.basis", config.division, after=facts)


async def record_accepted_losses(audit: Audit, config: Config, inventory: Inventory) -> None:
    """Record the losses of streams that an operator accepted. Raises as `Audit.record`."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    for loss in inventory.accepted:
        facts: Facts = {"created": loss.created, "by": loss.by, "at": loss.at, "aside": loss.set_aside}
        await audit.record(by, "store.accept_loss", f"{loss.account}/{loss.name}", before=facts)
    inventory.clear_accepted()


async def record_restores(audit: Audit, config: Config) -> None:
    """Put the restores of backups on the trail. Raises as `Audit.record` does, and `ConfigError`."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    directory = Path(config.directory)
    known = restores.read(directory)
    for restore in known.unrecorded:
        facts: Facts = {
            "made": restore.made,
            "at": restore.at,
            "by": restore.by,
            "source": restore.source,
            "original": restore.original,
            "aside": restore.aside,
        }
        await audit.record(by, "store.restore", config.division, after=facts)
    restores.settle(directory, known)


def hourly_heads(audit: Audit, clock: Clock, config: Config, usage: Callable[[], Sequence[Any]]) -> HourlyHeads:
    """Return the writer of the hourly entries; `usage` returns the delivery counts as rows of `bodies.Usage`."""

    def delivered(since: int) -> list[Facts]:
        return [
            {
                "token": row.token,
                "feed": row.feed,
                "delivery": row.delivery,
                "grant": row.grant,
                "requests": row.requests,
                "records": row.records,
                "bytes": row.bytes,
            }
            for row in usage()
            if row.last >= since
        ]

    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    return HourlyHeads(audit, Path(config.directory) / HEADS, clock, by, delivered)
