"""Identities of readings, values and messages as integers, for exact comparison."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import xxhash

from sensegate.clock import HOUR_US
from sensegate.model import BOOL, F64, I64, OBSERVATION, U8, U16, U32, U64, DuplicateKind, IdentityKind, Spec

KINDS = (
    IdentityKind.TIME,
    IdentityKind.SEQUENCE,
    IdentityKind.MESSAGE_ID,
    IdentityKind.NONE,
    IdentityKind.FRAME,
)
TIME, SEQUENCE, MESSAGE_ID, NONE, FRAME = range(5)
"""Indices into `KINDS`; they are stored on the log, so only add to them."""
KIND_MASK = 0x0F
IS_REFERENCE = 0x10
"""Bit added to the kind in the local column `identity`: the row is the reference of report by exception."""

VERDICTS = ("accepted", *(kind.value for kind in DuplicateKind))
"""Names of the codes in `DedupResult.kind`."""
ACCEPTED, REDELIVERY, REPEAT, CROSS_PATH, UNCHANGED, EQUAL = range(6)

COUNTER_EPOCH_US = HOUR_US
"""Equal sequence numbers further apart in phenomenon time than this belong to different epochs of the counter."""
FRAME_WINDOW_US = 600_000_000
"""Greatest distance of two networks' receptions of a radio frame: clock differences, retries at a low duty cycle."""

_SERIES = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_PATH = np.uint64(0xFFFF)


def hashes(number: U32, key: I64) -> U64:
    """Return a well-distributed 64-bit hash of each (series, key).

    For a given series it is a bijection of the key: equal hash and equal series always mean equal identity.
    """
    mixed = number.astype(np.uint64)
    mixed *= _SERIES
    mixed ^= key.view(np.uint64)
    mixed ^= mixed >> np.uint64(30)
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def digests(payloads: Sequence[bytes]) -> U64:
    """Return a digest of each message's bytes."""
    return np.array(list(map(xxhash.xxh3_64_intdigest, payloads)), np.uint64)


def fingerprints(digest: U64, path: U16) -> U64:
    """Return 48 bits of the message's digest and 16 of its path: equal for identical bytes on the same path."""
    return (digest & ~_PATH) | path


def value_bits(value: F64, text: dict[int, str]) -> U64:
    """Return each value as 64 bits that are equal exactly if the values are; for a string its digest."""
    bits = (value + 0.0).view(np.uint64)
    if text:
        rows = np.fromiter(text, np.int64, len(text))
        digest = xxhash.xxh3_64_intdigest
        bits[rows] = np.array([digest(word.encode()) for word in text.values()], np.uint64)
    return bits


class SpecColumns(msgspec.Struct, frozen=True, eq=False):
    """Columns of the specs that `persist` uses, by index in the profile set's table."""

    identity: U8
    suppress: BOOL
    deadband: F64
    heartbeat: I64
    profile: I64
    """Index into `profiles`."""
    profiles: list[str]
    variables: list[tuple[str, str]]
    """(property, channel) of each spec."""
    variable: I64
    """Index of each spec's pair in the sorted list of pairs `names`."""
    names: list[tuple[str, str]]
    is_observation: BOOL
    """True if its rows are observations of cameras, which have their own subjects and lifetime."""
    any_suppress: bool
    common_identity: int
    """Identity kind of all specs; -1 where they differ."""

    @classmethod
    def of(cls, specs: Sequence[Spec]) -> SpecColumns:
        """Return the columns of a table of specs."""
        profiles = sorted({spec.profile for spec in specs})
        names = sorted({(spec.property, spec.channel) for spec in specs})
        # Ten thousand specs, hundreds of profiles: looked up, not searched, because the pipeline waits meanwhile.
        of_profile = {name: at for at, name in enumerate(profiles)}
        of_name = {name: at for at, name in enumerate(names)}
        kinds = [KINDS.index(spec.identity) for spec in specs]
        return cls(
            np.array(kinds, np.uint8),
            np.array([spec.suppress for spec in specs], np.bool_),
            np.array([spec.deadband for spec in specs], np.float64),
            np.array([round(spec.heartbeat_s * 1e6) for spec in specs], np.int64),
            np.array([of_profile[spec.profile] for spec in specs], np.int64),
            profiles,
            [(spec.property, spec.channel) for spec in specs],
            np.array([of_name[spec.property, spec.channel] for spec in specs], np.int64),
            names,
            np.array([spec.property == OBSERVATION for spec in specs], np.bool_),
            any(spec.suppress for spec in specs),
            kinds[0] if len(set(kinds)) == 1 else -1,
        )
