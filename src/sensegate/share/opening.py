"""Wiring of sharing: feeds, catalogue, desk, with their secrets.

The secrets stand in the bucket of sharing, too: a standby centre has a copy of it, and a node in place of a lost one
begins with what the centre has of it. Pseudonyms and signatures then stay what they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from sensegate.authority import bucket as registry
from sensegate.authority.devices import Devices
from sensegate.authority.heads import key_in
from sensegate.authority.scope import Principal, Scope
from sensegate.authority.shared_secrets import agree
from sensegate.authority.shelf import Shelf
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus.kv import KvBucket
from sensegate.bus.process import write_private
from sensegate.clock import HOUR_US, Clock
from sensegate.config import Config
from sensegate.errors import ConfigError
from sensegate.normalise.book import IndicatorStore, QualityRow
from sensegate.share.books import Books
from sensegate.share.catalogue import Promise
from sensegate.share.feeds import Feed, Feeds
from sensegate.share.masks import Masks
from sensegate.share.metering import Metering
from sensegate.share.reader import Reader
from sensegate.share.sharing import Sharing, Terms

SIGNING = "receipts.key"
PSEUDONYMS = "masks.key"
_LOOK_US = 2 * HOUR_US
_FRESH_S = 60.0
_ROWS_MAX = 20_000
"""More rows are sampled: a mean needs no more, and the loop is not to stand still for it."""

_log = structlog.get_logger("sharing")


async def settle(config: Config, bucket: registry.Bucket) -> None:
    """Make the secrets of sharing, or take those that the bucket has: it is that of a centre or node before this one.

    A file that says otherwise is set aside. A node's key that signs goes nowhere: who is new signs anew.

    Raises:
        ConfigError: a secret is there and cannot be read.
        Unavailable: the bucket is not reached.
    """
    directory = Path(config.directory)
    files: dict[Path, Callable[[Path], object]] = {directory / PSEUDONYMS: _pseudonyms}
    if config.role == "centre" and not config.sharing.key_file:
        files[directory / SIGNING] = partial(key_in, setting="sharing.key_file")
    for file, checked in files.items():
        await agree(file, checked, bucket)


def made(
    config: Config,
    clock: Clock,
    trail: Trail,
    tokens: Tokens,
    *,
    reader: Reader,
    books: Books,
    feeds: KvBucket,
    usage: KvBucket,
    sharing: KvBucket,
    measured: Callable[[Feed], Promise],
) -> Sharing:
    """Return the door of sharing; keys are made at the first start. Raises `ConfigError`."""

    def subscriber(name: str, by: Principal) -> Scope:
        return tokens.get(name, by).scope

    directory, terms = Path(config.directory), config.sharing
    return Sharing(
        reader,
        books,
        Feeds(feeds, clock),
        Metering(usage, clock, kept_days=terms.kept_days),
        trail,
        Shelf(sharing, clock),
        clock,
        subscriber=subscriber,
        signing=key_in(Path(terms.key_file or directory / SIGNING), setting="sharing.key_file"),
        masks=Masks(_pseudonyms(directory / PSEUDONYMS)),
        terms=Terms(terms.answer_days, terms.days_max, terms.kept_days, config.division, codes=config.role == "centre"),
        page_max=config.web.page_max,
        measured=measured,
    )


def quality_rows(book: IndicatorStore, devices: Devices) -> Callable[[int], list[QualityRow]]:
    """Return what gives the indicators since a time, by device and hour."""

    def since(time: int) -> list[QualityRow]:
        return [
            QualityRow(
                devices.id(one.device),
                one.hour,
                one.received,
                one.authenticity,
                one.accuracy,
                one.continuity,
                one.completeness,
            )
            for one in book.since(time)
        ]

    return since


def measures(devices: Devices, rows: Callable[[int], Sequence[QualityRow]], clock: Clock) -> Callable[[Feed], Promise]:
    """Return what gives the means of a feed's devices over the last hours. `rows`: indicators since a time."""
    known: dict[Feed, tuple[float, Promise]] = {}

    def holds(feed: Feed, row: QualityRow) -> bool:
        at = devices.find(row.device)
        if at < 0:
            return False
        device = devices.record(at)
        return (
            (not feed.divisions or device.division.startswith(feed.divisions))
            and (not feed.domains or device.domain in feed.domains)
            and (not feed.departments or device.department in feed.departments)
            and device.grade <= feed.grade_max
        )

    def measured(feed: Feed) -> Promise:
        now = clock.monotonic()
        if feed in known and now - known[feed][0] < _FRESH_S:
            return known[feed][1]
        all_rows = rows(clock.now() - _LOOK_US)
        found = [row for row in all_rows[:: len(all_rows) // _ROWS_MAX + 1] if holds(feed, row)]
        made = Promise(**{name: _mean([getattr(row, name) for row in found]) for name in Promise.__struct_fields__})
        known[feed] = (now, made)
        return made

    return measured


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _pseudonyms(file: Path) -> bytes:
    """Return the secret of which pseudonyms are made; with another one no device would be recognised again."""
    if not file.exists():
        write_private(file, os.urandom(32).hex())
    try:
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as why:
        raise ConfigError("cannot be read", file=str(file), remedy=f"restore it: {why}") from why
