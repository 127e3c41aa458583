"""Recorded messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.clock import FakeClock
from sensegate.collect.replay import ReplaySource, read_recording
from sensegate.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "payload", "received"),
    [
        ({"topic": "a", "payload": '{"x":1}'}, b'{"x":1}', 5),
        ({"topic": "a", "payload": {"x": 1}}, b'{"x":1}', 5),
        ({"topic": "a", "payload_b64": "AP8="}, b"\x00\xff", 5),
        ({"topic": "a", "payload": "21.5", "at": 1_767_225_600.5}, b"21.5", 1_767_225_600_500_000),
        ({"topic": "a", "payload": "", "at": 1_767_225_600_500}, b"", 1_767_225_600_500_000),
        ({"topic": "a", "payload": "x", "at": "2026-01-01T00:00:00.5Z"}, b"x", 1_767_225_600_500_000),
    ],
)
def test_forms_of_a_line(tmp_path: Path, line: dict[str, object], payload: bytes, received: int) -> None:
    """Text, JSON as it stands and base64; the time in seconds, milliseconds or as text, else now."""
    path = tmp_path / "r.jsonl"
    path.write_text("\n" + json.dumps(line, separators=(",", ":")) + "\n")
    (message,) = read_recording(path, now=5)
    assert (message.payload, message.received, message.sequence) == (payload, received, 2)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    """The error says file, line and what to write."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"topic":"a","payload":"x"}\n{"payload":"x"}\n')
    with pytest.raises(ConfigError, match=r"r\.jsonl:2: .*topic"):
        list(read_recording(path))


@given(line=st.binary(max_size=80))
def test_no_line_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    """Whatever stands in the file: messages or a ConfigError."""
    path = tmp_path_factory.mktemp("replay") / "r.jsonl"
    path.write_bytes(line)
    with contextlib.suppress(ConfigError):
        list(read_recording(path))


async def test_exhausted_once_the_last_is_acknowledged(tmp_path: Path) -> None:
    """The end is known when everything was committed."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"topic":"a","payload":"1"}\n{"topic":"a","payload":"2"}\n')
    source = ReplaySource(path, FakeClock(), batch=1)
    await source.start(None)
    deliveries = source.deliveries()
    first, second = await anext(deliveries), await anext(deliveries)
    await first.ack()
    waiting = asyncio.ensure_future(anext(deliveries))
    await asyncio.sleep(0)
    assert not source.exhausted.is_set()
    await second.ack()
    assert source.exhausted.is_set()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
