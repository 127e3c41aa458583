"""Recorded messages in groups of one shape: the same kind of topic, the same format, (nearly) the same members."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import leaves
from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.senml import resolve
from sensegate.decode.frame import Frame, Parse, Setting
from sensegate.decode.paths import Path
from sensegate.errors import ProfileError, Rejected

NESTING_MAX = 32
_BITS_MAX = 1_000
GROUPS_MAX = 200
"""More groups than this are not told apart."""


class Sample(NamedTuple):
    """One recorded message."""

    topic: str
    payload: bytes
    received: int = 0
    """Arrival, µs UTC; 0: not recorded."""
    device: str = ""
    """Id or alias of the registered device, where it is known."""
    reason: str = ""
    """Why it was quarantined, if it was."""
    carried: bool = False
    """True: the payload is the frame that a carrier brought; its topic is the carrier's."""
    port: int | None = None
    """Port of such a frame."""
    maker: str = ""
    """Of such a frame: the first six digits of its DevEUI, which are the maker's."""


class Understood(NamedTuple):
    """A message in the format that fits."""

    sample: Sample
    format: str
    tree: Any
    """None: bytes that no format of ours explains."""


class Group(NamedTuple):
    """Messages of one shape."""

    pattern: str
    """Topic pattern with {device}."""
    format: str
    messages: list[Understood]
    sure: bool
    """Whether it is known which level of the topic is the device."""
    carried: bool = False
    port: int | None = None
    """Of frames that a carrier brought: their port."""
    maker: str = ""
    ports: tuple[int, ...] = ()
    """In place of `port`, where several are alike."""
    options: tuple[str, ...] = ()
    """Lines of the rule in place of its format: ``script: {file: x.js}``."""


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────


def _no_error(what: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(what, key=".".join(map(str, path)), remedy=remedy)


_SETTING = Setting("learn/draft", 1, File(), _no_error)
_parses: dict[str, Parse] = {}


def _parse(name: str, payload: bytes, topic: str = "") -> Any:
    """Return the tree of a payload in a format. Raises `Rejected`."""
    if name not in _parses:
        _parses[name] = FORMATS[name].compile(None, _SETTING)
    return _counted(_parses[name](Frame(payload, NESTING_MAX, topic)))


def _counted(tree: Any) -> Any:
    """Return a tree in which whole numbers beyond all floats are texts: no device measures them."""
    if isinstance(tree, dict):
        return {key: _counted(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_counted(value) for value in tree]
    return str(tree) if isinstance(tree, int) and tree.bit_length() > _BITS_MAX else tree


_PAIR = re.compile(rb"[\w.\-]{1,40}\s*[=:]\s*[^=;,&\n]{0,80}")
_INFLUX = re.compile(
    rb"(?:[^\s,=\\]|\\.)++(?:,(?:[^\s,=\\]|\\.)++=(?:[^\s,=\\]|\\.)++)*+\s+[^\s=]+=\S+(?:\s-?\d+)?\s*$", re.MULTILINE
)
"""A line of it; no part is tried twice, or a payload of commas would be tried in every way there is."""


_MARKED: Final = (
    (re.compile(rb"##"), ("hj212",)),
    (re.compile(rb"@@.*##\Z", re.DOTALL), ("gbt26875",)),
    (re.compile(rb"~~|7[Ee]7[Ee]"), ("sl651",)),
    (re.compile(rb"~.*~\Z", re.DOTALL), ("jtt808",)),
    (re.compile(rb"\s*[{\[]"), ("json", "jsonlines")),
    (re.compile(rb"\s*<"), ("xml",)),
    (re.compile(rb"[\x80-\xbf\xdc-\xdf]"), ("cbor", "messagepack")),
)
"""How payloads begin (and end) -> the formats that begin so."""


def _candidates(payload: bytes) -> tuple[str, ...]:
    """Return the formats worth trying, the likeliest first."""
    for mark, formats in _MARKED:
        if mark.match(payload):
            return formats
    if not payload or any(byte < 9 for byte in payload[:64]):
        return ()
    pairs = payload.count(b"=") + payload.count(b":")
    likely = (
        ("urlencoded", b"=" in payload and b"&" in payload),
        ("influx", bool(_INFLUX.match(payload))),
        ("keyvalue", pairs >= 2 and len(_PAIR.findall(payload)) >= 2),
        ("csv", payload.count(b",") >= 2 and b"\n" in payload.strip()),
        ("number", True),
        ("text", True),
    )
    return tuple(name for name, so in likely if so)


def understand(sample: Sample) -> Understood:
    """Return a message with the first format that explains it; bytes that none explains are `binary`."""
    for name in _candidates(sample.payload):
        try:
            tree = _parse(name, sample.payload, sample.topic)
            if name in {"cbor", "messagepack"} and not isinstance(tree, (dict, list)):
                continue
            better = (
                "senml"
                if name == "json" and _is_senml(tree)
                else "senml_cbor"
                if name == "cbor" and _labelled(tree)
                else ""
            )
            if better:
                return Understood(sample, better, _parse(better, sample.payload))
        except Rejected:
            continue
        return Understood(sample, name, tree)
    return Understood(sample, "binary", None)


def _labelled(tree: Any) -> bool:
    """Return whether records have SenML's numbers for labels (0 is the name)."""
    return isinstance(tree, list) and bool(tree) and all(isinstance(one, dict) and "0" in one for one in tree)


def _is_senml(tree: Any) -> bool:
    if not isinstance(tree, list) or not tree or not all(isinstance(record, dict) for record in tree):
        return False
    if not any("bn" in record or "n" in record for record in tree):
        return False
    try:
        return all({"v", "vs", "vb", "vd", "s"} & record.keys() for record in resolve(tree))
    except (Rejected, TypeError, KeyError, OverflowError):
        return False


# ── topics ───────────────────────────────────────────────────────────────────────────────────────────

_COMMON_WORDS: Final = (
    "up uplink down data telemetry status state sensor sensors event events report post properties property tele stat"
    " device devices thing things sys v1 v2 v3 info json msg message messages attributes attribute values upload rx tx"
    " application iot mqtt raw gateway node env energy info heartbeat alarm"
)
_COMMON: Final = frozenset(_COMMON_WORDS.split())
"""Levels of topics that name no device."""
_ID = re.compile(r"(?=.*\d)[A-Za-z0-9][\w.:\-]{3,}|\d{3,}")
_HEX = re.compile(r"[0-9a-fA-F]{8,}")


def _looks_like_id(level: str) -> bool:
    plain = level.lower()
    return (
        plain not in _COMMON
        and bool(_ID.fullmatch(level) or _HEX.fullmatch(level))
        and not re.fullmatch(r"v\d+", plain)
    )


def _skeleton(topic: str, names: Container[str]) -> tuple[str, ...]:
    """Return the levels of a topic, those that look like a name as ``+``."""
    return tuple("+" if level in names or _looks_like_id(level) else level for level in topic.split("/"))


def _shape(message: Understood) -> frozenset[tuple[Path, str]]:
    """Return the members of a message with the kinds of their values; places in lists do not count."""
    found = set()
    for path, value in leaves(message.tree):
        kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
        found.add((tuple("*" if isinstance(step, int) else step for step in path), kind))
    return frozenset(found)


def group(samples: Iterable[Sample], names: Container[str] = frozenset()) -> list[Group]:
    """Return the messages by shape, largest group first.

    Args:
        samples: as recorded, oldest first.
        names: ids and aliases of registered devices: a level of a topic that is one names the device.
    """
    by_topic: dict[tuple[tuple[str, ...], str], list[Understood]] = defaultdict(list)
    carried: dict[tuple[str, int | None, str], list[Understood]] = defaultdict(list)
    for sample in samples:
        message = understand(sample)
        if sample.carried:
            carried[sample.maker, sample.port, message.format].append(message)
            continue
        by_topic[_skeleton(sample.topic, names), message.format].append(message)
    found: list[Group] = []
    for (skeleton, form), messages in _merged(by_topic).items():
        pattern, sure = _pattern(skeleton, messages, names)
        found += [Group(pattern, form, alike, sure) for alike in _alike(messages)]
    for (maker, port, form), messages in carried.items():
        found += [Group("", form, alike, True, True, port, maker) for alike in _alike(messages)]
    found.sort(key=lambda one: len(one.messages), reverse=True)
    return found[:GROUPS_MAX]


Key = tuple[tuple[str, ...], str]


def _merged(by_topic: Mapping[Key, list[Understood]]) -> dict[Key, list[Understood]]:
    """Join topics that differ in one level only, where three or more do and what they carry is alike."""
    found = dict(by_topic)
    for (skeleton, form), _ in list(found.items()):
        for at, level in enumerate(skeleton):
            if level == "+" or level.lower() in _COMMON or "+" in skeleton:
                continue
            alike = [
                key
                for key in found
                if key[1] == form
                and len(key[0]) == len(skeleton)
                and all(one == other or n == at for n, (one, other) in enumerate(zip(key[0], skeleton, strict=True)))
            ]
            if len(alike) >= 3 and _overlap([_shape(found[key][0]) for key in alike]) >= 0.5:
                joined = [message for key in alike for message in found.pop(key)]
                found[(*skeleton[:at], "+", *skeleton[at + 1 :]), form] = joined
                break
    return found


def _overlap(shapes: Sequence[frozenset[Any]]) -> float:
    first = shapes[0]
    shares = [len(first & other) / len(first | other) if first | other else 1.0 for other in shapes[1:]]
    return min(shares, default=1.0)


def _alike(messages: Sequence[Understood]) -> list[list[Understood]]:
    """Return messages in lists whose members agree by half; what sends part of its members belongs to the whole."""
    if messages[0].tree is None:
        return [list(messages)]
    found: list[tuple[set[Any], list[Understood]]] = []
    for message in messages:
        shape = _shape(message)
        for known, alike in found:
            if not shape or len(shape & known) >= 0.5 * min(len(shape), len(known)):
                known.update(shape)
                alike.append(message)
                break
        else:
            found.append((set(shape), [message]))
    return [alike for _, alike in found]


_FREE: Final = ("group", "area", "site", "line", "part", "unit", "branch", "cell")


def _pattern(skeleton: tuple[str, ...], messages: Sequence[Understood], names: Container[str]) -> tuple[str, bool]:
    """Return (topic pattern, whether it is certain which level is the device)."""
    topics = [message.sample.topic.split("/") for message in messages]
    open_ = [at for at, level in enumerate(skeleton) if level == "+"]
    rank: Callable[[int], tuple[bool, int, int]] = lambda at: (  # noqa: E731 - one key, used once
        any(topic[at] in names for topic in topics),
        len({topic[at] for topic in topics}),
        at,
    )
    sure = bool(open_)
    if not open_:
        plain = [at for at, level in enumerate(skeleton) if level.lower() not in _COMMON]
        open_ = [plain[-1] if plain else len(skeleton) - 1] if len(skeleton) > 1 else []
    if not open_:
        return "/".join(skeleton), False
    device = max(open_, key=rank)
    free = iter(_FREE)
    levels = list(skeleton)
    for at in open_:
        said = {topic[at] for topic in topics}
        alone = said.pop() if len(said) == 1 else ""  # the same everywhere: it may look like a name, and is none
        levels[at] = "{device}" if at == device else alone or "{" + next(free, "rest") + "}"
    return "/".join(levels), sure
