"""Group recorded messages by shape: the same kind of topic, the same format, nearly the same members."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import leaves
from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.senml import resolve
from sensegate.decode.frame import FormatContext, Parse, PayloadFrame
from sensegate.decode.paths import Path
from sensegate.errors import ProfileError, Rejected

NESTING_MAX = 32
_BITS_MAX = 1_000
GROUPS_MAX = 200
"""Most groups returned."""


MemberKind = tuple[Path, str]
"""Path of a member, with ``*`` for each position in a list, and the type of its value."""


class Sample(NamedTuple):
    """A recorded message to learn from."""

    topic: str
    payload: bytes
    received: int = 0
    """Arrival, µs UTC; 0: not recorded."""
    device: str = ""
    """Id or alias of the registered device, if known."""
    reason: str = ""
    """Quarantine reason, if the message was quarantined."""
    carried: bool = False
    """True: the payload is a frame that a carrier delivered; the topic is the carrier's."""
    port: int | None = None
    """Port of such a frame."""
    maker: str = ""
    """The first six digits of such a frame's DevEUI, which identify the maker."""


class ParsedSample(NamedTuple):
    """A message, parsed in the format that fits."""

    sample: Sample
    format: str
    tree: Any
    """None: bytes that no known format explains."""


class SampleGroup(NamedTuple):
    """Messages of one shape."""

    pattern: str
    """Topic pattern with {device}."""
    format: str
    messages: list[ParsedSample]
    sure: bool
    """True if it is certain which level of the topic names the device."""
    carried: bool = False
    port: int | None = None
    """Port of frames that a carrier delivered."""
    maker: str = ""
    ports: tuple[int, ...] = ()
    """Replaces `port` when several ports have the same layout."""
    options: tuple[str, ...] = ()
    """Lines of the rule instead of its format: ``script: {file: x.js}``."""
    members: frozenset[MemberKind] = frozenset()
    """Members that more than half of its messages have: they distinguish groups that share a pattern, and stay the same
    when a few messages are added."""


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────


def _profile_error(text: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(text, key=".".join(map(str, path)), remedy=remedy)


_SETTING = FormatContext("learn/draft", 1, File(), _profile_error)
_parses: dict[str, Parse] = {}


def _parse(name: str, payload: bytes, topic: str = "") -> Any:
    """Return the tree of a payload in a format. Raises `Rejected`."""
    if name not in _parses:
        _parses[name] = FORMATS[name].compile(None, _SETTING)
    return _without_huge_integers(_parses[name](PayloadFrame(payload, NESTING_MAX, topic)))


def _without_huge_integers(tree: Any) -> Any:
    """Return a tree with integers beyond the range of floats as text: no device measures such values."""
    if isinstance(tree, dict):
        return {key: _without_huge_integers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_huge_integers(value) for value in tree]
    return str(tree) if isinstance(tree, int) and tree.bit_length() > _BITS_MAX else tree


_PAIR = re.compile(rb"[\w.\-]{1,40}\s*[=:]\s*[^=;,&\n]{0,80}")
_INFLUX = re.compile(
    rb"(?:[^\s,=\\]|\\.)++(?:,(?:[^\s,=\\]|\\.)++=(?:[^\s,=\\]|\\.)++)*+\s+[^\s=]+=\S+(?:\s-?\d+)?\s*$", re.MULTILINE
)
"""An InfluxDB line. Possessive, because a payload of commas would otherwise backtrack exponentially."""


_SIGNATURES: Final = (
    (re.compile(rb"##"), ("hj212",)),
    (re.compile(rb"@@.*##\Z", re.DOTALL), ("gbt26875",)),
    (re.compile(rb"~~|7[Ee]7[Ee]"), ("sl651",)),
    (re.compile(rb"~.*~\Z", re.DOTALL), ("jtt808",)),
    (re.compile(rb"\s*[{\[]"), ("json", "jsonlines")),
    (re.compile(rb"\s*<"), ("xml",)),
    (re.compile(rb"[\x80-\xbf\xdc-\xdf]"), ("cbor", "messagepack")),
)
"""Signature at the start (and end) of payloads -> formats that have it."""


def _candidates(payload: bytes) -> tuple[str, ...]:
    """Return the formats worth trying, the most likely first."""
    for signature, formats in _SIGNATURES:
        if signature.match(payload):
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
    return tuple(name for name, applies in likely if applies)


def parse_sample(sample: Sample) -> ParsedSample:
    """Parse a message in the first format that explains it; bytes that none explains become `binary`."""
    for name in _candidates(sample.payload):
        try:
            tree = _parse(name, sample.payload, sample.topic)
            if name in {"cbor", "messagepack"} and not isinstance(tree, (dict, list)):
                continue
            specific = (
                "senml"
                if name == "json" and _is_senml(tree)
                else "senml_cbor"
                if name == "cbor" and _has_senml_labels(tree)
                else ""
            )
            if specific:
                return ParsedSample(sample, specific, _parse(specific, sample.payload))
        except Rejected:
            continue
        return ParsedSample(sample, name, tree)
    return ParsedSample(sample, "binary", None)


def _has_senml_labels(tree: Any) -> bool:
    """Return whether records have SenML's integer labels (0 is the name)."""
    return isinstance(tree, list) and bool(tree) and all(isinstance(record, dict) and "0" in record for record in tree)


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
_COMMON_LEVELS: Final = frozenset(_COMMON_WORDS.split())
"""Topic levels that name no device."""
_ID = re.compile(r"(?=.*\d)[A-Za-z0-9][\w.:\-]{3,}|\d{3,}")
_HEX = re.compile(r"[0-9a-fA-F]{8,}")


def _looks_like_id(level: str) -> bool:
    plain = level.lower()
    return (
        plain not in _COMMON_LEVELS
        and bool(_ID.fullmatch(level) or _HEX.fullmatch(level))
        and not re.fullmatch(r"v\d+", plain)
    )


def _skeleton(topic: str, names: Container[str]) -> tuple[str, ...]:
    """Return the levels of a topic, with those that look like a name replaced by ``+``."""
    return tuple("+" if level in names or _looks_like_id(level) else level for level in topic.split("/"))


def _members(message: ParsedSample) -> frozenset[MemberKind]:
    """Return the members of a message with the types of their values, regardless of positions in lists."""
    members = set()
    for path, value in leaves(message.tree):
        kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
        members.add((tuple("*" if isinstance(step, int) else step for step in path), kind))
    return frozenset(members)


def group(samples: Iterable[Sample], names: Container[str] = frozenset()) -> list[SampleGroup]:
    """Group messages by shape, the largest group first.

    Args:
        samples: messages as recorded, oldest first.
        names: ids and aliases of registered devices; a topic level that is one of them names the device.
    """
    by_topic: dict[tuple[tuple[str, ...], str], list[ParsedSample]] = defaultdict(list)
    carried: dict[tuple[str, int | None, str], list[ParsedSample]] = defaultdict(list)
    for sample in samples:
        message = parse_sample(sample)
        if sample.carried:
            carried[sample.maker, sample.port, message.format].append(message)
            continue
        by_topic[_skeleton(sample.topic, names), message.format].append(message)
    by_pattern: dict[tuple[str, bool, str], list[ParsedSample]] = defaultdict(list)
    for (skeleton, form), messages in _merge_topics(by_topic).items():
        by_pattern[*_pattern(skeleton, messages, names), form] += messages
    groups: list[SampleGroup] = []
    for (pattern, sure, form), messages in by_pattern.items():
        groups += [
            SampleGroup(pattern, form, cluster.messages, sure, members=cluster.common_members())
            for cluster in _split_by_members(messages)
        ]
    for (maker, port, form), messages in carried.items():
        groups += [
            SampleGroup("", form, cluster.messages, True, True, port, maker, members=cluster.common_members())
            for cluster in _split_by_members(messages)
        ]
    groups.sort(key=lambda found_group: len(found_group.messages), reverse=True)
    return groups[:GROUPS_MAX]


_Key = tuple[tuple[str, ...], str]


def _merge_topics(by_topic: Mapping[_Key, list[ParsedSample]]) -> dict[_Key, list[ParsedSample]]:
    """Join topics that differ in one level only, if at least three do and their messages have similar members."""
    merged = dict(by_topic)
    for (skeleton, form), _ in list(merged.items()):
        for index, level in enumerate(skeleton):
            if level == "+" or level.lower() in _COMMON_LEVELS or "+" in skeleton:
                continue
            similar = [
                key
                for key in merged
                if key[1] == form
                and len(key[0]) == len(skeleton)
                and all(
                    left == right or n == index for n, (left, right) in enumerate(zip(key[0], skeleton, strict=True))
                )
            ]
            if len(similar) >= 3 and _least_overlap([_members(merged[key][0]) for key in similar]) >= 0.5:
                joined = [message for key in similar for message in merged.pop(key)]
                merged[(*skeleton[:index], "+", *skeleton[index + 1 :]), form] = joined
                break
    return merged


def _least_overlap(shapes: Sequence[frozenset[Any]]) -> float:
    first = shapes[0]
    shares = [len(first & other) / len(first | other) if first | other else 1.0 for other in shapes[1:]]
    return min(shares, default=1.0)


class _Cluster:
    """Messages of one shape, with the number of messages that have each member."""

    def __init__(self, messages: list[ParsedSample]) -> None:
        self.messages = messages
        self.counts: Counter[MemberKind] = Counter()

    def has_shape(self, shape: frozenset[MemberKind]) -> bool:
        """Return whether half of the members agree; few members belong to any shape that has them."""
        return not shape or len(shape & self.counts.keys()) >= 0.5 * min(len(shape), len(self.counts))

    def add(self, message: ParsedSample, shape: frozenset[MemberKind]) -> None:
        self.messages.append(message)
        self.counts.update(shape)

    def common_members(self) -> frozenset[MemberKind]:
        """Return the members that more than half of the messages have."""
        return frozenset(member for member, count in self.counts.items() if 2 * count > len(self.messages))


def _split_by_members(messages: Sequence[ParsedSample]) -> list[_Cluster]:
    """Split messages into clusters whose members agree by half; bytes that no format explains are one cluster."""
    if messages[0].tree is None:
        return [_Cluster(list(messages))]
    clusters: list[_Cluster] = []
    for message in messages:
        shape = _members(message)
        cluster = next((cluster for cluster in clusters if cluster.has_shape(shape)), None)
        if cluster is None:
            clusters.append(cluster := _Cluster([]))
        cluster.add(message, shape)
    return clusters


_CAPTURES: Final = ("group", "area", "site", "line", "part", "unit", "branch", "cell")


def _pattern(skeleton: tuple[str, ...], messages: Sequence[ParsedSample], names: Container[str]) -> tuple[str, bool]:
    """Return the topic pattern, and whether it is certain which level is the device."""
    topics = [message.sample.topic.split("/") for message in messages]
    variable = [index for index, level in enumerate(skeleton) if level == "+"]
    rank: Callable[[int], tuple[bool, int, int]] = lambda index: (  # noqa: E731 - one key, used once
        any(topic[index] in names for topic in topics),
        len({topic[index] for topic in topics}),
        index,
    )
    sure = bool(variable)
    if not variable:
        plain = [index for index, level in enumerate(skeleton) if level.lower() not in _COMMON_LEVELS]
        variable = [plain[-1] if plain else len(skeleton) - 1] if len(skeleton) > 1 else []
    if not variable:
        return "/".join(skeleton), False
    device = max(variable, key=rank)
    captures = iter(_CAPTURES)
    levels = list(skeleton)
    for index in variable:
        values = {topic[index] for topic in topics}
        constant = values.pop() if len(values) == 1 else ""  # the same in every topic: it names no device
        levels[index] = "{device}" if index == device else constant or "{" + next(captures, "rest") + "}"
    return "/".join(levels), sure
