"""Problems of the engine and of the log, for readiness."""

from __future__ import annotations

from sensegate.bus.opening import Core
from sensegate.bus.unreadable import UNREADABLE

SHOWN_MAX = 5


def not_ready(core: Core) -> list[str]:
    """Return why the engine does not work as it should."""
    problems = [*core.engine.warnings()]
    if not core.bus.is_connected:
        problems.append("engine: not connected; connecting again")
    return problems


def warnings(core: Core) -> list[str]:
    """Return a sentence where a server is missing, or entries of the log cannot be read."""
    notices = core.engine.notices()
    entries = UNREADABLE.all()
    if not entries:
        return notices
    shown = ", ".join(str(entry.sequence) for entry in entries[:SHOWN_MAX])
    more = f" and {len(entries) - SHOWN_MAX} more" if len(entries) > SHOWN_MAX else ""
    return [
        *notices,
        f"log: entries that cannot be read are passed over: {shown}{more}; see `sensegate log unreadable`",
    ]
