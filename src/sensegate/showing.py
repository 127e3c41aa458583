"""What the HTTP side shows of the parts: each handed to it by name, and what they say of how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensegate import __version__
from sensegate.authority.scope import Principal
from sensegate.below import own_row
from sensegate.model import Device
from sensegate.scripts import pool as scripts
from sensegate.web.deps import Deps, NodeRow

if TYPE_CHECKING:
    from sensegate.flow import Gateway


def shown(of: Gateway) -> Deps:
    """Return all that routes are given."""
    base, config, life, below = of.foundations, of.config, of.foundations.life, of.below

    async def push(device: Device, _caller: Principal, body: bytes, content_type: str) -> None:
        await of.sources.http.push(device.id, body, content_type)

    def clock_lag(device: str) -> float | None:
        at = of.devices.find(device)
        return of.clocks.device_lag(at) if at >= 0 else None

    return Deps(
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
        secure=bool(config.web.tls.cert_file) or config.oidc.redirect_url.startswith("https://"),
        audit=of.audit,
        share=of.share,
        books=of.share.books,
        roll=of.pushing.roll,
        hooks=of.pushing.hooks,
        ready=lambda: troubles(of),
        warnings=lambda: warnings(of),
        ingest=push,
        topics=lambda device: base.topics_of(device)[0],
        profiles=life.rows,
        releases=life.releases,
        in_force=life.rollout.in_force,
        outcomes=life.trials.outcomes,
        studies=life.studies,
        jobs=life.jobs,
        redecodes=life.redecodes,
        redecoding=life.redecoding,
        unknown=life.unknown,
        tasking=of.tasking,
        modes=of.modes,
        nodes=lambda: nodes(of),
        returns=below or of.above,
        members=below.members if below else None,
        join=below.join if below else None,
        gaps=below.gaps if below else None,
        moves=below.moves if below else None,
        gateways=below.gateways if below else list,
        quality=of.quality_rows,
        clock_lag=clock_lag,
        refused=of.callout.refusals.by_device,
        neighbours=of.neighbours,
        assets=of.assets,
        viid=of.viid,
    )


def troubles(of: Gateway) -> list[str]:
    """Return why readings are not taken or given as they should be; empty when all is well."""
    found = [f"intake: {of.ingest.trouble}"] if of.ingest.trouble else []
    if of.committer.held:
        found.append(f"log: full, devices are held back until there is room: {of.committer.held}")
    if not of.bus.is_connected:
        found.append("engine: not connected; connecting again")
    if of.clocks.own_clock_off:
        found.append("clock: off; readings are marked, none is judged by time. Set the clock (NTP)")
    return found


def warnings(of: Gateway) -> list[str]:
    """Return what keeps some messages from becoming readings while all else goes on."""
    found = [*of.profiles.troubles(), *scripts.decoding_pool().problems()]
    found += [*of.hourly.troubles(), *of.foundations.certificates.troubles(), *of.not_taken()]
    found += [of.share.books.trouble] if of.share.books.trouble else []
    found += of.foundations.cameras.troubles()
    if of.viid:
        found += of.viid.troubles()
    if of.above and of.above.taking:
        found += of.above.taking.troubles()
    return found


def nodes(of: Gateway) -> list[NodeRow]:
    """Return the nodes that a gateway knows, itself first."""
    totals, said = (of.above.totals(), of.above.said()) if of.above else ({}, "")
    return [own_row(of.config, totals, said), *(of.below.rows() if of.below else ())]
