"""`sensegate doctor CONFIG --scrub`: one pass of the scrub, by the running gateway or, without one, in this process."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import msgspec
from rich.progress import Progress

from sensegate import logs
from sensegate.bus.process import write_private
from sensegate.cli.output import stderr
from sensegate.config import Config
from sensegate.errors import Unavailable
from sensegate.persist import extents
from sensegate.persist.extents import Extents
from sensegate.persist.scrubber import LOOK_S, ORDER, STATUS, Status

ANSWER_S = 30.0
"""Time limit for a running gateway to begin the pass."""


def scrub(config: Config, *, running: bool) -> Extents:
    """Make a pass and return the extents of the log after it, with a progress bar on the terminal.

    Raises:
        Unavailable: the running gateway does not answer, or the log cannot be read.
        EngineError, ConfigError: the server of the stopped gateway cannot be started.
    """
    return asyncio.run(_by_gateway(Path(config.directory)) if running else _in_process(config))


async def _by_gateway(directory: Path) -> Extents:
    order = secrets.token_hex(8)
    await asyncio.to_thread(write_private, directory / ORDER, order)
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_S
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
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
    return await asyncio.to_thread(_extents, directory)


def _status(directory: Path) -> Status:
    try:
        return msgspec.json.decode((directory / STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return Status(0)


def _extents(directory: Path) -> Extents:
    """Return the extents that the gateway has written."""
    return extents.read(directory, extents.log_of(directory))


async def _in_process(config: Config) -> Extents:
    """Start the server of a stopped gateway and make a pass."""
    from sensegate.authority.slots import node_slots  # noqa: PLC0415 - needed only without a running gateway
    from sensegate.bus.engine import Engine, User  # noqa: PLC0415 - as above
    from sensegate.bus.log import JetStreamLog  # noqa: PLC0415 - as above
    from sensegate.clock import SystemClock  # noqa: PLC0415 - as above
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - as above
    from sensegate.persist.duplicates import SLACK_H  # noqa: PLC0415 - as above
    from sensegate.persist.identity import HOUR_US  # noqa: PLC0415 - as above
    from sensegate.persist.scrub import Scrub, scrubbed  # noqa: PLC0415 - as above

    logs.configure("error", config.log_format)  # the results go to the terminal
    clock = SystemClock()
    async with Engine.of(
        config, clock, slots=node_slots(config), personal=any_video_profile(config.profile_folders)
    ) as engine:
        client = await engine.connect(User.GATEWAY, name="scrub")
        try:
            log = JetStreamLog(client)
            await log.open(Path(config.directory))
            horizon_us = (config.duplicates.horizon_h + SLACK_H) * HOUR_US
            scrubber = Scrub(log, scrubbed(config, horizon_us), clock)
            work = asyncio.create_task(scrubber.once(), name="scrub")
            with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
                task = progress.add_task("scrub", total=None)
                while not work.done():
                    await asyncio.wait((work,), timeout=LOOK_S)
                    progress.update(task, completed=scrubber.done, total=scrubber.total or None)
            await log.close()
            return work.result()
        finally:
            await client.close()
