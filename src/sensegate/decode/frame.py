"""A payload on its way into a tree, and what a format must offer to take it there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from sensegate.decode.memory import DeviceRequest, Memory
from sensegate.decode.part import Part
from sensegate.errors import ProfileError

ELEMENTS_MAX = 4_096
"""More elements in one message are a fault of its sender: `schema`. Tables are refused while they are read."""
MEMBERS_MAX = 65_536
"""More members or elements in one tree are a fault of its sender: `schema`."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """The bytes of one message, with what its carrier knows of them."""

    payload: bytes
    nesting_max: int
    """Greatest nesting that is let through."""
    topic: str = ""
    received: int = 0
    """Arrival, µs UTC."""
    port: int | None = None
    """Port of the frame where its carrier has ports (LoRaWAN's FPort)."""
    memory: Memory | None = None
    """What earlier messages said, for formats that need it; None: nothing is remembered."""


Parse = Callable[[Frame], Any]
"""A frame to a tree of dicts, lists and scalars. Raises `Rejected` with a reason, and nothing else, on any bytes."""


class BatchParse(ABC):
    """A parse that answers many frames at once, and must not be asked one by one: each exchange has its price."""

    key: str
    """Two of one key answer the same; it changes with a file beside the profile."""

    @abstractmethod
    def __call__(self, frame: Frame) -> Any:
        """Do as any `Parse`."""

    @staticmethod
    @abstractmethod
    def many(asked: Sequence[tuple[Any, Frame]]) -> list[Any]:
        """Return the tree, or the `Rejected` (not raised), for each pair of a parse of this class and a frame."""


class WarnedObject(dict[str, Any]):
    """A tree whose decoder has warned: its readings are flagged."""

    def __init__(self, tree: Mapping[str, Any], warnings: Sequence[str]) -> None:
        super().__init__(tree)
        self.warnings = tuple(warnings)


class WarnedList(list[Any]):
    """A tree whose decoder has warned: its readings are flagged."""

    def __init__(self, tree: Sequence[Any], warnings: Sequence[str]) -> None:
        super().__init__(tree)
        self.warnings = tuple(warnings)


class ErrorAt(Protocol):
    """Makes the error that names a key of the profile."""

    def __call__(self, what: str, /, *path: str | int, remedy: str = "") -> ProfileError:
        """Return the error at a key below the format's options."""
        ...


class Setting(NamedTuple):
    """What a format may know of the rule that it is compiled for."""

    profile: str
    """``vendor/model``"""
    version: int
    folder: Path
    """Where the profile's file lies; files that the profile names lie beside it."""
    error: ErrorAt
    charset: str = "utf-8"
    """How the payload's text is written in bytes."""


class Format(NamedTuple):
    """One payload format: what may be said of it in a rule, and how that becomes a `Parse`."""

    compile: Callable[[Any, Setting], Parse]
    """(the rule's options or None, setting) -> parse. Raises `setting.error(…)` where the options are wrong."""
    options: type[Part] | None = None
    """Record of its options, under the format's name in a rule; None: it has none."""
    required: bool = False
    """Whether it means nothing without options."""
    text: bool = False
    """Whether the payload is text, whose `charset` may be chosen."""
    typed: bool = True
    """Whether leaves have types; where not, all are text and each reading's property says what they are."""
    remembers: bool = False
    """Whether one device's messages are needed to read another's: then those of a disabled device are parsed too."""
    greet: Callable[[str, int], DeviceRequest | None] | None = None
    """(name of a device, now in µs) -> what it is asked when the memory is empty, None if nothing."""


def plain(parse: Parse) -> Format:
    """Return the format of a parse without options."""
    return Format(lambda _options, _setting: parse)
