"""Batches: both forms against a running gateway, each request judged alone, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, strategies

from sensegate.sensorthings.batch import (
    REQUESTS_MAX,
    BatchedAnswer,
    CreatedEntities,
    multipart_answer,
    parse_json,
    parse_multipart,
)
from sensegate.web.problems import BadRequest
from tests.live.site import Site, config_of, running

in_one_loop = pytest.mark.asyncio(loop_scope="module")
live = pytest.mark.live
BATCH = "/sta/v1.1/$batch"
SENSOR = {"name": "DS18B20", "description": "x", "encodingType": "application/pdf", "metadata": "http://x/y.pdf"}
PROPERTY = {"name": "Air temperature", "definition": "http://x/def/air_temperature", "description": "of the air"}
STREAM = {
    "name": "temperature",
    "description": "of the yard",
    "observationType": "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement",
    "unitOfMeasurement": {"name": "degree Celsius", "symbol": "°C", "definition": "Cel"},
    "Sensor": {"@iot.id": "$sensor"},
    "ObservedProperty": PROPERTY,
}
MIXED = {"Content-Type": "multipart/mixed; boundary=b1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node of 4401."""
    async with running(config_of(tmp_path_factory.mktemp("node"))) as running_site:
        yield running_site


def ask(name: str, method: str, url: str, body: Any = None, **more: Any) -> dict[str, Any]:
    """Return a request of a batch as JSON."""
    return {"id": name, "method": method, "url": url, **({} if body is None else {"body": body}), **more}


def http(method: str, url: str, body: Any = None, name: str = "") -> str:
    """Return a request as a part of a batch."""
    head = f"Content-Type: application/http\r\n{f'Content-ID: {name}' + chr(13) + chr(10) if name else ''}\r\n"
    inner = "" if body is None else "Content-Type: application/json\r\n"
    text = "" if body is None else msgspec.json.encode(body).decode()
    return f"{head}{method} {url} HTTP/1.1\r\n{inner}\r\n{text}"


def parts(*contents: str, boundary: str = "b1") -> str:
    """Return a body of parts."""
    return "".join(f"--{boundary}\r\n{content}\r\n" for content in contents) + f"--{boundary}--\r\n"


def thing(name: str) -> dict[str, Any]:
    """Return the body of a Thing."""
    return {"name": name, "description": "x", "properties": {"division": "440106", "device": name}}


async def batch(site: Site, token: str | None, *requests: dict[str, Any]) -> list[Any]:
    """Return the answers to a batch as JSON."""
    answer = await site.ask("POST", BATCH, token, json={"requests": list(requests)})
    assert answer.status == 200, answer.body
    answers: list[Any] = answer.body["responses"]
    assert [response["id"] for response in answers] == [request["id"] for request in requests]
    return answers


@live
@in_one_loop
async def test_requests_as_json(site: Site) -> None:
    """Entities are created, referred to by later requests, observed and read; a failure leaves the others alone."""
    token, _ = await site.token("city_operator")
    answers = await batch(
        site,
        token,
        ask("sensor", "post", "Sensors", SENSOR),
        ask("yard", "post", "/sta/v1.1/Things", thing("batch-1")),
        ask("stream", "post", "$yard/Datastreams", STREAM),
        ask("wrong", "post", "Things", {"name": "no description"}),
        ask("late", "get", "Things", dependsOn=["wrong"]),
        ask("seen", "post", "Datastreams($stream)/Observations", {"result": 21.5}),
        ask("read", "get", "Things($yard)?$expand=Datastreams($expand=Observations)"),
        ask("table", "get", "$stream/Observations?$resultFormat=CSV&$select=result"),
        ask("moved", "patch", "$yard", {"description": "behind the house"}),
        ask("gone", "delete", "$seen"),
        ask("none", "get", "$seen"),
    )
    statuses = {answer["id"]: answer["status"] for answer in answers}
    assert statuses == {"sensor": 201, "yard": 201, "stream": 201, "wrong": 400, "late": 424, "seen": 201, "read": 200,
                        "table": 200, "moved": 200, "gone": 200, "none": 404}  # fmt: skip
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id["read"]["body"]["Datastreams"][0]["Observations"][0]["result"] == 21.5
    assert by_id["table"]["body"].splitlines() == ["result", "21.5"]
    assert by_id["wrong"]["headers"]["content-type"] == "application/problem+json"
    assert "description" in by_id["wrong"]["body"]["detail"]
    assert by_id["yard"]["location"] == by_id["yard"]["body"]["@iot.selfLink"]
    actions = [row["action"] for row in await site.audit()]
    assert {"device.add", "sensorthings.create", "readings.withdraw"} <= set(actions)


@live
@in_one_loop
async def test_requests_in_parts(site: Site) -> None:
    """The same as multipart/mixed, whose answer another parser reads; a change set of one request is carried out."""
    change = parts(http("POST", "Sensors", SENSOR, "sensor"), boundary="c1")
    body = parts(
        http("POST", "Things", thing("batch-2"), "yard"),
        f"Content-Type: multipart/mixed; boundary=c1\r\n\r\n{change}",
        http("POST", "$yard/Datastreams", STREAM, "stream"),
        http("POST", "$stream/Observations", {"result": 22.5}),
        http("GET", "$stream/Observations?$select=result"),
        http("GET", "Nothings"),
    )
    answer = await site.ask("POST", BATCH, data=body.encode(), headers=MIXED)
    assert answer.status == 200, answer.body
    kind = answer.headers["Content-Type"]
    raw = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
    message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
    selected = [part for part in message.walk() if part.get_content_type() == "application/http"]
    texts = [str(part.get_payload()) for part in selected]
    assert [int(text.split()[1]) for text in texts] == [201, 201, 201, 201, 200, 404]
    assert [part["Content-ID"] for part in selected][:3] == ["yard", "sensor", "stream"]
    assert '"result":22.5' in texts[4]


@live
@in_one_loop
async def test_each_request_is_judged_alone(site: Site) -> None:
    """The caller's rights and scope hold for each request; a batch gives nothing that a request alone does not."""
    owner, _ = await site.token("city_operator")
    await batch(site, owner, ask("1", "post", "Things", thing("batch-3")))
    (known,) = (await site.ask("GET", "/sta/v1.1/Things?$filter=name eq 'batch-3'", owner)).body["value"]
    requests = (
        ask("read", "get", f"Things({known['@iot.id']})"),
        ask("write", "patch", f"Things({known['@iot.id']})", {"description": "mine"}),
        ask("create", "post", "Things", thing("batch-4")),
    )
    expected = {
        ("subscriber", "4401"): [404, 403, 403],
        ("city_operator", "440103"): [404, 404, 403],
        ("city_operator", "4401"): [200, 200, 201],
    }
    for (role, place), statuses in expected.items():
        token, _ = await site.token(role, place)
        answers = await batch(site, token, *requests)
        assert [answer["status"] for answer in answers] == statuses, (role, place, answers)
        alone = await site.ask("GET", f"/sta/v1.1/Things({known['@iot.id']})", token)
        assert alone.status == statuses[0]
    assert (await site.ask("POST", BATCH, "", json={"requests": [ask("1", "get", "Things")]})).status == 401
    auditor = site.config_file("auditor.token").read_text().strip()
    assert (await site.ask("POST", BATCH, auditor, json={"requests": [ask("1", "get", "Things")]})).status == 403


@live
@in_one_loop
async def test_what_a_batch_does_not_do(site: Site) -> None:
    """No batch in a batch, no change set of several requests, no address elsewhere, no writing through a feed."""
    answers = await batch(
        site,
        None,
        ask("nested", "post", "$batch", {"requests": []}),
        ask("a", "post", "Things", thing("batch-5"), atomicityGroup="g"),
        ask("b", "post", "Sensors", SENSOR, atomicityGroup="g"),
        ask("far", "get", "http://elsewhere.example/sta/v1.1/Things"),
        ask("out", "get", "/api/v1/devices"),
        ask("odd", "get", "Things?$colour=1"),
        ask("twice", "get", "Things?$top=1&$top=2"),
        ask("up", "get", "../../api/v1/devices"),
    )
    assert [answer["status"] for answer in answers] == [400, 501, 501, 400, 400, 400, 400, 400]
    assert "not undone" in answers[1]["body"]["detail"]
    assert (await site.ask("GET", "/sta/v1.1/Things?$filter=name eq 'batch-5'")).body["value"] == []
    feed = {"requests": [ask("1", "get", "Things"), ask("2", "post", "Things", thing("batch-6"))]}
    through = await site.ask("POST", "/feeds/all/sta/v1.1/$batch", json=feed)
    assert [response["status"] for response in through.body["responses"]] == [200, 405]
    assert (await site.ask("POST", "/feeds/none/sta/v1.1/$batch", json=feed)).status == 404
    assert (await site.ask("POST", BATCH, data=b"x", headers={"Content-Type": "text/plain"})).status == 415


# ── forms ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "raw", "word"),
    [
        ("multipart/mixed", parts(http("GET", "Things")), "no boundary"),
        ("multipart/mixed; boundary=b2", parts(http("GET", "Things")), "no part"),
        ("multipart/mixed; boundary=b1", parts(http("GET", "Things"))[:-8], "does not end"),
        ("multipart/mixed; boundary=b1", parts("Content-Type: text/plain\r\n\r\nx"), "application/http"),
        ("multipart/mixed; boundary=b1", parts(http("TRACE", "Things")), "TRACE"),
        ("multipart/mixed; boundary=b1", parts("Content-Type: application/http\r\n\r\nGET"), "request line"),
        ("multipart/mixed; boundary=b1", parts(*[http("GET", "Things")] * (REQUESTS_MAX + 1)), "more than"),
        ("multipart/mixed; boundary=b1", parts(*[http("GET", "Things", name="a")] * 2), "given twice"),
        ("multipart/mixed; boundary=b1", parts(http("GET", "Things", name="a b")), "is not one"),
        (
            "multipart/mixed; boundary=b1",
            parts(
                "Content-Type: multipart/mixed; boundary=c\r\n\r\n"
                + parts("Content-Type: multipart/mixed; boundary=d\r\n\r\n--d--", boundary="c")
            ),
            "no change sets in it",
        ),
    ],
)
def test_parts_that_are_refused(kind: str, raw: str, word: str) -> None:
    """A batch that is not understood is refused as a whole, by what is wrong."""
    with pytest.raises(BadRequest) as caught:
        parse_multipart(kind, raw.encode())
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"requests": []},
        {"requests": [ask("1", "get", "Things")] * 2},
        {"requests": [ask(str(number), "get", "Things") for number in range(REQUESTS_MAX + 1)]},
        {"requests": [ask("1", "brew", "Things")]},
        {"requests": [{"id": "1", "method": "get"}]},
        {"requests": [ask("1", "get", "Things", colour=1)]},
    ],
)
def test_json_that_is_refused(body: dict[str, Any]) -> None:
    """A batch as JSON that is not as it should be is refused as a whole."""
    with pytest.raises(BadRequest):
        parse_json(msgspec.json.encode(body))


@given(strategies.binary(max_size=400))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    """No body raises anything but `BadRequest`, whether its lines are those of parts or not."""
    for body in (raw, b"--b1\r\n" + raw + b"\r\n--b1--", b"--b1\r\nContent-Type: application/http\r\n\r\n" + raw):
        with contextlib.suppress(BadRequest):
            assert parse_multipart("multipart/mixed; boundary=b1", body)
    with contextlib.suppress(BadRequest):
        parse_json(raw)


_ASKED = strategies.tuples(strategies.sampled_from(("GET", "POST", "DELETE")), strategies.integers(0, 9))


@given(strategies.lists(_ASKED, min_size=1, max_size=8))
def test_parts_round_trip(asked: list[tuple[str, int]]) -> None:
    """What is written as parts is read in its order; LF instead of CRLF makes no difference."""
    contents = [
        http(method, f"Things({number})", {"a": number}, f"r{place}") for place, (method, number) in enumerate(asked)
    ]
    body = parts(*contents)
    for text in (body, body.replace("\r\n", "\n")):
        read = parse_multipart("multipart/mixed; boundary=b1", text.encode())
        assert [(request.method, request.url) for request in read] == [
            (method, f"Things({number})") for method, number in asked
        ]
        assert [msgspec.json.decode(request.body) for request in read] == [{"a": number} for _, number in asked]


def test_references() -> None:
    """Only ids and addresses are replaced, by requests that came before; other texts with $ stay."""
    created = CreatedEntities()
    assert created.url("$a/Datastreams") == "$a/Datastreams"
    created.add("a", "Things(5)", 5)
    assert created.url("$a/Datastreams") == "Things(5)/Datastreams"
    assert created.url("Things($a)?$select=name") == "Things(5)?$select=name"
    body = msgspec.json.encode({"Thing": {"@iot.id": "$a"}, "name": "$a", "list": [{"@iot.id": "$b"}]})
    assert msgspec.json.decode(created.body(body)) == {
        "Thing": {"@iot.id": 5},
        "name": "$a",
        "list": [{"@iot.id": "$b"}],
    }


def test_answers_hold_any_bytes() -> None:
    """A body with line breaks and dashes stays whole in its part."""
    body, kind = multipart_answer([BatchedAnswer(status=200, media="text/csv", body=b"a\r\n--batch_\r\nb")])
    message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    (part,) = [part for part in message.walk() if part.get_content_type() == "application/http"]
    assert str(part.get_payload()).endswith("a\r\n--batch_\r\nb")
