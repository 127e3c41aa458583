"""Updates by MQTT: new and changed entities of the topics to which a token's clients subscribe.

Observations follow the log, each topic from the moment at which its subscription was granted; other entities are
compared with what they were about every second. Every round admits the token anew, so that scope, mask, quota and the
end of a grant hold as for a request. Nothing is repeated for a client that was away: who needs every record takes a
grant by MQTT, which has a cursor.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import msgspec
import structlog

from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.clock import Clock
from sensegate.collect.front.services import ServiceUser
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, TooMuch, Unavailable
from sensegate.sensorthings.answers import DocumentBuilder, check_names
from sensegate.sensorthings.kinds import KINDS, Entity
from sensegate.sensorthings.pages import EntityRange, Pager, source_of
from sensegate.sensorthings.service import ResourceTarget, SensorThings
from sensegate.sensorthings.syntax import QueryOptions
from sensegate.sensorthings.topics import ServiceTopic
from sensegate.sensorthings.view import CallerView
from sensegate.share.quota import GrantQuota
from sensegate.share.reader import EntryRange
from sensegate.share.transports.brokered import POLL_S, MqttPublisher, subject_of_topic
from sensegate.web.problems import BadRequest

ROUND_S = 1.0
"""Longest time between two rounds."""
PAUSE_S = 0.05
"""Shortest time between two rounds, so that readings of a moment are handled together."""
BUSY_DIVISOR = 20
"""Comparisons of entities take at most 1 / this of the time."""
ENTITIES_MAX = 1_000
"""Most entities of a set, other than Observations, that are compared."""
MESSAGES_AT_ONCE = 200
SESSION_MAX = 400
"""Most messages that wait in a client's session; then it is waited for."""
DELIVERY = "mqtt"
_OBSERVATION = KINDS["Observation"]
_log = structlog.get_logger("sensorthings")


class FollowedTopic:
    """A topic of one token."""

    __slots__ = ("connections", "digests", "granted_at", "position", "topic")

    def __init__(self, topic: ServiceTopic, position: int, granted_at: float) -> None:
        """`position`: sequence of the log up to which everything is known; `granted_at`: monotonic time."""
        self.topic = topic
        self.position = position
        self.granted_at = granted_at
        self.connections = 0
        """Connections that subscribe to it at the broker; 0: none yet."""
        self.digests: dict[int, bytes] = {}
        """Entity -> digest of what its subscribers know."""


class _Update(msgspec.Struct, frozen=True, eq=False):
    """A message to the subscribers of a topic."""

    followed: FollowedTopic
    body: bytes
    is_observation: bool = False
    entity: int = 0
    digest: bytes = b""
    """Digest that its subscribers know once it is published; empty: the entity is not compared."""


class _Resolved(msgspec.Struct, frozen=True, eq=False):
    """Topic with its present target."""

    followed: FollowedTopic
    target: ResourceTarget
    options: QueryOptions

    @property
    def observations(self) -> EntityRange | None:
        """The set of Observations that it names; None: it names something else."""
        entities = self.target.entities
        return entities if entities is not None and entities.kind is _OBSERVATION else None


class UpdateParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts of which updates are made."""

    service: SensorThings
    tokens: Tokens
    publisher: MqttPublisher
    clock: Clock
    base: str
    """Path of the service root, before the links of entities."""


class TokenUpdates:
    """Updates for the clients of one token."""

    def __init__(self, parts: UpdateParts, user: ServiceUser) -> None:
        self._parts = parts
        self._user = user
        self.topics: dict[str, FollowedTopic] = {}
        self.denied: dict[str, str] = {}
        """Feed that may no longer be read -> why."""

    # ── topics ────────────────────────────────────────────────────────────────────────────────────────

    async def follow(self, topic: ServiceTopic) -> None:
        """Follow a topic from now on.

        Raises:
            BadRequest: it names nothing that the token sees, or a set that is too large.
            NotFound, PermissionDenied, TooMuch, Unavailable.
        """
        service, clock = self._parts.service, self._parts.clock
        _, last = await service.sharing.reader.log.bounds()
        await service.reader.catch_up()
        view = await self._view(topic.feed)
        self.denied.pop(topic.feed, None)
        followed = FollowedTopic(topic, last, clock.monotonic())
        resolved = await self._resolved(view, followed)
        known = self.topics.get(topic.text)
        if known is not None:
            known.granted_at = clock.monotonic()
            return
        if resolved.observations is None:
            for number, _, digest in await self._documents(view, resolved):
                followed.digests[number] = digest
        self.topics[topic.text] = followed

    async def _view(self, feed: str) -> CallerView:
        principal = self._parts.tokens.principal(self._user.token)
        return await self._parts.service.view(principal, feed, "json", self._parts.clock.now(), DELIVERY)

    async def _resolved(self, view: CallerView, followed: FollowedTopic) -> _Resolved:
        """Return a topic with its present target. Raises `BadRequest`."""
        topic = followed.topic
        target = await self._parts.service.resolve(view, topic.steps)
        if target.last:
            raise BadRequest(f"topic: ends with {target.last}; name a set, an entity or a property")
        if topic.select and target.names:
            raise BadRequest("topic: $select is for entities; the topic names a property")
        options = QueryOptions(select=topic.select)
        kind = target.entity.kind if target.entity else target.entities.kind if target.entities else _OBSERVATION
        check_names(kind, options)
        return _Resolved(followed, target, options)

    # ── rounds ────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Publish updates until cancelled."""
        parts = self._parts
        reader, compare_at = parts.service.sharing.reader, 0.0
        while True:
            active = [followed for followed in self.topics.values() if followed.connections]
            if not active:
                await parts.clock.sleep(PAUSE_S)
                continue
            await reader.wait(min(followed.position for followed in active), ROUND_S)
            began = parts.clock.monotonic()
            compares = began >= compare_at
            try:
                await self._round(active, compares=compares)
            except (PermissionDenied, NotFound, Unavailable, TooMuch, Overloaded, StoreFull) as why:
                _log.info("updates delayed", token=self._user.token, reason=str(why))
                await parts.clock.sleep(ROUND_S)
            ended = parts.clock.monotonic()
            if compares:
                compare_at = ended + max(ROUND_S, (ended - began) * (BUSY_DIVISOR - 1))
            await parts.clock.sleep(PAUSE_S)

    async def _round(self, active: Sequence[FollowedTopic], *, compares: bool) -> None:
        """Publish the new entities.

        Raises:
            PermissionDenied, NotFound, Unavailable, TooMuch, Overloaded, StoreFull: the rest follows in another round.
        """
        by_feed: dict[str, list[FollowedTopic]] = {}
        for followed in active:
            by_feed.setdefault(followed.topic.feed, []).append(followed)
        for feed, topics in by_feed.items():
            try:
                view = await self._view(feed)
            except (PermissionDenied, NotFound) as why:
                self.denied[feed] = str(why)
                continue
            resolved = []
            for followed in topics:
                try:
                    resolved.append(await self._resolved(view, followed))
                except BadRequest:
                    followed.position = max(followed.position, self._parts.service.sharing.reader.end)
            read = await self._parts.service.sharing.reader.read(min(followed.position for followed in topics))
            updates, has_revisions = await self._observations(view, resolved, read)
            for topic in resolved:
                entity = topic.target.entity
                is_revised = has_revisions and entity is not None and entity.kind is _OBSERVATION
                if topic.observations is None and (is_revised or (compares and not _is_observation(entity))):
                    try:
                        updates += await self._changes(view, topic)
                    except BadRequest as why:
                        self._drop(topic.followed, str(why))
            await self._publish(view, feed, updates)
            for topic in resolved:
                topic.followed.position = max(topic.followed.position, read.end)

    async def _observations(
        self, view: CallerView, topics: Sequence[_Resolved], read: EntryRange
    ) -> tuple[list[_Update], bool]:
        """Return the Observations of entries of the log, and whether some of them are revisions."""
        ranges = [(topic, entities) for topic in topics if (entities := topic.observations) is not None]
        single = [entity for topic in topics if _is_observation(entity := topic.target.entity) and entity is not None]
        streams = {stream.id: stream for _, entities in ranges for stream in entities.streams}
        streams |= {source_of(entity).datastream.id: source_of(entity).datastream for entity in single}
        if not streams or not read.entries:
            return [], False
        rows = await self._parts.service.reader.updated(view, list(streams.values()), read.entries)
        answers = self._answers(view)
        updates: list[_Update] = []
        for topic, entities in ranges:
            wanted = {stream.id for stream in entities.streams}
            mine = [
                row.entity
                for row in rows
                if row.entry > topic.followed.position
                and source_of(row.entity).datastream.id in wanted
                and entities.feature in {0, source_of(row.entity).feature}
            ]
            documents = await answers.documents(mine, topic.options)
            updates += [_Update(topic.followed, msgspec.json.encode(document), True) for document in documents]
        return updates, any(row.is_revision for row in rows)

    async def _changes(self, view: CallerView, topic: _Resolved) -> list[_Update]:
        """Return the entities of a topic that are new or have changed. Raises `BadRequest`: they are too many."""
        updates = []
        followed = topic.followed
        for number, body, digest in await self._documents(view, topic):
            if followed.digests.get(number) != digest:
                updates.append(_Update(followed, body, _is_observation(topic.target.entity), number, digest))
        return updates

    def _drop(self, followed: FollowedTopic, reason: str) -> None:
        """Follow a topic no longer; a client that is subscribed to it has it tried again (`clients`)."""
        _log.info("topic no longer followed", token=self._user.token, topic=followed.topic.text[:100], reason=reason)
        if self.topics.get(followed.topic.text) is followed:
            del self.topics[followed.topic.text]

    async def _documents(self, view: CallerView, topic: _Resolved) -> list[tuple[int, bytes, bytes]]:
        """Return the entities of a topic: (id, message, digest). Raises `BadRequest`: they are too many."""
        target, entities = topic.target, topic.target.entities
        if target.entity is not None and target.names:
            value: object = target.entity.values
            for name in target.names:
                value = value.get(name) if isinstance(value, dict) else None
            body = msgspec.json.encode({target.names[-1]: value})
            return [(target.entity.id, body, _digest(body))]
        chosen: list[Entity] = [target.entity] if target.entity is not None else []
        if entities is not None:
            if len(entities.ids) > ENTITIES_MAX:
                raise BadRequest(
                    f"topic: has {len(entities.ids)} entities, more than {ENTITIES_MAX}; "
                    "subscribe to Observations, or to single entities"
                )
            chosen = view.entities(entities.kind.name, entities.ids)
        documents = await self._answers(view).documents(chosen, topic.options)
        bodies = [msgspec.json.encode(document) for document in documents]
        return [(entity.id, body, _digest(body)) for entity, body in zip(chosen, bodies, strict=True)]

    def _answers(self, view: CallerView) -> DocumentBuilder:
        reader = self._parts.service.reader
        return DocumentBuilder(view, reader, Pager(view, reader, top_max=ENTITIES_MAX), self._parts.base)

    # ── publishing ────────────────────────────────────────────────────────────────────────────────────

    async def _publish(self, view: CallerView, feed: str, updates: Sequence[_Update]) -> None:
        """Publish messages, as fast as quota and sessions permit. Raises as `_round`."""
        place = 0
        while place < len(updates):
            self._parts.tokens.principal(self._user.token)
            quota = view.admission.quota
            room = _room(quota, len(updates) - place)
            if not room:
                await self._parts.clock.sleep(ROUND_S if quota is None else min(ROUND_S, max(POLL_S, quota.wait_s(1))))
                view = await self._view(feed)
                continue
            part = updates[place : place + min(room, MESSAGES_AT_ONCE)]
            place += len(part)
            await self._wait_for_sessions({update.followed.topic.text for update in part})
            await self._publish_counted(view, feed, part)

    async def _publish_counted(self, view: CallerView, feed: str, part: Sequence[_Update]) -> None:
        sharing, grant = self._parts.service.sharing, view.admission.grant_id
        principal: Principal = view.principal
        records = sum(update.followed.connections for update in part if update.is_observation)
        size = sum(len(update.body) * update.followed.connections for update in part)
        mount = self._user.mount_point
        async with sharing.reserve(principal, feed, DELIVERY, records, grant):
            await asyncio.gather(
                *(self._parts.publisher.publish(f"{mount}{update.followed.topic.text}", update.body) for update in part)
            )
            sharing.count(principal, feed, DELIVERY, requests=len(part), records=records, size=size, grant=grant)
        for update in part:
            if update.digest:
                update.followed.digests[update.entity] = update.digest
        if view.admission.quota is not None:
            view.admission.quota.consume(records)

    async def _wait_for_sessions(self, topics: set[str]) -> None:
        """Return once few messages wait for the subscribers of topics. Raises `PermissionDenied`, `Unavailable`."""
        sessions = self._parts.publisher.sessions
        for topic in topics:
            subject = subject_of_topic(f"{self._user.mount_point}{topic}")
            while (await sessions.waiting(subject) or 0) >= SESSION_MAX:
                self._parts.tokens.principal(self._user.token)
                await self._parts.clock.sleep(POLL_S)


def _room(quota: GrantQuota | None, most: int) -> int:
    """Return how many records may be sent now; 0: none."""
    try:
        return most if quota is None else quota.available(most)
    except Overloaded:
        return 0


def _is_observation(entity: Entity | None) -> bool:
    return entity is not None and entity.kind is _OBSERVATION


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
