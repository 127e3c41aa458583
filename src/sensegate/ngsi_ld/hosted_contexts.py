"""Documents with an @context that clients stored here: under an address of this gateway, or under their own URL.

A request that names a URL elsewhere is answered from the copy that somebody stored under it, since nothing is fetched.
An @context that stood inside a request has an address too, so that an answer as JSON can name it; it is kept in memory,
as long as others do not take its place; that of a subscription as long as the subscription.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter, OrderedDict
from enum import StrEnum
from typing import Any

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Trail
from sensegate.clock import Clock
from sensegate.errors import Overloaded
from sensegate.ngsi_ld.contexts import DOCUMENT_BYTES_MAX, IRI_MAX, ContextSource, LdContexts
from sensegate.ngsi_ld.core_context import CORE_URLS
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.web.parts import PartKey

PATH = "/ngsi-ld/v1/jsonldContexts"
DOCUMENTS_MAX = 500
IMPLICIT_MAX, IMPLICIT_BYTES_MAX = 500, 16_777_216
"""Most documents that stood inside requests, and their size; the one that was used longest ago gives way."""
_URL = re.compile(r"https?://[^\s<>\"{}|\\^`]+")
_ADDRESS = re.compile(r"https?://[^/]+(?:/feeds/[^/]+)?/ngsi-ld/v1/jsonldContexts/([0-9a-f]{16})")


class ContextKind(StrEnum):
    """Kind of a stored @context, as the standard names it."""

    HOSTED = "Hosted"
    CACHED = "Cached"
    """A copy of a document whose address is elsewhere."""
    IMPLICIT = "ImplicitlyCreated"
    """A context that was given inside a request."""


class HostedContext(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A stored document."""

    id: str
    document: ContextSource
    """Value of its `@context`."""
    url: str = ""
    """Address elsewhere for which it stands; empty: it has one of this gateway."""
    division: str
    department: str = ""
    created: int = 0
    is_implicit: bool = False
    revision: int = 0
    format: int = 1

    @property
    def kind(self) -> ContextKind:
        """Kind, as the standard names it."""
        if self.is_implicit:
            return ContextKind.IMPLICIT
        return ContextKind.CACHED if self.url else ContextKind.HOSTED


class HostedContexts:
    """The stored documents; `resolver` makes the contexts of requests of them."""

    def __init__(self, store: RecordStore, trail: Trail, clock: Clock) -> None:
        """Attach them to a store, which fills them."""
        self._trail = trail
        self._clock = clock
        self._id_of: dict[str, str] = {}
        self._implicit: OrderedDict[str, HostedContext] = OrderedDict()
        self._implicit_bytes: dict[str, int] = {}
        self._pinned: dict[str, HostedContext] = {}
        self._pins: Counter[str] = Counter()
        self.resolver = LdContexts(self._document)
        self.records: RecordTable[HostedContext] = RecordTable(store, "context", HostedContext)
        self.records.on_change.append(self._index)

    def _index(self, before: HostedContext | None, after: HostedContext | None) -> None:
        if before is not None and before.url:
            self._id_of.pop(before.url, None)
        if after is not None and after.url:
            self._id_of[after.url] = after.id
        self.resolver.forget()

    def _document(self, url: str) -> ContextSource | None:
        match = _ADDRESS.fullmatch(url)
        name = self._id_of.get(url) or (match[1] if match else "")
        context = self._find(name) if name else None
        return context.document if context else None

    def _find(self, name: str) -> HostedContext | None:
        return self.records.find(name) or self._pinned.get(name) or self._implicit.get(name)

    def all(self) -> list[HostedContext]:
        """Return all documents."""
        return [*self.records, *{**self._implicit, **self._pinned}.values()]

    def pin(self, source: ContextSource) -> None:
        """Keep an @context that stood inside a request until `unpin` was called as often."""
        context = self._implicit_of(source)
        known = self._pinned.get(context.id, context)
        self._pinned[context.id] = known
        self._pins[context.id] += 1

    def unpin(self, source: ContextSource) -> None:
        """Take back one `pin`."""
        name = self._implicit_of(source).id
        self._pins[name] -= 1
        if self._pins[name] <= 0:
            del self._pins[name]
            self._pinned.pop(name, None)

    def implicit(self, source: ContextSource) -> HostedContext:
        """Return the document of an @context that stood inside a request: the same one for the same @context."""
        made = self._implicit_of(source)
        name = made.id
        if (pinned := self._pinned.get(name)) is not None:
            return pinned
        context = self._implicit.pop(name, None) or made
        self._implicit[name] = context
        self._implicit_bytes[name] = len(msgspec.json.encode(source))
        while len(self._implicit) > IMPLICIT_MAX or sum(self._implicit_bytes.values()) > IMPLICIT_BYTES_MAX:
            oldest, _ = self._implicit.popitem(last=False)
            del self._implicit_bytes[oldest]
        return context

    def _implicit_of(self, source: ContextSource) -> HostedContext:
        raw = msgspec.json.encode(source, order="sorted")
        name = hashlib.blake2b(raw, digest_size=8).hexdigest()
        return HostedContext(id=name, document=source, division="", created=self._clock.now(), is_implicit=True)

    def get(self, name: str) -> HostedContext:
        """Return a document by its id. Raises `NgsiError`."""
        context = self._find(name)
        if context is None:
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no @context '{name[:80]}' here")
        return context

    async def create(self, principal: Principal, body: Any, url: str = "") -> HostedContext:
        """Store a document.

        Args:
            principal: who stores it; it belongs to its division and department.
            body: JSON object with an `@context`.
            url: address elsewhere for which it stands.

        Raises:
            NgsiError: it is invalid, too large, or there is one of this address.
            PermissionDenied, Overloaded, Unavailable.
        """
        scope = principal.scope
        demand(principal, Action.CHANGE_DEVICES, scope.division, scope.department)
        if not isinstance(body, dict) or set(body) != {"@context"}:
            raise bad_data('body: is not a JSON object with nothing but an @context; give {"@context": …}')
        if len(msgspec.json.encode(body)) > DOCUMENT_BYTES_MAX:
            raise bad_data(f"body: is too large; give at most {DOCUMENT_BYTES_MAX} bytes")
        self.resolver.resolve(body["@context"])
        if url and (len(url) > IRI_MAX or not _URL.fullmatch(url) or _ADDRESS.fullmatch(url)):
            raise bad_data(f"query: url: '{url[:60]}' is not an address elsewhere; give https://HOST/PATH")
        if url in CORE_URLS or url in self._id_of:
            raise NgsiError(
                ErrorType.ALREADY_EXISTS, f"query: url: an @context of {url[:200]} is here; delete it first"
            )
        if len(self.records) >= DOCUMENTS_MAX:
            raise Overloaded(f"there are {DOCUMENTS_MAX} stored @contexts; delete some first")
        context = HostedContext(
            id=secrets.token_hex(8),
            document=body["@context"],
            url=url,
            division=scope.division,
            department=scope.department,
            created=self._clock.now(),
        )
        await self._trail.record(principal, "ngsi_ld.context.create", context.id, after={"url": url})
        return await self.records.put(context.id, context, expected=0)

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete a document. Raises `NgsiError`, `PermissionDenied`, `Conflict`, `Unavailable`."""
        context = self.get(name)
        if context.is_implicit:
            raise NgsiError(
                ErrorType.OPERATION_NOT_SUPPORTED, f"@context '{name}' stood inside a request and ends by itself"
            )
        demand(principal, Action.CHANGE_DEVICES, context.division, context.department)
        await self._trail.record(principal, "ngsi_ld.context.delete", name, before={"url": context.url})
        await self.records.delete(name, expected=context.revision)


HOSTED = PartKey[HostedContexts]("ngsi-ld stored contexts", absent="this gateway has no NGSI-LD API")
