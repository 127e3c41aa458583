"""The error tree: named for the cause; the message says what happens next.

    SensegateError
    ├── ConfigError            a file is wrong: file, line, key, what to do
    │   └── ProfileError       a device profile is wrong; the last good version stays in force
    │       └── ProfileWarning allowed, and probably a mistake
    ├── Rejected               a message or a value became no reading (quarantined or counted; never lost)
    ├── Refused                the caller may not do this (401, 403)
    ├── NotFound               no such thing, or not in the caller's scope (404)
    ├── Conflict               it changed under the caller's hands: read again (409, 412)
    ├── Gone                   the cursor is older than what is kept (410)
    ├── Overloaded             a limit was reached; try again later (429, 503)
    ├── Lost                   a connection or its answer was lost: the outcome is unknown
    │   └── Untrusted          the other side's certificate is not the right one; nothing was sent
    ├── Fenced                 another worker has taken over; this one stops
    ├── StoreFull              the log has no room; intake holds back until there is
    ├── Unbalanced             the ledger does not balance: a bug; the commit is not written
    └── EngineError            nats-server cannot be started or does not answer as it must

Foreign errors (nats-py, paho, aiohttp) are translated at one border: `bus/`, `collect/`, `web/`.
"""

from __future__ import annotations


class SensegateError(Exception):
    """Root of every error that sensegate raises on purpose."""


class ConfigError(SensegateError):
    """A file of the operator is wrong.

    `str()` reads ``file:line: key: what is wrong; what to do``.
    """

    def __init__(self, what: str, *, file: str = "", line: int = 0, key: str = "", remedy: str = "") -> None:
        self.what = what
        self.file = file
        self.line = line
        self.key = key
        self.remedy = remedy
        place = f"{file}:{line}" if file and line else file
        parts = [part for part in (place, key) if part]
        text = f"{what}; {remedy}" if remedy else what
        super().__init__(": ".join([*parts, text]))


class ProfileError(ConfigError):
    """A device profile is wrong; it is not put in force."""


class ProfileWarning(ProfileError):
    """Something in a device profile is allowed and probably a mistake; `note`: only something to know."""

    def __init__(
        self, what: str, *, file: str = "", line: int = 0, key: str = "", remedy: str = "", note: bool = False
    ) -> None:
        self.note = note
        super().__init__(what, file=file, line=line, key=key, remedy=remedy)


class Rejected(SensegateError):
    """A message or one of its values became no reading.

    `reason` is a word of the tables in `model`; `detail` is for people and holds no payload.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class PermissionDenied(SensegateError):
    """The caller's identity, role or scope does not allow this."""

    def __init__(self, what: str, *, authenticated: bool = True) -> None:
        self.authenticated = authenticated
        super().__init__(what)


class NotFound(SensegateError):
    """No such thing, or none within the caller's scope (the two are not told apart)."""


class Conflict(SensegateError):
    """It was changed meanwhile; read it again and repeat the change."""


class Gone(SensegateError):
    """The cursor points before the first record that is still kept; `first` is the oldest valid one."""

    def __init__(self, what: str, *, first: str = "") -> None:
        self.first = first
        super().__init__(what)


class Overloaded(SensegateError):
    """A limit was reached; nothing was taken. Try again after `retry_after_s`."""

    def __init__(self, what: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(what)


class Unavailable(SensegateError):
    """The connection or the answer was lost; the outcome is unknown and is looked up before a retry."""


class Untrusted(Unavailable):
    """The other side showed a certificate that is not trusted, or wants one of ours; nothing was sent."""


class Fenced(SensegateError):
    """Another worker has written since; this one must stop and start again from the log."""


class Superseded(SensegateError):
    """Another centre is active, or may be: this one is not any more."""


class StoreFull(SensegateError):
    """The log is full; nothing was written, nothing is acknowledged until there is room."""


class Unbalanced(SensegateError):
    """The counts of a commit do not add up; please report this bug. The commit is not written."""


class EngineError(SensegateError):
    """nats-server cannot be started, is too old, or answers otherwise than it must."""


class StreamLost(EngineError):
    """A stream that existed is missing or is another one; it is not created anew."""
