"""Writes the generated tables of the documents, or says which differ: `python -m tests.house.docs [--write]`.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from enum import Enum
from functools import partial
from itertools import pairwise
from pathlib import Path

from sensegate import config, errors, flow, metrics
from sensegate.alarms import prometheus
from sensegate.authoring import reference, schema
from sensegate.cli import renamed as cli_renamed
from sensegate.config import renamed as config_renamed
from sensegate.model import DuplicateKind, QuarantineReason, RejectReason
from sensegate.quantities.quality import Flag, Quality, TimeQuality
from tests.bench import results
from tests.house import graph, limits, mqtt, ngsi_ld, sensorthings

ROOT = Path(__file__).parents[2]


def _metrics() -> str:
    rows = ["| metric | kind | labels | what it tells |", "|---|---|---|---|"]
    for family in sorted(vars(metrics).values(), key=lambda metric: getattr(metric, "_name", "")):
        if hasattr(family, "_documentation"):
            suffix = "_total" if family._type == "counter" else ""
            labels = ", ".join(family._labelnames) or "–"
            rows.append(f"| `{family._name}{suffix}` | {family._type} | {labels} | {family._documentation} |")
    return "\n".join(rows)


def _first(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ")


def _errors() -> str:
    rows = ["| error | what it means and what happens next |", "|---|---|"]
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SensegateError)
    ]
    rows += [f"| `{kind.__name__}` | {_first(kind.__doc__)} |" for kind in kinds]
    return "\n".join(rows)


def _meanings(kind: type[Enum]) -> dict[str, str]:
    """Return the docstring of each member of an enumeration."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    meanings = {}
    for member, text in pairwise(body.body):
        match member, text:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(docstring))):
                meanings[name] = " ".join(docstring.split())
    return meanings


def _words() -> str:
    rows = ["| kind | word | what it means |", "|---|---|---|"]
    kinds: list[tuple[str, type[Enum]]] = [
        ("reason of quarantine (whole message)", QuarantineReason),
        ("reason of rejection (single value)", RejectReason),
        ("duplicate", DuplicateKind),
        ("flag", Flag),
        ("time quality", TimeQuality),
    ]
    for title, kind in kinds:
        meanings = _meanings(kind)
        rows += [f"| {title} | `{member.name.lower()}` | {meanings[member.name]} |" for member in kind]
    rows.append("| qualities | " + ", ".join(f"`{code.name.lower()}`" for code in Quality) + " | by class and cause |")
    return "\n".join(rows)


_ENGLISH = {
    "head": "| | messages/s, to the last at the subscriber | CPU µs a message, its process | with its broker |",
    "sensegate_power": "**sensegate** as shipped: on disk before each PUBACK (`power`), exactly once",
    "sensegate": "**sensegate** flushed to disk every two minutes (`process`), exactly once",
    "node_red": "Node-RED 4.1.15, mapping and duplicate check in memory, not durable",
    "thingsboard": "ThingsBoard IoT Gateway 3.8.5, storage in memory, not durable",
    "aiomqtt_uvloop": "aiomqtt consumer on uvloop that parses and drops, not durable",
    "aiomqtt_asyncio": "aiomqtt consumer on asyncio that parses and drops, not durable",
    "incomplete": " (in a round not every message arrived in time)",
    "run": "One run, {date}: {machine}.",
}
_CHINESE = {
    "head": "| | 条/秒（至订阅方收到最后一条） | 每条 CPU 微秒（自身进程） | 含消息服务器 |",
    "sensegate_power": "**sensegate** 出厂设置，每次 PUBACK 前落盘（`engine.durability: power`），不丢不重",
    "sensegate": "**sensegate**，每两分钟落盘（`process`），不丢不重",
    "node_red": "Node-RED 4.1.15，映射加内存判重，不落盘",
    "thingsboard": "ThingsBoard IoT Gateway 3.8.5，内存存储，不落盘",
    "aiomqtt_uvloop": "uvloop 上只解析即丢弃的 aiomqtt 消费者，不落盘",
    "aiomqtt_asyncio": "asyncio 上只解析即丢弃的 aiomqtt 消费者，不落盘",
    "incomplete": "（有一轮未能按时全部到达）",
    "run": "同一次运行，{date}：{machine}。",
}


def _comparison(words: dict[str, str] = _ENGLISH) -> str:
    """Return the table of the README: the sides of the last run of `compare` that had all peers."""
    compare = results.latest()["compare"]
    rows = [words["run"].format(**compare), "", words["head"], "|---|---|---|---|"]
    for name, side in compare["sides"].items():
        figures = (f"{side[key]:,}" for key in ("messages_per_s", "cpu_us_per_message", "side_cpu_us_per_message"))
        label = words[name] if side["complete"] else words[name] + words["incomplete"]
        rows.append(f"| {label} | {' | '.join(figures)} |")
    return "\n".join(rows)


def _features() -> str:
    """Return the features of a gateway, as they register themselves."""
    rows = ["| feature | what it is for | settings | buckets | routes | commands |", "|---|---|---|---|---|---|"]
    for spec in flow.FEATURES:
        cells = (
            ", ".join(f"`{name}`" for name in names) or "–" for names in (spec.config, spec.buckets, spec.commands)
        )
        settings, buckets, commands = cells
        rows.append(f"| {spec.name} | {spec.title} | {settings} | {buckets} | {len(spec.routes) or '–'} | {commands} |")
    return "\n".join(rows)


def _renamed() -> str:
    """Return the old configuration keys and command words that are refused with the new name."""
    rows = ["| before | now | kind |", "|---|---|---|"]
    for old, new in sorted(config_renamed.RENAMED.items()):
        section = old.rpartition(".")[0]
        rows.append(f"| `{old}` | `{f'{section}.{new}' if section else new}` | configuration |")
    for old, reason in sorted(config_renamed.REMOVED.items()):
        rows.append(f"| `{old}` | – ({reason}) | configuration |")
    for old, new in sorted(cli_renamed.RENAMED.items()):
        rows.append(f"| `{old}` | `{old.partition(' ')[0]} {new}` | command |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "features": _features,
    "import_graph": lambda: graph.mermaid(graph.graph()),
    "renamed": _renamed,
    "settings": config.reference,
    "limits": limits.table,
    "mqtt_features": partial(mqtt.table, "mqtt_features"),
    "mqtt_statements": partial(mqtt.table, "mqtt_statements"),
    "sensorthings": sensorthings.table,
    "ngsi_ld": ngsi_ld.table,
    "metrics": _metrics,
    "errors": _errors,
    "words": _words,
    "comparison": _comparison,
    "comparison_zh": lambda: _comparison(_CHINESE),
    "profile_formats": reference.formats,
    "profile_keys": reference.keys,
    "word_tables": reference.words,
    "profile_library": lambda: reference.library([ROOT / "device_profiles"]),
}

MARKED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


WHOLE: dict[Path, Callable[[], str]] = {
    ROOT / "device_profiles" / "_schema.json": schema.text,
    ROOT / "deploy" / "alerts.yaml": prometheus.text,
}
"""Files that are generated from their first line to their last."""


def regenerate(text: str) -> str:
    """Return a document with each generated table written again."""
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]().strip()}\n{match[4]}", text)


def documents() -> list[Path]:
    """Return the Markdown files of the repository that hold generated tables."""
    names = [*ROOT.glob("*.md"), *(ROOT / "src").rglob("*.md")]
    names += [path for folder in ("config", "deploy", "device_profiles") for path in (ROOT / folder).rglob("*.md")]
    return [path for path in sorted(names) if MARKED.search(path.read_text(encoding="utf-8"))]


def main() -> int:
    """Write or check; return the exit code."""
    stale = []
    fresh_texts = {path: regenerate(path.read_text(encoding="utf-8")) for path in documents()}
    for path, fresh in {**fresh_texts, **{path: text() for path, text in WHOLE.items()}}.items():
        if fresh != path.read_text(encoding="utf-8"):
            stale.append(path)
            if "--write" in sys.argv:
                path.write_text(fresh, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'written' if '--write' in sys.argv else 'differs; run make docs'}")
    return bool(stale) and "--write" not in sys.argv


if __name__ == "__main__":
    sys.exit(main())
