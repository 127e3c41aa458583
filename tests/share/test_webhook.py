"""Letters to addresses of others: signed, sent once, and only to where the configuration lets us out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohappyeyeballs
import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from sensegate.authority.egress import Egress, EgressConnector, EgressResolver
from sensegate.clock import FakeClock, SystemClock
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery
from sensegate.share.transports.webhook import open_webhooks, sign
from tests.live.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def letter_to(url: str) -> OutboundDelivery:
    return OutboundDelivery(target=url, id="msg_1", body=b'{"records":[]}', media="application/json", secret=b"k" * 32)


async def sent(url: str, *allow: str) -> DeliveryResult:
    async with open_webhooks(Egress(allow), SystemClock(), timeout_s=2.0) as poster:
        return await poster.send(letter_to(url))


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and what they resolve to; the next look-up takes the next list of addresses, separated by commas."""
    names: dict[str, list[str]] = {}

    async def look(_loop: object, host: str, port: int, **_: object) -> list[object]:
        result = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in result.split(",")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look)
    return names


async def test_the_signature_is_that_of_standard_webhooks() -> None:
    """HMAC-SHA256 made by Python's own hmac, HMAC-SM3 by cryptography; another key gives another."""
    letter = letter_to("https://example.com/x")
    text = b"msg_1.1700000000." + letter.body
    plain = b64encode(hmac.new(letter.secret, text, hashlib.sha256).digest()).decode()
    assert sign(letter, 1_700_000_000) == f"v1,{plain}"
    code = HMAC(letter.secret, hashes.SM3())
    code.update(text)
    sm3 = OutboundDelivery(
        **{**{name: getattr(letter, name) for name in letter.__struct_fields__}, "algorithm": "hmac-sm3"}
    )
    assert sign(sm3, 1_700_000_000) == f"v1sm3,{b64encode(code.finalize()).decode()}"
    assert sign(letter, 1_700_000_001) != sign(letter, 1_700_000_000)


async def test_a_receiver_that_is_let_out_gets_it(receiver: Receiver) -> None:
    """The control of all that follows: by network and by name of the host."""
    assert (await sent(receiver.url, "127.0.0.1")).accepted
    assert (await sent(receiver.url.replace("127.0.0.1", "localhost"), "localhost")).accepted
    assert len(receiver.attempts) == 2


async def test_a_name_that_leads_inside_is_not_connected_to(receiver: Receiver, named: dict[str, list[str]]) -> None:
    """A public name whose address is loopback, or one of whose addresses is: barred; named in egress it is let out."""
    port = receiver.url.split(":")[2].split("/")[0]
    for addresses in ("127.0.0.1", "93.184.216.34,127.0.0.1", "169.254.169.254", "10.1.2.3", "0.0.0.0"):  # noqa: S104
        named["inside.example"] = [addresses]
        receipt = await sent(f"https://inside.example:{port}/hook", "public")
        assert not receipt.accepted
        assert "not allowed" in receipt.reason
    named["inside.example"] = ["127.0.0.1"]
    assert (await sent(f"http://inside.example:{port}/hook", "inside.example")).accepted
    assert len(receiver.attempts) == 1


async def test_what_was_judged_is_what_is_connected_to(receiver: Receiver, named: dict[str, list[str]]) -> None:
    """A name that resolves otherwise at each look: one look, and the connection is made to what was judged."""
    named["turning.example"] = ["93.184.216.34", "127.0.0.1"]
    guarded = EgressResolver(Egress(("public",)))
    first = await guarded.resolve("turning.example", 443)
    assert [address["host"] for address in first] == ["93.184.216.34"]
    with pytest.raises(OSError, match="not allowed"):
        await guarded.resolve("turning.example", 443)


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    """3xx is a failure that says so."""
    receiver.answers = [307]
    receipt = await sent(receiver.url, "127.0.0.1")
    assert (receipt.accepted, "redirect" in receipt.reason) == (False, True)
    assert len(receiver.attempts) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://192.168.0.1/x",
        "http://example.com/x",
        "file:///etc/passwd",
        "https://a:b@example.com/",
        "https://example.com/#x",
        "https://exa mple.com/",
        "https:///x",
        "https://①②⑦.0.0.1/x",
        "https://127。0。0。1/x",
        "https://１２７.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f.0.0.1/x",
        "https://017700000001/x",
        "https://127.0.0.1./x",
        "https://%31%32%37.0.0.1/x",
        "https://[fe80::1%25eth0]/x",
    ],
)
def test_addresses_that_are_refused_as_text(url: str) -> None:
    """Special addresses in every notation that a client or the system maps to one, no TLS, other schemes, passwords."""
    with pytest.raises(ConfigError):
        Egress(("public",)).check(url)


def test_addresses_that_are_let_out() -> None:
    """The control."""
    Egress(("public",)).check("https://example.com/x")
    Egress(("public",)).check("https://93.184.216.34/x")
    Egress(("10.2.0.0/16",)).check("http://10.2.3.4:8080/x")
    Egress(("public",)).check("https://bücher.example/x")
    Egress(("bücher.example",)).check("http://xn--bcher-kva.example/x")
    Egress(("city.example",)).check("http://City。Example./x")
    with pytest.raises(ConfigError):
        Egress(("10.2.0.0/16",)).check("http://10.3.3.4:8080/x")


@pytest.mark.parametrize("host", ["①②⑦.0.0.1", "127。0。0。1", "127.0.0.1.", "127.1", "0x7f.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ。"])
async def test_no_notation_of_loopback_is_dialled(receiver: Receiver, host: str) -> None:
    """A connector without the check of the text refuses, too: it judges what it dials."""
    port = receiver.url.split(":")[2].split("/")[0]
    connector = EgressConnector(Egress(("public",)))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://{host}:{port}/hook")
    assert receiver.attempts == []


async def test_the_peer_is_judged_after_connecting(
    receiver: Receiver, named: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends elsewhere than at the address dialled gets no request; the control is let out by name."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    named["elsewhere.example"] = ["93.184.216.34"]
    connect = aiohappyeyeballs.start_connection

    async def diverted(addr_infos: object, **options: Any) -> socket.socket:
        del addr_infos
        return await connect([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))], **options)

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", diverted)
    async with aiohttp.ClientSession(connector=EgressConnector(Egress(("public",)))) as session:
        with pytest.raises(aiohttp.ClientOSError, match="an address that is not allowed"):
            await session.post("http://elsewhere.example/hook")
    assert receiver.attempts == []
    assert (await sent("http://elsewhere.example/hook", "elsewhere.example")).accepted


async def test_no_answer_in_time(receiver: Receiver) -> None:
    """Said as such."""
    receiver.open.clear()
    async with open_webhooks(Egress(("127.0.0.1",)), FakeClock(), timeout_s=0.2) as poster:
        receipt = await poster.send(letter_to(receiver.url))
    assert receipt == DeliveryResult(accepted=False, reason="no answer within 0.2 s")
