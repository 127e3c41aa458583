"""REST: the catalogue: what is shared, said by its owners, with samples and measured quality; exports."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.web import listing
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Route, iso
from sensegate.web.share_bodies import ColumnRow, EntryAnswer, EntryChange, EntryRow, Promised, SampleWish

_INDICATORS = ("authenticity", "accuracy", "continuity", "completeness")
_EXPORTS = {"application/ld+json": "dcat", "text/csv": "csv"}


def _row(entry: Any) -> EntryRow:
    return EntryRow(**_plain(entry))


def _plain(entry: Any) -> dict[str, Any]:
    """Return what stands in a list."""
    row = {name: getattr(entry, name) for name in EntryRow.__struct_fields__ if name != "state"}
    return {**msgspec.to_builtins(row), "state": "published" if entry.published else "draft"}


async def _list(call: Call) -> Any:
    offers = call.deps.share.catalogue_access
    entries = offers.visible(call.principal)
    media = call.request.headers.get("Accept", "").partition(";")[0].strip()
    if text := call.text("q"):
        entries = [entry for entry in entries if offers.matches(entry, text)]
    if media in _EXPORTS:
        wanted = [
            entry for entry in entries if entry.published and all(_fits(call, entry, name) for name in _filters(call))
        ]
        body = offers.export(wanted, _EXPORTS[media])
        headers = {"Content-Disposition": 'attachment; filename="catalogue.csv"'} if media == "text/csv" else {}
        return web.Response(body=body, content_type=media, headers=headers, charset=_charset(media))
    return listing.answer(call, [_row(entry) for entry in entries], EntryRow, "feed", text=False)


def _charset(media: str) -> str | None:
    return "utf-8" if media == "text/csv" else None


def _filters(call: Call) -> list[str]:
    return [name for name in EntryRow.__struct_fields__ if name in call.request.query]


def _fits(call: Call, entry: Any, name: str) -> bool:
    return str(_plain(entry)[name]) in call.words(name)


async def _get(call: Call) -> Any:
    return _answer(call, call.deps.share.catalogue_access.get(call.principal, call.path("feed")))


def _answer(call: Call, entry: Any) -> EntryAnswer:
    offers = call.deps.share.catalogue_access
    feed = offers.feed(call.principal, entry.feed)
    measured = _promised(offers.measured(entry))
    whole = {
        name: getattr(entry, name)
        for name in EntryAnswer.__struct_fields__
        if name in entry.__struct_fields__ and name not in {"sample", "columns", "measured", "promise"}
    }
    times = {name: iso(getattr(entry, name)) for name in ("drawn", "published", "changed")}
    return EntryAnswer(
        **{
            **msgspec.to_builtins(whole),
            **times,
            "state": "published" if entry.published else "draft",
            "promise": _promised(entry.promise),
            "measured": measured,
            "held": offers.met(entry, measured),
            "missing": offers.missing(entry),
            "columns": [msgspec.convert(column, ColumnRow, from_attributes=True) for column in entry.columns],
            "sample": [msgspec.json.decode(row) for row in entry.sample],
            "divisions": list(feed.divisions),
            "reads": call.deps.share.can_read(call.principal, entry.feed),
        }
    )


def _promised(promise: Any) -> Promised:
    return Promised(**{name: getattr(promise, name) for name in _INDICATORS})


async def _change(call: Call) -> Any:
    changes = {
        key: msgspec.to_builtins(value)
        for key, value in msgspec.structs.asdict(await call.body(EntryChange)).items()
        if value is not msgspec.UNSET
    }
    if not changes:
        raise BadRequest("body: nothing to change; see /docs for what an entry says")
    offers = call.deps.share.catalogue_access
    revision = call.revision(required=False)
    return _answer(call, await offers.write(call.principal, call.path("feed"), changes, revision))


async def _sample(call: Call) -> Any:
    wish = await call.body(SampleWish)
    return _answer(
        call, await call.deps.share.catalogue_access.sample(call.principal, call.path("feed"), wish.rows, wish.mask)
    )


_TAG = "catalogue"
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/catalogue",
        call=_list,
        what="What is shared: complete entries of all, drafts of one's own; `q`: words in Chinese or English. "
        "As DCAT (application/ld+json) or CSV by `Accept`.",
        tag=_TAG,
        action=Action.READ_CATALOGUE,
        query=listing.params(EntryRow),
        answer=list[EntryRow],
        media=("application/json", *_EXPORTS),
    ),
    Route(
        method="GET",
        path=f"{API}/catalogue/{{feed}}",
        call=_get,
        what="All about a feed: what its owner says, columns and sample made of the data, measured beside promised.",
        tag=_TAG,
        action=Action.READ_CATALOGUE,
        answer=EntryAnswer,
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=f"{API}/catalogue/{{feed}}",
        call=_change,
        what="Say something about a feed; it is published once nothing is `missing`. If-Match once it was written.",
        tag=_TAG,
        action=Action.CHANGE_FEEDS,
        body=EntryChange,
        answer=EntryAnswer,
        errors=(404, 409, 412),
    ),
    Route(
        method="POST",
        path=f"{API}/catalogue/{{feed}}/sample",
        call=_sample,
        what="Draw columns and sample anew from the data, the sample through a mask.",
        tag=_TAG,
        action=Action.CHANGE_FEEDS,
        body=SampleWish,
        answer=EntryAnswer,
        errors=(404, 409),
    ),
)
