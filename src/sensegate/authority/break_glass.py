"""Break-glass orders: a token created on the gateway's machine when nobody with the role is left.

`sensegate token break-glass` puts an order into the directory of the gateway, which only the gateway's user and root
can write. The order holds the hash of the token's secret, never the secret. The gateway takes it within about a second,
or at its next start, and records on the audit trail who gave it and why before the token is valid.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sensegate.authority import credentials
from sensegate.authority.credentials import HashedSecret
from sensegate.authority.device_rules import text_fault
from sensegate.authority.scope import Principal, Role, Scope, fits_role, scope_text
from sensegate.authority.tokens import Token, Tokens, facts, make_text
from sensegate.bus.files import write_private
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, Overloaded, StoreFull, Unavailable

FILE: Final = "break-glass.json"
ROLES: Final = (Role.AUDITOR, Role.ADMIN, Role.PROVINCE_OPERATOR, Role.CITY_OPERATOR)
"""Roles of break-glass tokens: those that nobody of another role can make."""
LIFETIME_S: Final = 3_600.0
LIFETIME_MAX_S: Final = 86_400.0
POLL_S: Final = 1.0
_BYTES_MAX = 8_192
_log = structlog.get_logger("authority")


class BreakGlassOrder(msgspec.Struct, frozen=True):
    """An order to the gateway to enter a token."""

    token: Token
    seal: HashedSecret
    by: str
    """User of the system who gave it."""
    reason: str


def give_order(
    directory: Path, role: Role, scope: Scope, *, by: str, reason: str, now: int, lifetime_s: float = LIFETIME_S
) -> tuple[str, Token]:
    """Write an order into the directory of a gateway; return the text of the token and the token.

    Raises:
        ConfigError: the role, the reason or the lifetime is not allowed, or the directory cannot be written.
    """
    text = make_text()
    _, token_id, secret = text.split("_", 2)
    expires = now + round(lifetime_s * 1e6)
    token = Token(token_id, role, scope, expires, name="break-glass", created=now, created_by=f"local:{by}")
    order = BreakGlassOrder(token, credentials.hash_secret(secret), by, reason)
    if fault := order_fault(order, now):
        raise ConfigError(fault, key="break-glass", remedy="see sensegate token break-glass --help")
    file = directory / FILE
    if file.exists():
        raise ConfigError(
            "an earlier order was not taken yet", file=str(file), remedy="start the gateway, or remove the file"
        )
    try:
        owner = directory.stat()
        write_private(file, msgspec.json.encode(order))
        if os.geteuid() == 0:  # the gateway, which is not root, must be able to read it
            os.chown(file, owner.st_uid, owner.st_gid)
    except OSError as why:
        remedy = "run the command as the user of the gateway, or as root"
        raise ConfigError(f"the order cannot be written: {why.strerror}", file=str(file), remedy=remedy) from why
    return text, token


def order_fault(order: BreakGlassOrder, now: int) -> str:
    """Return why an order is not executed; empty: it is."""
    token = order.token
    if token.role not in ROLES:
        return f"role: {token.role} is not a role of break-glass tokens; give {', '.join(ROLES)}"
    if not fits_role(token.role, token.scope):
        return f"role: {token.role} never has {scope_text(token.scope)}; give a higher one"
    if not order.reason.strip():
        return "reason: is empty; say why, for the audit trail"
    if fault := text_fault(order.reason):
        return f"reason {fault}"
    # Judged when the order is given and again when it is executed: an edited order does not live longer.
    is_bounded = now < token.expires <= now + round(LIFETIME_MAX_S * 1e6)
    return "" if is_bounded else "expires: is not within the next 24 hours"


class BreakGlass:
    """The gateway's side: takes orders from its directory."""

    def __init__(self, directory: Path, tokens: Tokens, clock: Clock) -> None:
        self._file = directory / FILE
        self._tokens = tokens
        self._clock = clock

    async def run(self) -> None:
        """Look for an order every second until cancelled."""
        while True:
            try:
                await self.take()
            except (Unavailable, StoreFull, Overloaded, OSError) as why:
                _log.warning("break-glass order not executed; retrying", reason=str(why))
            await self._clock.sleep(POLL_S)

    async def take(self) -> Token | None:
        """Execute the order in the directory, if there is one, and remove it; return its token.

        Raises:
            Unavailable, StoreFull, Overloaded: the trail cannot be written; the order stays.
            OSError: the order cannot be read or removed.
        """
        try:
            order = self._read()
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, ConfigError) as why:
            _log.error("break-glass order refused", reason=str(why), file=str(self._file))
            self._file.unlink()
            return None
        given = order.token
        by = Principal(f"local:{order.by}", given.role, given.scope, name=order.by)
        try:
            token = await self._tokens.enter(
                given, order.seal, by=by, facts={**facts(given), "reason": order.reason, "user": order.by}
            )
        except Conflict:  # the gateway ended between the entry and the removal of the file
            token = None
        else:
            _log.warning("break-glass token entered", token=given.id, role=given.role, by=order.by, reason=order.reason)
        self._file.unlink()
        return token

    def _read(self) -> BreakGlassOrder:
        # Neither a link nor a pipe that would hold up the gateway.
        descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
                raise ConfigError("the file is not private to the user of the gateway", file=str(self._file))
            order = msgspec.json.decode(file.read(_BYTES_MAX), type=BreakGlassOrder)
        if fault := order_fault(order, self._clock.now()):
            raise ConfigError(fault, file=str(self._file))
        return order
