"""Terminal output of the demo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensegate.demo.summary import Summary, by_reason
from sensegate.wording import count

COUNTS = (
    "messages", "quarantined", "values", "accepted", "duplicate", "suppressed", "rejected", "forwarded", "withheld",
    "pending",
)  # fmt: skip
ESSENTIAL = ("messages", "accepted", "forwarded", "pending")
TALL_NODES = 5


def print_addresses(summary: Summary, console: Console) -> None:
    """Print all addresses, and commands for manual use."""
    grid = Table(box=None, pad_edge=False)
    for title in ("tier", "HTTP", "MQTT of devices", "pids: gateway, NATS"):
        grid.add_column(title)
    for member in (summary.centre, *summary.nodes):
        role = "centre" if member is summary.centre else "node"
        grid.add_row(f"{role} {member.division}", member.http, member.mqtt, f"{member.pid}, {member.engine_pid}")
    console.print(grid, highlight=False)
    console.print(f"console           {summary.console}", highlight=False)
    console.print(f"admin token       {summary.tokens.admin}", highlight=False)
    console.print(f"subscriber token  {summary.tokens.subscriber}", highlight=False)
    console.print(f"directory         {summary.directory}", highlight=False)
    if summary.devices:
        print_manual_commands(summary, console)
    console.print()


def print_manual_commands(summary: Summary, console: Console) -> None:
    """Print the commands that follow one reading from a device to a subscriber."""
    device = summary.devices[0]
    node = next(node for node in summary.nodes if node.division == device.node)
    port = node.mqtt.rpartition(":")[2]
    console.print("try it by hand:", style="bold")
    console.print(
        f"  mosquitto_pub -h 127.0.0.1 -p {port} -q 1 -i {device.id} -u {device.username} -P {device.password} "
        f'-t {device.topic} -m \'{{"values":{{"air_temperature":21.5}}}}\'',
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"  curl -s -H 'Authorization: Bearer {summary.tokens.subscriber}' "
        f"'{summary.centre.http}/api/v1/feeds/{summary.feeds[0]}/records?device={device.id}'",
        highlight=False,
        soft_wrap=True,
    )
    if summary.cameras:
        print_camera_commands(summary.cameras[0], console)


def print_camera_commands(camera: Mapping[str, str], console: Console) -> None:
    """Print the commands that register as a camera and push its observations."""
    name = camera["id"]
    head = f"-H 'User-Identify: {name}' -H 'Content-Type: application/VIID+JSON'"
    body = {"RegisterObject": {"DeviceID": name}}
    console.print(
        f"  curl -s --digest -u {camera['username']}:{camera['password']} {head} -d '{json.dumps(body)}' "
        f"{camera['viid']}/VIID/System/Register",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"  # then push vehicles to {camera['viid']}/VIID/MotorVehicles (README.md, 'act as a camera', has a body), "
        f"or frames: curl -u … --data-binary @FRAME.xml {camera['onvif']}",
        highlight=False,
        soft_wrap=True,
    )


def live_table(
    ledgers: Mapping[str, Mapping[str, int]],
    simulator: Mapping[str, Any],
    judge: Mapping[str, Any],
    links: Mapping[str, bool],
    cameras: Mapping[str, Any],
    *,
    width: int = 200,
) -> RenderableType:
    """Return the live table: a row per node, or a column where that is too wide, and the status lines."""
    nodes = [(node, links.get(node, True), _counts(totals)) for node, totals in ledgers.items()]
    grid = _wide(nodes)
    if Console(width=10_000).measure(grid).maximum > width:
        grid = _tall(nodes) if len(nodes) <= TALL_NODES else _wide(nodes, ESSENTIAL)
    return Group(grid, *(Text(line) for line in status_lines(simulator, judge, cameras)))


_TITLE = "conservation of readings"


def _wide(nodes: Sequence[tuple[str, bool, Mapping[str, int]]], columns: Sequence[str] = COUNTS) -> Table:
    grid = Table(title=_TITLE, title_justify="left")
    for column in ("node", "link", *columns):
        grid.add_column(column, justify="left" if column in ("node", "link") else "right", no_wrap=True)
    for node, is_up, counts in nodes:
        grid.add_row(node, _link(is_up), *(f"{counts[column]:,}" for column in columns))
    return grid


def _tall(nodes: Sequence[tuple[str, bool, Mapping[str, int]]]) -> Table:
    grid = Table(title=_TITLE, title_justify="left")
    grid.add_column("")
    for node, _, _ in nodes:
        grid.add_column(f"node {node}", justify="right")
    grid.add_row("link", *(_link(is_up) for _, is_up, _ in nodes))
    for name in COUNTS:
        grid.add_row(name, *(f"{counts[name]:,}" for _, _, counts in nodes))
    return grid


def _link(is_up: bool) -> Text:  # noqa: FBT001 - its only argument
    return Text("up", "green") if is_up else Text("CUT", "bold red")


def _counts(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of a node's row."""
    accepted, forwarded = totals.get("accepted", 0), totals.get("forwarded", 0)
    withheld = sum(by_reason(totals, "withheld").values())
    numbers = (
        totals.get("messages", 0),
        sum(by_reason(totals, "quarantined").values()),
        totals.get("values", 0),
        accepted,
        sum(by_reason(totals, "duplicate").values()),
        sum(by_reason(totals, "suppressed").values()),
        sum(by_reason(totals, "rejected").values()),
        forwarded,
        withheld,
        accepted - forwarded - withheld - sum(by_reason(totals, "refused_by_centre").values()),
    )
    return dict(zip(COUNTS, numbers, strict=True))


def status_lines(simulator: Mapping[str, Any], judge: Mapping[str, Any], cameras: Mapping[str, Any]) -> list[str]:
    """Return one status line for each simulator and the judge."""
    tap = judge.get("taps", {}).get("centre", {})
    wrong = {name: tap[name] for name in tap if name in ("doubled", "phantom", "corrupt", "disordered") and tap[name]}
    simulated = (
        f"simulator: {count(simulator.get('sent', 0), 'message')} sent, {simulator.get('owed', 0):,} not acknowledged, "
        f"{simulator.get('connected', 0)} of {simulator.get('connections', 0)} connections"
    )
    judged = (
        f"judge: {count(judge.get('acknowledged', 0), 'message')} acknowledged, "
        f"{count(tap.get('matched', 0), 'reading')} at the centre, "
        f"{count(tap.get('outstanding', 0), 'message')} on the way"
    )
    if by_hand := judge.get("by_hand", 0):
        judged += f", {count(by_hand, 'reading')} sent by hand at the centre"
    if wrong:
        judged += f", WRONG: {_announced(wrong)}"
    if not cameras:
        return [simulated, judged]
    watched = (
        f"cameras: {count(cameras.get('sent', 0), 'message')} sent with {count(cameras.get('objects', 0), 'object')}, "
        f"{cameras.get('owed', 0):,} not answered, {cameras.get('connected', 0)} of "
        f"{cameras.get('connections', 0)} connected"
    )
    return [simulated, watched, judged]


def print_result(summary: Summary, console: Console) -> None:
    """Print the result of a timed run."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    memory = summary.memory
    taken = f"{memory.peak_pss_mb:,.0f} MiB at the most in {memory.processes} processes"
    rows: list[tuple[str, str]] = [
        ("published", f"{count(summary.published, 'message')}, {summary.acknowledged:,} acknowledged"),
        ("committed", count(summary.committed, "reading")),
        ("forwarded", f"{summary.forwarded:,}, withheld {_announced(summary.withheld)}"),
        *([("refused", _announced(summary.refused_by_centre))] if summary.refused_by_centre else []),
        ("delivered", f"{summary.delivered:,} at the centre"),
        *([("by hand", f"{summary.by_hand:,} at the centre")] if summary.by_hand else []),
        ("duplicates", _announced(summary.duplicates)),
        ("quarantined", _announced(summary.quarantined)),
        ("rejected", _announced(summary.rejected)),
        ("injected", _announced(summary.injected)),
        ("unrecognised", _unrecognised(summary)),
        ("latency", f"{_announced(summary.latency_ms)} ms, live {_announced(summary.live_latency_ms)} ms"),
        (
            "cameras",
            f"{summary.objects.get('acknowledged', 0):,} objects acknowledged = "
            + " + ".join(f"{summary.objects.get(name, 0):,} {name}" for name in ("delivered", "duplicates", "refused")),
        ),
        ("lost, doubled", f"{summary.lost}, {summary.doubled}"),
        ("other verdicts", _announced({name: count for name, count in summary.verdicts.items() if count})),
        ("balanced", "yes" if summary.balanced else "NO"),
        ("memory", f"{taken}; a gateway {memory.gateway_mb:.0f}, its nats-server {memory.engine_mb:.0f}"),
    ]
    for name, value in rows:
        grid.add_row(name, value)
    console.print(grid, highlight=False)
    for sample in summary.samples[:10]:
        console.print(f"  {sample}", style="red", highlight=False)
    verdict = "FAILED: see above" if summary.failed else "all accounted for: nothing lost, nothing doubled"
    if summary.by_hand and not summary.failed:
        # Nobody but the person knows how many were sent.
        verdict += f"; {count(summary.by_hand, 'reading')} sent by hand reached the centre, none twice"
    console.print(f"verdict: {verdict}", style="bold red" if summary.failed else "bold green", highlight=False)


def _unrecognised(summary: Summary) -> str:
    """Return the kinds of faults of which another number was counted than injected, with both."""
    differing = (
        f"{kind.replace('_', ' ')} {injected:,} injected, {counted:,} counted"
        for kind, (injected, counted) in summary.unrecognised.items()
    )
    return "; ".join(differing) or "none"


def _announced(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()) or "none"
