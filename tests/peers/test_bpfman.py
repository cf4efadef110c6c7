# SPDX-License-Identifier: Apache-2.0
"""Code of bpfman reads our bytecode images: the Go code of its main branch, and its released program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from labs.formats import LABELS, Published
from labs.peerbuild import build_bpfman, build_bpfman_peer
from labs.peers import run_program
from labs.run import run

PROGRAMS, MAPS = (json.loads(LABELS[f"io.ebpf.{name}"]) for name in ("programs", "maps"))


@pytest.mark.timeout(900)
def test_main_branch_reads_the_image(published: Published, tmp_path: Path) -> None:
    """The object is ours, and the labels are those that bpfman itself computes from it."""
    program = build_bpfman_peer()
    done = run_program([program, tmp_path / "cache", published.reference("bpfman")], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {"programs": PROGRAMS, "maps": MAPS}
    assert found["object"] == published.object_digest
    assert found["labels"] == found["found"] == expected
    assert found["platforms"] == {"linux/amd64": expected, "linux/arm64": expected}


# bpfman has fixed directories. A namespace of mounts has others in their places.
ISOLATED = """
mount -t tmpfs none /run
mkdir -p "$1/etc/bpfman"
cp /etc/passwd /etc/group "$1/etc"
printf '[signing]\\nverify_enabled = false\\n' > "$1/etc/bpfman/bpfman.toml"
mount --bind "$1/etc" /etc
"""
# bpfman sets its limit of locked memory, which eBPF has not counted since Linux 5.11, and ends if it may not.
NO_LIMIT = """
int setrlimit(int what, const void *limit) { return 0; }
int setrlimit64(int what, const void *limit) { return 0; }
"""


@pytest.fixture(scope="module")
def no_limit(tmp_path_factory: pytest.TempPathFactory, clang: Path) -> Path:
    """Return a library for machines whose root may not raise limits."""
    library = tmp_path_factory.mktemp("limit") / "nolimit.so"
    library.with_suffix(".c").write_text(NO_LIMIT)
    run(clang, "-shared", "-fPIC", library.with_suffix(".c"), "-o", library)
    return library


def run_bpfman(home: Path, published: Published, library: Path, script: str) -> CompletedProcess[str]:
    """Run *script*, in which `bpfman` is the program, with directories of its own."""
    setup = f"set -e\n{ISOLATED}\nexport SSL_CERT_FILE={published.authority} LD_PRELOAD={library}\n"
    setup += f"PATH={build_bpfman().parent}:$PATH\n{script}"
    return run_program(["unshare", "--mount", "sh", "-c", setup, "sh", home], home)


@pytest.mark.timeout(2400)
def test_release_loads_the_object(published: Published, no_limit: Path, tmp_path: Path) -> None:
    """It pulls the image by its labels, takes the first file of the layer, and loads the program."""
    image = published.reference("bpfman", tls=True)
    load = f"bpfman load image --pull-policy Always --image-url {image} --programs tracepoint:enter"
    done = run_bpfman(tmp_path, published, no_limit, f"{load}\nbpfman list programs")
    assert done.returncode == 0, done.stdout + done.stderr
    loaded, _, listed = done.stdout.partition("Function Name  Links")
    assert image in loaded, loaded
    assert re.search(r" tracepoint +enter ", listed)


@pytest.mark.timeout(2400)
def test_release_knows_the_programs(published: Published, no_limit: Path, tmp_path: Path) -> None:
    """The names of the labels and of the object are those that users give."""
    image = published.reference("bpfman", tls=True)
    done = run_bpfman(
        tmp_path, published, no_limit, f"bpfman load image --image-url {image} --programs tracepoint:other"
    )
    assert done.returncode != 0
    assert "other" in done.stderr
