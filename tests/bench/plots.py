"""Draws the results of the benchmarks as SVG: `python -m tests.bench.plots [--write]`; a test keeps them fresh.

The figures are those of `results.jsonl`; nothing is measured here.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench import results

FOLDER = Path(__file__).parent / "plots"
OURS, PEER, GOAL = "#0b6e4f", "#8a8f98", "#b3261e"

SIDES = {
    "sensegate_power": "sensegate, on disk before PUBACK",
    "sensegate": "sensegate, flushed each 2 min",
    "node_red": "Node-RED, memory",
    "aiomqtt_uvloop": "aiomqtt on uvloop, only parses",
    "aiomqtt_asyncio": "aiomqtt on asyncio, only parses",
    "thingsboard": "ThingsBoard Gateway, memory",
}

Result = dict[str, Any]


def compare(axes: Axes, result: Result) -> None:
    """Messages a second of ours and of the peers: the median as bar, each round as dot."""
    names = [name for name in reversed(SIDES) if name in result["sides"]]
    for height, name in enumerate(names):
        side = result["sides"][name]
        axes.barh(height, side["messages_per_s"], color=OURS if name.startswith("sensegate") else PEER, alpha=0.75)
        axes.plot(side["rounds"], [height] * len(side["rounds"]), "o", color="black", markersize=2.5)
        end = max(side["messages_per_s"], *side["rounds"])
        axes.annotate(f"{side['messages_per_s']:,}", (end, height), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), [SIDES[name] for name in names])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(0, 1.18 * max(max(side["rounds"]) for side in result["sides"].values()))
    axes.set_xlabel("messages/s, MQTT QoS 1, to the last at a subscriber; dots: five rounds")


def latency(axes: Axes, result: Result) -> None:
    """Time from PUBACK to event by percentile, for each rate, and from the publisher's schedule."""
    for row, color in zip(result["rows"], (OURS, PEER), strict=True):
        percentiles = [float(name) for name in row["curve_ms"]]
        at = [1 / (1 - percentile / 100) for percentile in percentiles]
        label = f"{row['rate']:,} messages/s ({row['share']:.0%} of saturation)"
        axes.plot(at, list(row["curve_ms"].values()), "-o", color=color, markersize=3, label=label)
        axes.plot(
            at, list(row["from_schedule_curve_ms"].values()), ":", color=color, label="the same from the schedule"
        )
        axes.plot(100, row["goal_p99_ms"], "_", color=GOAL, markersize=14, markeredgewidth=2)
        goal = f"goal {row['goal_p99_ms']:g} ms"
        axes.annotate(goal, (100, row["goal_p99_ms"]), (10, 0), textcoords="offset points", va="center", color=GOAL)
    axes.set_xscale("log")
    axes.set_xticks(at, [f"{percentile:g}" for percentile in percentiles])
    axes.set_xlabel("percentile of the readings")
    axes.set_ylabel("ms, PUBACK to event")
    axes.set_yscale("log")
    axes.set_ylim(8, 1_500)
    axes.set_yticks([10, 20, 50, 100, 200, 500, 1_000], ["10", "20", "50", "100", "200", "500", "1,000"])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small", loc="lower right", ncols=2)


def fanout(axes: Axes, result: Result) -> None:
    """Deliveries a second by number of subscribers, beside bare aiohttp with one."""
    counts = [int(count) for count in result["deliveries_per_s"]]
    rates = list(result["deliveries_per_s"].values())
    axes.loglog(counts, rates, "-o", color=OURS, label="sensegate, server-sent events")
    axes.loglog(counts, [rates[0] * count for count in counts], ":", color=OURS, label="as many times one subscriber's")
    axes.axhline(result["baseline"], color=PEER, label="bare aiohttp to one, a write a record")
    axes.set_ylim(result["baseline"] / 2, max(rates) * 4)
    for count, rate in zip(counts, rates, strict=True):
        axes.annotate(f"{rate:,}", (count, rate), (0, -14), textcoords="offset points", ha="center", fontsize="small")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("subscribers")
    axes.set_ylabel(f"deliveries/s of {result['bytes_a_record']} bytes")
    axes.legend(frameon=False, fontsize="small")


PLOTS: dict[str, Callable[[Axes, Result], None]] = {"compare": compare, "latency": latency, "fanout": fanout}


def draw(name: str, result: Result) -> str:
    """Return the plot of a result as SVG, with its date and machine; the same result gives the same text."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": ["sans-serif"], "font.size": 9}):
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        PLOTS[name](axes, result)
        axes.set_title(f"{name}, {result['date']}: {result['machine']}", fontsize="small", loc="left")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def main() -> int:
    """Write the plots, or say which differ; return the exit code."""
    measured, write, stale = results.latest(), "--write" in sys.argv, []
    for name in PLOTS:
        path, text = FOLDER / f"{name}.svg", draw(name, measured[name])
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            print(f"{path.name}: {'written' if write else 'differs; run make docs'}")
            if write:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return bool(stale) and not write


if __name__ == "__main__":
    sys.exit(main())
