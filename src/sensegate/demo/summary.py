"""Summary of a demo: one JSON object, a contract read by programs outside of the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensegate.demo.city import CityMember
from sensegate.demo.faults import FAULTS, ExpectedOutcome, injected_counts
from sensegate.demo.memory import MemoryUsage
from sensegate.demo.workers import write_private


class MemberAddress(msgspec.Struct, frozen=True):
    """Addresses and processes of the centre or a node."""

    division: str
    http: str
    mqtt: str
    pid: int
    engine_pid: int
    committed: int = 0
    """Readings accepted into its log from its own devices."""
    forwarded: int = 0
    withheld: int = 0
    balanced: bool = True


class ManualDevice(msgspec.Struct, frozen=True):
    """A device on the plain layout that the simulator does not use."""

    id: str
    node: str
    username: str
    password: str
    topic: str


class DemoTokens(msgspec.Struct, frozen=True):
    """Tokens for manual use."""

    admin: str
    subscriber: str


class Summary(msgspec.Struct, frozen=True):
    """Result of a run, from the judge and from the ledgers."""

    centre: MemberAddress
    nodes: list[MemberAddress]
    tokens: DemoTokens
    devices: list[ManualDevice]
    feeds: list[str]
    console: str
    directory: str
    seed: int
    published: int = 0
    """Messages that the simulator was about to send."""
    acknowledged: int = 0
    """Messages for which it received a PUBACK."""
    committed: int = 0
    """Readings accepted by the nodes."""
    duplicates: dict[str, int] = {}
    """Values by kind; a conflict is an accepted revision."""
    quarantined: dict[str, int] = {}
    """Messages by reason."""
    rejected: dict[str, int] = {}
    """Values by reason."""
    forwarded: int = 0
    withheld: dict[str, int] = {}
    refused_by_centre: dict[str, int] = {}
    """Rows of the nodes that the centre did not take, by reason."""
    delivered: int = 0
    """Readings of the simulators' devices delivered to the centre's subscriber."""
    by_hand: int = 0
    """Readings of all other devices delivered to it: a person has published them."""
    injected: dict[str, int] = {}
    """Injected faults: kinds of duplicates and flags in values, all others in messages."""
    recognised: bool = True
    """True if the gateways counted every fault under its name, no more and no less."""
    unrecognised: dict[str, tuple[int, int]] = {}
    """Kind -> (injected, counted), where the two differ."""
    lost: int = 0
    doubled: int = 0
    verdicts: dict[str, int] = {}
    """The judge's other counts: phantom, corrupt, disordered, unmarked, leaked."""
    balanced: bool = True
    latency_ms: dict[str, float] = {}
    live_latency_ms: dict[str, float] = {}
    """The same without the backlog after the link was cut."""
    resent: int = 0
    """Messages sent again because their connection broke before the PUBACK."""
    samples: list[str] = []
    """Examples of the judge's findings."""
    simulated: int = 0
    """Devices of the simulator."""
    memory: MemoryUsage = MemoryUsage()
    """Memory of all processes of the demo."""
    cameras: list[dict[str, str]] = []
    """Cameras that the simulator does not use; /VIID/… is below `viid`, ONVIF XML is posted to `onvif`."""
    objects: dict[str, int] = {}
    """Objects reported by cameras: acknowledged = delivered + duplicates + refused."""

    @property
    def failed(self) -> bool:
        """Return whether the demo must fail."""
        # A message sent again may change its kind, and one published manually adds to the counts.
        missed = not self.resent and any(counted < injected for injected, counted in self.unrecognised.values())
        accounted = sum(self.objects.get(name, 0) for name in ("delivered", "duplicates", "refused"))
        missed = missed or self.objects.get("acknowledged", 0) != accounted
        return bool(self.lost or self.doubled or not self.balanced or any(self.verdicts.values()) or missed)

    def write(self, path: Path) -> None:
        """Write the summary with mode 0600: it holds tokens."""
        partial = path.with_name(f".{path.name}.partial")
        write_private(partial, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n").replace(path)


def by_reason(totals: Mapping[str, int], name: str) -> dict[str, int]:
    """Return ``reason -> count`` of the kinds ``name.reason``."""
    prefix = f"{name}."
    return {kind.removeprefix(prefix): count for kind, count in sorted(totals.items()) if kind.startswith(prefix)}


def sum_ledgers(ledgers: list[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of several totals."""
    total: dict[str, int] = {}
    for ledger in ledgers:
        for kind, count in ledger.items():
            total[kind] = total.get(kind, 0) + count
    return total


def member_address(member: CityMember, totals: Mapping[str, int], *, balanced: bool) -> MemberAddress:
    """Return a member's entry of the summary."""
    return MemberAddress(
        division=member.division,
        http=member.url,
        mqtt=f"mqtt://127.0.0.1:{member.mqtt_port}",
        pid=member.process.pid,
        engine_pid=member.engine_pid,
        committed=totals.get("accepted", 0),
        forwarded=totals.get("forwarded", 0),
        withheld=sum(by_reason(totals, "withheld").values()),
        balanced=balanced,
    )


def duplicates(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the kinds of duplicates with their counts."""
    kinds = {**by_reason(totals, "duplicate"), **by_reason(totals, "suppressed")}
    if conflicts := totals.get("conflict", 0):
        kinds["conflict"] = conflicts
    return kinds


def unrecognised_faults(injected: Mapping[str, int], totals: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return kind -> (injected, counted) where the nodes counted another number than was injected."""
    differing: dict[str, tuple[int, int]] = {}
    for kind, count in injected.items():
        if kind not in FAULTS:
            continue
        match FAULTS[kind].outcome:
            case ExpectedOutcome.DUPLICATE:
                seen = duplicates(totals).get(kind, 0)
            case ExpectedOutcome.FLAG:
                seen = totals.get(kind, 0)
            case ExpectedOutcome.QUARANTINE:
                seen = totals.get(f"quarantined.{kind}", 0)
            case ExpectedOutcome.REJECTION:
                seen = totals.get(f"rejected.{kind}", 0)
            case ExpectedOutcome.REFUSAL:
                continue  # counted by `authority`, outside of the ledger: the message was never accepted
        if seen != count:
            differing[kind] = (count, seen)
    return differing


def with_verdict(summary: Summary, verdict: Mapping[str, Any], totals: Mapping[str, int]) -> Summary:
    """Return the summary with the judge's verdict and the nodes' totals."""
    centre = verdict["taps"]["centre"]
    injected = injected_counts(verdict["injected_messages"], verdict["injected_values"])
    missed = unrecognised_faults(injected, totals)
    return msgspec.structs.replace(
        summary,
        published=verdict["published"],
        acknowledged=verdict["acknowledged"],
        delivered=centre["records"],
        by_hand=verdict.get("by_hand", 0),
        injected=injected,
        recognised=not missed,
        unrecognised=missed,
        lost=sum(tap["lost"] for tap in verdict["taps"].values()),
        doubled=sum(tap["doubled"] for tap in verdict["taps"].values()),
        verdicts={
            name: sum(tap[name] for tap in verdict["taps"].values())
            for name in ("phantom", "corrupt", "disordered", "unmarked", "leaked")
        },
        latency_ms={name: centre["latency_ms"].get(name, 0.0) for name in ("p50", "p99")},
        live_latency_ms={name: centre["live_latency_ms"].get(name, 0.0) for name in ("p50", "p99")},
        resent=verdict["resent"],
        objects={**verdict.get("objects", {}), "delivered": centre.get("objects", 0)},
        samples=[sample for tap in verdict["taps"].values() for sample in tap["samples"]],
    )
