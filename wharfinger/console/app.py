"""The console's pages: server-rendered, each with a `.json` twin, behind a token that the admin's status shows.

Read-only. A browser has no SVID, so the console listens on loopback alone and asks for a token that stands in the
state directory (mode 0600); the cookie it sets is HttpOnly, Secure and SameSite=Strict. It is served over TLS with the
console's own SVID, whose authority a browser does not know: it warns once, or is given `ca.pem` of the state directory.
No page loads anything from elsewhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from wharfinger.console import views
from wharfinger.core.clock import Clock

_HERE = Path(__file__).parent
COOKIE = "wharf_console"
PAGES = ("overview", "gpus", "tenants", "models", "decisions", "usage")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Reader(Protocol):
    """Where the console reads: the cluster's objects and the parts' journals."""

    def objects(self) -> views.Objects:
        """Return every object that the pages show, by plural."""
        ...

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        """Return the newest decision records of every part."""
        ...

    def tokens(self) -> Iterable[Mapping[str, Any]]:
        """Return the newest settled token accounts: `at`, `tenant`, `tokens`, `ttftMilliseconds`."""
        ...

    def faults(self) -> Sequence[str]:
        """Return what of the evidence cannot be read, and where."""
        ...


def app(reader: Reader, token: str, clock: Clock) -> Starlette:
    """Return the console over `reader`, for whoever shows `token`."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters["brief"] = views.brief

    def data(page: str, only: str) -> dict[str, Any]:
        now = clock.now()
        if page == "overview":
            return views.overview(reader.objects(), reader.decisions(), reader.tokens(), reader.faults(), now)
        if page == "gpus":
            return views.gpus(reader.objects())
        if page == "tenants":
            return views.tenants(reader.objects(), _last_minute(reader.tokens(), now))
        if page == "models":
            return views.models(reader.objects())
        if page == "decisions":
            return views.decisions(reader.decisions(), only)
        return views.usage(reader.tokens(), now)

    def page(name: str) -> Callable[[Request], Awaitable[Response]]:
        template = templates.get_template(f"{name}.html")

        async def html(request: Request) -> Response:
            if (answer := _admit(request, token)) is not None:
                return answer
            shown = await run_in_threadpool(data, name, request.query_params.get("only", ""))
            body = template.render(data=shown, page=name, pages=PAGES)
            return HTMLResponse(body, headers=_HEADERS)

        return html

    def twin(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def json(request: Request) -> Response:
            if (answer := _admit(request, token)) is not None:
                return answer
            shown = await run_in_threadpool(data, name, request.query_params.get("only", ""))
            return JSONResponse(shown, headers=_HEADERS)

        return json

    async def home(_: Request) -> Response:
        return RedirectResponse("/overview")

    routes: list[Route | Mount] = [Route("/", home)]
    for name in PAGES:
        routes += [Route(f"/{name}", page(name)), Route(f"/{name}.json", twin(name))]
    routes.append(Mount("/static", StaticFiles(directory=_HERE / "static")))
    return Starlette(routes=routes)


def _admit(request: Request, token: str) -> Response | None:
    """Return the answer to a request without the token; None lets it in."""
    offered = request.query_params.get("token")
    if offered is not None:
        if not hmac.compare_digest(offered.encode(), token.encode()):
            return _refusal()
        answer = RedirectResponse(request.url.path, status_code=303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=True, path="/")
        return answer
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    for shown in (request.cookies.get(COOKIE, ""), bearer):
        if hmac.compare_digest(shown.encode(), token.encode()):
            return None
    return _refusal()


def _refusal() -> Response:
    return Response(
        "This console wants its token: open the address that `wharf status` shows.\n",
        status_code=401,
        media_type="text/plain",
        headers=_HEADERS,
    )


def _last_minute(records: Iterable[Mapping[str, Any]], now: int) -> dict[str, int]:
    shown: dict[str, int] = {}
    for record in records:
        if views.is_recent(record, now):
            tenant = str(record.get("tenant", ""))
            shown[tenant] = shown.get(tenant, 0) + int(record.get("tokens", 0))
    return shown
