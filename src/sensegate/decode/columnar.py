"""The quick path of formats that give bare values: binary layouts, and all whose trees can be taken apart.

Where JSON's shape is found by msgspec (`plan.py`), a layout says itself which branches a frame took: frames with the
same branches, and the same values where values decide (`where`), have the same members in the same places. The first
few go the general way; then a plan makes columns of the values. A cache: bounded, and it never changes results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sensegate.decode.extract import Bound, Leaf
from sensegate.decode.flatten import PURE, Flattened, TooLarge
from sensegate.decode.frame import Parse
from sensegate.decode.paths import Path
from sensegate.decode.plan import LEAVES_MAX, Access, Plan
from sensegate.decode.profile import Rule
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

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

    def __init__(self, holders: Holders, parses: Sequence[Columnar], places: Mapping[int, int]) -> None:
        """Make it; `places`: the number of a rule among the holders -> the place of its parse among `parses`."""
        self._holders = holders
        self._parses = parses
        self._places = places
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
        source = map(self._parses[0].flat if len(self._parses) == 1 else self._flat, payloads, ports)
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

    def _flat(self, payload: bytes, port: int | None) -> tuple[tuple[int, Hashable], Values]:
        """Return what the first layout that takes a frame makes of it, with its place. Raises `Rejected`."""
        last = len(self._parses) - 1
        for at, parse in enumerate(self._parses):
            try:
                branches, values = parse.flat(payload, port)
            except TooLarge:
                raise
            except Rejected:
                if at == last:
                    raise
            else:
                return (at, branches), values
        raise Rejected(QuarantineReason.SCHEMA, "no layout")

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
        if seldom or self.count >= PLANS_MAX or rule.flags is not None or rule.chains:
            return False
        try:
            (taken, branches), values = self._flat(payload, port)
        except Rejected:  # understood, and too large for columns
            return False
        parse = self._parses[taken]
        if len(self._parses) > 1:
            branches = (taken, branches)
        places = {pointer: at for at, pointer in enumerate(parse.pointers(payload, port))}
        strange = any(leaf.pointer not in places or isinstance(leaf.raw, list) for leaf in deciding)
        if strange or len(values) > LEAVES_MAX or not self._may(rule, taken):
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
            plan = Plan(rule, bound, None, Access(places, itemgetter, exact=parse.exact))
        except (ValueError, TypeError):
            self._seen[key] = _NEVER
            return False
        self._keep(branches, at, decided, plan)
        parse.prepare(payload, port)
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

    def _may(self, rule: Rule, taken: int) -> bool:
        """Return whether a plan says all of frames that the parse at a place takes first.

        It does if each rule before was tried with that parse too, or with one that refused the frame.
        """
        for at, (other, _) in enumerate(self._holders):
            place = self._places.get(at)
            if place is None or place > taken:
                return False
            if other is rule:
                return place == taken
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
        parses: list[Columnar] = []
        known: dict[Parse, int] = {}
        places: dict[int, int] = {}
        for at, (rule, _) in enumerate(holders):
            if rule.parse not in known:
                columnar = self._columnar(rule)
                if columnar is None:
                    break  # what comes after it is not planned
                known[rule.parse] = len(parses)
                parses.append(columnar)
            places[at] = known[rule.parse]
        return Reader(holders, parses, places) if parses else None

    def _columnar(self, rule: Rule) -> Columnar | None:
        if isinstance(rule.parse, Columnar):
            return rule.parse if rule.parse.columnar else None
        if rule.format in PURE or (rule.format == "json" and not rule.as_sent):
            return Flattened(rule.parse, self._nesting_max)
        return None
