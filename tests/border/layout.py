"""How a server may be divided into accounts: what a raid is tried against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sensegate.authority.jwt import Permissions
from sensegate.bus.server_conf import EngineState, User
from tests import conftest

SMALL = msgspec.structs.replace(conftest.SMALL, audit_bytes=16 * 1024**2)
ALL = Permissions((">",), (">",), respond=True)
"""Rights of a user that nobody restricted."""


class Question(msgspec.Struct, frozen=True):
    """How a node asks its centre: by which subject, and where the answer may go."""

    subject: str
    reply: str
    payload: bytes = b""


class Layout(msgspec.Struct, frozen=True):
    """One way to place nodes, the peer and the centre on a server."""

    name: str
    text: Callable[[EngineState, Path, Mapping[str, str], bool], str]
    """(what is kept, directory, secret by node or peer, tight) -> the server's configuration."""
    account_of: Callable[[str], str]
    """Code of a node or a peer -> account of its connections."""
    rights_of: Callable[[str], Permissions]
    """Code of a node or a peer -> rights of one that the auth callout placed."""
    question: Callable[[str], Question]
    """Code of a node -> the question that it asks."""
    responders: Callable[[str], str]
    """Code of a node or a peer -> user over whose connection the centre answers it."""
    questions: Callable[[str], str]
    """Code of a node or a peer -> subject on which the centre hears its questions."""
    control_reply: Callable[[str, str], str]
    """(reply that a subscriber named, its token) -> where its control message is answered; empty: nowhere."""


def frame(kept: EngineState, directory: Path, auth_users: list[str], issuer: str, accounts: str) -> str:
    """Return the text of a server's configuration around its accounts.

    Its limits are those of the product, but for open batches: a tenth, since the server takes seconds to open 500.
    """
    names = ", ".join(f'"{user}"' for user in auth_users)
    return f"""\
server_name: "border"
host: "127.0.0.1"
port: {kept.port}
max_payload: 1048576
max_control_line: 4096
max_pending: 41943040
write_deadline: "10s"
log_file: "{directory}/nats.log"
jetstream {{
  store_dir: "{directory}/store"
  max_file_store: 4294967296
  max_memory_store: 268435456
  limits {{ batch {{ max_msgs: 10000, max_inflight_per_stream: 50, max_inflight_total: 100, timeout: "10s" }} }}
}}
mqtt {{
  host: "127.0.0.1"
  port: {kept.mqtt_port}
  ack_wait: "30s"
  max_ack_pending: 1024
  reject_qos2_publish: true
  authorization {{ timeout: 2 }}
}}
system_account: SYS
authorization {{
  timeout: 2
  auth_callout {{ issuer: "{issuer}", account: AUTH, auth_users: [{names}] }}
}}
accounts {{
{accounts}}}
"""


def user_line(name: str, password: str, *, kinds: str = '"STANDARD"', rights: Permissions | None = None) -> str:
    """Return one user of an account."""
    tail = ""
    if rights is not None:
        publish, subscribe = (
            ", ".join(f'"{subject}"' for subject in side) for side in (rights.publish, rights.subscribe)
        )
        tail = f", permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }}"
    return f'{{ user: "{name}", password: "{password}", allowed_connection_types: [{kinds}]{tail} }}'


def own_accounts(kept: EngineState, *, gateway: str = "", mappings: str = "") -> str:
    """Return the accounts of the product's own users; `gateway` are more users of the gateway's."""
    password = kept.passwords
    both = '"STANDARD", "MQTT"'
    return f"""\
  DEVICES {{
    jetstream {{ max_file: 1073741824, max_memory: 0 }}
    users: [ {user_line(User.INTAKE, password[User.INTAKE])} ]
  }}
  SG {{
    jetstream {{ max_file: 2147483648, max_memory: 134217728 }}
    {mappings}
    users: [
      {user_line(User.GATEWAY, password[User.GATEWAY])}
{gateway}    ]
  }}
  SUB {{
    jetstream {{ max_file: 1073741824, max_memory: 0 }}
    users: [ {user_line(User.FEEDS, password[User.FEEDS], kinds=both)} ]
  }}
  AUTH {{ users: [ {user_line(User.CALLOUT, password[User.CALLOUT])} ] }}
  SYS {{ users: [ {user_line(User.SYSTEM, password[User.SYSTEM])} ] }}
"""
