"""Set-up of logging: one line per event on standard error; quiet in normal operation.

A warning or error that repeats is written at once, and then once a minute with the number of lines that were left out.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

import structlog

PERIOD_S: Final = 60.0
LINES_MAX: Final = 1_000
"""Most different lines that are remembered; beyond it the one that was written longest ago counts as new."""
_LIMITED: Final = frozenset({"warning", "error"})
_PROSE: Final = frozenset({"event", "reason", "why", "cause", "error"})
"""Fields in which numbers make no other line; in all others they may be part of a name."""
_NUMBER: Final = re.compile(r"[0-9][0-9.,:]*")
_TEXT_MAX: Final = 500


def configure(level: Literal["debug", "info", "warning", "error"], form: Literal["text", "json"]) -> None:
    """Set the minimum level and the format of all further log lines."""
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals: tokens, payloads
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name,
            RepeatLimit(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if form == "json" else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Logger,
        cache_logger_on_first_use=False,
    )


class _Logger(structlog.PrintLogger):
    """Logger that writes to standard error and knows its component."""

    def __init__(self, part: str = "") -> None:
        super().__init__(sys.stderr)
        self.part = part.removeprefix("sensegate.")


def _name(
    logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the component to the event."""
    if part := getattr(logger, "part", ""):
        event["logger"] = part
    return event


class RepeatLimit:
    """Processor that drops a warning which was written a moment ago, and counts it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, *, period_s: float = PERIOD_S) -> None:
        self._monotonic = monotonic
        self._period_s = period_s
        self._written: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        """Line -> when it was written, and how often it was dropped since."""

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Return a line that is to be written; `repeated` is the number of those that were dropped before it."""
        if method not in _LIMITED or event.get("exc_info"):
            return event
        line = (method, *_texts(event))
        now = self._monotonic()
        written, dropped = self._written.get(line, (float("-inf"), 0))
        if now - written < self._period_s:
            self._written[line] = written, dropped + 1
            raise structlog.DropEvent
        self._written[line] = now, 0
        self._written.move_to_end(line)
        while len(self._written) > LINES_MAX:
            self._written.popitem(last=False)
        if dropped:
            event["repeated"] = dropped
        return event


def _texts(event: structlog.typing.EventDict) -> list[str]:
    """Return what tells a line from others: its texts, without counts and times."""
    return [
        f"{name}={_NUMBER.sub('#', value[:_TEXT_MAX]) if name in _PROSE else value[:_TEXT_MAX]}"
        for name, value in sorted(event.items())
        if isinstance(value, str)
    ]
