"""Clients of services of the gateway at a front: what is asked once, what is not acknowledged, names at the broker."""

from __future__ import annotations

import pytest

from sensegate.collect.front.messages import ServicePublish, ServiceSubscribe
from sensegate.collect.front.packets import (
    MqttViolation,
    Publish,
    ReasonCode,
    Subscribe,
    Subscription,
)
from sensegate.collect.front.services import ServiceConversation, ServiceUser, service_user
from sensegate.errors import Unavailable

USER = ServiceUser("sg_1", "sta")


class AnsweringGateway:
    """A gateway that answers with given codes; None: not at all."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)
        self.published: list[ServicePublish] = []

    async def publish(self, request: ServicePublish) -> int:
        self.published.append(request)
        if (code := self.codes.pop(0)) is None:
            raise Unavailable("no answer")
        return code

    async def subscribe(self, request: ServiceSubscribe) -> tuple[int, ...]:
        return tuple(0 if topic.startswith("v1.1/") else ReasonCode.TOPIC_FILTER_INVALID for topic in request.topics)


def sent(packet_id: int, qos: int = 1) -> Publish:
    """Return a message of a client."""
    return Publish("v1.1/Observations", b"{}", qos, packet_id=packet_id)


@pytest.mark.parametrize(
    ("user", "expected"),
    [("sg_1/sta", USER), ("sg_1", None), ("sg_1/other", None), ("/sta", None), ("", None)],
)
def test_the_user_name_says_that_a_client_is_one_of_a_service(user: str, expected: ServiceUser | None) -> None:
    """Only ``TOKEN/SERVICE`` of a known service; all others pass through as before."""
    assert service_user(user) == expected


async def test_codes_are_in_the_order_of_the_messages() -> None:
    """Each message is asked for once, and a refused one does not hold up those behind it."""
    gateway = AnsweringGateway(0, ReasonCode.PAYLOAD_FORMAT_INVALID, 0)
    conversation = ServiceConversation(USER, gateway)
    codes = await conversation.publish([sent(1), sent(2), sent(3)])
    assert codes == [0, ReasonCode.PAYLOAD_FORMAT_INVALID, 0]
    assert [request.token for request in gateway.published] == ["sg_1"] * 3


@pytest.mark.parametrize("code", [ReasonCode.SERVER_BUSY, None])
async def test_what_cannot_be_committed_is_not_acknowledged(code: int | None) -> None:
    """A busy or silent gateway ends the connection, so that the client sends the message again."""
    with pytest.raises(MqttViolation) as violation:
        await ServiceConversation(USER, AnsweringGateway(code)).publish([sent(1)])
    assert violation.value.reason == ReasonCode.SERVER_BUSY


async def test_qos_2_is_asked_for_once_until_it_is_released() -> None:
    """A message sent again before PUBREL is not taken again; after it the packet id is that of another (control)."""
    gateway = AnsweringGateway(0, 0)
    conversation = ServiceConversation(USER, gateway)
    assert await conversation.publish([sent(7, 2)]) == [0]
    assert await conversation.publish([sent(7, 2)]) == [0]
    assert len(gateway.published) == 1
    assert conversation.release(7)
    assert not conversation.release(7)
    await conversation.publish([sent(7, 2)])
    assert len(gateway.published) == 2


async def test_topics_lie_under_the_mount_point_of_the_token() -> None:
    """Granted filters as the broker knows them, refused ones with their code, messages as the client knows them."""
    conversation = ServiceConversation(USER, AnsweringGateway())
    wanted = (Subscription("v1.1/Things", 1), Subscription("#", 1))
    assert await conversation.subscribe(Subscribe(1, wanted)) == [None, ReasonCode.TOPIC_FILTER_INVALID]
    assert conversation.user.mount_point == "sg/sta/sg_1/"
    assert conversation.shown(Publish("sg/sta/sg_1/v1.1/Things", b"x")).topic == "v1.1/Things"
