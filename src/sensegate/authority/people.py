"""People: accounts with one role, made by the level above, who sign in with a password or by a provider of identities.

A person has one duty for good (administers, operates, or audits), and one name for good: who left is not replaced by
another of the same name. Passwords are kept as argon2id; wrong ones lock the name, known or not, for a while.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import msgspec

from sensegate.authority import passwords
from sensegate.authority.bucket import Bucket
from sensegate.authority.device_rules import text_fault
from sensegate.authority.oidc import Identity
from sensegate.authority.scope import (
    Action,
    Duty,
    Principal,
    Role,
    Scope,
    allows,
    duty,
    may_appoint,
    written,
)
from sensegate.authority.sessions import Session, Sessions
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.config.people import PeopleConfig
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied

KEPT_PASSWORDS = 5
"""So many earlier passwords may not come again."""
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")
_NAMES_MAX = 10_000
_OIDC = Principal("oidc", Role.ADMIN, Scope("44"), name="the provider of identities")


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account."""

    id: str
    """By which one signs in; those of a provider of identities: ``oidc:SUBJECT``."""
    role: Role
    scope: Scope
    title: str = ""
    """Full name, for people."""
    disabled: bool = False
    removed: int = 0
    """When the person left (µs UTC); 0: did not."""
    password_set: int = 0
    initial: bool = False
    """The password was made by another: it must be changed at the next sign-in."""
    created: int = 0
    created_by: str = ""
    revision: int = 0

    @property
    def external(self) -> bool:
        """Whether a provider of identities vouches for this person."""
        return self.id.startswith("oidc:")


class StoredPerson(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as the bucket holds it."""

    person: Person
    password: str = ""
    """argon2id; empty: cannot sign in with one."""
    before: tuple[str, ...] = ()
    """Earlier passwords, the newest first."""
    format: int = 1


class SignedIn(msgspec.Struct, frozen=True):
    """What came of signing in."""

    text: str
    """By which the session is told; given this once."""
    session: Session
    person: Person


def _revised(stored: StoredPerson, revision: int) -> StoredPerson:
    return msgspec.structs.replace(stored, person=msgspec.structs.replace(stored.person, revision=revision))


Listed = list[Person]


class People:
    """All accounts of this gateway."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, config: PeopleConfig) -> None:
        self._shelf = Shelf(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._config = config
        self._stored: Records[StoredPerson] = Records(
            self._shelf, "person", StoredPerson, prefix="", packed=True, revised=_revised
        )
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._hashes = passwords.Hashes()
        self.sessions = Sessions(config, clock)

    # ── accounts ──────────────────────────────────────────────────────────────────────────────────────

    def get(self, person_id: str, by: Principal) -> Person:
        """Return an account in the caller's scope, or its own. Raises `NotFound`."""
        return self._seen(person_id, by).person

    def _seen(self, person_id: str, by: Principal) -> StoredPerson:
        stored = self._stored.find(person_id)
        if stored is None or stored.person.removed or not self._visible(stored.person, by):
            raise NotFound(f"no person '{person_id[:64]}' in your scope; see `sensegate people list`")
        return stored

    def list(self, by: Principal) -> Listed:
        """Return the accounts in the caller's scope, in order of name."""
        all_there = (stored.person for stored in self._stored)
        return [person for person in all_there if not person.removed and self._visible(person, by)]

    async def create(
        self, person_id: str, role: Role, scope: Scope, *, by: Principal, title: str = ""
    ) -> tuple[str, Person]:
        """Make an account; return its first password, which is shown only here, and the account.

        Raises:
            ConfigError: name or title are not what they may be.
            PermissionDenied: `by` may not give this role and scope.
            Conflict: the name is or was taken.
        """
        if not _ID.fullmatch(person_id):
            raise ConfigError(
                f"'{person_id[:64]}' is no name", key="id", remedy="2 to 64 of a-z 0-9 . _ -, a letter or digit first"
            )
        if fault := text_fault(title):
            raise ConfigError(f"title {fault}", key="title", remedy="shorten it or remove them")
        self._demand(by, role, scope)
        if self._stored.find(person_id) is not None:
            raise Conflict(f"the name '{person_id}' is or was taken; choose another one")
        password = passwords.made()
        now = self._clock.now()
        person = Person(person_id, role, scope, title, False, 0, now, True, now, by.id)
        kept = await self._hashes.of(password)
        await self._trail.record(by, "person.create", person_id, after=facts(person))
        return password, await self._write(StoredPerson(person, kept), expected=0)

    async def change(
        self,
        person_id: str,
        *,
        by: Principal,
        revision: int,
        role: Role | None = None,
        scope: Scope | None = None,
        title: str | None = None,
        disabled: bool | None = None,
    ) -> Person:
        """Change an account; open sessions have it at once, those of a disabled one end.

        Raises:
            NotFound, PermissionDenied, Conflict; ConfigError: another duty.
        """
        before = self._of(person_id, by)
        person = before.person
        if person.revision != revision:
            raise Conflict(f"{person_id} was changed meanwhile; read it again")
        after = msgspec.structs.replace(
            person,
            role=person.role if role is None else role,
            scope=person.scope if scope is None else scope,
            title=person.title if title is None else title,
            disabled=person.disabled if disabled is None else disabled,
            revision=0,
        )
        if fault := text_fault(after.title):
            raise ConfigError(f"title {fault}", key="title", remedy="shorten it or remove them")
        if duty(after.role) is not duty(person.role):
            raise ConfigError(
                f"{person_id} has the duty {duty(person.role)}",
                key="role",
                remedy="nobody has two, also not one after the other: give somebody else the role",
            )
        self._demand(by, after.role, after.scope)
        await self._trail.record(by, "person.change", person_id, before=facts(person), after=facts(after))
        return await self._write(msgspec.structs.replace(before, person=after), expected=revision)

    async def reset(self, person_id: str, *, by: Principal) -> str:
        """Return a new first password; the old one and all sessions end. Raises as `change`."""
        before = self._of(person_id, by)
        if before.person.external:
            raise ConfigError(f"{person_id} has no password here", remedy="it is with the provider of identities")
        password = passwords.made()
        kept = await self._hashes.of(password)
        await self._trail.record(by, "person.reset", person_id)
        person = msgspec.structs.replace(before.person, initial=True, password_set=self._clock.now())
        earlier = (before.password, *before.before)[:KEPT_PASSWORDS]
        await self._write(StoredPerson(person, kept, earlier), expected=before.person.revision)
        self.sessions.close_all(person_id)
        self._wrong.pop(person_id, None)
        return password

    async def remove(self, person_id: str, *, by: Principal) -> None:
        """End an account for good: its sessions, its password; its name stays taken. Raises as `change`."""
        before = self._of(person_id, by)
        if person_id == by.id.removeprefix("person:"):
            raise PermissionDenied("nobody ends the own account; ask the level above")
        gone = msgspec.structs.replace(before.person, removed=self._clock.now(), disabled=True)
        await self._trail.record(by, "person.remove", person_id, before=facts(before.person))
        await self._write(StoredPerson(gone), expected=before.person.revision)

    def _of(self, person_id: str, by: Principal) -> StoredPerson:
        """Return an account that the caller may change. Raises `NotFound`, `PermissionDenied`."""
        stored = self._seen(person_id, by)
        self._demand(by, stored.person.role, stored.person.scope)
        return stored

    @staticmethod
    def _demand(by: Principal, role: Role, scope: Scope) -> None:
        if duty(role) is None:
            raise ConfigError(f"{role} is no role of people", key="role", remedy="programs have tokens")
        if not may_appoint(by, role, scope):
            raise PermissionDenied(
                f"{by.role} of {written(by.scope)} may not appoint {role} of {written(scope)}: "
                "each level appoints operators of those below, an administrator all"
            )

    @staticmethod
    def _visible(person: Person, by: Principal) -> bool:
        own = by.person and by.id == f"person:{person.id}"
        return own or allows(by, Action.CHANGE_PEOPLE, person.scope.division, person.scope.department)

    # ── signing in ────────────────────────────────────────────────────────────────────────────────────

    async def sign_in(self, person_id: str, password: str, *, new_password: str = "") -> SignedIn:
        """Open a session; with `new_password` change the password on the way.

        Raises:
            PermissionDenied: wrong (not authenticated; which of the two is not told), or the password must be changed.
            Overloaded: locked after too many wrong ones; known and unknown names alike.
            ConfigError: the new password is not good enough.
        """
        person_id = person_id[:128]
        self._demand_unlocked(person_id)
        stored = self._stored.find(person_id)
        good = await self._hashes.fit(stored.password if stored else "", password[:1_024])
        # What was wrong is counted before anything is told; a lock that others caused meanwhile holds.
        self._demand_unlocked(person_id)
        if not good or stored is None or stored.person.disabled or stored.person.removed:
            await self._failed(person_id, known=stored is not None)
            raise PermissionDenied("name or password is wrong", authenticated=False)
        self._wrong.pop(person_id, None)
        if new_password:
            stored = await self._change_password(stored, new_password)
        elif why := self._due(stored.person):
            raise PermissionDenied(f"{why}; sign in with new_password beside it")
        return await self._opened(stored.person, "password")

    async def sign_in_external(self, identity: Identity) -> SignedIn:
        """Open a session for whom a provider vouches; the account is made or follows what its rules say today.

        Raises:
            PermissionDenied: the account is disabled here, or the rules give it another duty than before.
        """
        person_id = f"oidc:{identity.subject}"
        stored = self._stored.find(person_id)
        now = self._clock.now()
        person = stored.person if stored else Person(person_id, identity.role, identity.scope, created=now)
        if person.disabled or person.removed:
            raise PermissionDenied("this account is disabled here; ask an administrator")
        if duty(person.role) is not duty(identity.role):
            raise PermissionDenied(f"the provider's rules now give the duty {duty(identity.role)}; nobody has two")
        wanted = msgspec.structs.replace(
            person, role=identity.role, scope=identity.scope, title=identity.name, created_by="oidc"
        )
        if stored is None or wanted != person:
            action = "person.change" if stored else "person.create"
            await self._trail.record(
                _OIDC, action, person_id, before=facts(person) if stored else None, after=facts(wanted)
            )
            wanted = await self._write(StoredPerson(wanted), expected=person.revision)
        return await self._opened(wanted, "oidc")

    async def change_password(self, principal: Principal, old: str, new: str) -> None:
        """Change the own password; all other sessions of the person end. Raises as `sign_in`."""
        person_id = principal.id.removeprefix("person:")
        stored = self._stored.find(person_id)
        if not principal.person or stored is None or not stored.password:
            raise PermissionDenied("only people who sign in with a password have one")
        self._demand_unlocked(person_id)
        if not await self._hashes.fit(stored.password, old[:1_024]):
            await self._failed(person_id, known=True)
            raise PermissionDenied("the old password is wrong")
        await self._change_password(stored, new)
        self.sessions.close_all(person_id, but=principal.session)

    async def sign_out(self, principal: Principal) -> None:
        """End the session of the caller."""
        self.sessions.close(principal.session)
        await self._trail.record(principal, "session.close", principal.id.removeprefix("person:"))

    def verify(self, text: str, *, used: bool = True) -> tuple[Principal, Session]:
        """Return whom a session's text proves; `used` as of `Sessions.find`. Raises `PermissionDenied`."""
        session = self.sessions.find(text, used=used)
        principal = self.principal(session) if session else None
        if session is None or principal is None:
            raise PermissionDenied("not signed in, or the session has ended; sign in again", authenticated=False)
        return principal, session

    def principal(self, session: Session) -> Principal | None:
        """Return whom a session stands for as of now, None if the account has ended."""
        stored = self._stored.find(session.person)
        if stored is None or stored.person.disabled or stored.person.removed:
            self.sessions.close_all(session.person)
            return None
        person = stored.person
        return Principal(
            f"person:{person.id}", person.role, person.scope, (), person.title or person.id, True, session.id
        )

    def good(self, principal: Principal) -> bool:
        """Return whether a session proved before still holds, with the same role and scope; ask it of open streams."""
        session = self.sessions.live(principal.session)
        return session is not None and self.principal(session) == principal

    def _due(self, person: Person) -> str:
        if person.initial:
            return "the first password must be changed"
        days = self._config.password_days
        if days and self._clock.now() - person.password_set >= days * DAY_US:
            return f"the password is older than {days} days and must be changed"
        return ""

    async def _change_password(self, stored: StoredPerson, new: str) -> StoredPerson:
        passwords.demand_good(new, name=stored.person.id)
        for earlier in (stored.password, *stored.before):
            if await self._hashes.fit(earlier, new):
                raise ConfigError("the new password was used before", key="password", remedy="choose another one")
        kept = await self._hashes.of(new)
        person = msgspec.structs.replace(stored.person, initial=False, password_set=self._clock.now())
        by = Principal(f"person:{person.id}", person.role, person.scope, person=True)
        await self._trail.record(by, "person.password", person.id)
        after = StoredPerson(person, kept, (stored.password, *stored.before)[: KEPT_PASSWORDS - 1])
        return await self._stored.put(person.id, after, expected=stored.person.revision)

    async def _opened(self, person: Person, way: str) -> SignedIn:
        by = Principal(f"person:{person.id}", person.role, person.scope, name=person.title, person=True)
        await self._trail.record(by, "session.open", person.id, after={"way": way})
        text, session = self.sessions.open(person.id)
        return SignedIn(text, session, person)

    def _demand_unlocked(self, person_id: str) -> None:
        until, count = self._wrong.get(person_id, (0.0, 0))
        left = until - self._clock.monotonic()
        if count >= self._config.failures_max and left > 0:
            raise Overloaded("too many wrong passwords for this name; wait", retry_after_s=left)

    async def _failed(self, person_id: str, *, known: bool) -> None:
        now = self._clock.monotonic()
        until, count = self._wrong.pop(person_id, (0.0, 0))
        count = count + 1 if until > now else 1
        self._wrong[person_id] = (now + self._config.lock_s, count)
        while len(self._wrong) > _NAMES_MAX:
            self._wrong.popitem(last=False)
        if count == self._config.failures_max:
            by = Principal("sign-in", Role.ADMIN, Scope("44"))
            # An unknown name may be a password that was typed in the wrong field.
            await self._trail.record(by, "session.locked", person_id if known else "(unknown name)")

    # ── keeping up ────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        await self._shelf.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; through losses of the engine."""
        await self._shelf.run()

    async def _write(self, stored: StoredPerson, *, expected: int) -> Person:
        return (await self._stored.put(stored.person.id, stored, expected=expected)).person


def facts(person: Person) -> Facts:
    """Return what the audit trail keeps of an account."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(person, revision=0))
    return kept


__all__ = ["Duty", "Listed", "People", "Person", "SignedIn", "facts"]
