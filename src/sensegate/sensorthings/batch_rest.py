"""HTTP: batches of requests (`$batch`). Each is judged, carried out, metered and audited as if it came alone.

Requests are carried out in their order, and go on after one that failed. A change set of several requests is refused:
what one of them has done is not undone when another one fails.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, has_right, missing_right
from sensegate.errors import PermissionDenied, SensegateError
from sensegate.sensorthings.batch import (
    JSON,
    MULTIPART,
    BatchedAnswer,
    BatchedRequest,
    CreatedEntities,
    json_answer,
    multipart_answer,
    parse_json,
    parse_multipart,
)
from sensegate.sensorthings.rest import (
    FEED_ROOT,
    OPTIONS,
    ROOT,
    SENSORTHINGS,
    WriteRequest,
    base_of,
    read_resource,
    write_resource,
)
from sensegate.share.feeds import ALL_FEED
from sensegate.web.problems import CONTENT_TYPE, BadRequest, body_of, status_of
from sensegate.web.routing import Call, Route

BATCH = "$batch"
ANSWER_BYTES_MAX = 33_554_432
"""Most bytes of all answers; requests after that are not carried out."""
BATCH_S = 60.0
"""Requests that have not begun by then are not carried out."""
_KNOWN = frozenset(option.name for option in OPTIONS)


async def _batch(call: Call) -> web.Response:
    feed = call.request.match_info.get("feed", ALL_FEED.name)
    # Raises where the caller does not see the feed.
    await call.part(SENSORTHINGS).view(call.principal, feed, "json", call.deps.clock.now())
    media, raw = call.request.content_type, await call.raw_body()
    if media == JSON:
        answers = await _carried_out(call, parse_json(raw))
        return web.Response(body=json_answer(answers), content_type=JSON)
    if media != MULTIPART:
        raise BadRequest(f"Content-Type: '{media[:60]}' is not taken; send {MULTIPART} or {JSON}", status=415)
    answers = await _carried_out(call, parse_multipart(call.request.headers.get("Content-Type", ""), raw))
    body, kind = multipart_answer(answers)
    return web.Response(body=body, headers={"Content-Type": kind})


async def _carried_out(call: Call, requests: list[BatchedRequest]) -> list[BatchedAnswer]:
    """Return the answer to each request, in their order."""
    sizes = Counter(request.group for request in requests if request.group)
    created, failed, size = CreatedEntities(), set[str](), 0
    ends = call.deps.clock.monotonic() + BATCH_S
    answers = []
    for request in requests:
        try:
            _demand_room(size, ends - call.deps.clock.monotonic())
            if sizes[request.group] > 1:
                raise BadRequest(
                    "a change set of several requests is not offered: what one has done is not undone when another "
                    "fails; send them one by one, $ID refers to what an earlier one created",
                    status=501,
                )
            if absent := [name for name in request.depends_on if name in failed]:
                raise BadRequest(f"dependsOn: '{absent[0][:40]}' has failed", status=424)
            answer = await _answer(call, request, created)
        except SensegateError as why:
            body = body_of(why, call.request_id)
            answer = BatchedAnswer(status=status_of(why), media=CONTENT_TYPE, body=body)
        if answer.status >= 400:
            failed.add(request.id)
        size += len(answer.body)
        answers.append(msgspec.structs.replace(answer, id=request.id, group=request.group))
    return answers


def _demand_room(size: int, left_s: float) -> None:
    """Return if another request may be carried out. Raises `BadRequest`."""
    if size > ANSWER_BYTES_MAX:
        raise BadRequest(f"the answers have more than {ANSWER_BYTES_MAX} bytes; send fewer requests", status=413)
    if left_s <= 0:
        raise BadRequest(f"the batch took more than {BATCH_S:g} s; send this request again", status=503)


async def _answer(call: Call, request: BatchedRequest, created: CreatedEntities) -> BatchedAnswer:
    """Return the answer to a request that came alone. Raises as the request itself."""
    url = created.url(request.url)
    path, query = _resource(call, url)
    if path.strip("/").partition("/")[0] == BATCH:
        raise BadRequest("url: a batch has no batches in it; give its requests")
    if request.method == "GET":
        _demand(call, Action.READ_READINGS)
        response = await read_resource(call, path, query)
        return _answered(response)
    if "feed" in call.request.match_info:
        raise BadRequest("method: a feed is read only; write at the root", status=405)
    if query:
        raise BadRequest(f"url: unknown parameter '{next(iter(query))[:40]}'; a request that writes has none")
    _demand(call, Action.CHANGE_DEVICES, Action.INGEST)
    write = WriteRequest(request.method, path, created.body(request.body), request.media)
    answer = _answered(await write_resource(call, write))
    if request.id and answer.location:
        place = answer.location.removeprefix(f"{base_of(call)}/")
        created.add(request.id, place, int(place.partition("(")[2].rstrip(")")))
    return answer


def _resource(call: Call, url: str) -> tuple[str, dict[str, str]]:
    """Return the path below the service root, and the options of a URL. Raises `BadRequest`."""
    base = base_of(call)
    root = urlsplit(base).path
    for prefix in (f"{base}/", f"{root}/"):
        if url.startswith(prefix):
            url = url.removeprefix(prefix)
            break
    else:
        if "://" in url or url.startswith("/"):
            raise BadRequest(f"url: '{url[:80]}' is not below {root}; give a path such as Things(1)")
    path, _, text = url.partition("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=len(_KNOWN))
    except ValueError:
        raise BadRequest("url: has too many parameters; give each once") from None
    query = dict(pairs)
    for name in query:
        if name not in _KNOWN:
            raise BadRequest(f"url: unknown parameter '{name[:40]}'; use one of {', '.join(sorted(_KNOWN))}")
    if len(query) < len(pairs):
        raise BadRequest("url: a parameter is given twice; give it once")
    return unquote(path), query


def _demand(call: Call, *actions: Action) -> None:
    """Return if the role of the caller permits one of some actions. Raises `PermissionDenied`."""
    call.demand_credential()
    if not any(has_right(call.principal, action) for action in actions):
        raise PermissionDenied(missing_right(call.principal, actions[0]))


def _answered(response: web.Response) -> BatchedAnswer:
    body = response.body if isinstance(response.body, bytes) else b""
    return BatchedAnswer(
        status=response.status,
        media=response.content_type if body else "",
        body=body,
        location=response.headers.get("Location", ""),
    )


BATCH_ROUTES = tuple(
    Route(
        method="POST",
        path=f"{root}/{BATCH}",
        handler=_batch,
        summary="Carry out several requests of the SensorThings API, each judged alone.",
        tag="sensorthings",
        action=Action.READ_READINGS,
        or_action=Action.INGEST,
        raw="multipart/mixed",
        media=(MULTIPART, JSON),
        errors=(404, 413, 415),
    )
    for root in (ROOT, FEED_ROOT)
)
