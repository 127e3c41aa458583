"""`sensegate doctor CONFIG --scrub`: one pass of the scrub, by the running gateway or, without one, in this process."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import msgspec
from rich.progress import Progress

from sensegate import logs
from sensegate.bus.files import write_private
from sensegate.cli.output import stderr
from sensegate.config import Config
from sensegate.errors import Unavailable
from sensegate.persist import extents
from sensegate.persist.extents import ScrubState
from sensegate.persist.scrubber import POLL_S, REQUEST_FILE, STATUS_FILE, ScrubStatus

ANSWER_S = 30.0
"""Time limit for a running gateway to begin the pass."""


def scrub(config: Config, *, running: bool) -> ScrubState:
    """Make a pass and return the extents of the log after it, with a progress bar on the terminal.

    Raises:
        Unavailable: the running gateway does not answer, or the log cannot be read.
        EngineError, ConfigError: the server of the stopped gateway cannot be started.
    """
    return asyncio.run(_by_gateway(Path(config.directory)) if running else _in_process(config))


async def _by_gateway(directory: Path) -> ScrubState:
    order = secrets.token_hex(8)
    await asyncio.to_thread(write_private, directory / REQUEST_FILE, order)
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_S
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
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
    return await asyncio.to_thread(_extents, directory)


def _status(directory: Path) -> ScrubStatus:
    try:
        return msgspec.json.decode((directory / STATUS_FILE).read_bytes(), type=ScrubStatus)
    except (OSError, msgspec.DecodeError):
        return ScrubStatus(0)


def _extents(directory: Path) -> ScrubState:
    """Return the extents that the gateway has written."""
    return extents.read(directory, extents.log_of(directory))


async def _in_process(config: Config) -> ScrubState:
    """Start the server of a stopped gateway and make a pass."""
    from sensegate.authority.slots import node_slots  # noqa: PLC0415 - needed only without a running gateway
    from sensegate.bus.engine import Engine  # noqa: PLC0415 - as above
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - as above
    from sensegate.persist.offline_scrub import offline_scrub  # noqa: PLC0415 - as above

    logs.configure("error", config.log_format)  # the results go to the terminal
    slots, personal = node_slots(config), any_video_profile(config.profile_folders)
    async with Engine.of(config, slots=slots, personal=personal) as engine, offline_scrub(config, engine) as scrubber:
        work = asyncio.create_task(scrubber.run_pass(), name="scrub")
        with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
            task = progress.add_task("scrub", total=None)
            while not work.done():
                await asyncio.wait((work,), timeout=POLL_S)
                progress.update(task, completed=scrubber.sequences_done, total=scrubber.sequences_total or None)
        return work.result()
