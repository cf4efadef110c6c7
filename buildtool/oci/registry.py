# SPDX-License-Identifier: Apache-2.0
"""
Pull base images from registries and push images to them, without an engine.

The only credentials are those of `docker login`. By default, `requests` would also send the
credentials of `~/.netrc`, even its `default` entry, to each host of a redirect. Plain HTTP is
allowed for this machine only, as in Docker.

Source: OCI distribution specification v1.1; token authentication of the Docker registry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from io import IOBase
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from buildtool import __version__
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, RegistryError, has_system_reason, system_reason
from buildtool.core.process import public_environment
from buildtool.core.validate import check_image, check_names_registry
from buildtool.oci.read import MAX_JSON_BYTES, Descriptor
from buildtool.oci.write import Document, ImageSet, Layer, layer_bytes

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_PORTS = {"https": 443, "http": 80}


def is_loopback(host: str) -> bool:
    """Return whether *host*, with or without a port, is this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def find_origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of *url*, which identify a server, or empty values if *url* is invalid."""
    try:
        found = urlsplit(url)
        return found.scheme, found.hostname, found.port or _PORTS.get(found.scheme)
    except ValueError:
        return "", None, None


class RegistrySession(requests.Session):
    """
    A session with the registry *host*.

    It refuses plain HTTP to other machines, and forwards credentials to no other server.
    """

    def __init__(self, host: str) -> None:
        super().__init__()
        _check_authorities(host, os.environ)
        self._host = host
        self.headers["User-Agent"] = f"buildtool/{__version__}"
        # requests reads ~/.netrc if auth is None, so set a function that adds nothing.
        self.auth = lambda request: request

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """
        Send *request*, which is the first request or follows a redirect.

        Raises: RegistryError, if the URL is plain HTTP to another machine; requests' exceptions.
        """
        found = urlsplit(request.url or "")
        own = is_loopback(str(found.netloc)) and is_loopback(self._host)
        if str(found.scheme) != "https" and not own:
            raise RegistryError(
                f"registry {self._host}: redirect to {str(found.hostname)!r} without encryption",
                hint="let the proxy in front of the registry set X-Forwarded-Proto",
            )
        try:
            return super().send(request, **settings)
        except requests.exceptions.RequestException:
            raise
        except ValueError as error:  # requests does not wrap urllib3's error for an invalid host name
            raise requests.exceptions.InvalidURL(str(error)) from error

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Return the settings of the environment for *url*; no proxy is for this machine, as for docker."""
        if is_loopback(urlsplit(str(url)).netloc):
            proxies = {**(proxies or {}), "no_proxy": "*"}
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remove the credentials from a request that is redirected to another server, and add no others."""
        before, now = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(before, now):
            prepared_request.headers.pop("Authorization", None)


def _check_authorities(host: str, environ: Mapping[str, str]) -> None:
    """Check the file or directory of authorities that *environ* names for requests. Raises: RegistryError."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if place := environ.get(name):
            is_directory = Path(place).is_dir()
            try:
                ssl.create_default_context(
                    cafile=None if is_directory else place, capath=place if is_directory else None
                )
            except ssl.SSLError as error:
                problem = f"{name}: {place}: no certificates in PEM"
                raise RegistryError(f"registry {host}: {problem}", hint=f"let {name} name others") from error
            except OSError as error:
                problem = f"{name}: {place}: cannot read: {system_reason(error)}"
                raise RegistryError(f"registry {host}: {problem}", hint=f"let {name} name others") from error
            return


# Why a certificate is refused: numbers of OpenSSL (x509_vfy.h), which Python does not name.
_CERTIFICATE_PROBLEMS = {
    9: ("not valid yet", "set this machine's clock"),
    10: ("expired", "renew the registry's certificate, or set this machine's clock"),
    62: ("of another host name", "name the registry as its certificate does"),
    64: ("of another IP address", "name the registry as its certificate does"),
}
_NOT_TRUSTED = (
    "not signed by a trusted authority",
    "REQUESTS_CA_BUNDLE names a file with the authority to trust",
)
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
)
# What ends a connection before a request was sent.
_NOT_CONNECTED = (
    ssl.SSLError,
    requests.exceptions.ConnectTimeout,
    requests.exceptions.ProxyError,
    urllib3.exceptions.NewConnectionError,
)
_NAME_HINT = "check the name and the port of the registry"
_CONFIGURATION_HINT = "look at the configuration of the registry, or of the proxy before it"
ATTEMPTS = 3
PAUSE_SECONDS = 0.3
MAX_PAUSE_SECONDS = 60
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1024 * 1024
_TOO_MANY_REQUESTS = 429
# Where a registry's API is, if it is not at the host that references name.
_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_BLOBS, _TOPS = "blobs", "tops"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

Report = Callable[[str], None]


def _ignore(_: str) -> None:
    """Take a warning that nobody wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image in a registry: *host*, *repository*, and *tag* or *digest* (hex) or both."""

    host: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        """Return HOST/REPOSITORY:TAG@sha256:DIGEST, without missing parts."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@sha256:{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """
    Return the parts of reference *text*. Without tag and digest, the tag is latest.

    Raises: UsageError, if *text* is no reference, or names no registry. Signatures name the repository, so it
    must be one that other tools accept.
    """
    name, _, digest = text.partition("@sha256:")
    host, _, rest = name.partition("/")
    check_names_registry(text)
    check_image(text)
    repository, _, tag = rest.partition(":")
    return Reference(host=host, repository=repository, tag=tag or ("" if digest else "latest"), digest=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response: *status*, *headers*, *body* (cut soon after the limit), and *url* after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def said(self) -> str:
        """The message of the registry's error document after ": ", cut to one line, or empty text."""
        try:
            text = str(json.loads(self.body)["errors"][0]["message"])
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            return ""
        return ": " + "".join(letter for letter in text[:120] if letter.isprintable())


@dataclass(slots=True, kw_only=True)
class Client:
    """A client of the registry of *reference*. *actions* is the requested scope: pull, or pull,push."""

    reference: Reference
    actions: str
    session: Any = field(default=None, repr=False)
    base: str = ""
    token: str = field(default="", repr=False)

    def request(self, method: str, path: str, *, limit: int = MAX_JSON_BYTES, **more: Any) -> Answer:
        """
        Return the response to *method* for *path*, which is below the repository or a whole URL.

        A broken connection, a status from 500 on and 429 are retried. *limit* bounds the body in bytes.

        Raises: RegistryError, if no response arrives, or its status is 401 or 403.
        """
        self.connect()
        url = urljoin(f"{self.base}/v2/{self.reference.repository}/", path)
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = self._send(method, url, limit, **more)
                if answer.status == 401 and self._is_own(answer.url) and self._authenticate(answer):
                    answer = self._send(method, url, limit, **more)
            except requests.exceptions.RequestException as error:
                if last:
                    raise self._error(*describe_connection(error)) from error
                pause = 0.0
            else:
                if last or not (answer.status >= 500 or answer.status == _TOO_MANY_REQUESTS):
                    return self._check_allowed(answer)
                pause = wanted_pause(answer)
            time.sleep(max(pause, PAUSE_SECONDS * (attempt + 1)))
        raise AssertionError

    def expect(self, method: str, path: str, status: int, what: str, **more: Any) -> Answer:
        """
        Return the response if it has *status*. *what* is the first part of the error message.

        Raises: RegistryError.
        """
        answer = self.request(method, path, **more)
        if answer.status == 404:
            raise self._error(
                f"{what}: not found (404)",
                hint=f"check the name; docker login {self.reference.host} if the image is private",
            )
        if answer.status != status:
            raise self._error(
                f"{what}: the registry answers {answer.status}{answer.said}", hint="try again later"
            )
        return answer

    def _send(self, method: str, url: str, limit: int, **more: Any) -> Answer:
        headers = {**more.pop("headers", {})}
        if isinstance(more.get("data"), IOBase):
            more["data"].seek(0)  # an attempt that failed has read it
        # Upload URLs may lead to another server, which must not receive the registry's token.
        if self.token and self._is_own(url):
            headers["Authorization"] = self.token
        with self.session.request(
            method, url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True, **more
        ) as found:
            body = bytearray()
            for chunk in found.iter_content(CHUNK_BYTES):
                body += chunk
                if len(body) > limit:
                    break
            return Answer(status=found.status_code, headers=found.headers, body=bytes(body), url=found.url)

    def _is_own(self, url: str) -> bool:
        """Return whether *url* has the scheme, host and port of this registry."""
        return find_origin(url) == find_origin(self.base)

    def connect(self) -> None:
        """Create the session. Only a registry on this machine may lack TLS: then use plain HTTP."""
        if self.base:
            return
        host = _API_HOSTS.get(self.reference.host, self.reference.host)
        self.session = RegistrySession(host)
        scheme = "http" if is_loopback(host) and not _speaks_tls(host) else "https"
        self.base = f"{scheme}://{host}"

    def _authenticate(self, answer: Answer) -> bool:
        """Get the requested credentials. Return False if they are missing or were sent before."""
        kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        if self.token:
            return False
        login = _find_login(self.reference.host)
        if kind.lower() == "basic" and login:
            self.token = "Basic " + b64encode(":".join(login).encode()).decode()
        elif kind.lower() == "bearer":
            self.token = self._fetch_token(dict(_CHALLENGE.findall(rest)), login)
        return bool(self.token)

    def _fetch_token(self, fields: dict[str, str], login: tuple[str, str] | None) -> str:
        realm = fields.pop("realm", "")
        fields["scope"] = f"repository:{self.reference.repository}:{self.actions}"
        found = self._send("GET", realm, MAX_JSON_BYTES, params=fields, auth=login)
        try:
            body = json.loads(found.body) if found.status == 200 else {}
            text = body.get("token") or body.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            text = None
        return f"Bearer {text}" if isinstance(text, str) else ""

    def _check_allowed(self, answer: Answer) -> Answer:
        if answer.status in (401, 403):
            action = "push to" if "push" in self.actions else "pull"
            raise self._error(
                f"not allowed to {action} {self.reference.repository} ({answer.status})",
                hint=f"docker login {self.reference.host}",
            )
        return answer

    def _error(self, message: str, hint: str | None = None) -> RegistryError:
        return RegistryError(f"registry {self.reference.host}: {message}", hint=hint)


def _speaks_tls(host: str) -> bool:
    """
    Return whether the server *host* of this machine speaks TLS. Each request verifies its certificate.

    Loading the authorities for a first request that only finds this out would cost more than the request.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        place = urlsplit(f"//{host}")
        address = (place.hostname or "", place.port or _PORTS["https"])
        with socket.create_connection(address, TIMEOUT_SECONDS) as plain, context.wrap_socket(plain):
            return True
    except (OSError, ValueError):
        return False


def wanted_pause(answer: Answer) -> float:
    """Return the seconds that Retry-After names or that pass until its date, 60 at most, 0 without one."""
    # RFC 9110, section 10.2.3.
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(int(text), MAX_PAUSE_SECONDS) if len(text) < 10 else 0
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(seconds, 0), MAX_PAUSE_SECONDS)


def describe_connection(error: BaseException) -> tuple[str, str]:
    """Return what happened to a connection that ended in *error*, one of requests, and a hint."""
    chain = list(_causes(error))
    if _find(chain, requests.exceptions.TooManyRedirects):
        return "too many redirects", _CONFIGURATION_HINT
    if _find(chain, *_NO_ADDRESS):
        return "an address that is none", _CONFIGURATION_HINT
    problem, hint = _describe_cause(chain)
    if _find(chain, requests.exceptions.ProxyError):
        answers = (re.match(r"Tunnel connection failed: (\d.*)", str(cause)) for cause in chain)
        refused = next((f"it answers {found[1][:80]}" for found in answers if found), problem)
        return f"cannot connect to the proxy: {refused}", "check HTTPS_PROXY"
    if _find(chain, *_NOT_CONNECTED):
        return f"cannot connect: {problem}", hint
    return f"the connection broke: {problem}", "try again"


def _describe_cause(chain: Sequence[BaseException]) -> tuple[str, str]:
    """Return the cause that is in *chain*, and what to do if it kept us from connecting."""
    if refused := _find(chain, ssl.SSLCertVerificationError):
        problem, hint = _CERTIFICATE_PROBLEMS.get(refused.verify_code, _NOT_TRUSTED)
        return f"the certificate is {problem}", hint
    if _find(chain, ssl.SSLError):
        return "no TLS", "only a registry on this machine may lack encryption"
    if _find(chain, socket.gaierror, urllib3.exceptions.NameResolutionError):
        return "unknown host", _NAME_HINT
    if _find(chain, TimeoutError, urllib3.exceptions.ReadTimeoutError, requests.exceptions.Timeout):
        return f"timed out after {TIMEOUT_SECONDS} seconds", "check the network, or set HTTPS_PROXY"
    system = [cause for cause in chain if isinstance(cause, OSError) and has_system_reason(cause)]
    return system_reason(system[0]) if system else "closed early", _NAME_HINT


def _find(chain: Sequence[BaseException], *kinds: type[BaseException]) -> Any:
    return next((cause for cause in chain if isinstance(cause, kinds)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what it was made of, in all the ways that the libraries have."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        more = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting += [each for each in more if isinstance(each, BaseException)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryImage:
    """An image in a registry: a `read.BlobSource` that keeps blobs in *cache*."""

    name: str
    client: Client
    cache: Cache
    found: Descriptor

    def top(self) -> Descriptor:
        """Return the descriptor of the image or index."""
        return self.found

    def fetch(self, wanted: Descriptor) -> bytes:
        """Return the blob. Raises: RegistryError."""
        kept = self.cache.read(_BLOBS, wanted.digest)
        if kept is not None:
            return kept
        kind = "manifests" if wanted.is_manifest else "blobs"
        path, headers = f"{kind}/sha256:{wanted.digest}", {"Accept": wanted.media_type}
        answer = self.client.expect("GET", path, 200, self.name, limit=wanted.size, headers=headers)
        if hashlib.sha256(answer.body).hexdigest() == wanted.digest:
            self.cache.write(_BLOBS, wanted.digest, answer.body)
        return answer.body


def open_image(reference: str, cache: Cache, report: Report = _ignore) -> RegistryImage:
    """
    Return the image *reference* of a registry. *report* receives a warning if *reference* has no digest.

    The warning is for base images: whoever verifies an image looks at what the tag names now.

    Raises: UsageError, RegistryError.
    """
    parsed = parse_reference(reference)
    client = Client(reference=parsed, actions="pull")
    kept = cache.read(_TOPS, parsed.digest) if parsed.digest else None
    if kept is None:
        kept = _ask_top(client, cache)
        if not parsed.digest:
            digest = json.loads(kept)["digest"]
            report(f"base image {parsed} has no digest, so it may be another one tomorrow: add @{digest}")
    fields = json.loads(kept)
    found = Descriptor(
        media_type=fields["mediaType"],
        digest=Digest(fields["digest"].removeprefix("sha256:")),
        size=fields["size"],
    )
    return RegistryImage(name=str(parsed), client=client, cache=cache, found=found)


def _ask_top(client: Client, cache: Cache) -> bytes:
    """Return, as JSON, the descriptor of the image that the client's reference names."""
    parsed = client.reference
    wanted = f"sha256:{parsed.digest}" if parsed.digest else parsed.tag
    answer = client.expect("GET", f"manifests/{wanted}", 200, str(parsed), headers={"Accept": MANIFESTS})
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    top = Document(media_type=kind, data=answer.body)
    if parsed.digest and top.digest != parsed.digest:
        raise RegistryError(
            f"registry {parsed.host}: {parsed}: the digest of the answer does not match",
            hint="the registry, or a proxy before it, changes images: name another one",
        )
    descriptor = json.dumps(top.descriptor).encode()
    # The digest says nothing of the type, and another registry may tell another one.
    if kind not in MANIFESTS.split(", "):
        return descriptor
    cache.write(_TOPS, top.digest, descriptor)
    cache.write(_BLOBS, top.digest, top.data)
    return descriptor


def check_registry(reference: str) -> None:
    """
    Check that the registry of *reference* answers and lets this user in, before there is anything to push.

    Raises: UsageError, RegistryError.
    """
    Client(reference=parse_reference(reference), actions="pull,push").request("GET", "/v2/")


def push_images(images: ImageSet, *references: str) -> None:
    """
    Push *images* to *references*: blobs first and the tags last, so that a tag never names missing blobs.

    With several registries, the first tag is written when each has all blobs.

    Raises: UsageError, RegistryError, FileAccessError.
    """
    parsed = [parse_reference(reference) for reference in references]
    clients = {(each.host, each.repository): Client(reference=each, actions="pull,push") for each in parsed}
    documents = {document.digest for document in (*images.manifests, images.top)}
    for client in clients.values():
        for digest, data in sorted(images.blobs().items()):
            if digest not in documents:
                push_blob(client, digest, data)
        for document in images.manifests:
            push_manifest(client, document, f"sha256:{document.digest}")
    for each in parsed:
        push_manifest(clients[each.host, each.repository], images.top, each.tag)


def push_blob(client: Client, digest: Digest, data: Layer | bytes) -> None:
    """
    Upload *data* with *digest*, unless the repository has it.

    Raises: RegistryError, FileAccessError.
    """
    if client.request("HEAD", f"blobs/sha256:{digest}").status == 200:
        return
    what = f"cannot upload a blob of {client.reference.repository}"
    begun = client.expect("POST", "blobs/uploads/", 202, what)
    try:
        place = urljoin(begun.url, begun.headers.get("Location", ""))
        place += ("&" if urlsplit(place).query else "?") + f"digest=sha256:{digest}"
    except ValueError as error:
        raise RegistryError(
            f"registry {client.reference.host}: {what}: the upload response has no valid Location header",
            hint=_CONFIGURATION_HINT,
        ) from error
    headers = {"Content-Type": "application/octet-stream"}
    with _open_blob(data) as body:
        client.expect("PUT", place, 201, what, data=body, headers=headers)


@contextmanager
def _open_blob(data: Layer | bytes) -> Iterator[bytes | IO[bytes]]:
    """
    Yield the bytes of *data*, or the file of a layer that may be too large for memory.

    Raises: FileAccessError.
    """
    if not isinstance(data, Layer) or data.path is None:
        yield layer_bytes(data) if isinstance(data, Layer) else data
        return
    try:
        file = data.path.open("rb")
    except OSError as error:
        raise FileAccessError(f"{data.path}: cannot read: {system_reason(error)}") from error
    with file:
        yield file


def push_manifest(client: Client, document: Document, name: str) -> Answer:
    """
    Write *document*, whose blobs are there, as *name*: a tag, or sha256: and its digest.

    Raises: RegistryError.
    """
    return client.expect(
        "PUT",
        f"manifests/{name}",
        201,
        f"cannot write {client.reference.repository}:{name}",
        data=document.data,
        headers={"Content-Type": document.media_type},
    )


def _find_login(host: str) -> tuple[str, str] | None:
    """Return user and password of `docker login` for *host*, or None. Raises: RegistryError."""
    # docker.auth may start a credential helper, which must not receive the secrets of this process.
    hidden = dict.fromkeys(os.environ.keys() - public_environment(os.environ).keys(), "")
    # The docker library takes a third of a second to import, and most registries on a site ask for no login.
    import docker.auth

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing helper, which is an error below
            found = docker.auth.load_config(credstore_env=hidden).resolve_authconfig(host) or {}
    except Exception as error:  # the library passes on what a helper's answer causes: no JSON, no member
        raise RegistryError(
            f"registry {host}: docker's settings give no login: a credential helper fails",
            hint=f"docker login {host} again, or repair credsStore and credHelpers in docker's config.json",
        ) from error
    user, password = found.get("username") or found.get("Username"), found.get("password")
    return (user, password or found.get("Password") or "") if user else None
