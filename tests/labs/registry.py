# SPDX-License-Identifier: Apache-2.0
"""Registries in memory: one that supports pushing and pulling, and one with faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socket import MSG_PEEK
from threading import Thread
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    CertificateBuilder,
    DNSName,
    IPAddress,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    random_serial_number,
)
from cryptography.x509.oid import NameOID

from buildtool.oci.write import MEDIA_INDEX, ImageSet, layer_bytes
from labs.image import make_base


class SmallRegistry(BaseHTTPRequestHandler):
    """Implements the distribution API. *blobs* and *manifests* hold the pushed contents."""

    protocol_version = "HTTP/1.1"
    blobs: ClassVar[dict[str, bytes]] = {}
    manifests: ClassVar[dict[str, tuple[str, bytes]]] = {}
    uploads: ClassVar[dict[str, bytes]] = {}

    def handle_one_request(self) -> None:
        """Answer a TLS handshake with an HTTP error, as Go's server does, so that the client tries HTTP."""
        if self.connection.recv(1, MSG_PEEK) == b"\x16":
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            self.close_connection = True
            return
        super().handle_one_request()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do_GET(self) -> None:
        """Send a blob or a manifest."""
        name = self.path.rpartition("/")[2]
        if self.path == "/v2/":
            self._answer(200)
        elif "/blobs/" in self.path and name in self.blobs:
            self._answer(200, self.blobs[name], Docker_Content_Digest=name)
        elif "/manifests/" in self.path and name in self.manifests:
            kind, data = self.manifests[name]
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            self._answer(200, data, Content_Type=kind, Docker_Content_Digest=digest)
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        """Begin an upload."""
        self._body()
        name = str(len(self.uploads))
        self.uploads[name] = b""
        self._answer(202, Location=f"{self.path.partition('?')[0].rstrip('/')}/{name}")

    def do_PATCH(self) -> None:
        """Continue an upload."""
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.uploads[name] += self._body()
        self._answer(202, Location=self.path, Range=f"0-{len(self.uploads[name]) - 1}")

    def do_PUT(self) -> None:
        """Finish an upload, or store a manifest."""
        data, name = self._body(), self.path.partition("?")[0].rpartition("/")[2]
        if "/manifests/" in self.path:
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            for key in (name, digest):
                self.manifests[key] = (self.headers["Content-Type"], data)
            self._answer(201, Docker_Content_Digest=digest)
            return
        blob = self.uploads[name] + data
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        wanted = re.search(r"digest=(sha256(?::|%3[Aa])[0-9a-f]{64})", self.path)
        assert wanted
        assert wanted[1].replace("%3A", ":").replace("%3a", ":") == digest
        self.blobs[digest] = blob
        self._answer(201, Docker_Content_Digest=digest)


class _Server(ThreadingHTTPServer):
    """A server whose threads end with it, though clients keep their connections."""

    daemon_threads = False  # server_close() waits for them

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._held: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, and remember the connection."""
        self._held.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        """End all connections, and wait for their threads."""
        for connection in self._held:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def run_registry(handler: type[SmallRegistry] = SmallRegistry) -> Iterator[str]:
    """Run a registry with *handler* on this machine during the block, and yield its host:port."""
    for held in (SmallRegistry.blobs, SmallRegistry.manifests, SmallRegistry.uploads):
        held.clear()
    server = _Server(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pushed(reference: str) -> tuple[str, Any]:
    """Return digest and content of the manifest pushed as tag *reference*."""
    _, data = SmallRegistry.manifests[reference]
    return "sha256:" + hashlib.sha256(data).hexdigest(), json.loads(data)


def write_certificate(path: Path, address: str, days: tuple[int, int], *, host: str = "") -> Path:
    """
    Write key and certificate of *address* and *host*, valid for the *days* from and to.

    Return the authority's certificate.
    """
    now, key = datetime.now(UTC), generate_private_key(SECP256R1())
    name = Name([NameAttribute(NameOID.COMMON_NAME, "lab")])
    begin, end = (now + timedelta(days=number) for number in days)
    builder = CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(random_serial_number()).not_valid_before(begin).not_valid_after(end)
    hosts = [DNSName(host)] if host else []
    names = SubjectAlternativeName([IPAddress(ip_address(address)), *hosts])
    certificate = builder.add_extension(names, critical=False).sign(key, SHA256())
    text = certificate.public_bytes(Encoding.PEM)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + text)
    authority = path.with_name("authority.pem")
    authority.write_bytes(text)
    return authority


@contextmanager
def run_tls(certificate: Path) -> Iterator[int]:
    """Run a server that speaks TLS with *certificate* and then closes; give its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class SecureRegistry(SmallRegistry):
    """Speaks TLS from the first byte on."""

    def handle_one_request(self) -> None:
        """Answer one request, whose handshake is done already."""
        BaseHTTPRequestHandler.handle_one_request(self)


@contextmanager
def run_secure_registry(certificate: Path) -> Iterator[int]:
    """Run a registry that speaks TLS with *certificate* during the block, and yield its port."""
    for held in (SmallRegistry.blobs, SmallRegistry.manifests, SmallRegistry.uploads):
        held.clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = _Server(("127.0.0.1", 0), SecureRegistry)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Proxy(BaseHTTPRequestHandler):
    """A proxy that connects to *port* of this machine, whatever host is asked for, and records the hosts."""

    port: ClassVar[int] = 0
    asked: ClassVar[list[str]] = []
    status: ClassVar[int] = 200

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_CONNECT(self) -> None:
        """Connect both ends, or refuse."""
        self.asked.append(self.path)
        if self.status != 200:
            self.send_error(self.status)
            return
        with socket.create_connection(("127.0.0.1", self.port)) as other:
            self.send_response(200)
            self.end_headers()
            back = Thread(target=_copy, args=(other, self.connection), daemon=True)
            back.start()
            _copy(self.connection, other)
            back.join()
        self.close_connection = True

    def do_GET(self) -> None:
        """Refuse a request without encryption."""
        self.asked.append(self.path)
        self.send_error(403)

    do_PUT = do_HEAD = do_POST = do_GET  # noqa: N815 - http.server's names


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def run_proxy(port: int = 0, *, status: int = 200) -> Iterator[str]:
    """Run a proxy to *port* of this machine, which answers *status*, and yield its address."""
    Proxy.port, Proxy.status = port, status
    Proxy.asked.clear()
    server = _Server(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ReferrersRegistry(SmallRegistry):
    """Has the referrers API, with one entry in each answer, and says that it notes a manifest's subject."""

    def do_GET(self) -> None:
        """Send a page of the manifests that refer to a digest, or what the path names."""
        path, _, query = self.path.partition("?")
        if "/referrers/" not in path:
            super().do_GET()
            return
        subject, page = path.rpartition("/")[2], int(query.removeprefix("page=") or "0")
        found = [
            {"mediaType": kind, "digest": name, "size": len(data), "artifactType": content["artifactType"]}
            for name, (kind, data) in sorted(self.manifests.items())
            if (content := json.loads(data)).get("subject", {}).get("digest") == subject
        ]
        index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": found[page : page + 1]}
        more = {"Link": f'<{path}?page={page + 1}>; rel="next"'} if len(found) > page + 1 else {}
        self._answer(200, json.dumps(index).encode(), Content_Type=MEDIA_INDEX, **more)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        name = headers.get("Docker_Content_Digest", "")
        if self.command == "PUT" and name in self.manifests:
            content = json.loads(self.manifests[name][1])
            headers |= {"OCI_Subject": content["subject"]["digest"]} if "subject" in content else {}
        super()._answer(status, body, **headers)


LOGIN = ("robot", "secret:with:colons")


class FaultyRegistry(SmallRegistry):
    """Has *fault* from request number *after* on, for *times* requests, and records all requests."""

    fault: ClassVar[str] = ""
    after: ClassVar[int] = 0
    times: ClassVar[int] = 10**6
    requests: ClassVar[list[str]] = []
    authorizations: ClassVar[list[str]] = []

    def parse_request(self) -> bool:
        """Read a request. Break the connection, or send a faulty answer, if the fault requires that."""
        if not super().parse_request():
            return False
        cls = type(self)
        number = len(cls.requests)
        cls.requests.append(f"{self.command} {self.path}")
        authorization = self.headers.get("Authorization", "")
        cls.authorizations.append(authorization)
        if self.path.startswith("/token"):
            right = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
            body = json.dumps({"token": "let-me-in"}).encode() if authorization == right else b"{}"
            self._answer(200 if authorization == right else 401, body)
            return False
        if cls.fault in ("bearer", "basic") and not self._allows(authorization):
            return False
        if not cls.after <= number < cls.after + cls.times:
            return True
        return self._misbehave()

    def _allows(self, authorization: str) -> bool:
        host = self.headers["Host"]
        challenge = f'Bearer realm="http://{host}/token",service="lab"' if self.fault == "bearer" else "Basic"
        if authorization == "Bearer let-me-in" or (
            self.fault == "basic" and authorization.startswith("Basic ")
        ):
            return True
        self._body()
        self._answer(401, WWW_Authenticate=challenge)
        return False

    def _misbehave(self) -> bool:
        if self.fault.isdigit():
            self._body()
            self._answer(int(self.fault), b'{"errors": [{"message": "no\\nroom"}]}')
            return False
        if self.fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return False
        if self.fault == "short" and "/blobs/sha256" in self.path and self.command == "GET":
            data = self.blobs[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:10])
            self.close_connection = True
            return False
        if self.fault in ("other", "endless") and self.command == "GET" and self.path != "/v2/":
            self._answer(200, b"x" * (10 if self.fault == "other" else 30_000_000), Content_Type="text/plain")
            return False
        return True


@contextmanager
def faulty(fault: str, *, after: int = 0, times: int = 10**6) -> Iterator[str]:
    """Run a registry with *fault* during the block, and yield its address."""
    FaultyRegistry.fault, FaultyRegistry.after, FaultyRegistry.times = fault, after, times
    FaultyRegistry.requests.clear()
    FaultyRegistry.authorizations.clear()
    with run_registry(FaultyRegistry) as address:
        yield address


def fill(address: str, images: ImageSet | None = None) -> tuple[ImageSet, str]:
    """Store *images*, by default a base, in the registry. Return them, and their reference with digest."""
    images = images or make_base()
    for digest, data in images.blobs().items():
        stored = data if isinstance(data, bytes) else layer_bytes(data)
        SmallRegistry.blobs[f"sha256:{digest}"] = stored
    for document in (*images.manifests, images.top):
        SmallRegistry.manifests[f"sha256:{document.digest}"] = (document.media_type, document.data)
    SmallRegistry.manifests["1"] = (images.top.media_type, images.top.data)
    return images, f"{address}/base:1@sha256:{images.top.digest}"


def log_in(tmp_path: Path, address: str) -> None:
    """Write the configuration file of `docker login`."""
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
