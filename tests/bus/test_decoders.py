"""Every decoder of what a log holds: for any bytes a value or `ValueError`, and no more memory than is due."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.bus import columns, raw, sequences
from sensegate.bus.batch import EMPTY
from sensegate.bus.commit_records import decode_commit, decode_lane
from sensegate.bus.decoding import decoder
from sensegate.bus.ledger import Ledger
from sensegate.bus.packing import Oversized, encode_map
from sensegate.bus.raw import StoredMessage
from sensegate.bus.unreadable import REMEMBERED_MAX, UnreadableEntries, read, read_ledger, read_rows, read_subject
from sensegate.model import LogEntry, Message
from tests.bus.damage import damaged, opened
from tests.bus.test_columns import batch


def _raw(payload: bytes) -> object:
    return list(raw.decode(payload))


DECODERS: dict[str, Callable[[bytes], object]] = {
    "columns": columns.decode,
    "ledger": Ledger.decode,
    "raw": _raw,
    "any raw": raw.decode_any,
    "kept": lambda payload: list(raw.decode_quarantined(payload)),
    "sequences": sequences.decode,
    "commit": decode_commit,
    "lane": decode_lane,
}
MESSAGE = Message("a/b", b"{}", 5, 6)
COUNTS = Ledger()
COUNTS.add(490_000, "a", "mqtt", "messages")
COUNTS.set_places(["a"], ["440106/eco"])
SEALED = {
    "columns": opened(columns.encode(batch(9))),
    "ledger": opened(COUNTS.encode()),
    "raw": opened(raw.encode([MESSAGE, MESSAGE], "mqtt")),
    "kept": opened(raw.encode_quarantined([StoredMessage(MESSAGE, "mqtt", "schema", "d", "e", "f")] * 2)),
}
DEEP = (
    b"\x81\xa1q" + b"\x91" * 100_000 + b"\xc0",
    b'{"q":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"[" * 100_000,
    b"\x91" * 100_000,
    b"\xdd\x7f\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b'{"format":1,"batch_id":"\xff"}',
    zstandard.compress(b"\x81\xa1q" + b"\x91" * 100_000 + b"\xc0"),
    zstandard.compress(b"\x81\xa1v\xa1\xff"),
)


def raised(decode: Callable[[bytes], object], payload: bytes) -> str:
    """Return the name of what a decoder raised; empty: nothing. Anything but `ValueError` fails the test."""
    try:
        decode(payload)
    except ValueError as why:
        return type(why).__name__
    return ""


@pytest.mark.parametrize("name", DECODERS)
@given(payload=st.binary(max_size=200))
def test_any_bytes(name: str, payload: bytes) -> None:
    """Property: bytes that nobody encoded are refused."""
    assert raised(DECODERS[name], payload)


@pytest.mark.parametrize("payload", DEEP)
@pytest.mark.parametrize("name", DECODERS)
def test_deep_and_endless_values(name: str, payload: bytes) -> None:
    """Nested a hundred thousand times, or said to be of billions of members: refused, and no error of Python's own."""
    assert raised(DECODERS[name], payload)


def test_a_bare_decoder_of_msgspec_does_otherwise() -> None:
    """Control: without `decoder`, a member that nobody asked for ends in `RecursionError`."""

    class Record(msgspec.Struct):
        x: int = 0

    with pytest.raises(RecursionError):
        msgspec.msgpack.Decoder(Record).decode(DEEP[0])
    with pytest.raises(ValueError, match="record"):
        decoder(Record, "record")(DEEP[0])


@pytest.mark.parametrize("name", SEALED)
@settings(max_examples=settings().max_examples * 4)
@given(data=st.data())
def test_any_damage_inside(name: str, data: st.DataObject) -> None:
    """Property: a member whose inside is wrong is refused, or can be gone through to its end."""
    raised(DECODERS[name], data.draw(damaged(SEALED[name])))


def claims(name: str, rows: int) -> bytes:
    """Return a small member that claims very many rows by columns that hold no bytes."""
    tree: dict[str, Any] = {key: value for key, value in SEALED[name].items() if key != "v"}
    tree["rows"] = rows
    alike = [0, 0]
    match name:
        case "columns":
            tree |= {"props": ["x"], "counts": [0, rows], "value": [b"\0", alike, False, 1, b"", b""]}
            tree["cols"] = dict.fromkeys(tree["cols"], alike)
            tree["cols"]["index"] = None
        case "ledger":
            tree |= dict.fromkeys(("kind", "source", "device", "count"), alike)
            tree["hour"] = [2, 0, 1, 1, 0, b""]
        case _:
            tree |= dict.fromkeys(("received", "sequence", "best_effort", "length"), alike) | {"body": b""}
            tree |= {key: [[""], alike] for key in ("topic", "principal", "source")}
    return encode_map(tree)


@pytest.mark.parametrize("name", ["columns", "ledger", "raw"])
def test_rows_that_no_byte_holds(name: str) -> None:
    """A few hundred bytes that claim sixteen million rows are refused before anything is allocated for them."""
    payload = claims(name, (1 << 24) - 1)
    assert len(payload) < 600
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Oversized):
        DECODERS[name](payload)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_many_small_texts() -> None:
    """A table of millions of short names is refused by its length, not by the memory that it would take."""
    tree: dict[str, Any] = {key: value for key, value in SEALED["columns"].items() if key != "v"}
    tree["origins"] = {**tree["origins"], "device": ["ab"] * (3 << 20)}
    payload = encode_map(tree)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="length"):
        columns.decode(payload)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


# ── entries that cannot be read ──────────────────────────────────────────────────────────────────────


def test_what_cannot_be_read_is_passed_over() -> None:
    """A reader gets None, and goes on; what can be read it gets as it is."""
    bad = LogEntry(5, "readings.4401.h6", b"{}", 1)
    assert read_rows(bad, "test") is None
    assert read_ledger(bad, "test") is None
    assert read(bad, "test", sequences.decode) is None
    assert read_subject(bad, "test") is None
    good = LogEntry(6, "readings.4401.440106.2", columns.encode(batch(3)), 1)
    assert len(read_rows(good, "test") or EMPTY) == 3
    assert read_subject(good, "test") == ("readings", "4401", "440106", 2)


def test_unreadable_entries_are_remembered_in_bounds() -> None:
    """Each once, with all readers that met it; the newest of very many."""
    entries = UnreadableEntries()
    for reader in ("feed", "books", "feed"):
        entries.add(LogEntry(1, "readings.x", b"12", 7), reader, "why")
    (known,) = entries.all()
    assert (known.sequence, known.size, known.readers, known.reason) == (1, 2, ("feed", "books"), "why")
    for sequence in range(2, REMEMBERED_MAX + 50):
        entries.add(LogEntry(sequence, "readings.x", b"", 7), "feed", "x" * 1_000)
    assert len(entries.all()) == REMEMBERED_MAX
    assert entries.all()[-1].sequence == REMEMBERED_MAX + 49
    entries.remove(REMEMBERED_MAX + 49)
    assert entries.all()[-1].sequence == REMEMBERED_MAX + 48
