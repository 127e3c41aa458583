"""Fixtures that every suite may use: a clock that moves when told, a real nats-server, connections to it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.internal.conjecture import providers
from nats.aio.client import Client

from sensegate.authoring.examples import failing_example
from sensegate.authority import passwords
from sensegate.bus import process, server_conf, streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import NodeSlots
from sensegate.bus.unreadable import UNREADABLE
from sensegate.clock import FakeClock
from sensegate.config import EngineConfig, StoreConfig
from sensegate.decode import codec_scripts
from sensegate.decode.profile import CompiledProfile
from sensegate.errors import ProfileError
from sensegate.lifecycle import examined
from sensegate.lifecycle import opening as lifecycle_opening
from tests.support import scratch

# A loaded machine is slow, not wrong: no deadlines. The gate asks the same of every change, `make quick` asks less;
# `make fuzz` looks further, elsewhere each time, and what it finds becomes an example of its test.
settings.register_profile(
    "gate", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz",
    settings.get_profile("gate"),
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    derandomize=False,
    database=DirectoryBasedExampleDatabase(Path(__file__).parents[1] / ".hypothesis" / "examples"),
    print_blob=True,
)
settings.register_profile("quick", settings.get_profile("gate"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
if settings.get_current_profile_name() != "fuzz":
    # Hypothesis mixes in constants of the modules that are loaded: the examples would change with each line of source,
    # and with what ran before. Each worker would parse the whole source, too. `make fuzz` takes them.
    providers._get_local_constants = lambda: providers._local_constants

SMALL = StoreConfig(
    intake_bytes=64 * 1024**2,
    log_bytes=256 * 1024**2,
    ledger_bytes=16 * 1024**2,
    registry_bytes=16 * 1024**2,
)


LONG = ("ledger", "test_bench.py", "demo", "live")
"""Folders whose files take long: they begin first, so that the workers end at the same time."""


UNTRACED = ("outside", "test_bench.py", "test_fuzz.py", "test_mutations.py", "test_library.py")
"""What these reach is not counted as covered: others' samples need not be there, and masses of examples assert little
of the lines that they pass. Untraced they take half the time."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the place of temporary files before the first is made; workers inherit it."""
    scratch.use_memory()
    if config.getoption("numprocesses", None):  # this process hands out the tests and collects none
        gc.enable()
    else:
        gc.disable()  # until all is collected: next to nothing of what is loaded is ever garbage


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those with many servers, which wait; those that only compute fill the end.

    What has an engine, or stands in `live/`, is `live`. The order within a file stays.
    """
    here = Path(__file__).parent
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    ranks: dict[Path, tuple[int, int]] = {}
    for path, of_file in by_file.items():
        parts = path.relative_to(here).parts if here in path.parents else ()
        is_uncounted = not {*UNTRACED}.isdisjoint(parts)
        lives = 0
        for item in of_file:
            if "engine" in getattr(item, "fixturenames", ()) or parts[:1] == ("live",):
                item.add_marker("live")
            if is_uncounted:
                item.add_marker("no_cover")
            lives += item.get_closest_marker("live") is not None
        place = LONG.index(parts[0]) if parts and parts[0] in LONG else len(LONG)
        ranks[path] = (place, -lives)
    items.sort(key=lambda item: ranks[item.path])


def pytest_collection_finish() -> None:
    """Exempt what is loaded from garbage collection, which would visit millions of objects, and collect less often.

    A gateway raises the first threshold to as many. With the usual ones some percent of the CPU of the tests go here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


async def eventually(
    true: Callable[[], Awaitable[Any] | Any], timeout_s: float = 30.0, *, every_s: float = 0.02
) -> Any:
    """Return what `true()` gives once it is true; fail after `timeout_s`. Asks again and again: for what has no event.

    Import it: ``from tests.conftest import eventually``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        outcome = true()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome:
            return outcome
        assert loop.time() < deadline, f"not within {timeout_s:g} s; the last answer was {outcome!r}"
        await asyncio.sleep(every_s)


PASSWORD_HASHER = passwords._hasher
"""As it is in the product; a test of its own holds its cost."""


@pytest.fixture(scope="session", autouse=True)
def cheap_password_hashes() -> Iterator[None]:
    """Hash passwords at the least cost: each sign-in of the tests would otherwise spend a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks that a test left, asking again: nats-py swallows some cancellations, so that one may never end."""
    for _ in range(30):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))


@pytest.fixture(scope="session", autouse=True)
def loops_end() -> Iterator[None]:
    """Close the loop of each test also where a task goes on after it was cancelled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.runners, "_cancel_all_tasks", cancel_all_tasks)
        yield


@pytest.fixture(scope="session", autouse=True)
def examples_once() -> Iterator[None]:
    """Run the examples of a profile for one gateway of this process, not for each, as a gateway does over restarts."""
    passed: set[str] = set()

    def examine(profile: CompiledProfile) -> ProfileError | None:
        digest = "" if examined.reads_files(profile) else examined.digest_of(profile)
        if digest in passed:
            return None
        problem = failing_example(profile)
        if digest and problem is None:
            passed.add(digest)
        return problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle_opening, "failing_example", examine)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_script_process_is_left() -> Iterator[None]:
    """End the processes that ran codec scripts, as a gateway does when it stops."""
    yield
    codec_scripts.close()


@pytest.fixture(scope="session", autouse=True)
def rare_flushes() -> Iterator[None]:
    """Have the servers of tests flush as seldom as with `process`, and this process not at all.

    Their disk is shared, and none loses its power; a gateway writes a hundred small files at its start.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setitem(server_conf.SYNC_INTERVALS, "power", server_conf.SYNC_INTERVALS["process"])
        yield


@pytest.fixture(scope="module", autouse=True)
def no_unreadable_entries() -> None:
    """Begin each file of tests without the unreadable log entries that a file before it left in this process."""
    for entry in UNREADABLE.all():
        UNREADABLE.remove(entry.sequence)


@pytest.fixture(scope="session", autouse=True)
def no_server(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail what starts a server in a run without those that do, as `make quick` is: its mark is missing."""
    with pytest.MonkeyPatch.context() as patch:
        if "not live" in pytestconfig.getoption("markexpr"):
            patch.setattr(process, "binary", lambda: pytest.fail("this test starts nats-server: mark it `live`"))
        yield


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands at 2026-01-01T00:00:00Z."""
    return FakeClock()


@pytest.fixture
def store_config() -> StoreConfig:
    """Caps small enough for a test machine."""
    return SMALL


@pytest.fixture
async def engine(tmp_path: Path, store_config: StoreConfig) -> AsyncIterator[Engine]:
    """A started engine in `tmp_path`, with node 4403 known to it; ended after the test."""
    started = Engine(EngineConfig(), store_config, tmp_path, name="4401", slots=NodeSlots({"4403": "secret-of-4403"}))
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


@pytest.fixture
def nats_url(engine: Engine) -> str:
    """The address of the engine."""
    return engine.info.urls[0]


@pytest.fixture
async def gateway(engine: Engine, store_config: StoreConfig) -> AsyncIterator[Client]:
    """A connection of `User.GATEWAY`; LOG, LEDGER and AUDIT are made."""
    client = await engine.connect(User.GATEWAY)
    await streams.ensure_streams(client, store_config)
    yield client
    await client.close()


@pytest.fixture
async def intake(engine: Engine, store_config: StoreConfig) -> AsyncIterator[Client]:
    """A connection of `User.INTAKE`; the broker's streams are made."""
    client = await engine.connect(User.INTAKE)
    await streams.ensure_mqtt_streams(client, store_config)
    yield client
    await client.close()


@pytest.fixture
async def log(gateway: Client) -> AsyncIterator[JetStreamLog]:
    """The LOG of the engine, opened."""
    opened = JetStreamLog(gateway)
    await opened.open()
    yield opened
    await opened.close()
