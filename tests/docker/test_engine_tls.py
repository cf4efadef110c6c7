# SPDX-License-Identifier: Apache-2.0
"""An engine over TCP with TLS: the library and buildx reach it through docker's environment variables."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from labs.engine import REPOSITORY, docker, has_image
from labs.project import Project
from urllib3.exceptions import InsecureRequestWarning

from buildtool.core.errors import EngineError
from buildtool.image.docker.client import connect, find_engine_image
from buildtool.image.docker.prepare import BASE_IMAGE

TAG = f"{REPOSITORY}/tls:1"


def make_certificates(directory: Path) -> None:
    """Make an authority, a server certificate of 127.0.0.1 and a client certificate for docker."""
    new = ["openssl", "req", "-newkey", "ed25519", "-nodes", "-subj"]
    subprocess.run(
        [*new, "/CN=authority", "-x509", "-keyout", directory / "ca.key", "-out", directory / "ca.pem"],
        check=True,
        capture_output=True,
    )
    for name, prefix in (("server", "server-"), ("client", "")):
        key, certificate = directory / f"{prefix}key.pem", directory / f"{prefix}cert.pem"
        argv = [*new, f"/CN={name}", "-x509", "-CA", directory / "ca.pem", "-CAkey", directory / "ca.key"]
        argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True)


class Proxy(Thread):
    """Forwards TLS connections with a client certificate to the socket of the real engine."""

    def __init__(self, engine: str, certificates: Path) -> None:
        super().__init__(daemon=True)
        self.address, self.ready = "", Event()
        self._engine = engine
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
        self._tls.load_verify_locations(certificates / "ca.pem")
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Serve until `stop`."""
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        self.join()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0, ssl=self._tls)
        self.address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.ready.set()
        await self._end.wait()
        server.close()
        # Clients may still have open connections; these end with the test.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(self._engine)
        await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass  # the other side has closed the connection
    finally:
        target.close()


@pytest.fixture
def certificates(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set DOCKER_HOST to the engine over TLS; yield the directory of the certificates."""
    assert engine
    directory = tmp_path / "certificates"
    directory.mkdir()
    make_certificates(directory)
    proxy = Proxy(os.environ["DOCKER_HOST"].removeprefix("unix://"), directory)
    proxy.start()
    proxy.ready.wait()
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    yield directory
    # Fixtures that end after this one need the engine's own address.
    monkeypatch.undo()
    proxy.stop()


def test_variables_of_docker_reach_the_engine(
    project: Project, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library and buildx both reach the engine, even if REQUESTS_CA_BUNDLE names other authorities."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    assert find_engine_image(BASE_IMAGE) is not None
    built = project.build("--arch", "amd64", "--tag", TAG, "--engine", "auto")
    assert built["engine"] == "docker"
    assert has_image(TAG)
    shown = project.run("inspect", TAG, "--json")
    assert shown.code == 0, shown.stderr


def test_certificates_are_found_beside_dockers_settings(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DOCKER_CERT_PATH the certificates in docker's configuration directory are used."""
    settings = tmp_path / "settings"
    shutil.copytree(certificates, settings)
    monkeypatch.setenv("DOCKER_CONFIG", str(settings))
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    docker("version")
    assert find_engine_image(BASE_IMAGE) is not None


def test_any_server_certificate_without_tls_verify(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DOCKER_TLS_VERIFY any server certificate is accepted, as by docker itself."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "")
    docker("--tls", "version")
    with pytest.warns(InsecureRequestWarning):
        assert find_engine_image(BASE_IMAGE) is not None


def test_tls_errors_name_the_reason(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing certificate names the variable; a foreign authority gives the library's reason."""
    host = os.environ["DOCKER_HOST"]
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(
        EngineError, match=f"^engine over TLS: {host}: Path to a certificate and key"
    ) as caught:
        connect()
    assert caught.value.hint == "DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and key.pem"
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
    with pytest.raises(EngineError, match=f"^no Docker engine answers: {host}: .*certificate verify failed"):
        connect()
