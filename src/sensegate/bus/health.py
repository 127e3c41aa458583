"""Problems of the engine and of the log, for readiness."""

from __future__ import annotations

from sensegate.bus.opening import Core
from sensegate.bus.unreadable import UNREADABLE

SHOWN_MAX = 5


def not_ready(core: Core) -> list[str]:
    """Return why the engine does not work as it should."""
    problems = [*core.engine.troubles()]
    if not core.bus.is_connected:
        problems.append("engine: not connected; connecting again")
    return problems


def warnings() -> list[str]:
    """Return a sentence where entries of the log cannot be read."""
    entries = UNREADABLE.all()
    if not entries:
        return []
    shown = ", ".join(str(entry.sequence) for entry in entries[:SHOWN_MAX])
    more = f" and {len(entries) - SHOWN_MAX} more" if len(entries) > SHOWN_MAX else ""
    return [f"log: entries that cannot be read are passed over: {shown}{more}; see `sensegate log unreadable`"]
