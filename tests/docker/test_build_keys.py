# SPDX-License-Identifier: Apache-2.0
"""Keys on a real engine: rotated, wrong, missing, encrypted, and from the environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from labs.engine import REPOSITORY, docker, has_image, read_objects
from labs.project import EPOCH, Project

TAG = f"{REPOSITORY}/keys:1"


def plain_build(project: Project, key: str, tag: str) -> subprocess.CompletedProcess[str]:
    """Build the rendered Dockerfile with plain buildx and secret *key*."""
    text = project.run("render", "--prepared", "--arch", "amd64").stdout
    argv = ["docker", "buildx", "build", "--tag", tag, "--platform", "linux/amd64", "--file", "-"]
    argv += ["--secret", f"id=signing-key,src={key}"] if key else []
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    return subprocess.run(
        [*argv, "."],
        cwd=project.root,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("where", ["builder", "host"])
def test_rotated_key_signs_anew(project: Project, tmp_path: Path, where: str) -> None:
    """After a rotation no cached signature is reused, though no source, size or time changed."""
    old = project.build("--arch", "amd64", "--tag", TAG, "--sign-on", where)
    assert project.run("keygen", "new").code == 0
    new = project.build("--arch", "amd64", "--tag", TAG, "--key", "keys/new.pem", "--sign-on", where)
    assert new["keyId"] != old["keyId"]
    for name, data in read_objects(TAG).items():
        (tmp_path / name).write_bytes(data)
        assert project.run("verify", tmp_path / name, "--trust", "keys/new.pub").code == 0
        assert project.run("verify", tmp_path / name, "--trust", "keys/dev.pub").code == 3
    docker("run", "--rm", "--network", "none", TAG, "--verify-only")


@pytest.mark.parametrize("key", ["keys/other.pem", ""])
def test_wrong_or_missing_secret_builds_nothing(project: Project, key: str) -> None:
    """Another key than the one that the Dockerfile names, or none, fails the build."""
    assert project.run("keygen", "other").code == 0
    tag = TAG + "-wrong"
    done = plain_build(project, key, tag)
    assert done.returncode != 0
    assert ("expected" if key else "signing-key: not found") in done.stderr
    assert not has_image(tag)


def test_key_of_the_environment_signs(project: Project) -> None:
    """A build signs with the key of the environment, as in CI, without a key file."""
    pem = (project.root / "keys/dev.pem").read_text()
    files = {name: str(project.root / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    (project.root / "keys/dev.pem").unlink()
    built = project.build("--arch", "amd64", "--tag", TAG + "-env", BUILDTOOL_SIGNING_KEY=pem, **files)
    outputs = (project.root / "GITHUB_OUTPUT").read_text()
    lines = outputs.splitlines()
    assert {f"image={TAG}-env", f"digest={built['digest']}", f"key-id={built['keyId']}"} < {*lines}
    assert not [line for line in lines if "PRIVATE" in line]
    assert built["digest"] in (project.root / "GITHUB_STEP_SUMMARY").read_text()


def test_encrypted_key_signs_with_its_passphrase_only(project: Project) -> None:
    """The passphrase reaches the signer as a secret; without it the build fails."""
    passphrase = "correct horse"
    made = project.run("keygen", "locked", "--passphrase", BUILDTOOL_KEY_PASSPHRASE=passphrase)
    if made.code != 0:
        argv = ["openssl", "pkcs8", "-topk8", "-in", "keys/dev.pem", "-out", "keys/locked.pem"]
        subprocess.run([*argv, "-passout", f"pass:{passphrase}"], cwd=project.root, check=True)
        (project.root / "keys/locked.pem").chmod(0o600)
    arguments = ("--arch", "amd64", "--tag", TAG + "-locked", "--key", "keys/locked.pem")
    without = project.run("build", *arguments)
    assert without.code == 1
    assert "passphrase" in without.stderr
    wrong = project.run("build", *arguments, BUILDTOOL_KEY_PASSPHRASE="no")
    assert wrong.code == 1
    assert "wrong passphrase" in wrong.stderr
    done = project.run("-v", "build", *arguments, BUILDTOOL_KEY_PASSPHRASE=passphrase)
    assert done.code == 0, done.stderr
    assert passphrase not in done.stderr
