"""What the HTTP side shows of the parts: each handed to it by name, and what they say of how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensegate import __version__
from sensegate.authority.scope import Principal
from sensegate.bus.unreadable import UNREADABLE
from sensegate.control.rest_modes import MODES
from sensegate.control.rest_tasks import TASKING
from sensegate.model import Device
from sensegate.scripts import pool as scripts
from sensegate.tiers import restored_registries
from sensegate.tiers.centre_side import own_row
from sensegate.tiers.rest_moves import GATEWAYS, MOVES
from sensegate.tiers.rest_nodes import GAPS, JOIN, MEMBERS
from sensegate.tiers.rest_owners import OWNERS
from sensegate.tiers.rest_returns import RETURNS
from sensegate.tiers.rest_uplink import REFUSED, REFUSED_BODY, UPLINK
from sensegate.viid.rest import VIID
from sensegate.web.deps import NodeRow, PartKey, WebDependencies
from sensegate.web.devices import ASSETS, NEIGHBOURS
from sensegate.web.drafts import UNKNOWN
from sensegate.web.log import SET_ASIDE
from sensegate.web.profile_jobs import JOBS, REPROCESSING, REPROCESSING_ORDERS
from sensegate.web.profiles import COMPARISONS, IN_FORCE, OUTCOMES, RELEASES
from sensegate.web.webhooks import WEBHOOKS

if TYPE_CHECKING:
    from sensegate.flow import Gateway


def shown(of: Gateway) -> WebDependencies:
    """Return all that routes are given."""
    base, config, life = of.foundations, of.config, of.foundations.life

    async def push(device: Device, _caller: Principal, body: bytes, content_type: str) -> None:
        await of.sources.http.push(device.id, body, content_type)

    def clock_lag(device: str) -> float | None:
        at = of.devices.find(device)
        return of.clocks.device_lag(at) if at >= 0 else None

    return WebDependencies(
        config=config.web,
        role=config.role,
        division=config.division,
        version=__version__,
        clock=of.clock,
        log=of.log,
        divisions=base.divisions,
        devices=of.devices,
        tokens=base.tokens,
        people=base.people,
        oidc=base.oidc,
        is_secure=bool(config.web.tls.cert_file) or config.oidc.redirect_url.startswith("https://"),
        audit=of.audit,
        share=of.share,
        hourly=of.share.hourly,
        consumers=of.pushing.consumers,
        ready=lambda: troubles(of),
        warnings=lambda: warnings(of),
        ingest=push,
        topics=lambda device: base.topics_of(device)[0],
        profiles=life.rows,
        nodes=lambda: nodes(of),
        quality=of.quality_rows,
        clock_lag=clock_lag,
        refused=of.callout.refusals.by_device,
        parts=_parts(of),
    )


def _parts(of: Gateway) -> dict[PartKey[Any], Any]:
    """Return what the features of this gateway give to their routes."""
    life, below = of.foundations.life, of.below
    parts: dict[PartKey[Any], Any] = {
        RELEASES: life.releases,
        IN_FORCE: life.rollout.in_force,
        OUTCOMES: life.canaries.outcomes,
        COMPARISONS: life.comparisons,
        JOBS: life.jobs,
        REPROCESSING_ORDERS: life.reprocessing_orders,
        REPROCESSING: life.reprocessing,
        UNKNOWN: life.unknown,
        TASKING: of.dispatcher,
        MODES: of.modes,
        WEBHOOKS: of.pushing.webhooks,
        NEIGHBOURS: of.neighbours,
        ASSETS: of.assets,
        RETURNS: below or of.above,
        VIID: of.viid,
        SET_ASIDE: of.foundations.set_aside,
    }
    if below:
        parts |= {
            MEMBERS: below.members,
            JOIN: below.join,
            GAPS: below.gaps,
            MOVES: below.moves,
            GATEWAYS: below.gateways,
            OWNERS: below.owners,
            REFUSED: below.refused,
            REFUSED_BODY: below.refused_body,
        }
    if of.above:
        parts[UPLINK] = of.above.uplink
    return parts


def troubles(of: Gateway) -> list[str]:
    """Return why readings are not taken or given as they should be; empty when all is well."""
    found = [f"intake: {of.ingest.trouble}"] if of.ingest.trouble else []
    if of.committer.held:
        found.append(f"log: full, devices are held back until there is room: {of.committer.held}")
    found += of.engine.troubles()
    if not of.bus.is_connected:
        found.append("engine: not connected; connecting again")
    if of.clocks.own_clock_off:
        found.append("clock: off; readings are marked, none is judged by time. Set the clock (NTP)")
    return found


def warnings(of: Gateway) -> list[str]:
    """Return what keeps some messages from becoming readings while all else goes on."""
    found = of.above.warnings() if of.above else []
    found += of.below.warnings() if of.below else []
    found += restored_registries.warnings(of.foundations.restores)
    found += [*of.profiles.problems(), *scripts.decoding_pool().problems()]
    found += [*of.hourly.warnings(), *of.foundations.certificates.warnings(), *of.not_taken()]
    found += [of.share.hourly.problem] if of.share.hourly.problem else []
    found += [*of.foundations.cameras.troubles(), *of.scrubber.warnings()]
    if unreadable := UNREADABLE.all():
        shown = ", ".join(str(entry.sequence) for entry in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        found.append(f"log: entries that cannot be read are passed over: {shown}{more}; see `sensegate log unreadable`")
    if of.viid:
        found += of.viid.troubles()
    if of.above and of.above.taking:
        found += of.above.taking.problems()
    return found


def nodes(of: Gateway) -> list[NodeRow]:
    """Return the nodes that a gateway knows, itself first."""
    totals, said = (of.above.totals(), of.above.said()) if of.above else ({}, "")
    return [own_row(of.config, totals, said), *(of.below.rows() if of.below else ())]
