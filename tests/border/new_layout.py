"""The layout that holds: an account for each node and for the peer, without JetStream, exports, imports, mappings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sensegate.authority.jwt import Rights
from sensegate.bus.server_conf import Kept, User, issuer_of
from sensegate.share.controls import reply_of
from tests.border.layout import Layout, Question, frame, own_accounts, user_line

SLOTS = ("4401", "4402", "4403", "4404")
PROVINCE_DIGITS = 2


def account_of(code: str) -> str:
    """Return the account of a node, or of the peer (the code of a province)."""
    return f"{'P' if len(code) == PROVINCE_DIGITS else 'N'}_{code}"


def rights_of(code: str) -> Rights:
    """Return what a node may publish and hear."""
    return Rights((f"up.{code}.>",), (f"_INBOX_{code}.>", f"down.{code}.>"))


def centre_rights(code: str) -> Rights:
    """Return what the centre may publish and hear in a node's account."""
    return Rights((f"_INBOX_{code}.>", f"down.{code}.>"), (f"up.{code}.>",))


def centre_password(kept: Kept, code: str) -> str:
    """Return the password of the centre's user in a node's account."""
    return f"{kept.passwords[User.GATEWAY]}-{code}"


def text(kept: Kept, directory: Path, secrets: Mapping[str, str], tight: bool) -> str:  # noqa: FBT001 - `Layout.text`
    """Return the server's configuration; not `tight`: users of nodes have no permissions set."""
    accounts = own_accounts(kept)
    codes = sorted({*SLOTS, *secrets})
    for code in codes:
        users = [user_line(f"centre-{code}", centre_password(kept, code), rights=centre_rights(code))]
        if code in secrets:
            users.append(user_line(f"node-{code}", secrets[code], rights=rights_of(code) if tight else None))
        accounts += (
            f"  {account_of(code)} {{ limits {{ max_connections: 6, max_subscriptions: 64 }}\n"
            f"    users: [\n      {'      '.join(f'{user}{chr(10)}' for user in users)}    ] }}\n"
        )
    names = [*User, *(f"centre-{code}" for code in codes), *(f"node-{code}" for code in secrets)]
    return frame(kept, directory, names, issuer_of(kept), accounts)


NEW = Layout(
    name="an account for each node",
    text=text,
    account_of=account_of,
    rights_of=rights_of,
    question=lambda code: Question(f"up.{code}.questions", f"_INBOX_{code}.1"),
    responders=lambda code: f"centre-{code}",
    questions=lambda code: f"up.{code}.>",
    control_reply=reply_of,
)
