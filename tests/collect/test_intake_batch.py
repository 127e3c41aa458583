"""The form of a batch on stream INTAKE: what a front wrote is what the reader has, and damaged bytes cost no more."""

from __future__ import annotations

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from sensegate.collect.intake import batch
from sensegate.collect.intake.batch import BatchHeader, DamagedBatch, IntakeBatchBuilder, MessageProperties

INSTANCE = bytes(range(16))

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
properties = st.builds(MessageProperties, words, st.lists(st.tuples(words, words), max_size=3).map(tuple))
messages = st.tuples(words, st.binary(max_size=40), st.integers(0, (1 << 21) - 1), st.none() | properties)
reads = st.lists(
    st.tuples(words, words, st.integers(0, 1 << 62), st.lists(messages, min_size=1, max_size=5)), min_size=1, max_size=6
)
Read = tuple[str, str, int, list[tuple[str, bytes, int, MessageProperties | None]]]


def sealed(content: list[Read], number: int = 7) -> bytes:
    """Return the batch of some reads."""
    builder = IntakeBatchBuilder()
    for client, credential, arrival, published in content:
        for topic, payload, flags, more in published:
            if more:
                builder.properties[len(builder)] = more
            builder.topics.append(topic)
            builder.payloads.append(payload)
            builder.flags.append(flags)
        builder.end_read(client, credential, arrival)
    return builder.seal(INSTANCE, number)


BATCH = sealed([("c", "d", 5, [("t", b"p", 1, None), ("u", b"q", batch.DUP | 1 << batch.QOS_SHIFT, None)])])


@given(reads, st.integers(1, (1 << 64) - 1))
def test_a_batch_comes_back_as_columns(content: list[Read], number: int) -> None:
    """Each message has the client, credential and arrival of its read, and its own topic, payload and flags."""
    decoded = batch.decode(sealed(content, number))
    rows = [
        (client, credential, arrival, *message)
        for client, credential, arrival, published in content
        for message in published
    ]
    assert decoded.header == BatchHeader(INSTANCE, number, len(rows))
    assert [
        (*row[:6], decoded.properties.get(index))
        for index, row in enumerate(
            zip(
                decoded.clients_of_messages(),
                decoded.credentials_of_messages(),
                decoded.received().tolist(),
                decoded.topics,
                decoded.payloads,
                decoded.flags.tolist(),
                strict=True,
            )
        )
    ] == rows


def test_flags_of_messages() -> None:
    """QoS and DUP are read from the flags above the packet id."""
    decoded = batch.decode(BATCH)
    assert decoded.redelivered() == [False, True]
    assert decoded.qos() == [0, 1]
    assert (decoded.flags & batch.PACKET_ID).tolist() == [1, 0]


@given(st.integers(0, len(BATCH) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    """No single byte of a batch can change unnoticed; the count that is lost with it stays plausible."""
    damaged = bytearray(BATCH)
    damaged[position] ^= change
    with pytest.raises(DamagedBatch) as caught:
        batch.decode(bytes(damaged))
    assert 1 <= caught.value.count <= len(BATCH)


@given(st.binary(max_size=200), st.booleans())
def test_hostile_bytes(data: bytes, prefixed: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """Any bytes are a batch or a `DamagedBatch`, also where the checksum is right."""
    if prefixed:
        head = batch._PREFIX.pack(b"SGI", batch.FORM, INSTANCE, 1, 3)
        hasher = xxhash.xxh3_64(head)
        hasher.update(data)
        data = head + hasher.intdigest().to_bytes(8, "little") + data
    with pytest.raises(DamagedBatch):
        batch.decode(data)


def forged(body: object, count: int = 1) -> bytes:
    """Return a batch with a right checksum over any body."""
    head = batch._PREFIX.pack(b"SGI", batch.FORM, INSTANCE, 1, count)
    encoded = msgspec.msgpack.encode(body)
    hasher = xxhash.xxh3_64(head)
    hasher.update(encoded)
    return head + hasher.intdigest().to_bytes(8, "little") + encoded


EIGHT, FOUR = bytes(8), (1).to_bytes(4, "little")


@pytest.mark.parametrize(
    "body",
    [
        [[], [], b"", b"", [], [], b"", {}],
        [["c"], [], EIGHT, FOUR, ["t"], [b"p"], FOUR, {}],
        [["c"], ["d"], EIGHT, bytes(4), ["t"], [b"p"], FOUR, {}],
        [["c"], ["d"], b"\xff" * 8, FOUR, ["t"], [b"p"], FOUR, {}],
        [["c"], ["d"], EIGHT, b"\xff" * 4, ["t"], [b"p"], FOUR, {}],
        [["c"], ["d"], EIGHT, FOUR, ["t", "u"], [b"p"], FOUR, {}],
        [["c"], ["d"], EIGHT, FOUR, ["t"], [b"p"], EIGHT, {}],
        [["c"], ["d"], EIGHT, FOUR, ["t"], [b"p"], FOUR, {1: ["x", []]}],
        [["c"], ["d"], EIGHT, FOUR, ["t"], [b"p"], FOUR, {-1: ["x", []]}],
        [["c"], ["d"], EIGHT, FOUR, ["t"], ["p"], FOUR, {}],
        "text",
    ],
)
def test_columns_that_do_not_fit(body: object) -> None:
    """A body whose columns differ in length, or that counts what is not there, is damaged; the header has the count."""
    with pytest.raises(DamagedBatch) as caught:
        batch.decode(forged(body))
    assert (caught.value.header, caught.value.count) == (BatchHeader(INSTANCE, 1, 1), 1)


def test_a_list_longer_than_a_batch_is_refused_before_it_is_built() -> None:
    """A claimed length of four thousand million topics allocates nothing."""
    body = msgspec.msgpack.encode([["c"], ["d"], EIGHT, FOUR])
    huge = bytes([0x98]) + body[1:] + b"\xdd\xff\xff\xff\xff"
    with pytest.raises(DamagedBatch):
        batch.decode(forged(msgspec.Raw(huge)))


def test_a_later_form_is_named() -> None:
    """A batch of a later release is refused whole, with its number and count."""
    later = bytearray(BATCH)
    later[3] = batch.FORM + 1
    with pytest.raises(DamagedBatch, match="form 2") as caught:
        batch.decode(bytes(later))
    assert caught.value.header == BatchHeader(INSTANCE, 7, 2)


def test_what_cannot_be_sealed() -> None:
    """An empty batch and one whose last read has not ended are refused; an empty read adds nothing."""
    builder = IntakeBatchBuilder()
    builder.end_read("c", "d", 1)
    with pytest.raises(ValueError, match="0 messages"):
        builder.seal(INSTANCE, 1)
    builder.topics.append("t")
    builder.payloads.append(b"")
    builder.flags.append(0)
    with pytest.raises(ValueError, match="not a batch"):
        builder.seal(INSTANCE, 1)
    builder.end_read("c", "d", 1)
    assert batch.decode(builder.seal(INSTANCE, 1)).counts.tolist() == [1]
