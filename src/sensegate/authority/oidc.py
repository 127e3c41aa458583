"""A provider of identities: OpenID Connect, authorization code with PKCE; what its claims make of a person.

Each sign-in has a state (once, ten minutes), a nonce and a verifier of its own, and is bound to the browser that began
it. Of the ID token the signature (asymmetric algorithms alone), issuer, audience, times and nonce are checked.
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

from sensegate.authority.scope import Role, Scope, duty, fits_role, scope
from sensegate.clock import Clock
from sensegate.config import read_secret
from sensegate.config.people import OidcConfig, OidcRule
from sensegate.errors import ConfigError, PermissionDenied, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""None by a shared secret, never `none`: a public key must not pass for one."""
BEGUN_MAX, BEGUN_S = 1_000, 600.0
ANSWER_BYTES_MAX, ANSWER_S = 262_144, 10.0
KEYS_AGAIN_S = 10.0
"""Keys are fetched again for a key id that is not among them, at most so often."""
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_SUBJECT = re.compile(r"[\x21-\x7e]{1,100}")


class Identity(msgspec.Struct, frozen=True):
    """Whom the provider vouches for, and what the rules make of it."""

    subject: str
    name: str
    role: Role
    scope: Scope


class SignInStart(msgspec.Struct, frozen=True):
    """A sign-in that has begun."""

    url: str
    """Where the browser goes."""
    binding: str
    """What the browser keeps and shows when it comes back."""


class _Pending(msgspec.Struct, frozen=True):
    binding: str
    nonce: str
    verifier: str
    until: float


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
    """The provider of the configuration."""

    def __init__(self, config: OidcConfig, clock: Clock) -> None:
        """Check the configuration. Raises `ConfigError`."""
        for key, url in (("issuer", config.issuer), ("redirect_url", config.redirect_url)):
            _demand_safe(url, f"oidc.{key}")
        if not config.client_id:
            raise ConfigError("missing", key="oidc.client_id", remedy="as registered at the provider")
        if not config.rules:
            raise ConfigError("no rules", key="oidc.rules", remedy="say which claim gives which role and scope")
        for number, rule in enumerate(config.rules):
            if bool(rule.scope) == bool(rule.scope_claim):
                raise ConfigError(
                    "give one of scope and scope_claim", key=f"oidc.rules[{number}]", remedy="where the role holds"
                )
            if rule.scope and not fits_role(Role(rule.role), scope(rule.scope)):
                raise ConfigError(
                    f"{rule.role} of {rule.scope}", key=f"oidc.rules[{number}]", remedy="narrow the scope"
                )
        self._config = config
        self._clock = clock
        self._secret = read_secret(config.client_secret_file) if config.client_secret_file else ""
        self._trust = _context(config.ca_file)
        self._begun: OrderedDict[str, _Pending] = OrderedDict()
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._lock = asyncio.Lock()

    @property
    def issuer(self) -> str:
        """The provider's name."""
        return self._config.issuer

    async def begin(self) -> SignInStart:
        """Return where to send the browser.

        Raises `Unavailable`, `PermissionDenied` where the provider is not what it must be.
        """
        metadata = await self._discover()
        now = self._clock.monotonic()
        while self._begun and (len(self._begun) >= BEGUN_MAX or next(iter(self._begun.values())).until < now):
            self._begun.popitem(last=False)
        state = secrets.token_urlsafe(24)
        pending = _Pending(
            secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), now + BEGUN_S
        )
        self._begun[state] = pending
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
        """Return whom the provider vouches for.

        Raises:
            PermissionDenied: the sign-in was not begun here, or the provider's word does not hold, or no rule fits.
            Unavailable: the provider does not answer.
        """
        pending = self._begun.pop(state, None)
        if pending is None or pending.until < self._clock.monotonic():
            raise _refused("this sign-in was not begun here, is done already, or took too long; begin again")
        if not hmac.compare_digest(pending.binding.encode(), binding.encode("utf-8", "surrogatepass")):
            raise _refused("this sign-in was begun in another browser; begin again")
        metadata = await self._discover()
        if (issuer or metadata.authorization_response_iss_parameter_supported) and issuer != metadata.issuer:
            raise _refused("the answer is of another provider than the one that was asked")
        form = {
            "grant_type": "authorization_code",
            "code": code[:4_096],
            "redirect_uri": self._config.redirect_url,
            "code_verifier": pending.verifier,
            "client_id": self._config.client_id,
        }
        told = _decoded(await self._token(metadata, form), _Tokens, "its tokens")
        return self.identity(await self._claims(told.id_token, metadata, pending.nonce))

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Return what the rules make of claims. Raises `PermissionDenied`."""
        fits = [rule for rule in self._config.rules if _fits(rule, claims)]
        if not fits:
            raise PermissionDenied("no rule of this gateway gives you a role; ask its administrator (oidc.rules)")
        duties = {duty(Role(rule.role)) for rule in fits}
        if len(duties) > 1:
            raise PermissionDenied(
                "the rules give you two duties, which nobody may have; ask the provider's administrator"
            )
        rule = fits[0]
        role = Role(rule.role)
        text = rule.scope or claims.get(rule.scope_claim)
        try:
            place = scope(text) if isinstance(text, str) else None
        except ConfigError:
            place = None
        if place is None or not fits_role(role, place):
            raise PermissionDenied(f"the claim '{rule.scope_claim}' holds no scope for the role {role}")
        subject = str(claims["sub"])
        if not _SUBJECT.fullmatch(subject):
            subject = f"sha256-{hashlib.sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"
        name = claims.get(self._config.name_claim)
        shown = "".join(letter for letter in name if letter.isprintable())[:32] if isinstance(name, str) else ""
        return Identity(subject, shown or subject, role, place)

    # ── speaking with the provider ────────────────────────────────────────────────────────────────────

    async def _discover(self) -> _Metadata:
        if self._metadata is None:
            url = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
            found = _decoded(await self._ask("GET", url), _Metadata, "its description")
            if found.issuer != self._config.issuer:
                raise _refused(f"the provider calls itself {found.issuer[:200]}, not {self._config.issuer}")
            for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                _demand_safe(endpoint, "oidc.issuer")
            self._metadata = found
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
        """Return the claims of an ID token once all of them hold. Raises `PermissionDenied`, `Unavailable`."""
        try:
            try:
                found = jwt.decode(token, await self._key_set(metadata), algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                found = jwt.decode(token, await self._key_set(metadata, fresh=True), algorithms=ALGORITHMS)
            claims: dict[str, Any] = found.claims
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
            raise _refused(f"the provider's ID token does not hold ({type(why).__name__})") from why
        many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", "" if many else self._config.client_id) != self._config.client_id:
            raise _refused("the provider's ID token was made for another client (azp)")
        return claims

    async def _key_set(self, metadata: _Metadata, *, fresh: bool = False) -> KeySet:
        async with self._lock:
            now = self._clock.monotonic()
            if self._keys is None or (fresh and now - self._keys_at >= KEYS_AGAIN_S):
                told = _decoded(await self._ask("GET", metadata.jwks_uri), dict[str, Any], "its keys")
                self._keys = KeySet.import_key_set({"keys": told.get("keys") or []})
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
        """Return the body of a good answer. Raises `Unavailable`, `PermissionDenied`."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.request(
                    method, url, data=form, headers=headers, allow_redirects=False, ssl=self._trust
                ) as response,
            ):
                body = await response.content.read(ANSWER_BYTES_MAX)
                if not response.content.at_eof():
                    body += await response.content.read(ANSWER_BYTES_MAX - len(body) + 1)
                if response.status == 200 and len(body) <= ANSWER_BYTES_MAX:
                    return body
                if response.status in {400, 401}:
                    raise _refused(f"the provider refused the code ({response.status})")
                raise Unavailable(f"the provider answered {response.status} at {urlsplit(url).path}")
        except (aiohttp.ClientError, TimeoutError, OSError) as why:
            raise Unavailable(f"the provider does not answer: {type(why).__name__}") from why


def _fits(rule: OidcRule, claims: Mapping[str, Any]) -> bool:
    found = claims.get(rule.claim)
    return rule.value in found if isinstance(found, list) else found == rule.value


def _decoded(body: bytes, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        raise _refused(f"the provider's answer is not {what}") from why


def _refused(what: str) -> PermissionDenied:
    return PermissionDenied(what, authenticated=False)


def _demand_safe(url: str, key: str) -> None:
    """Return if what is sent to a URL cannot be overheard. Raises `ConfigError`."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise ConfigError(f"'{url}' is no https:// address", key=key, remedy="https, or http on loopback")


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"cannot be used: {why}", file=ca_file, key="oidc.ca_file", remedy="PEM") from why
