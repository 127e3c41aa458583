"""The fast path of formats that give flat values: binary layouts, and all formats whose trees can be flattened.

JSON's shape is recognised by msgspec (`plan.py`); a layout reports the branches that a frame took. Frames with the same
branches, and the same values where values decide (`where`), have the same members in the same positions. The first few
go the slow path; then a plan decodes the values into columns. A cache: bounded, and it never changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from sensegate.decode.extract import BoundMessage, Leaf
from sensegate.decode.flatten import PURE, Flattened, FlattenedTrees, TooManyLeaves
from sensegate.decode.frame import BatchParse, Parse
from sensegate.decode.learned_forms import LearnedForms
from sensegate.decode.paths import Path
from sensegate.decode.plan import LEAVES_MAX, NAMES_MAX, ColumnPlan, LeafAccess, flag_leaves
from sensegate.decode.profile import CompiledRule
from sensegate.decode.senml_columns import SenmlCborColumns, SenmlColumns
from sensegate.decode.xml_columns import XmlColumns
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

PLANS_MAX = 256
"""Most plans of one set of rules."""
_SIGHTINGS = 3
_SEEN_MAX = 4_096
_NEVER = -(2**31)
_ATTEMPTS_MAX = 256
"""After this many frames from which nothing was learned, only every n-th one is used for learning."""
_WINDOW = 4_096
"""After this many frames, the reader checks whether enough of them had plans."""

_LEARNED: Final[dict[str, Callable[[Parse, int], LearnedForms]]] = {
    "senml": SenmlColumns,
    "senml_cbor": SenmlCborColumns,
    "xml": XmlColumns,
}
"""Pure formats whose payloads are read by their forms, too."""

Values = Sequence[Any]
Holders = tuple[tuple[CompiledRule, str], ...]


@runtime_checkable
class CountsFrames(Protocol):
    """A parse that counts the frames of which it makes trees, and is told of those decoded without."""

    def count_planned(self, frames: int) -> None:
        """Count frames that were decoded into columns."""
        ...


@runtime_checkable
class Columnar(Protocol):
    """A parse that can also give flat values."""

    @property
    def columnar(self) -> bool:
        """Return whether the branches determine all members."""
        ...

    @property
    def exact(self) -> bool:
        """Return whether a value that is an integer once is an integer in all frames with the same branches."""
        ...

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Values]:
        """Return (branches taken, values). Raises `Rejected`."""
        ...

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Prepare for many frames with the branches of this one."""
        ...

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return the pointer of each value in the tree."""
        ...


class _DecidedPlans(NamedTuple):
    """Plans, by the values that decide."""

    at: tuple[int, ...]
    get: Callable[[Values], Any]
    plans: dict[Any, ColumnPlan]


class FramesByPlan(NamedTuple):
    """Frames grouped by plan."""

    groups: dict[ColumnPlan, tuple[list[int], list[Values]]]
    """Plan -> (indices of its frames, their values)."""
    without: list[int]
    """Indices of frames without a plan."""


class ColumnarReader:
    """The plans learned for the frames of one set of rules."""

    def __init__(
        self, holders: Holders, parses: Sequence[Columnar], places: Mapping[int, int], *, parsed: bool = False
    ) -> None:
        """Make a reader without plans.

        Args:
            holders: the rules.
            parses: their parses.
            places: number of a rule among the holders -> index of its parse.
            parsed: whether frames come parsed, so that one without a plan is not parsed twice.
        """
        self._parsed = parsed
        self._holders = holders
        self._parses = parses
        self._places = places
        self._frames_tried = self._frames_hit = self._attempts = 0
        self._plans: dict[Hashable, ColumnPlan] = {}
        self._deciding: dict[Hashable, list[_DecidedPlans]] = {}
        self._seen: dict[int, int] = {}
        """Sightings of branches and deciding values, by their hash: they may be as long as a payload."""
        self.count = 0
        """Number of plans."""

    def sort(self, payloads: Sequence[bytes], ports: Iterable[int | None] = repeat(None)) -> FramesByPlan:
        """Group frames by the plan that fits them; frames without a plan must go the slow path."""
        if not self._parsed and self._rarely_hits():
            return FramesByPlan({}, list(range(len(payloads))))
        flattened: list[tuple[Hashable, Values] | None] = []
        source = map(self._parses[0].flatten if len(self._parses) == 1 else self._flatten, payloads, ports)
        while True:
            try:
                flattened.extend(source)
                break
            except Rejected:  # the list keeps the results so far, the iterator stands behind the refused frame
                flattened.append(None)
        groups: dict[ColumnPlan, tuple[list[int], list[Values]]] = {}
        without: list[int] = []
        for index, item in enumerate(flattened):
            plan = None
            if item is not None:
                plan = self._plans.get(item[0]) or self._plan_by_values(*item)
            if item is None or plan is None:
                without.append(index)
            elif plan in groups:
                places, values = groups[plan]
                places.append(index)
                values.append(item[1])
            else:
                groups[plan] = [index], [item[1]]
        self._frames_tried += len(payloads)
        self._frames_hit += len(payloads) - len(without)
        return FramesByPlan(groups, without)

    def count_planned(self, frames: int) -> None:
        """Count frames as parsed that were decoded into columns without the parse."""
        if len(self._parses) == 1 and isinstance(self._parses[0], CountsFrames):
            self._parses[0].count_planned(frames)

    def _flatten(self, payload: bytes, port: int | None) -> tuple[tuple[int, Hashable], Values]:
        """Flatten a frame by the first layout that accepts it; return its index too. Raises `Rejected`."""
        last = len(self._parses) - 1
        for index, parse in enumerate(self._parses):
            try:
                branches, values = parse.flatten(payload, port)
            except TooManyLeaves:
                raise
            except Rejected:
                if index == last:
                    raise
            else:
                return (index, branches), values
        raise Rejected(QuarantineReason.SCHEMA, "no layout")

    def _rarely_hits(self) -> bool:
        """Return whether few frames had plans recently; for a while, frames are then not parsed twice for nothing."""
        if self._frames_tried > _WINDOW:
            if self._frames_hit * 4 > self._frames_tried:
                self._frames_tried, self._frames_hit = self._frames_tried // 2, self._frames_hit // 2
            else:
                self._frames_hit += 1  # counts skipped calls until the next attempt
                return True
        return False

    def _plan_by_values(self, branches: Hashable, values: Values) -> ColumnPlan | None:
        """Return the plan of a frame by the values that decide."""
        for _, get, plans in self._deciding.get(branches, ()):
            plan = plans.get(get(values))
            if plan is not None:
                return plan
        return None

    def learn(
        self, rule: CompiledRule, payload: bytes, port: int | None, deciding: Sequence[Leaf], bound: BoundMessage
    ) -> bool:
        """Learn from a frame that a rule decoded; return whether there is a new plan."""
        self._attempts += 1
        skipped = self._attempts > _ATTEMPTS_MAX and self._attempts % _ATTEMPTS_MAX
        flags = flag_leaves(rule, bound)
        if skipped or self.count >= PLANS_MAX or flags is None or rule.chains:
            return False
        deciding = [*deciding, *flags]
        try:
            (parse_index, branches), values = self._flatten(payload, port)
        except Rejected:  # decoded, but too large for columns
            return False
        parse = self._parses[parse_index]
        if len(self._parses) > 1:
            branches = (parse_index, branches)
        places = {pointer: index for index, pointer in enumerate(parse.pointers(payload, port))}
        unsupported = any(leaf.pointer not in places or isinstance(leaf.raw, list) for leaf in deciding)
        unsupported |= sum(len(str(key)) for pointer in places for key in pointer) > NAMES_MAX
        if unsupported or len(values) > LEAVES_MAX or not self._covers_earlier_rules(rule, parse_index):
            return False
        deciding_at = tuple(sorted({places[leaf.pointer] for leaf in deciding}))
        decided = itemgetter(*deciding_at)(values) if deciding_at else None
        seen = hash((branches, deciding_at, decided))
        if len(self._seen) > _SEEN_MAX:
            self._seen.clear()
        self._seen[seen] = self._seen.get(seen, 0) + 1
        if self._seen[seen] != _SIGHTINGS:
            return False
        try:
            plan = ColumnPlan(rule, bound, None, LeafAccess(places, itemgetter, exact=parse.exact))
        except (ValueError, TypeError):
            self._seen[seen] = _NEVER
            return False
        self._add_plan(branches, deciding_at, decided, plan)
        parse.prepare(payload, port)
        return True

    def _add_plan(self, branches: Hashable, deciding_at: tuple[int, ...], decided: Any, plan: ColumnPlan) -> None:
        self.count += 1
        self._attempts = 0
        if not deciding_at:
            self._plans[branches] = plan
            return
        for decided_plans in self._deciding.setdefault(branches, []):
            if decided_plans.at == deciding_at:
                decided_plans.plans[decided] = plan
                return
        self._deciding[branches].append(_DecidedPlans(deciding_at, itemgetter(*deciding_at), {decided: plan}))

    def _covers_earlier_rules(self, rule: CompiledRule, parse_index: int) -> bool:
        """Return whether a plan holds for all frames that the parse at index `parse_index` accepts first.

        It does if each earlier rule was tried with that parse too, or with one that refused the frame.
        """
        for index, (other, _) in enumerate(self._holders):
            index_of_parse = self._places.get(index)
            if index_of_parse is None or index_of_parse > parse_index:
                return False
            if other is rule:
                return index_of_parse == parse_index
        return False


class TreeReader(NamedTuple):
    """The plans learned for trees of one parse of many frames at once."""

    parse: BatchParse
    reader: ColumnarReader


class ColumnarReaders:
    """The columnar readers, by the rules of a topic or a port."""

    def __init__(self, nesting_max: int) -> None:
        self._nesting_max = nesting_max
        self._known: dict[Holders, ColumnarReader | None] = {}
        self._of_trees: dict[Holders, TreeReader | None] = {}

    @property
    def count(self) -> int:
        """Plans of all readers."""
        of_trees = (known.reader for known in self._of_trees.values() if known is not None)
        return sum(reader.count for reader in (*self._known.values(), *of_trees) if reader is not None)

    def of_trees(self, rules: Sequence[tuple[CompiledRule, str]]) -> TreeReader | None:
        """Return the reader for rules whose frames are parsed many at once, None if theirs are not."""
        holders = tuple(rules)
        if holders not in self._of_trees:
            parse = holders[0][0].parse if holders else None
            plain = all(rule.parse is parse and not (rule.beside or rule.chains or wrap) for rule, wrap in holders)
            places = dict.fromkeys(range(len(holders)), 0)
            reader = ColumnarReader(holders, [FlattenedTrees()], places, parsed=True)
            self._of_trees[holders] = TreeReader(parse, reader) if isinstance(parse, BatchParse) and plain else None
        return self._of_trees[holders]

    def of(self, rules: Sequence[tuple[CompiledRule, str]]) -> ColumnarReader | None:
        """Return the reader for rules, None if their format gives no flat values."""
        holders = tuple(rules)
        if holders not in self._known:
            self._known[holders] = self._build(holders)
        return self._known[holders]

    def _build(self, holders: Holders) -> ColumnarReader | None:
        if not holders or any(rule.beside or wrap for rule, wrap in holders):
            return None
        parses: list[Columnar] = []
        known: dict[Parse, int] = {}
        places: dict[int, int] = {}
        for index, (rule, _) in enumerate(holders):
            if rule.parse not in known:
                columnar = self._columnar(rule)
                if columnar is None:
                    break  # rules after it are not planned
                known[rule.parse] = len(parses)
                parses.append(columnar)
            places[index] = known[rule.parse]
        return ColumnarReader(holders, parses, places) if parses else None

    def _columnar(self, rule: CompiledRule) -> Columnar | None:
        if rule.metadata:  # not of the payload alone
            return None
        if rule.format in _LEARNED and rule.as_sent:
            return _LEARNED[rule.format](rule.parse, self._nesting_max)
        if isinstance(rule.parse, Columnar):
            return rule.parse if rule.parse.columnar else None
        if rule.format in PURE or (rule.format == "json" and not rule.as_sent):
            return Flattened(rule.parse, self._nesting_max)
        return None
