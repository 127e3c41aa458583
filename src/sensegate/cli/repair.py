"""`sensegate doctor --repair` and `--accept-loss`: known streams that the server cannot read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sensegate.bus import process
from sensegate.bus.inventory import Inventory, LostStream
from sensegate.config import Config
from sensegate.errors import EngineError

if TYPE_CHECKING:
    from sensegate.cli.doctor import CheckResult

CHECK = "streams"


def check_streams(config: Config) -> Iterator[CheckResult]:
    """Yield a result for each known stream: can the server read it?"""
    from sensegate.cli.doctor import CheckOutcome, CheckResult  # noqa: PLC0415 - that module imports this one

    try:
        inventory = Inventory.of(config.engine, Path(config.directory).resolve() / "engine").load()
    except EngineError as why:
        yield CheckResult(CHECK, CheckOutcome.BAD, str(why), "stop the gateway, then sensegate doctor CONFIG --repair")
        return
    lost = inventory.lost()
    if not lost:
        yield CheckResult(CHECK, CheckOutcome.GOOD, f"{len(inventory.streams)} known, all present")
    for stream in lost:
        yield CheckResult(CHECK, CheckOutcome.BAD, f"{stream.title} cannot be read: {stream.reason}", _remedy(stream))


def repair_streams(config: Config, accepted: Sequence[str]) -> list[CheckResult]:
    """Repair the lost streams that can be, give up those named in `accepted`, and return a result for each.

    Raises:
        EngineError: the gateway runs, or a named stream is not lost.
    """
    directory = Path(config.directory).resolve() / "engine"
    with contextlib.ExitStack() as stack:
        if directory.is_dir() and not config.engine.url:
            lock = process.lock(directory / "gateway.lock", "the gateway of this directory is running")
            stack.callback(os.close, lock)
            asyncio.run(_stop_orphan(directory))
        return list(_repaired(Inventory.of(config.engine, directory), accepted))


def _repaired(inventory: Inventory, accepted: Sequence[str]) -> Iterator[CheckResult]:
    from sensegate.cli.doctor import CheckOutcome, CheckResult  # noqa: PLC0415 - that module imports this one

    try:
        inventory.load()
    except EngineError as why:
        inventory.rebuild()
        remedy = "compare it with the record of a backup"
        yield CheckResult(
            CHECK, CheckOutcome.WARNING, f"the record of streams was rebuilt from its copies: {why}", remedy
        )
    lost = inventory.lost()
    given_up = [_lost_stream(lost, name) for name in accepted]
    for stream in lost:
        if stream in given_up:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            loss = inventory.accept(stream, by=pwd.getpwuid(os.getuid()).pw_name, at=at)
            remains = f"; its remains are in {loss.set_aside}" if loss.set_aside else ""
            outcome = f"{stream.title} is given up; the next start recreates it and records that in the trail{remains}"
            yield CheckResult(
                CHECK, CheckOutcome.WARNING, outcome, "start the gateway; cursors of the old stream are refused"
            )
        elif inventory.repair(stream):
            yield CheckResult(CHECK, CheckOutcome.GOOD, f"{stream.title} is readable again ({stream.reason})")
        else:
            yield CheckResult(
                CHECK, CheckOutcome.BAD, f"{stream.title} cannot be rebuilt: {stream.reason}", _restore_remedy(stream)
            )
    if not lost:
        yield CheckResult(CHECK, CheckOutcome.GOOD, f"{len(inventory.streams)} known, nothing to repair")


async def _stop_orphan(directory: Path) -> None:
    """Stop the server that a killed gateway left running on this store."""
    server = process.find(directory)
    if server is not None:
        await server.terminate()
        server.release()


def _lost_stream(lost: Sequence[LostStream], name: str) -> LostStream:
    matches = [stream for stream in lost if name in {stream.title, stream.name}]
    if not matches:
        titles = ", ".join(stream.title for stream in lost) or "none"
        raise EngineError(f"--accept-loss {name}: that stream is not lost; lost streams: {titles}")
    if matches[1:]:
        raise EngineError(
            f"--accept-loss {name}: the name is ambiguous; give one of: {', '.join(stream.title for stream in matches)}"
        )
    return matches[0]


def _remedy(stream: LostStream) -> str:
    return "stop the gateway, then sensegate doctor CONFIG --repair" if stream.repairable else _restore_remedy(stream)


def _restore_remedy(stream: LostStream) -> str:
    restore = f"restore {stream.directory} from a backup" if stream.directory else "restore it at the server"
    return f"{restore}, or give it up: sensegate doctor CONFIG --accept-loss '{stream.title}'"
