# SPDX-License-Identifier: Apache-2.0
"""
Serve metrics over HTTP: `/metrics` and `/healthz`.

The standard library parses requests, after the whole head was read within a deadline: neither a slow client
nor garbage occupies the server for longer. If there are too many clients, the one that has been slow for the
longest time is disconnected. One reading at a time runs, and all clients that asked before it began share it.

A page in a browser can let a name of its own mean 127.0.0.1, and would then read answers from there. A server
that listens on this machine only therefore answers only requests whose header Host names this machine.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from buildtool.core.errors import BuildtoolError, UsageError, first_line, system_reason
from buildtool.core.text import escape, quote

log = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:9435"
MAX_CLIENTS = 256
MAX_HEAD_BYTES = 16384
GRACE_SECONDS = 1.0  # in which no client is disconnected for being slow
HEAD_SECONDS = 5.0
SEND_SECONDS = 10.0
_BACKLOG = 1024  # a thousand clients may connect at once, and wait
_ENDS = (b"\r\n\r\n", b"\n\n")
_LISTEN_HINT = f"write ADDRESS:PORT: {DEFAULT_LISTEN}, 0.0.0.0:9435 for every interface, [::1]:9435"

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]*)?", re.ASCII)
_HOST_TEXT = b"Host: not a name of this machine: use 127.0.0.1, [::1] or localhost\n"

# Returns text and media type in the format that the header Accept asks for.
Render = Callable[[str], tuple[bytes, str]]


def parse_listen(text: str) -> tuple[str, int]:
    """
    Return address and port of *text*.

    Raises: UsageError.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_number = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16
    if not is_number or not bare or (":" in bare and bare == host):
        raise UsageError(f"{quote(text)}: not an address and a port", hint=_LISTEN_HINT)
    return bare, int(port)


def is_loopback_address(address: str) -> bool:
    """Return whether *address* is a number that means this machine, such as 127.0.0.1, ::1 or 127.0.0.2."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def names_this_machine(host: str) -> bool:
    """Return whether the header Host with the text *host* is localhost or a loopback address, at any port."""
    found = _HOST.fullmatch(host.strip().lower())
    return found is not None and (found[1] == "localhost" or is_loopback_address(found[1].strip("[]")))


class _Shared:
    """Runs readings one after the other. Who waited for one that began later gets its result."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._lock = threading.Lock()
        self._results: dict[str, tuple[float, tuple[bytes, str]]] = {}
        self.problem = ""

    def read(self, accept: str) -> tuple[bytes, str]:
        """Return the text of a reading that began after this call. Raises: BuildtoolError."""
        asked = time.monotonic()
        with self._lock:
            began, result = self._results.get(accept, (-1.0, (b"", "")))
            if began >= asked:
                return result
            began = time.monotonic()
            try:
                result = self._render(accept)
            except BuildtoolError as error:
                self.problem = error.message
                raise
            except Exception as error:
                # Whatever it is, the client gets an answer, and /healthz does not say that all is well.
                cause = system_reason(error) if isinstance(error, OSError) else first_line(error)
                self.problem = f"metrics: cannot read: {cause}"
                log.debug("a reading failed: %r", error)
                raise BuildtoolError(self.problem) from error
            self.problem = ""
            self._results = {accept: (began, result)}
            return result


class _Clients:
    """The connections that are served, the oldest first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slow: dict[socket.socket, float] = {}  # the time since when the server waits for each
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def waiting(self) -> int:
        """The number of clients for which the server waits."""
        return len(self._slow)

    def enter(self, client: socket.socket) -> None:
        """Add *client*, once there is room. Disconnect the slowest client if there is none."""
        with self._changed:
            while self._count >= MAX_CLIENTS:
                slowest = next(iter(self._slow), None)
                left = None if slowest is None else self._slow[slowest] + GRACE_SECONDS - time.monotonic()
                if slowest is None or (left is not None and left > 0):
                    self._changed.wait(left)
                    continue
                del self._slow[slowest]
                _disconnect(slowest)
                self._changed.wait(GRACE_SECONDS)
            self._count += 1
            self._slow[client] = time.monotonic()

    def wait_for_reading(self, client: socket.socket) -> None:
        """Note that *client* waits for the server and is not slow itself."""
        with self._changed:
            self._slow.pop(client, None)

    def wait_for_client(self, client: socket.socket) -> None:
        """Note that the server waits for *client* again."""
        with self._changed:
            self._slow[client] = time.monotonic()

    def leave(self, client: socket.socket) -> None:
        """Remove *client*."""
        with self._changed:
            self._slow.pop(client, None)
            self._count -= 1
            self._changed.notify()


def _line(text: str) -> bytes:
    """Return *text*, which may name a directory of any bytes, as one line of UTF-8."""
    return f"{escape(text)}\n".encode()


def _disconnect(client: socket.socket) -> None:
    """End what the thread of *client* waits for."""
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone already


class MetricsServer(ThreadingMixIn, TCPServer):
    """
    Serves what *render* returns at *host* and *port*; 0 chooses a port.

    Raises: UsageError, for an address that cannot be used.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = _BACKLOG

    def __init__(self, render: Render, host: str, port: int) -> None:
        self.shared = _Shared(render)
        self.clients = _Clients()
        self.checks_host = False
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"{host}:{port}: cannot listen: {system_reason(error)}", hint=_LISTEN_HINT
            ) from error
        self.checks_host = is_loopback_address(self.socket.getsockname()[0])

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        number: int = self.socket.getsockname()[1]
        return number

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for *request*."""
        self.clients.enter(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.clients.leave(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve *request*."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.clients.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log what a client caused. Nothing that a client does ends the server."""
        log.debug("a request failed: %r", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes the connection."""

    server: MetricsServer
    server_version = "buildtool"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def handle(self) -> None:
        """Read the head of the request within its deadline, then let the standard library parse it."""
        head = self._read_head()
        if head is None:
            return
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.connection.settimeout(SEND_SECONDS)
        try:
            self.handle_one_request()
        except OSError as error:
            log.debug("%s: cannot answer: %s", self.client_address[0], system_reason(error))

    def _read_head(self) -> bytes | None:
        """Return the bytes up to the first empty line, or None from a client that is slow or has gone."""
        deadline = time.monotonic() + HEAD_SECONDS
        data = b""
        try:
            while not any(end in data for end in _ENDS) and len(data) <= MAX_HEAD_BYTES:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self.connection.settimeout(left)
                piece = self.connection.recv(4096)
                if not piece:
                    return data or None
                data += piece
        except OSError:
            return None
        return data

    def do_GET(self) -> None:
        """Answer GET and HEAD."""
        hosts = self.headers.get_all("Host", [])
        if self.server.checks_host and not (len(hosts) == 1 and names_this_machine(hosts[0])):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, _HOST_TEXT)
            return
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self.server.clients.wait_for_reading(self.connection)
            # A header that is continued on another line has line feeds, and parts of it are in the answer.
            accept = self.headers.get("Accept", "")
            try:
                text, media_type = self.server.shared.read(accept if accept.isprintable() else "")
            except BuildtoolError as error:
                log.warning("%s", escape(error.message))
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, _line(error.message))
                return
            self._answer(HTTPStatus.OK, text, media_type)
        elif path == "/healthz":
            problem = self.server.shared.problem
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            self._answer(status, _line(problem or "ok"))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/metrics and /healthz are here\n")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, status: HTTPStatus, body: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        self.server.clients.wait_for_client(self.connection)
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.connection.sendall(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log requests for --verbose only: their text is a stranger's."""
        log.debug("%s: %s", self.client_address[0], quote(format % args))
