"""Sequence numbers that devices give their messages, as they stand on the log: device -> runs of numbers.

With each commit goes ``sequences.<partition>``, with each span of the uplink ``sequences.<node>``: so a centre can say
number by number what is missing of a node that was lost with its store. No identity is judged by them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np


class Sequences(msgspec.Struct, frozen=True):
    """Those of some messages."""

    life: str
    """Epoch of the log of the node that committed them."""
    devices: dict[str, list[int]]
    """Device -> first, last, first, last … of runs, rising."""
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Sequences).decode


def runs_of(numbers: Iterable[int]) -> list[int]:
    """Return first, last, … of the runs of some numbers."""
    different = np.unique(np.fromiter(numbers, np.int64))
    if not len(different):
        return []
    breaks = np.flatnonzero(np.diff(different) != 1)
    first = different[np.concatenate([[0], breaks + 1])]
    last = different[np.concatenate([breaks, [len(different) - 1]])]
    runs: list[int] = np.column_stack([first, last]).ravel().tolist()
    return runs


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
