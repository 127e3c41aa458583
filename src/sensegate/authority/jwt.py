"""The two kinds of signed claims that the server's auth callout speaks, and the questions that it asks.

Claims are signed with the account key of the callout (nkey, ed25519). The form is that of nats-io/jwt version 2.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import msgspec
import nkeys

from sensegate.errors import EngineError


class ClientInfo(msgspec.Struct, frozen=True):
    """The connection that asks to be let in."""

    id: int = 0
    """The server's number of the connection."""
    host: str = ""
    type: str = ""
    """``mqtt``, ``nats``, ``websocket``."""
    mqtt_id: str = ""


class ConnectOptions(msgspec.Struct, frozen=True):
    """What the client said of itself."""

    user: str = ""
    password: str = msgspec.field(default="", name="pass")
    name: str = ""
    """What the client calls its connection."""


class ServerInfo(msgspec.Struct, frozen=True):
    """The server that asks."""

    id: str = ""
    name: str = ""


class TlsInfo(msgspec.Struct, frozen=True):
    """What a client showed in the handshake."""

    certs: tuple[str, ...] = ()
    """PEM, its own first; without a check of the chain."""
    verified_chains: tuple[tuple[str, ...], ...] = ()
    """The same, checked by the server against its authorities."""


class AuthRequest(msgspec.Struct, frozen=True):
    """Who is this, and what may it do?"""

    user_nkey: str
    """Key that the server made for this connection; the answer is about it."""
    server_id: ServerInfo = ServerInfo()
    client_info: ClientInfo = ClientInfo()
    connect_opts: ConnectOptions = ConnectOptions()
    client_tls: TlsInfo | None = None


class _Asked(msgspec.Struct, frozen=True):
    nats: AuthRequest


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a connection may publish and subscribe to; nothing else."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    respond: bool = False
    """Also answer once each message that asks for it."""


_RESPOND_NS = 120_000_000_000
"""Within this time a message may be answered."""
_HEAD = urlsafe_b64encode(b'{"typ":"JWT","alg":"ed25519-nkey"}').rstrip(b"=") + b"."
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Asked).decode


def decode_request(token: bytes) -> AuthRequest:
    """Return what the server asks.

    Its signature is not checked: only the server and the callout's own user can publish in their account.

    Raises:
        EngineError: this is no such question.
    """
    parts = token.split(b".")
    if len(parts) != 3:
        raise EngineError("a question of the auth callout that is no JWT; check the server's version")
    try:
        return _decode(urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4))).nats
    except (ValueError, msgspec.DecodeError) as why:
        raise EngineError(f"a question of the auth callout that cannot be read: {why}") from why


class CalloutSigner:
    """Writes answers in the name of the callout's issuer."""

    def __init__(self, issuer_seed: bytes) -> None:
        """Take the seed of the account key that stands as `issuer` in the server's configuration."""
        self._key = nkeys.from_seed(bytearray(issuer_seed))
        public: bytes = self._key.public_key
        self._issuer = public.decode()

    def admit(
        self,
        asked: AuthRequest,
        *,
        account: str,
        name: str,
        rights: Permissions,
        now_s: int,
        until_s: int = 0,
        kind: str = "MQTT",
    ) -> bytes:
        """Return the answer that lets a client into an account as `name` with these rights, until a time (0: open).

        `kind`: of connection, as the server calls it: MQTT, STANDARD.
        """
        user: dict[str, object] = {
            "jti": asked.user_nkey,
            "iat": now_s,
            "iss": self._issuer,
            "sub": asked.user_nkey,
            "aud": account,
            "name": name,
            "nats": {
                "type": "user",
                "version": 2,
                "pub": _permission(rights.publish),
                "sub": _permission(rights.subscribe),
                **({"resp": {"max": 1, "ttl": _RESPOND_NS}} if rights.respond else {}),
                "subs": -1,
                "data": -1,
                "payload": -1,
                "allowed_connection_types": [kind],
            },
        }
        if until_s:
            user["exp"] = until_s
        return self._answer(asked, now_s, {"jwt": self._signed(user).decode()})

    def refuse(self, asked: AuthRequest, why: str, *, now_s: int) -> bytes:
        """Return the answer that refuses a client; `why` goes to the server's log, not to the client."""
        return self._answer(asked, now_s, {"error": why})

    def _answer(self, asked: AuthRequest, now_s: int, said: dict[str, str]) -> bytes:
        claims = {
            "jti": asked.user_nkey,
            "iat": now_s,
            "iss": self._issuer,
            "sub": asked.user_nkey,
            "aud": asked.server_id.id,
            "nats": {"type": "authorization_response", "version": 2, **said},
        }
        return self._signed(claims)

    def _signed(self, claims: dict[str, object]) -> bytes:
        body = _HEAD + urlsafe_b64encode(_encode(claims)).rstrip(b"=")
        signature: bytes = self._key.sign(body)
        return body + b"." + urlsafe_b64encode(signature).rstrip(b"=")


def _permission(subjects: Sequence[str]) -> dict[str, list[str]]:
    # An empty list of allowed subjects would allow all.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}
