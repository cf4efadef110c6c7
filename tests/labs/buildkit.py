# SPDX-License-Identifier: Apache-2.0
"""A BuildKit of its own, away from the Docker engine: it answers over TLS to clients with a certificate."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    CertificateBuilder,
    DNSName,
    ExtendedKeyUsage,
    IPAddress,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    random_serial_number,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from labs import TOP
from labs.bindings import find_go, read_version, run_with_registry
from labs.peers import wait_for_port
from labs.run import alone

VERSION = "v0.28.1"
_OLDEST_GO = (1, 25)  # as the go.mod of this version says
_CONFIG = """\
root = "{root}"
[grpc]
  address = ["tcp://127.0.0.1:{port}"]
  [grpc.tls]
    cert = "{keys}/server.pem"
    key = "{keys}/server.key"
    ca = "{keys}/ca.pem"
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  binary = "{runc}"
  snapshotter = "{snapshotter}"
[registry."{registry}"]
  http = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildKit:
    """A BuildKit at *address*, with the certificates of its clients in directory *keys*."""

    address: str
    keys: Path

    def options(self, *, client: str = "client") -> list[str]:
        """Return the options of `docker buildx create` for it."""
        options = f"cacert={self.keys}/ca.pem,cert={self.keys}/{client}.pem,key={self.keys}/{client}.key"
        return ["--driver", "remote", "--driver-opt", f"{options},servername=buildkit.example", self.address]


def build_buildkitd() -> Path:
    """Build buildkitd from its Go module, once, or skip the test where Go or its proxy is missing."""
    place = TOP / ".cache/peers" / f"buildkitd-{VERSION}"
    program = place / "buildkitd"
    with alone():
        if program.exists():
            return program
        go = find_go()
        if read_version("go") < _OLDEST_GO:
            pytest.skip(f"needs-toolchain: go {'.'.join(map(str, _OLDEST_GO))}")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        package = "github.com/moby/buildkit/cmd/buildkitd"
        for command in (
            ["mod", "init", "peer"],
            ["get", f"{package}@{VERSION}"],
            ["build", "-o", "buildkitd.new", package],
        ):
            run_with_registry([go, *command], place)
        return (place / "buildkitd.new").rename(program)


@contextmanager
def run_buildkitd(work: Path, registry: str) -> Iterator[BuildKit]:
    """Run buildkitd in directory *work* during the block; it may use *registry* without encryption."""
    program, runc = build_buildkitd(), shutil.which("runc")
    if runc is None:
        pytest.skip("needs-tool: runc")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    keys = work / "keys"
    write_authority(keys, server="buildkit.example", clients=("client",))
    write_authority(work / "other", server="other.example", clients=("stranger",))
    for name in ("stranger.pem", "stranger.key"):
        (work / "other" / name).rename(keys / name)
    text = _CONFIG.format(
        root=work / "state", port=port, keys=keys, runc=runc, snapshotter="overlayfs", registry=registry
    )
    (work / "buildkitd.toml").write_text(text)
    with (work / "buildkitd.log").open("wb") as log:
        process = subprocess.Popen([program, "--config", work / "buildkitd.toml"], stdout=log, stderr=log)
    try:
        wait_for_port(port, process)
        yield BuildKit(address=f"tcp://127.0.0.1:{port}", keys=keys)
    finally:
        process.terminate()
        process.wait()


def write_authority(place: Path, *, server: str, clients: tuple[str, ...]) -> None:
    """Write an authority, the certificate of *server* on this machine and those of *clients*, with keys."""
    place.mkdir(parents=True)
    own = generate_private_key(SECP256R1())
    authority = _sign(own, own, "lab authority", "lab authority")
    _write(place / "ca.pem", authority)
    for name in ("server", *clients):
        key = generate_private_key(SECP256R1())
        certificate = _sign(key, own, name, "lab authority", server=server if name == "server" else "")
        _write(place / f"{name}.pem", certificate)
        data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place / f"{name}.key").write_bytes(data)


def _write(path: Path, certificate: Certificate) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))


def _sign(
    key: EllipticCurvePrivateKey, by: EllipticCurvePrivateKey, name: str, issuer: str, *, server: str = ""
) -> Certificate:
    now = datetime.now(UTC)
    subject, issued_by = (Name([NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    builder = CertificateBuilder().subject_name(subject).issuer_name(issued_by).public_key(key.public_key())
    builder = builder.serial_number(random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    is_authority = key is by
    builder = builder.add_extension(BasicConstraints(ca=is_authority, path_length=None), critical=True)
    if not is_authority:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(ExtendedKeyUsage([usage]), critical=False)
    if server:
        names = SubjectAlternativeName([DNSName(server), IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(by, SHA256())
