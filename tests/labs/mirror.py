# SPDX-License-Identifier: Apache-2.0
"""A Debian mirror on this machine: signed lists, a pool, and the faults of real mirrors."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from buildtool.runtime.apt import PackageSource
from buildtool.runtime.debian import Archive
from buildtool.runtime.packagelock import LockedPackage, make_lock

Files = Mapping[str, bytes | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A throwaway key of OpenPGP: gpg's *home*, and the public half in *keyring*."""

    home: Path
    keyring: Path

    def sign(self, path: Path, output: Path) -> None:
        """Write the text of *path* with its signature to *output*."""
        output.unlink(missing_ok=True)
        self.gpg("--clearsign", "--output", str(output), str(path))

    def gpg(self, *arguments: str) -> None:
        """Run gpg with this key."""
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *arguments]
        subprocess.run(argv, check=True, capture_output=True)


def make_keys(directory: Path) -> Keys:
    """Return a new key whose files are in *directory*."""
    keys = Keys(home=directory / "gpg", keyring=directory / "keyring.gpg")
    keys.home.mkdir(mode=0o700)
    keys.gpg("--quick-generate-key", "Mirror of a test", "ed25519", "sign", "never")
    keys.gpg("--output", str(keys.keyring), "--export")
    return keys


def forget_keys(keys: Keys) -> None:
    """End the agent that gpg started for *keys*."""
    argv = ["gpgconf", "--homedir", str(keys.home), "--kill", "all"]
    subprocess.run(argv, check=False, capture_output=True)


def make_deb(directory: Path, name: str, version: str, arch: str, files: Files) -> Path:
    """Return a new package in *directory*. A str in *files* is the target of a symbolic link."""
    tree = directory / f"tree-{name}-{version}-{arch}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: x <x@y.z>\n"
    (tree / "DEBIAN/control").write_text(f"{control}Description: x\n")
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            (tree / path).symlink_to(content)
        else:
            (tree / path).write_bytes(content)
    file = directory / f"{name}_{version}_{arch}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(file)]
    subprocess.run(argv, check=True, capture_output=True)
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package in the pool: its *path* below the mirror, its *digest*, and the *stanza* of lists."""

    name: str
    version: str
    path: str
    digest: str
    stanza: str


@dataclass(kw_only=True)
class Mirror:
    """
    A mirror at *uri* with its files in *root*.

    *faults* maps a part of a path to a fault: "missing", "cut" (the answer ends half-way), or "once" (only
    the first answer is cut). *requests* has the path of each request.
    """

    root: Path
    keys: Keys
    uri: str = ""
    faults: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, version: str, arch: str = "s390x", files: Files | None = None) -> Deb:
        """Put a new package into the pool, in no list yet."""
        contents = files or {f"usr/share/doc/{name}/version": f"{version} {arch}".encode() * 2000}
        return self.add_file(make_deb(self.root.parent, name, version, arch, contents))

    def add_file(self, file: Path) -> Deb:
        """Put the package *file* into the pool, in no list yet."""
        (self.root / "pool").mkdir(exist_ok=True)
        path = f"pool/{file.name.replace('%', '-')}"
        shutil.copy(file, self.root / path)
        argv = ["dpkg-deb", "--field", str(file)]
        control = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        fields = dict(re.findall(r"^(\S+): (.*)$", control, re.MULTILINE))
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        stanza = f"{control}Filename: {path}\nSize: {len(data)}\nSHA256: {digest}\n"
        return Deb(name=fields["Package"], version=fields["Version"], path=path, digest=digest, stanza=stanza)

    def publish(
        self, *debs: Deb, suite: str = "trixie", codename: str = "trixie", arch: str = "s390x"
    ) -> None:
        """Write signed lists in which *suite* has exactly *debs* for *arch*."""
        dist = self.root / "dists" / suite
        packages = dist / f"main/binary-{arch}/Packages"
        packages.parent.mkdir(parents=True, exist_ok=True)
        packages.write_text("\n".join(deb.stanza for deb in debs))
        lists = {str(path.relative_to(dist)): path.read_bytes() for path in dist.glob("main/*/Packages")}
        sums = "".join(f" {hashlib.sha256(x).hexdigest()} {len(x)} {n}\n" for n, x in sorted(lists.items()))
        text = f"Origin: Test\nSuite: {suite}\nCodename: {codename}\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n"
        text += f"Architectures: amd64 arm64 riscv64 s390x\nComponents: main\nSHA256:\n{sums}"
        release = self.root.parent / f"Release-{suite}"
        release.write_text(text)
        self.keys.sign(release, dist / "InRelease")

    def asked(self, word: str) -> int:
        """Return how many requests had *word* in their path."""
        return sum(word in path for path in self.requests)

    def locked(self, deb: Deb, arch: str = "s390x") -> LockedPackage:
        """Return *deb* as an entry of a lock for *arch*."""
        return LockedPackage(
            suite="trixie", architecture=arch, name=deb.name, version=deb.version, sha256=deb.digest
        )

    def source(
        self,
        state: Path,
        told: list[str],
        *locked: Deb,
        arch: str = "s390x",
        keyring: Path | None = None,
    ) -> PackageSource:
        """Return this mirror as a source with a lock of *locked*. Its reports are appended to *told*."""
        return PackageSource(
            archive=Archive(suite="trixie", mirror=self.uri, keyring=keyring or self.keys.keyring),
            architecture=arch,
            state=state,
            lock=make_lock(self.locked(deb, arch) for deb in locked),
            report=told.append,
            retries=1,
        )


@contextmanager
def serve(root: Path, keys: Keys) -> Iterator[Mirror]:
    """Run a mirror of the files in *root* during the block."""
    root.mkdir()
    mirror = Mirror(root=root, keys=keys)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(root))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            path = urllib.parse.unquote(self.path)
            mirror.requests.append(path)
            # Tests publish twice in a second, but this header has whole seconds.
            del self.headers["If-Modified-Since"]
            key = next((key for key in mirror.faults if key in path), "")
            match mirror.faults.get(key):
                case "missing":
                    self.send_error(404)
                case "cut" | "once" as fault:
                    self._cut()
                    if fault == "once":
                        del mirror.faults[key]
                case _:
                    super().do_GET()

        def _cut(self) -> None:
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Print nothing, because *requests* has the paths."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
