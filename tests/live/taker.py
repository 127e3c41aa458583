"""A subscriber as a process of its own, to be killed at any moment: `python -m tests.live.taker SPEC`.

It keeps what it has in a file, a line a record, and goes on from the last line by the contract of its delivery:

http sse ws    after the cursor of the last record
mqtt           a new session, a new tag, the cursor of the last record on the control topic
webhook nats   nothing: the letter on its way comes again with its id, by which one that is kept already is known
columns        `sensegate_client` after the cursor of the last whole page, which is kept as the id of a letter

Each imports only what its delivery needs: there are many of them, and all libraries take half a second of CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from aiohttp import web
    from nats.aio.msg import Msg

AGAIN_S = 0.1
BY_CURSOR = ("http", "sse", "ws", "mqtt")


class Spec(msgspec.Struct, kw_only=True):
    """What it reads, how, and where it keeps it."""

    delivery: Literal["http", "sse", "ws", "mqtt", "webhook", "nats", "columns"]
    file: str
    http: str
    mqtt_port: int
    nats: str
    feed: str
    grant: str
    token: str
    token_id: str
    port: int = 0
    """On which it receives letters."""


class Kept:
    """What it has, in a file."""

    def __init__(self, path: Path, *, letters: bool) -> None:
        """`letters`: only whole letters count, each ended by a line with its id."""
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n#") + 1] if letters else text
        if letters and "#" in text:
            end = text.find("\n", text.rfind("\n#") + 1)
            whole = text[: end + 1] if end >= 0 else whole
        whole = whole[: whole.rfind("\n") + 1]
        self.last = ""
        self.letter = ""
        self.ids: set[str] = set()
        for line in whole.splitlines():
            if line.startswith("#"):
                self.letter = line[1:]
                self.ids.add(self.letter)
            else:
                self.last = json.loads(line)[0]
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.truncate(self._file, len(whole.encode()))
        os.lseek(self._file, 0, os.SEEK_END)

    def take(self, records: Sequence[dict[str, Any]], letter: str = "") -> None:
        """Keep records, all or none."""
        lines = [
            json.dumps([record["cursor"], record["id"], record["device"], record["value"]]) + "\n" for record in records
        ]
        if letter:
            self.ids.add(letter)
            lines.append(f"#{letter}\n")
        os.write(self._file, "".join(lines).encode())
        if records:
            self.last = records[-1]["cursor"]


def errors_of(delivery: str) -> tuple[type[Exception], ...]:
    """Return what the library of a delivery raises when the other end is away."""
    match delivery:
        case "ws":
            from websockets.exceptions import WebSocketException

            return OSError, TimeoutError, WebSocketException
        case "nats":
            from nats.errors import Error

            return OSError, TimeoutError, Error
        case "columns":
            from sensegate_client import ClientError

            return OSError, TimeoutError, ClientError
        case _:
            from aiohttp import ClientError as HttpError

            return OSError, TimeoutError, HttpError


class Taker:
    """One of them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.kept = Kept(Path(spec.file), letters=spec.delivery not in BY_CURSOR)
        self.headers = {"Authorization": f"Bearer {spec.token}"}
        self.path = f"{spec.http}/api/v1/feeds/{spec.feed}"

    @property
    def after(self) -> dict[str, str]:
        return {"after": self.kept.last} if self.kept.last else {}

    async def run(self) -> None:
        """Take until killed, through whatever happens at the other end."""
        ways = {
            "http": self.http,
            "sse": self.sse,
            "ws": self.ws,
            "webhook": self.webhook,
            "nats": self.nats,
            "columns": self.columns,
        }
        if self.spec.delivery == "mqtt":
            await asyncio.to_thread(self.mqtt)
        errors = errors_of(self.spec.delivery)
        while True:
            with contextlib.suppress(*errors):
                await ways[self.spec.delivery]()
            await asyncio.sleep(AGAIN_S)

    async def http(self) -> None:
        import aiohttp

        async with aiohttp.ClientSession(raise_for_status=True) as http:
            while True:
                query = {**self.after, "wait": "10"}
                async with http.get(f"{self.path}/records", headers=self.headers, params=query) as response:
                    self.kept.take((await response.json())["records"])

    async def columns(self) -> None:
        from sensegate_client import Client

        async with Client(self.spec.http, self.spec.token) as client:
            async for page in client.feed(self.spec.feed).columns(after=self.kept.letter):
                records = [
                    {"cursor": record.id, "id": record.id, "device": record.device, "value": record.value}
                    for record in page.records()
                ]
                self.kept.take(records, page.next)

    async def sse(self) -> None:
        import aiohttp

        async with (
            aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(sock_read=30)) as http,
            http.get(f"{self.path}/stream", headers=self.headers, params=self.after) as response,
        ):
            event = b""
            async for line in response.content:
                if line.startswith(b"data: {") and not event.startswith(b"event: problem"):
                    self.kept.take([json.loads(line[6:])])
                event = line if line != b"\n" else b""

    async def ws(self) -> None:
        from websockets.asyncio.client import connect

        query = f"?after={self.kept.last}" if self.kept.last else ""
        url = f"{self.path.replace('http', 'ws', 1)}/ws{query}"
        async with connect(url, additional_headers=self.headers) as socket:
            async for message in socket:
                records = json.loads(message).get("records", [])
                self.kept.take(records)
                if records:
                    await socket.send(json.dumps({"credit": len(records)}))

    async def webhook(self) -> None:
        from aiohttp import web

        async def take(request: web.Request) -> web.Response:
            letter = request.headers["webhook-id"]
            if letter not in self.kept.ids:
                self.kept.take((await request.json())["records"], letter)
            return web.Response()

        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.spec.port, reuse_address=True).start()
        await asyncio.Event().wait()

    async def nats(self) -> None:
        import nats
        from nats.errors import Error

        client = await nats.connect(
            self.spec.nats,
            user=self.spec.token_id,
            password=self.spec.token,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
        )

        async def take(message: Msg) -> None:
            letter = (message.headers or {})["Nats-Msg-Id"]
            if letter not in self.kept.ids:
                self.kept.take(json.loads(message.data)["records"], letter)
            with contextlib.suppress(Error):
                await message.respond(b"")

        await client.subscribe(f"sg.feeds.{self.spec.grant}.>", cb=take)
        while not client.is_closed:
            await asyncio.sleep(AGAIN_S)

    def mqtt(self) -> None:
        """Let paho's own loop run; a new client for each connection."""
        while True:
            with contextlib.suppress(OSError):
                self._session(f"sg/grants/{self.spec.grant}/{secrets.token_hex(4)}")
            time.sleep(AGAIN_S)

    def _session(self, topic: str) -> None:
        from paho.mqtt.client import Client as Paho
        from paho.mqtt.enums import CallbackAPIVersion

        text = json.dumps({"after": self.kept.last or "first", "tag": topic.rpartition("/")[2]})
        ended = threading.Event()
        client = Paho(CallbackAPIVersion.VERSION2, client_id=f"{self.spec.token_id}-taker", clean_session=True)
        client.username_pw_set(self.spec.token_id, self.spec.token)

        def connected(*_: Any) -> None:
            client.subscribe(topic, 1)

        def subscribed(*_: Any) -> None:
            client.publish(f"sg/control/{self.spec.grant}/mqtt", text, qos=1)

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = lambda _c, _u, message: self.kept.take(json.loads(message.payload)["records"])
        client.on_disconnect = lambda *_: ended.set()
        client.connect("127.0.0.1", self.spec.mqtt_port, keepalive=10)
        client.loop_start()
        ended.wait()
        client.loop_stop()


if __name__ == "__main__":
    asyncio.run(Taker(msgspec.json.decode(sys.argv[1], type=Spec)).run())
