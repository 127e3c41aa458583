"""`Decoder`: a batch of messages to `Fields`. Routes by topic, the quick path by shape, the general path for the rest.

What is kept between batches (routes, plans, units) are caches with bounds: they never change what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from sensegate import metrics
from sensegate.config import IngestConfig
from sensegate.decode.attribution import signed
from sensegate.decode.batch import Postponed, Trees
from sensegate.decode.chain import Carried, FrameRejected, Opened, opened
from sensegate.decode.columnar import Reader
from sensegate.decode.columnar_envelopes import EnvelopePlan, Frames
from sensegate.decode.extract import Bound, Leaf, Rows, Way, bind, path_of
from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.video import SeenTree, reason_of, refused_at
from sensegate.decode.frame import Frame, Parse, WarnedList, WarnedObject
from sensegate.decode.identity import Reception
from sensegate.decode.join import fields_of
from sensegate.decode.memory import Ask, Memory
from sensegate.decode.plan import Chunk, Parsed, Plan
from sensegate.decode.plan_cache import FAULTS, Holder, Plans
from sensegate.decode.profile import Rule, Units
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.rates import Rates
from sensegate.decode.routes import NO_PLAN, REFUSED, DeviceNames, Route, Routes
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import (
    BOOL,
    I32,
    I64,
    U16,
    Device,
    Fields,
    Message,
    Quarantined,
    QuarantineReason,
    RejectedValue,
    RejectReason,
    Span,
    Thinned,
)
from sensegate.quantities.quality import Flag

__all__ = ["Decoder", "DeviceNames"]

GROUP_MIN = 5
"""Fewer messages of one plan in a batch are decoded one by one: columns would cost more."""
_HEAD = 32
"""So many messages without a plan are decoded one by one first; then the others may fit a plan learned from them."""
_TRIES = 64
"""After so many messages of one topic without a plan, only every so-manieth is looked at to learn one."""


class Decoder:
    """Decodes batches of messages with the profiles in force.

    `decode` never raises on any bytes: each message becomes rows, or is quarantined with its reason.
    """

    def __init__(
        self,
        profiles: ProfileSet,
        devices: DeviceNames,
        limits: IngestConfig | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.limits = limits or IngestConfig()
        self.memory = Memory() if memory is None else memory
        self.units = Units()
        self.plans = Plans(self.limits.nesting_max)
        self.rates = Rates(self.limits.rate_per_device_s)
        self.routes = Routes(profiles, devices)
        self._profiles = profiles
        self._devices = devices

    @property
    def profiles(self) -> ProfileSet:
        """The profiles in force."""
        return self._profiles

    @property
    def devices(self) -> DeviceNames:
        """The registry."""
        return self._devices

    def use(self, profiles: ProfileSet) -> None:
        """Put another set of profiles in force from the next batch on."""
        self._profiles = profiles
        self.plans = Plans(self.limits.nesting_max)
        self.routes = Routes(profiles, self._devices)

    def decode(self, messages: Sequence[Message]) -> Fields:
        """Return the rows of a batch, in the order of the messages; what was refused is listed beside them."""
        work = self._work(messages)
        if messages:
            work.run()
        return work.signed(fields_of(work.rows, work.chunks))

    def decode_slowly(self, messages: Sequence[Message]) -> Fields:
        """Return what `decode` does, every message by the general path: the yardstick of the tests."""
        work = self._work(messages)
        for at in range(len(messages)):
            if not work.refuse(at):
                work.one(at, learn=False)
        work.finish()
        return work.signed(fields_of(work.rows, []))

    def greetings(self, now: int) -> list[Ask]:
        """Return what is asked of devices while nothing is remembered of them; `now` in µs."""
        asks: dict[str, Ask] = {}
        for at in np.flatnonzero(self._devices.enabled).tolist():
            record = self._devices.record(at)
            profile = None if record.gateway else self._profiles.of(record)
            greets = [FORMATS[name].greet for name in {rule.format for rule in profile.rules}] if profile else []
            for greet in filter(None, greets):
                for name in (record.id, record.alias):
                    if (ask := greet(name, now)) is not None:
                        asks[ask.topic] = ask
        return list(asks.values())

    def _work(self, messages: Sequence[Message]) -> _Work:
        return _Work(self, messages, self._devices, self.known_routes())

    def known_routes(self) -> Routes:
        """Return the routes, made anew where the registry has changed."""
        if self.routes.outdated:
            self.routes = Routes(self._profiles, self._devices)
        return self.routes


class _Work:
    """One batch on its way."""

    def __init__(self, decoder: Decoder, messages: Sequence[Message], devices: DeviceNames, routes: Routes) -> None:
        self._limits = decoder.limits
        self._routes = routes
        self._plans = decoder.plans
        self._units = decoder.units
        self._rates = decoder.rates
        self._memory = decoder.memory
        self._profiles = decoder.profiles
        self._devices = devices
        self._messages = span = Span.of(messages)
        self._payloads = span.payloads
        topics = span.topics
        if any(span.principals):
            topics = [m.topic if not m.principal else f"{m.topic}\0{m.principal}" for m in messages]
        numbers = list(map(routes.numbers.get, topics))
        if None in numbers:
            numbers = list(map(routes.number, topics))
        self._numbers: I32 = np.array(numbers, np.int32)
        self._quotes: I64 = np.zeros(0, np.int64)
        self._received: I64 = span.received
        self._single: list[int] = []
        self._later: list[tuple[int, bool]] = []
        self._trees = Trees()
        self._learns = False
        self.rows = Rows(decoder.units)
        self.chunks: list[Chunk] = []

    def run(self) -> None:
        """Decode all: by plan where the topic has one in mind, else by a plan that fits, else one by one."""
        routes, numbers, payloads = self._routes, self._numbers, self._payloads
        lengths = self._messages.lengths
        refused = self._refused(lengths)
        plan_of = np.where(refused, REFUSED, routes.plan[numbers])
        if len(payloads) < GROUP_MIN:
            self._single = np.flatnonzero(~refused).tolist()
        else:
            self._quotes = _quotes(payloads, lengths)
            other: list[int] = []
            for plan, places in _groups(plan_of):
                if plan >= 0:
                    other += self._group(plan, places)
            self._new(other + np.flatnonzero(plan_of == NO_PLAN).tolist())
        for at in self._single:
            self.one(at, learn=True)
        self.finish()

    def _new(self, places: list[int]) -> None:
        """Decode messages without a plan: some one by one, the rest by what was learned from them, until nothing is."""
        learned = -1
        while places and learned < self._plans.count:
            learned = self._plans.count
            places = self._elsewhere(places)
            for at in places[:_HEAD]:
                self.one(at, learn=True)
            places = places[_HEAD:]
        self._single += places

    def _refused(self, lengths: I64) -> BOOL:
        """Return which messages are refused before they are looked into; they are in quarantine then."""
        device = self._routes.device[self._numbers]
        refused: BOOL = (device == REFUSED) | (lengths > self._limits.message_bytes_max)
        known = device >= 0
        refused[known] |= ~self._devices.enabled[device[known]] & ~self._routes.remembers[self._numbers[known]]
        for at in np.flatnonzero(refused).tolist():
            self.refuse(at)
        over = self._rates.over(self._routes.owner[self._numbers], self._received)
        if over is not None:
            over &= ~refused
            refused |= over
            metrics.LIMITED.labels("rate_per_device_s").inc(int(over.sum()))
            for at in np.flatnonzero(over).tolist():
                why = f"more than {self._rates.allowed} messages in a minute (ingest.rate_per_device_s)"
                self._quarantine(at, self._route(at), Rejected(QuarantineReason.RATE, why))
        return refused

    def refuse(self, at: int) -> bool:
        """Put a message in quarantine if it must not be looked into; return whether it was."""
        route = self._route(at)
        size = len(self._payloads[at])
        why = self._routes.refusal(route)
        if size > self._limits.message_bytes_max:
            why = Rejected(QuarantineReason.TOO_LARGE, f"{size} bytes")
        elif self._routes.remembers[self._numbers[at]]:
            return False  # `_one` refuses it when it has been heard
        if why is not None:
            self._quarantine(at, route, why)
        return why is not None

    def _hear(self, route: Route, frame: Frame) -> None:
        """Raise why a message is refused, if it is, when its format has taken from it what it needs for others."""
        why = self._routes.refusal(route)
        if why is None:
            return
        for rule, _ in route.rules[:1]:
            with suppress(Rejected):
                rule.parse(frame)
        raise why

    def signed(self, fields: Fields) -> Fields:
        """Return the fields with the version on what was refused."""
        return signed(fields, self._profiles, self._devices, self._route)

    def _route(self, at: int) -> Route:
        return self._routes.routes[int(self._numbers[at])]

    def _quarantine(self, at: int, route: Route, why: Rejected) -> None:
        reason = QuarantineReason(why.reason)
        device = why.device if isinstance(why, FrameRejected) else route.device
        self.rows.quarantined.append(Quarantined(at, reason, why.detail, device, route.profile))

    # ── by plan ──────────────────────────────────────────────────────────────────────────────────────

    def _elsewhere(self, places: list[int]) -> list[int]:
        """Decode messages whose topic had no plan in mind, or the wrong one, by another plan; return those without."""
        groups: dict[int, list[int]] = {}
        read: dict[Reader, list[int]] = {}
        without: list[int] = []
        for at, number in zip(places, self._numbers[places].tolist(), strict=True):
            route = self._routes.routes[number]
            if route.reader is ...:
                route.reader = self._plans.readers.of(route.rules)
            if route.reader is not None:
                read.setdefault(route.reader, []).append(at)
                continue
            found = self._plans.fitting(route.rules, self._payloads[at], int(self._quotes[at]))
            if found is None:
                without.append(at)
                continue
            self._routes.plan[number] = found
            groups.setdefault(found, []).append(at)
        for number, group in groups.items():
            self._single += self._group(number, np.array(sorted(group)))
        for reader, members in read.items():
            without += self._read(reader, np.array(members))
        return sorted(without)

    def _read(self, reader: Reader, places: I64) -> list[int]:
        """Decode messages whose format gives bare values; return those without a plan."""
        found = reader.sort([self._payloads[at] for at in places.tolist()])
        for plan, (group, values) in found.groups.items():
            if len(group) < GROUP_MIN:
                self._single += places[group].tolist()
                continue
            try:
                self._columns(plan, places[group], values)
            except OverflowError:  # an integer that is too large for a float: that value alone is rejected
                self._single += places[group].tolist()
        without: list[int] = places[found.without].tolist()
        return without

    def _group(self, number: int, places: I64) -> list[int]:
        """Decode messages that should be of one plan; return those that are not."""
        plan = self._plans.plans[number]
        if len(places) < GROUP_MIN:
            self._single += places.tolist()
            return []
        same = self._quotes[places] == plan.quotes
        other: list[int] = []
        if not same.all():
            other = places[~same].tolist()
            places = places[same]
        objects: list[Any] = []
        wrong: list[int] = []
        source = map(plan.decode, [self._payloads[at] for at in places.tolist()])
        while True:
            try:
                objects.extend(source)
                break
            except FAULTS:  # the list keeps what came before, the iterator stands behind the faulty one
                wrong.append(len(objects))
                objects.append(None)
        if wrong:
            other += places[wrong].tolist()
            places = np.delete(places, wrong)
            objects = [item for item in objects if item is not None]
        if objects:
            self._columns(plan, places, objects)
        return other

    def _columns(self, plan: Plan | EnvelopePlan, places: I64, objects: list[Any]) -> None:
        """Make columns of messages that are of a plan; those that it leaves are decoded one by one."""
        route = self._numbers[places]
        gateways = [self._routes.routes[at].gateway for at in route.tolist()] if plan.names_devices else []
        batch = Parsed(
            objects,
            places.astype(np.int32),
            self._received[places],
            self._routes.device[route],
            self._routes.path[route],
            gateways,
        )
        if isinstance(plan, EnvelopePlan):
            self._single += self._envelopes(plan, batch)
            return
        chunk, left = plan.columns(batch, self._units, self._index)
        if chunk is not None:
            self.chunks.append(chunk)
        self._single += places[left].tolist()

    def _envelopes(self, plan: EnvelopePlan, batch: Parsed) -> list[int]:
        """Make columns of the frames in envelopes and of what stands beside them; return the messages left."""
        paths = plan.paths(batch)
        done: list[int] = []
        for reader, frames in plan.open(batch, self._index, self._reader).items():
            for inner, (group, values) in reader.sort(frames.data, frames.ports).groups.items():
                if len(group) >= GROUP_MIN:
                    done += self._frames(inner, frames.take(group), values, batch, paths)
        done.sort()
        if plan.beside is not None and done:
            for at in self._chunk(plan.beside, batch.take(done)):
                place = int(batch.message[done[at]])
                self._beside(place, self._frame_of(place), self._route(place))
        left: list[int] = np.delete(batch.message, done).tolist()
        return left

    def _frames(self, plan: Plan, frames: Frames, values: list[Any], batch: Parsed, paths: U16) -> list[int]:
        """Make columns of frames of one plan; return the places of the envelopes that are done with."""
        at = frames.places
        received = batch.received[at]
        heard = np.array([one.time for one in frames.receptions], np.int64)
        inner = Parsed(
            values,
            batch.message[at],
            np.where(heard == BAD, received, heard),
            np.array(frames.devices, np.int32),
            paths[at],
            frames.devices,
            frames.receptions,
        )
        left = set(self._chunk(plan, inner))
        return [place for number, place in enumerate(at) if number not in left]

    def _chunk(self, plan: Plan, batch: Parsed) -> list[int]:
        """Make columns of a batch; return the places that the plan leaves."""
        try:
            chunk, left = plan.columns(batch, self._units, self._index)
        except OverflowError:  # an integer that is too large for a float: that value alone is rejected
            return list(range(len(batch.objects)))
        if chunk is not None:
            self.chunks.append(chunk)
        return left

    def _reader(self, device: int, port: int | None) -> Reader | None:
        """Return how frames of a device's port are read, None: one by one."""
        found = self._routes.inner.get((device, port), ...)
        if found is ...:
            profile = self._profiles.of(self._devices.record(device))
            rules = [] if profile is None else profile.on_port(port)
            found = self._plans.readers.of([(rule, "") for rule in rules])
            self._routes.remember(device, port, found)
        return found

    def _index(self, name: str, rule: Rule, gateway: int) -> int:
        found = self._routes.look_up(name, rule, gateway)
        return -1 if isinstance(found, Rejected) else found

    # ── one by one ───────────────────────────────────────────────────────────────────────────────────

    def one(self, at: int, *, learn: bool) -> None:
        """Decode one message by the general path, or in `finish`; remember its shape where `learn`."""
        mark = self.rows.mark()
        try:
            self._one(at, learn=learn)
        except Rejected as why:
            self._quarantine(at, self._route(at), why)
        except Postponed:
            self.rows.rewind(mark)
            self._later.append((at, learn))

    def finish(self) -> None:
        """Decode what waits for answers to many frames at once (`BatchParse`)."""
        while self._later:
            self._trees.answer()
            later, self._later = self._later, []
            for at, learn in later:
                self.one(at, learn=learn)

    def _one(self, at: int, *, learn: bool) -> None:
        route, frame = self._route(at), self._frame_of(at)
        self._learns = learn
        if self._routes.remembers[self._numbers[at]]:
            self._hear(route, frame)
        try:
            held = self._by_rules(at, [one for one in route.rules if not one[0].beside], frame, route)
        except FrameRejected:
            raise
        except Rejected:
            if not self._beside(at, frame, route):
                raise
            return
        if held is None:
            return
        if held.holder[0].chains:
            beside = self._beside(at, frame, route)
            if learn:
                self._learn_envelope(at, route, held, beside)
        elif learn and isinstance(route.reader, Reader):
            route.reader.learn(held.holder[0], frame.payload, None, held.deciding, held.bound)
        elif learn and _plannable(held.holder[0]):
            route.misses += 1
            if route.misses < _TRIES or route.misses % _TRIES == 0:
                plan = self._plans.learn(held.holder, held.tree, held.deciding, held.bound)
                self._routes.plan[self._numbers[at]] = NO_PLAN if plan is None else plan

    def _learn_envelope(self, at: int, route: Route, held: _Held, beside: _Held | None) -> None:
        tried = [*_until(held.holder, route.rules, beside=False)]
        if beside is not None:
            tried += _until(beside.holder, route.rules, beside=True)
        elif any(rule.beside for rule, _ in route.rules):
            return
        route.misses += 1
        if not all(map(_plannable, tried)):
            return  # what another rule saw in the bytes is not seen in the shape
        if route.misses < _TRIES or route.misses % _TRIES == 0:
            deciding = held.deciding + (beside.deciding if beside else [])
            stands = (beside.holder[0], beside.bound) if beside else None
            plan = self._plans.learn_envelope(held.holder, held.tree, deciding, held.bound, stands)
            self._routes.plan[self._numbers[at]] = NO_PLAN if plan is None else plan

    def _frame_of(self, at: int) -> Frame:
        message = self._messages[at]
        return Frame(message.payload, self._limits.nesting_max, message.topic, message.received, memory=self._memory)

    def _by_rules(  # noqa: PLR0912 - one question after another
        self, at: int, rules: Sequence[Holder], frame: Frame, way: Way, reception: Reception | None = None
    ) -> _Held | None:
        """Decode a message, or a frame in it, by the first rule that holds; None: it is known and ignored."""
        trees: dict[Parse, Any] = {}
        deciding: list[Leaf] = []
        first: Rejected | None = None
        held = False
        for rule, wrap in rules:
            if rule.ignore and not rule.where and not rule.root and first is None:
                return None
            if rule.parse not in trees:
                try:
                    trees[rule.parse] = self._trees.parse(rule.parse, frame)
                except Rejected as why:
                    first = first or why
                    continue
            tree = trees[rule.parse]
            bound = bind(rule, wrap, tree, deciding)
            if bound is None:
                continue
            if isinstance(tree, SeenTree):
                return self._seen(at, rule, wrap, tree, bound, way)
            if rule.ignore and not isinstance(first, FrameRejected):
                return None
            if rule.chains:
                try:
                    if self._chain(at, rule, bound, way):
                        return _Held((rule, wrap), tree, deciding, bound)
                except FrameRejected as why:
                    first = first or why
                continue
            held = True
            since = len(self.rows.message)
            if self.rows.add(rule, bound, at, frame.received, way, self._routes.look_up, reception):
                self.rows.flag(since, Flag.WARNED if isinstance(tree, (WarnedObject, WarnedList)) else 0)
                return _Held((rule, wrap), tree, deciding, bound)
        if first is not None:
            raise first
        if held:
            raise Rejected(QuarantineReason.NO_VALUES, "nothing that the profile describes")
        raise Rejected(QuarantineReason.SCHEMA, "not a message that the profile describes")

    def _seen(  # noqa: PLR0917
        self, at: int, rule: Rule, wrap: str, tree: SeenTree, bound: Bound, way: Way
    ) -> _Held | None:
        """Add what a message of video metadata holds, and what of it became no row."""
        if bound.elements:
            self.rows.add(rule, bound, at, self._messages[at].received, way, self._routes.look_up)
        named = rule.device is not None

        def device_of(camera: str) -> int:
            return self._index(camera, rule, way.gateway) if named else way.device

        self.rows.ignored += tree.ignored
        self.rows.thinned += [Thinned(at, device_of(camera), count) for camera, count in tree.thinned.items()]
        self.rows.rejected += [
            RejectedValue(at, reason_of(one.reason), refused_at(one.at), way.device, one.detail) for one in tree.refused
        ]
        return _Held((rule, wrap), tree, [], bound)

    # ── envelopes ────────────────────────────────────────────────────────────────────────────────────

    def _beside(self, at: int, frame: Frame, route: Route) -> _Held | None:
        """Add the values of an envelope that stand beside those of its frame; return how, None if there are none."""
        rules = [one for one in route.rules if one[0].beside]
        if not rules:
            return None
        try:
            return self._by_rules(at, rules, frame, route)
        except Rejected:
            return None

    def _chain(self, at: int, rule: Rule, bound: Bound, way: Way) -> bool:
        """Decode the frames of an envelope by their devices' own profiles; return whether there are any.

        Raises `FrameRejected`, with the first reason, where none can be decoded.
        """
        path = path_of(way, bound)
        refused: list[FrameRejected] = []
        later: Postponed | None = None
        for element in bound.elements:
            device = way.device
            try:
                frame = opened(rule, element, self._messages[at].received)
                if frame.name:
                    device = self._carried(frame.name, rule, way.gateway)
                self._frame(at, frame, Carried(way.text, path, device, device), self._devices.record(device))
            except Rejected as why:
                refused.append(FrameRejected(why, device))
            except Postponed as wait:
                later = wait
        if later is not None:
            raise later
        if refused and len(refused) == len(bound.elements):
            raise refused[0]
        self.rows.rejected += [
            RejectedValue(at, RejectReason.FRAME, "", one.device, f"{one.reason}: {one.detail}") for one in refused
        ]
        return bool(bound.elements)

    def _carried(self, name: str, rule: Rule, gateway: int) -> int:
        found = self._routes.look_up(name, rule, gateway)
        if isinstance(found, Rejected):
            raise found
        return found

    def _frame(self, at: int, frame: Opened, way: Carried, device: Device) -> None:
        if not frame.data:
            return
        found = self._profiles.of(device)
        rules = found.on_port(frame.port) if found is not None else []
        if not rules:
            raise Rejected(QuarantineReason.SCHEMA, f"'{device.profile}' says nothing of port {frame.port}")
        heard = frame.reception.time
        inner = Frame(
            frame.data,
            self._limits.nesting_max,
            way.text,
            self._messages[at].received if heard == BAD else heard,
            frame.port,
            memory=self._memory,
        )
        held = self._by_rules(at, [(rule, "") for rule in rules], inner, way, frame.reception)
        if held is not None and self._learns and (reader := self._reader(way.device, frame.port)) is not None:
            reader.learn(held.holder[0], frame.data, frame.port, held.deciding, held.bound)


def _plannable(rule: Rule) -> bool:
    return rule.format == "json" and rule.as_sent and rule.flags is None


def _until(holder: Holder, rules: Sequence[Holder], *, beside: bool) -> Iterator[Rule]:
    """Yield the rules that are tried up to one that held."""
    for one in rules:
        if one[0].beside == beside:
            yield one[0]
            if one == holder:
                return


class _Held(NamedTuple):
    """The rule by which a message was decoded, and what it saw."""

    holder: Holder
    tree: Any
    deciding: list[Leaf]
    bound: Bound


def _quotes(payloads: Sequence[bytes], lengths: I64) -> I64:
    """Return the number of quotation marks in each payload."""
    marks = (np.frombuffer(b"".join(payloads), np.uint8) == ord('"')).view(np.uint8)
    found = np.zeros(len(payloads), np.int64)
    there = lengths > 0
    starts = (np.cumsum(lengths) - lengths)[there]
    if len(starts):
        found[there] = np.add.reduceat(marks, starts, dtype=np.int32)
    return found


def _groups(plan_of: I32) -> list[tuple[int, I64]]:
    """Return (plan, places of its messages), places rising."""
    order = np.argsort(plan_of.astype(np.int16), kind="stable")
    plans, starts = np.unique(plan_of[order], return_index=True)
    return list(zip(plans.tolist(), np.split(order, starts[1:]), strict=True))
