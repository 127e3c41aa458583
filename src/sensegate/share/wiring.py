"""Wiring of sharing, with its secrets.

The secrets are stored in the bucket of sharing too: a standby centre has a copy of it, and a node that replaces a lost
one starts with the centre's copy. Pseudonyms and signatures therefore stay the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority import bucket as registry
from sensegate.authority.devices import Devices
from sensegate.authority.heads import load_or_create_key
from sensegate.authority.selection import DeviceFilter
from sensegate.authority.shared_secrets import synchronise_secret
from sensegate.authority.trail import Trail
from sensegate.bus.files import write_private
from sensegate.clock import HOUR_US, Clock
from sensegate.config import Config
from sensegate.errors import ConfigError
from sensegate.model import BOOL, QualityHour
from sensegate.quantities.indicator_sums import INDICATORS, DeviceIndicatorSums
from sensegate.share.access_requests import AccessTerms
from sensegate.share.catalogue import QualityIndicators
from sensegate.share.feeds import Feed
from sensegate.share.masks import Masks
from sensegate.share.sharing import Sharing, SharingContext, SharingKeys, SharingPolicy, SharingStores

STATEMENT_KEY = "statements.key"
PSEUDONYM_KEY = "masks.key"
_INDICATORS_US = 2 * HOUR_US
_CACHE_S = 60.0


async def prepare_secrets(config: Config, bucket: registry.Bucket) -> None:
    """Create the secrets of sharing, or take those in the bucket, which come from the preceding centre or node.

    A file with another secret is set aside. The signing key of a node is not shared: a replacing node has its own.

    Raises:
        ConfigError: a secret exists and cannot be read.
        Unavailable: the bucket cannot be reached.
    """
    directory = Path(config.directory)
    files: dict[Path, Callable[[Path], object]] = {directory / PSEUDONYM_KEY: _pseudonym_secret}
    if config.role == "centre" and not config.sharing.key_file:
        files[directory / STATEMENT_KEY] = partial(load_or_create_key, setting="sharing.key_file")
    for file, checked in files.items():
        await synchronise_secret(file, checked, bucket)


def build_sharing(
    config: Config,
    clock: Clock,
    trail: Trail,
    *,
    stores: SharingStores,
    context: SharingContext,
    key: Ed25519PrivateKey,
) -> Sharing:
    """Return the sharing stage, which signs with `key`; other keys are created at the first start.

    Raises `ConfigError`.
    """
    directory, terms = Path(config.directory), config.sharing
    return Sharing(
        stores,
        trail,
        clock,
        context,
        keys=SharingKeys(key, Masks(_pseudonym_secret(directory / PSEUDONYM_KEY))),
        policy=SharingPolicy(
            AccessTerms(terms.decision_days, terms.grant_days_max, terms.retention_days),
            config.division,
            assigns_codes=config.role == "centre",
        ),
        page_max=config.web.page_max,
    )


def signing_key(config: Config) -> Ed25519PrivateKey:
    """Return the key that signs usage statements and return files; the first start creates it. Raises `ConfigError`."""
    file = Path(config.sharing.key_file or Path(config.directory) / STATEMENT_KEY)
    return load_or_create_key(file, setting="sharing.key_file")


def feed_indicators(
    devices: Devices, hours: Callable[[int], Iterable[QualityHour]], clock: Clock
) -> Callable[[Feed], QualityIndicators]:
    """Return a function: feed -> mean indicators of its devices over the last hours, cached.

    `hours` returns the indicators since a time.
    """
    cached: dict[Feed, QualityIndicators] = {}
    sums, summed_at = DeviceIndicatorSums(0), -math.inf

    def measured(feed: Feed) -> QualityIndicators:
        nonlocal sums, summed_at
        now = clock.monotonic()
        if now - summed_at >= _CACHE_S:
            sums, summed_at = DeviceIndicatorSums.of(len(devices), hours(clock.now() - _INDICATORS_US)), now
            cached.clear()
        if feed not in cached:
            means = sums.means(_devices_of(feed, devices)[: sums.size])
            cached[feed] = QualityIndicators(**{name: getattr(means, name) for name in INDICATORS})
        return cached[feed]

    return measured


def _devices_of(feed: Feed, devices: Devices) -> BOOL:
    """Return a mask, by index, of the devices whose readings a feed contains."""
    conditions: dict[str, Callable[[str], bool]] = {}
    if feed.divisions:
        conditions["division"] = lambda code: code.startswith(feed.divisions)
    if feed.domains:
        conditions["domain"] = feed.domains.__contains__
    if feed.departments:
        conditions["department"] = feed.departments.__contains__
    selected = devices.select(wanted=DeviceFilter(fields=conditions))
    return selected & (devices.grade[: len(selected)] <= feed.grade_max)


def _pseudonym_secret(file: Path) -> bytes:
    """Return the secret from which pseudonyms are derived; created once, since another one changes all of them."""
    if not file.exists():
        write_private(file, os.urandom(32).hex())
    try:
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as why:
        raise ConfigError(f"cannot be read ({why})", file=str(file), remedy="restore it from a backup") from why
