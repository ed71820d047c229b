"""What stands before Gradio: only what the page needs passes, and nothing that names a file."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from kdkeras.app.upload import MAX_BYTES

_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

# Gradio also serves, takes and fetches files: the page has none, so all of that is closed.
_OPEN = re.compile(
    r"/$|/(config|theme\.css|favicon\.ico|manifest\.json)$|/(assets|static|svelte)/[\w./~@+-]*$"
    r"|/gradio_api/(queue/(join|data)|heartbeat/[\w-]+|startup-events|app_id|reset|cancel)$"
)
_LARGEST = int(MAX_BYTES * 4 / 3) + 2**16  # bytes of a request: a picture as base64 text, and what stands around it
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """ASGI middleware of the page.

    - Paths that the page does not need are refused, among them all that Gradio has for files.
    - Requests are refused whose `Host` is not where the page is served, or whose `Origin` is another site: no other
      page that the person visits can speak to this one.
    - What is posted is at most one picture's size, JSON, and names no file: Gradio would look where a "path" leads.
    - The browser is told to load nothing from elsewhere.

    Args:
        app: The ASGI application.
        hosts: Names and addresses by which the page may be reached; of none, by any.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Iterable[str] = ()) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else "There is nothing of that kind here."
        if refusal is None and scope["method"] == "POST":
            body = await _body(receive)
            refusal = _refusal_of_body(body)
            receive = _again(body, receive)
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await _refuse(send, refusal)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: _Message) -> str | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            return "The page is not served under that name."
        if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != host:
            return "Another site may not speak to this page."
        if scope["method"] not in ("GET", "HEAD", "POST") or ".." in scope["path"] or not _OPEN.match(scope["path"]):
            return "There is nothing here."
        return None


async def _body(receive: _Receive) -> bytes | None:
    """Return what was posted; `None` where it is too much."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > _LARGEST:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _refusal_of_body(body: bytes | None) -> str | None:
    if body is None:
        return f"A picture must have at most {MAX_BYTES // 2**20} MiB."
    if not body:
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return "What is posted must be JSON."
    return "No file can be named here." if _names_a_file(content) else None


def _names_a_file(content: Any) -> bool:
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "path" in each or "url" in each:
                return True
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return False


def _again(body: bytes | None, receive: _Receive) -> _Receive:
    """Return a `receive` that begins with a body that was read already."""
    waiting = [{"type": "http.request", "body": body or b"", "more_body": False}]

    async def again() -> _Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: _Send) -> _Send:
    async def sending(message: _Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


async def _refuse(send: _Send, why: str) -> None:
    body = why.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": [*headers, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
