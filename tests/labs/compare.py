# SPDX-License-Identifier: Apache-2.0
"""What the embedded engine starts from in these tests, and how its images are compared with BuildKit's."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from buildtool.core.platforms import PLATFORMS
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute
from buildtool.oci.read import StoredImage, open_layer, open_layout, read_images
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.tree import Tree, read_tree
from buildtool.runtime.carried import list_path, loader_digest, part_path
from labs.project import Project, docker


def export_parts(project: Project, directory: Path, architectures: Sequence[str]) -> Path:
    """Let BuildKit link the loader, and write it with tini as `make loaders` would; return the directory."""
    rendered = project.run("render", "--prepared", *_arch(architectures), "-o", directory / "Dockerfile")
    assert rendered.code == 0, rendered.stderr
    entries = {}
    for arch in architectures:
        record = {}
        for kind, stage, name in (("loader", "loader", "verify-and-load"), ("tini", "tini", "tini")):
            out = directory / "stages" / arch / kind
            argv = ["buildx", "build", "--target", stage, "--platform", PLATFORMS[arch].oci, "--file"]
            argv += [str(directory / "Dockerfile"), "--output", f"type=local,dest={out}", str(project.root)]
            docker(*argv)
            path = part_path(directory, kind, arch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((out / name).read_bytes())
            record[kind] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        record["loader"]["source"] = loader_digest()
        entries[arch] = record
    list_path(directory).write_text(json.dumps({"version": 1, "platforms": entries}))
    return directory


def save_base(reference: str, path: Path) -> str:
    """Write image *reference* of the engine as an OCI archive and return its reference as a base."""
    path.write_bytes(docker("save", reference))
    return f"oci-layout://{path}"


def directory(path: str, **more: int) -> TarEntry:
    """Make a directory of a base."""
    return TarEntry(path=path, kind=tarfile.DIRTYPE, **{"mode": 0o755, "mtime": 1600000000, **more})


# What no base should be: everything that decides about places, modes and owners, and a file in our place.
ODD_BASE = (
    directory("etc", mode=0o700, uid=8),
    TarEntry(path="etc/buildtool", kind=tarfile.SYMTYPE, target="../opt", mode=0o777),
    directory("opt", mode=0o711),
    TarEntry(path="opt/" + "n" * 150, data=b"a long name", mode=0o4755),
    TarEntry(path="opt/straße", data=b"not ASCII", uid=70000, gid=3),
    TarEntry(path="opt/able", data=b"able", xattrs={FILE_ATTRIBUTE: file_attribute(("NET_RAW",))}),
    TarEntry(path="opt/hard", kind=tarfile.LNKTYPE, target="opt/able"),
    TarEntry(path="sbin", kind=tarfile.SYMTYPE, target="/own/../own/sbin", mode=0o777),
    directory("own", mode=0o1777, gid=5),
    directory("own/sbin", mode=0o750, uid=3, gid=4, mtime=1900000000),
    TarEntry(path="own/sbin/tini", data=b"another", mode=0o600, mtime=1900000000),
    directory("usr", mode=0o751, uid=5),
    directory("usr/bin", mode=0o700, uid=6, gid=7),
    directory("usr/lib", mode=0o711),
    directory("usr/lib/buildtool", mode=0o700, uid=9),
    directory("usr/lib/buildtool/objects", mode=0o700, uid=9),
    TarEntry(path="usr/lib/buildtool/objects/two.bpf.o", data=b"old"),
)
ODD_SETTINGS = (
    'CMD ["/bin/sh"]',
    'ENTRYPOINT ["/bin/init"]',
    "ENV PATH=/own/bin MORE=a=b",
    "EXPOSE 80/tcp 53/udp",
    "HEALTHCHECK --interval=5s --start-period=7s CMD true",
    'LABEL org.example.base=yes org.opencontainers.image.title="another title"',
    "STOPSIGNAL SIGQUIT",
    "USER somebody",
    "VOLUME /data",
    "WORKDIR /opt",
)


def import_odd_base(tag: str) -> None:
    """Bring a base with `ODD_BASE` and `ODD_SETTINGS` into the engine, as *tag*."""
    settings = [word for line in ODD_SETTINGS for word in ("--change", line)]
    docker("import", "--platform", "linux/amd64", *settings, "-", tag, stdin=pack_tar(ODD_BASE))


def read_image(path: Path) -> dict[str, tuple[StoredImage, Tree]]:
    """Return the images of an OCI layout or archive by platform, with all files and their bytes."""
    with open_layout(path) as source:
        return {
            image.platform: (
                image,
                read_tree(
                    [io.BytesIO(open_layer(source, layer).read()) for layer in image.layers],
                    keep=lambda _: True,
                ),
            )
            for image in read_images(source)
        }


def flat(tree: Tree) -> dict[str, Any]:
    """Return what is compared of each file."""
    return {path: _facts(entry) for path, entry in tree.items()}


def _facts(entry: TarEntry) -> tuple[Any, ...]:
    content = hashlib.sha256(entry.data).hexdigest()
    owner = (entry.uid, entry.gid)
    return (entry.kind, entry.mode, owner, entry.mtime, entry.target, dict(entry.xattrs), entry.size, content)


def _arch(architectures: Sequence[str]) -> list[str]:
    return [word for arch in architectures for word in ("--arch", arch)]


def run_as(command: Sequence[str], project: Project, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run *command* in the project with *settings* of subprocess."""
    return subprocess.run(
        list(command), cwd=project.root, capture_output=True, text=True, check=False, **settings
    )
