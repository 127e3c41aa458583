"""First paint of the console: overview and lists as HTML that is readable without JavaScript.

What is shown comes from the routes of the public API, asked as the person whose session the browser sends; so nobody
sees more here than there. The scripts of the page then take its place. Somebody with a token signs in by script only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
import msgspec
from aiohttp import web
from yarl import URL

from sensegate.errors import NotFound, PermissionDenied, SensegateError
from sensegate.web import auth, problems
from sensegate.web.routing import API, Call, Route, check_call
from sensegate.web.sentences import read_sentences
from sensegate.web.sentences import translate as translate_sentence
from sensegate.web.session import open_by_form, set_session_cookie

_ROWS: Final = 50
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_TEXT = re.compile(rf'(?:"(?P<quoted>[\w.]+)"|\b(?P<bare>\w+)): \[(?P<en>{_STRING}), (?P<zh>{_STRING})\]')


class ListPage(msgspec.Struct, frozen=True):
    """Page that is one list of the public API."""

    name: str
    """Last part of its address."""
    source: str
    """Path of the API."""
    columns: tuple[str, ...]

    @property
    def path(self) -> str:
        """Address of the file."""
        return f"/console/{self.name}"

    @property
    def title(self) -> str:
        """Key of its title."""
        return f"page.{self.name or 'overview'}"


OVERVIEW = ListPage("", "", ())
LISTS: tuple[ListPage, ...] = (
    ListPage("devices", "devices", ("id", "name", "state", "last_seen", "division", "profile", "department")),
    ListPage("alarms", "alarms", ("title", "severity", "state", "device", "property", "value", "opened", "reason")),
    ListPage("quarantine", "quarantine", ("received", "reason", "topic", "device", "detail")),
    ListPage("profiles", "profiles", ("id", "version", "title", "format", "problem")),
    ListPage("feeds", "feeds", ("name", "description", "divisions", "domains", "properties")),
    ListPage("catalogue", "catalogue", ("title", "state", "sharing", "grade", "domain", "department", "code")),
    ListPage("applications", "applications", ("feeds", "state", "deadline", "applicant", "purpose", "days")),
    ListPage("grants", "grants", ("id", "feed", "state", "applicant", "purpose", "used", "expires")),
    ListPage("subscribers", "subscribers", ("subscriber", "feed", "delivery", "state", "lag_entries", "last")),
    ListPage("quality", "quality", ("device", "hour", "received", "accuracy", "continuity", "completeness")),
    ListPage("nodes", "nodes", ("member", "role", "state", "lag_entries", "devices", "version", "problems")),
    ListPage("tasks", "tasks", ("id", "device", "task", "state", "created", "by", "note")),
    ListPage("modes", "mode-orders", ("id", "plan", "place", "state", "by", "since", "until")),
    ListPage("people", "people", ("id", "title", "role", "duty", "scope", "department", "disabled")),
    ListPage("tokens", "tokens", ("name", "role", "scope", "expires", "created", "created_by", "revoked")),
    ListPage("audit", "audit", ("time", "actor", "action", "target")),
)
_BY_NAME: Final = {page.name: page for page in (OVERVIEW, *LISTS)}


class Section(msgspec.Struct, frozen=True):
    """Part of a page: sentences, or a table."""

    title: str = ""
    sentences: list[str] | None = None
    columns: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = []
    next: str = ""
    """Address of the next page of the list; empty: there is none."""


@cache
def read_texts() -> dict[str, dict[str, str]]:
    """Return the texts of the console by language, from the file that the browser reads too."""
    text = files("sensegate.web").joinpath("page", "console", "texts.js").read_text(encoding="utf-8")
    texts: dict[str, dict[str, str]] = {"en": {}, "zh-CN": {}}
    for match in _TEXT.finditer(text):
        key = match["quoted"] or match["bare"]
        english = json.loads(match["en"])
        if english:  # else the key's last part is the word
            texts["en"][key] = english
        texts["zh-CN"][key] = json.loads(match["zh"])
    return texts


def language_of(accepted: str) -> str:
    """Return the language of the console for an `Accept-Language` header."""
    return "zh-CN" if accepted.strip().lower().startswith("zh") else "en"


@cache
def _page_template() -> jinja2.Template:
    source = files("sensegate.web").joinpath("page", "console", "index.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(source)


class ConsolePages:
    """The console's pages as HTML."""

    def __init__(self, routes: Sequence[Route], call_of: Callable[[web.Request], Call]) -> None:
        """`call_of`: returns the call of a request."""
        self._routes = {route.path: route for route in routes if route.method == "GET"}
        self._call_of = call_of
        self._texts = read_texts()
        self._sentences = read_sentences()

    async def page(self, request: web.Request) -> web.Response:
        """Return a page of the console."""
        shown = _BY_NAME.get(request.match_info.get("page", "").rstrip("/"))
        me: dict[str, Any] | None = None
        try:
            me = await self._ask(request, "me", {})
        except SensegateError as why:
            if not isinstance(why, PermissionDenied):
                return self._render(request, shown, None, [], problem=str(why))
            return self._render(request, shown, None, [])
        try:
            sections = await self._sections(request, shown)
        except SensegateError as why:
            return self._render(request, shown, me, [], problem=str(why))
        return self._render(request, shown, me, sections)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Open a session from the form of the sign-in; lead to the overview."""
        form = await request.post()
        values = {name: str(form.get(name, "")) for name in ("name", "password", "new_password")}
        call = self._call_of(request)
        try:
            auth.demand_same_origin(request)
            text = await open_by_form(call, **values)
        except SensegateError as why:
            response = self._render(request, OVERVIEW, None, [], problem=str(why))
            response.set_status(problems.status_of(why))
            return response
        done = web.Response(status=303, headers={"Location": "/console/"})
        set_session_cookie(call, done, text)
        return done

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session of the form; lead to the sign-in."""
        form, call = await request.post(), self._call_of(request)
        people = call.deps.people
        auth.demand_same_origin(request)
        if people is None:
            raise NotFound("this gateway has no accounts of people")
        principal, session = people.verify(request.cookies.get(auth.cookie_name(call.deps), ""), used=True)
        if not session.is_csrf_token(str(form.get("csrf", ""))):
            raise PermissionDenied("the form has no CSRF token of this session; load the page again")
        await people.sign_out(principal)
        response = web.Response(status=303, headers={"Location": "/console/"})
        response.del_cookie(auth.cookie_name(call.deps), path="/", secure=call.deps.is_secure, httponly=True)
        return response

    # ── what a page shows ─────────────────────────────────────────────────────────────────────────────

    async def _ask(self, request: web.Request, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer of a route of the API to the caller of a request. Raises as that route."""
        url = URL(f"{API}/{path}" if path != "readyz" else "/readyz").with_query(dict(query))
        call, route = self._call_of(request.clone(method="GET", rel_url=url)), self._routes[url.path]
        check_call(call, route)
        answer = await route.handler(call)
        if isinstance(answer, web.Response):
            body = answer.body
            answered: dict[str, Any] = json.loads(body) if isinstance(body, bytes) else {}
            return answered
        plain: dict[str, Any] = msgspec.to_builtins(answer)
        return plain

    async def _sections(self, request: web.Request, shown: ListPage | None) -> list[Section]:
        if shown is None:  # a page without a first paint: its scripts draw it
            return []
        return await self._overview(request) if shown is OVERVIEW else [await self._list(request, shown)]

    async def _list(self, request: web.Request, shown: ListPage) -> Section:
        route = self._routes[f"{API}/{shown.source}"]
        known = {param.name for param in route.query}
        wanted = {name: value for name, value in request.query.items() if name in known}
        answer = await self._ask(request, shown.source, {**wanted, "limit": str(_ROWS)} if "limit" in known else wanted)
        following = answer.get("next", "")
        link = f"{shown.path}?{urlencode({**wanted, 'after': following})}" if following else ""
        return Section(columns=shown.columns, rows=answer["rows"][:_ROWS], next=link)

    async def _overview(self, request: web.Request) -> list[Section]:
        ready = await self._ask(request, "readyz", {})
        sections = [Section("needsYou", [*ready["reasons"], *ready["warnings"]])]
        for title, source, query, columns in (
            ("page.alarms", "alarms", {"state": "open"}, ("title", "severity", "device", "opened", "reason")),
            ("page.nodes", "nodes", {}, ("member", "role", "state", "lag_entries", "devices", "problems")),
        ):
            try:
                answer = await self._ask(request, source, query)
            except SensegateError:
                continue  # what the caller may not see is left out
            sections.append(Section(title, columns=columns, rows=answer["rows"][:_ROWS]))
        try:
            ledger = await self._ask(request, "ledger", {"since": "24h", "by": "reason"})
        except SensegateError:
            return sections
        rows = [{"kind": row["reason"], "count": row["count"]} for row in ledger["rows"]]
        return [*sections, Section("flowOf24h", columns=("kind", "count"), rows=rows)]

    def _render(
        self,
        request: web.Request,
        shown: ListPage | None,
        me: dict[str, Any] | None,
        sections: list[Section],
        *,
        problem: str = "",
    ) -> web.Response:
        deps = self._call_of(request).deps
        texts = self._texts[language_of(request.headers.get("Accept-Language", ""))]

        def translate(key: str, *values: str) -> str:
            text = texts.get(key) or self._texts["en"].get(key) or key.rpartition(".")[2].replace("_", " ")
            for place, value in enumerate(values):
                text = text.replace(f"{{{place}}}", value)
            return text

        def sentence(text: str) -> str:
            return translate_sentence(text, self._sentences) if texts is self._texts["zh-CN"] else text

        def cell(column: str, value: object) -> str:
            if value is None or value == "":
                return "–"
            if isinstance(value, list):
                return ", ".join(sentence(str(item)) for item in value) or "–"
            if column in {"state", "severity", "role", "reason"} and isinstance(value, str):
                prefix = "state" if column == "severity" else column
                return translate(f"{prefix}.{value}") if f"{prefix}.{value}" in texts else sentence(value)
            if column == "kind" and isinstance(value, str):
                return translate(f"kind.{value.partition('.')[0]}") + value[value.find(".") :] * ("." in value)
            if column == "title":
                return sentence(str(value))
            return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

        session = deps.people.sessions.find_id(self._session_id(request)) if deps.people and me else None
        body = _page_template().render(
            language="zh-CN" if texts is self._texts["zh-CN"] else "en",
            t=translate,
            cell=cell,
            sentence=sentence,
            title=shown.title if shown else "page.overview",
            path=shown.path if shown else "",
            pages=[OVERVIEW, *LISTS],
            me=me,
            csrf=session.csrf if session else "",
            sections=sections,
            problem=problem,
            has_people=deps.people is not None,
            has_provider=deps.oidc is not None,
        )
        return web.Response(text=body, content_type="text/html", headers={"Vary": "Cookie, Accept-Language"})

    def _session_id(self, request: web.Request) -> str:
        call = self._call_of(request)
        call.identify()
        return call.principal.session
