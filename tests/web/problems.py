"""Problems that an operator can meet in the console, read from the source: what errors of the interface say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import sensegate

ROOT = Path(sensegate.__file__).parent
ERRORS = frozenset(
    {"BadRequest", "Conflict", "ConfigError", "Gone", "NotFound", "Overloaded", "PermissionDenied", "RuleFinding"}
)
PLACES = (
    *(f"alarms/{name}.py" for name in ("channels", "operations", "rules")),
    *(f"authority/{name}.py" for name in ("attempts", "bucket", "device_rules", "device_table", "devices")),
    *(f"authority/{name}.py" for name in ("divisions", "egress", "importing", "passwords", "people", "record_store")),
    *(f"authority/{name}.py" for name in ("scope", "tokens", "topics")),
    "control/",
    "lifecycle/",
    *(f"share/{name}.py" for name in ("access_requests", "applications", "bundles", "catalogue", "catalogue_access")),
    *(f"share/{name}.py" for name in ("federation_centre", "federation_node", "feeds", "grants", "masks", "sharing")),
    *(f"tiers/{name}.py" for name in ("centre_connection", "members", "move_register", "ownership", "uplink")),
    *(f"tiers/{name}.py" for name in ("rest_indicators", "rest_nodes", "rest_owners", "rest_uplink")),
    *(f"web/{name}.py" for name in ("accounting", "applications", "assessment", "auth", "catalogue", "corrections")),
    *(f"web/{name}.py" for name in ("devices", "drafts", "listing", "map_layers", "messages", "people")),
    *(f"web/{name}.py" for name in ("profile_editor", "profile_jobs", "profiles", "quality", "quarantine", "registry")),
    *(f"web/{name}.py" for name in ("routing", "session", "survey", "trace")),
)
"""Files and folders with the requests of the console. Requests of programs alone (streams, webhooks, links of nodes,
other interfaces) stay in English."""
_KEYS = re.compile(r"^(?:[\w.:@\0-]+: )*")


def parts_of(text: str) -> list[str]:
    """Return the parts of a problem, without the keys before it, as the console splits it."""
    return _KEYS.sub("", text).split("; ")


def templates() -> Iterator[tuple[str, str]]:
    """Yield (file, part of a problem with NUL in the place of each value)."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(PLACES):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                texts = [*node.args, *(word.value for word in node.keywords if word.arg == "remedy")]
                for text in (text for argument in texts for text in _texts(argument)):
                    yield from ((name, part) for part in parts_of(text))


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts that an argument may be; only what has words of its own, which a key or a value has not."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        if re.search(r"[a-z]{2} | [a-z]{2}", text):
            yield text
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value
