# SPDX-License-Identifier: Apache-2.0
"""Code of bpfman reads our bytecode images: the Go code of its main branch, and its released program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from labs.formats import LABELS, Published
from labs.peerbuild import build_bpfman, build_bpfman_peer
from labs.peers import run_program

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


def isolated(
    program: Path, home: Path, published: Published, script: str
) -> subprocess.CompletedProcess[str]:
    """Run *script*, in which "$bpfman" is *program*, with directories of its own."""
    setup = f"set -e\nbpfman='{program}'\nexport SSL_CERT_FILE='{published.authority}'\n{ISOLATED}\n{script}"
    return run_program(["unshare", "--mount", "sh", "-c", setup, "sh", home], home)


@pytest.mark.timeout(2400)
def test_release_loads_the_object(published: Published, tmp_path: Path) -> None:
    """It pulls the image, takes the first file of its layer, and loads both programs."""
    program = build_bpfman()
    image = published.reference("bpfman", tls=True)
    done = isolated(
        program,
        tmp_path,
        published,
        f'"$bpfman" load image --pull-policy Always --image-url {image} --programs xdp:count tcx:pass\n'
        '"$bpfman" list programs',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert image in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {tuple(words[2:4]) for words in lines if words[3:4] and words[3] in PROGRAMS} or lines


@pytest.mark.timeout(2400)
def test_release_refuses_a_program_that_is_not_there(published: Published, tmp_path: Path) -> None:
    """The name is compared with the object that was pulled."""
    program = build_bpfman()
    image = published.reference("bpfman", tls=True)
    done = isolated(
        program, tmp_path, published, f'"$bpfman" load image --image-url {image} --programs xdp:other'
    )
    assert done.returncode != 0
