"""Parts of spans that a centre must not take, each with the reason that it gives."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from sensegate.bus import columns
from sensegate.bus.columns import Batch
from sensegate.bus.commit_records import WithheldRange
from sensegate.bus.ledger import Ledger
from sensegate.bus.packing import encode_map
from sensegate.clock import HOUR_US
from sensegate.model import SheddingRule
from sensegate.tiers.protocol import PARTS_MAX, Lane, LaneUpdate, PartKind, SpanPart, SpanRequest
from sensegate.tiers.verdict import Reason
from tests.border.hostile import HostileNode, Lie, part, rows
from tests.bus.damage import opened

SENDER, VICTIM = "4403", "4401"
OWN_DIVISION, FOREIGN_DIVISION = "440305", "440106"
OWN_DEVICE, FOREIGN_DEVICE = "sz-1", "gz-1"
MANY_ROWS, MOST_ROWS = 200_000, (1 << 24) - 1
"""More than the bytes hold, and as many as a batch can say."""


def oversized(batch: Batch, claimed: int) -> bytes:
    """Return some hundred bytes that claim very many rows."""
    tree: dict[str, Any] = opened(columns.encode(batch))
    tree |= {"rows": claimed, "props": ["x"], "counts": [0, claimed]}
    tree["value"] = [b"\x00", [0, 0], False, 1, b"", b""]
    tree["cols"] = {name: [0, 1] for name in tree["cols"]}
    return encode_map({key: value for key, value in tree.items() if key != "v"})


def ledger(start: int, **counts: int) -> bytes:
    """Return a ledger of one hour, source and device."""
    made = Ledger()
    for kind, count in counts.items():
        made.add(start // HOUR_US, OWN_DEVICE, "mqtt", kind.replace("__", "."), count)
    return made.encode()


def lies(start: int, *, foreign_device: str = FOREIGN_DEVICE) -> list[Lie]:
    """Return the lies, with readings of about a time, one of them of a device that another node owns."""

    def own(**more: Any) -> Batch:
        return rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=start, **more)

    def bytes_of(payload: bytes, kind: PartKind = PartKind.READINGS, grade: int = 1, count: int = 1) -> SpanPart:
        return SpanPart(kind, payload, grade, count)

    def lie(name: str, lying: SpanPart, *reasons: Reason) -> Lie:
        return Lie(name, (lying,), frozenset(reasons))

    far = np.array([2**62], np.int64)
    odd = msgspec.structs.replace(own(), origins=msgspec.structs.replace(own().origins, device=["sz\x001"]))
    return [
        lie("rows of another node", part(rows(VICTIM, OWN_DEVICE, OWN_DIVISION, start=start)), Reason.FOREIGN_NODE),
        lie("an impossible partition", part(msgspec.structs.replace(own(), partition=5_000)), Reason.FOREIGN_NODE),
        lie("another city", part(rows(SENDER, "sz-2", FOREIGN_DIVISION, start=start)), Reason.AREA),
        lie("no division", part(rows(SENDER, "sz-2", "", start=start)), Reason.AREA),
        lie("another's device", part(rows(SENDER, foreign_device, OWN_DIVISION, start=start)), Reason.FOREIGN_DEVICE),
        lie("more rows than bytes", bytes_of(oversized(own(), MANY_ROWS), count=MANY_ROWS), Reason.OVERSIZED),
        lie("sixteen million rows", bytes_of(oversized(own(), MOST_ROWS), count=MOST_ROWS), Reason.OVERSIZED),
        lie("an empty object", bytes_of(b"{}"), Reason.UNREADABLE),
        lie("nothing", bytes_of(b""), Reason.UNREADABLE),
        lie("nested for ever", bytes_of(b"\x93" + b"\x91" * 50_000), Reason.UNREADABLE),
        lie("noise", bytes_of(b"\xc1" * 5_000), Reason.UNREADABLE),
        lie("without first commit", part(own(seq=np.zeros(1, np.int64))), Reason.IDENTITY),
        lie("a time that is none", part(own(time=far)), Reason.TIME),
        lie("a name that is none", part(odd), Reason.NAME),
        lie("no grade", part(own(), grade=0), Reason.KIND),
        lie("garbage as observations", bytes_of(b"{}", PartKind.OBSERVATIONS, 2), Reason.UNREADABLE),
        lie("garbage as ledger", bytes_of(b"{}", PartKind.LEDGER, 0, 0), Reason.UNREADABLE),
        lie("garbage as numbers", bytes_of(b"{}", PartKind.SEQUENCES, 0, 0), Reason.UNREADABLE),
        lie("negative counts", bytes_of(ledger(start, messages=-5), PartKind.LEDGER, 0, 0), Reason.COUNT),
        lie("counts of the centre", bytes_of(ledger(start, forwarded=5), PartKind.LEDGER, 0, 0), Reason.COUNT),
        lie(
            "counts that do not balance",
            bytes_of(ledger(start, messages=5, decoded=1, values=1, accepted=9), PartKind.LEDGER, 0, 0),
            Reason.BALANCE,
        ),
    ]


def _moved(request: SpanRequest, *moves: LaneUpdate, **changes: Any) -> SpanRequest:
    return msgspec.structs.replace(request, updates=moves or request.updates, **changes)


def frame_lies(hostile: HostileNode) -> dict[str, tuple[SpanRequest, str]]:
    """Return spans whose frame lies, each with what is to become of it."""
    request = hostile.request()
    live, backlog = hostile.lanes[Lane.LIVE], hostile.lanes[Lane.BACKLOG]
    move, back = request.updates[0], LaneUpdate(Lane.BACKLOG, backlog.number, 0)
    writer, shed = request.writer, (SheddingRule("44", "", frozenset({"air_temperature"})),)
    far = live.position + 1_000
    return {
        "an old record": (_moved(request, msgspec.structs.replace(move, base_number=move.base_number - 1)), "stale"),
        "a record to come": (_moved(request, msgspec.structs.replace(move, base_number=move.base_number + 1)), "stale"),
        "another process": (_moved(request, writer=msgspec.structs.replace(writer, token="other")), "unclaimed"),
        "another store": (_moved(request, writer=msgspec.structs.replace(writer, id="other")), "unclaimed"),
        "another log": (_moved(request, log_epoch="other"), "unclaimed"),
        "a position before": (_moved(request, msgspec.structs.replace(move, position=live.position - 1)), "refused"),
        "live ranges": (_moved(request, msgspec.structs.replace(move, ranges=((0, 1),))), "refused"),
        "a lane twice": (_moved(request, move, move), "refused"),
        "a range not given": (_moved(request, msgspec.structs.replace(back, ranges=((far, far + 5),))), "refused"),
        "ranges out of order": (_moved(request, msgspec.structs.replace(back, ranges=((5, 9), (1, 4)))), "refused"),
        "a backlog ahead": (_moved(request, msgspec.structs.replace(back, position=far)), "refused"),
        "kept back of nothing": (
            _moved(request, msgspec.structs.replace(move, withheld=(WithheldRange(far, far + 5, shed, 4),))),
            "refused",
        ),
        "an unknown refusal": (_moved(request, resend_of="000000000000"), "stale"),
        "too many parts": (
            _moved(request, parts=(SpanPart(PartKind.LEDGER, b""),) * (PARTS_MAX + 1)),
            "refused",
        ),
    }
