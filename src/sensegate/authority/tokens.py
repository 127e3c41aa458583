"""Access tokens of people and programs: hashed, with role, scope, expiry, and optionally a restriction to feeds.

A token is ``sg_<id>_<secret>``: the id finds the entry, the secret proves it. All tokens are in memory; a revocation by
any process takes effect when the watch brings it, within a second.

A token never outlives the rights of the person who made it, as with the personal access tokens of GitHub: it is refused
while that person's account is disabled or removed, or may no longer make such a token.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority import credentials
from sensegate.authority.bucket import Bucket
from sensegate.authority.credentials import Credentials, HashedSecret
from sensegate.authority.device_rules import text_fault
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Principal, Role, Scope, administers, may_hand_out, may_withdraw, scope_text
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable

LIFETIME_MAX_S = 400 * 86_400.0
LIFETIME_S = 90 * 86_400.0
FEEDS_MAX = 100
PRUNE_S = 3_600.0
PRUNING = Principal("clock", Role.ADMIN, Scope("44"), name="ended tokens")
"""The actor in the trail when an ended token is removed."""
_PERSON = "person:"
"""Begin of the id of a person as a caller."""
FIRST_START = "first-start"
"""Creator of the first tokens."""
FIRST_ROLES = (Role.AUDITOR, Role.ADMIN)
"""Roles of the first tokens; auditors come from auditors, so that one of them must be first."""
_NONE: Mapping[Role, str] = MappingProxyType({})
_log = structlog.get_logger("authority")
_TOKEN = re.compile(r"sg_([0-9a-f]{16})_([A-Za-z0-9_-]{32})")


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token without its secret."""

    id: str
    role: Role
    scope: Scope
    expires: int
    """End of its validity (µs UTC)."""
    feeds: tuple[str, ...] = ()
    name: str = ""
    """Display name: who or what holds it."""
    created: int = 0
    created_by: str = ""
    person: str = ""
    """Person who made it, also by way of other tokens (``person:ID``); empty: none, as for the first tokens."""
    revoked: int = 0
    """Time of its revocation (µs UTC); 0: not revoked."""
    revision: int = 0


Listed = list[Token]


PresentRights = Callable[[str], Principal | None]
"""``person:ID`` -> what that person may do now; None: the account was disabled or removed."""


def _nobody(_person: str) -> Principal | None:
    return None


class StoredToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token as the bucket holds it."""

    token: Token
    seal: HashedSecret
    format: int = 1


def _revised(stored: StoredToken, revision: int) -> StoredToken:
    return msgspec.structs.replace(stored, token=msgspec.structs.replace(stored.token, revision=revision))


class Tokens:
    """All tokens of this gateway."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, *, present_rights: PresentRights = _nobody) -> None:
        """`present_rights`: of the people who make tokens."""
        self._present_rights = present_rights
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._stored: RecordTable[StoredToken] = RecordTable(
            self._store, "token", StoredToken, prefix="", packed=True, revised=_revised
        )
        self._stored.on_change.append(self._changed)
        self.version = 0
        """Counter of changes: when it rises, open streams check `is_valid` again."""
        self.on_change: list[Callable[[Token], None]] = []
        """Callbacks after a change is in memory, from whichever process it came."""

    def __len__(self) -> int:
        return len(self._stored)

    def verify(self, text: str) -> Principal:
        """Return the principal that a token proves.

        Raises:
            PermissionDenied: not authenticated: unknown, wrong, revoked, expired or without a maker who may make it
                (said only to who has the right secret).
        """
        parts = _TOKEN.fullmatch(text)
        stored = self._stored.find(parts[1]) if parts else None
        kept = Credentials(stored.seal) if stored else None
        if credentials.verify(kept, parts[2] if parts else "", 0) is None or stored is None:
            raise PermissionDenied("no such token; send `Authorization: Bearer TOKEN`", authenticated=False)
        token = stored.token
        if token.revoked:
            raise PermissionDenied(f"token {token.id} was revoked; ask for a new one", authenticated=False)
        if self._clock.now() >= token.expires:
            raise PermissionDenied(f"token {token.id} has expired; ask for a new one", authenticated=False)
        if reason := self.suspension(token):
            raise PermissionDenied(f"token {token.id}: {reason}; ask for a new one", authenticated=False)
        return principal_of(token)

    def suspension(self, token: Token) -> str:
        """Return the reason for refusing a token after a change of its maker; empty: it is valid."""
        if not token.person:
            return ""
        maker = self._present_rights(token.person)
        if maker is None:
            return "the account of the person who made it has ended"
        return "" if may_hand_out(maker, principal_of(token)) else "the person who made it may no longer make it"

    def person_changed(self, person: str) -> None:
        """Check open streams and connections of the tokens that a person made again."""
        self.version += 1
        for stored in self._stored.all():
            if stored.token.person == person:
                for listener in self.on_change:
                    listener(stored.token)

    def _is_in_force(self, stored: StoredToken | None) -> bool:
        return (
            stored is not None
            and not stored.token.revoked
            and self._clock.now() < stored.token.expires
            and not self.suspension(stored.token)
        )

    def is_valid(self, principal: Principal) -> bool:
        """Return whether a verified token is still valid; call it for open streams at least every second."""
        return self._is_in_force(self._stored.find(principal.id))

    def principal(self, token_id: str) -> Principal:
        """Return the principal of a token by id, for objects that were created with it and outlive the request.

        Raises:
            PermissionDenied: there is no such token, or it is no longer in force.
        """
        stored = self._stored.find(token_id)
        if stored is None or not self._is_in_force(stored):
            raise PermissionDenied("the token has ended", authenticated=False)
        return principal_of(stored.token)

    def person_behind(self, caller_id: str) -> str:
        """Return the person who made a token, also by way of other tokens; the id itself if there is none known.

        For decisions that need two people: a token of one's own is nobody else.
        """
        if caller_id.startswith(_PERSON) or (stored := self._stored.find(caller_id)) is None:
            return caller_id
        return stored.token.person or caller_id

    def get(self, token_id: str, by: Principal) -> Token:
        """Return a token. Raises `NotFound` if there is none in the caller's scope."""
        stored = self._stored.find(token_id)
        if stored is None or not self._visible(stored.token, by):
            raise NotFound(f"no token {token_id[:32]} in your scope; see `sensegate token list`")
        return stored.token

    def list(self, by: Principal, *, after: str = "", limit: int = 1_000) -> Listed:
        """Return the tokens whose scope lies in the caller's, in order of id, after a given id."""
        tokens = (stored.token for stored in self._stored if stored.token.id > after)
        return [token for token in tokens if self._visible(token, by)][:limit]

    async def create(
        self,
        role: Role,
        scope: Scope,
        *,
        by: Principal,
        lifetime_s: float = LIFETIME_S,
        feeds: tuple[str, ...] = (),
        name: str = "",
        text: str = "",
    ) -> tuple[str, Token]:
        """Create a token; return its text, which is shown only here, and the token.

        `text` is a token text from `make_text` to use instead of a new one.

        Raises:
            ConfigError: lifetime, feeds, name or text are invalid.
            PermissionDenied: `by` may not grant this role and scope.
        """
        if not 0 < lifetime_s <= LIFETIME_MAX_S:
            raise ConfigError("the lifetime is out of range", key="expires", remedy="give more than 0, up to 400 days")
        if len(feeds) > FEEDS_MAX:
            raise ConfigError(
                f"{len(feeds)} feeds are too many", key="feeds", remedy=f"give at most {FEEDS_MAX}, or none for all"
            )
        if role is Role.DEVICE:
            raise ConfigError("devices have credentials, not tokens", key="role", remedy="use `sensegate device add`")
        if fault := text_fault(name):
            raise ConfigError(f"name {fault}", key="name", remedy="shorten it or remove these characters")
        if not may_hand_out(by, Principal("", role, scope, feeds)):
            raise PermissionDenied(
                f"{by.role} of {scope_text(by.scope)} may not make a token of {role} of {scope_text(scope)}: "
                "a token has no right, scope or feed that its maker does not have"
            )
        parts = _TOKEN.fullmatch(text or make_text())
        if parts is None:
            raise ConfigError("the text is not a token", key="text", remedy="create it with authority.tokens.make_text")
        now = self._clock.now()
        token = Token(
            id=parts[1],
            role=role,
            scope=scope,
            expires=now + round(lifetime_s * 1e6),
            feeds=feeds,
            name=name,
            created=now,
            created_by=by.id,
            person=maker if (maker := self.person_behind(by.id)).startswith(_PERSON) else "",
        )
        await self._trail.record(by, "token.create", token.id, after=facts(token))
        stored = StoredToken(token, credentials.hash_secret(parts[2]))
        return parts[0], (await self._stored.put(token.id, stored, expected=0)).token

    async def revoke(self, token_id: str, *, by: Principal) -> Token:
        """Refuse a token from now on, on every open stream too.

        Raises:
            NotFound, PermissionDenied: as `get`; who may not hand it out may not revoke it, but everyone his own.
            Conflict: it was changed meanwhile.
        """
        if token_id != by.id:
            token = self.get(token_id, by)
            if not may_withdraw(by, principal_of(token)):
                raise PermissionDenied(f"{by.role} may not revoke a token of {token.role}")
        stored = self._stored.find(token_id)
        if stored is None:
            raise NotFound(f"no token {token_id[:32]}")
        if stored.token.revoked:
            return stored.token
        after = msgspec.structs.replace(stored.token, revoked=self._clock.now())
        await self._trail.record(by, "token.revoke", token_id)
        fresh = StoredToken(after, stored.seal)
        return (await self._stored.put(token_id, fresh, expected=stored.token.revision)).token

    async def bootstrap(self, scope: Scope, *, given: Mapping[Role, str] = _NONE) -> dict[Role, str]:
        """Return the texts of the first tokens, one of an auditor and one of an administrator, by role.

        They are made where there are no tokens but those of an interrupted first start: there is no default credential.
        `given`: role -> text to use instead of a new one.
        """
        if any(stored.token.created_by != FIRST_START for stored in self._stored):
            return {}
        made = {}
        present = {stored.token.role for stored in self._stored}
        for role in (role for role in FIRST_ROLES if role not in present):
            first = Principal(FIRST_START, role, scope)
            with contextlib.suppress(Conflict):  # another process was faster
                text, _ = await self.create(
                    role, scope, by=first, lifetime_s=LIFETIME_MAX_S, name=f"first {role}", text=given.get(role, "")
                )
                made[role] = text
        return made

    async def enter(self, token: Token, seal: HashedSecret, *, by: Principal, facts: Facts) -> Token:
        """Enter a token that was made on the machine of the gateway; `facts`: what the trail records of it.

        Raises:
            Conflict: there is a token with this id.
            StoreFull, Unavailable: as `Trail.record`.
        """
        await self._trail.record(by, "token.break_glass", token.id, after=facts)
        return (await self._stored.put(token.id, StoredToken(token, seal), expected=0)).token

    async def prune(self, retention_days: float) -> int:
        """Remove tokens that ended longer ago than the retention; return how many. Raises `Unavailable`.

        Those of the first start stay: without them `bootstrap` would create them anew.
        """
        before = self._clock.now() - round(retention_days * 86_400e6)
        tokens = [stored.token for stored in self._stored.all() if stored.token.created_by != FIRST_START]
        count = 0
        for token in tokens:
            ended = min(token.revoked or token.expires, token.expires)
            if ended > before:
                continue
            await self._trail.record(PRUNING, "token.prune", token.id, before=facts(token))
            try:
                await self._stored.delete(token.id, expected=token.revision)
            except Conflict:
                continue  # another process was faster
            metrics.EXPIRED.labels("token").inc()
            count += 1
        return count

    async def sweep(self, retention_days: float) -> None:
        """Prune every hour until cancelled; with a retention of 0, never."""
        while True:
            try:
                if retention_days:
                    await self.prune(retention_days)
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("ended tokens not removed; retrying in an hour", reason=str(why))
            await self._clock.sleep(PRUNE_S)

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the bucket; `watch` follows later changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; survives failures of the engine."""
        await self._store.run()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the tokens holds; it is checked after every change."""
        await self._stored.until(condition)

    def _changed(self, before: StoredToken | None, after: StoredToken | None) -> None:
        self.version += 1
        if (stored := after or before) is not None:
            for listener in self.on_change:
                listener(stored.token)

    @staticmethod
    def _visible(token: Token, by: Principal) -> bool:
        return token.id == by.id or administers(by, principal_of(token))


def make_text() -> str:
    """Return the text of a new token: public id and secret."""
    return f"sg_{secrets.token_hex(8)}_{credentials.make_secret()}"


def principal_of(token: Token) -> Principal:
    """Return the principal of a token."""
    return Principal(token.id, token.role, token.scope, token.feeds, token.name)


def facts(token: Token) -> Facts:
    """Return the fields of a token for the audit trail."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(token, revision=0))
    return kept
