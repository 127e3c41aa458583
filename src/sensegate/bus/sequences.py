"""Sequence numbers that devices give their messages, as they stand on the log: device -> runs of numbers.

With each commit goes ``sequences.<partition>``, with each span of the uplink ``sequences.<node>``: so a centre can say
number by number what is missing of a node that was lost with its store. No identity is judged by them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np

from sensegate.bus.decoding import decoder
from sensegate.model import I64


class Sequences(msgspec.Struct, frozen=True):
    """Those of some messages."""

    life: str
    """Epoch of the log of the node that committed them."""
    devices: dict[str, list[int]]
    """Device -> first, last, first, last … of runs, rising."""
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
_decode = decoder(Sequences, "sequence numbers")


def decode(payload: bytes) -> Sequences:
    """Return the runs of a member of the log.

    Raises:
        ValueError: if these are none of a format known here, or runs that do not rise.
    """
    found = _decode(payload)
    for runs in found.devices.values():
        rises = all(first <= last for first, last in zip(runs[::2], runs[1::2], strict=False))
        apart = all(last < first for last, first in zip(runs[1::2], runs[2::2], strict=False))
        if len(runs) % 2 or not (rises and apart):
            raise ValueError("sequence numbers: runs that do not rise")
    return found


def runs_of(device: I64, number: I64) -> dict[int, list[int]]:
    """Return device -> first, last, … of the runs of its numbers; row *i* is one device and one of its numbers."""
    if not len(device):
        return {}
    order = np.lexsort((number, device))
    device, number = device[order], number[order]
    other = np.diff(device) != 0
    # Equal numbers of one device are one: a run goes on over them.
    breaks = np.flatnonzero(other | (np.diff(number) > 1))
    first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(number) - 1]])
    flat: list[int] = np.column_stack([number[first], number[last]]).ravel().tolist()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(device[first])) + 1])
    ends = [*(2 * starts[1:]).tolist(), len(flat)]
    owners: list[int] = device[first[starts]].tolist()
    return {owner: flat[2 * start : end] for owner, start, end in zip(owners, starts.tolist(), ends, strict=True)}


def merged(many: Iterable[Sequences]) -> dict[str, list[int]]:
    """Return the runs of all of them together."""
    found: dict[str, list[int]] = {}
    for one in many:
        for device, runs in one.devices.items():
            known = found.get(device)
            if known is None:
                found[device] = runs
            elif known[-1] + 1 == runs[0]:
                found[device] = [*known[:-1], *runs[1:]]
            else:
                found[device] = _joined([*known, *runs])
    return found


def _joined(flat: list[int]) -> list[int]:
    runs: list[int] = []
    for first, last in sorted(zip(flat[::2], flat[1::2], strict=True)):
        if runs and first <= runs[-1] + 1:
            runs[-1] = max(runs[-1], last)
        else:
            runs += [first, last]
    return runs


def encoded(life: str, devices: Mapping[str, list[int]], bytes_max: int) -> Iterator[bytes]:
    """Yield them in parts that are small enough for a message; nothing where there are none."""
    if not devices:
        return
    payload = _encode(Sequences(life, dict(devices)))
    if len(payload) <= bytes_max or len(devices) < 2:
        yield payload
        return
    names = list(devices)
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        yield from encoded(life, {name: devices[name] for name in half}, bytes_max)
