"""Batches of requests, as multipart/mixed (OData 4.0, 11.7) and as JSON (OData 4.01): parsed, and their answers formed.

A change set or atomicity group of several requests is kept as such, so that it can be refused: acts are not undone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from sensegate.web.problems import BadRequest

REQUESTS_MAX = 100
"""Most requests of a batch."""
HEADERS_MAX = 50
METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
MULTIPART, JSON = "multipart/mixed", "application/json"
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{1,70}")
_ID = re.compile(r"[A-Za-z0-9_.:,;-]{1,100}")
_BLANK = re.compile(rb"\r?\n\r?\n|\A\r?\n")
_Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class BatchedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a batch."""

    id: str = ""
    """Name by which later requests refer to what it creates."""
    method: str
    url: str
    media: str = JSON
    body: bytes = b""
    group: str = ""
    """Change set or atomicity group; empty: it stands alone."""
    depends_on: tuple[str, ...] = ()


class BatchedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a request of a batch."""

    id: str = ""
    group: str = ""
    status: int
    media: str = ""
    body: bytes = b""
    location: str = ""


class JsonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Request of a batch as JSON."""

    id: _Text
    method: _Text
    url: _Text
    atomicity_group: _Text = ""
    depends_on: list[_Text] = []
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"")


class JsonBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Batch as JSON."""

    requests: Annotated[list[JsonRequest], msgspec.Meta(min_length=1, max_length=REQUESTS_MAX)]


def parse_json(raw: bytes) -> list[BatchedRequest]:
    """Return the requests of a batch as JSON. Raises `BadRequest`."""
    try:
        batch = msgspec.json.decode(raw, type=JsonBatch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise BadRequest(f"body: {why}") from None
    ids = [request.id for request in batch.requests]
    if len(set(ids)) < len(ids):
        raise BadRequest("body: requests: id: is given twice; give each request an id of its own")
    requests = []
    for number, request in enumerate(batch.requests):
        headers = {name.lower(): value for name, value in request.headers.items()}
        requests.append(
            _checked(
                f"body: requests[{number}]",
                BatchedRequest(
                    id=request.id,
                    method=request.method.upper(),
                    url=request.url,
                    media=_media(headers.get("content-type", JSON)),
                    body=bytes(request.body),
                    group=request.atomicity_group,
                    depends_on=tuple(request.depends_on),
                ),
            )
        )
    return requests


def parse_multipart(content_type: str, raw: bytes) -> list[BatchedRequest]:
    """Return the requests of a batch in parts. Raises `BadRequest`."""
    requests: list[BatchedRequest] = []
    for number, part in enumerate(_parts(content_type, raw, "body")):
        where = f"body: part {number + 1}"
        headers, content = _split(part, where)
        kind = headers.get("content-type", "")
        if _media(kind) != MULTIPART:
            requests.append(_http_request(headers, content, where, ""))
        else:
            for inner in _parts(kind, content, where):
                inner_headers, inner_content = _split(inner, where)
                if _media(inner_headers.get("content-type", "")) == MULTIPART:
                    raise BadRequest(f"{where}: a change set has no change sets in it; give requests")
                requests.append(_http_request(inner_headers, inner_content, where, f"changeset {number + 1}"))
        if len(requests) > REQUESTS_MAX:
            raise BadRequest(f"body: has more than {REQUESTS_MAX} requests; send several batches", status=413)
    if not requests:
        raise BadRequest("body: has no requests; give parts of application/http")
    ids = [request.id for request in requests if request.id]
    if len(set(ids)) < len(ids):
        raise BadRequest("body: Content-ID: is given twice; give each request one of its own")
    return requests


def _parts(content_type: str, raw: bytes, where: str) -> list[bytes]:
    boundary = re.search(r'boundary\s*=\s*(?:"([^"]*)"|([^;\s]*))', content_type, re.IGNORECASE)
    word = (boundary[1] or boundary[2] or "") if boundary else ""
    if not _BOUNDARY.fullmatch(word):
        raise BadRequest(f"{where}: Content-Type: has no boundary; give {MULTIPART};boundary=WORD")
    line = re.compile(rb"(?:\A|\r?\n)--" + re.escape(word.encode()) + rb"(?:--)?[ \t]*(?=\r?\n|\Z)")
    # At most one more than is allowed, so that the caller counts it.
    pieces = line.split(raw, maxsplit=REQUESTS_MAX + 2)
    if len(pieces) < 2:
        raise BadRequest(f"{where}: has no part; its lines --{word[:40]} separate parts")
    ended = raw.rstrip().endswith(b"--" + word.encode() + b"--")
    if not ended:
        raise BadRequest(f"{where}: does not end with --{word[:40]}--; send the whole batch")
    return [re.sub(rb"\A\r?\n", b"", piece, count=1) for piece in pieces[1:] if piece.strip()]


def _split(part: bytes, where: str) -> tuple[dict[str, str], bytes]:
    """Return headers, with names in lower case, and what follows them. Raises `BadRequest`."""
    match = _BLANK.search(part)
    head, content = (part[: match.start()], part[match.end() :]) if match else (part, b"")
    headers = {}
    lines = [line for line in head.decode("latin-1").splitlines() if line.strip()]
    if len(lines) > HEADERS_MAX:
        raise BadRequest(f"{where}: has more than {HEADERS_MAX} headers")
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(f"{where}: '{line[:60]}' is not a header; give NAME: VALUE and an empty line after all")
        headers[name.strip().lower()] = value.strip()
    return headers, content


def _http_request(headers: dict[str, str], content: bytes, where: str, group: str) -> BatchedRequest:
    if _media(headers.get("content-type", "")) != "application/http":
        raise BadRequest(f"{where}: Content-Type: is not application/http; give a request as it")
    line, _, rest = content.lstrip(b"\r\n").partition(b"\n")
    words = line.decode("utf-8", "replace").split()
    if len(words) not in (2, 3):
        raise BadRequest(
            f"{where}: '{line[:60].decode('utf-8', 'replace')}' is not a request line; give METHOD URL HTTP/1.1"
        )
    inner, body = _split(rest, where)
    request = BatchedRequest(
        id=headers.get("content-id", inner.get("content-id", "")),
        method=words[0].upper(),
        url=words[1],
        media=_media(inner.get("content-type", JSON)),
        body=body.strip(b"\r\n"),
        group=group,
    )
    return _checked(where, request)


def _checked(where: str, request: BatchedRequest) -> BatchedRequest:
    if request.method not in METHODS:
        raise BadRequest(f"{where}: method: '{request.method[:20]}' is unknown; use {', '.join(METHODS)}")
    if request.id and not _ID.fullmatch(request.id):
        raise BadRequest(f"{where}: id: '{request.id[:40]}' is not one; give letters, digits and _.:,;-")
    return request


def _media(text: str) -> str:
    return text.partition(";")[0].strip().lower()


# ── references ────────────────────────────────────────────────────────────────────────────────────────


class CreatedEntities:
    """Entities that requests of a batch created; later requests refer to them as ``$ID``."""

    def __init__(self) -> None:
        self._created: dict[str, tuple[str, int]] = {}

    def add(self, name: str, path: str, number: int) -> None:
        """Add an entity at a path such as ``Things(5)``."""
        self._created[name] = path, number

    def url(self, url: str) -> str:
        """Return a URL with references to created entities replaced: ``$ID/Datastreams``, ``Things($ID)``."""
        head, slash, rest = url.partition("/")
        if head.startswith("$") and head[1:] in self._created:
            url = f"{self._created[head[1:]][0]}{slash}{rest}"
        for name, (_, number) in self._created.items():
            url = url.replace(f"(${name})", f"({number})")
        return url

    def body(self, raw: bytes) -> bytes:
        """Return a JSON body with ``{"@iot.id": "$ID"}`` replaced; what is not JSON stays."""
        if not self._created or b"$" not in raw:
            return raw
        try:
            return msgspec.json.encode(self._replaced(msgspec.json.decode(raw)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return raw

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._replaced(part) for part in value]
        if not isinstance(value, dict):
            return value
        return {name: self._number(part) if name == "@iot.id" else self._replaced(part) for name, part in value.items()}

    def _number(self, value: object) -> object:
        known = self._created.get(value[1:]) if isinstance(value, str) and value.startswith("$") else None
        return known[1] if known else value


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────


def json_answer(answers: Sequence[BatchedAnswer]) -> bytes:
    """Return the answers as JSON."""
    responses = []
    for answer in answers:
        response: dict[str, Any] = {"id": answer.id, "status": answer.status}
        if answer.media:
            response["headers"] = {"content-type": answer.media}
        if answer.location:
            response.setdefault("headers", {})["location"] = response["location"] = answer.location
        if answer.group:
            response["atomicityGroup"] = answer.group
        if answer.body:
            is_json = answer.media.endswith("json")
            response["body"] = msgspec.Raw(answer.body) if is_json else answer.body.decode("utf-8", "replace")
        responses.append(response)
    return msgspec.json.encode({"responses": responses})


def multipart_answer(answers: Sequence[BatchedAnswer]) -> tuple[bytes, str]:
    """Return (body, Content-Type) of the answers in parts; those of a change set are in a part of their own."""
    parts = []
    groups: dict[str, list[BatchedAnswer]] = {}
    for number, answer in enumerate(answers):
        groups.setdefault(answer.group or f"alone {number}", []).append(answer)
    for name, members in groups.items():
        if name.startswith("alone "):
            parts.append(_http_answer(members[0]))
        else:
            body, kind = _joined([_http_answer(member) for member in members], "changeset")
            parts.append(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    return _joined(parts, "batch")


def _joined(parts: Sequence[bytes], word: str) -> tuple[bytes, str]:
    boundary = f"{word}_{secrets.token_hex(12)}"
    mark = b"--" + boundary.encode()
    body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
    return body, f"{MULTIPART}; boundary={boundary}"


def _http_answer(answer: BatchedAnswer) -> bytes:
    outer = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    if answer.id:
        outer.append(f"Content-ID: {answer.id}")
    inner = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    if answer.media:
        inner.append(f"Content-Type: {answer.media}")
    if answer.location:
        inner.append(f"Location: {answer.location}")
    inner.append(f"Content-Length: {len(answer.body)}")
    head = "\r\n".join([*outer, "", *inner, "", ""])
    return head.encode() + answer.body
