"""The index of `src/sensegate/DECISIONS.md`: its entries by topic, written by `make docs`.

    python -m tests.house.decisions

A topic is found by the words of an entry's title; the first that fits is taken.
"""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).parents[2] / "src" / "sensegate" / "DECISIONS.md"
LINES_MAX = 15
"""Most lines of an entry, without its title."""
ENTRY = re.compile(r"^## (\d{4}-\d\d-\d\d) (.+)$", re.MULTILINE)
INDEX = re.compile(r"(<!-- index -->\n).*?(<!-- end -->\n)", re.DOTALL)
TOPICS = {
    "House, tests, tools": (
        r"wiring|Features register|The package holds|vocabulary of a reading|\bgate\b|httpx|command line"
        r"|examples start|Old words|errors carry|One piece|bodies are the records|parameters|without names"
        r"|simulator|control that|named as in|benchmarks|tests drive"
    ),
    "Cameras and video": (
        r"\bVIID|camera|[Vv]ideo|[Pp]late keys|detector|finished track|Alarm streams|Names of rules"
        r"|Rules of free|dropped fields|legal basis|stream goes when"
    ),
    "Interfaces: SensorThings, NGSI-LD, Prometheus, InfluxDB": (
        r"SensorThings|NGSI|MultiDatastream|Prometheus|line protocol|outlet|influxdb"
    ),
    "Console": r"console|map shows|物模型",
    "Alarms": r"of alarms|Alarms are",
    "Decoding and formats": (
        r"JSON|CBOR|MessagePack|Sparkplug|LoRaWAN|radio frame|Text formats|HJ 212|national protocols|CRC"
        r"|[Ss]cript|Layouts|quick path|row that does not|wrong unit|UCUM|double with|station's own"
        r"|counter's|decides the profile"
    ),
    "Profiles: releases, learning, reprocessing": (
        r"\b[Rr]elease d|canary|Versions? |redecode|decoded again|Learning|left out|version of the store"
        r"|writers of profiles|explains every word|correction|Recovered|profile that is wrong"
    ),
    "History": r"[Hh]istory|Parquet",
    "Front, MQTT, intake": (
        r"\bfront\b|gmqtt|MQTT|one connection|will is|TCP listener|reserve of HTTP|downlink's topic"
    ),
    "Tasks and modes": r"task is|mode order|emergency plans",
    "Fail-over and clusters": r"standby|fail-over|vote|Terms|cluster|later term|\blease",
    "Sharing, feeds, cursors": (
        r"cursor|feed\b|grant|quota|Conditions|sample|application|Webhook|Guests|Metering|Scanned"
        r"|subscriber|Predicates|unit of exactly|Secrets of sharing"
    ),
    "Tiers: nodes, centre, uplink": (
        r"uplink|centre|\bnode|border|lane|first member|moved device|A move|Credit|refused is an entry"
        r"|Base data|One writer"
    ),
    "Rights, secrets, audit": (
        r"[Cc]redential|password|certificate|token|[Ss]ecret|audit|duty|Sessions|A pin|stands for a name"
        r"|server logs|Nobody hands|Names are one|encrypted"
    ),
    "Time and place": r"own clock|one lag|Coordinates|devices stand",
    "Log, commits, duplicates": (
        r"[Ll]og\b|commit|[Bb]atch|store|Streams|streams|backup|[Ss]equence|sorted|Suppressed"
        r"|second source|artition|of a block|hourly books|fsync|cannot be read"
    ),
}
OTHER = "Other"


def entries(text: str) -> list[tuple[str, str, int]]:
    """Return (date, title, lines of the body) of each entry."""
    matches = list(ENTRY.finditer(text))
    ends = [match.start() for match in matches[1:]] + [len(text)]
    return [
        (match[1], match[2], len(text[match.end() : end].strip().splitlines()))
        for match, end in zip(matches, ends, strict=True)
    ]


def topic_of(title: str) -> str:
    """Return the topic of an entry."""
    return next((topic for topic, words in TOPICS.items() if re.search(words, title)), OTHER)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def index(text: str) -> str:
    """Return the index of a text: topic by topic, newest entry first."""
    by_topic: dict[str, list[str]] = {topic: [] for topic in (*TOPICS, OTHER)}
    for date, title, _ in entries(text):
        by_topic[topic_of(title)].append(f"- [{title}](#{anchor(f'{date} {title}')})")
    parts = [f"**{topic}**\n\n" + "\n".join(reversed(lines)) for topic, lines in by_topic.items() if lines]
    return "\n\n".join(parts)


def main() -> None:
    """Write the index."""
    text = FILE.read_text(encoding="utf-8")
    FILE.write_text(INDEX.sub(lambda match: f"{match[1]}{index(text)}\n{match[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
