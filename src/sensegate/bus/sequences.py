"""Sequence numbers that devices give their messages, as runs of consecutive numbers per device.

Each commit has ``sequences.<partition>``, each span of the uplink ``sequences.<node>``: so a centre can tell which
messages are missing from a node that lost its store. They are not used to recognise duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np

from sensegate.bus.decoding import decoder
from sensegate.model import I64


class SequenceRuns(msgspec.Struct, frozen=True):
    """Runs of the sequence numbers of some messages."""

    epoch: str
    """Epoch of the log of the node that committed them."""
    devices: dict[str, list[int]]
    """Device -> first, last, first, last … of its runs, ascending."""
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
_decode = decoder(SequenceRuns, "sequence numbers")


def decode(payload: bytes) -> SequenceRuns:
    """Return the runs of an encoded record.

    Raises:
        ValueError: it is not of a known format, or its runs are not ascending.
    """
    record = _decode(payload)
    for runs in record.devices.values():
        ascending = all(first <= last for first, last in zip(runs[::2], runs[1::2], strict=False))
        disjoint = all(last < first for last, first in zip(runs[1::2], runs[2::2], strict=False))
        if len(runs) % 2 or not (ascending and disjoint):
            raise ValueError("sequence numbers: the runs are not ascending")
    return record


def runs_of(device: I64, number: I64) -> dict[int, list[int]]:
    """Return device -> first, last, … of the runs of its numbers; row *i* is a device and one of its numbers."""
    if not len(device):
        return {}
    device, number = _sorted(device, number)
    # Equal numbers of a device count as one: a run continues over them.
    is_last = np.ones(len(device), np.bool_)
    np.logical_or(device[1:] != device[:-1], number[1:] - number[:-1] > 1, out=is_last[:-1])
    last = np.flatnonzero(is_last)
    first = np.empty(len(last), np.int64)
    first[0] = 0
    np.add(last[:-1], 1, out=first[1:])
    runs: dict[int, list[int]] = {}
    for owner, low, high in zip(device[first].tolist(), number[first].tolist(), number[last].tolist(), strict=True):
        known = runs.get(owner)
        if known is None:
            runs[owner] = [low, high]
        else:
            known += (low, high)
    return runs


def _sorted(device: I64, number: I64) -> tuple[I64, I64]:
    """Return the rows by device, then number."""
    low = int(number.min())
    bits = (int(number.max()) - low).bit_length()
    if bits + int(device.max()).bit_length() < 64 and int(device.min()) >= 0:
        packed = (device << bits) | (number - low)
        packed.sort()
        return packed >> bits, (packed & ((1 << bits) - 1)) + low
    order = np.lexsort((number, device))
    return device[order], number[order]


def merged(records: Iterable[SequenceRuns]) -> dict[str, list[int]]:
    """Return the union of the runs of several records, per device."""
    union: dict[str, list[int]] = {}
    for record in records:
        for device, runs in record.devices.items():
            known = union.get(device)
            if known is None:
                union[device] = runs
            elif known[-1] + 1 == runs[0]:
                union[device] = [*known[:-1], *runs[1:]]
            else:
                union[device] = _joined([*known, *runs])
    return union


def _joined(flat: list[int]) -> list[int]:
    runs: list[int] = []
    for first, last in sorted(zip(flat[::2], flat[1::2], strict=True)):
        if runs and first <= runs[-1] + 1:
            runs[-1] = max(runs[-1], last)
        else:
            runs += [first, last]
    return runs


def encode_parts(epoch: str, devices: Mapping[str, list[int]], bytes_max: int) -> Iterator[bytes]:
    """Yield encoded records that each fit into a message; none where there are no devices."""
    if not devices:
        return
    payload = _encode(SequenceRuns(epoch, dict(devices)))
    if len(payload) <= bytes_max or len(devices) < 2:
        yield payload
        return
    names = list(devices)
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        yield from encode_parts(epoch, {name: devices[name] for name in half}, bytes_max)
