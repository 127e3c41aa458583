"""The parts of the identities that move along with a device, stored at the centre until the move has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sensegate.authority.bucket import Bucket
from sensegate.bus.kv_row import KvRow
from sensegate.errors import NotFound, PermissionDenied, SensegateError
from sensegate.tiers.move_records import MovePart

PARTS_MAX = 1_000_000
"""Most parts of a move: a source sends one for each entry of its log that has readings of the device."""
PART_BYTES_MAX = 2**20
PARTS_BYTES_MAX = 2**30
"""Most bytes of all parts of a move."""


def _key(move_id: str, number: int) -> str:
    return f"{move_id}.{number}"


def is_part(key: str) -> bool:
    """Return whether a key of the bucket of moves is that of a part."""
    return "." in key


class MoveParts:
    """The parts of all moves, beside the moves in their bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._bytes: dict[str, int] = {}
        """Move -> bytes of its stored parts."""

    async def has(self, move_id: str, number: int) -> bool:
        """Return whether a part is stored."""
        return await self._bucket.get(_key(move_id, number)) is not None

    async def read(self, move_id: str, number: int) -> bytes:
        """Return a part. Raises `NotFound`."""
        row = await self._bucket.get(_key(move_id, number))
        if row is None or row.value is None:
            raise NotFound(f"part {number} of move {move_id} is not stored here")
        return row.value

    async def store(self, part: MovePart) -> None:
        """Store a part that follows those stored, or replaces one: a source repeats an order from the first part."""
        number, size = part.number, len(part.payload)
        if not 0 <= number < PARTS_MAX or size > PART_BYTES_MAX:
            raise PermissionDenied(f"move {part.id} accepts {PARTS_MAX} parts of at most {PART_BYTES_MAX} bytes")
        # Without gaps, the parts that are stored are found again when the move has ended.
        if number and not await self.has(part.id, number - 1):
            raise PermissionDenied(f"move {part.id} has no part {number - 1} yet; begin with the first part")
        key = _key(part.id, number)
        replaced = await self._bucket.get(key)
        before = len(replaced.value) if replaced is not None and replaced.value is not None else 0
        total = max(0, self._bytes.get(part.id, 0) - before) + size
        if total > PARTS_BYTES_MAX:
            raise PermissionDenied(f"move {part.id} accepts at most {PARTS_BYTES_MAX} bytes of parts")
        self._bytes[part.id] = total  # first: parts that come meanwhile are added to it
        try:
            await self._bucket.put(key, part.payload)
        except SensegateError:
            self._bytes[part.id] = max(0, self._bytes.get(part.id, 0) + before - size)
            raise

    async def remove(self, move_id: str, count: int) -> None:
        """Remove the parts of a move that has ended, also of one that its source gave up midway."""
        number = 0
        while number < min(count, PARTS_MAX) or await self.has(move_id, number):
            await self._bucket.delete(_key(move_id, number))
            number += 1
        self._bytes.pop(move_id, None)

    async def load(self, rows: Iterable[KvRow], is_open: Callable[[str], bool]) -> None:
        """Count the parts among the rows of the bucket; remove those of moves that had ended as the process stopped."""
        for row in rows:
            move_id, value = row.key.partition(".")[0], row.value
            if value is None or not is_part(row.key):
                continue
            if is_open(move_id):
                self._bytes[move_id] = self._bytes.get(move_id, 0) + len(value)
            else:
                await self._bucket.delete(row.key)
