"""Messages read back from the log: all of them, whole, in order, of one partition."""

from __future__ import annotations

from sensegate.bus import raw
from sensegate.bus.memory import MemoryLog
from sensegate.bus.raw import StoredMessage
from sensegate.lifecycle.recorded import QUARANTINE, RAW, Progress, read_recorded
from sensegate.model import LogMessage, Message

NAME = "4401-0"


def message(number: int, payload: bytes = b"x") -> Message:
    """Return a message."""
    return Message(f"t/{number}", payload, 1_000 * number, number)


async def read(log: MemoryLog, progress: Progress, *kinds: str) -> list[tuple[str, int, bool]]:
    """Return (topic, bytes, quarantined) of what is recorded."""
    results = []
    async for entry in read_recorded(log, NAME, progress, kinds or (RAW, QUARANTINE)):
        results += [(message.topic, len(message.payload), entry.quarantined) for message in entry.messages]
    return results


async def filled() -> MemoryLog:
    """Return a log with good messages, refused ones, pieces of a large one, and what others wrote."""
    log = MemoryLog()
    large = StoredMessage(message(3, b"y" * 1_000), "mqtt", "")
    refused = StoredMessage(message(5, b"z" * 1_000), "mqtt", "too_large")
    await log.write(
        [
            LogMessage(f"raw.{NAME}", raw.encode([message(1), message(2)], "mqtt")),
            *(LogMessage(f"raw.{NAME}", raw.encode_quarantined([piece])) for piece in raw.split_pieces(large, 300)),
            LogMessage(f"quarantine.{NAME}", raw.encode_quarantined([StoredMessage(message(4), "mqtt", "schema")])),
            *(
                LogMessage(f"quarantine.{NAME}", raw.encode_quarantined([piece]))
                for piece in raw.split_pieces(refused, 300)
            ),
            LogMessage("raw.4401-1", raw.encode([message(9)], "mqtt")),
            LogMessage("readings.4401.440106.1", b"not looked at"),
            LogMessage(f"raw.{NAME}", raw.encode([message(6)], "mqtt")),
        ]
    )
    return log


async def test_all_of_a_partition_in_order() -> None:
    """Pieces are put together; those of other partitions and other members are passed."""
    log = await filled()
    progress = Progress(0, (await log.bounds())[1])
    assert await read(log, progress) == [
        ("t/1", 1, False),
        ("t/2", 1, False),
        ("t/3", 1_000, False),
        ("t/4", 1, True),
        ("t/5", 1_000, True),
        ("t/6", 1, False),
    ]
    assert progress.share == 1


async def test_a_kind_and_a_stretch() -> None:
    """Only what was refused; only after a place and up to one."""
    log = await filled()
    last = (await log.bounds())[1]
    assert [topic for topic, _, _ in await read(log, Progress(0, last), QUARANTINE)] == ["t/4", "t/5"]
    assert [topic for topic, _, _ in await read(log, Progress(1, 6), RAW)] == ["t/3"]
    assert await read(log, Progress(last, last)) == []
    assert Progress(5, 5).share == 1
    assert Progress(0, 10, 5).share == 0.5
