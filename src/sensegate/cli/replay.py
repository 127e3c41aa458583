"""`sensegate replay`: publish recorded messages."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sensegate.cli.output import console, stderr
from sensegate.demo.mqtt import Publisher, RefusedConnection
from sensegate.errors import ConfigError, Unavailable
from sensegate.wording import count

WINDOW = 1_000


def _payload(entry: dict[str, Any]) -> bytes:
    """Return the payload of a line: base64, text, or anything else as the JSON that it is."""
    if "payload_b64" in entry:
        return base64.b64decode(entry["payload_b64"], validate=True)
    payload = entry["payload"]
    return payload.encode() if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False).encode()


def _reason(error: Exception) -> str:
    """Return what a line lacks, in words of JSON."""
    match error:
        case KeyError():
            return f"{error} is missing"
        case json.JSONDecodeError():
            return f"it is not JSON: {error}"
        case ValueError():
            return str(error)
        case _:
            return "it is not an object, or `topic`, `payload` or `at` has a wrong type"


def messages(file: Path) -> Iterator[tuple[str, bytes, float | None]]:
    """Yield (topic, payload, at) of each line; `at` in seconds where the line has one.

    Raises:
        ConfigError: a line is not a recorded message.
    """
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                at = entry.get("at")
                yield entry["topic"], _payload(entry), float(at) if at is not None else None
            except (ValueError, KeyError, TypeError, AttributeError) as why:
                raise ConfigError(
                    f"the line is not a recorded message ({_reason(why)})",
                    file=str(file),
                    line=number,
                    remedy='write lines {"topic": …, "payload": … or "payload_b64": …, "at": seconds (optional)}',
                ) from why


def replay(
    file: Annotated[Path, typer.Argument(help="JSON lines: topic, payload or payload_b64, optional at.", exists=True)],
    *,
    to: Annotated[
        str,
        typer.Option(
            help="Broker mqtt://[user[:password]@]host[:port]; preferably the password in SENSEGATE_MQTT_PASSWORD."
        ),
    ],
    speed: Annotated[
        float, typer.Option(min=0, help="Speed relative to the recording (needs `at`); 0: as fast as possible.")
    ] = 0.0,
    repeat: Annotated[int, typer.Option(min=1, help="Number of repetitions of the file.")] = 1,
) -> None:
    """Publish recorded messages at QoS 1 and wait for their acknowledgements.

    Example: sensegate replay messages.jsonl --to mqtt://air-1@127.0.0.1:11883
    """
    total = sum(1 for _ in messages(file)) * repeat
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=stderr
    )
    with progress:
        bar = progress.add_task(file.name, total=total)
        asyncio.run(_Player(to, lambda: progress.advance(bar)).play(file, speed, repeat))
    console.print(f"{count(total, 'message')} acknowledged by {urlsplit(to).hostname}", highlight=False)


class _Player:
    """A connection that publishes a recording."""

    def __init__(self, to: str, advance: Callable[[], None]) -> None:
        self.target = urlsplit(to)
        if self.target.scheme != "mqtt" or not self.target.hostname:
            raise ConfigError(f"'{to}' is not an MQTT address", remedy="give mqtt://user:password@host:port")
        self.host, self.port = self.target.hostname, self.target.port or 1883
        self.advance = advance
        self.changed = asyncio.Event()
        self.lost = False

    def _acknowledged(self, _: str) -> None:
        self.advance()
        self.changed.set()

    def _lost(self) -> None:
        self.lost = True
        self.changed.set()

    async def _connect(self) -> Publisher:
        try:
            return await Publisher.connect(
                self.host,
                self.port,
                client_id=f"sensegate-replay-{os.getpid()}",
                username=unquote(self.target.username or ""),
                password=os.environ.get("SENSEGATE_MQTT_PASSWORD", "") or unquote(self.target.password or ""),
                acknowledged=self._acknowledged,
                lost=self._lost,
            )
        except RefusedConnection as why:
            raise Unavailable(f"{self.host} refuses the connection ({why}); check user name and password") from why
        except OSError as why:
            raise Unavailable(f"{self.host}:{self.port} cannot be reached ({why})") from why

    async def _drain(self, publisher: Publisher, limit: int) -> None:
        """Wait until at most `limit` messages are in flight."""
        while len(publisher.in_flight) > limit:
            if self.lost:
                raise Unavailable(
                    f"{self.host} closed the connection with {count(len(publisher.in_flight), 'message')} not "
                    "acknowledged; check the permitted topics and the message size"
                )
            self.changed.clear()
            await self.changed.wait()

    async def play(self, file: Path, speed: float, repeat: int) -> None:
        """Publish a file `repeat` times, at `speed` times the recorded pace."""
        publisher = await self._connect()
        loop = asyncio.get_running_loop()
        for _ in range(repeat):
            started, first = loop.time(), None
            for topic, payload, at in messages(file):
                if speed and at is not None:
                    first = at if first is None else first
                    await asyncio.sleep(max(0.0, started + (at - first) / speed - loop.time()))
                await self._drain(publisher, WINDOW)
                publisher.publish("", topic.encode(), payload)
        await self._drain(publisher, 0)
        publisher.close()
