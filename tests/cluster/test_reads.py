"""Reads of a replicated stream: a copy that lags behind must not hide what the leader has."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
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


class LaggingBehind(LaggingCopy):
    """The same; the leader has messages with gaps between them, one a second from the second 10 on."""

    SEQUENCES = (3, 4, 8, 20, 21, 30)

    async def request(self, subject: str, payload: bytes = b"", *_: Any, **__: Any) -> Msg:
        self.asked.append((subject, {}))
        if "STREAM.INFO" in subject:
            state = {"messages": len(self.SEQUENCES), "first_seq": self.SEQUENCES[0], "last_seq": self.SEQUENCES[-1]}
            return Msg(self, "", "", json.dumps({"created": "", "state": state}).encode(), None)
        wanted = json.loads(payload)["seq"]
        sequence = next((number for number in self.SEQUENCES if number >= wanted), None)
        if sequence is None:
            error = {"code": 404, "err_code": 10037, "description": "no message found"}
            return Msg(self, "", "", json.dumps({"error": error}).encode(), None)
        second = 10 + self.SEQUENCES.index(sequence)
        message = {"subject": "raw.x", "seq": sequence, "time": f"1970-01-01T00:00:{second}Z"}
        return Msg(self, "", "", json.dumps({"message": message}).encode(), None)


@pytest.mark.parametrize(
    ("second", "sequence"),
    [(0, 3), (10, 3), (10.5, 4), (12, 8), (13, 20), (14, 21), (14.5, 30), (15, 30), (16, None)],
)
async def test_the_first_since_a_time_is_the_leaders(second: float, sequence: int | None) -> None:
    """Where a copy lacks several of them, too, not only the last: the others would be skipped."""
    client = LaggingBehind(3)
    assert await StreamFollower(client, "LOG").first_since(round(second * 1_000_000)) == sequence
    assert len(client.asked) < 9


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
