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
    order = np.lexsort((number, device))
    device, number = device[order], number[order]
    is_next_device = np.diff(device) != 0
    # Equal numbers of a device count as one: a run continues over them.
    breaks = np.flatnonzero(is_next_device | (np.diff(number) > 1))
    first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(number) - 1]])
    flat: list[int] = np.column_stack([number[first], number[last]]).ravel().tolist()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(device[first])) + 1])
    ends = [*(2 * starts[1:]).tolist(), len(flat)]
    owners: list[int] = device[first[starts]].tolist()
    return {owner: flat[2 * start : end] for owner, start, end in zip(owners, starts.tolist(), ends, strict=True)}


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
