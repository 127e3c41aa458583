"""Steps of a release, over HTTP."""

from __future__ import annotations

from typing import Any

from tests.conftest import eventually
from tests.live.site import Answer, Site
from tests.support.thermometer import THERMOMETER

PATH = "/api/v1/profiles/acme/th"
REFUSAL = """\
  - label: no JSON
    topic: TOPIC
    payload: "no JSON"
    refuse: malformed
"""


def version(number: int, *, scale: float = 0.1, topic: str = "acme/{device}/up") -> str:
    """Return a version of the thermometer that says tenths of a degree."""
    changed = THERMOMETER.replace("version: 1", f"version: {number}").replace("scale: 0.1", f"scale: {scale}")
    changed = changed.replace("value: 21.5", f"value: {215 * scale}").replace('"acme/{device}/up"', f'"{topic}"')
    here = topic.replace("{device}", "d1")
    return changed.replace("topic: acme/d1/up", f"topic: {here}") + REFUSAL.replace("TOPIC", here)


async def step(site: Site, path: str, token: str | None = None, expect: int = 200, **body: Any) -> Any:
    """Take a step; return the answer."""
    answer: Answer = await site.ask("POST", f"{PATH}{path}", token, json=body)
    assert answer.status == expect, answer.body
    return answer.body


async def proposed(site: Site, number: int, **more: Any) -> int:
    """Hand in a version and propose it."""
    made = await step(site, "/versions", text=version(number, **more), expect=201)
    assert made["problems"] == []
    await step(site, f"/versions/{number}/propose")
    return number


async def job(site: Site, path: str, token: str | None = None, **body: Any) -> dict[str, Any]:
    """Begin a job and wait for its end."""
    begun = await step(site, path, token, 202, **body)

    async def ended() -> dict[str, Any] | None:
        row: dict[str, Any] = (await site.ask("GET", f"{PATH}/jobs/{begun['id']}", token)).body
        return row if row["state"] != "running" else None

    result: dict[str, Any] = await eventually(ended)
    assert result["state"] == "done", result
    assert result["share"] == 1
    return result


async def in_force(node: Site) -> Any:
    return (await node.ask("GET", PATH)).body["version"]


async def version_is(node: Site, number: int) -> bool:
    return bool(await in_force(node) == number)
