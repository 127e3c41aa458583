"""Frames to be parsed, and the contract of payload formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from sensegate.decode.memory import DecoderMemory, DeviceRequest
from sensegate.decode.part import ProfilePart
from sensegate.errors import ProfileError, Rejected
from sensegate.model import MqttMetadata

ELEMENTS_MAX = 4_096
"""Most elements in one message; more are refused (`schema`). Tables are refused while they are parsed."""
MEMBERS_MAX = 65_536
"""Most members and elements in one tree; more are refused (`schema`)."""


class PayloadFrame(msgspec.Struct, frozen=True, gc=False):
    """The bytes of one message, with what its carrier states about them."""

    payload: bytes
    nesting_max: int
    """Deepest nesting that is accepted."""
    topic: str = ""
    received: int = 0
    """Arrival, µs UTC."""
    port: int | None = None
    """Port of the frame, if its carrier has ports (LoRaWAN's FPort)."""
    memory: DecoderMemory | None = None
    """State from earlier messages, for formats that need it; None: no state is kept."""
    metadata: MqttMetadata | None = None
    """MQTT properties of the message; None: it did not come by MQTT."""
    number: int = 0
    """Index of the message in its batch."""


Parse = Callable[[PayloadFrame], Any]
"""Turns a frame into a tree of dicts, lists and scalars. Raises `Rejected`, and nothing else, on any bytes."""


class LearnedParse:
    """Base of the parses that read a frame by its form once they have seen one like it; a subclass gives the values."""

    columnar = True
    exact = True

    def __init__(self, parse: Parse) -> None:
        """`parse`: makes the tree of a frame that has no form."""
        self._parse = parse

    def __call__(self, frame: PayloadFrame) -> Any:
        """Parse one frame into a tree. Raises `Rejected`."""
        return self._parse(frame)

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Do nothing: a form is known once it was seen."""


class FormedTree(NamedTuple):
    """A frame that was read by its form: its values, and its tree if it is asked for."""

    form: Any
    """Hashable, with the `pointers` of the values."""
    values: Sequence[Any]
    tree: Callable[[], Any] | None = None
    """None: the form's `tree` makes it of the values."""


class FormedObject(dict[str, Any]):
    """The tree of a frame that was read by its form."""

    def __init__(self, tree: Mapping[str, Any], formed: FormedTree) -> None:
        super().__init__(tree)
        self.formed = formed


class BatchParse(ABC):
    """A parse of many frames at once: its calls have a cost of their own, or frames of one form are read at once."""

    key: str
    """Parses with equal keys give equal results; the key changes with a file beside the profile."""
    ordered: ClassVar[bool] = False
    """True if frames must be parsed in the order of their messages, as they change the decoder's memory."""

    @abstractmethod
    def __call__(self, frame: PayloadFrame) -> Any:
        """Parse one frame, as any `Parse`."""

    @staticmethod
    @abstractmethod
    def many(requests: Sequence[tuple[Any, PayloadFrame]]) -> list[Any]:
        """Return the tree, or the `Rejected` (not raised), for each pair of a parse of this class and a frame.

        In place of a tree may stand a `FormedTree`.
        """


class OrderedParse(BatchParse):
    """A parse of frames one after another in the order of their messages, as they change the decoder's memory."""

    ordered = True

    def read(self, frame: PayloadFrame) -> Any:
        """Return the tree, or a `FormedTree`. Raises `Rejected`."""
        return self(frame)

    @staticmethod
    def many(requests: Sequence[tuple[Any, PayloadFrame]]) -> list[Any]:
        """Return the result of `read`, or the refusal, of each frame."""
        results: list[Any] = [None] * len(requests)
        for place in sorted(range(len(requests)), key=lambda place: requests[place][1].number):
            parse, frame = requests[place]
            try:
                results[place] = parse.read(frame)
            except Rejected as rejection:
                results[place] = rejection
        return results


class WarnedObject(dict[str, Any]):
    """A tree whose decoder has raised warnings: its readings are flagged."""

    def __init__(self, tree: Mapping[str, Any], warnings: Sequence[str]) -> None:
        super().__init__(tree)
        self.warnings = tuple(warnings)


class WarnedList(list[Any]):
    """A tree whose decoder has raised warnings: its readings are flagged."""

    def __init__(self, tree: Sequence[Any], warnings: Sequence[str]) -> None:
        super().__init__(tree)
        self.warnings = tuple(warnings)


class ErrorAt(Protocol):
    """Builds an error that names a key of the profile."""

    def __call__(self, problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
        """Return the error at a key below the format's options."""
        ...


class FormatContext(NamedTuple):
    """The context of the rule for which a format is compiled."""

    profile: str
    """``vendor/model``"""
    version: int
    folder: Path
    """Folder of the profile's file; files that the profile names lie beside it."""
    error: ErrorAt
    charset: str = "utf-8"
    """Character encoding of the payload's text."""


class PayloadFormat(NamedTuple):
    """A payload format: its options in a rule, and how they are compiled into a `Parse`."""

    compile: Callable[[Any, FormatContext], Parse]
    """(the rule's options or None, context) -> parse. Raises `context.error(…)` if the options are wrong."""
    options: type[ProfilePart] | None = None
    """Record of its options, under the format's name in a rule; None: it has no options."""
    required: bool = False
    """True if options are required."""
    text: bool = False
    """True if the payload is text, with a selectable `charset`."""
    typed: bool = True
    """True if leaves have types; if not, all are text, and each reading's property determines its type."""
    remembers: bool = False
    """True if decoding a device needs messages of others: then those of a disabled device are parsed too."""
    initial_request: Callable[[str, int], DeviceRequest | None] | None = None
    """(device name, now in µs) -> request while nothing is known of the device, None if there is none."""


def plain(parse: Parse) -> PayloadFormat:
    """Return the format of a parse without options."""
    return PayloadFormat(lambda _options, _context: parse)


def plain_text(parse: Callable[[bytes, str], Any], *, typed: bool = True) -> PayloadFormat:
    """Return the format of a parse of text without options; `parse`: (payload, charset) -> tree."""
    return PayloadFormat(
        lambda _options, context: partial(_parse_text, parse=parse, charset=context.charset), text=True, typed=typed
    )


def _parse_text(frame: PayloadFrame, parse: Callable[[bytes, str], Any], charset: str) -> Any:
    return parse(frame.payload, charset)
