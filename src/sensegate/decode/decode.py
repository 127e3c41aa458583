"""Decode batches of messages into `Fields`: routes by topic, the fast path by shape, the slow path for the rest.

State between batches (routes, plans, units) is bounded caches: they never change the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from sensegate import metrics
from sensegate.config import IngestConfig
from sensegate.decode.attribution import attributed
from sensegate.decode.batch import BatchTrees, Postponed
from sensegate.decode.chain import CarriedRoute, FrameRejected, OpenedFrame, open_frame
from sensegate.decode.columnar import ColumnarReader, TreeReader
from sensegate.decode.columnar_envelopes import EnvelopeFrames, EnvelopePlan
from sensegate.decode.extract import BoundMessage, DecodedRows, Leaf, NameMissing, RouteInfo, bind, path_of
from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.video import VideoTree, reason_of, refused_at
from sensegate.decode.frame import BatchParse, FormedTree, Parse, PayloadFrame, WarnedList, WarnedObject
from sensegate.decode.identity import Reception
from sensegate.decode.join import fields_of
from sensegate.decode.memory import DecoderMemory, DeviceRequest
from sensegate.decode.plan import ColumnPlan, PlanBatch
from sensegate.decode.plan_cache import FAULTS, PlanCache, WrappedRule
from sensegate.decode.plan_parts import Chunk
from sensegate.decode.planned_rows import MessageOrigin, PlannedRows
from sensegate.decode.profile import CompiledRule, UnitConversions
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.rates import DeviceRates
from sensegate.decode.routes import NO_PLAN, REFUSED, DeviceNames, Routes, TopicRoute
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import (
    BOOL,
    I32,
    I64,
    U16,
    Device,
    Downsampled,
    Fields,
    Message,
    MessageBatch,
    Quarantined,
    QuarantineReason,
    RejectedValue,
    RejectReason,
)
from sensegate.quantities.quality import Flag

__all__ = ["Decoder", "DeviceNames"]

COLUMNS_MIN = 8
"""With fewer messages of one plan in a batch, columns cost more than decoding by the plan one at a time."""
FRAMES_MIN = 5
"""With fewer envelopes or frames of one plan in a batch, columns cost more than decoding without the plan."""
_SAMPLE = 32
"""Messages without a plan that are decoded one by one first; the others may then fit a plan learned from them."""
_ATTEMPTS_MAX = 64
"""After this many messages of a topic without a plan, only every n-th one is used for learning."""


class Decoder:
    """Decode batches of messages with the profiles in force.

    `decode` never raises, whatever the bytes: each message becomes rows, or is quarantined with a reason.
    """

    def __init__(
        self,
        profiles: ProfileSet,
        devices: DeviceNames,
        limits: IngestConfig | None = None,
        memory: DecoderMemory | None = None,
    ) -> None:
        self.limits = limits or IngestConfig()
        self.memory = DecoderMemory() if memory is None else memory
        self.units = UnitConversions()
        self.plans = PlanCache(self.limits.nesting_max)
        self.rates = DeviceRates(self.limits.rate_per_device_s)
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

    def set_profiles(self, profiles: ProfileSet) -> None:
        """Put another set of profiles in force, from the next batch on."""
        self._profiles = profiles
        self.plans = PlanCache(self.limits.nesting_max)
        self.routes = Routes(profiles, self._devices)

    def decode(self, messages: Sequence[Message]) -> Fields:
        """Return the rows of a batch in the order of the messages, and the messages and values that were refused."""
        batch = self._batch(messages)
        if messages:
            batch.run()
        return batch.attributed(fields_of(batch.rows, batch.chunks))

    def decode_row_by_row(self, messages: Sequence[Message]) -> Fields:
        """Do what `decode` does with every message on the slow path: the reference for tests of the fast path."""
        batch = self._batch(messages)
        for index in range(len(messages)):
            if not batch.refuse(index):
                batch.decode_one(index, learn=False)
        batch.finish()
        return batch.attributed(fields_of(batch.rows, []))

    def initial_requests(self, now: int) -> list[DeviceRequest]:
        """Return the requests to devices of which nothing is known yet; `now` in µs."""
        by_topic: dict[str, DeviceRequest] = {}
        for index in np.flatnonzero(self._devices.enabled).tolist():
            record = self._devices.record(index)
            profile = None if record.gateway else self._profiles.of(record)
            requests = (
                [FORMATS[name].initial_request for name in {rule.format for rule in profile.rules}] if profile else []
            )
            for request in filter(None, requests):
                for name in (record.id, record.alias):
                    if (ask := request(name, now)) is not None:
                        by_topic[ask.topic] = ask
        return list(by_topic.values())

    def _batch(self, messages: Sequence[Message]) -> _BatchDecoder:
        return _BatchDecoder(self, messages, self._devices, self.current_routes())

    def current_routes(self) -> Routes:
        """Return the routes, rebuilt if the registry has changed."""
        if self.routes.outdated:
            self.routes = Routes(self._profiles, self._devices)
        return self.routes


class _BatchDecoder:
    """The decoding of one batch."""

    def __init__(self, decoder: Decoder, messages: Sequence[Message], devices: DeviceNames, routes: Routes) -> None:
        self._limits = decoder.limits
        self._routes = routes
        self._plans = decoder.plans
        self._units = decoder.units
        self._rates = decoder.rates
        self._memory = decoder.memory
        self._profiles = decoder.profiles
        self._devices = devices
        self._messages = span = MessageBatch.of(messages)
        self._payloads = span.payloads
        self._numbers = routes.numbers_of(span)
        self._known_quote_counts: I64 | None = None
        self._received: I64 = span.received
        self._one_by_one: list[int] = []
        self._postponed: list[tuple[int, bool]] = []
        self._trees = BatchTrees()
        self._requested: list[int] = []
        self._learning = False
        self.rows = DecodedRows(decoder.units)
        self._planned = PlannedRows()
        self.chunks: list[Chunk] = []

    def run(self) -> None:
        """Decode all messages: by the plan of the topic if it has one, else by another that fits, else one by one."""
        routes, numbers = self._routes, self._numbers
        lengths = self._messages.lengths
        refused = self._refused(lengths)
        plan_of = np.where(refused, REFUSED, routes.plan[numbers])
        unmatched: list[int] = []
        for plan, places in _groups(plan_of):
            if plan >= 0:
                unmatched += self._group(plan, places)
        self._learn_plans(unmatched + np.flatnonzero(plan_of == NO_PLAN).tolist())
        for index in self._one_by_one:
            self.decode_one(index, learn=True)
        self.finish()

    def _learn_plans(self, places: list[int]) -> None:
        """Decode messages without a plan: a sample one by one, the rest by the plans learned from it; repeat."""
        learned = -1
        places = self._request_trees(places)
        while places and learned < self._plans.count:
            learned = self._plans.count
            places = self._by_other_plans(places)
            for index in places[:_SAMPLE]:
                self.decode_one(index, learn=True)
            places = places[_SAMPLE:]
        self._one_by_one += places

    def _request_trees(self, places: list[int]) -> list[int]:
        """Postpone messages whose frames are parsed many at once; return the others."""
        others: list[int] = []
        requests: list[tuple[BatchParse, PayloadFrame]] = []
        for index, number in zip(places, self._numbers[places].tolist(), strict=True):
            route = self._routes.routes[number]
            if (of_trees := route.trees) is ...:
                of_trees = route.trees = self._plans.readers.of_trees(route.rules)
            if of_trees is None:
                others.append(index)
            else:
                requests.append((of_trees.parse, self._frame_at(index)))
                self._requested.append(index)
        self._trees.request(requests)
        return others

    def _refused(self, lengths: I64) -> BOOL:
        """Return which messages are refused before they are parsed; they are then quarantined."""
        device = self._routes.device[self._numbers]
        refused: BOOL = (device == REFUSED) | (lengths > self._limits.message_bytes_max)
        known = device >= 0
        refused[known] |= ~self._devices.enabled[device[known]] & ~self._routes.remembers[self._numbers[known]]
        for index in np.flatnonzero(refused).tolist():
            self.refuse(index)
        over = self._rates.exceeding(self._routes.owner[self._numbers], self._received)
        if over is not None:
            over &= ~refused
            refused |= over
            metrics.LIMIT_HITS.labels("rate_per_device_s").inc(int(over.sum()))
            for index in np.flatnonzero(over).tolist():
                detail = f"more than {self._rates.allowed} messages in a minute (ingest.rate_per_device_s)"
                self._quarantine(index, self._route(index), Rejected(QuarantineReason.RATE, detail))
        return refused

    def refuse(self, index: int) -> bool:
        """Quarantine a message if it must not be parsed; return whether it was quarantined."""
        route = self._route(index)
        size = len(self._payloads[index])
        rejection = self._routes.refusal(route)
        if size > self._limits.message_bytes_max:
            rejection = Rejected(QuarantineReason.TOO_LARGE, f"{size} bytes")
        elif self._routes.remembers[self._numbers[index]]:
            return False  # the format needs to parse it first; `_raise_refusal` refuses it then
        if rejection is not None:
            self._quarantine(index, route, rejection)
        return rejection is not None

    def _raise_refusal(self, route: TopicRoute, frame: PayloadFrame) -> None:
        """Raise the refusal of a message, if any, after its format has taken the state that later messages need."""
        rejection = self._routes.refusal(route)
        if rejection is None:
            return
        for rule, _ in route.rules[:1]:
            with suppress(Rejected):
                self._trees.parse(rule.parse, frame)
        raise rejection

    def attributed(self, fields: Fields) -> Fields:
        """Return the fields with the profile version attached to everything refused."""
        return attributed(fields, self._profiles, self._devices, self._route)

    def _route(self, index: int) -> TopicRoute:
        return self._routes.routes[int(self._numbers[index])]

    def _quarantine(self, index: int, route: TopicRoute, rejection: Rejected) -> None:
        reason = QuarantineReason(rejection.reason)
        device = rejection.device if isinstance(rejection, FrameRejected) else route.device
        self.rows.quarantined.append(Quarantined(index, reason, rejection.detail, device, route.profile))

    # ── by plan ──────────────────────────────────────────────────────────────────────────────────────

    def _by_other_plans(self, places: list[int]) -> list[int]:
        """Decode messages whose topic has no plan, or the wrong one, by another plan; return those without one."""
        groups: dict[int, list[int]] = {}
        by_reader: dict[ColumnarReader, list[int]] = {}
        without: list[int] = []
        for index, number in zip(places, self._numbers[places].tolist(), strict=True):
            route = self._routes.routes[number]
            if route.reader is ...:
                route.reader = self._plans.readers.of(route.rules)
            if route.reader is not None:
                by_reader.setdefault(route.reader, []).append(index)
                continue
            plan = self._plans.fitting(route.rules, self._payloads[index], int(self._quote_counts[index]))
            if plan is None:
                without.append(index)
                continue
            self._routes.plan[number] = plan
            groups.setdefault(plan, []).append(index)
        for number, group in groups.items():
            self._one_by_one += self._group(number, np.array(sorted(group)))
        for reader, members in by_reader.items():
            without += self._by_reader(reader, np.array(members))
        return sorted(without)

    def _by_reader(self, reader: ColumnarReader, places: I64) -> list[int]:
        """Decode messages whose format gives flat values; return those without a plan."""
        sorted_frames = reader.sort([self._payloads[index] for index in places.tolist()])
        for plan, (group, values) in sorted_frames.groups.items():
            others = len(self._one_by_one)
            try:
                self._decode_columns(plan, places[group], values)
            except OverflowError:  # an integer beyond the range of floats: only that value is rejected
                self._one_by_one += places[group].tolist()
            reader.count_planned(len(group) - (len(self._one_by_one) - others))
        without: list[int] = places[sorted_frames.without].tolist()
        return without

    def _group(self, number: int, places: I64) -> list[int]:
        """Decode messages that should match a plan; return those that do not."""
        plan = self._plans.plans[number]
        if isinstance(plan, EnvelopePlan) and len(places) < FRAMES_MIN:
            self._one_by_one += places.tolist()
            return []
        objects: list[Any] = []
        faulty: list[int] = []
        payloads = self._payloads
        if len(places) < len(payloads):
            payloads = list(map(payloads.__getitem__, places.tolist()))
        source = map(plan.decode, payloads)
        while True:
            try:
                objects.extend(source)
                break
            except FAULTS:  # the list keeps the results so far, the iterator stands behind the faulty payload
                faulty.append(len(objects))
                objects.append(None)
        unmatched: list[int] = []
        # Of this shape no payload has fewer quotation marks, so their sum tells whether one has more.
        if faulty or _quotes(payloads) != plan.quotes * len(payloads):
            fits = self._quote_counts[places] == plan.quotes
            fits[faulty] = False
            unmatched = places[~fits].tolist()
            objects = [item for item, fit in zip(objects, fits.tolist(), strict=True) if fit]
            places = places[fits]
        if objects:
            self._decode_columns(plan, places, objects)
        return unmatched

    @property
    def _quote_counts(self) -> I64:
        """The number of quotation marks in each payload of the batch."""
        if self._known_quote_counts is None:
            self._known_quote_counts = _quote_counts(self._payloads, self._messages.lengths)
        return self._known_quote_counts

    def _decode_columns(self, plan: ColumnPlan | EnvelopePlan, places: I64, objects: list[Any]) -> None:
        """Decode messages that match a plan into columns; those that the plan leaves out are decoded one by one."""
        if isinstance(plan, ColumnPlan) and len(objects) < COLUMNS_MIN:
            self._decode_rows(plan, places, objects)
            return
        route = self._numbers[places]
        gateways = [self._routes.routes[number].gateway for number in route.tolist()] if plan.names_devices else []
        batch = PlanBatch(
            objects,
            places.astype(np.int32),
            self._received[places],
            self._routes.device[route],
            self._routes.path[route],
            gateways,
        )
        if isinstance(plan, EnvelopePlan):
            self._one_by_one += self._envelopes(plan, batch)
            return
        chunk, left = plan.columns(batch, self._units, self._index)
        if chunk is not None:
            self.chunks.append(chunk)
        self._one_by_one += places[left].tolist()

    def _decode_rows(self, plan: ColumnPlan, places: I64, objects: list[Any]) -> None:
        """Decode messages that match a plan one at a time; those that the plan leaves out are decoded without it."""
        routes = self._routes.routes
        numbers, received = self._numbers[places].tolist(), self._received[places].tolist()
        for index, number, at, item in zip(places.tolist(), numbers, received, objects, strict=True):
            route = routes[number]
            origin = MessageOrigin(index, at, route.device, route.path, route.gateway)
            if not plan.rows.add(item, origin, self._planned, self._units, self._index):
                self._one_by_one.append(index)

    def _envelopes(self, plan: EnvelopePlan, batch: PlanBatch) -> list[int]:
        """Decode the frames in envelopes, and the values beside them, into columns; return the messages left."""
        paths = plan.paths(batch)
        done: list[int] = []
        for reader, frames in plan.open(batch, self._index, self._reader).items():
            for inner, (group, values) in reader.sort(frames.data, frames.ports).groups.items():
                if len(group) >= FRAMES_MIN:
                    done += self._frames(inner, frames.take(group), values, batch, paths)
        done.sort()
        if plan.beside is not None and done:
            for left_out in self._chunk(plan.beside, batch.take(done)):
                message = int(batch.message[done[left_out]])
                self._add_beside(message, self._frame_at(message), self._route(message))
        left: list[int] = np.delete(batch.message, done).tolist()
        return left

    def _frames(
        self, plan: ColumnPlan, frames: EnvelopeFrames, values: list[Any], batch: PlanBatch, paths: U16
    ) -> list[int]:
        """Decode frames of one plan into columns; return the places of the envelopes that are done."""
        places = frames.places
        received = batch.received[places]
        received_at = np.array([reception.time for reception in frames.receptions], np.int64)
        inner = PlanBatch(
            values,
            batch.message[places],
            np.where(received_at == BAD, received, received_at),
            np.array(frames.devices, np.int32),
            paths[places],
            frames.devices,
            frames.receptions,
        )
        left = set(self._chunk(plan, inner))
        return [place for number, place in enumerate(places) if number not in left]

    def _chunk(self, plan: ColumnPlan, batch: PlanBatch) -> list[int]:
        """Decode a batch into columns; return the places that the plan leaves out."""
        try:
            chunk, left = plan.columns(batch, self._units, self._index)
        except OverflowError:  # an integer beyond the range of floats: only that value is rejected
            return list(range(len(batch.objects)))
        if chunk is not None:
            self.chunks.append(chunk)
        return left

    def _reader(self, device: int, port: int | None) -> ColumnarReader | None:
        """Return the columnar reader for frames of a device's port; None: they are decoded one by one."""
        reader = self._routes.inner.get((device, port), ...)
        if reader is ...:
            profile = self._profiles.of(self._devices.record(device))
            rules = [] if profile is None else profile.on_port(port)
            reader = self._plans.readers.of([(rule, "") for rule in rules])
            self._routes.store_reader(device, port, reader)
        return reader

    def _index(self, name: str, rule: CompiledRule, gateway: int) -> int:
        device = self._routes.look_up(name, rule, gateway)
        return -1 if isinstance(device, Rejected) else device

    # ── one by one ───────────────────────────────────────────────────────────────────────────────────

    def decode_one(self, index: int, *, learn: bool) -> None:
        """Decode one message on the slow path, now or in `finish`; learn its shape if `learn`."""
        savepoint = self.rows.savepoint()
        try:
            self._decode_slow_path(index, learn=learn)
        except Rejected as error:
            self._quarantine(index, self._route(index), error)
        except Postponed:
            self.rows.rollback(savepoint)
            self._postponed.append((index, learn))

    def finish(self) -> None:
        """Decode the messages that wait for a parse of many frames at once (`BatchParse`)."""
        while self._postponed or self._requested:
            results = self._trees.parse_pending()
            requested, self._requested = self._requested, []
            postponed, self._postponed = self._postponed, []
            for index in self._by_trees(requested, results):
                self.decode_one(index, learn=True)
            for index, learn in postponed:
                self.decode_one(index, learn=learn)
        if self._planned.message or self._planned.rejected or self._planned.ignored:
            self.chunks.append(self._planned.chunk())

    def _by_trees(self, requested: list[int], results: list[Any]) -> list[int]:
        """Decode messages whose trees were requested into columns; return the others, in their order."""
        by_reader: dict[ColumnarReader, dict[int, Any]] = {}
        routes = self._routes.routes
        left: dict[int, Any] = {}
        for index, number, tree in zip(requested, self._numbers[requested].tolist(), results, strict=True):
            of_trees, planned = routes[number].trees, isinstance(tree, (dict, list, FormedTree))
            if planned and isinstance(of_trees, TreeReader) and self._routes.refusal(routes[number]) is None:
                by_reader.setdefault(of_trees.reader, {})[index] = tree
            else:
                left[index] = tree
        for reader, trees in by_reader.items():
            left |= self._columns_of_trees(reader, trees)
        for index in sorted(left):
            self._keep_tree(index, left[index])
        return sorted(left)

    def _keep_tree(self, index: int, tree: Any) -> None:
        """Keep the tree of a message, or its refusal, until it is decoded one by one."""
        if isinstance(of_trees := self._route(index).trees, TreeReader):
            self._trees.keep(of_trees.parse, self._frame_at(index), tree)

    def _columns_of_trees(self, reader: ColumnarReader, trees: dict[int, Any]) -> dict[int, Any]:
        """Decode messages into columns, by plans learned from a sample of those without one; return the others."""
        learned = -1
        while trees and learned < reader.count:
            learned = reader.count
            places = np.array(list(trees))
            for plan, (group, values) in reader.sort(list(trees.values())).groups.items():
                others = len(self._one_by_one)
                try:
                    self._decode_columns(plan, places[group], values)
                except OverflowError:  # an integer beyond the range of floats: only that value is rejected
                    continue
                unfit = set(self._one_by_one[others:])
                del self._one_by_one[others:]
                for index in set(places[group].tolist()) - unfit:
                    del trees[index]
            for index in list(trees)[:_SAMPLE]:
                self._keep_tree(index, trees.pop(index))
                self.decode_one(index, learn=True)
        return trees

    def _decode_slow_path(self, index: int, *, learn: bool) -> None:
        route, frame = self._route(index), self._frame_at(index)
        self._learning = learn
        if self._routes.remembers[self._numbers[index]]:
            self._raise_refusal(route, frame)
        try:
            match = self._by_rules(index, [rule for rule in route.rules if not rule[0].beside], frame, route)
        except FrameRejected:
            raise
        except Rejected:
            if not self._add_beside(index, frame, route):
                raise
            return
        if match is None:
            return
        if match.holder[0].chains:
            beside = self._add_beside(index, frame, route)
            if learn:
                self._learn_envelope(index, route, match, beside)
        elif learn and isinstance(route.reader, ColumnarReader):
            route.reader.learn(match.holder[0], frame.payload, None, match.deciding, match.bound)
        elif learn and (of_trees := self._plans.readers.of_trees(route.rules)) is not None:
            of_trees.reader.learn(match.holder[0], match.tree, None, match.deciding, match.bound)
        elif learn and _can_be_planned(match.holder[0]):
            route.misses += 1
            if route.misses < _ATTEMPTS_MAX or route.misses % _ATTEMPTS_MAX == 0:
                plan = self._plans.learn(match.holder, match.tree, match.deciding, match.bound)
                self._routes.plan[self._numbers[index]] = NO_PLAN if plan is None else plan

    def _learn_envelope(self, index: int, route: TopicRoute, match: _Match, beside: _Match | None) -> None:
        rules = [*_tried_rules(match.holder, route.rules, beside=False)]
        if beside is not None:
            rules += _tried_rules(beside.holder, route.rules, beside=True)
        elif any(rule.beside for rule, _ in route.rules):
            return
        route.misses += 1
        if not all(map(_can_be_planned, rules)):
            return  # a rule that decides by the bytes cannot be decided by the shape
        if route.misses < _ATTEMPTS_MAX or route.misses % _ATTEMPTS_MAX == 0:
            deciding = match.deciding + (beside.deciding if beside else [])
            beside_bound = (beside.holder[0], beside.bound) if beside else None
            plan = self._plans.learn_envelope(match.holder, match.tree, deciding, match.bound, beside_bound)
            self._routes.plan[self._numbers[index]] = NO_PLAN if plan is None else plan

    def _frame_at(self, index: int) -> PayloadFrame:
        message = self._messages[index]
        return PayloadFrame(
            message.payload,
            self._limits.nesting_max,
            message.topic,
            message.received,
            None,
            self._memory,
            message.metadata,
            index,
        )

    def _by_rules(  # noqa: PLR0912 - one check after another
        self,
        index: int,
        rules: Sequence[WrappedRule],
        frame: PayloadFrame,
        route: RouteInfo,
        reception: Reception | None = None,
    ) -> _Match | None:
        """Decode a message, or a frame in it, by the first rule that matches; None: the profile ignores it."""
        trees: dict[Parse, Any] = {}
        deciding: list[Leaf] = []
        first_error: Rejected | None = None
        matched = False
        for rule, wrap in rules:
            if rule.ignore and not rule.where and not rule.root and first_error is None:
                return None
            if rule.parse not in trees:
                try:
                    trees[rule.parse] = self._trees.parse(rule.parse, frame)
                except Rejected as error:
                    first_error = first_error or error
                    continue
            tree = trees[rule.parse]
            try:
                bound = bind(rule, wrap, tree, deciding)
            except NameMissing as error:
                first_error = first_error or error
                continue
            if bound is None:
                continue
            if isinstance(tree, VideoTree):
                self._add_video(index, rule, tree, bound, route)
                return _Match((rule, wrap), tree, deciding, bound)
            if rule.ignore and not isinstance(first_error, FrameRejected):
                return None
            if rule.chains:
                try:
                    if self._chain(index, rule, bound, route):
                        return _Match((rule, wrap), tree, deciding, bound)
                except FrameRejected as error:
                    first_error = first_error or error
                continue
            matched = True
            first_row = len(self.rows.message)
            if self.rows.add(rule, bound, index, frame.received, route, self._routes.look_up, reception):
                self.rows.flag(first_row, Flag.WARNED if isinstance(tree, (WarnedObject, WarnedList)) else 0)
                return _Match((rule, wrap), tree, deciding, bound)
        if first_error is not None:
            raise first_error
        if matched:
            raise Rejected(QuarantineReason.NO_VALUES, "holds no values that the profile describes")
        raise Rejected(QuarantineReason.SCHEMA, "not a message that the profile describes")

    def _add_video(
        self, index: int, rule: CompiledRule, tree: VideoTree, bound: BoundMessage, route: RouteInfo
    ) -> None:
        """Add the rows of a message of video metadata, and count what became no row."""
        if bound.elements:
            self.rows.add(rule, bound, index, self._messages[index].received, route, self._routes.look_up)
        named = rule.device is not None

        def device_of(camera: str) -> int:
            return self._index(camera, rule, route.gateway) if named else route.device

        self.rows.ignored += tree.ignored
        self.rows.downsampled += [
            Downsampled(index, device_of(camera), count) for camera, count in tree.downsampled.items()
        ]
        self.rows.rejected += [
            RejectedValue(index, reason_of(item.reason), refused_at(item.index), route.device, item.detail)
            for item in tree.refused
        ]

    # ── envelopes ────────────────────────────────────────────────────────────────────────────────────

    def _add_beside(self, index: int, frame: PayloadFrame, route: TopicRoute) -> _Match | None:
        """Add the values of an envelope outside its frame; return the match, None if there are none."""
        rules = [rule for rule in route.rules if rule[0].beside]
        if not rules:
            return None
        try:
            return self._by_rules(index, rules, frame, route)
        except Rejected:
            return None

    def _chain(self, index: int, rule: CompiledRule, bound: BoundMessage, route: RouteInfo) -> bool:
        """Decode the frames of an envelope by their devices' own profiles; return whether there are any.

        Raises `FrameRejected`, with the first reason, if none can be decoded.
        """
        path = path_of(route, bound)
        refused: list[FrameRejected] = []
        postponed: Postponed | None = None
        for element in bound.elements:
            device = route.device
            try:
                frame = open_frame(rule, element, self._messages[index].received)
                if frame.name:
                    device = self._carried_device(frame.name, rule, route.gateway)
                self._frame(index, frame, CarriedRoute(route.text, path, device, device), self._devices.record(device))
            except Rejected as error:
                refused.append(FrameRejected(error, device))
            except Postponed as error:
                postponed = error
        if postponed is not None:
            raise postponed
        if refused and len(refused) == len(bound.elements):
            raise refused[0]
        self.rows.rejected += [
            RejectedValue(
                index, RejectReason.FRAME, "", frame_error.device, f"{frame_error.reason}: {frame_error.detail}"
            )
            for frame_error in refused
        ]
        return bool(bound.elements)

    def _carried_device(self, name: str, rule: CompiledRule, gateway: int) -> int:
        device = self._routes.look_up(name, rule, gateway)
        if isinstance(device, Rejected):
            raise device
        return device

    def _frame(self, index: int, frame: OpenedFrame, route: CarriedRoute, device: Device) -> None:
        if not frame.data:
            return
        profile = self._profiles.of(device)
        rules = profile.on_port(frame.port) if profile is not None else []
        if not rules:
            raise Rejected(QuarantineReason.SCHEMA, f"profile '{device.profile}' has no rule for port {frame.port}")
        received = frame.reception.time
        inner = PayloadFrame(
            frame.data,
            self._limits.nesting_max,
            route.text,
            self._messages[index].received if received == BAD else received,
            frame.port,
            memory=self._memory,
        )
        match = self._by_rules(index, [(rule, "") for rule in rules], inner, route, frame.reception)
        if match is not None and self._learning and (reader := self._reader(route.device, frame.port)) is not None:
            reader.learn(match.holder[0], frame.data, frame.port, match.deciding, match.bound)


def _can_be_planned(rule: CompiledRule) -> bool:
    return rule.format == "json" and rule.as_sent and rule.flags is None


def _tried_rules(holder: WrappedRule, rules: Sequence[WrappedRule], *, beside: bool) -> Iterator[CompiledRule]:
    """Yield the rules that are tried up to the one that matched."""
    for rule in rules:
        if rule[0].beside == beside:
            yield rule[0]
            if rule == holder:
                return


class _Match(NamedTuple):
    """The rule by which a message was decoded, and the values that decided it."""

    holder: WrappedRule
    tree: Any
    deciding: list[Leaf]
    bound: BoundMessage


def _quotes(payloads: Sequence[bytes]) -> int:
    """Return the number of quotation marks in all payloads."""
    return int(np.count_nonzero(np.frombuffer(b"".join(payloads), np.uint8) == ord('"')))


def _quote_counts(payloads: Sequence[bytes], lengths: I64) -> I64:
    """Return the number of quotation marks in each payload."""
    is_quote = (np.frombuffer(b"".join(payloads), np.uint8) == ord('"')).view(np.uint8)
    counts = np.zeros(len(payloads), np.int64)
    not_empty = lengths > 0
    starts = (np.cumsum(lengths) - lengths)[not_empty]
    if len(starts):
        counts[not_empty] = np.add.reduceat(is_quote, starts, dtype=np.int32)
    return counts


def _groups(plan_of: I32) -> list[tuple[int, I64]]:
    """Return (plan, indices of its messages), indices ascending."""
    order = np.argsort(plan_of.astype(np.int16), kind="stable")
    plans, starts = np.unique(plan_of[order], return_index=True)
    return list(zip(plans.tolist(), np.split(order, starts[1:]), strict=True))
