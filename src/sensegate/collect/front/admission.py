"""Requests of a front to its gateway, and messages between fronts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api
from sensegate.clock import Clock, wait_or_sleep
from sensegate.collect.front import messages
from sensegate.collect.front.front import Front
from sensegate.collect.front.messages import (
    QUESTIONS_MAX,
    Answer,
    Answers,
    Arriving,
    Changes,
    Check,
    Close,
    Connected,
    Question,
    Questions,
    RefusedOperation,
    Report,
    ServiceCodes,
    ServicePublish,
    ServiceSubscribe,
)
from sensegate.collect.front.packets import ConnectPacket, MqttViolation, ReasonCode
from sensegate.collect.front.rights import Admitted, PassThroughClient, Rights, TopicMatcher
from sensegate.collect.front.sessions import SessionKey
from sensegate.errors import CancellableTaskGroup, Unavailable

_Result = TypeVar("_Result")

CREDENTIAL_MAX = 16_384
"""Most bytes of a user name, and of a password; tokens of identity providers have some thousand."""
QUESTION_CHARACTERS_MAX = 131_072
"""Most characters of user names and passwords in a request of several questions: the server limits its bytes."""
WAITING_MAX = 20_000
"""Most clients that wait for an answer of the gateway; more are told to come back later."""
KNOWN_MAX = 200_000
"""Most devices whose rights are cached."""
REFUSALS_MAX = 1_000
"""Most refusals of different kinds that wait for a report; more are counted as a limit."""
REPORTED_MAX = 200
"""Most of them in one report: each may have more than a kilobyte, and the server limits a message."""
REPORT_S = 0.5
CHECK_S = 600.0
"""Interval of comparisons with the registry, besides those after a lost connection."""
ANSWER_S = 5.0
COMMIT_S = 30.0
"""Longest wait for the commit of what a client of a service publishes."""
RETRY_S = 0.1
TAKE_OVER_S = 0.3
"""Longest wait for other fronts to close a device's older connection."""
HELLO_S = 0.05
"""Time for the other fronts to answer one that begins."""
SILENT_S = 2.0
"""A front that has not been heard for so long is gone: no take-over waits for it."""
NEIGHBOURS_MAX = 256
"""Most other fronts that are known."""

_log = structlog.get_logger("collect")
_encode = msgspec.msgpack.Encoder().encode
_decode_answers = msgspec.msgpack.Decoder(Answers).decode
_decode_changes = msgspec.msgpack.Decoder(Changes).decode
_decode_close = msgspec.msgpack.Decoder(Close).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_codes = msgspec.msgpack.Decoder(ServiceCodes).decode
_decode_arriving = msgspec.msgpack.Decoder(Arriving).decode
_decode_connected = msgspec.msgpack.Decoder(Connected).decode


class _Known(msgspec.Struct, frozen=True, eq=False):
    """A device that the gateway has admitted, with a keyed hash of the credential that it showed."""

    proof: bytes
    answer: Answer
    admitted: Admitted


class AdmissionClient:
    """Client of the gateway's admission service; caches its answers about devices, and reports events of the front."""

    def __init__(self, connection: Client, name: str, clock: Clock) -> None:
        self._connection = connection
        self._name = name
        self._clock = clock
        self._neighbours: dict[str, float] = {}
        """Other fronts, on this and other machines -> when they were last heard."""
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._questions: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asked = asyncio.Event()
        self._unchecked = asyncio.Event()
        self._refusals: Counter[tuple[str, str, str, str]] = Counter()
        self._limits: Counter[str] = Counter()
        self._generation = 0
        self._confirming: set[asyncio.Task[None]] = set()
        """Answers to other fronts that wait until messages are stored."""
        self._front: Front | None = None

    async def open(self, front: Front) -> None:
        """Listen to the gateway and the other fronts. Raises `Unavailable`."""
        self._front = front
        with api.translate_client_errors("subscribe to the gateway's messages to fronts"):
            await self._connection.subscribe(messages.CLOSE, cb=self._close)
            await self._connection.subscribe(messages.ARRIVING, cb=self._hear_announcement)
            await self._connection.subscribe(messages.CONNECTED, cb=self._connected)
            await self._connection.subscribe(messages.REPORT, cb=self._hear)
            await self._connection.subscribe(messages.HELLO, cb=self._greet)
            inbox = self._connection.new_inbox()
            await self._connection.subscribe(inbox, cb=self._hear_name)
            await self._connection.publish(messages.HELLO, self._name.encode(), reply=inbox)
            await self._connection.flush()
        # Whom it does not know by then it does not wait for in a take-over.
        await self._clock.sleep(HELLO_S)

    async def run(self) -> None:
        """Ask and report until cancelled."""
        try:
            async with CancellableTaskGroup() as group:
                group.create_task(self._ask_all(), name="mqtt admission")
                group.create_task(self._check_all(), name="mqtt rights")
                group.create_task(self._report_all(), name="mqtt report")
        finally:
            for task in self._confirming:
                task.cancel()

    # ── admission ────────────────────────────────────────────────────────────────────────────────────

    async def admit(self, connect: ConnectPacket, address: str, common_name: str) -> Admitted | PassThroughClient:
        user = connect.username or ""
        shown = connect.password or b""
        if max(len(user.encode()), len(shown)) > CREDENTIAL_MAX:
            raise MqttViolation(
                ReasonCode.NOT_AUTHORIZED, f"a user name or password has more than {CREDENTIAL_MAX:,} bytes"
            )
        proof = self._proof(user, shown, common_name)
        known = self._known.get(user)
        if known and hmac.compare_digest(known.proof, proof):
            if not known.admitted.until or self._clock.now() < known.admitted.until:
                return known.admitted
            del self._known[user]
        generation = self._generation
        answer = await self._ask(Question(user, _printable(shown), address, common_name))
        if not answer.is_known:
            return PassThroughClient()
        if not answer.is_admitted:
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "the registry refuses the device")
        admitted = _admitted(user, answer)
        if generation == self._generation:  # otherwise the answer may be older than a change
            self._known[user] = _Known(proof, answer, admitted)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return admitted

    def _proof(self, user: str, password: bytes, common_name: str) -> bytes:
        shown = msgspec.msgpack.encode((user, password, common_name))
        return hmac.new(self._key, shown, hashlib.blake2b).digest()

    async def _ask(self, question: Question) -> Answer:
        if len(self._questions) >= WAITING_MAX:
            self.hit("mqtt_admission")
            raise MqttViolation(ReasonCode.SERVER_BUSY, "too many clients wait for admission")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions.append((question, waiting))
        self._asked.set()
        return await waiting

    async def _ask_all(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._questions:
                count = self._next_questions()
                asked, self._questions = self._questions[:count], self._questions[count:]
                await self._ask_some([(question, waiting) for question, waiting in asked if not waiting.done()])

    def _next_questions(self) -> int:
        """Return how many of the waiting questions fit into one request: at least one."""
        size = 0
        for count, (question, _) in enumerate(self._questions[:QUESTIONS_MAX]):
            size += len(question.user) + len(question.password)
            if count and size > QUESTION_CHARACTERS_MAX:
                return count
        return min(QUESTIONS_MAX, len(self._questions))

    async def _ask_some(self, asked: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        request = _encode(Questions(tuple(question for question, _ in asked)))
        deadline = self._clock.monotonic() + ANSWER_S
        while True:
            try:
                answers = _answers(await self._request(messages.ADMIT, request), len(asked))
                break
            except Unavailable as why:
                if self._clock.monotonic() < deadline:  # a gateway that starts answers soon
                    await self._clock.sleep(RETRY_S)
                    continue
                _log.warning("clients not admitted; they have to come back", count=len(asked), reason=str(why))
                for _, waiting in asked:
                    if not waiting.done():
                        waiting.set_exception(
                            MqttViolation(ReasonCode.SERVER_UNAVAILABLE, "the registry does not answer")
                        )
                return
        for (_, waiting), answer in zip(asked, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)

    async def _request(self, subject: str, payload: bytes, timeout_s: float = ANSWER_S) -> bytes:
        with api.translate_client_errors(subject):
            answer = await self._connection.request(subject, payload, timeout=timeout_s)
        return answer.data

    # ── services ─────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, request: ServicePublish) -> int:
        """Return the reason code of a message of a client that is no device. Raises `Unavailable`."""
        subject = f"{messages.SERVICE_PUBLISH}.{request.service}"
        answer = await self._request(subject, _encode(request), COMMIT_S)
        return _codes(answer, 1)[0]

    async def subscribe(self, request: ServiceSubscribe) -> tuple[int, ...]:
        """Return the reason code of each topic of a subscription. Raises `Unavailable`."""
        return _codes(await self._request(messages.SERVICE_SUBSCRIBE, _encode(request)), len(request.topics))

    async def _close(self, message: Msg) -> None:
        """Close connections of users whose credentials or rights have changed."""
        users = _decode_close(message.data).users
        self._disconnect(users)
        if not users:
            self.check()

    def _change_rights(self, user: str, answer: Answer) -> None:
        known = self._known.get(user)
        if known:
            admitted = _admitted(user, msgspec.structs.replace(answer, until=known.admitted.until))
            self._known[user] = _Known(known.proof, answer, admitted)
            if self._front:
                subscriptions_differ = known.answer.subscribe != answer.subscribe
                self._front.change_rights(admitted, subscriptions_differ=subscriptions_differ)

    def _disconnect(self, users: Sequence[str]) -> None:
        if users:
            self._generation += 1
        for user in users:
            self._known.pop(user, None)
            if self._front:
                self._front.disconnect(user, ReasonCode.ADMINISTRATIVE_ACTION)

    def check(self) -> None:
        """Compare what is cached with the registry soon: a change may have been missed."""
        self._unchecked.set()

    async def _check_all(self) -> None:
        while True:
            await wait_or_sleep(self._unchecked, self._clock, CHECK_S)
            self._unchecked.clear()
            states = {user: (known.answer.credential, known.answer.state) for user, known in self._known.items()}
            users = list(states)
            for start in range(0, len(users), QUESTIONS_MAX):
                await self._check_some({user: states[user] for user in users[start : start + QUESTIONS_MAX]})

    async def _check_some(self, states: dict[str, tuple[bytes, bytes]]) -> None:
        try:
            raw = await self._request(messages.CHECK, _encode(Check(states)))
            changes = _decode_changes(raw)
            self._disconnect(changes.close)
            for user, answer in changes.rights.items():
                self._change_rights(user, answer)
        except (Unavailable, msgspec.DecodeError) as why:
            _log.info("rights of devices not checked; trying again", reason=str(why))
            await self._clock.sleep(1.0)
            self._unchecked.set()

    # ── other fronts ─────────────────────────────────────────────────────────────────────────────────

    async def _greet(self, message: Msg) -> None:
        """Answer a front that has begun."""
        await self._hear_name(message)
        if message.data != self._name.encode():
            with suppress(Unavailable), api.translate_client_errors("hello"):
                await self._connection.publish(message.reply, self._name.encode())

    async def _hear(self, message: Msg) -> None:
        with suppress(msgspec.DecodeError):
            self._note(_decode_report(message.data).front)

    async def _hear_name(self, message: Msg) -> None:
        self._note(message.data.decode("utf-8", "replace"))

    def _note(self, name: str) -> None:
        if name != self._name and (name in self._neighbours or len(self._neighbours) < NEIGHBOURS_MAX):
            self._neighbours[name] = self._clock.monotonic()

    def _present_neighbours(self) -> int:
        """Return how many other fronts were heard recently."""
        since = self._clock.monotonic() - SILENT_S
        self._neighbours = {name: heard_at for name, heard_at in self._neighbours.items() if heard_at >= since}
        return len(self._neighbours)

    async def announce(self, key: SessionKey) -> None:
        """Tell the other fronts that a client that is no device connects."""
        if self._present_neighbours():
            with suppress(Unavailable), api.translate_client_errors("announcement"):
                arriving = Arriving(self._name, key.credential, key.client_id)
                await self._connection.publish(messages.ARRIVING, _encode(arriving))

    async def _hear_announcement(self, message: Msg) -> None:
        arriving = _decode_arriving(message.data)
        if self._front and arriving.front != self._name:
            self._front.announced(SessionKey(arriving.user, arriving.client_id))

    async def take_over(self, key: SessionKey, born: int, *, clean: bool) -> None:
        """Have the other fronts close older connections of a device; wait until they have, or for `TAKE_OVER_S`."""
        expected = self._present_neighbours()
        if not expected:
            return
        announcement = _encode(Connected(self._name, key.credential, key.client_id, born, clean))
        inbox = self._connection.new_inbox()
        answered = asyncio.Event()
        answers = 0

        async def count(_message: Msg) -> None:
            nonlocal answers
            answers += 1
            if answers >= expected:
                answered.set()

        try:
            with api.translate_client_errors("take-over"):
                subscription = await self._connection.subscribe(inbox, cb=count)
                try:
                    await self._connection.publish(messages.CONNECTED, announcement, reply=inbox)
                    async with asyncio.timeout(TAKE_OVER_S):
                        await answered.wait()
                finally:
                    await subscription.unsubscribe()
        except Unavailable as why:
            _log.debug("other fronts have not all answered", device=key.credential, reason=str(why))

    async def _connected(self, message: Msg) -> None:
        connected = _decode_connected(message.data)
        front = self._front
        if front is None or connected.front == self._name:
            return
        key = SessionKey(connected.device, connected.client_id)
        if not front.taken_over(key, connected.born, clean=connected.clean):
            await self._confirm(message.reply)
            return
        # Those that follow do not wait until the messages of this one are stored.
        task = asyncio.get_running_loop().create_task(self._confirm_stored(front, message.reply), name="mqtt take-over")
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm_stored(self, front: Front, reply: str) -> None:
        """Answer a front once the messages of the closed connection are stored."""
        await front.writer.drain(TAKE_OVER_S)
        await self._confirm(reply)

    async def _confirm(self, reply: str) -> None:
        """Answer a front: there is no older connection here."""
        with suppress(Unavailable), api.translate_client_errors("take-over"):
            await self._connection.publish(reply)

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────

    def refused(self, device: str, operation: str, detail: str, address: str) -> None:
        """Count a refused operation."""
        key = (device[:256], operation, detail[:256], address)
        if key not in self._refusals and len(self._refusals) >= REFUSALS_MAX:
            self.hit("mqtt_refusals")
            return
        self._refusals[key] += 1

    def hit(self, limit: str) -> None:
        """Count a limit that was reached."""
        self._limits[limit] += 1

    async def _report_all(self) -> None:
        while True:
            await self._clock.sleep(REPORT_S)
            await self.report()

    async def report(self) -> None:
        """Report the events since the last report to the gateway; those that cannot be sent stay for the next one."""
        front = self._front
        if front is None:
            return
        refusals = Counter(dict(islice(self._refusals.items(), REPORTED_MAX)))
        self._refusals -= refusals
        limits, self._limits = self._limits, Counter()
        report = Report(
            self._name,
            tuple(RefusedOperation(*key, count) for key, count in refusals.items()),
            dict(limits),
            front.connection_count,
            front.writer.queued_bytes,
            front.writer.problem,
        )
        try:
            with api.translate_client_errors("report"):
                await self._connection.publish(messages.REPORT, _encode(report))
        except Unavailable:
            self._refusals += refusals
            self._limits += limits


def _answers(response: bytes, count: int) -> tuple[Answer, ...]:
    return _results(lambda: _decode_answers(response).answers, count)


def _codes(response: bytes, count: int) -> tuple[int, ...]:
    return _results(lambda: _decode_codes(response).codes, count)


def _results(decode: Callable[[], tuple[_Result, ...]], count: int) -> tuple[_Result, ...]:
    """Return the results in a response. Raises `Unavailable`: it has not as many as were asked for."""
    try:
        results = decode()
    except msgspec.DecodeError as why:
        raise Unavailable(f"the response of the gateway is not understood: {why}") from why
    if len(results) != count:
        raise Unavailable(f"the response of the gateway has {len(results)} results instead of {count}")
    return results


def _admitted(device: str, answer: Answer) -> Admitted:
    rights = Rights(TopicMatcher(answer.publish), TopicMatcher(answer.subscribe), TopicMatcher(answer.best_effort))
    return Admitted(device, rights, answer.until)


def _printable(password: bytes) -> str:
    """Return a password as text; one that is not UTF-8 matches none."""
    return password.decode("utf-8", "backslashreplace")
