"""The stream of batches as a store: one publish for each batch, one subject for the answers.

Both go past the queues and tasks of the client: under load a front stores a hundred and fifty batches a second, and
each would cost more than reading its messages.
"""

from __future__ import annotations

import msgspec

from sensegate.bus import api, streams
from sensegate.bus.connect import BusClient
from sensegate.collect.front.batcher import BatchWriter

_STATUS = slice(9, 12)
"""Place of the status in a header that has one, behind ``NATS/1.0`` and a space."""

_decode = msgspec.json.Decoder(api.ApiResponse).decode


class IntakeStore:
    """Publishes batches to the stream INTAKE over a connection of the gateway's account."""

    def __init__(self, connection: BusClient, instance: bytes) -> None:
        self._connection = connection
        self._instance = instance.hex()
        self._inbox = connection.new_inbox()

    async def open(self, writer: BatchWriter) -> None:
        """Subscribe to the answers, which `writer` gets. Raises `Unavailable`."""

        def answered(subject: bytes, header: bytes, payload: bytes) -> None:
            _, number, attempt = subject.rsplit(b".", 2)
            writer.answered(int(number), int(attempt), _problem(header, payload))

        with api.translate_client_errors("subscribe to the answers to batches"):
            await self._connection.subscribe_at_once(f"{self._inbox}.*.*", answered)

    async def publish(self, number: int, attempt: int, payload: bytes) -> None:
        header = b"NATS/1.0\r\nNats-Msg-Id: %s.%d\r\n\r\n" % (self._instance.encode(), number)
        reply = f"{self._inbox}.{number}.{attempt}"
        with api.translate_client_errors(f"batch {number}"):
            self._connection.publish_at_once(streams.INTAKE_SUBJECT, reply, header, payload)


def _problem(header: bytes, payload: bytes) -> str:
    """Return why a batch was not stored; empty: it was."""
    if (status := header[_STATUS]).isdigit():
        return f"the stream does not answer ({status.decode()})"
    try:
        answer = _decode(payload)
    except msgspec.DecodeError:
        return "the answer of the server cannot be read"
    if answer.error:
        return answer.error.description or f"error {answer.error.err_code}"
    return "" if answer.stream else "the answer of the server names no stream"
