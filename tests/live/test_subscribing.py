"""The blocks of `deploy/subscribers.md` run as they stand, at a real gateway."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sensegate.config.people import EgressConfig
from sensegate.share.transports.contract import OutboundDelivery
from sensegate.share.transports.webhook import sign
from tests.conftest import eventually
from tests.live.blocks import output
from tests.live.granting import granted
from tests.live.site import config_of, reading, running

pytestmark = pytest.mark.live
PAGE = Path(__file__).parents[2] / "deploy" / "subscribers.md"
BLOCKS = re.findall(r"^## ([^\n]+)\n.*?^```(sh|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_each_block_brings_the_reading(tmp_path: Path) -> None:
    """Long poll, events, WebSocket, MQTT, NATS print it; the webhook is made."""
    egress = EgressConfig(("public", "example.com"))
    async with running(config_of(tmp_path, egress=egress)) as site:
        grant = await granted(site, "page")
        device = await site.device("page-1")
        assert (await site.push(device, reading(21.125))).status == 202

        async def there() -> Any:
            return (await site.ask("GET", "/api/v1/feeds/page/records", grant.token)).body["records"]

        await eventually(there)
        environment = {
            "HTTP": site.addresses.http,
            "TOKEN": grant.token,
            "TOKEN_ID": grant.token_id,
            "FEED": "page",
            "GRANT": grant.id,
            "MQTT_PORT": str(urlsplit(site.addresses.mqtt).port),
            "NATS": site.addresses.nats,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        outputs = {name: await output(kind, block, environment) for name, kind, block in BLOCKS}
        assert list(outputs) == ["Long poll", "Server-sent events", "WebSocket", "MQTT", "NATS", "Webhook"]
        for name, text in outputs.items():
            assert ("whsec_" if name == "Webhook" else "21.125") in text, (name, text)


def test_the_recipe_for_signatures_fits_ours() -> None:
    """A letter of ours is good, one changed is not."""
    (recipe,) = re.findall(r"^```python\n(import base64.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    known: dict[str, Any] = {}
    exec(recipe, known)  # noqa: S102 - a block of our own page
    letter = OutboundDelivery(target="x", id="msg_1", body=b"{}", media="application/json", secret=b"k" * 32)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": sign(letter, 1_700_000_000),
    }
    secret = "whsec_a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    assert known["good"](secret, headers, b"{}")
    assert not known["good"](secret, headers, b"{ }")
