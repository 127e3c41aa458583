"""The error tree: each class is named for its cause, and its message says what happens next.

    SensegateError
    ├── ConfigError                a file of the operator is wrong: file, line, key, what to do
    │   ├── ProfileError           a device profile is wrong; the last good version stays in force
    │   │   └── ProfileWarning     allowed, and probably a mistake
    │   └── UnitError              a unit is unknown, or cannot be converted (`quantities.units`)
    ├── Rejected                   a message or a value became no reading (quarantined or counted)
    ├── PermissionDenied           the caller may not do this, or the other side refuses it (401, 403)
    ├── NotFound                   the object does not exist, or is not in the caller's scope (404)
    ├── Conflict                   the object changed meanwhile: read it again (409, 412)
    ├── Gone                       the log no longer holds what the cursor names (410)
    ├── TooMuch                    a query would read more than it may; ask for less (413)
    ├── Overloaded                 a limit was reached; try again later (429, 503)
    ├── Unavailable                no connection or no answer: the outcome may be unknown (503)
    │   └── Untrusted              the peer's certificate is not the expected one; nothing was sent
    ├── Fenced                     another worker has taken over; this one stops
    ├── Superseded                 another centre is active, or may be; this one stops being active
    ├── StoreFull                  the log has no room; intake holds back until there is
    ├── Unbalanced                 the ledger does not balance: a bug; the commit is not written
    ├── EngineError                nats-server cannot be started or does not answer as it must
    │   └── StreamLost             a stream that existed is missing or is another one
    ├── BadRequest                 an HTTP request cannot be understood (`web.problems`)
    ├── BadCursor                  a cursor that this gateway did not issue (`share.cursor`)
    ├── MqttViolation              a client breaks the MQTT standard; its connection is closed (`collect.front.packets`)
    ├── BadQuery                   a PromQL query cannot be parsed or is not of the subset (`history.promql`)
    └── ProblemResponse            an HTTP answer that is a problem document (`web.client`)

`Unavailable` covers both a missing connection (nothing was sent) and a lost answer (the operation may have taken
effect), as UNAVAILABLE does in gRPC. Callers treat both alike: look the outcome up, then retry under the same id.

Errors of libraries (nats-py, paho, aiohttp) are translated where they enter: `bus/`, `collect/`, `web/`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class SensegateError(Exception):
    """The base of every error that sensegate raises on purpose."""


class ConfigError(SensegateError):
    """A file of the operator is wrong.

    `str()` reads ``file:line: key: what is wrong; what to do``.
    """

    def __init__(self, problem: str, *, file: str = "", line: int = 0, key: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.file = file
        self.line = line
        self.key = key
        self.remedy = remedy
        location = f"{file}:{line}" if file and line else file
        parts = [part for part in (location, key) if part]
        text = f"{problem}; {remedy}" if remedy else problem
        super().__init__(": ".join([*parts, text]))


class ProfileError(ConfigError):
    """A device profile is wrong; it does not take effect, and the last good version stays in force."""


class ProfileWarning(ProfileError):
    """A device profile holds something that is allowed but probably a mistake; with `note`, only a remark."""

    def __init__(
        self, problem: str, *, file: str = "", line: int = 0, key: str = "", remedy: str = "", note: bool = False
    ) -> None:
        self.note = note
        super().__init__(problem, file=file, line=line, key=key, remedy=remedy)


class Rejected(SensegateError):
    """A message or one of its values became no reading.

    `reason` is a word of `QuarantineReason` or `RejectReason`; `detail` is for people and holds no payload.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class PermissionDenied(SensegateError):
    """The caller's identity, role or scope does not allow the request, or the other side refuses it.

    `authenticated` is False where no valid credential was presented (401), True where it does not suffice (403).
    """

    def __init__(self, message: str, *, authenticated: bool = True) -> None:
        self.authenticated = authenticated
        super().__init__(message)


class NotFound(SensegateError):
    """The object does not exist, or lies outside the caller's scope; the message does not say which."""


class Conflict(SensegateError):
    """The object was changed meanwhile; read it again and repeat the change."""


class Gone(SensegateError):
    """The log no longer holds the record before the cursor, or the record after it; read on from `first`."""

    def __init__(self, message: str, *, first: str = "") -> None:
        self.first = first
        super().__init__(message)


class TooMuch(SensegateError):
    """A query would read more than is allowed; it has to be narrowed (413)."""


class Overloaded(SensegateError):
    """A limit was reached and nothing was accepted; try again after `retry_after_s`.

    `shared`: the limit is one of all callers together (503), not the caller's own (429).
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0, shared: bool = False) -> None:
        self.retry_after_s = retry_after_s
        self.shared = shared
        super().__init__(message)


class Unavailable(SensegateError):
    """The other side cannot be reached or did not answer; the outcome may be unknown: look it up before a retry."""


class Untrusted(Unavailable):
    """The peer showed an untrusted certificate, or requires a client certificate; nothing was sent."""


class Fenced(SensegateError):
    """Another worker has written since; this worker must stop and start again from the log."""


class Superseded(SensegateError):
    """Another centre is active, or may be; this centre stops being active."""


class StoreFull(SensegateError):
    """The log is full; nothing was written, and nothing is acknowledged until there is room."""


class Unbalanced(SensegateError):
    """The counts of a commit do not add up; please report this bug. The commit is not written."""


class EngineError(SensegateError):
    """nats-server cannot be started, is too old, or breaks the protocol."""


class StreamLost(EngineError):
    """A stream that existed is missing, was replaced by another, or lost its end; it is not created again."""


def errors_of(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, nested groups included, the most consequential first; of a single error itself.

    First come bugs (anything but `SensegateError`), then `Superseded` and `Fenced`, then the others in their order.
    """
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    errors = [inner for member in error.exceptions for inner in errors_of(member)]
    return sorted(errors, key=lambda inner: (isinstance(inner, SensegateError), not isinstance(inner, _FENCING)))


class CancellableTaskGroup(asyncio.TaskGroup):
    """A task group that an outer cancellation always ends.

    Before Python 3.13 a cancellation that comes together with the error of a task is lost: the group raises the error
    alone, and a caller that tries again goes on for ever, while whoever cancelled it waits.
    """

    _parent_cancel_requested: bool
    """True if the group has cancelled the task that waits for it; an attribute of the base class."""

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        self._cancelling_before = task.cancelling() if task else 0
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_requested = self._parent_cancel_requested
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as errors:
            task = asyncio.current_task()
            if task is None or sys.version_info >= (3, 13):
                raise
            if self._parent_cancel_requested and not was_requested:
                task.uncancel()  # the group's own request, which it counts and does not take back
            if task.cancelling() > self._cancelling_before:
                raise asyncio.CancelledError from errors
            raise


def combined(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to raise for all errors of tasks that ran in parallel.

    It is the most consequential one, and names the others in its notes: `Superseded` and `Fenced` come before what can
    be tried again. A group that holds a bug stays as it is.
    """
    first, *others = errors_of(errors)
    if not isinstance(first, SensegateError):
        return errors
    for other in others:
        first.add_note(f"at the same time: {type(other).__name__}: {other}")
    return first


_FENCING = (Superseded, Fenced)
