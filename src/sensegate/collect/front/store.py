"""The stream of batches as a store: one publish for each batch, one subject for the answers."""

from __future__ import annotations

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, streams
from sensegate.collect.front.batcher import BatchWriter

_decode = msgspec.json.Decoder(api.ApiResponse).decode


class IntakeStore:
    """Publishes batches to the stream INTAKE over a connection of the gateway's account."""

    def __init__(self, connection: Client, instance: bytes) -> None:
        self._connection = connection
        self._instance = instance.hex()
        self._inbox = connection.new_inbox()

    async def open(self, writer: BatchWriter) -> None:
        """Subscribe to the answers, which `writer` gets. Raises `Unavailable`."""

        async def answered(message: Msg) -> None:
            *_, number, attempt = message.subject.split(".")
            writer.answered(int(number), int(attempt), _problem(message))

        with api.translate_client_errors("subscribe to the answers to batches"):
            await self._connection.subscribe(f"{self._inbox}.*.*", cb=answered)

    async def publish(self, number: int, attempt: int, payload: bytes) -> None:
        with api.translate_client_errors(f"batch {number}"):
            await self._connection.publish(
                streams.INTAKE_SUBJECT,
                payload,
                reply=f"{self._inbox}.{number}.{attempt}",
                headers={"Nats-Msg-Id": f"{self._instance}.{number}"},
            )


def _problem(message: Msg) -> str:
    """Return why a batch was not stored; empty: it was."""
    if message.headers and message.headers.get("Status"):
        return f"the stream does not answer ({message.headers['Status']})"
    try:
        answer = _decode(message.data)
    except msgspec.DecodeError:
        return "the answer of the server cannot be read"
    if answer.error:
        return answer.error.description or f"error {answer.error.err_code}"
    return "" if answer.stream else "the answer of the server names no stream"
