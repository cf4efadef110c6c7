# SPDX-License-Identifier: Apache-2.0
"""Find out why a builder of the remote driver does not answer, which buildx does not say."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from buildtool.core.errors import system_reason

SECONDS = 5
_ENDPOINT = re.compile(r"^Endpoint:\s+(tcp://\S+)$", re.MULTILINE)
_OPTIONS = re.compile(r"^Driver Options:\s+(.*)$", re.MULTILINE)


def explain_silence(inspected: str) -> str:
    """Return why a builder does not answer. *inspected* is what `docker buildx inspect` says of it."""
    found = _ENDPOINT.search(inspected)
    try:
        place = urlsplit(found[1]) if found else None
        host, port = (place.hostname, place.port) if place else (None, None)
    except ValueError:
        return "its endpoint is no address"
    if not host or not port:
        return "it is not running"
    options = _OPTIONS.search(inspected)
    words = shlex.split(options[1]) if options else []
    return _try(host, port, dict(word.partition("=")[::2] for word in words))


def _try(host: str, port: int, options: dict[str, str]) -> str:
    """Connect to *host* as buildx does with *options* of the driver, and return what fails."""
    try:
        with socket.create_connection((host, port), SECONDS) as connection:
            if not options.get("cacert"):
                return "it accepts connections, but does not speak as BuildKit does: perhaps it requires TLS"
            _shake(connection, options, host)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        alert = (error.reason or "no TLS").lower().replace("_", " ")
        return f"TLS fails, perhaps because of the client's certificate: {alert}"
    except OSError as error:
        return system_reason(error)
    return "it accepts connections, but gives no answer"


def _shake(connection: socket.socket, options: dict[str, str], host: str) -> None:
    """Shake hands, and read: with TLS 1.3, a server refuses the client's certificate afterwards."""
    context = ssl.create_default_context(cafile=options["cacert"])
    if options.get("cert"):
        context.load_cert_chain(options["cert"], options.get("key"))
    name = options.get("servername") or host
    with context.wrap_socket(connection, server_hostname=name) as secured, suppress(TimeoutError):
        secured.recv(1)
