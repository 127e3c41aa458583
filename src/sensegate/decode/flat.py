"""The quick path of formats that give bare values: binary layouts, and all whose trees can be taken apart.

Where JSON's shape is found by msgspec (`plan.py`), a layout says itself which branches a frame took: frames with the
same branches, and the same values where values decide (`where`), have the same members in the same places. The first
few go the general way; then a plan makes columns of the values. A cache: bounded, and it never changes results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sensegate.decode.extract import Bound, Leaf
from sensegate.decode.flatten import PURE, Flattened
from sensegate.decode.paths import Path
from sensegate.decode.plan import LEAVES_MAX, Plan
from sensegate.decode.profile import Rule
from sensegate.errors import Rejected

PLANS_MAX = 256
"""Plans of one set of rules."""
_SIGHTINGS = 3
_SEEN_MAX = 4_096
_NEVER = -(2**31)
_TRIES = 256
"""After so many frames from which nothing was learned, only every so-manieth is looked at."""
_TRIED_MAX = 4_096
"""After so many frames it is asked whether enough of them had plans."""

Values = Sequence[Any]
Holders = tuple[tuple[Rule, str], ...]


@runtime_checkable
class Columnar(Protocol):
    """A parse that can also give bare values."""

    @property
    def columnar(self) -> bool:
        """Whether its branches tell all that is there."""
        ...

    @property
    def exact(self) -> bool:
        """Whether a value that is an integer once is one in all frames with the same branches."""
        ...

    def flat(self, payload: bytes, port: int | None) -> tuple[Hashable, Values]:
        """Return (branches taken, values). Raises `Rejected`."""
        ...

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Get ready for many frames with the branches of this one."""
        ...

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return where in the tree each of the values stands."""
        ...


class _Deciding(NamedTuple):
    """Plans by the values that decide."""

    at: tuple[int, ...]
    get: Callable[[Values], Any]
    plans: dict[Any, Plan]


class Sorted(NamedTuple):
    """Frames by their plans."""

    groups: dict[Plan, tuple[list[int], list[Values]]]
    """Plan -> (places of its frames, their values)."""
    without: list[int]
    """Places of frames without a plan."""


class Reader:
    """What was learned of the frames of one set of rules."""

    def __init__(self, holders: Holders, parse: Columnar) -> None:
        self._holders = holders
        self._parse = parse
        self._tried = self._hit = self._attempts = 0
        self._plans: dict[Hashable, Plan] = {}
        self._deciding: dict[Hashable, list[_Deciding]] = {}
        self._seen: dict[Hashable, int] = {}
        self.count = 0
        """Plans made."""

    def sort(self, payloads: Sequence[bytes], ports: Iterable[int | None] = repeat(None)) -> Sorted:
        """Return frames by the plan that fits them; those without one have to go the general way."""
        if self._in_vain():
            return Sorted({}, list(range(len(payloads))))
        found: list[tuple[Hashable, Values] | None] = []
        source = map(self._parse.flat, payloads, ports)
        while True:
            try:
                found.extend(source)
                break
            except Rejected:  # the list keeps what came before, the iterator stands behind the refused one
                found.append(None)
        groups: dict[Plan, tuple[list[int], list[Values]]] = {}
        without: list[int] = []
        for at, one in enumerate(found):
            plan = None
            if one is not None:
                plan = self._plans.get(one[0]) or self._decided(*one)
            if one is None or plan is None:
                without.append(at)
            elif plan in groups:
                places, values = groups[plan]
                places.append(at)
                values.append(one[1])
            else:
                groups[plan] = [at], [one[1]]
        self._tried += len(payloads)
        self._hit += len(payloads) - len(without)
        return Sorted(groups, without)

    def _in_vain(self) -> bool:
        """Return whether few frames had plans of late; then they are not read twice for nothing, for a while."""
        if self._tried > _TRIED_MAX:
            if self._hit * 4 > self._tried:
                self._tried, self._hit = self._tried // 2, self._hit // 2
            else:
                self._hit += 1  # so many calls are left out until it is tried again
                return True
        return False

    def _decided(self, branches: Hashable, values: Values) -> Plan | None:
        """Return the plan of a frame whose values decide."""
        for _, get, plans in self._deciding.get(branches, ()):
            plan = plans.get(get(values))
            if plan is not None:
                return plan
        return None

    def learn(self, rule: Rule, payload: bytes, port: int | None, deciding: Sequence[Leaf], bound: Bound) -> bool:
        """Learn from a frame that was understood by a rule; return whether there is a new plan."""
        self._attempts += 1
        seldom = self._attempts > _TRIES and self._attempts % _TRIES
        if seldom or not self._may(rule) or self.count >= PLANS_MAX:
            return False
        try:
            branches, values = self._parse.flat(payload, port)
        except Rejected:  # understood, and too large for columns
            return False
        places = {pointer: at for at, pointer in enumerate(self._parse.pointers(payload, port))}
        if len(values) > LEAVES_MAX or any(
            leaf.pointer not in places or isinstance(leaf.raw, list) for leaf in deciding
        ):
            return False
        at = tuple(sorted({places[leaf.pointer] for leaf in deciding}))
        decided = itemgetter(*at)(values) if at else None
        key = (branches, at, decided)
        if len(self._seen) > _SEEN_MAX:
            self._seen.clear()
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] != _SIGHTINGS:
            return False
        try:
            plan = Plan(rule, bound, None, places, exact=self._parse.exact)
        except (ValueError, TypeError):
            self._seen[key] = _NEVER
            return False
        self._keep(branches, at, decided, plan)
        self._parse.prepare(payload, port)
        return True

    def _keep(self, branches: Hashable, at: tuple[int, ...], decided: Any, plan: Plan) -> None:
        self.count += 1
        self._attempts = 0
        if not at:
            self._plans[branches] = plan
            return
        for one in self._deciding.setdefault(branches, []):
            if one.at == at:
                one.plans[decided] = plan
                return
        self._deciding[branches].append(_Deciding(at, itemgetter(*at), {decided: plan}))

    def _may(self, rule: Rule) -> bool:
        """Return whether the frame's branches say all: no rule before looked at the bytes in another way."""
        for other, _ in self._holders:
            if other.parse is not self._holders[0][0].parse:
                return False
            if other is rule:
                return rule.flags is None and not rule.chains
        return False


class Readers:
    """The readers by the rules of a topic or a port."""

    def __init__(self, nesting_max: int) -> None:
        self._nesting_max = nesting_max
        self._known: dict[Holders, Reader | None] = {}

    @property
    def count(self) -> int:
        """Plans of all readers."""
        return sum(reader.count for reader in self._known.values() if reader is not None)

    def of(self, rules: Sequence[tuple[Rule, str]]) -> Reader | None:
        """Return the reader of rules, None where their format gives no bare values."""
        holders = tuple(rules)
        if holders not in self._known:
            self._known[holders] = self._made(holders)
        return self._known[holders]

    def _made(self, holders: Holders) -> Reader | None:
        if not holders or any(rule.beside or wrap for rule, wrap in holders):
            return None
        first = holders[0][0]
        if isinstance(first.parse, Columnar):
            return Reader(holders, first.parse) if first.parse.columnar else None
        if first.format in PURE or (first.format == "json" and not first.as_sent):
            return Reader(holders, Flattened(first.parse, self._nesting_max))
        return None
