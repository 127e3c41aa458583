"""Slots: accounts of a centre's server for its peers, one per node and one for the other centre.

The server's configuration contains all slots that a province can need from the start: a node that joins is assigned a
free one, without a reload. The account of a slot has no JetStream, exports, imports or mappings, so that nothing that a
node publishes reaches a stream, a key or a reply outside it. Two users connect to it: the node, and the centre with the
restricted user ``centre-<slot>``, which reads the node's requests and responds.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

import msgspec

SPARE_SLOTS = 64
"""Number of slots for members that are not a prefecture: several members of a city, an island, a port."""
PROVINCE_DIGITS = 2
CONNECTIONS_MAX = 6
"""Connection limit of a slot, including the centre's own."""
SUBSCRIPTIONS_MAX = 64
"""Subscription limit of a connection in a slot."""
_CODE = re.compile(r"[0-9]+")


class SlotRights(msgspec.Struct, frozen=True):
    """Subjects that a user of a slot may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def is_peer(slot: str) -> bool:
    """Return whether a slot is that of the other centre: its name is the code of the province."""
    return len(slot) == PROVINCE_DIGITS and bool(_CODE.fullmatch(slot))


def account_of(slot: str) -> str:
    """Return the account of a slot."""
    return f"P_{slot}" if is_peer(slot) else f"N_{slot}"


def centre_user(slot: str) -> str:
    """Return the user with which a centre connects to a slot of its own server."""
    return f"centre-{slot}"


def node_user(member: str) -> str:
    """Return the user with which a member connects to its centre, or a centre to the other centre."""
    return f"node-{member}"


def inbox_prefix(slot: str) -> str:
    """Return the only inbox prefix that users of a slot may use."""
    return f"_INBOX_{slot}"


def request_subject(slot: str, channel: str) -> str:
    """Return the subject of the requests of a channel."""
    return f"up.{slot}.{channel}"


def member_rights(slot: str) -> SlotRights:
    """Return the rights of the node, or of the other centre, in its slot."""
    return SlotRights((f"up.{slot}.>",), (f"{inbox_prefix(slot)}.>", f"down.{slot}.>"))


def centre_rights(slot: str) -> SlotRights:
    """Return the rights of the centre's own user in a slot: to read requests and to respond."""
    return SlotRights((f"{inbox_prefix(slot)}.>", f"down.{slot}.>"), (f"up.{slot}.>",))


def centre_password(seed: str, slot: str) -> str:
    """Return the password of the centre's own user in a slot, derived from the secret of `EngineState.slot_seed`."""
    return urlsafe_b64encode(hmac.digest(seed.encode(), slot.encode(), sha256)).rstrip(b"=").decode()


def spare_slots() -> tuple[str, ...]:
    """Return the slots that are not bound to a prefecture."""
    return tuple(f"s{number:02d}" for number in range(1, SPARE_SLOTS + 1))


def province_slots(prefectures: Iterable[str], configured: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the slots of a province: one per prefecture and configured node, and the spare ones."""
    return tuple(sorted({*prefectures, *configured, *spare_slots()}))
