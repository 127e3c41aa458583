"""Rules of alarms: of operators in a bucket, of profiles, and the gateway's own.

Names are ``name`` for a rule of an operator, ``vendor/model:name`` for one of a profile, ``gateway:name`` for a
built-in one. An operator's rule applies within the scope that it names, which lies in the operator's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound
from sensegate.quantities.properties import PROPERTIES

RULES_MAX = 2_000
SECONDS_MAX = 7 * 86_400.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TITLE_MAX = 200


class AlarmKind(StrEnum):
    """The kind of condition that a rule evaluates."""

    THRESHOLD = "threshold"
    """A reading above, below or equal to a value, for a while."""
    CHANGE = "change"
    """A reading that differs from the one before it by more than a value."""
    SILENCE = "silence"
    """A device without a message for longer than expected."""
    GAP = "gap"
    """Two consecutive readings of a series further apart than expected."""
    QUALITY = "quality"
    """A quality indicator of a device in the last full hour below a value."""
    QUARANTINE_RATE = "quarantine_rate"
    """Share of the gateway's messages that went to quarantine in a quarter of an hour."""
    LAG = "lag"
    """Entries of the log that the centre does not have."""
    DISK = "disk"
    """Share of the disk of the store that is free."""
    REFUSED_SPANS = "refused_spans"
    """Spans, or parts of them, that a centre refused."""
    STORE_MISSING = "store_missing"
    """The store does not work: a stream is missing, writes are refused."""


OF_READINGS = frozenset({AlarmKind.THRESHOLD, AlarmKind.CHANGE, AlarmKind.GAP})
OF_DEVICES = frozenset({AlarmKind.SILENCE, AlarmKind.QUALITY})
INDICATORS = ("authenticity", "accuracy", "continuity", "completeness")


class Severity(StrEnum):
    """Severity of an alarm."""

    INFO = "info"
    WARNING = "warning"
    MAJOR = "major"
    CRITICAL = "critical"


class AlarmRuleTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions of a rule: its subject, and when its alarms open; what does not belong to its kind is left out.

    Values are in the property's unit.
    """

    kind: AlarmKind
    title: str = ""
    severity: Severity = Severity.WARNING
    profile: str = ""
    """``vendor/model``; empty: any. Likewise `domain` and `device`."""
    domain: str = ""
    device: str = ""
    property: str = ""
    channel: str | None = None
    """None: any."""
    above: float | None = None
    below: float | None = None
    equals: bool | str | None = None
    margin: float = 0.0
    """Hysteresis: the alarm closes once the value is back by this much."""
    for_s: float = 0.0
    """The alarm opens once the value is out for so long."""
    by: float = 0.0
    """Of `change`: greatest difference between consecutive readings."""
    after_s: float = 0.0
    """Of `silence` and `gap`: longest time without a message; 0: three expected intervals."""
    indicator: str = ""
    """Of `quality`: one of `INDICATORS`."""
    enabled: bool = True


class AlarmRule(AlarmRuleTerms, frozen=True, omit_defaults=True, kw_only=True):
    """A rule with its name and place."""

    name: str
    place: Scope = Scope("")
    written_by: str = ""
    revision: int = 0
    format: int = 1

    def variable(self) -> str | None:
        """Property name as in feeds, ``name`` or ``name#channel``; None: any channel."""
        if self.channel is None:
            return None
        return f"{self.property}#{self.channel}" if self.channel else self.property


GATEWAY_RULES = (
    AlarmRule(name="gateway:disk", kind=AlarmKind.DISK, title="disk nearly full", severity=Severity.MAJOR, below=0.05,
              margin=0.02),
    AlarmRule(name="gateway:store", kind=AlarmKind.STORE_MISSING, title="store does not work", above=0.0,
              severity=Severity.CRITICAL, for_s=15.0),
    AlarmRule(name="gateway:refused", kind=AlarmKind.REFUSED_SPANS, title="spans refused by the centre", above=0.0,
              severity=Severity.MAJOR),
    AlarmRule(name="gateway:lag", kind=AlarmKind.LAG, title="centre lags behind", above=100_000.0, margin=50_000.0,
              for_s=300.0),
    AlarmRule(name="gateway:quarantine", kind=AlarmKind.QUARANTINE_RATE, title="many messages in quarantine", above=0.2,
              margin=0.1),
)  # fmt: skip
"""Rules of every gateway; an operator's rule of the same kind replaces the built-in one."""


def check_rule(rule: AlarmRule) -> None:
    """Return if a rule is valid. Raises `ConfigError`, which names the key."""
    if len(rule.title) > _TITLE_MAX:
        raise ConfigError("the title is too long", key="title", remedy=f"use at most {_TITLE_MAX} characters")
    for key in ("for_s", "after_s"):
        if not 0 <= getattr(rule, key) <= SECONDS_MAX:
            raise ConfigError(f"{getattr(rule, key):g} s is out of range", key=key, remedy=f"give 0 to {SECONDS_MAX:g}")
    if not rule.margin >= 0:
        raise ConfigError("the margin is negative", key="margin", remedy="give 0 or more")
    if rule.kind in OF_READINGS:
        _check_property(rule)
    limits = [limit for limit in (rule.above, rule.below, rule.equals) if limit is not None]
    if rule.kind is AlarmKind.THRESHOLD and not limits:
        raise ConfigError("the threshold is missing", key="above", remedy="give above, below or equals")
    if rule.above is not None and rule.below is not None and rule.above <= rule.below:
        raise ConfigError("above is not greater than below", key="above", remedy="exchange the two, or leave one out")
    if rule.kind is AlarmKind.CHANGE and not rule.by > 0:
        raise ConfigError("the difference is missing", key="by", remedy="give a number above 0")
    if rule.kind is AlarmKind.QUALITY:
        if rule.indicator not in INDICATORS:
            remedy = f"use one of {', '.join(INDICATORS)}"
            raise ConfigError(f"'{rule.indicator[:20]}' is no indicator", key="indicator", remedy=remedy)
        if rule.below is None:
            raise ConfigError("the limit is missing", key="below", remedy="give a number from 0 to 1")
    if rule.kind not in OF_READINGS | OF_DEVICES and rule.above is None and rule.below is None:
        raise ConfigError("the limit is missing", key="above", remedy="give above or below")


def _check_property(rule: AlarmRule) -> None:
    if PROPERTIES.find(rule.property) < 0:
        near = PROPERTIES.nearest(rule.property)
        remedy = f"did you mean '{near}'?" if near else "see `sensegate profile properties`"
        raise ConfigError(f"there is no property '{rule.property[:64]}'", key="property", remedy=remedy)


class AlarmRules:
    """The rules in force, and their changes by operators."""

    def __init__(
        self, bucket: Bucket, trail: Trail, clock: Clock, *, home: str, of_profiles: Callable[[], Iterable[AlarmRule]]
    ) -> None:
        """`home`: division of the gateway. `of_profiles` returns the rules of the profiles in force."""
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._home = home
        self._of_profiles = of_profiles
        self._own: RecordTable[AlarmRule] = RecordTable(self._store, "rule", AlarmRule, prefix="")
        self._own.on_change.append(lambda _before, _after: self._count())
        self.version = 0
        """Counter of changes by operators."""

    def _count(self) -> None:
        self.version += 1

    async def open(self) -> None:
        """Load the rules of operators. Raises `Unavailable`."""
        await self._store.open()

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._store.run()

    def in_force(self) -> Iterator[AlarmRule]:
        """Yield the enabled rules; a rule of an operator replaces the gateway's own of its kind."""
        own = [rule for rule in self._own if self._is_applicable(rule)]
        replaced = {rule.kind for rule in own}
        yield from (rule for rule in own if rule.enabled)
        yield from self._of_profiles()
        yield from (rule for rule in self._gateway_rules() if rule.kind not in replaced)

    def _is_applicable(self, rule: AlarmRule) -> bool:
        """Return whether the place of a rule covers its subject: a condition of the gateway concerns all who use it."""
        return rule.kind in OF_READINGS | OF_DEVICES or rule.place.covers(self._home)

    def _gateway_rules(self) -> Iterator[AlarmRule]:
        return (msgspec.structs.replace(rule, place=Scope(self._home)) for rule in GATEWAY_RULES)

    def visible(self, by: Principal) -> list[AlarmRule]:
        """Return the rules whose place the caller's scope covers, and those for all places, by name."""
        rules = [*self._own, *self._of_profiles(), *self._gateway_rules()]
        return sorted((rule for rule in rules if self._sees(by, rule)), key=lambda rule: rule.name)

    @staticmethod
    def _sees(by: Principal, rule: AlarmRule) -> bool:
        place = rule.place
        return place.division == "" or allows(by, Action.READ_ALARMS, place.division, place.department)

    def get(self, name: str, by: Principal) -> AlarmRule:
        """Return a rule. Raises `NotFound` where there is none that the caller may see."""
        rule = next((rule for rule in self.visible(by) if rule.name == name), None)
        if rule is None:
            raise NotFound(f"there is no alarm rule {name[:64]} in your scope; see `sensegate alarm rules`")
        return rule

    async def put(self, rule: AlarmRule, *, revision: int, by: Principal) -> AlarmRule:
        """Write a rule of an operator as of a revision (0: a new one); return it.

        Raises:
            ConfigError: it is invalid. PermissionDenied: its place is outside the caller's scope.
            Conflict: it was changed meanwhile, or there are too many.
        """
        if not _NAME.fullmatch(rule.name):
            remedy = "use 1 to 64 characters of a-z, 0-9, _ and -; rules of profiles are changed in the profile"
            raise ConfigError(f"'{rule.name[:64]}' is not a name", key="name", remedy=remedy)
        check_rule(rule)
        demand(by, Action.CHANGE_ALARMS, rule.place.division, rule.place.department)
        if not self._is_applicable(rule):
            raise ConfigError(
                f"a rule of kind {rule.kind} is about the gateway, whose division is {self._home}",
                key="place",
                remedy=f"give {self._home} if that lies in your scope",
            )
        before = self._own.find(rule.name)
        if before and not self._sees(by, before):
            raise Conflict(f"alarm rule {rule.name} exists in another scope; choose another name")
        if before is None and len(self._own) >= RULES_MAX:
            raise Conflict(f"there are {RULES_MAX} alarm rules already; delete some first")
        if (present := before.revision if before else 0) != revision:
            raise Conflict(f"alarm rule {rule.name} is at revision {present}, not {revision}; read it again")
        rule = msgspec.structs.replace(rule, written_by=by.id, revision=0)
        facts_before = _facts(before) if before else None
        await self._trail.record(by, "alarm.rule.put", rule.name, before=facts_before, after=_facts(rule))
        return await self._own.put(rule.name, rule, expected=revision)

    async def delete(self, name: str, *, by: Principal) -> None:
        """Delete a rule of an operator; its alarms close. Raises as `get` and `put`."""
        rule = self.get(name, by)
        demand(by, Action.CHANGE_ALARMS, rule.place.division, rule.place.department)
        if self._own.find(name) is None:
            raise Conflict(f"alarm rule {name} is not an operator's: change the profile, or write a rule of its kind")
        await self._trail.record(by, "alarm.rule.delete", name, before=_facts(rule))
        await self._own.delete(name, expected=rule.revision)


def _facts(rule: AlarmRule) -> Facts:
    facts: Facts = msgspec.to_builtins(rule)
    return facts
