"""A fast parser for the messages of one subscription on a nats-py connection.

nats-py spends about 7 µs per message on two regular expressions, headers, a `Msg` and a queue (see
`tests/bench/collect.py`); for a JetStream push consumer the payload and five numbers suffice. The tap replaces the
parser of the connection, parses the messages of its own subscription, and passes all other protocol operations to the
original parser. Connecting, authentication, TLS, pings, requests and reconnection remain with nats-py.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client

from sensegate.collect.topic import topic_of
from sensegate.model import Message

_HMSG = re.compile(rb"HMSG (\S+) (\d+) (?:(\S+) )?(\d+) (\d+)\r\n")
_MSG = re.compile(rb"MSG (\S+) (\d+) (?:(\S+) )?()(\d+)\r\n")
_REPLY = re.compile(rb"\$JS\.ACK\.[^.]+\.[^.]+\.(\d+)\.(\d+)\.(\d+)\.(\d+)\.\d+\Z")
_HEADER = re.compile(rb"^([^:\r\n]+): ?([^\r\n]*)\r$", re.MULTILINE)
_NEVER = re.compile(rb"(?!)").match

TOPICS_MAX = 200_000
"""Most cached topics; when full, the cache is cleared."""
DISCARD = 0
AWAIT_FIRST = -1


class SubscriptionTap:
    """The messages of a JetStream push consumer on a connection, checked for contiguity.

    `messages(chunk, consumer sequence of the last)`, `control(headers, reply)`, `late()` and `broken(reason)` are
    called from the connection's reading task. Nothing is delivered before `expect_first` and consumer sequence 1, nor
    after a break. `late()` reports that another message arrived instead of the first.
    """

    def __init__(
        self,
        connection: Client,
        messages: Callable[[list[Message], int], None],
        control: Callable[[dict[str, str], str], Awaitable[None]],
        late: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        # Replaces nats-py's private parser; a test fails if a release has none.
        self._parser: Any = connection._ps  # noqa: SLF001
        connection._ps = self  # type: ignore[assignment]  # noqa: SLF001 - has the two methods that nats-py calls
        self._messages = messages
        self._control = control
        self._late = late
        self._broken = broken
        self._topics: dict[bytes, str] = {}
        self._prefix_length = 0
        self._remainder = b""
        self._sid = -1
        self._match = _NEVER
        self._expected = DISCARD

    def attach(self, sid: int, stream: str, consumer: str, subject_prefix: str) -> None:
        """Start parsing subscription `sid`; topics are the subjects without the prefix."""
        reply = re.escape(f"$JS.ACK.{stream}.{consumer}.1.".encode())
        line = rb"HMSG (\S+) %d %s(\d+)\.(\d+)\.(\d+)\d\d\d\.\d+ (\d+) (\d+)\r\n" % (sid, reply)
        self._match = re.compile(line).match
        self._sid = sid
        self._prefix_length = len(subject_prefix)
        self._topics.clear()
        self._expected = DISCARD

    def expect_first(self) -> None:
        """Drop all messages until consumer sequence 1."""
        self._expected = AWAIT_FIRST

    def detach(self) -> None:
        """Pass everything to nats-py from now on."""
        self._sid = -1
        self._match = _NEVER
        self._expected = DISCARD

    def reset(self) -> None:
        """Drop partial input; nats-py calls this when it reconnects."""
        self._remainder = b""
        self._parser.reset()
        if self._sid >= 0:
            self._break("the connection was re-established")

    async def parse(self, fresh: bytes = b"") -> None:
        """Parse received bytes; nats-py calls this for each chunk."""
        buffer = self._remainder + fresh if self._remainder else fresh
        position, end = 0, len(buffer)
        while position < end:
            position = self._read(buffer, position)
            size, message = _operation(buffer, position)
            if not size:
                break
            if message and int(message[2]) == self._sid:
                await self._parse_slowly(buffer[position : position + size], message)
            else:
                await self._parser.parse(buffer[position : position + size])
            position += size
        self._remainder = buffer[position:]

    def _read(self, buffer: bytes, position: int) -> int:
        """Parse first deliveries of the subscription; return the position of another operation or a partial message."""
        match, topics, prefix_length, end = self._match, self._topics, self._prefix_length, len(buffer)
        expected = self._expected
        chunk: list[Message] = []
        add = chunk.append
        while match_ := match(buffer, position):
            subject, sequence, number, micros, head, total = match_.groups()
            start = match_.end()
            stop = start + int(total)
            if stop + 2 > end:
                break
            if int(number) != expected and (expected != AWAIT_FIRST or number != b"1"):
                position = stop + 2
                if expected == AWAIT_FIRST:
                    self._late()
                elif expected > 0:
                    # Deliver the contiguous messages first.
                    self._deliver(chunk, expected)
                    self._break(f"consumer sequence {number.decode()} arrived instead of {expected}")
                    chunk, expected = [], DISCARD
                    add = chunk.append
                continue
            expected = expected + 1 if expected > 0 else 2
            position = stop + 2
            topic = topics.get(subject)
            if topic is None:
                if len(topics) >= TOPICS_MAX:
                    topics.clear()
                topic = topics[subject] = topic_of(subject[prefix_length:])
            add(Message(topic, buffer[start + int(head) : stop], int(micros), int(sequence)))
        self._deliver(chunk, expected)
        return position

    def _deliver(self, chunk: list[Message], expected: int) -> None:
        self._expected = expected
        if chunk:
            self._messages(chunk, expected - 1)

    def _break(self, reason: str) -> None:
        self._expected = DISCARD
        self._broken(reason)

    async def _parse_slowly(self, whole: bytes, parsed: re.Match[bytes]) -> None:
        """Parse what the fast expression does not match: control messages, redeliveries, messages without headers."""
        subject, _, reply, head, total = parsed.groups()
        start = len(whole) - 2 - int(total)
        header_end = start + int(head or b"0")
        acknowledge = _REPLY.match(reply or b"")
        if not acknowledge:
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in _HEADER.findall(whole[start:header_end])
            }
            await self._control(headers, (reply or b"").decode("latin-1"))
            return
        delivered, sequence, number, nanos = (int(part) for part in acknowledge.groups())
        if self._expected > 0 and delivered > 1:
            self._break(f"stream sequence {sequence} was delivered {delivered} times")
        elif self._expected > 0 and number != self._expected:
            self._break(f"consumer sequence {number} arrived instead of {self._expected}")
        elif self._expected > 0 or (self._expected == AWAIT_FIRST and number == 1 and delivered == 1):
            payload = whole[header_end:-2]
            self._deliver(
                [Message(topic_of(subject[self._prefix_length :]), payload, nanos // 1_000, sequence)], number + 1
            )
        elif self._expected == AWAIT_FIRST:
            self._late()


def _operation(buffer: bytes, position: int) -> tuple[int, re.Match[bytes] | None]:
    """Return the size of the operation that begins here, 0 if it is not complete, and its head if it is a message."""
    line_end = buffer.find(b"\r\n", position)
    if line_end < 0:
        return 0, None
    operation = _HMSG.match(buffer, position) or _MSG.match(buffer, position)
    if not operation:
        return line_end + 2 - position, None
    stop = operation.end() + int(operation[5])
    return (stop + 2 - position if stop + 2 <= len(buffer) else 0), operation
