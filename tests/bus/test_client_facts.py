"""Signed facts about a client, with which a front speaks to the broker behind it."""

from __future__ import annotations

from sensegate.bus.client_facts import ClientFacts, FactsVerifier, new_nonce, sign
from sensegate.collect.front.packets import ConnectPacket, Version


def test_facts_are_valid_once_for_one_user_and_a_short_time() -> None:
    """Forged, old, used or another user's facts are none."""
    key = b"k" * 32
    facts = ClientFacts(user="d1", client_id="c", address="10.0.0.1", issued=1_000, nonce=new_nonce(), is_device=True)
    verifier = FactsVerifier(key)
    password = sign(facts, key)
    assert verifier.verify(password, "d2", 1_000) is None
    assert verifier.verify(password, "d1", 40_000_000) is None
    assert verifier.verify(sign(facts, b"x" * 32), "d1", 1_000) is None
    forged = password[:-1] + ("1" if password[-1] == "0" else "0")
    assert verifier.verify(forged, "d1", 1_000) is None
    assert verifier.verify(password, "d1", 2_000) == facts
    assert verifier.verify(password, "d1", 3_000) is None, "used"
    assert FactsVerifier(key).verify("plain", "d1", 1_000) is None


def test_a_connect_has_room_for_facts() -> None:
    """The password of a CONNECT carries them as text."""
    facts = ClientFacts(user="d" * 100, client_id="c", address="", issued=1, nonce=new_nonce(), is_device=True)
    assert len(ConnectPacket(Version.MQTT_3_1_1, "c", password=sign(facts, b"k").encode()).password or b"") < 1_000
