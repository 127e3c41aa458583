"""JT/T 808: a terminal is identified by its phone number; it registers, authenticates by a code, then reports.

With configured passwords the code is the terminal's password, set beforehand, and registrations are refused. Without
them every registration gets a code, and any code is accepted.
"""

from __future__ import annotations

from typing import Final

from sensegate.frames import jtt808
from sensegate.frames.jtt808 import Jtt808Message
from sensegate.model import FrameOutcome, Framing, ReceivedFrame

_ACCEPTED: Final = frozenset({FrameOutcome.COMMITTED, FrameOutcome.ALIVE})
_NO_TERMINAL = 4


class Jtt808Session:
    """A connection; `accept_any` is set if no passwords are configured."""

    def __init__(self, *, accept_any: bool) -> None:
        self._open_door = accept_any
        self._codes: dict[str, str] = {}
        """Last authentication code on this connection, by phone number."""
        self._serial = 0

    def find_frame(self, buffer: bytes) -> Framing:
        return jtt808.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        message = jtt808.parse(frame)
        if message.checksum_ok and message.message == jtt808.AUTHENTICATE:
            if len(self._codes) >= 64:  # a relay of many terminals; more authenticate again
                self._codes.clear()
            self._codes[message.phone] = _code(message)
        return ReceivedFrame(
            name=message.phone,
            parsed=message,
            password=self._codes.get(message.phone, ""),
            is_stored=message.message in jtt808.POSITIONS,
            checksum_ok=message.checksum_ok,
        )

    def build_reply(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:  # noqa: ARG002 - the reply carries no time
        message: Jtt808Message = frame.parsed
        self._serial = (self._serial + 1) & 0xFFFF
        if message.message == jtt808.REGISTER:
            if outcome in _ACCEPTED and self._open_door:
                return jtt808.build_registration_answer(message, self._serial, message.phone)
            return jtt808.build_registration_answer(message, self._serial, "", _NO_TERMINAL)
        if outcome is FrameOutcome.CHECK_FAILED:
            return b""
        return jtt808.build_answer(message, self._serial, jtt808.DONE if outcome in _ACCEPTED else jtt808.FAILED)


def _code(message: Jtt808Message) -> str:
    """Return the authentication code: the whole body, in version 2019 after its length."""
    body = message.body
    if message.version == 2019 and body:
        body = body[1 : 1 + body[0]]
    return body.decode("gbk", "replace").rstrip("\0")
