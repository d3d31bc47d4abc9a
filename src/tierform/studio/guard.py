"""Who may ask the studio: only its own page, from this machine, with the token of its start address.

Listening on the loopback address alone is no protection: any page in the browser can reach it, also under a name of
its own that it points there (DNS rebinding).  So each request must name this server as its host, must not come from
another origin, and must carry the token, which is in no address that a browser sends.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tierform.units import whole_number

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY = 1_000_000
TOKEN = "x-tierform-token"
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Lets through what comes from the studio's own page; everything else is refused before anything is read."""

    def __init__(self, app: App, *, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", []) if pair[0] not in dict(HEADERS)]
                message["headers"] = [*kept, *HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(sealed, *refusal)
            return
        body = await _body(receive)
        if body is None:
            await _answer(sealed, 413, "the body is larger than 1 MB")
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, sealed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if len(host) != 1 or host[0].lower() not in self._hosts:
            return 421, "this server does not answer to that name"
        own = {f"http://{name}" for name in self._hosts}
        if any(origin.lower() not in own for origin in headers.get("origin", [])):
            return 403, "a page of another origin asked"
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return 403, "another site asked"
        if scope["method"] not in ("GET", "HEAD", "POST", "DELETE"):
            return 405, "this method is not known"
        if scope["path"].startswith("/api/"):
            token = (headers.get(TOKEN) or [""])[0]
            if not secrets.compare_digest(token.encode(), self._token.encode()):
                return 401, "the token of the start address is missing or wrong"
        if scope["method"] == "POST":
            kind = (headers.get("content-type") or [""])[0].partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "only application/json is read"
        length = (headers.get("content-length") or ["0"])[0]
        size = whole_number(length)
        if size is None or size > MOST_BODY:
            return 413, "the body is larger than 1 MB"
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where it is too large, whatever its length header said."""
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(found)
        found += message.get("body", b"")
        if len(found) > MOST_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(found)


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
