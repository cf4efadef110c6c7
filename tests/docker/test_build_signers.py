# SPDX-License-Identifier: Apache-2.0
"""Builds with an external signer on a real engine: the same objects, and no key in the builder."""

from __future__ import annotations

import json
import re
import subprocess

from labs import TOP
from labs.engine import REPOSITORY, docker, read_objects
from labs.project import Project

TAG = f"{REPOSITORY}/signers:1"


def write_signer(project: Project) -> str:
    """Write an external signer as in spec/exec-signer.md; return its address."""
    page = (TOP / "spec/exec-signer.md").read_text()
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", page, re.DOTALL)
    (project.root / "signer").write_text(script)
    (project.root / "signer").chmod(0o755)
    return "exec:./signer keys/dev.pem"


def test_a_program_signs_what_the_builder_compiled(project: Project) -> None:
    """An external signer signs the builder's objects, and the image's loader accepts them."""
    signer = write_signer(project)
    by_file = project.build("--arch", "amd64", "--tag", TAG, "--sign-on", "host")
    wanted = read_objects(TAG)
    by_program = project.build("--arch", "amd64", "--tag", TAG, "--sign-on", "host", "--key", signer)
    assert by_program["keyId"] == by_file["keyId"]
    assert by_program["digest"] == by_file["digest"]
    assert read_objects(TAG) == wanted
    docker("run", "--rm", "--network", "none", TAG, "--verify-only")


def test_external_signer_in_the_builder_is_an_error(project: Project) -> None:
    """An external signer with signing in the builder is one error line with a hint."""
    done = project.run("build", "--arch", "amd64", "--key", write_signer(project))
    assert done.code == 2
    assert "cannot sign in a builder" in done.stderr


def test_images_of_a_rotation_under_a_policy_of_the_host(project: Project) -> None:
    """During the overlap both images run; after the old key is revoked, only the new one runs."""
    old, new = TAG, TAG.replace(":1", ":2")
    assert project.run("keygen", "new").code == 0
    old_id = project.build("--arch", "amd64", "--tag", old)["keyId"]
    project.build("--arch", "amd64", "--tag", new, "--key", "keys/new.pem")
    policy = project.root / "host"
    policy.mkdir()

    def run(image: str) -> tuple[int, str]:
        mount = f"type=bind,src={policy},dst=/etc/buildtool/trust.host,readonly"
        argv = ["docker", "run", "--rm", "--network", "none", "--mount", mount, image, "--verify-only"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        reasons = {json.loads(line).get("reason") for line in done.stderr.splitlines() if line[:1] == "{"}
        return done.returncode, " ".join(sorted(reasons - {None}))

    def trust(*arguments: str) -> None:
        done = project.run("trust", *arguments, "--policy", policy / "policy.json")
        assert done.code == 0, done.stderr

    trust("add", "keys/dev.pub")
    assert (run(old), run(new)) == ((0, ""), (3, "unknown-key"))
    trust("add", "keys/new.pub")
    assert (run(old), run(new)) == ((0, ""), (0, ""))
    trust("revoke", old_id)
    assert (run(old), run(new)) == ((3, "revoked"), (0, ""))
    trust("remove", old_id)
    assert (run(old), run(new)) == ((3, "unknown-key"), (0, ""))
