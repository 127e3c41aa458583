"""The product's layout: an account for each node and for the peer, rendered as a centre does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sensegate.authority.jwt import Permissions
from sensegate.bus.server_conf import EngineState, NodeSlots, ServerPlace, render
from sensegate.bus.slots import account_of, centre_user, inbox_prefix, member_rights, request_subject
from sensegate.config import EngineConfig
from sensegate.share.subscription_control import reply_of
from sensegate.tiers import envelope
from sensegate.tiers.envelope import PROTOCOL_VERSIONS, LinkRequest
from sensegate.tiers.link import Channel
from tests.border.layout import SMALL, Layout, Question

SLOTS = ("4401", "4402", "4403", "4404", "s01")
_PERMISSIONS_OF_NODES = re.compile(r'(user: "node-[^\n]*?), permissions: \{[^}]*\}')


def rights_of(slot: str) -> Permissions:
    """Return the rights of a node or of the peer in its slot."""
    rights = member_rights(slot)
    return Permissions(rights.publish, rights.subscribe)


def text(kept: EngineState, directory: Path, secrets: Mapping[str, str], tight: bool) -> str:  # noqa: FBT001 - `Layout.text`
    """Return the server's configuration; not `tight`: users of nodes have no permissions set."""
    rendered = render(EngineConfig(), SMALL, kept, ServerPlace("border", directory), slots=NodeSlots(secrets, SLOTS))
    if tight:
        return rendered
    loosened, count = _PERMISSIONS_OF_NODES.subn(r"\1", rendered)
    assert count == len(secrets), "the users of nodes are written in another form"
    return loosened


def question(slot: str) -> Question:
    """Return a question of a node in the product's own form."""
    encoded = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, "report", b""))
    return Question(request_subject(slot, Channel.QUESTIONS), f"{inbox_prefix(slot)}.1", encoded)


NEW = Layout(
    name="an account for each node",
    text=text,
    account_of=account_of,
    rights_of=rights_of,
    question=question,
    responders=centre_user,
    questions=lambda slot: f"up.{slot}.>",
    control_reply=reply_of,
)
