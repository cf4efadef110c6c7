# SPDX-License-Identifier: Apache-2.0
"""A registry that makes every mistake a registry can make, and what docker knows of it."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from buildtool.oci.write import ImageSet, layer_bytes
from labs.image import make_base
from labs.registry import SmallRegistry, run_registry

LOGIN = ("robot", "secret:with:colons")


class FaultyRegistry(SmallRegistry):
    """Does wrong what *fault* says, from request number *after* on; remembers what it was asked."""

    fault: ClassVar[str] = ""
    after: ClassVar[int] = 0
    times: ClassVar[int] = 10**6
    requests: ClassVar[list[str]] = []
    authorizations: ClassVar[list[str]] = []

    def parse_request(self) -> bool:
        """Read a request, and break the connection or answer at once when that is the fault."""
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
    """Run a registry with *fault*; give its address."""
    FaultyRegistry.fault, FaultyRegistry.after, FaultyRegistry.times = fault, after, times
    FaultyRegistry.requests.clear()
    FaultyRegistry.authorizations.clear()
    with run_registry(FaultyRegistry) as address:
        yield address


def fill(address: str) -> tuple[ImageSet, str]:
    """Put a base into the registry and return it with its reference by digest."""
    images = make_base()
    for digest, data in images.blobs().items():
        stored = data if isinstance(data, bytes) else layer_bytes(data)
        SmallRegistry.blobs[f"sha256:{digest}"] = stored
    for document in (*images.manifests, images.top):
        SmallRegistry.manifests[f"sha256:{document.digest}"] = (document.media_type, document.data)
    SmallRegistry.manifests["1"] = (images.top.media_type, images.top.data)
    return images, f"{address}/base:1@sha256:{images.top.digest}"


def log_in(tmp_path: Path, address: str) -> None:
    """Write what `docker login` writes."""
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
