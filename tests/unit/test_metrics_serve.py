# SPDX-License-Identifier: Apache-2.0
"""The server of metrics: neither garbage nor slow clients stop it, and a thousand clients are answered."""

from __future__ import annotations

import random
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from labs.run import WAIT_SECONDS, wait_until

from buildtool.core.errors import FileAccessError, UsageError
from buildtool.metrics import serve
from buildtool.metrics.serve import MetricsServer, parse_listen

BODY = b"# HELP x_total x\n# TYPE x_total counter\nx_total 1.0\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Render:
    """Counts readings, and fails on request."""

    def __init__(self, body: bytes = BODY) -> None:
        self.readings: list[str] = []
        self.body, self.error = body, ""

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """Return the body, or raise the error."""
        self.readings.append(accept)
        if self.error:
            raise FileAccessError(self.error)
        return self.body, f"text/plain; asked={accept}"


@contextmanager
def running(render: Render) -> Iterator[MetricsServer]:
    """Serve during the block."""
    with MetricsServer(render, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def connect(server: MetricsServer) -> socket.socket:
    """Return a connection to *server*."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS)


def read_all(client: socket.socket) -> bytes:
    """Return what *client* receives up to the end."""
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def ask(server: MetricsServer, request: bytes = GET) -> tuple[int, bytes, bytes]:
    """Return status, headers and body of the answer to *request*."""
    with connect(server) as client:
        client.sendall(request)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def test_answers() -> None:
    """Metrics, health, other paths, HEAD, and the format that a client asks for."""
    render = Render()
    with running(render) as server:
        status, head, body = ask(server)
        assert (status, body) == (200, BODY)
        assert f"Content-Length: {len(BODY)}".encode() in head
        assert ask(server, GET.replace(b"/metrics", b"/metrics?x=1"))[0] == 200
        status, head, body = ask(server, GET.replace(b"GET", b"HEAD"))
        assert (status, body) == (200, b"")
        assert ask(server, GET.replace(b"/metrics", b"/healthz"))[::2] == (200, b"ok\n")
        assert ask(server, GET.replace(b"/metrics", b"/etc/passwd"))[0] == 404
        assert ask(server, GET.replace(b"GET", b"POST"))[0] == 501
        accepted = GET.replace(b"\r\n\r\n", b"\r\nAccept: application/openmetrics-text\r\n\r\n")
        assert b"asked=application/openmetrics-text" in ask(server, accepted)[1]
        folded = GET.replace(b"\r\n\r\n", b"\r\nAccept: text/plain;version=1\r\n Set-Cookie: x\r\n\r\n")
        assert ask(server, folded)[0] == 200
        assert render.readings[-1] == ""


def test_a_failed_reading_is_unhealthy_until_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is 503 with the reason, and so is that of /healthz; the next good reading ends it."""
    render = Render()
    with running(render) as server:
        render.error = "pins: cannot read: permission denied"
        assert ask(server)[::2] == (503, b"pins: cannot read: permission denied\n")
        assert ask(server, GET.replace(b"/metrics", b"/healthz"))[0] == 503
        render.error = ""
        assert ask(server)[0] == 200
        assert ask(server, GET.replace(b"/metrics", b"/healthz"))[0] == 200
    assert caplog.messages == ["pins: cannot read: permission denied"]


def test_any_fault_of_a_reading_is_an_answer() -> None:
    """An error that nobody expected is 503 in one line, at /healthz too, until a good reading."""
    failures = {
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"): b"surrogates not allowed\n",
        OSError(24, "Too many open files"): b"metrics: cannot read: too many open files\n",
        AssertionError(): b"metrics: cannot read: AssertionError\n",
        ValueError("\x1b[2Jx"): b"metrics: cannot read: \\x1b[2Jx\n",
        FileAccessError("/p\udcff: cannot read: denied"): b"/p\\udcff: cannot read: denied\n",
    }

    class Failing(Render):
        failure: Exception | None = None

        def __call__(self, accept: str) -> tuple[bytes, str]:
            """Raise the failure."""
            if self.failure is not None:
                raise self.failure
            return super().__call__(accept)

    render = Failing()
    with running(render) as server:
        for render.failure, end in failures.items():
            status, _, body = ask(server)
            assert status == 503
            assert body.endswith(end)
            assert body.count(b"\n") == 1
            assert ask(server, GET.replace(b"/metrics", b"/healthz"))[::2] == (503, body)
        render.failure = None
        assert ask(server)[::2] == (200, BODY)
        assert ask(server, GET.replace(b"/metrics", b"/healthz"))[0] == 200


LOCAL = ("localhost", "LocalHost:9435", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:9435", "127.9.9.9")
STRANGE = (
    *("page.example", "page.example:9435", "localhost.page.example", "127.0.0.1.page.example", "192.0.2.1"),
    *("page.example:127.0.0.1", "localhost:x", "[::1", "[::2]", "", "[localhost]", "a@localhost", "0"),
    "localhost\r\nHost: page.example",
)


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz"])
def test_a_page_in_a_browser_reads_nothing(path: bytes) -> None:
    """On loopback, only a Host that is this machine is answered: a page's name may mean 127.0.0.1."""
    render = Render()
    request = GET.replace(b"/metrics", path)
    with running(render) as server:
        for host in STRANGE:
            status, _, body = ask(server, request.replace(b"localhost", host.encode()))
            assert (status, body) == (421, serve._HOST_TEXT), host
        assert ask(server, request.replace(b"Host: localhost\r\n", b""))[0] == 421
        assert render.readings == []
        for host in LOCAL:
            assert ask(server, request.replace(b"localhost", host.encode()))[0] == 200, host


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_a_server_on_loopback_checks_host(address: str) -> None:
    """However the address is written."""
    with MetricsServer(Render(), address, 0) as server:
        assert server.checks_host


def test_a_server_for_the_network_has_names_that_it_does_not_know() -> None:
    """Host is not checked there."""
    with MetricsServer(Render(), "0.0.0.0", 0) as server:  # noqa: S104 - for this process alone
        assert not server.checks_host


GARBAGE = {
    "nothing": b"\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\n\n",
    "a version that is none": b"GET /metrics HTTP/9.9\r\n\r\n",
    "a version of letters": b"GET /metrics HTTP/a.b\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "a long path": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
    "a header without a colon": b"GET /metrics HTTP/1.1\r\nnonsense\r\n\r\n",
    "an endless header": b"GET /metrics HTTP/1.1\r\nA: " + b"a" * 40_000,
    "control characters": b"GET /\x1b[2J HTTP/1.1\r\nAccept: \x00\xff\r\n\r\n",
    "a header of Accept that is none": b"GET /metrics HTTP/1.1\r\nAccept: ;;,=;q=x/y;version=9.z\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", GARBAGE.values(), ids=GARBAGE)
def test_garbage_does_not_stop_the_server(request_bytes: bytes) -> None:
    """Whatever a client sends, the next one gets its metrics."""
    with running(Render()) as server:
        with connect(server) as client:
            try:
                client.sendall(request_bytes)
                client.shutdown(socket.SHUT_WR)
                read_all(client)
            except ConnectionError:
                pass  # the server may close first
        assert ask(server)[0] == 200


def test_random_bytes_do_not_stop_the_server() -> None:
    """Three hundred random requests, most of which begin like a good one."""
    source = random.Random(16)  # noqa: S311 - test data
    with running(Render()) as server:
        for _ in range(300):
            data = bytearray(GET.replace(b"\r\n\r\n", b"\r\nAccept: text/plain;version=1.0.0\r\n\r\n"))
            for _ in range(source.randrange(1, 8)):
                data[source.randrange(len(data))] = source.randrange(256)
            data = data[: source.randrange(1, len(data) + 1)]
            with connect(server) as client:
                try:
                    client.sendall(data)
                    client.shutdown(socket.SHUT_WR)
                    read_all(client)
                except ConnectionError:
                    pass  # the server may close first
        assert ask(server)[0] == 200


def test_a_client_that_sends_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of a request has a deadline, also for a client that sends a byte now and then."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.2)
    with running(Render()) as server, connect(server) as silent, connect(server) as slow:
        slow.sendall(b"G")
        assert silent.recv(10) == b""
        assert slow.recv(10) == b""


def test_an_endless_head_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends on and on gets its answer after the first 16 KiB."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 3600)
    with running(Render()) as server, connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 2 * serve.MAX_HEAD_BYTES)
        assert client.recv(12) == b"HTTP/1.0 200"


def test_silent_clients_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """More silent clients than the server has room for: the slowest ones make room for one that asks."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 3600)
    monkeypatch.setattr(serve, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(serve, "MAX_CLIENTS", 4)
    with running(Render()) as server, ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(12)]
        assert ask(server)[0] == 200
        assert silent[0].recv(10) == b""


def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has a deadline, after which its thread and its memory are free."""
    monkeypatch.setattr(serve, "SEND_SECONDS", 0.2)
    with running(Render(bytes(64 * 1024 * 1024))) as server, connect(server) as client:
        client.sendall(GET)
        assert wait_until(lambda: len(server.clients) == 1)
        assert wait_until(lambda: len(server.clients) == 0)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open more files than a login usually may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_clients_share_readings(many_files: None) -> None:
    """All get a whole answer, and who waits for a reading that begins later gets that one."""
    render = Render()
    with running(render) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(1000)]
        for client in clients:
            client.sendall(GET)
        for client in clients:
            assert read_all(client).endswith(b"\r\n\r\n" + BODY)
    assert len(render.readings) <= 1000


def test_waiting_clients_share_one_reading() -> None:
    """Ten clients that ask during a reading need one more, not ten."""
    began, go = threading.Event(), threading.Event()

    class Slow(Render):
        def __call__(self, accept: str) -> tuple[bytes, str]:
            """Wait in the middle of a reading."""
            began.set()
            assert go.wait(WAIT_SECONDS)
            return super().__call__(accept)

    render = Slow()
    with running(render) as server, ExitStack() as stack:
        first = stack.enter_context(connect(server))
        first.sendall(GET)
        assert began.wait(WAIT_SECONDS)
        others = [stack.enter_context(connect(server)) for _ in range(10)]
        for client in others:
            client.sendall(GET)
        assert wait_until(lambda: len(server.clients) == 11 and server.clients.waiting == 0)
        go.set()
        for client in (first, *others):
            assert read_all(client).endswith(BODY)
    assert len(render.readings) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9435", ("127.0.0.1", 9435)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """An address and a port."""
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", "9435", ":9435", "x:", "x:y", "x:65536", "::1:80", "x:-1", "[]:1", "x:٣"]
)
def test_wrong_addresses(text: str) -> None:
    """An empty address would mean every interface, and one of IPv6 needs brackets."""
    with pytest.raises(UsageError, match="not an address and a port"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_is_in_use_or_not_here(host: str) -> None:
    """One line says so."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"{host}:{port}: cannot listen: "):
            MetricsServer(Render(), host, port)
