# SPDX-License-Identifier: Apache-2.0
"""
HTTP to registries: with the credentials that were handed in alone, and nowhere without encryption.

Left to itself `requests` logs in with what `~/.netrc` has, its `default` entry too, at the registry and at
every machine that the registry redirects to.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import requests

from buildtool import __version__
from buildtool.core.errors import RegistryError

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_PORTS = {"https": 443, "http": 80}


def is_loopback(host: str) -> bool:
    """Say whether *host*, perhaps with a port, is this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def find_origin(url: str) -> tuple[str, str | None, int | None]:
    """Return what tells servers apart: scheme, host and port of *url*; of none when it is no URL."""
    try:
        found = urlsplit(url)
        return found.scheme, found.hostname, found.port or _PORTS.get(found.scheme)
    except ValueError:
        return "", None, None


class RegistrySession(requests.Session):
    """A session with the registry of *host*, which messages name."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host
        self.headers["User-Agent"] = f"buildtool/{__version__}"
        # Something that adds nothing: only where there is nothing, ~/.netrc is looked at.
        self.auth = lambda request: request

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """
        Send *request*, the first one or what a redirect made of it.

        Raises: RegistryError, when it would go to another machine without encryption; requests' exceptions.
        """
        found = urlsplit(request.url or "")
        if str(found.scheme) != "https" and not is_loopback(str(found.netloc)):
            raise RegistryError(
                f"registry {self._host}: it sends us to {str(found.hostname)!a} without encryption"
            )
        try:
            return super().send(request, **settings)
        except requests.exceptions.RequestException:
            raise
        except ValueError as error:  # urllib3's, of a name that none can have, comes through as it is
            raise requests.exceptions.InvalidURL(str(error)) from error

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Take the credentials out of what is redirected to somebody else, and put in no others."""
        before, now = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(before, now):
            prepared_request.headers.pop("Authorization", None)
