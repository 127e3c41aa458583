"""Versions that change under load: no message lost, doubled or read by two versions; and doubles that get it wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.clock import SystemClock
from sensegate.decode.decode import Decoder
from sensegate.ingest.boundary import BatchBoundary
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.pipeline import IngestPipeline
from sensegate.lifecycle.contents import Content
from sensegate.model import Device, Fields, Message, MessageBatch
from tests.conftest import eventually
from tests.reloading import PROFILE, Verdict, payload, rows_of, text, verdict
from tests.support.reprocessing_node import ADMIN, Node

NAMES = [f"d{number}" for number in range(8)]
ROUNDS = 40
CHANGES = 5
NOW_MS = SystemClock().now() // 1_000 - 600_000


async def under_load(node: Node) -> Verdict:
    """Let devices speak without a pause while one version after the other is released; return what the log says."""
    sent: dict[tuple[str, int], int] = {}
    async with node.alive() as process:
        for name in NAMES:
            await node.devices.add(Device(name, "440106", PROFILE), by=ADMIN)
        for change in range(CHANGES):
            for at in range(ROUNDS):
                number = change * ROUNDS + at
                made = [
                    Message(f"reload/{name}/up", payload(number, NOW_MS + number), (NOW_MS + number) * 1_000, 0)
                    for name in NAMES
                ]
                sent |= {(name, NOW_MS + number): 64 * (1 + number % 3) for name in NAMES}
                node.source.give(made)
                await asyncio.sleep(0)
            version = change + 2
            await process.releases.draft(Content(text(version)), by=ADMIN)
            await process.releases.propose(PROFILE, version, by=ADMIN)
            await process.releases.release(PROFILE, version, by=ADMIN)
            assert await process.rollout.wait_in_force()
        await eventually(lambda: node.source.acknowledged == len(node.source.messages), 30)
    return verdict(rows_of(await node.log.fetch(0, limit=1_000_000, max_bytes=2**40)), sent)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with version 1 of the profile in its folder."""
    made = Node(tmp_path)
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "reload.yaml").write_text(text(1), encoding="utf-8")
    made.config = msgspec.structs.replace(made.config, profiles=(str(folder),))
    return made


async def test_releases_under_load(node: Node) -> None:
    """Five releases in the middle of it; at least three versions were seen at work."""
    verdict = await under_load(node)
    assert verdict.good, verdict
    assert verdict.messages == len(NAMES) * ROUNDS * CHANGES
    assert sum(verdict.versions.values()) == verdict.messages
    assert len(verdict.versions) >= 3, verdict


def swap_in_a_batch(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the version where the walk stands, not at its border: between two messages of a batch."""
    turns: list[Any] = []
    whole = IngestPipeline._interpret
    monkeypatch.setattr(BatchBoundary, "add", lambda _self, turn: turns.append(turn))

    def understand(self: IngestPipeline, span: MessageBatch, eyes: Interpreter) -> Any:
        half = len(span) // 2
        first = whole(self, MessageBatch(span[:half]), eyes)
        while turns:
            turns.pop(0)()
        return first.merged_with(whole(self, MessageBatch(span[half:]), eyes), half)

    monkeypatch.setattr(IngestPipeline, "_interpret", understand)


def swap_in_a_message(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the first value of a message by one version and the second by the next."""
    before: dict[int, Any] = {}
    use, decode = Decoder.set_profiles, Decoder.decode

    def used(self: Decoder, profiles: Any) -> None:
        before[id(self)] = self.profiles
        use(self, profiles)

    def decoded(self: Decoder, messages: Any) -> Fields:
        decoded = decode(self, messages)
        if id(self) not in before or not len(decoded):
            return decoded
        spec = decode(Decoder(before.pop(id(self)), self._devices), messages).spec.copy()
        spec[1::2] = decoded.spec[1::2]
        return msgspec.structs.replace(decoded, spec=spec)

    monkeypatch.setattr(Decoder, "set_profiles", used)
    monkeypatch.setattr(Decoder, "decode", decoded)


def forget_a_batch(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop what is understood when a version changes."""
    turns: list[Any] = []
    whole = IngestPipeline._interpret
    monkeypatch.setattr(BatchBoundary, "add", lambda _self, turn: turns.append(turn))

    def understand(self: IngestPipeline, span: MessageBatch, eyes: Interpreter) -> Any:
        result = whole(self, span, eyes)
        if turns:
            turns.pop(0)()
            nothing = eyes.decoder.decode([])
            return msgspec.structs.replace(
                result, fields=nothing, readings=eyes.normaliser.normalise(nothing, result.received)[0]
            )
        return result

    monkeypatch.setattr(IngestPipeline, "_interpret", understand)


@pytest.mark.parametrize(
    ("double", "caught"), [(swap_in_a_batch, "torn"), (swap_in_a_message, "mixed"), (forget_a_batch, "lost")]
)
async def test_control_a_double_that_gets_it_wrong_is_caught(
    node: Node, monkeypatch: pytest.MonkeyPatch, double: Any, caught: str
) -> None:
    """The same measurement is not zero where the fault is built in."""
    double(node, monkeypatch)
    verdict = await under_load(node)
    assert not verdict.good
    assert getattr(verdict, caught) > 0, verdict


def test_control_an_empty_log_has_lost_all() -> None:
    """A log that is empty has lost everything."""
    assert verdict([], {("d1", 1): 64}) == Verdict(1, 1, 0, 0, 0, {})
