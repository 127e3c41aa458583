"""REST: what works over recorded messages: versions compared (beside live ones too), and decoding again."""

from __future__ import annotations

from typing import Any

import msgspec

from sensegate.authority.scope import Action, allows, written
from sensegate.bus import ledger as kinds
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.lifecycle.comparisons import MessageRange, VersionComparisons
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.jobs import Job, Jobs
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_orders import OrderState, ReprocessingInput, ReprocessingOrder, ReprocessingOrders
from sensegate.model import DuplicateKind
from sensegate.web import listing
from sensegate.web.deps import Part
from sensegate.web.problems import BadRequest
from sensegate.web.profile_bodies import DiffReport, JobRow, NewDiff, NewRedecode, RedecodeRow, ShadowReport, ShadowRow
from sensegate.web.profiles import STUDIES, name_of, releases_of, target_of
from sensegate.web.routing import API, Call, Param, Route, iso

SINCE = Param("since", "from this time of arrival on, or how far back (30m, 1h, 7d); default 1h")
UNTIL = Param("until", "before this time of arrival; default now")


JOBS = Part[Jobs]("jobs", absent="this gateway has no jobs")
REDECODES = Part[ReprocessingOrders]("redecodes", absent="this gateway reprocesses no messages")
REDECODING = Part[Reprocessing]("redecoding", absent="this gateway reprocesses no messages")


def studies_of(call: Call) -> VersionComparisons:
    """Return what compares. Raises `NotFound` at a gateway that does not."""
    return call.part(STUDIES)


def jobs_of(call: Call) -> Jobs:
    """Return the jobs. Raises `NotFound` at a gateway that has none."""
    return call.part(JOBS)


def stretch_of(call: Call, devices: list[str]) -> MessageRange:
    """Return the recorded messages that are meant. Raises `BadRequest`."""
    now = call.deps.clock.now()
    since, until = call.time("since") or now - HOUR_US, call.time("until") or now
    if since >= until:
        raise BadRequest("query: since: is not before `until`")
    return MessageRange(since, until, tuple(devices))


def job_row(job: Job) -> JobRow:
    """Return the row of a job."""
    report = (
        msgspec.convert(job.result, DiffReport, from_attributes=True) if job.kind == "diff" and job.result else None
    )
    return JobRow(
        job.id,
        job.kind,
        job.profile,
        job.state,
        round(job.share, 4),
        written(job.target),
        job.by,
        iso(job.started),
        iso(job.ended),
        job.message,
        report,
    )


async def _diff(call: Call) -> Any:
    wanted = await call.body(NewDiff)
    b = Content(wanted.text, wanted.files) if wanted.text else wanted.b
    if wanted.a == b:
        raise BadRequest("body: a and b are the same version")
    job = await studies_of(call).diff(
        name_of(call),
        wanted.a,
        b,
        stretch_of(call, wanted.devices),
        by=call.principal,
        target=target_of(wanted.target),
    )
    return job_row(job)


async def _shadow(call: Call) -> Any:
    name = name_of(call)
    shadow = releases_of(call).get(name, call.principal).shadow
    report, left_out = studies_of(call).shadow(name)
    target = shadow.target if shadow else None
    if shadow is None or target is None or not _may_see(call, target.division, target.department):
        raise NotFound(f"no version of {name} is shadowed in your scope")
    row = ShadowRow(shadow.number, written(shadow.target), iso(shadow.since), shadow.by, list(shadow.devices))
    return ShadowReport(row, msgspec.convert(report, DiffReport, from_attributes=True), left_out)


def _may_see(call: Call, division: str, department: str) -> bool:
    return allows(call.principal, Action.READ_READINGS, division, department)


async def _jobs(call: Call) -> Any:
    return listing.answer(call, map(job_row, jobs_of(call).list(name_of(call), call.principal)), JobRow, "id")


async def _job(call: Call) -> Any:
    return job_row(jobs_of(call).get(name_of(call), call.path("job"), call.principal))


async def _give_up(call: Call) -> Any:
    return job_row(await jobs_of(call).cancel(name_of(call), call.path("job"), call.principal))


# ── decoding again ────────────────────────────────────────────────────────────────────────────────────


def redecodes_of(call: Call) -> ReprocessingOrders:
    """Return the orders. Raises `NotFound` at a gateway that takes none."""
    return call.part(REDECODES)


def order_row(call: Call, order: ReprocessingOrder) -> RedecodeRow:
    """Return the row of an order."""
    redecoding = call.find_part(REDECODING)
    shares = redecoding.progress if redecoding else {}
    counts = order.counts
    return RedecodeRow(
        id=order.id,
        profile=order.profile,
        state=order.state,
        share=1.0 if order.state == OrderState.DONE else round(shares.get(order.id, 0.0), 4),
        since=iso(order.since),
        until=iso(order.until),
        what=order.input,
        devices=list(order.devices),
        target=written(order.target),
        by=order.by,
        made=iso(order.created),
        ended=iso(order.ended),
        said=order.problem,
        source=order.source,
        messages=counts.get(kinds.REDECODED, 0),
        recovered=counts.get(kinds.RECOVERED, 0),
        still_refused=counts.get(kinds.STILL_REFUSED, 0),
        equal=counts.get(f"{kinds.DUPLICATE}.{DuplicateKind.EQUAL}", 0),
        revised=counts.get(kinds.REVISED, 0),
        added=counts.get(kinds.ADDED, 0),
    )


async def _redecode(call: Call) -> Any:
    wanted, redecoding = await call.body(NewRedecode), call.part(REDECODING)
    order = await redecoding.order(
        name_of(call),
        stretch_of(call, wanted.devices),
        ReprocessingInput(wanted.what),
        by=call.principal,
        target=target_of(wanted.target),
        note=wanted.note,
    )
    return order_row(call, order)


async def _orders(call: Call) -> Any:
    rows = [order_row(call, order) for order in redecodes_of(call).list(call.principal, name_of(call))]
    return listing.answer(call, rows, RedecodeRow, "id")


async def _order(call: Call) -> Any:
    return order_row(call, _found(call))


def _found(call: Call) -> ReprocessingOrder:
    order = redecodes_of(call).get(call.path("order"), call.principal)
    if order.profile != name_of(call):
        raise NotFound(f"no redecode {order.id} of {name_of(call)}")
    return order


async def _cancel(call: Call) -> Any:
    order = _found(call)
    return order_row(call, await redecodes_of(call).cancel(order.id, by=call.principal))


_PROFILE = f"{API}/profiles/{{vendor}}/{{model}}"
ROUTES = (
    Route(
        method="POST",
        path=f"{_PROFILE}/redecode",
        call=_redecode,
        what="Decode recorded messages of a time span again: revisions, what was in quarantine, nothing twice.",
        tag="profiles",
        action=Action.RELEASE_PROFILES,
        query=(SINCE, UNTIL),
        body=NewRedecode,
        answer=RedecodeRow,
        status=202,
        errors=(404, 415),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/redecode",
        call=_orders,
        what="Orders to decode again in the caller's scope.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        query=listing.params(RedecodeRow),
        answer=list[RedecodeRow],
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/redecode/{{order}}",
        call=_order,
        what="One order: its progress, or what came of it.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        answer=RedecodeRow,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{_PROFILE}/redecode/{{order}}",
        call=_cancel,
        what="Give an order up; what was committed of it stays.",
        tag="profiles",
        action=Action.RELEASE_PROFILES,
        answer=RedecodeRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{_PROFILE}/diff",
        call=_diff,
        what="Compare two versions over recorded messages; look at the job for the report.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        query=(SINCE, UNTIL),
        body=NewDiff,
        answer=JobRow,
        status=202,
        errors=(404, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/shadow",
        call=_shadow,
        what="What the shadow has found so far.",
        tag="profiles",
        action=Action.READ_READINGS,
        answer=ShadowReport,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/jobs",
        call=_jobs,
        what="Jobs about a profile in the caller's scope; they are forgotten at a restart.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        query=listing.params(JobRow),
        answer=list[JobRow],
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/jobs/{{job}}",
        call=_job,
        what="One job: its progress, or its report.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        answer=JobRow,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{_PROFILE}/jobs/{{job}}",
        call=_give_up,
        what="Give a job up.",
        tag="profiles",
        action=Action.PROPOSE_PROFILES,
        answer=JobRow,
        errors=(404, 409),
    ),
)
