"""Wiring of sharing: feeds, catalogue, desk, with their secrets."""

from __future__ import annotations

import os
from pathlib import Path

from sensegate.authority.heads import key_in
from sensegate.authority.scope import Principal, Scope
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus.kv import Bucket
from sensegate.bus.process import write_private
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import ConfigError
from sensegate.share.books import Books
from sensegate.share.feeds import Feeds
from sensegate.share.masks import Masks
from sensegate.share.metering import Metering
from sensegate.share.reader import Reader
from sensegate.share.sharing import Sharing, Terms
from sensegate.share.shelf import Shelf

SIGNING = "receipts.key"
PSEUDONYMS = "masks.key"


def made(
    config: Config,
    clock: Clock,
    trail: Trail,
    tokens: Tokens,
    *,
    reader: Reader,
    books: Books,
    feeds: Bucket,
    usage: Bucket,
    sharing: Bucket,
) -> Sharing:
    """Return the door of sharing; keys are made at the first start. Raises `ConfigError`."""

    def subscriber(name: str, by: Principal) -> Scope:
        return tokens.get(name, by).scope

    directory, terms = Path(config.directory), config.sharing
    return Sharing(
        reader,
        books,
        Feeds(feeds, clock),
        Metering(usage, clock),
        trail,
        Shelf(sharing, clock),
        clock,
        subscriber=subscriber,
        signing=key_in(Path(terms.key_file or directory / SIGNING), setting="sharing.key_file"),
        masks=Masks(_pseudonyms(directory / PSEUDONYMS)),
        terms=Terms(terms.answer_days, terms.days_max, config.division, codes=config.role == "centre"),
        page_max=config.web.page_max,
    )


def _pseudonyms(file: Path) -> bytes:
    """Return the secret of which pseudonyms are made; with another one no device would be recognised again."""
    if not file.exists():
        write_private(file, os.urandom(32).hex())
    try:
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as why:
        raise ConfigError("cannot be read", file=str(file), remedy=f"restore it: {why}") from why
