"""`sensegate doctor CONFIG --scrub`: one pass of the scrub, by the gateway that runs or, where none does, here."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import msgspec
from rich.progress import Progress

from sensegate import logs
from sensegate.bus.process import write_private
from sensegate.cli.shown import aside
from sensegate.config import Config
from sensegate.errors import Unavailable
from sensegate.persist import extents
from sensegate.persist.extents import Extents
from sensegate.persist.scrubber import LOOK_S, ORDER, STATUS, Status

ANSWER_S = 30.0
"""A gateway that runs begins within this."""


def scrub(config: Config, *, running: bool) -> Extents:
    """Make a pass and return what is known after it, with a bar on the terminal.

    Raises:
        Unavailable: the gateway that runs does not answer, or the log cannot be read.
        EngineError, ConfigError: no gateway runs, and its server cannot be started here.
    """
    return asyncio.run(_by_order(Path(config.directory)) if running else _here(config))


async def _by_order(directory: Path) -> Extents:
    order = secrets.token_hex(8)
    await asyncio.to_thread(write_private, directory / ORDER, order)
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_S
    with Progress(console=aside, transient=True, disable=not aside.is_terminal) as progress:
        task = progress.add_task("scrub", total=None)
        while True:
            status = await asyncio.to_thread(_status, directory)
            if status.order == order and not status.running:
                break
            if status.running:
                until = loop.time() + ANSWER_S
                progress.update(task, completed=status.done, total=status.total or None)
            if loop.time() > until:
                raise Unavailable(f"the gateway has not begun a scrub within {ANSWER_S:.0f} s; see its log")
            await asyncio.sleep(LOOK_S)
    return await asyncio.to_thread(_known, directory)


def _status(directory: Path) -> Status:
    try:
        return msgspec.json.decode((directory / STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return Status(0)


def _known(directory: Path) -> Extents:
    """Return what the gateway has written, of whatever log."""
    return extents.read(directory, extents.log_of(directory))


async def _here(config: Config) -> Extents:
    """Start the server, which must not be running, and make a pass."""
    from sensegate.authority.slots import node_slots  # noqa: PLC0415 - only this way needs the engine
    from sensegate.bus.engine import Engine, User  # noqa: PLC0415 - as above
    from sensegate.bus.log import JetStreamLog  # noqa: PLC0415 - as above
    from sensegate.clock import SystemClock  # noqa: PLC0415 - as above
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - as above
    from sensegate.persist.duplicates import SLACK_H  # noqa: PLC0415 - as above
    from sensegate.persist.identity import HOUR_US  # noqa: PLC0415 - as above
    from sensegate.persist.scrub import Scrub, scrubbed  # noqa: PLC0415 - as above

    logs.configure("error", config.log_format)  # what is found is the answer
    clock = SystemClock()
    async with Engine.of(
        config, clock, slots=node_slots(config), personal=any_video_profile(config.profiles)
    ) as engine:
        client = await engine.connect(User.GATEWAY, name="scrub")
        try:
            log = JetStreamLog(client)
            await log.open(Path(config.directory))
            horizon_us = (config.duplicates.horizon_h + SLACK_H) * HOUR_US
            made = Scrub(log, scrubbed(config, horizon_us), clock)
            work = asyncio.create_task(made.once(), name="scrub")
            with Progress(console=aside, transient=True, disable=not aside.is_terminal) as progress:
                task = progress.add_task("scrub", total=None)
                while not work.done():
                    await asyncio.wait((work,), timeout=LOOK_S)
                    progress.update(task, completed=made.done, total=made.total or None)
            await log.close()
            return work.result()
        finally:
            await client.close()
