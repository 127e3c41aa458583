"""Reads one subscription's messages straight from a connection's bytes: nats-py's connection, a leaner way in.

nats-py spends about 7 µs a message on two regular expressions, headers, a `Msg` and a queue (measured, see
`tests/bench/collect.py`); of a JetStream push consumer we need the payload and five numbers. The tap takes the place
of the connection's parser, reads the messages of its own subscription, and hands every other operation, whole, to
the parser it replaced. Connecting, authentication, TLS, pings, requests and reconnection stay nats-py's.
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
"""Subjects remembered with their topics; when full the memory starts anew."""
DISCARD = 0
AWAIT_FIRST = -1


class Tap:
    """One JetStream push consumer's messages, checked for contiguity, from one connection.

    `messages(chunk, consumer sequence of the last)`, `control(headers, reply)`, `late()` and `broken(reason)` are
    called from the connection's reading task. Nothing is given before `expect_first` was called and consumer sequence
    1 was seen, and nothing after a break. `late()` tells that another message came where the first was awaited.
    """

    def __init__(
        self,
        connection: Client,
        messages: Callable[[list[Message], int], None],
        control: Callable[[dict[str, str], str], Awaitable[None]],
        late: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        # The one place that replaces nats-py's parser; a test fails if a release of it no longer has one.
        self._parser: Any = connection._ps  # noqa: SLF001
        connection._ps = self  # type: ignore[assignment]  # noqa: SLF001 - has the two methods that are called
        self._messages = messages
        self._control = control
        self._late = late
        self._broken = broken
        self._topics: dict[bytes, str] = {}
        self._cut = 0
        self._rest = b""
        self._sid = -1
        self._match = _NEVER
        self._want = DISCARD

    def attach(self, sid: int, stream: str, consumer: str, subject_prefix: str) -> None:
        """Begin to read subscription `sid`; topics are the subjects without their prefix."""
        reply = re.escape(f"$JS.ACK.{stream}.{consumer}.1.".encode())
        line = rb"HMSG (\S+) %d %s(\d+)\.(\d+)\.(\d+)\d\d\d\.\d+ (\d+) (\d+)\r\n" % (sid, reply)
        self._match = re.compile(line).match
        self._sid = sid
        self._cut = len(subject_prefix)
        self._topics.clear()
        self._want = DISCARD

    def expect_first(self) -> None:
        """Discard all messages until consumer sequence 1."""
        self._want = AWAIT_FIRST

    def detach(self) -> None:
        """Pass everything on to nats-py from here."""
        self._sid = -1
        self._match = _NEVER
        self._want = DISCARD

    def reset(self) -> None:
        """Forget what was half read: nats-py calls this when it connects again."""
        self._rest = b""
        self._parser.reset()
        if self._sid >= 0:
            self._break("the connection was made again")

    async def parse(self, fresh: bytes = b"") -> None:
        """Read what arrived; nats-py calls this with each piece."""
        buffer = self._rest + fresh if self._rest else fresh
        position, end = 0, len(buffer)
        while position < end:
            position = self._read(buffer, position)
            size, message = _operation(buffer, position)
            if not size:
                break
            if message and int(message[2]) == self._sid:
                await self._odd(buffer[position : position + size], message)
            else:
                await self._parser.parse(buffer[position : position + size])
            position += size
        self._rest = buffer[position:]

    def _read(self, buffer: bytes, position: int) -> int:
        """Read first deliveries of our subscription; return where something else, or half a message, begins."""
        match, topics, cut, end = self._match, self._topics, self._cut, len(buffer)
        want = self._want
        chunk: list[Message] = []
        add = chunk.append
        while found := match(buffer, position):
            subject, sequence, number, micros, head, total = found.groups()
            start = found.end()
            stop = start + int(total)
            if stop + 2 > end:
                break
            if int(number) != want and (want != AWAIT_FIRST or number != b"1"):
                position = stop + 2
                if want == AWAIT_FIRST:
                    self._late()
                elif want > 0:
                    # What was contiguous so far is given first.
                    self._give(chunk, want)
                    self._break(f"consumer sequence {number.decode()} came where {want} was due")
                    chunk, want = [], DISCARD
                    add = chunk.append
                continue
            want = want + 1 if want > 0 else 2
            position = stop + 2
            topic = topics.get(subject)
            if topic is None:
                if len(topics) >= TOPICS_MAX:
                    topics.clear()
                topic = topics[subject] = topic_of(subject[cut:])
            add(Message(topic, buffer[start + int(head) : stop], int(micros), int(sequence)))
        self._give(chunk, want)
        return position

    def _give(self, chunk: list[Message], want: int) -> None:
        self._want = want
        if chunk:
            self._messages(chunk, want - 1)

    def _break(self, reason: str) -> None:
        self._want = DISCARD
        self._broken(reason)

    async def _odd(self, whole: bytes, found: re.Match[bytes]) -> None:
        """Deal with what the fast expression does not know: control messages, redeliveries, no headers."""
        subject, _, reply, head, total = found.groups()
        start = len(whole) - 2 - int(total)
        headed = start + int(head or b"0")
        acknowledge = _REPLY.match(reply or b"")
        if not acknowledge:
            headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in _HEADER.findall(whole[start:headed])
            }
            await self._control(headers, (reply or b"").decode("latin-1"))
            return
        delivered, sequence, number, nanos = (int(part) for part in acknowledge.groups())
        if self._want > 0 and delivered > 1:
            self._break(f"stream sequence {sequence} was delivered {delivered} times")
        elif self._want > 0 and number != self._want:
            self._break(f"consumer sequence {number} came where {self._want} was due")
        elif self._want > 0 or (self._want == AWAIT_FIRST and number == 1 and delivered == 1):
            payload = whole[headed:-2]
            self._give([Message(topic_of(subject[self._cut :]), payload, nanos // 1_000, sequence)], number + 1)
        elif self._want == AWAIT_FIRST:
            self._late()


def _operation(buffer: bytes, position: int) -> tuple[int, re.Match[bytes] | None]:
    """Return the size of the operation that begins here, 0 if it is not complete, and its head if it is a message."""
    line_end = buffer.find(b"\r\n", position)
    if line_end < 0:
        return 0, None
    found = _HMSG.match(buffer, position) or _MSG.match(buffer, position)
    if not found:
        return line_end + 2 - position, None
    stop = found.end() + int(found[5])
    return (stop + 2 - position if stop + 2 <= len(buffer) else 0), found
