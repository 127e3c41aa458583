"""Kinds of recorded messages that an order reprocesses; a module of its own, for the command line needs no more."""

from __future__ import annotations

from enum import StrEnum


class ReprocessingInput(StrEnum):
    """Kind of recorded messages to reprocess."""

    RAW = "raw"
    QUARANTINE = "quarantine"
    BOTH = "both"
