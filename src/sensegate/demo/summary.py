"""The summary of a demo: one JSON object, a contract (see `interfaces.md`) that programs outside the project read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensegate.demo.city import Member
from sensegate.demo.crew import private
from sensegate.demo.faults import FAULTS, Outcome, counted
from sensegate.demo.memory import Memory


class Address(msgspec.Struct, frozen=True):
    """Where the centre or a node is, and who runs it."""

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


class HandDevice(msgspec.Struct, frozen=True):
    """A device on the plain layout that the simulator leaves alone."""

    id: str
    node: str
    username: str
    password: str
    topic: str


class Tokens(msgspec.Struct, frozen=True):
    """Tokens to try things with."""

    admin: str
    subscriber: str


class Summary(msgspec.Struct, frozen=True):
    """What happened, from the judge and from the ledgers."""

    centre: Address
    nodes: list[Address]
    tokens: Tokens
    devices: list[HandDevice]
    feeds: list[str]
    console: str
    directory: str
    seed: int
    published: int = 0
    """Messages that the simulator meant to send."""
    acknowledged: int = 0
    """Messages for which it saw a PUBACK."""
    committed: int = 0
    """Readings accepted by the nodes."""
    duplicates: dict[str, int] = {}
    """Values, by kind; a conflict is an accepted revision."""
    quarantined: dict[str, int] = {}
    """Messages, by reason."""
    rejected: dict[str, int] = {}
    """Values, by reason."""
    forwarded: int = 0
    withheld: dict[str, int] = {}
    refused_by_centre: dict[str, int] = {}
    """Rows of the nodes that the centre did not take, by reason."""
    delivered: int = 0
    """Readings that the centre's subscriber got."""
    injected: dict[str, int] = {}
    """What was done on purpose: kinds of duplicates and flags in values, all others in messages."""
    recognised: bool = True
    """Every injection was counted under its name by the gateways, no more and no less."""
    unrecognised: dict[str, tuple[int, int]] = {}
    """Kind -> (injected, counted), where the two differ."""
    lost: int = 0
    doubled: int = 0
    verdicts: dict[str, int] = {}
    """The judge's other counts: phantom, corrupt, disordered, unmarked, leaked."""
    balanced: bool = True
    latency_ms: dict[str, float] = {}
    live_latency_ms: dict[str, float] = {}
    """The same without what came as backlog after the link was cut."""
    resent: int = 0
    """Messages sent again because their connection broke before the PUBACK."""
    samples: list[str] = []
    """Examples of what the judge found."""
    simulated: int = 0
    """Devices of the simulator."""
    memory: Memory = Memory()
    """Of all processes of the demo."""
    cameras: list[dict[str, str]] = []
    """Cameras that the simulator leaves alone; /VIID/… is below `viid`, XML of ONVIF is posted to `onvif`."""
    objects: dict[str, int] = {}
    """What cameras reported: acknowledged = delivered + duplicates + refused."""

    @property
    def guilty(self) -> bool:
        """True where the demo must fail."""
        # A message that was sent again may have changed its kind, and one published by hand adds to what is counted.
        missed = not self.resent and any(counted < injected for injected, counted in self.unrecognised.values())
        told = sum(self.objects.get(name, 0) for name in ("delivered", "duplicates", "refused"))
        missed = missed or self.objects.get("acknowledged", 0) != told
        return bool(self.lost or self.doubled or not self.balanced or any(self.verdicts.values()) or missed)

    def write(self, path: Path) -> None:
        """Write it where nobody else may read it: it holds tokens."""
        partial = path.with_name(f".{path.name}.partial")
        private(partial, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n").replace(path)


def family(totals: Mapping[str, int], name: str) -> dict[str, int]:
    """Return ``reason -> count`` of the kinds ``name.reason``."""
    prefix = f"{name}."
    return {kind.removeprefix(prefix): count for kind, count in sorted(totals.items()) if kind.startswith(prefix)}


def added(ledgers: list[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of several totals."""
    total: dict[str, int] = {}
    for ledger in ledgers:
        for kind, count in ledger.items():
            total[kind] = total.get(kind, 0) + count
    return total


def address(member: Member, totals: Mapping[str, int], *, balanced: bool) -> Address:
    """Return a member's line of the summary."""
    return Address(
        division=member.division,
        http=member.url,
        mqtt=f"mqtt://127.0.0.1:{member.mqtt_port}",
        pid=member.child.pid,
        engine_pid=member.engine_pid,
        committed=totals.get("accepted", 0),
        forwarded=totals.get("forwarded", 0),
        withheld=sum(family(totals, "withheld").values()),
        balanced=balanced,
    )


def duplicates(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the kinds of duplicates, each counted apart."""
    found = {**family(totals, "duplicate"), **family(totals, "suppressed")}
    if conflicts := totals.get("conflict", 0):
        found["conflict"] = conflicts
    return found


def recognition(injected: Mapping[str, int], totals: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return kind -> (injected, counted) where the nodes counted something else than was done on purpose."""
    found: dict[str, tuple[int, int]] = {}
    for kind, count in injected.items():
        if kind not in FAULTS:
            continue
        match FAULTS[kind].outcome:
            case Outcome.DUPLICATE:
                seen = duplicates(totals).get(kind, 0)
            case Outcome.FLAG:
                seen = totals.get(kind, 0)
            case Outcome.QUARANTINE:
                seen = totals.get(f"quarantined.{kind}", 0)
            case Outcome.REJECTION:
                seen = totals.get(f"rejected.{kind}", 0)
            case Outcome.REFUSAL:
                continue  # counted by `authority`, outside the ledger: the message never came in
        if seen != count:
            found[kind] = (count, seen)
    return found


def judged(summary: Summary, verdict: Mapping[str, Any], totals: Mapping[str, int]) -> Summary:
    """Return the summary with the judge's verdict and the nodes' totals in it."""
    centre = verdict["taps"]["centre"]
    injected = counted(verdict["injected_messages"], verdict["injected_values"])
    missed = recognition(injected, totals)
    return msgspec.structs.replace(
        summary,
        published=verdict["published"],
        acknowledged=verdict["acknowledged"],
        delivered=centre["records"],
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
