"""REST: the ledger, the four indicators, the quarantine, the audit trail."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from sensegate.authority.scope import Action, Principal, allows
from sensegate.bus import ledger as kinds
from sensegate.bus import raw
from sensegate.bus.ledger import Ledger, LedgerCount
from sensegate.bus.names import city_of, node_of
from sensegate.bus.unreadable import read
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.model import DeviceState
from sensegate.normalise.book import QualityRow
from sensegate.web import listing
from sensegate.web.bodies import AuditRow, LedgerAnswer, LedgerRow, QuarantineRow
from sensegate.web.deps import Deps
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Param, Route, iso, payload_text

_BY = ("node", "division", "device", "hour", "reason")
_SCAN_ENTRIES = 20_000
_ALL = 999_999_999
"""Index that stands after every message of an entry."""
_GROUPS = {
    kinds.MESSAGES: "messages",
    kinds.DECODED: "decoded",
    kinds.QUARANTINED: "quarantined",
    kinds.VALUES: "values",
    kinds.ACCEPTED: "accepted",
    kinds.DUPLICATE: "duplicates",
    kinds.SUPPRESSED: "suppressed",
    kinds.REJECTED: "rejected",
    kinds.DOWNSAMPLED: "downsampled",
    kinds.FORWARDED: "forwarded",
    kinds.WITHHELD: "withheld",
    kinds.REFUSED_BY_CENTRE: "refused_by_centre",
}
Counts = dict[str, int]
Places = Callable[[str], tuple[str, str] | None]
"""Device id -> (division, department); None where it is not known here."""


def balanced(totals: Counts) -> bool:
    """Return whether messages and values are all accounted for."""
    sums: Counts = defaultdict(int)
    for kind, count in totals.items():
        sums[kind.partition(".")[0]] += count
    messages = sums[kinds.MESSAGES] - sums[kinds.DECODED] - sums[kinds.QUARANTINED]
    again = sums[kinds.REDECODED] - sums[kinds.RECOVERED] - sums[kinds.REREAD] - sums[kinds.STILL_REFUSED]
    ways = (kinds.ACCEPTED, kinds.DUPLICATE, kinds.SUPPRESSED, kinds.REJECTED, kinds.DOWNSAMPLED)
    return messages == 0 and again == 0 and sums[kinds.VALUES] == sum(sums[kind] for kind in ways)


def row_of(counts: Counts, by: str = "", key: str = "") -> LedgerRow:
    """Return counts by kind as one row of the table."""
    sums: Counts = defaultdict(int)
    for kind, count in counts.items():
        if group := _GROUPS.get(kind.partition(".")[0]):
            sums[group] += count
    made = msgspec.convert(sums, LedgerRow)
    return msgspec.structs.replace(made, **{by: key}) if by else made


def _places(deps: Deps) -> Places:
    def place(device: str) -> tuple[str, str] | None:
        at = deps.devices.find(device)
        if at < 0:
            return None
        record = deps.devices.record(at)
        return record.division, record.department

    return place


class _Cut:
    """What a caller may see of a node's ledger."""

    def __init__(self, principal: Principal, places: Places) -> None:
        self._principal = principal
        self._places = places
        self._known: dict[str, bool] = {}

    def whole(self, node: str) -> bool:
        """Return whether the caller may see all of a node."""
        return allows(self._principal, Action.READ_LEDGER, city_of(node))

    def device(self, name: str, node: str, told: tuple[str, str] = ("", "")) -> bool:
        """Return whether the caller may see a device's counts; unknown ones belong to the node alone.

        `told`: (division, department) that the ledger itself says; the registry's word goes first.
        """
        if self.whole(node):
            return True
        if name not in self._known:
            place = self._place(name, told)
            self._known[name] = place is not None and allows(self._principal, Action.READ_LEDGER, *place)
        return self._known[name]

    def division(self, name: str, node: str, told: tuple[str, str]) -> str:
        """Return where a device's counts belong; the node's own division where it is not known."""
        place = self._place(name, told)
        return place[0] if place else city_of(node)

    def _place(self, name: str, told: tuple[str, str]) -> tuple[str, str] | None:
        return (self._places(name) if name else None) or (told if told[0] else None)


def tally(parts: Iterable[tuple[str, Ledger]], cut: _Cut, by: str) -> tuple[dict[str, Counts], Counts]:
    """Return (key of `by` -> counts by kind, totals), cut to the caller."""
    groups: dict[str, Counts] = defaultdict(lambda: defaultdict(int))
    totals: Counts = defaultdict(int)
    divisions: dict[str, str] = {}
    for node, ledger in parts:
        if cut.whole(node) and by in {"node", "reason"}:
            for kind, count in ledger.totals().items():
                groups[node if by == "node" else kind][kind] += count
                totals[kind] += count
            continue
        for row in ledger.rows():
            told = ledger.place_of(row.device)
            if not cut.device(row.device, node, told):
                continue
            if by == "division" and row.device not in divisions:
                divisions[row.device] = cut.division(row.device, node, told)
            groups[_key(row, by, node, divisions)][row.kind] += row.count
            totals[row.kind] += row.count
    return groups, totals


def _key(row: LedgerCount, by: str, node: str, divisions: dict[str, str]) -> str:
    match by:
        case "division":
            return divisions[row.device]
        case "device":
            return row.device
        case "hour":
            return iso(row.hour * HOUR_US)
        case "reason":
            return row.kind
    return node


async def _ledger(call: Call) -> Any:
    deps, by = call.deps, call.text("by", "node")
    if by not in _BY:
        raise BadRequest(f"query: by: '{by[:20]}'; one of {', '.join(_BY)}")
    since = call.time("since") or deps.clock.now() - HOUR_US
    first = since // HOUR_US
    wanted = call.words("node")
    nodes = [node for node in deps.books.nodes(first) if not wanted or node in wanted]
    cut = _Cut(call.principal, _places(deps))
    parts = [(node, deps.books.sums(node, first)) for node in nodes]
    # Row by row it can take long; the parts are copies, so that a thread may walk them.
    groups, totals = await asyncio.to_thread(tally, parts, cut, by)
    refused = {name: counts for name, counts in deps.refused().items() if cut.device(name, deps.division)}
    if by == "device":
        groups.update({name: {} for name in refused if name not in groups})
    rows = [row_of(counts, by, key) for key, counts in sorted(groups.items())]
    if by == "device":
        rows = [msgspec.structs.replace(row, refused=sum(refused.get(row.device, {}).values())) for row in rows]
    if by == "reason":
        rows = [LedgerRow(reason=kind, count=count) for kind, count in sorted(totals.items())]
    limit = call.whole("limit", deps.config.page_max, deps.config.page_max)
    return LedgerAnswer(
        rows[:limit],
        dict(sorted(totals.items())),
        balanced(totals),
        _delivered(call),
        _summed(refused.values()),
        iso(first * HOUR_US),
        deps.role,
        deps.division,
    )


def _summed(parts: Iterable[Mapping[str, int]]) -> Counts:
    total: Counts = defaultdict(int)
    for part in parts:
        for kind, count in part.items():
            total[str(kind)] += count
    return dict(sorted(total.items()))


def _delivered(call: Call) -> int:
    tokens = {token.id for token in call.deps.tokens.list(call.principal, limit=1_000_000)}
    whole = allows(call.principal, Action.READ_LEDGER, call.deps.division)
    mine = call.principal.id
    return sum(row.records for row in call.deps.share.usage() if whole or row.token in tokens or row.token == mine)


async def _quality(call: Call) -> Any:
    deps, cut = call.deps, _Cut(call.principal, _places(call.deps))
    since = call.time("since") or deps.clock.now() - HOUR_US
    rows = [row for row in deps.quality(since) if cut.device(row.device, deps.division)]
    return listing.answer(call, rows, QualityRow, "device")


async def _quarantine(call: Call) -> Any:
    """Walk the log from `after` or `since`; a page may be short where the log is long: `next` says where to go on."""
    deps, cut = call.deps, _Cut(call.principal, _places(call.deps))
    begin = _place(call.text("after"))
    after = begin[0] - 1
    if not call.text("after"):
        after = await deps.log.sequence_at(call.time("since") or deps.clock.now() - HOUR_US) - 1
    limit, reasons, devices = call.whole("limit", 100, 1_000), call.words("reason"), call.words("device")
    rows: list[QuarantineRow] = []
    seen = 0
    while len(rows) < limit and seen < _SCAN_ENTRIES:
        entries = await deps.log.fetch(after)
        if not entries:
            return {"rows": rows}
        for entry in entries:
            seen, after = seen + 1, entry.sequence
            if not entry.subject.startswith("quarantine."):
                continue
            node = node_of(entry.subject)
            for index, kept in enumerate(read(entry, "quarantine page", raw.decode_any) or ()):
                if entry.sequence == begin[0] and index <= begin[1]:
                    continue
                wanted = (not reasons or kept.reason in reasons) and (not devices or kept.device in devices)
                if wanted and (cut.device(kept.device, node) or _own_refusal(kept, call)):
                    rows.append(_kept(f"{entry.sequence}.{index}", kept))
                if len(rows) >= limit:
                    return {"rows": rows, "next": rows[-1].entry}
    return {"rows": rows, "next": f"{after}.{_ALL}"}


def _place(text: str) -> tuple[int, int]:
    """Return (sequence, index) of the last message seen; nothing seen: (0, -1)."""
    if not text:
        return 0, -1
    sequence, _, index = text.partition(".")
    if not (sequence.isdecimal() and index.isdecimal() and len(text) < 40):
        raise BadRequest(f"query: after: '{text[:40]}'; give `next` of the page before")
    return int(sequence), int(index)


def _own_refusal(kept: raw.StoredMessage, call: Call) -> bool:
    """Return whether a message of a device that is not known belongs to the caller by the credential it came with."""
    if kept.device or not kept.message.principal:
        return False
    try:
        device = call.deps.devices.get(kept.message.principal, call.principal)
    except NotFound:
        return False
    return device.state is not DeviceState.RETIRED


def _kept(entry: str, kept: raw.StoredMessage) -> QuarantineRow:
    message = kept.message
    return QuarantineRow(
        entry,
        iso(message.received),
        kept.source,
        message.topic[:500],
        kept.device,
        kept.profile,
        kept.reason,
        kept.detail[:2_000],
        payload_text(message.payload),
        len(message.payload),
    )


async def _audit(call: Call) -> Any:
    if not allows(call.principal, Action.READ_AUDIT, call.deps.division):
        return {"rows": []}
    after = call.whole("after", 1, 2**53) if call.text("after") else 0
    limit = call.whole("limit", 500, 5_000)
    rows = [
        AuditRow(
            sequence,
            record.number,
            iso(record.time),
            record.actor,
            record.role,
            record.action,
            record.target,
            record.before,
            record.after,
        )
        for sequence, record in await call.deps.audit.read(after, limit=limit)
    ]
    answer: dict[str, Any] = {"rows": rows}
    if len(rows) == limit:
        answer["next"] = str(rows[-1].entry)
    return answer


_SINCE = Param("since", "from this time on, or how far back (30m, 1h, 7d); default 1h")
_FROM = (Param("after", "`next` of the page before"), Param("limit", "most rows", "integer"))
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/ledger",
        call=_ledger,
        what="The conservation table of whole hours.",
        tag="books",
        action=Action.READ_LEDGER,
        query=(
            _SINCE,
            Param("by", f"what a row stands for: {', '.join(_BY)}"),
            Param("node", "only these nodes"),
            Param("limit", "most rows", "integer"),
        ),
        answer=LedgerAnswer,
    ),
    Route(
        method="GET",
        path=f"{API}/quality",
        call=_quality,
        what="Authenticity, accuracy, continuity, completeness by device and hour.",
        tag="books",
        action=Action.READ_LEDGER,
        query=(_SINCE, *listing.params(QualityRow)),
        answer=list[QualityRow],
    ),
    Route(
        method="GET",
        path=f"{API}/quarantine",
        call=_quarantine,
        what="Messages that became no reading, whole, with the reason.",
        tag="books",
        action=Action.READ_QUARANTINE,
        query=(_SINCE, *_FROM, Param("reason", "only these reasons"), Param("device", "only of these devices")),
        answer=list[QuarantineRow],
    ),
    Route(
        method="GET",
        path=f"{API}/audit",
        call=_audit,
        what="The audit trail, oldest first.",
        tag="books",
        action=Action.READ_AUDIT,
        query=_FROM,
        answer=list[AuditRow],
    ),
)
