"""Single sign-on by OpenID Connect (authorization code flow with PKCE), and the mapping of claims to roles.

Each sign-in has its own state (single use, ten minutes), nonce and code verifier, and is bound to the browser that
started it. The signature (asymmetric algorithms only), issuer, audience, times and nonce of the ID token are verified.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from sensegate.authority.attempts import network_of
from sensegate.authority.http_bodies import read_body
from sensegate.authority.scope import Role, Scope, duty, fits_role, scope
from sensegate.clock import Clock
from sensegate.config import read_secret
from sensegate.config.people import OidcConfig, OidcRule
from sensegate.errors import ConfigError, PermissionDenied, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Asymmetric algorithms only: with HMAC or `none`, a public key could serve as the secret."""
PENDING_MAX, PENDING_S = 10_000, 600.0
PENDING_PER_NETWORK_MAX = 100
"""Started sign-ins of one network; a new one takes the place of its oldest, not of another network's."""
RESPONSE_BYTES_MAX, TIMEOUT_S = 262_144, 10.0
KEYS_REFRESH_S = 10.0
"""Shortest interval of fetching the keys again for an unknown key id."""
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_SUBJECT = re.compile(r"[\x21-\x7e]{1,100}")


class Identity(msgspec.Struct, frozen=True):
    """A person authenticated by the provider, with role and scope by the rules."""

    subject: str
    name: str
    role: Role
    scope: Scope


class SignInStart(msgspec.Struct, frozen=True):
    """A started sign-in."""

    url: str
    """Authorization URL for the browser."""
    binding: str
    """Value that the browser stores and returns with the callback."""


class _Pending(msgspec.Struct, frozen=True):
    binding: str
    nonce: str
    verifier: str
    until: float
    network: str


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Oidc:
    """The client of the configured provider."""

    def __init__(self, config: OidcConfig, clock: Clock) -> None:
        """Validate the configuration. Raises `ConfigError`."""
        for key, url in (("issuer", config.issuer), ("redirect_url", config.redirect_url)):
            _require_secure(url, f"oidc.{key}")
        if not config.client_id:
            raise ConfigError(
                "the client id is missing", key="oidc.client_id", remedy="give the id registered at the provider"
            )
        if not config.rules:
            raise ConfigError("there are no rules", key="oidc.rules", remedy="map claims to roles and scopes")
        for number, rule in enumerate(config.rules):
            if bool(rule.scope) == bool(rule.scope_claim):
                raise ConfigError(
                    "the rule needs exactly one of scope and scope_claim",
                    key=f"oidc.rules[{number}]",
                    remedy="remove or add one",
                )
            if rule.scope and not fits_role(Role(rule.role), scope(rule.scope)):
                raise ConfigError(
                    f"{rule.role} may not have the scope {rule.scope}",
                    key=f"oidc.rules[{number}]",
                    remedy="narrow the scope",
                )
        self._config = config
        self._clock = clock
        self._secret = read_secret(config.client_secret_file) if config.client_secret_file else ""
        self._trust = _context(config.ca_file)
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._lock = asyncio.Lock()

    @property
    def issuer(self) -> str:
        """The issuer URL of the provider."""
        return self._config.issuer

    async def begin(self, address: str) -> SignInStart:
        """Start a sign-in from an address and return the authorization URL.

        Raises `Unavailable`, or `PermissionDenied` if the provider's metadata is invalid.
        """
        metadata = await self._discover()
        now = self._clock.monotonic()
        while self._pending and (len(self._pending) >= PENDING_MAX or next(iter(self._pending.values())).until < now):
            self._pending.popitem(last=False)
        network = network_of(address)
        own = [state for state, pending in self._pending.items() if pending.network == network]
        if len(own) >= PENDING_PER_NETWORK_MAX:
            del self._pending[own[0]]
        state = secrets.token_urlsafe(24)
        pending = _Pending(
            secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), now + PENDING_S, network
        )
        self._pending[state] = pending
        challenge = hashlib.sha256(pending.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._config.redirect_url,
            "scope": " ".join(self._config.scopes),
            "state": state,
            "nonce": pending.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return SignInStart(f"{metadata.authorization_endpoint}{joint}{urlencode(query)}", pending.binding)

    async def finish(self, *, state: str, binding: str, code: str, issuer: str = "") -> Identity:
        """Complete a sign-in and return the person.

        Raises:
            PermissionDenied: the sign-in was not started here, the provider's answer is invalid, or no rule matches.
            Unavailable: the provider does not answer.
        """
        pending = self._pending.pop(state, None)
        if pending is None or pending.until < self._clock.monotonic():
            raise _denied("this sign-in was not started here, is complete already, or took too long; start again")
        if not hmac.compare_digest(pending.binding.encode(), binding.encode("utf-8", "surrogatepass")):
            raise _denied("this sign-in was started in another browser; start again")
        metadata = await self._discover()
        if (issuer or metadata.authorization_response_iss_parameter_supported) and issuer != metadata.issuer:
            raise _denied("the answer is from another provider")
        form = {
            "grant_type": "authorization_code",
            "code": code[:4_096],
            "redirect_uri": self._config.redirect_url,
            "code_verifier": pending.verifier,
            "client_id": self._config.client_id,
        }
        tokens = _decoded(await self._token(metadata, form), _Tokens, "a token response")
        return self.identity(await self._claims(tokens.id_token, metadata, pending.nonce))

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Return the person that the rules derive from claims. Raises `PermissionDenied`."""
        matching = [rule for rule in self._config.rules if _matches(rule, claims)]
        if not matching:
            raise PermissionDenied("no rule of this gateway gives you a role; ask its administrator (oidc.rules)")
        duties = {duty(Role(rule.role)) for rule in matching}
        if len(duties) > 1:
            raise PermissionDenied(
                "the rules give you two duties, but a person may have only one; ask the provider's administrator"
            )
        rule = matching[0]
        role = Role(rule.role)
        text = rule.scope or claims.get(rule.scope_claim)
        try:
            person_scope = scope(text) if isinstance(text, str) else None
        except ConfigError:
            person_scope = None
        if person_scope is None or not fits_role(role, person_scope):
            raise PermissionDenied(f"the claim '{rule.scope_claim}' holds no scope for the role {role}")
        subject = str(claims["sub"])
        if not _SUBJECT.fullmatch(subject):
            subject = f"sha256-{hashlib.sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"
        name = claims.get(self._config.name_claim)
        shown = "".join(letter for letter in name if letter.isprintable())[:32] if isinstance(name, str) else ""
        return Identity(subject, shown or subject, role, person_scope)

    # ── requests to the provider ──────────────────────────────────────────────────────────────────────

    async def _discover(self) -> _Metadata:
        if self._metadata is None:
            url = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
            metadata = _decoded(await self._ask("GET", url), _Metadata, "its metadata")
            if metadata.issuer != self._config.issuer:
                raise _denied(
                    f"the provider's metadata names the issuer {metadata.issuer[:200]}, not {self._config.issuer}"
                )
            for endpoint in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
                _require_secure(endpoint, "oidc.issuer")
            self._metadata = metadata
        return self._metadata

    async def _token(self, metadata: _Metadata, form: dict[str, str]) -> bytes:
        headers: dict[str, str] = {}
        if self._secret:
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                headers["Authorization"] = aiohttp.encode_basic_auth(self._config.client_id, self._secret)
            else:
                form["client_secret"] = self._secret
        return await self._ask("POST", metadata.token_endpoint, form=form, headers=headers)

    async def _claims(self, token: str, metadata: _Metadata, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token after verifying them. Raises `PermissionDenied`, `Unavailable`."""
        try:
            try:
                decoded = jwt.decode(token, await self._key_set(metadata), algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                decoded = jwt.decode(token, await self._key_set(metadata, fresh=True), algorithms=ALGORITHMS)
            claims: dict[str, Any] = decoded.claims
            jwt.JWTClaimsRegistry(
                now=round(self._clock.now() / 1e6),
                leeway=round(self._config.skew_s),
                iss={"essential": True, "value": metadata.issuer},
                aud={"essential": True, "value": self._config.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError, TypeError) as why:
            raise _denied(f"the provider's ID token is invalid ({type(why).__name__})") from why
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", "" if several else self._config.client_id) != self._config.client_id:
            raise _denied("the provider's ID token was issued for another client (azp)")
        return claims

    async def _key_set(self, metadata: _Metadata, *, fresh: bool = False) -> KeySet:
        async with self._lock:
            now = self._clock.monotonic()
            if self._keys is None or (fresh and now - self._keys_at >= KEYS_REFRESH_S):
                key_set = _decoded(await self._ask("GET", metadata.jwks_uri), dict[str, Any], "a key set")
                self._keys = KeySet.import_key_set({"keys": key_set.get("keys") or []})
                self._keys_at = now
            return self._keys

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body of a successful response. Raises `Unavailable`, `PermissionDenied`."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.request(
                    method, url, data=form, headers=headers, allow_redirects=False, ssl=self._trust
                ) as response,
            ):
                body = await read_body(response.content, RESPONSE_BYTES_MAX + 1)
                if response.status == 200 and len(body) <= RESPONSE_BYTES_MAX:
                    return body
                if response.status in {400, 401}:
                    raise _denied(f"the provider refused the code ({response.status})")
                raise Unavailable(f"the provider answered {response.status} at {urlsplit(url).path}")
        except (aiohttp.ClientError, TimeoutError, OSError) as why:
            raise Unavailable(f"the provider does not answer: {type(why).__name__}") from why


def _matches(rule: OidcRule, claims: Mapping[str, Any]) -> bool:
    value = claims.get(rule.claim)
    return rule.value in value if isinstance(value, list) else value == rule.value


def _decoded(body: bytes, kind: Any, description: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        raise _denied(f"the provider's answer is not {description}") from why


def _denied(message: str) -> PermissionDenied:
    return PermissionDenied(message, authenticated=False)


def _require_secure(url: str, key: str) -> None:
    """Require an encrypted or loopback URL. Raises `ConfigError`."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise ConfigError(f"'{url}' is not an https:// address", key=key, remedy="use https, or http on loopback")


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(
            f"the CA file cannot be loaded: {why}", file=ca_file, key="oidc.ca_file", remedy="give a PEM file"
        ) from why
