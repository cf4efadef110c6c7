# SPDX-License-Identifier: Apache-2.0
"""Code of Inspektor Gadget takes our gadgets: it pulls or imports them, and verifies their signatures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from labs.formats import Published
from labs.peerbuild import build_gadget_peer
from labs.peers import run_program

# The store of root's gadgets is below /var/lib.
ISOLATED = 'mount -t tmpfs none /var/lib && exec "$@"'


def run_peer(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the peer with an empty store."""
    return run_program(
        ["unshare", "--mount", "sh", "-c", ISOLATED, "sh", build_gadget_peer(), *arguments], home
    )


@pytest.mark.timeout(900)
def test_verifies_and_reads_the_gadget(published: Published, tmp_path: Path) -> None:
    """By the key that signed; the object is the one of the runtime image."""
    key = published.project / "keys/release.pub"
    done = run_peer(tmp_path, key, published.reference("gadget"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["artifact"] == "application/vnd.gadget.v1+binary"
    assert found["objects"] == [published.object_digest]
    assert found["metadata"] == 'name: "counter"\n'
    assert found["annotations"]["org.opencontainers.image.title"] == "counter"


@pytest.mark.timeout(900)
def test_refuses_another_key_and_an_unsigned_gadget(published: Published, tmp_path: Path) -> None:
    """The verifier reads our signatures; it does not merely find none."""
    other, release = (published.project / f"keys/{name}.pub" for name in ("other", "release"))
    done = run_peer(tmp_path, other, published.reference("gadget"))
    assert done.returncode == 1
    assert "the image was not signed by the provided keys" in done.stderr
    done = run_peer(tmp_path, release, published.reference("gadget", name="bare"))
    assert done.returncode == 1
    assert "signing information" in done.stderr


@pytest.mark.timeout(900)
def test_imports_an_archive(published: Published, tmp_path: Path) -> None:
    """As `ig image import`: the archive names the image by its whole reference."""
    archive = published.project / "out-gadget-counter.tar"
    done = run_peer(tmp_path, "-", published.reference("gadget"), archive)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objects"] == [published.object_digest]
