"""REST: the catalogue of shared data sets, with samples and measured quality, and its exports."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.share.catalogue import CatalogueEntry
from sensegate.web import listing
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso
from sensegate.web.share_bodies import EntryChange, EntryDetail, EntryRow, SampleRequest

_EXPORTS = {"application/ld+json": "dcat", "text/csv": "csv"}


def _row(entry: CatalogueEntry) -> EntryRow:
    return EntryRow(
        feed=entry.feed,
        code=entry.code,
        title=entry.title,
        title_en=entry.title_en,
        state="published" if entry.published else "draft",
        sharing=entry.sharing,
        grade=entry.grade,
        domain=entry.domain,
        kind=entry.kind,
        department=entry.department,
        cadence=entry.cadence,
        level=entry.level,
        origin=entry.origin,
        revision=entry.revision,
    )


async def _list(call: Call) -> listing.RowPage[EntryRow] | web.Response:
    catalogue = call.deps.share.catalogue_access
    entries = catalogue.visible(call.principal)
    media = call.request.headers.get("Accept", "").partition(";")[0].strip()
    if text := call.text("q"):
        entries = [entry for entry in entries if catalogue.matches(entry, text)]
    if media in _EXPORTS:
        selected = [
            entry for entry in entries if entry.published and all(_fits(call, entry, name) for name in _filters(call))
        ]
        body = catalogue.export(selected, _EXPORTS[media])
        headers = {"Content-Disposition": 'attachment; filename="catalogue.csv"'} if media == "text/csv" else {}
        return web.Response(body=body, content_type=media, headers=headers, charset=_charset(media))
    return listing.page_of(call, [_row(entry) for entry in entries], EntryRow, "feed", text=False)


def _charset(media: str) -> str | None:
    return "utf-8" if media == "text/csv" else None


def _filters(call: Call) -> list[str]:
    return [name for name in EntryRow.__struct_fields__ if name in call.request.query]


def _fits(call: Call, entry: CatalogueEntry, name: str) -> bool:
    return str(getattr(_row(entry), name)) in call.values(name)


async def _get(call: Call) -> EntryDetail:
    """Get the entry of a feed, with columns and a sample of its data, and promised and measured quality."""
    return _detail(call, call.deps.share.catalogue_access.get(call.principal, call.path("feed")))


def _detail(call: Call, entry: CatalogueEntry) -> EntryDetail:
    catalogue = call.deps.share.catalogue_access
    feed = catalogue.feed(call.principal, entry.feed)
    measured = catalogue.measured(entry)
    return EntryDetail(
        **msgspec.structs.asdict(_row(entry)),
        summary=entry.summary,
        summary_en=entry.summary_en,
        source=entry.source,
        update=entry.update,
        quality=entry.quality,
        usage=entry.usage,
        conditions=entry.conditions,
        legal_basis=entry.legal_basis,
        grade_reason=entry.grade_reason,
        grade_floor=entry.grade_floor,
        provider=entry.provider,
        provider_name=entry.provider_name,
        provider_code=entry.provider_code,
        funding=entry.funding,
        coverage=entry.coverage,
        open=entry.open,
        promise=entry.promise,
        measured=measured,
        met=catalogue.met(entry, measured),
        missing=catalogue.missing(entry),
        columns=list(entry.columns),
        sample=[msgspec.json.decode(row) for row in entry.sample],
        sampled=iso(entry.sampled),
        published=iso(entry.published),
        changed=iso(entry.changed),
        divisions=list(feed.divisions),
        can_read=call.deps.share.can_read(call.principal, entry.feed),
    )


async def _change(call: Call) -> EntryDetail:
    """Change the entry of a feed; it is published once nothing is `missing`. If-Match once it exists."""
    changes = {
        key: msgspec.to_builtins(value)
        for key, value in msgspec.structs.asdict(await call.body(EntryChange)).items()
        if value is not msgspec.UNSET
    }
    if not changes:
        raise BadRequest("body: it changes nothing; see /docs for the fields of an entry")
    catalogue = call.deps.share.catalogue_access
    revision = call.revision(required=False)
    return _detail(call, await catalogue.write(call.principal, call.path("feed"), changes, revision))


async def _sample(call: Call) -> EntryDetail:
    """Take new columns and a new sample from the data, the sample through a mask."""
    wanted = await call.body(SampleRequest)
    return _detail(
        call, await call.deps.share.catalogue_access.sample(call.principal, call.path("feed"), wanted.rows, wanted.mask)
    )


ROUTES = tagged(
    "catalogue",
    Route(
        "GET",
        f"{API}/catalogue",
        _list,
        summary="List the catalogue: published entries, and drafts in the caller's scope; `q`: words in Chinese or "
        "English. As DCAT (application/ld+json) or CSV by `Accept`.",
        action=Action.READ_CATALOGUE,
        query=listing.params(EntryRow),
        media=("application/json", *_EXPORTS),
    ),
    Route("GET", f"{API}/catalogue/{{feed}}", _get, action=Action.READ_CATALOGUE, errors=(404,)),
    Route(
        "PATCH",
        f"{API}/catalogue/{{feed}}",
        _change,
        action=Action.CHANGE_FEEDS,
        body=EntryChange,
        errors=(404, 409, 412),
    ),
    Route(
        "POST",
        f"{API}/catalogue/{{feed}}/sample",
        _sample,
        action=Action.CHANGE_FEEDS,
        body=SampleRequest,
        errors=(404, 409),
    ),
)
