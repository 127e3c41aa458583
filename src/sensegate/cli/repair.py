"""`sensegate doctor --repair` and `--accept-loss`: streams that existed and that the server would not find."""

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
    from sensegate.cli.doctor import Finding

CHECK = "streams"


def look(config: Config) -> Iterator[Finding]:
    """Return whether each known stream can be read by the server."""
    from sensegate.cli.doctor import Finding, Verdict  # noqa: PLC0415 - it imports this page

    try:
        inventory = Inventory.of(config.engine, Path(config.directory).resolve() / "engine").load()
    except EngineError as why:
        yield Finding(CHECK, Verdict.BAD, str(why), "stop the gateway, then sensegate doctor CONFIG --repair")
        return
    lost = inventory.lost()
    if not lost:
        yield Finding(CHECK, Verdict.GOOD, f"{len(inventory.streams)} known, all there")
    for stream in lost:
        yield Finding(CHECK, Verdict.BAD, f"{stream.title} cannot be read: {stream.reason}", _remedy(stream))


def mend(config: Config, accepted: Sequence[str]) -> list[Finding]:
    """Repair what can be, give up what is named in `accepted`, and return what became of each lost stream.

    Raises:
        EngineError: the gateway runs, or a stream that is named is not lost.
    """
    directory = Path(config.directory).resolve() / "engine"
    with contextlib.ExitStack() as stack:
        if directory.is_dir() and not config.engine.url:
            lock = process.lock(directory / "gateway.lock", "the gateway of this directory runs")
            stack.callback(os.close, lock)
            asyncio.run(_end_left_behind(directory))
        return list(_mended(Inventory.of(config.engine, directory), accepted))


def _mended(inventory: Inventory, accepted: Sequence[str]) -> Iterator[Finding]:
    from sensegate.cli.doctor import Finding, Verdict  # noqa: PLC0415 - it imports this page

    try:
        inventory.load()
    except EngineError as why:
        inventory.rebuild()
        remedy = "compare it with that of a backup"
        yield Finding(CHECK, Verdict.WARNING, f"the record was written again from the copies beside it: {why}", remedy)
    lost = inventory.lost()
    given_up = [_named(lost, name) for name in accepted]
    for stream in lost:
        if stream in given_up:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            loss = inventory.accept(stream, by=pwd.getpwuid(os.getuid()).pw_name, at=at)
            place = f"; what is left of it lies in {loss.set_aside}" if loss.set_aside else ""
            outcome = (
                f"{stream.title} is given up and will be created anew; the next start puts that on the trail{place}"
            )
            yield Finding(CHECK, Verdict.WARNING, outcome, "start the gateway; cursors of the old life are refused")
        elif inventory.repair(stream):
            yield Finding(CHECK, Verdict.GOOD, f"{stream.title} can be read again ({stream.reason})")
        else:
            yield Finding(CHECK, Verdict.BAD, f"{stream.title} cannot be rebuilt: {stream.reason}", _restore(stream))
    if not lost:
        yield Finding(CHECK, Verdict.GOOD, f"{len(inventory.streams)} known, nothing to repair")


async def _end_left_behind(directory: Path) -> None:
    """End, in order, the server that a killed gateway left behind on this store."""
    server = process.find(directory)
    if server is not None:
        await server.terminate()
        server.release()


def _named(lost: Sequence[LostStream], name: str) -> LostStream:
    matches = [stream for stream in lost if name in {stream.title, stream.name}]
    if not matches:
        titles = ", ".join(stream.title for stream in lost) or "none"
        raise EngineError(f"--accept-loss {name}: that stream is not lost; lost are: {titles}")
    if matches[1:]:
        raise EngineError(f"--accept-loss {name}: say which: {', '.join(stream.title for stream in matches)}")
    return matches[0]


def _remedy(stream: LostStream) -> str:
    return "stop the gateway, then sensegate doctor CONFIG --repair" if stream.repairable else _restore(stream)


def _restore(stream: LostStream) -> str:
    place = f"restore {stream.directory} from a backup" if stream.directory else "restore it at the server"
    return f"{place}, or give it up: sensegate doctor CONFIG --accept-loss '{stream.title}'"
