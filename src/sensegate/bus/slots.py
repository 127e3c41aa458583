"""Slots: the accounts of other tiers at a centre's server, one for each node and one for the other centre.

All slots that a province can need are in the server's configuration from its start: a node that joins takes a free one,
and nothing is reloaded. An account of a slot has no JetStream, no exports, no imports and no mappings, so that nothing
a node publishes reaches a stream, a key or a reply outside it. Two kinds of users enter it: the node, and the centre
itself with the restricted user ``centre-<slot>``, which reads the node's requests and answers them.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

import msgspec

SPARES = 64
"""Slots of members that are no prefecture: several members of a city, an island, a port."""
PROVINCE_DIGITS = 2
CONNECTIONS_MAX = 6
"""Most connections in a slot, the centre's own included."""
SUBSCRIPTIONS_MAX = 64
"""Most subscriptions of one connection in a slot."""
_CODE = re.compile(r"[0-9]+")


class SlotRights(msgspec.Struct, frozen=True):
    """Subjects that a user of a slot may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def is_peer(slot: str) -> bool:
    """Return whether a slot is that of the other centre: it bears the code of the province."""
    return len(slot) == PROVINCE_DIGITS and bool(_CODE.fullmatch(slot))


def account_of(slot: str) -> str:
    """Return the account of a slot."""
    return f"P_{slot}" if is_peer(slot) else f"N_{slot}"


def centre_user(slot: str) -> str:
    """Return the user with which a centre enters a slot of its own server."""
    return f"centre-{slot}"


def node_user(member: str) -> str:
    """Return the user with which a member connects to its centre, or one centre to the other."""
    return f"node-{member}"


def inbox_prefix(slot: str) -> str:
    """Return the only prefix under which answers reach whoever connects to a slot."""
    return f"_INBOX_{slot}"


def request_subject(slot: str, channel: str) -> str:
    """Return the subject of the requests of a channel."""
    return f"up.{slot}.{channel}"


def member_rights(slot: str) -> SlotRights:
    """Return the rights of the node, or of the other centre, in its slot."""
    return SlotRights((f"up.{slot}.>",), (f"{inbox_prefix(slot)}.>", f"down.{slot}.>"))


def centre_rights(slot: str) -> SlotRights:
    """Return the rights of the centre's own user in a slot: no more than to read requests and to answer them."""
    return SlotRights((f"{inbox_prefix(slot)}.>", f"down.{slot}.>"), (f"up.{slot}.>",))


def centre_password(seed: str, slot: str) -> str:
    """Return the password of the centre's own user in a slot, derived from the secret that is kept with the users."""
    return urlsafe_b64encode(hmac.digest(seed.encode(), slot.encode(), sha256)).rstrip(b"=").decode()


def spare_slots() -> tuple[str, ...]:
    """Return the slots that belong to no prefecture."""
    return tuple(f"s{number:02d}" for number in range(1, SPARES + 1))


def slots_of(prefectures: Iterable[str], configured: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the slots of a province: one for each prefecture and each configured node, and the spare ones."""
    return tuple(sorted({*prefectures, *configured, *spare_slots()}))
