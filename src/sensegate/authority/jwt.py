"""The JWTs of nats-server's auth callout: authorization requests and signed responses.

Responses are signed with the account key of the callout (nkey, ed25519), in the format of nats-io/jwt version 2.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import msgspec
import nkeys

from sensegate.errors import EngineError


class ClientInfo(msgspec.Struct, frozen=True):
    """The connecting client."""

    id: int = 0
    """Connection id at the server."""
    host: str = ""
    type: str = ""
    """``mqtt``, ``nats``, ``websocket``."""
    mqtt_id: str = ""


class ConnectOptions(msgspec.Struct, frozen=True):
    """The client's connect options."""

    user: str = ""
    password: str = msgspec.field(default="", name="pass")
    name: str = ""
    """Connection name that the client gave."""


class ServerInfo(msgspec.Struct, frozen=True):
    """The server that sent the request."""

    id: str = ""
    name: str = ""


class TlsInfo(msgspec.Struct, frozen=True):
    """The client's certificates in the TLS handshake."""

    certs: tuple[str, ...] = ()
    """PEM, the client's own first; the chain is not verified."""
    verified_chains: tuple[tuple[str, ...], ...] = ()
    """PEM chains that the server has verified against its CAs."""


class AuthRequest(msgspec.Struct, frozen=True):
    """An authorization request: who is this client, and what may it do?"""

    user_nkey: str
    """Key that the server generated for this connection; the subject of the response."""
    server_id: ServerInfo = ServerInfo()
    client_info: ClientInfo = ClientInfo()
    connect_opts: ConnectOptions = ConnectOptions()
    client_tls: TlsInfo | None = None


class _RequestClaims(msgspec.Struct, frozen=True):
    nats: AuthRequest


class Permissions(msgspec.Struct, frozen=True):
    """The subjects to which a connection may publish and subscribe; all others are denied."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    respond: bool = False
    """Also reply once to each request."""


_RESPOND_NS = 120_000_000_000
"""Time limit of the permission to reply."""
_HEAD = urlsafe_b64encode(b'{"typ":"JWT","alg":"ed25519-nkey"}').rstrip(b"=") + b"."
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_RequestClaims).decode


def decode_request(token: bytes) -> AuthRequest:
    """Return the request in a token of the server.

    The signature is not verified: only the server and the callout's user can publish in their account.

    Raises:
        EngineError: the token is not an authorization request.
    """
    parts = token.split(b".")
    if len(parts) != 3:
        raise EngineError("a request of the auth callout is not a JWT; check the server's version")
    try:
        return _decode(urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4))).nats
    except (ValueError, msgspec.DecodeError) as why:
        raise EngineError(f"a request of the auth callout cannot be decoded: {why}") from why


class CalloutSigner:
    """Signer of responses with the key of the callout's issuer."""

    def __init__(self, issuer_seed: bytes) -> None:
        """`issuer_seed` is the seed of the account key that is `issuer` in the server's configuration."""
        self._key = nkeys.from_seed(bytearray(issuer_seed))
        public: bytes = self._key.public_key
        self._issuer = public.decode()

    def admit(
        self,
        request: AuthRequest,
        *,
        account: str,
        name: str,
        rights: Permissions,
        now_s: int,
        until_s: int = 0,
        kind: str = "MQTT",
    ) -> bytes:
        """Return the response that admits a client to an account as `name` with permissions, until a time (0: no end).

        `kind` is the server's name of the connection type: MQTT, STANDARD.
        """
        user: dict[str, object] = {
            "jti": request.user_nkey,
            "iat": now_s,
            "iss": self._issuer,
            "sub": request.user_nkey,
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
        return self._answer(request, now_s, {"jwt": self._signed(user).decode()})

    def refuse(self, request: AuthRequest, why: str, *, now_s: int) -> bytes:
        """Return the response that rejects a client; `why` goes to the server's log, not to the client."""
        return self._answer(request, now_s, {"error": why})

    def _answer(self, request: AuthRequest, now_s: int, result: dict[str, str]) -> bytes:
        claims = {
            "jti": request.user_nkey,
            "iat": now_s,
            "iss": self._issuer,
            "sub": request.user_nkey,
            "aud": request.server_id.id,
            "nats": {"type": "authorization_response", "version": 2, **result},
        }
        return self._signed(claims)

    def _signed(self, claims: dict[str, object]) -> bytes:
        body = _HEAD + urlsafe_b64encode(_encode(claims)).rstrip(b"=")
        signature: bytes = self._key.sign(body)
        return body + b"." + urlsafe_b64encode(signature).rstrip(b"=")


def _permission(subjects: Sequence[str]) -> dict[str, list[str]]:
    # An empty list of allowed subjects would allow all.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}
