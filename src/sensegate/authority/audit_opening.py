"""Wiring of the audit trail: the chain with its key, and what it is told every hour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from sensegate.authority.audit import Audit
from sensegate.authority.chain import Algorithm
from sensegate.authority.heads import Hours, key_in, signer
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.shared_secrets import agree
from sensegate.authority.trail import Facts
from sensegate.backup import history
from sensegate.bus.inventory import Inventory
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.config import Config

HEADS = "audit-heads.ndjson"
KEY = "audit.key"


async def opened(bus: Client, clock: Clock, config: Config, bucket: Callable[[str], Awaitable[Bucket]]) -> Audit:
    """Return the trail of this gateway; its key is made at the first start.

    Two centres have one trail, so one key signs it: it stands in a bucket that the standby copies, if no file is set.

    Raises:
        ConfigError: the key cannot be read.
        Unavailable: the bucket is not reached.
    """
    file = Path(config.audit.key_file or Path(config.directory) / KEY)
    if config.peer.url and not config.audit.key_file:
        await agree(file, partial(key_in, setting="audit.key_file"), await bucket("seals"))
    return Audit(
        bus,
        clock,
        gateway=config.division,
        algorithm=Algorithm(config.audit.hash),
        signer=signer(file, config.division),
        expires=bool(config.audit.ttl_h),
    )


async def bases(audit: Audit, config: Config) -> None:
    """Put the written legal bases of video metadata on the trail, at each start. Raises as `Audit.record` does."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    for one in config.video.basis:
        said: Facts = {
            "purpose": one.purpose,
            "law": one.law,
            "kinds": list(one.kinds),
            "fields": list(one.fields),
            "expires": one.expires,
        }
        await audit.record(by, "video.basis", config.division, after=said)


async def losses(audit: Audit, config: Config, inventory: Inventory) -> None:
    """Put the losses of streams that an operator accepted on the trail. Raises as `Audit.record` does."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    for loss in inventory.accepted:
        said: Facts = {"created": loss.created, "by": loss.by, "at": loss.at, "aside": loss.aside}
        await audit.record(by, "store.accept_loss", f"{loss.account}/{loss.name}", before=said)
    inventory.settle()


async def restores(audit: Audit, config: Config) -> None:
    """Put the restores of backups on the trail. Raises as `Audit.record` does, and `ConfigError`."""
    by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")
    directory = Path(config.directory)
    known = history.read(directory)
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
    history.settle(directory, known)


def hours(audit: Audit, clock: Clock, config: Config, usage: Callable[[], Sequence[Any]]) -> Hours:
    """Return what tells the trail every hour what was delivered; `usage`: rows as `bodies.Usage`."""

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
    return Hours(audit, Path(config.directory) / HEADS, clock, by, delivered)
