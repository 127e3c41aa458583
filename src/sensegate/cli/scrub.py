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
from sensegate.persist.extents import ScrubState
from sensegate.persist.scrubber import POLL_S, REQUEST_FILE, STATUS_FILE, ScrubStatus

ANSWER_S = 30.0
"""A gateway that runs begins within this."""


def scrub(config: Config, *, running: bool) -> ScrubState:
    """Make a pass and return what is known after it, with a bar on the terminal.

    Raises:
        Unavailable: the gateway that runs does not answer, or the log cannot be read.
        EngineError, ConfigError: no gateway runs, and its server cannot be started here.
    """
    return asyncio.run(_by_order(Path(config.directory)) if running else _here(config))


async def _by_order(directory: Path) -> ScrubState:
    order = secrets.token_hex(8)
    await asyncio.to_thread(write_private, directory / REQUEST_FILE, order)
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_S
    with Progress(console=aside, transient=True, disable=not aside.is_terminal) as progress:
        task = progress.add_task("scrub", total=None)
        while True:
            status = await asyncio.to_thread(_status, directory)
            if status.request == order and not status.running:
                break
            if status.running:
                until = loop.time() + ANSWER_S
                progress.update(task, completed=status.done, total=status.total or None)
            if loop.time() > until:
                raise Unavailable(f"the gateway has not begun a scrub within {ANSWER_S:.0f} s; see its log")
            await asyncio.sleep(POLL_S)
    return await asyncio.to_thread(_known, directory)


def _status(directory: Path) -> ScrubStatus:
    try:
        return msgspec.json.decode((directory / STATUS_FILE).read_bytes(), type=ScrubStatus)
    except (OSError, msgspec.DecodeError):
        return ScrubStatus(0)


def _known(directory: Path) -> ScrubState:
    """Return what the gateway has written, of whatever log."""
    return extents.read(directory, extents.log_of(directory))


async def _here(config: Config) -> ScrubState:
    """Start the server, which must not be running, and make a pass."""
    from sensegate.bus.engine import Engine, User  # noqa: PLC0415 - only this way needs the engine
    from sensegate.bus.log import JetStreamLog  # noqa: PLC0415 - as above
    from sensegate.clock import HOUR_US, SystemClock  # noqa: PLC0415 - as above
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - as above
    from sensegate.persist.duplicates import HORIZON_SLACK_H  # noqa: PLC0415 - as above
    from sensegate.persist.scrub import Scrub, scrub_target  # noqa: PLC0415 - as above

    logs.configure("error", config.log_format)  # what is found is the answer
    clock = SystemClock()
    async with Engine.of(config, clock, personal=any_video_profile(config.profiles)) as engine:
        client = await engine.connect(User.GATEWAY, name="scrub")
        try:
            log = JetStreamLog(client)
            await log.open(Path(config.directory))
            horizon_us = (config.duplicates.horizon_h + HORIZON_SLACK_H) * HOUR_US
            made = Scrub(log, scrub_target(config, horizon_us), clock)
            work = asyncio.create_task(made.run_pass(), name="scrub")
            with Progress(console=aside, transient=True, disable=not aside.is_terminal) as progress:
                task = progress.add_task("scrub", total=None)
                while not work.done():
                    await asyncio.wait((work,), timeout=POLL_S)
                    progress.update(task, completed=made.sequences_done, total=made.sequences_total or None)
            await log.close()
            return work.result()
        finally:
            await client.close()
