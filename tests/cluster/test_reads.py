"""Reads of a replicated stream: a copy that lags behind must not hide what the leader has."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg

from sensegate.bus.connect import BusClient
from sensegate.bus.reader import StreamFollower


class LaggingCopy(BusClient):
    """A client whose direct gets a copy without messages answers; the leader has one message."""

    def __init__(self, replicas: int) -> None:
        super().__init__("test")
        self.replicas = replicas
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self._answer: Any = None

    async def subscribe(self, subject: str, *_: Any, **more: Any) -> Any:
        self._answer = more["cb"]

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", *_: Any, **__: Any) -> None:
        assert subject == "$JS.API.DIRECT.GET.LOG"
        await self._answer(Msg(self, reply, "", b"", {"Status": "404", "Description": "Message Not Found"}))

    async def request(self, subject: str, payload: bytes = b"", *_: Any, **__: Any) -> Msg:
        self.asked.append((subject, json.loads(payload)))
        message = {
            "subject": "raw.x",
            "seq": 7,
            "data": base64.b64encode(b"new").decode(),
            "hdrs": base64.b64encode(b"NATS/1.0\r\nNats-TTL: 1h\r\n\r\n").decode(),
            "time": "2026-01-01T00:00:00.000001Z",
        }
        return Msg(self, "", "", json.dumps({"message": message}).encode(), None)


async def test_what_a_copy_lacks_is_asked_of_the_leader() -> None:
    """The end of a replicated stream is the leader's, with the headers of direct gets."""
    client = LaggingCopy(3)
    (message,) = await StreamFollower(client, "LOG").fetch(6, limit=10, max_bytes=1024)
    assert client.asked == [("$JS.API.STREAM.MSG.GET.LOG", {"seq": 7, "next_by_subj": ">"})]
    assert message.data == b"new"
    assert message.headers == {
        "Nats-TTL": "1h",
        "Nats-Sequence": "7",
        "Nats-Subject": "raw.x",
        "Nats-Time-Stamp": "2026-01-01T00:00:00.000001Z",
    }


async def test_a_single_copy_is_believed() -> None:
    """Control: without copies on other servers the answer to a direct get is the stream's."""
    client = LaggingCopy(1)
    assert not await StreamFollower(client, "LOG").fetch(6, limit=10, max_bytes=1024)
    assert not client.asked
