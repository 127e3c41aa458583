"""First start of a restored node: its writer claims anew, its registries are merged with the centre's copies of them.

A device that was registered after the backup, or a token that was revoked, stands at the centre alone. So before the
registries are opened, each of which the centre has a newer state takes that over; what was changed here since the
restore stays. Until it has been so, nothing is copied up: it would undo the revocation at the centre, too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sensegate.bus import restores
from sensegate.bus.kv import KvBucket
from sensegate.bus.restores import RestoreHistory
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Overloaded, PermissionDenied, Unavailable
from sensegate.tiers import registry_copies, route, writers
from sensegate.tiers.link import CentreLink
from sensegate.tiers.registry_copies import Ask

WAIT_S: Final = 20.0
"""The first start after a restore waits so long for the centre; without it the merge is left to the next start."""
AGAIN_S: Final = 1.0
CONNECT_S: Final = 5.0

_log = structlog.get_logger("tiers")


async def settle(config: Config, clock: Clock, buckets: Mapping[str, KvBucket], epoch: str) -> RestoreHistory:
    """Settle what a restore leaves to the first start; return the history of the store as it is then.

    Raises:
        Unavailable: a registry cannot be read or written.
        StoreFull: one has no room.
        ConfigError: the history cannot be read.
    """
    directory = Path(config.directory)
    known = await asyncio.to_thread(restores.read, directory)
    if known.claimed < known.count:
        await writers.claim_restored(writers.WriterStateFile(directory))
        known = msgspec.structs.replace(known, claimed=known.count)
        await asyncio.to_thread(restores.write, directory, known)
    if known.is_merged:
        return known
    if not known.revisions:
        revisions = {name: (await bucket.load_all())[1] for name, bucket in buckets.items()}
        known = msgspec.structs.replace(known, revisions=revisions)
        await asyncio.to_thread(restores.write, directory, known)
    if route.present_route(config) is not None:
        try:
            async with asyncio.timeout(WAIT_S):
                changed = await _merged(config, clock, buckets, known, epoch)
        except TimeoutError:
            _log.error("registries of the restored copy are used as they are; the centre does not answer")
            return known
        _log.info("registries merged with the centre's copies", changed=changed)
    else:
        _log.warning(
            "registries are those of the backup: tokens and accounts revoked since are valid again; revoke them again"
        )
    known = msgspec.structs.replace(known, merged=known.count, revisions={})
    await asyncio.to_thread(restores.write, directory, known)
    return known


def warnings(known: RestoreHistory) -> list[str]:
    """Return that the registries of a restored store may be older than the centre's copies of them."""
    if known.is_merged:
        return []
    text = (
        "restore: registries are those of the backup, so tokens revoked since are valid again: the centre did not "
        "answer at the start; restart this gateway when it does"
    )
    return [text]


async def _merged(
    config: Config, clock: Clock, buckets: Mapping[str, KvBucket], known: RestoreHistory, epoch: str
) -> int:
    for turns in itertools.count():
        centre_route = route.present_route(config)
        if centre_route is None:
            return 0
        centre_route = route.route_of_turn(centre_route, config.uplink, turns)
        try:
            nc = await route.connect_to_centre(centre_route, CONNECT_S)
            try:
                link = CentreLink(nc, slot=centre_route.slot, member=centre_route.member)
                return await merge(buckets, partial(link.ask_with_retries, clock=clock), known, epoch)
            finally:
                await nc.close()
        except (Unavailable, PermissionDenied, Overloaded) as why:
            _log.info("the centre does not give its copies of the registries", url=centre_route.url, reason=str(why))
        await clock.sleep(AGAIN_S)
    raise AssertionError  # itertools.count has no end


async def merge(buckets: Mapping[str, KvBucket], ask: Ask, known: RestoreHistory, epoch: str) -> int:
    """Take over what the centre has of registries that changed after the backup; return the number of changes.

    Args:
        buckets: registries of this node, by name.
        ask: asks the centre.
        known: history of this store.
        epoch: of this node's log.

    Raises:
        Unavailable, PermissionDenied: as `ask`.
    """
    at = registry_copies.decode_at(await ask("copied", b""))
    if at.log_epoch.partition(".")[0] != epoch or at.log_epoch == known.epoch(epoch):
        return 0
    newer = {name for name in buckets if at.revisions.get(name, 0) > known.revisions.get(name, 0)}
    rows: dict[str, dict[str, bytes]] = {name: {} for name in newer}
    async for page in registry_copies.pages(ask):
        for name, key, value in page:
            if name in newer:
                rows[name][key] = value
    return sum([await _take(buckets[name], rows[name], known.revisions.get(name, 0)) for name in sorted(newer)])


async def _take(bucket: KvBucket, theirs: Mapping[str, bytes], copied: int) -> int:
    """Replace a registry by the centre's copy, except rows that were changed here after it."""
    present, _ = await bucket.load_all()
    ours = {row.key: row for row in present}
    changed = 0
    for key, value in theirs.items():
        row = ours.get(key)
        if row is None or (row.revision <= copied and row.value != value):
            await bucket.put(key, value)
            changed += 1
    for key, row in ours.items():
        if key not in theirs and row.revision <= copied:
            await bucket.delete(key)
            changed += 1
    return changed
