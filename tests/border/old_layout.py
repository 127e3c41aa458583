"""The layout that does not hold: nodes and the peer as users of the gateway's own account, bounded by permissions.

It is the control of the raid: what the raid shows here, it must be unable to show where each node has an account.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sensegate.authority.jwt import Permissions
from sensegate.bus.server_conf import EngineState, User, issuer_of
from tests.border.layout import Layout, Question, frame, own_accounts, user_line

MAPPINGS = {
    "up.*.readings.>": "readings.{{wildcard(1)}}.>",
    "up.*.observations.>": "observations.{{wildcard(1)}}.>",
    "up.*.ledger": "ledger.{{wildcard(1)}}",
    "up.*.sequences": "sequences.{{wildcard(1)}}",
    "up.*.commit.*": "commit.{{wildcard(1)}}.{{wildcard(2)}}",
    "up.*.ask.*": "ask.{{wildcard(1)}}.{{wildcard(2)}}",
}
PROVINCE_DIGITS = 2


def rights_of(code: str) -> Permissions:
    """Return what a node, or the peer (the code of a province), may publish and hear."""
    inbox = f"_INBOX_{code}.>"
    if len(code) == PROVINCE_DIGITS:
        return Permissions((f"ask.{code}.*",), (inbox,))
    publish = (
        f"readings.{code}.>",
        f"observations.{code}.>",
        f"ledger.{code}",
        f"sequences.{code}",
        f"commit.{code}.*",
        f"ask.{code}.*",
        f"$JS.API.DIRECT.GET.LOG.commit.{code}.*",
        f"$JS.API.DIRECT.GET.DOWN.down.{code}.*",
    )
    return Permissions(publish, (inbox, f"down.{code}.>"))


def text(kept: EngineState, directory: Path, secrets: Mapping[str, str], tight: bool) -> str:  # noqa: FBT001 - `Layout.text`
    """Return the server's configuration; not `tight`: users of nodes have no permissions set."""
    users = "".join(
        f"      {user_line(f'node-{code}', secret, rights=rights_of(code) if tight else None)}\n"
        for code, secret in sorted(secrets.items())
    )
    mappings = ", ".join(f'"{source}": "{target}"' for source, target in MAPPINGS.items())
    accounts = own_accounts(kept, gateway=users, mappings=f"mappings: {{ {mappings} }}")
    return frame(kept, directory, [*User, *(f"node-{code}" for code in secrets)], issuer_of(kept), accounts)


OLD = Layout(
    name="nodes in the gateway's account",
    text=text,
    account_of=lambda _code: "SG",
    rights_of=rights_of,
    question=lambda code: Question(f"up.{code}.ask.report", f"_INBOX_{code}.1"),
    responders=lambda _code: User.GATEWAY,
    questions=lambda code: f"ask.{code}.*",
    control_reply=lambda reply, _subscriber: reply,
)
