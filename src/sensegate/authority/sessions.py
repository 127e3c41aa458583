"""Sessions of signed-in people, in the memory of the process: a restart signs everybody out.

A session token is ``ss_<id>_<secret>``, sent as a cookie (then each change also needs the session's CSRF token) or as a
bearer token.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict

from sensegate.authority import credentials
from sensegate.authority.credentials import Credentials, HashedSecret
from sensegate.clock import Clock
from sensegate.config.people import PeopleConfig

SESSIONS_MAX = 10_000
PER_PERSON_MAX = 20
"""Most sessions of a person; a further one ends the oldest."""
_TEXT = re.compile(r"ss_([0-9a-f]{16})_([A-Za-z0-9_-]{32})")


class Session:
    """The session of a signed-in person."""

    __slots__ = ("csrf", "id", "last_used", "person", "secret_hash", "started")

    def __init__(self, session_id: str, person: str, seal: HashedSecret, now: float) -> None:
        self.id = session_id
        self.person = person
        """Id of the person."""
        self.secret_hash = seal
        self.csrf = secrets.token_urlsafe(24)
        self.started = self.last_used = now

    def is_csrf_token(self, csrf: str) -> bool:
        """Return whether a text is the session's CSRF token."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogatepass"))


class Sessions:
    """The open sessions."""

    def __init__(self, config: PeopleConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, person: str) -> tuple[str, Session]:
        """Open a session; return its token and the session."""
        own = [session.id for session in self._open.values() if session.person == person]
        for old in own[: max(0, len(own) - PER_PERSON_MAX + 1)]:
            del self._open[old]
        secret = credentials.make_secret()
        session = Session(secrets.token_hex(8), person, credentials.hash_secret(secret), self._clock.monotonic())
        self._open[session.id] = session
        while len(self._open) > SESSIONS_MAX:
            self._open.popitem(last=False)
        return f"ss_{session.id}_{secret}", session

    def find(self, text: str, *, used: bool = True) -> Session | None:
        """Return the session of a token; None if there is none or it has ended.

        With `used` the idle time restarts; pass False for requests that a page makes by itself.
        """
        parts = _TEXT.fullmatch(text)
        session = self.find_id(parts[1]) if parts else None
        kept = Credentials(session.secret_hash) if session else None
        if credentials.verify(kept, parts[2] if parts else "", 0) is None or session is None:
            return None
        if used:
            session.last_used = self._clock.monotonic()
        return session

    def find_id(self, session_id: str) -> Session | None:
        """Return a session by id if it has not ended, without restarting its idle time."""
        session = self._open.get(session_id)
        if session is None:
            return None
        now = self._clock.monotonic()
        if (
            now - session.started >= self._config.session_max_s
            or now - session.last_used >= self._config.session_idle_timeout_s
        ):
            del self._open[session_id]
            return None
        return session

    def left_s(self, session: Session) -> float:
        """Return the remaining maximum life of a session."""
        return max(0.0, session.started + self._config.session_max_s - self._clock.monotonic())

    def close(self, session_id: str) -> None:
        """End a session."""
        self._open.pop(session_id, None)

    def close_all(self, person: str, *, but: str = "") -> int:
        """End the sessions of a person, except `but`; return how many."""
        ended = [key for key, session in self._open.items() if session.person == person and key != but]
        for key in ended:
            del self._open[key]
        return len(ended)
