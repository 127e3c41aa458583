"""The console in a real browser without a gateway: its files from the folder, answers of the gateway from a table."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sensegate.authority.scope import Action
from sensegate.web import app

STATIC = Path(app.__file__).parent / "page"
ME = "li-id"
"""Id of whoever looks at the page."""
ORIGIN = "http://console.test"
FRAME = """<!doctype html><html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/static/console/console.css"><script src="/static/console/app.js" type="module"></script>
<div id="app"></div></html>"""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Failure:
    """An answer that is a problem document."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail


class Sent(NamedTuple):
    """A request that changes something."""

    method: str
    path: str
    body: Any
    revision: str


class Drawn:
    """A page of the console, the paths that it has asked for, the changes it has sent, the errors of its scripts."""

    def __init__(self, page: Any, answers: Mapping[str, Any]) -> None:
        self.page = page
        self.answers = dict(answers)
        self.asked: list[str] = []
        self.sent: list[Sent] = []
        self.faults: list[str] = []

    async def answer(self, route: Any) -> None:
        """Serve a file, or the answer of the longest pattern that matches (of its path, if it is callable), or 404."""
        path = route.request.url.removeprefix(ORIGIN)
        if path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            await route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])
        elif path == "/":
            await route.fulfill(body=(STATIC / "index.html").read_bytes(), content_type="text/html")
        elif path.startswith("/console"):
            await route.fulfill(body=FRAME, content_type="text/html")
        else:
            self.asked.append(path)
            if (method := route.request.method) != "GET":
                revision = route.request.headers.get("if-match", "")
                self.sent.append(Sent(method, path, route.request.post_data_json, revision))
            patterns = [pattern for pattern in self.answers if fnmatch.fnmatchcase(path, pattern)]
            answer = self.answers[max(patterns, key=len)] if patterns else None
            if callable(answer):
                answer = answer(path)
            if isinstance(answer, Failure):
                problem = {"title": "failed", "status": answer.status, "detail": answer.detail}
                await route.fulfill(status=answer.status, json=problem)
            elif patterns:
                await route.fulfill(json=answer)
            else:
                await route.fulfill(status=404, json={"title": "not found", "status": 404})

    async def text(self) -> str:
        """Return the text of the page, once nothing is loading."""
        await self.page.wait_for_selector("main h1")
        await self.page.wait_for_selector(".loading", state="detached")
        text: str = await self.page.inner_text("main")
        return text


@asynccontextmanager
async def drawn(
    browser: Any,
    path: str,
    answers: Mapping[str, Any],
    *,
    role: str = "node",
    language: str = "zh-CN",
    width: int = 1440,
) -> AsyncIterator[Drawn]:
    """Open a page of the console in China's time zone, as an administrator of a node (4401) or of a centre (44)."""
    division = "44" if role == "centre" else "4401"
    me = {
        "name": "li",
        "role": "admin",
        "scope": division,
        "department": "",
        "rights": [action.value for action in Action],
    }
    me |= {"id": ME, "gateway_role": role, "gateway_division": division}
    context = await browser.new_context(
        locale=language, timezone_id="Asia/Shanghai", viewport={"width": width, "height": 900}
    )
    try:
        page = await context.new_page()
        page.set_default_timeout(10_000)
        shown = Drawn(page, {"/api/v1/me": me, **answers})
        page.on("pageerror", lambda why: shown.faults.append(str(why)))
        await page.add_init_script("sessionStorage.setItem('token', 'sg_test')")
        await page.route("**/*", shown.answer)
        await page.goto(f"{ORIGIN}/console/{path}")
        yield shown
        assert shown.faults == []
    finally:
        await context.close()
