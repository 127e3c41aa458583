"""A small provider of identities, made with joserfc: honest unless told otherwise, and strict about PKCE."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from sensegate.bus.free_ports import free_port

CLIENT, SECRET = "sensegate", "s3cret-of-the-client"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _part(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


class Provider:
    """Its keys, its people, and what it does wrong."""

    def __init__(self) -> None:
        self.key: RSAKey | ECKey = RSAKey.generate_key(2048, parameters={"kid": "one"})
        self.issuer = ""
        self.claims: dict[str, Any] = {"sub": "u-1", "preferred_username": "li.wei", "groups": ["city"]}
        """Of whoever signs in next."""
        self.forge: Callable[[dict[str, Any]], str] | None = None
        """Makes the ID token from its claims; None: as it should be."""
        self.asked: list[str] = []
        self.in_parts = False
        """Keys come in several parts."""
        self._codes: dict[str, dict[str, str]] = {}

    def signed(self, claims: dict[str, Any]) -> str:
        """Return an ID token by the present key."""
        alg = "RS256" if isinstance(self.key, RSAKey) else "ES256"
        return jwt.encode({"alg": alg, "kid": self.key.kid}, claims, self.key)

    def by_public_key(self, claims: dict[str, Any]) -> str:
        """Return one by HMAC with the public key as its secret: the classic confusion."""
        signed = f"{_part({'alg': 'HS256', 'kid': self.key.kid})}.{_part(claims)}"
        pem = self.key.as_pem(private=False)
        return f"{signed}.{_base64(hmac.digest(pem, signed.encode(), 'sha256'))}"

    @staticmethod
    def unsigned(claims: dict[str, Any]) -> str:
        """Return one with `alg: none`."""
        return f"{_part({'alg': 'none'})}.{_part(claims)}."

    async def _about(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        self.asked.append("keys")
        document = KeySet([self.key]).as_dict(private=False)
        if not self.in_parts:
            return web.json_response(document)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        text = json.dumps(document)
        for part in (" " * 20_000, text[:9], text[9:20], text[20:]):
            await response.write(part.encode())
            # The client reads this part before the next one comes.
            for _ in range(50):
                await asyncio.sleep(0)
        return response

    async def _authorize(self, request: web.Request) -> web.Response:
        result = dict(request.query)
        assert result["response_type"] == "code"
        assert result["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self._codes[code] = result
        back = f"{result['redirect_uri']}?code={code}&state={result['state']}&iss={self.issuer}"
        return web.Response(status=302, headers={"Location": back})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        result = self._codes.pop(str(form["code"]), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        good = (
            result is not None
            and result["code_challenge"] == challenge.decode().rstrip("=")
            and form["redirect_uri"] == result["redirect_uri"]
            and request.headers.get("Authorization") == f"Basic {basic}"
        )
        if not good or result is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": result["nonce"]}
        token = (self.forge or self.signed)({**claims, **self.claims})
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": token})


@asynccontextmanager
async def providing(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    """Run a provider on loopback."""
    provider = Provider()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider._about)
    app.router.add_get("/keys", provider._keys)
    app.router.add_get("/authorize", provider._authorize)
    app.router.add_post("/token", provider._token)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    provider.issuer = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield provider
    finally:
        await runner.cleanup()
