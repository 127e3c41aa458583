"""REST: comparison of profile versions, and reprocessing of recorded messages."""

from __future__ import annotations

from sensegate.authoring.compare import ComparisonReport
from sensegate.authority.scope import Action, allows, scope_text
from sensegate.bus import ledger as kinds
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.lifecycle.comparisons import MessageRange, VersionComparisons
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.jobs import Job, Jobs
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.lifecycle.reprocessing_orders import OrderState, ReprocessingOrder, ReprocessingOrders
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.profile_bodies import (
    JobRow,
    NewDiff,
    NewReprocessing,
    ReprocessingRow,
    ShadowReport,
    ShadowRow,
)
from sensegate.web.profiles import COMPARISONS, RELEASES, name_of, releases_of, target_of
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

SINCE = QueryParam("since", "start of the time of arrival, or how far back (30m, 1h, 7d); default 1h")
UNTIL = QueryParam("until", "end of the time of arrival; default now")


JOBS = PartKey[Jobs]("jobs", absent="this gateway has no jobs")
REPROCESSING_ORDERS = PartKey[ReprocessingOrders]("redecodes", absent="this gateway reprocesses no messages")
REPROCESSING = PartKey[Reprocessing]("redecoding", absent="this gateway reprocesses no messages")


def comparisons_of(call: Call) -> VersionComparisons:
    """Return the comparisons. Raises `NotFound` at a gateway without them."""
    return call.part(COMPARISONS)


def jobs_of(call: Call) -> Jobs:
    """Return the jobs. Raises `NotFound` at a gateway without them."""
    return call.part(JOBS)


def message_range_of(call: Call, devices: list[str]) -> MessageRange:
    """Return the range of recorded messages of a call. Raises `BadRequest`."""
    now = call.deps.clock.now()
    since, until = call.time("since") or now - HOUR_US, call.time("until") or now
    if since >= until:
        raise BadRequest("query: since: is not before until; give an earlier time")
    return MessageRange(since, until, tuple(devices))


def job_row(job: Job) -> JobRow:
    """Return the row of a job."""
    report = job.result if isinstance(job.result, ComparisonReport) else None
    return JobRow(
        job.id,
        job.kind,
        job.profile,
        job.state,
        round(job.share, 4),
        scope_text(job.target),
        job.by,
        iso(job.started),
        iso(job.ended),
        job.message,
        report,
    )


async def _diff(call: Call) -> JobRow:
    """Compare two versions over recorded messages; the job has the report."""
    wanted = await call.body(NewDiff)
    b = Content(wanted.text, wanted.files) if wanted.text else wanted.b
    if wanted.a == b:
        raise BadRequest("body: a and b are the same version; give two different ones")
    job = await comparisons_of(call).diff(
        name_of(call),
        wanted.a,
        b,
        message_range_of(call, wanted.devices),
        by=call.principal,
        target=target_of(wanted.target),
    )
    return job_row(job)


async def _shadow(call: Call) -> ShadowReport:
    """Get the report of the shadow so far."""
    name = name_of(call)
    shadow = releases_of(call).get(name, call.principal).shadow
    report, left_out = comparisons_of(call).shadow(name)
    target = shadow.target if shadow else None
    if shadow is None or target is None or not _may_see(call, target.division, target.department):
        raise NotFound(f"profile {name} has no shadow in your scope")
    row = ShadowRow(shadow.number, scope_text(shadow.target), iso(shadow.since), shadow.by, list(shadow.devices))
    return ShadowReport(row, report, left_out)


def _may_see(call: Call, division: str, department: str) -> bool:
    return allows(call.principal, Action.READ_READINGS, division, department)


async def _jobs(call: Call) -> listing.RowPage[JobRow]:
    """List the jobs of a profile in the caller's scope; they end with a restart."""
    return listing.page_of(call, map(job_row, jobs_of(call).list(name_of(call), call.principal)), JobRow, "id")


async def _job(call: Call) -> JobRow:
    """Get a job with its progress or report."""
    return job_row(jobs_of(call).get(name_of(call), call.path("job"), call.principal))


async def _cancel_job(call: Call) -> JobRow:
    """Cancel a job."""
    return job_row(await jobs_of(call).cancel(name_of(call), call.path("job"), call.principal))


# ── reprocessing ────────────────────────────────────────────────────────────────────────────────────


def reprocessing_orders_of(call: Call) -> ReprocessingOrders:
    """Return the reprocessing orders. Raises `NotFound` at a gateway without them."""
    return call.part(REPROCESSING_ORDERS)


def order_row(call: Call, order: ReprocessingOrder) -> ReprocessingRow:
    """Return the row of an order."""
    redecoding = call.find_part(REPROCESSING)
    shares = redecoding.progress if redecoding else {}
    counts = order.counts
    return ReprocessingRow(
        id=order.id,
        profile=order.profile,
        state=order.state,
        share=1.0 if order.state == OrderState.DONE else round(shares.get(order.id, 0.0), 4),
        since=iso(order.since),
        until=iso(order.until),
        selection=order.input,
        devices=list(order.devices),
        target=scope_text(order.target),
        by=order.by,
        created=iso(order.created),
        ended=iso(order.ended),
        problem=order.problem,
        source=order.source,
        messages=counts.get(kinds.REDECODED, 0),
        recovered=counts.get(kinds.RECOVERED, 0),
        still_refused=counts.get(kinds.STILL_REFUSED, 0),
        equal=counts.get(kinds.EQUAL, 0),
        revised=counts.get(kinds.REVISED, 0),
        added=counts.get(kinds.ADDED, 0),
    )


async def _reprocess(call: Call) -> ReprocessingRow:
    """Reprocess recorded messages of a time span: changed values become revisions, nothing is stored twice."""
    wanted, redecoding = await call.body(NewReprocessing), call.part(REPROCESSING)
    name, releases = name_of(call), call.find_part(RELEASES)
    if name not in {row.id for row in call.deps.profiles()} and not (
        releases and releases.get(name, call.principal).versions
    ):
        raise NotFound(f"there is no profile {name} in your scope; see `sensegate profile list --live`")
    order = await redecoding.order(
        name_of(call),
        message_range_of(call, wanted.devices),
        ReprocessingInput(wanted.selection),
        by=call.principal,
        target=target_of(wanted.target),
        note=wanted.note,
    )
    return order_row(call, order)


async def _orders(call: Call) -> listing.RowPage[ReprocessingRow]:
    """List the reprocessing orders in the caller's scope."""
    rows = [order_row(call, order) for order in reprocessing_orders_of(call).list(call.principal, name_of(call))]
    return listing.page_of(call, rows, ReprocessingRow, "id")


async def _order(call: Call) -> ReprocessingRow:
    """Get a reprocessing order with its progress or outcome."""
    return order_row(call, _order_of(call))


def _order_of(call: Call) -> ReprocessingOrder:
    order = reprocessing_orders_of(call).get(call.path("order"), call.principal)
    if order.profile != name_of(call):
        raise NotFound(f"there is no reprocessing order {order.id} of {name_of(call)}")
    return order


async def _cancel(call: Call) -> ReprocessingRow:
    """Cancel a reprocessing order; what it has committed stays."""
    order = _order_of(call)
    return order_row(call, await reprocessing_orders_of(call).cancel(order.id, by=call.principal))


_PROFILE = f"{API}/profiles/{{vendor}}/{{model}}"
ROUTES = tagged(
    "profiles",
    Route(
        "POST",
        f"{_PROFILE}/redecode",
        _reprocess,
        action=Action.RELEASE_PROFILES,
        query=(SINCE, UNTIL),
        body=NewReprocessing,
        status=202,
        errors=(404, 415),
    ),
    Route(
        "GET",
        f"{_PROFILE}/redecode",
        _orders,
        action=Action.PROPOSE_PROFILES,
        query=listing.params(ReprocessingRow),
        errors=(404,),
    ),
    Route("GET", f"{_PROFILE}/redecode/{{order}}", _order, action=Action.PROPOSE_PROFILES, errors=(404,)),
    Route("DELETE", f"{_PROFILE}/redecode/{{order}}", _cancel, action=Action.RELEASE_PROFILES, errors=(404, 409)),
    Route(
        "POST",
        f"{_PROFILE}/diff",
        _diff,
        action=Action.PROPOSE_PROFILES,
        query=(SINCE, UNTIL),
        body=NewDiff,
        status=202,
        errors=(404, 409, 413, 415),
    ),
    Route("GET", f"{_PROFILE}/shadow", _shadow, action=Action.READ_READINGS, errors=(404,)),
    Route(
        "GET", f"{_PROFILE}/jobs", _jobs, action=Action.PROPOSE_PROFILES, query=listing.params(JobRow), errors=(404,)
    ),
    Route("GET", f"{_PROFILE}/jobs/{{job}}", _job, action=Action.PROPOSE_PROFILES, errors=(404,)),
    Route("DELETE", f"{_PROFILE}/jobs/{{job}}", _cancel_job, action=Action.PROPOSE_PROFILES, errors=(404, 409)),
)
