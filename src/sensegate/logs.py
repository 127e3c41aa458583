"""Set-up of logging: one line per event on standard error; quiet in normal operation."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


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
