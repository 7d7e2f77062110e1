"""Access control: requests must come from this machine, to our own host name, with the key that the command printed.

Otherwise anything that reaches the port could act with the operator's credentials: another account on this machine, or
another site's page in the same browser (DNS rebinding, cross-site requests). So each request needs our Host and the
key, as a cookie or bearer token. A change also needs a token from the page, since browsers send cookies by themselves.

The cookie is lax, so that a link to a run in a chat, in Grafana or in Django's admin opens it: the site with the link
cannot read the page, and no page changes anything when it is opened.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN = ("/healthz",)
SAFE = ("GET", "HEAD")


@dataclass(slots=True)
class Guard:
    """Middleware. `key` opens the page; `token` proves that the page itself requested a change.

    `once` opens it once: every account on this machine can read the address on a browser's command line.
    """

    app: ASGIApp
    port: int
    key: str
    once: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["token"] = self.token

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        port = "" if self.port == 80 else f":{self.port}"  # browsers leave 80 out
        origins = [f"http://{name}{port}" for name in ("127.0.0.1", "localhost")]
        if f"http://{headers.get('host', '')}" not in origins:
            return PlainTextResponse("This page is served only as 127.0.0.1 and localhost.", 421)
        if scope["path"] in OPEN:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        if scope["method"] in SAFE and (given := dict(query).get("key")):
            return self._admit(given, scope["path"], [(name, value) for name, value in query if name != "key"])
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if _same(bearer, self.key):
            return None  # a program: no browser sends this on its own
        # Starlette's reader skips what another server on this machine has set and the standard library cannot read.
        if not _same(HTTPConnection(scope).cookies.get(self._name, ""), self.key):
            return PlainTextResponse("Open the address that `nexus web` printed: it has the key.", 403)
        if scope["method"] in SAFE:
            return None
        if headers.get("origin", origins[0]) not in origins or not _same(headers.get("x-nexus-token", ""), self.token):
            return PlainTextResponse("This request did not come from a page of this process. Reload the page.", 403)
        return None

    def _admit(self, given: str, path: str, query: list[tuple[str, str]]) -> Response:
        if self.once and _same(given, self.once):
            self.once = ""
        elif not _same(given, self.key):
            return PlainTextResponse("This key belongs to another process, or was used. `nexus web` printed one.", 403)
        # One slash: two would redirect to another host.
        to = "/" + path.lstrip("/") + (f"?{urlencode(query)}" if query else "")
        response = RedirectResponse(to, 303)
        response.set_cookie(self._name, self.key, httponly=True, samesite="lax")
        return response

    @property
    def _name(self) -> str:
        """The cookie's name. Cookies ignore ports, so two processes on one machine need different names."""
        return f"nexus-{self.port}"


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())
