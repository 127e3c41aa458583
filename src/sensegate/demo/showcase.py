"""Sample content of a gateway: catalogue entries, applications, a grant, alarm rules, an account.

So that each page of the console has something to show from the first minute on.
"""

from __future__ import annotations

from typing import Any

from sensegate.demo.city import CityMember
from sensegate.web.client import GatewayClient

_FEEDS = (
    ("air", "air", "大气环境监测数据", "Air quality", "生态环境局", ["pm2_5", "pm10", "no2"]),
    ("water", "water", "河道水位数据", "Water levels of rivers", "水务局", ["water_level"]),
)
_RULES: dict[str, dict[str, Any]] = {
    "water-high": {"kind": "threshold", "property": "water_level", "above": 3.0, "margin": 0.2, "severity": "critical"},
    "pm2-5-high": {"kind": "threshold", "property": "pm2_5", "above": 45.0, "margin": 5.0, "title": "PM2.5 偏高"},
    "silent": {"kind": "silence", "after_s": 120.0, "title": "设备静默"},
}


_ROLES = {2: "province_operator", 4: "city_operator"}


async def _publish(remote: GatewayClient, division: str) -> list[str]:
    """Create the feeds with their catalogue entries; return their names."""
    names: list[str] = []
    for name, domain, title, title_en, department, properties in _FEEDS:
        feed = f"{name}-{division}"
        await remote.post("/api/v1/feeds", {"name": feed, "divisions": [division], "properties": properties})
        entry = {
            "title": title,
            "title_en": title_en,
            "department": department,
            "source": "自动监测站",
            "update": "实时",
            "quality": "逐条质量标识",
            "usage": "联合研判",
            "conditions": "说明用途",
            "legal_basis": "政务信息资源共享管理暂行办法",
            "grade": 3,
            "domain": domain,
            "kind": "theme",
            "cadence": "realtime",
        }
        await remote.patch(f"/api/v1/catalogue/{feed}", entry, 0)
        names.append(feed)
    return names


async def prepare(member: CityMember) -> None:
    """Add the entries, an application that waits, a grant with a mask, rules of alarms and an account to a gateway."""
    async with GatewayClient(member.url, member.token) as remote:
        feeds = await _publish(remote, member.division)
        token = await remote.post(
            "/api/v1/tokens", {"role": "subscriber", "scope": member.division, "name": "应急管理局 (emergency bureau)"}
        )
        for name, rule in _RULES.items():
            await remote.put(f"/api/v1/alarm-rules/{name}", rule)
        await remote.post(
            "/api/v1/people",
            {"id": "lin.wei", "role": _ROLES[len(member.division)], "scope": member.division, "title": "林薇"},
        )
        async with GatewayClient(member.url, token["token"]) as bureau:
            wishes = [
                await bureau.post(
                    "/api/v1/applications",
                    {"feeds": [feed], "purpose": "防汛联合研判", "legal_basis": "突发事件应对法", "days": 90},
                )
                for feed in feeds
            ]
        # The first is approved, the second waits on the desk.
        await remote.post(
            f"/api/v1/applications/{wishes[0]['id']}/decision", {"approve": True, "mask": {"hash": ["device"]}}
        )
