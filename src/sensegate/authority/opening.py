"""Build the registries of callers: programs, people and what was set aside, and the callout that admits connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
import structlog

from sensegate.authority import audit_opening
from sensegate.authority.audit import Audit
from sensegate.authority.break_glass import BreakGlass
from sensegate.authority.divisions import Divisions
from sensegate.authority.expiry import CertificateExpiry, certificate_expiry
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.scope import scope
from sensegate.authority.set_aside import SetAside
from sensegate.authority.tokens import FIRST_ROLES, Tokens
from sensegate.bus.files import write_private
from sensegate.bus.opening import Core

_log = structlog.get_logger("authority")


class Callers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Registries of callers, and warnings about credentials."""

    audit: Audit
    divisions: Divisions
    set_aside: SetAside
    tokens: Tokens
    people: People
    oidc: Oidc | None
    """None: single sign-on is not configured."""
    certificates: CertificateExpiry
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""


async def open_audit(core: Core) -> Audit:
    """Open the audit trail, on which all other registries write, and record accepted losses of streams."""
    audit = await audit_opening.open_audit(core.bus, core.clock, core.config, core.bucket)
    await audit_opening.record_accepted_losses(audit, core.config, core.engine.inventory)
    await audit_opening.record_restores(audit, core.config)
    return audit


async def open_callers(core: Core, audit: Audit, divisions: Divisions) -> Callers:
    """Load the registries; the first start creates a token of an administrator and one of an auditor."""
    config, clock = core.config, core.clock
    set_aside = SetAside(
        await core.bucket("set_aside"), audit, clock, core.log, home=config.division, directory=core.directory
    )
    await set_aside.load()
    people = People(await core.bucket("people"), audit, clock, config.people)
    await people.load()
    tokens = Tokens(await core.bucket("tokens"), audit, clock, present_rights=people.present_rights)
    people.on_change.append(tokens.person_changed)
    await tokens.load()
    await _create_first_tokens(core, tokens)
    return Callers(
        audit=audit,
        divisions=divisions,
        set_aside=set_aside,
        tokens=tokens,
        people=people,
        oidc=Oidc(config.oidc, clock) if config.oidc.issuer else None,
        certificates=certificate_expiry(config, clock),
        tasks={
            "set aside": set_aside.watch,
            "tokens": tokens.watch,
            "ended tokens": partial(tokens.sweep, config.sharing.retention_days),
            "people": people.watch,
            "break-glass orders": BreakGlass(core.directory, tokens, clock).run,
        },
    )


async def _create_first_tokens(core: Core, tokens: Tokens) -> None:
    files = {role: core.directory / f"{role}.token" for role in FIRST_ROLES}
    given = {role: file.read_text(encoding="ascii").strip() for role, file in files.items() if file.exists()}
    for role, text in (await tokens.bootstrap(scope(core.config.division), given=given)).items():
        write_private(files[role], text)
        _log.info("first token created; create others with it, then remove the file", role=role, file=str(files[role]))
