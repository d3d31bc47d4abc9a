"""``tierform store serve``: every precision of a store as its own safetensors file over HTTP, from one copy.

Paths: ``/`` lists the windows as JSON; ``/bits-6/model.safetensors`` is the model at 6 bits in its own types;
``/planes-6/model.safetensors`` has its plane rows; both take single byte ranges.  Attached files (configuration,
tokenizer) stand beside each.  Only GET and HEAD; only these names; no file system is reachable.  Every answer has an
entity tag made of the store's checksums, so that a download goes on only on the same bytes (If-Range), and a copy is
asked for only if it changed (If-None-Match).  Each connection has a thread; a request's head must arrive within the
timeout, and a client that takes nothing of an answer for that long is cut off, however slow the others are.  Above the
limit of connections a client gets 503.  Bound to loopback unless told.
Limits: no encryption, no accounts: on an open network a server with TLS stands in front of it.
Sources: RFC 9110 (HTTP semantics, range requests, preconditions), RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tierform.errors import TierformError, fail
from tierform.store.windows import VIEWS, View, Window
from tierform.store.writer import METADATA_NAME

if TYPE_CHECKING:
    from tierform.store.reader import Fill, Store

PIECE_BYTES = 4 * 2**20  # decoded and sent at a time: what one connection holds in memory
SEND_BYTES = 256 * 2**10  # handed to the system at a time: a client that takes some of it makes progress
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_PATH = re.compile(r"/(bits|planes)-([1-9]\d?)/([A-Za-z0-9_][A-Za-z0-9._-]*)")


class StoreServer(ThreadingHTTPServer):
    """Serves one open store; ``serve_forever`` as any standard server."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        store: Store,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        fill: Fill = "midpoint",
        connections: int = 64,
        timeout_s: float = 20.0,
    ) -> None:
        """`timeout_s` bounds each wait for a client, so a slow one costs a thread for that long at most."""
        self.store, self.fill, self.timeout_s = store, fill, timeout_s
        self._free = threading.BoundedSemaphore(connections)
        self.deadlines: dict[socket.socket, float] = {}
        self.most_bits = max((entry.element.planes for entry in store.entries.values()), default=1)
        self.window = lru_cache(maxsize=160)(self._window)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            fail(f"cannot listen: {error}", key="address", value=f"{host}:{port}")

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _window(self, view: View, bits: int) -> Window:
        return Window(self.store, bits, view, self.fill)

    def service_actions(self) -> None:
        """Twice a second: cut off clients whose request has not arrived in time, however they drip it."""
        now = time.monotonic()
        for connection, deadline in list(self.deadlines.items()):
            if now > deadline:
                self.deadlines.pop(connection, None)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or refuse it with 503 when too many are open."""
        if not self._free.acquire(blocking=False):
            try:
                request.settimeout(1.0)
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except OSError:
                pass
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away or stalls is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: StoreServer
    protocol_version = "HTTP/1.1"
    server_version = "tierform-store"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.timeout_s)

    def handle_one_request(self) -> None:
        """Read one request, whose head must be whole within the server's timeout, and answer it."""
        self.server.deadlines[self.connection] = time.monotonic() + self.server.timeout_s
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True
        finally:
            self.server.deadlines.pop(self.connection, None)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet: requests are not logged."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.deadlines.pop(self.connection, None)  # the head is here; each write has its own timeout
        lengths = self.headers.get_all("Content-Length", ["0"])
        if [one.strip() for one in lengths] not in ([""], ["0"]) or self.headers.get("Transfer-Encoding") is not None:
            self.close_connection = True  # a body is not read, so nothing after it can be
            self._text(HTTPStatus.BAD_REQUEST, "a request has no body, and states one length at most", body)
            return
        try:
            path = unquote(self.path.split("?", 1)[0], errors="strict")
        except UnicodeDecodeError:
            path = ""
        try:
            if path == "/":
                self._json(self._listing(), body)
                return
            match = _PATH.fullmatch(path)
            if match is None or int(match.group(2)) > self.server.most_bits:
                self._text(HTTPStatus.NOT_FOUND, "no such window; / lists them", body)
                return
            name = match.group(3)
            store = self.server.store
            if name == "model.safetensors":
                view, bits = VIEWS[0] if match.group(1) == "bits" else VIEWS[1], int(match.group(2))
                tag = f'"{store.header.directory_xxh64:016x}-{view}-{bits}-{self.server.fill}"'
                if not self._settled(tag):
                    self._ranged(self.server.window(view, bits), tag, body)
            elif name in store.attachments and name != METADATA_NAME:
                tag = f'"{store.attachments[name].xxh64:016x}"'
                if not self._settled(tag):
                    self._bytes(store.attachment(name), "application/octet-stream", body, tag=tag)
            else:
                self._text(HTTPStatus.NOT_FOUND, "no such file", body)
        except TierformError as error:
            self.close_connection = True
            self._text(HTTPStatus.INTERNAL_SERVER_ERROR, f"the store is damaged: {error}", body)

    def _listing(self) -> dict[str, object]:
        store, most = self.server.store, self.server.most_bits
        windows = [
            {"bits": bits, "view": view, "path": f"/{word}-{bits}/model.safetensors"}
            for view, word in zip(VIEWS, ("bits", "planes"), strict=True)
            for bits in range(1, most + 1)
        ]
        files = [name for name in store.attachments if name != METADATA_NAME]
        return {"schema": "tierform.store-windows/1", "tensors": len(store), "windows": windows, "files": files}

    def _settled(self, tag: str) -> bool:
        """Whether a precondition answers the request without the content (304, 412)."""
        wanted, known = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if wanted is not None and not _matches(tag, wanted):
            self._text(HTTPStatus.PRECONDITION_FAILED, "the store has changed", body=self.command == "GET")
            return True
        if known is not None and _matches(tag, known.replace("W/", "")):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", tag)
            self.end_headers()
            return True
        return False

    def _ranged(self, window: Window, tag: str, body: bool) -> None:
        condition = self.headers.get("If-Range")
        same = condition is None or condition.strip() == tag
        found = parse_range(self.headers.get("Range") if same else None, window.size)
        if found is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{window.size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end, partial = found
        first = window.read(start, min(start + PIECE_BYTES, end)) if body else b""  # damage shows before the headers
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(end - start))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{window.size}")
        self.end_headers()
        if not body:
            return
        self._send(first)
        for at in range(start + PIECE_BYTES, end, PIECE_BYTES):
            try:
                piece = window.read(at, min(at + PIECE_BYTES, end))
            except TierformError:
                self.close_connection = True  # the promised length is not reached: the client sees the break
                return
            self._send(piece)

    def _send(self, content: bytes | memoryview) -> None:
        """Send, with the timeout beginning anew whenever the client takes something."""
        left = memoryview(content).cast("B")
        while left:
            left = left[self.connection.send(left[:SEND_BYTES]) :]

    def _json(self, content: object, body: bool) -> None:
        self._bytes(json.dumps(content).encode(), "application/json", body)

    def _text(self, status: HTTPStatus, text: str, body: bool) -> None:
        self._bytes(text.encode() + b"\n", "text/plain; charset=utf-8", body, status)

    def _bytes(
        self, content: bytes, kind: str, body: bool, status: HTTPStatus = HTTPStatus.OK, *, tag: str | None = None
    ) -> None:
        self.send_response(status)
        if tag is not None:
            self.send_header("ETag", tag)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self._send(content)


def _matches(tag: str, condition: str) -> bool:
    return condition.strip() == "*" or tag in [one.strip() for one in condition.split(",")]


def parse_range(text: str | None, size: int) -> tuple[int, int, bool] | None:
    """(start, end, partial) of a Range header over `size` bytes; None when it cannot be met (status 416).

    A header that is not a byte range is ignored, as RFC 9110 says; several ranges in one are refused.
    """
    if text is None or not text.strip().lower().startswith("bytes"):
        return 0, size, False
    match = _RANGE.fullmatch(text.strip().replace(" ", ""))
    if match is None or (not match.group(1) and not match.group(2)):
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        start, end = size - _clamped(last, size), size
    else:
        start, end = _clamped(first, size), (min(_clamped(last, size) + 1, size) if last else size)
    return (start, end, True) if start < end else None


def _clamped(digits: str, size: int) -> int:
    """The number, at most `size`, however many digits it has."""
    digits = digits.lstrip("0")
    return min(int(digits or "0"), size) if len(digits) < 20 else size
