"""A grant got by REST alone: a feed, its entry, an application, a decision."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.live.site import Site


class Granted(msgspec.Struct):
    """What a subscriber holds."""

    id: str
    token: str
    token_id: str
    feed: str


async def granted(site: Site, feed: str, *, divisions: tuple[str, ...] = ("4401",), **decision: Any) -> Granted:
    """Make a feed, unless it is there, and a grant of it to a new subscriber of another city."""
    answer = await site.ask("POST", "/api/v1/feeds", json={"name": feed, "divisions": list(divisions)})
    assert answer.status in {201, 409}, answer.body
    path = f"/api/v1/catalogue/{feed}"
    entry = await site.ask("GET", path)
    etag = {"If-Match": str(entry.body["revision"])} if entry.body["revision"] else {}
    assert (await site.ask("PATCH", path, json=ENTRY, headers=etag)).status == 200
    token, token_id = await site.token("subscriber", divisions[0])
    wish = {"feeds": [feed], "purpose": "test", "legal_basis": "test", "days": 30}
    made = await site.ask("POST", "/api/v1/applications", token, json=wish)
    assert made.status == 201, made.body
    done = await site.ask(
        "POST", f"/api/v1/applications/{made.body['id']}/decision", json={"approve": True, **decision}
    )
    assert done.status == 200, done.body
    return Granted(done.body["grants"][0], token, token_id, feed)


ENTRY = {
    "title": "廣州空氣溫度",
    "title_en": "Air temperature of Guangzhou",
    "department": "廣州市氣象局",
    "source": "自動站",
    "update": "每分鐘",
    "quality": "QX/T 45",
    "usage": "研究",
    "conditions": "說明用途",
    "legal_basis": "國務院令第809號",
    "grade": 3,
    "domain": "air",
    "kind": "theme",
    "cadence": "realtime",
}
