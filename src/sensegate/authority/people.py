"""User accounts: each has one role, is created by the level above, and signs in by password or single sign-on.

An account has a permanent duty (administration, operation or audit), and its name is never reused. Passwords are stored
as argon2id hashes; wrong passwords lock a name, known or unknown, at their address for a while (`attempts.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec

from sensegate.authority import passwords
from sensegate.authority.attempts import SignInAttempts
from sensegate.authority.bucket import Bucket
from sensegate.authority.device_rules import text_fault
from sensegate.authority.oidc import Identity
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import (
    Duty,
    Principal,
    Role,
    Scope,
    administers,
    duty,
    may_hand_out,
    may_withdraw,
    scope_text,
)
from sensegate.authority.sessions import Session, Sessions
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.config.people import PeopleConfig
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied

PASSWORD_HISTORY = 5
"""Number of previous passwords that may not be reused."""
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")
_CALLER = "person:"
"""Before the id of an account in that of a caller."""
_OIDC = Principal("oidc", Role.ADMIN, Scope("44"), name="single sign-on")


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user account."""

    id: str
    """User name; with single sign-on ``oidc:SUBJECT``."""
    role: Role
    scope: Scope
    title: str = ""
    """Full name."""
    disabled: bool = False
    removed: int = 0
    """Time of removal (µs UTC); 0: not removed."""
    password_set: int = 0
    initial: bool = False
    """The password was generated and must be changed at the next sign-in."""
    created: int = 0
    created_by: str = ""
    revision: int = 0

    @property
    def external(self) -> bool:
        """Return whether the account uses single sign-on."""
        return self.id.startswith("oidc:")


class StoredPerson(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account as stored in the bucket."""

    person: Person
    password: str = ""
    """argon2id hash; empty: no sign-in by password."""
    previous_passwords: tuple[str, ...] = ()
    """Hashes of previous passwords, newest first."""
    format: int = 1


class SignInResult(msgspec.Struct, frozen=True):
    """The result of a sign-in."""

    token: str
    """Session token, returned only here."""
    session: Session
    person: Person


def _revised(stored: StoredPerson, revision: int) -> StoredPerson:
    return msgspec.structs.replace(stored, person=msgspec.structs.replace(stored.person, revision=revision))


Listed = list[Person]


class People:
    """The user accounts of this gateway."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, config: PeopleConfig) -> None:
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._config = config
        self._stored: RecordTable[StoredPerson] = RecordTable(
            self._store, "person", StoredPerson, prefix="", packed=True, revised=_revised
        )
        self._stored.on_change.append(self._changed)
        self.on_change: list[Callable[[str], None]] = []
        """Callbacks with ``person:ID`` after a change of an account is in memory, from whichever process it came."""
        self._attempts = SignInAttempts(config, clock)
        self._hashes = passwords.PasswordHashes()
        self.sessions = Sessions(config, clock)
        self._checks: set[asyncio.Task[StoredPerson | None]] = set()
        """Password checks that run, some of them for callers that are gone."""

    # ── accounts ──────────────────────────────────────────────────────────────────────────────────────

    def get(self, person_id: str, by: Principal) -> Person:
        """Return an account in the caller's scope, or the caller's own. Raises `NotFound`."""
        return self._visible_stored(person_id, by).person

    def _visible_stored(self, person_id: str, by: Principal) -> StoredPerson:
        stored = self._stored.find(person_id)
        if stored is None or stored.person.removed or not self._visible(stored.person, by):
            raise NotFound(f"there is no person '{person_id[:64]}' in your scope; see `sensegate people list`")
        return stored

    def list(self, by: Principal) -> Listed:
        """Return the accounts in the caller's scope, in order of name."""
        persons = (stored.person for stored in self._stored)
        return [person for person in persons if not person.removed and self._visible(person, by)]

    async def create(
        self, person_id: str, role: Role, scope: Scope, *, by: Principal, title: str = ""
    ) -> tuple[str, Person]:
        """Create an account; return its initial password, which is shown only here, and the account.

        Raises:
            ConfigError: name or title are invalid.
            PermissionDenied: `by` may not assign this role and scope.
            Conflict: the name is or was taken.
        """
        if not _ID.fullmatch(person_id):
            raise ConfigError(
                f"'{person_id[:64]}' is not a user name",
                key="id",
                remedy="give 2 to 64 of a-z 0-9 . _ -, starting with a letter or digit",
            )
        if fault := text_fault(title):
            raise ConfigError(f"title {fault}", key="title", remedy="shorten it or remove these characters")
        self._require_may_appoint(by, holder(role, scope))
        if self._stored.find(person_id) is not None:
            raise Conflict(f"the name '{person_id}' is or was in use; choose another one")
        password = passwords.generate_password()
        now = self._clock.now()
        person = Person(person_id, role, scope, title, False, 0, now, True, now, by.id)
        hashed = await self._hashes.hash(password)
        await self._trail.record(by, "person.create", person_id, after=facts(person))
        return password, await self._write(StoredPerson(person, hashed), expected=0)

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
        """Change an account; open sessions follow at once, those of a disabled account end.

        Raises:
            NotFound, PermissionDenied, Conflict. ConfigError: the role has another duty.
        """
        before = self._withdrawable(person_id, by)
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
            raise ConfigError(f"title {fault}", key="title", remedy="shorten it or remove these characters")
        if duty(after.role) is not duty(person.role):
            raise ConfigError(
                f"{person_id} has the duty {duty(person.role)}",
                key="role",
                remedy="a duty is permanent: assign the role to another person",
            )
        if (after.role, after.scope) != (person.role, person.scope) or (person.disabled and not after.disabled):
            self._require_may_appoint(by, holder(person.role, person.scope))
            self._require_may_appoint(by, holder(after.role, after.scope))
        await self._trail.record(by, "person.change", person_id, before=facts(person), after=facts(after))
        return await self._write(msgspec.structs.replace(before, person=after), expected=revision)

    async def reset(self, person_id: str, *, by: Principal) -> str:
        """Return a new initial password; the old one and all sessions end. Raises as `change`."""
        before = self._withdrawable(person_id, by)
        self._require_may_appoint(by, holder(before.person.role, before.person.scope))
        if before.person.external:
            raise ConfigError(f"{person_id} has no password here", remedy="change it at the single sign-on provider")
        password = passwords.generate_password()
        hashed = await self._hashes.hash(password)
        await self._trail.record(by, "person.reset", person_id)
        person = msgspec.structs.replace(before.person, initial=True, password_set=self._clock.now())
        previous = (before.password, *before.previous_passwords)[:PASSWORD_HISTORY]
        await self._write(StoredPerson(person, hashed, previous), expected=before.person.revision)
        self.sessions.close_all(person_id)
        self._attempts.forget(person_id)
        return password

    async def remove(self, person_id: str, *, by: Principal) -> None:
        """Remove an account for good, with its sessions and password; its name is not reused. Raises as `change`."""
        before = self._withdrawable(person_id, by)
        if person_id == by.id.removeprefix("person:"):
            raise PermissionDenied("you cannot remove your own account; ask the level above")
        removed = msgspec.structs.replace(before.person, removed=self._clock.now(), disabled=True)
        await self._trail.record(by, "person.remove", person_id, before=facts(before.person))
        await self._write(StoredPerson(removed), expected=before.person.revision)

    def _withdrawable(self, person_id: str, by: Principal) -> StoredPerson:
        """Return an account that the caller may disable. Raises `NotFound`, `PermissionDenied`."""
        stored = self._visible_stored(person_id, by)
        person = stored.person
        if not may_withdraw(by, holder(person.role, person.scope)):
            raise PermissionDenied(
                f"{by.role} of {scope_text(by.scope)} may not change {person.role} of {scope_text(person.scope)}: "
                "ask the level above, for an auditor another auditor"
            )
        return stored

    @staticmethod
    def _require_may_appoint(by: Principal, wanted: Principal) -> None:
        if duty(wanted.role) is None:
            raise ConfigError(
                f"{wanted.role} is not a role of people", key="role", remedy="give programs a token instead"
            )
        if not may_hand_out(by, wanted):
            raise PermissionDenied(
                f"{by.role} of {scope_text(by.scope)} may not appoint {wanted.role} of {scope_text(wanted.scope)}: "
                "nobody hands out rights that they do not have, operators appoint levels below their own, auditors "
                "appoint auditors; where nobody may, use `sensegate token break-glass` on the machine of the gateway"
            )

    @staticmethod
    def _visible(person: Person, by: Principal) -> bool:
        own = by.person and by.id == f"person:{person.id}"
        return own or administers(by, holder(person.role, person.scope))

    # ── signing in ────────────────────────────────────────────────────────────────────────────────────

    async def sign_in(
        self, person_id: str, password: str, *, new_password: str = "", address: str = ""
    ) -> SignInResult:
        """Open a session for a client at `address`; with `new_password` also change the password.

        Raises:
            PermissionDenied: name or password is wrong (not authenticated), or the password must be changed.
            Overloaded: the name, known or unknown, is locked at this address after too many wrong passwords.
            ConfigError: the new password violates the rules.
        """
        person_id = person_id[:128]
        stored = await self._authenticate(person_id, password, address)
        if stored is None:
            raise PermissionDenied("name or password is wrong", authenticated=False)
        self._attempts.succeeded(person_id, address)
        if new_password:
            stored = await self._change_password(stored, new_password)
        elif why := self._change_required(stored.person):
            raise PermissionDenied(f"{why}; sign in with new_password")
        return await self._open_session(stored.person, "password", stored.password)

    async def sign_in_external(self, identity: Identity) -> SignInResult:
        """Open a session for an authenticated person; the account is created, or updated to the current rules.

        Raises:
            PermissionDenied: the account is disabled, or the rules give it another duty than before.
        """
        person_id = f"oidc:{identity.subject}"
        stored = self._stored.find(person_id)
        now = self._clock.now()
        person = stored.person if stored else Person(person_id, identity.role, identity.scope, created=now)
        if person.disabled or person.removed:
            raise PermissionDenied("this account is disabled here; ask an administrator")
        if duty(person.role) is not duty(identity.role):
            raise PermissionDenied(f"the rules now give the duty {duty(identity.role)}, but a duty is permanent")
        updated = msgspec.structs.replace(
            person, role=identity.role, scope=identity.scope, title=identity.name, created_by="oidc"
        )
        if stored is None or updated != person:
            action = "person.change" if stored else "person.create"
            await self._trail.record(
                _OIDC, action, person_id, before=facts(person) if stored else None, after=facts(updated)
            )
            updated = await self._write(StoredPerson(updated), expected=person.revision)
        return await self._open_session(updated, "oidc")

    async def change_password(self, principal: Principal, old: str, new: str, *, address: str = "") -> None:
        """Change the caller's password; all other sessions of the person end. Raises as `sign_in`."""
        person_id = principal.id.removeprefix("person:")
        stored = self._stored.find(person_id)
        if not principal.person or stored is None or not stored.password:
            raise PermissionDenied("only people who sign in with a password can change it")
        if (stored := await self._authenticate(person_id, old, address)) is None:
            raise PermissionDenied("the old password is wrong")
        await self._change_password(stored, new)
        self.sessions.close_all(person_id, but=principal.session)

    async def sign_out(self, principal: Principal) -> None:
        """End the session of the caller."""
        # Closed first: a person who leaves is signed out even while the trail is away.
        self.sessions.close(principal.session)
        await self._trail.record(principal, "session.close", principal.id.removeprefix("person:"))

    def verify(self, text: str, *, used: bool = True) -> tuple[Principal, Session]:
        """Return principal and session of a session token; `used` as in `Sessions.find`. Raises `PermissionDenied`."""
        session = self.sessions.find(text, used=used)
        principal = self.principal(session) if session else None
        if session is None or principal is None:
            raise PermissionDenied(
                "you are not signed in, or the session has ended; sign in again", authenticated=False
            )
        return principal, session

    def principal(self, session: Session) -> Principal | None:
        """Return the current principal of a session, None if the account was disabled or removed."""
        stored = self._stored.find(session.person)
        if stored is None or stored.person.disabled or stored.person.removed:
            self.sessions.close_all(session.person)
            return None
        person = stored.person
        return Principal(
            f"person:{person.id}", person.role, person.scope, (), person.title or person.id, True, session.id
        )

    def present_rights(self, caller_id: str) -> Principal | None:
        """Return what a person (``person:ID``) may do now; None if the account was disabled or removed."""
        stored = self._stored.find(caller_id.removeprefix(_CALLER))
        if stored is None or stored.person.disabled or stored.person.removed:
            return None
        return Principal(caller_id, stored.person.role, stored.person.scope, person=True)

    def is_valid(self, principal: Principal) -> bool:
        """Return whether a verified session is still valid with the same role and scope; call it for open streams."""
        session = self.sessions.find_id(principal.session)
        return session is not None and self.principal(session) == principal

    def _change_required(self, person: Person) -> str:
        if person.initial:
            return "the initial password must be changed"
        days = self._config.password_max_age_days
        if days and self._clock.now() - person.password_set >= days * DAY_US:
            return f"the password is older than {days} days and must be changed"
        return ""

    async def _change_password(self, stored: StoredPerson, new: str) -> StoredPerson:
        passwords.require_strong(new, name=stored.person.id)
        for previous in (stored.password, *stored.previous_passwords):
            if await self._hashes.verify(previous, new):
                raise ConfigError("the new password was used before", key="password", remedy="choose another one")
        hashed = await self._hashes.hash(new)
        person = msgspec.structs.replace(stored.person, initial=False, password_set=self._clock.now())
        by = Principal(f"person:{person.id}", person.role, person.scope, person=True)
        await self._trail.record(by, "person.password", person.id)
        after = StoredPerson(person, hashed, (stored.password, *stored.previous_passwords)[: PASSWORD_HISTORY - 1])
        return await self._stored.put(person.id, after, expected=stored.person.revision)

    async def _authenticate(self, person_id: str, password: str, address: str) -> StoredPerson | None:
        """Return an account whose password is right; None if it is wrong. Raises `Overloaded`, as `sign_in`.

        A caller that goes away does not end the check: otherwise its wrong password would not be counted.
        """
        self._attempts.require_allowed(person_id, address)
        check = asyncio.create_task(self._check_password(person_id, password, address))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)
        return await asyncio.shield(check)

    async def _check_password(self, person_id: str, password: str, address: str) -> StoredPerson | None:
        tried = self._stored.find(person_id)
        correct = await self._hashes.verify(tried.password if tried else "", password[:1_024])
        # A lock that parallel attempts caused meanwhile holds, and a failure is counted before the answer.
        self._attempts.require_allowed(person_id, address)
        # The password may have been reset, or the account disabled, meanwhile.
        stored = self._stored.find(person_id)
        is_current = tried is not None and stored is not None and stored.password == tried.password
        if not correct or not is_current or stored is None or stored.person.disabled or stored.person.removed:
            await self._count_failure(person_id, address, known=stored is not None)
            return None
        return stored

    async def _open_session(self, person: Person, method: str, password_hash: str = "") -> SignInResult:
        """Open a session of a person whose password has this hash; empty: of single sign-on."""
        by = Principal(f"person:{person.id}", person.role, person.scope, name=person.title, person=True)
        await self._trail.record(by, "session.open", person.id, after={"method": method})
        stored = self._stored.find(person.id)
        if stored is None or stored.password != password_hash:
            # Sessions end with a change of the password; one that is opened after it would stay.
            raise PermissionDenied("the password was changed meanwhile; sign in again", authenticated=False)
        text, session = self.sessions.open(person.id)
        return SignInResult(text, session, person)

    async def _count_failure(self, person_id: str, address: str, *, known: bool) -> None:
        if self._attempts.failed(person_id, address):
            by = Principal("sign-in", Role.ADMIN, Scope("44"))
            # An unknown name may be a password typed into the wrong field: do not record it.
            await self._trail.record(
                by, "session.locked", person_id if known else "(unknown name)", after={"address": address}
            )

    # ── keeping up ────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the bucket; `watch` follows later changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; survives failures of the engine."""
        await self._store.run()

    def _changed(self, before: StoredPerson | None, after: StoredPerson | None) -> None:
        if (stored := after or before) is not None:
            for listener in self.on_change:
                listener(f"{_CALLER}{stored.person.id}")

    async def _write(self, stored: StoredPerson, *, expected: int) -> Person:
        return (await self._stored.put(stored.person.id, stored, expected=expected)).person


def holder(role: Role, scope: Scope) -> Principal:
    """Return what an account of a role and scope may do, for decisions on the account."""
    return Principal("", role, scope, person=True)


def facts(person: Person) -> Facts:
    """Return the fields of an account for the audit trail."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(person, revision=0))
    return kept


__all__ = ["Duty", "Listed", "People", "Person", "SignInResult", "facts"]
