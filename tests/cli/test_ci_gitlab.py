# SPDX-License-Identifier: Apache-2.0
"""The component for GitLab CI, run by gitlab-ci-local: artifacts, reports, refusals, and the key."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from labs import TOP
from labs.gitlab import provide_gitlab, run_pipeline
from labs.image import read_image
from labs.project import EPOCH, make_local_project
from labs.registry import LOGIN, FaultyRegistry, faulty
from ruamel.yaml import YAML

pytestmark = [pytest.mark.tools, pytest.mark.network]

KEY = TOP / "tests/keys/TEST-KEY-alice.pem"
PIPELINE = """\
include:
  - local: templates/image.yml
    inputs:
      job: net
      directory: agents/net
      install: ""
      output: image.tar
      platforms: amd64 arm64
      tags: plant/agent:7 plant/agent:latest
      labels: org.example.line=press-4
      rules: [{when: always}]
  - local: templates/image.yml
    inputs:
      job: broken
      directory: agents/broken
      install: ""
      output: image.tar
      platforms: amd64
      rules: [{when: manual}]
  - local: templates/image.yml
    inputs:
      job: pushed
      directory: agents/net
      install: ""
      platforms: amd64
      tags: $REGISTRY/plant/agent:7
      rules: [{when: manual}]
deploy:
  stage: deploy
  needs: [net]
  script:
    - echo "$BUILDTOOL_IMAGE by $BUILDTOOL_DIGEST, arm64 $BUILDTOOL_DIGEST_LINUX_ARM64"
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory, clang: Path, carried_headers: Path) -> dict[str, str]:
    """Return the environment of the jobs: this tree, parts of images, and the key."""
    work = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        make_local_project(work, patch)
        loaders = os.environ["BUILDTOOL_LOADERS"]
    return {
        "BUILDTOOL_LOADERS": loaders,
        "BUILDTOOL_HEADERS": str(carried_headers),
        "BUILDTOOL_CLANG": str(clang),
        "BUILDTOOL_CACHE": str(work / "cache"),
        "BUILDTOOL_SIGNING_KEY": KEY.read_text(),
        "SOURCE_DATE_EPOCH": EPOCH,
        "PYTHONPATH": str(TOP),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a repository with two projects, of which one does not compile."""
    root = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        project = make_local_project(tmp_path_factory.mktemp("project"), patch)
    for name in ("net", "broken"):
        shutil.copytree(project, root / "agents" / name, ignore=shutil.ignore_patterns("keys"))
    (root / "agents/broken/bpf/answer.bpf.c").write_text('#include "answer.h"\nint broken = ;\n')
    (root / "templates").mkdir()
    shutil.copy(TOP / "templates/image.yml", root / "templates")
    (root / ".gitlab-ci.yml").write_text(PIPELINE)
    return root


@pytest.fixture(scope="module")
def ran(repository: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the pipeline once."""
    return run_pipeline(provide_gitlab(), repository, "--force-shell-executor", environ=environ)


def test_a_later_job_has_the_digests(ran: subprocess.CompletedProcess[str], repository: Path) -> None:
    """The variables of the dotenv report are those of the image in the artifacts."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    images = read_image(repository / "ebpf-image/image.tar")
    assert list(images) == ["linux/amd64", "linux/arm64"]
    for image, _ in images.values():
        assert image.config["config"]["Labels"]["org.example.line"] == "press-4"
    arm64 = images["linux/arm64"][0].digest
    variables = dict(
        line.split("=", 1) for line in (repository / "ebpf-image/image.env").read_text().splitlines()
    )
    assert variables["BUILDTOOL_DIGEST_LINUX_ARM64"] == f"sha256:{arm64}"
    assert f"> plant/agent:7 by {variables['BUILDTOOL_DIGEST']}, arm64 sha256:{arm64}\n" in ran.stdout


def test_reports_are_of_the_form_that_gitlab_reads(
    ran: subprocess.CompletedProcess[str], repository: Path
) -> None:
    """The bill of materials is valid CycloneDX, and a good build has an empty report of code quality."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = (repository / "ebpf-image/image.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads((repository / "ebpf-image/code-quality.json").read_text()) == []


def test_the_key_is_nowhere(ran: subprocess.CompletedProcess[str], repository: Path) -> None:
    """Neither output nor artifacts hold a line of the key."""
    body = [line for line in KEY.read_text().splitlines() if not line.startswith("-----")]
    assert body
    files = [path.read_bytes() for path in (repository / "ebpf-image").iterdir()]
    for line in body:
        assert line not in ran.stdout + ran.stderr
        assert not [data for data in files if line.encode() in data]


def test_compiler_errors_are_in_the_report(
    ran: subprocess.CompletedProcess[str], repository: Path, environ: dict[str, str]
) -> None:
    """The failed job leaves a report with the line, counted from the top of the repository."""
    assert ran.returncode == 0  # another run at the same time would share its directory
    failed = run_pipeline(provide_gitlab(), repository, "broken", "--force-shell-executor", environ=environ)
    assert failed.returncode != 0
    (entry,) = json.loads((repository / "ebpf-image/code-quality.json").read_text())
    assert entry["location"] == {"path": "agents/broken/bpf/answer.bpf.c", "lines": {"begin": 2}}
    assert (entry["severity"], entry["check_name"]) == ("major", "clang")
    assert entry["description"] == "expected expression"


def test_without_the_key_nothing_is_built(
    ran: subprocess.CompletedProcess[str], repository: Path, environ: dict[str, str]
) -> None:
    """A branch that is not protected has no key, and the job says so."""
    assert ran.returncode == 0
    without = {name: value for name, value in environ.items() if name != "BUILDTOOL_SIGNING_KEY"}
    failed = run_pipeline(provide_gitlab(), repository, "net", "--force-shell-executor", environ=without)
    assert failed.returncode != 0
    assert "keys/dev.pem: no such file" in failed.stdout + failed.stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_installation_is_of_this_job_alone(tmp_path: Path, shell: str) -> None:
    """Another project's checkout may be beside this one, with any name. Nothing is left behind."""
    top, beside, temporary = tmp_path / "net", tmp_path / "net.venv", tmp_path / "temporary"
    for directory in (top, beside, temporary):
        directory.mkdir()
    (beside / "sources.c").touch()
    _, component = YAML(typ="safe").load_all(TOP / "templates/image.yml")
    (job,) = component.values()
    script = job["script"][0].replace('cd "$EBPF_DIRECTORY"', "command -v pip; ls $DOCKER_CONFIG; exit")
    environ = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(temporary),
        "EBPF_INSTALL": "pip",  # which is there already
        "CI_REGISTRY": "registry.example.invalid",
        "CI_REGISTRY_USER": LOGIN[0],
        "CI_REGISTRY_PASSWORD": LOGIN[1],
    }
    done = subprocess.run(
        [shell, "-c", script], cwd=top, env=environ, check=True, capture_output=True, text=True
    )
    installed, credentials = done.stdout.splitlines()
    assert Path(installed).is_relative_to(temporary)
    assert credentials == "config.json"
    assert [path.name for path in beside.iterdir()] == ["sources.c"]
    assert list(temporary.iterdir()) == []


def test_the_job_pushes_with_its_own_credentials(
    ran: subprocess.CompletedProcess[str], repository: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """The registry lets the job in by CI_REGISTRY_PASSWORD, and the password stays in no file."""
    assert ran.returncode == 0
    (tmp_path / "temporary").mkdir()
    with faulty("bearer") as address:
        own = {
            "REGISTRY": address,
            "CI_REGISTRY": address,
            "CI_REGISTRY_USER": LOGIN[0],
            "CI_REGISTRY_PASSWORD": LOGIN[1],
            "TMPDIR": str(tmp_path / "temporary"),
        }
        variables = [word for name, value in own.items() for word in ("--variable", f"{name}={value}")]
        done = run_pipeline(
            provide_gitlab(), repository, "pushed", "--force-shell-executor", *variables, environ=environ
        )
        assert done.returncode == 0, done.stdout + done.stderr
        tags = [name for name in FaultyRegistry.manifests if not name.startswith("sha256:")]
    digest = re.search(
        r"^BUILDTOOL_DIGEST=sha256:(\w+)$", (repository / "ebpf-image/image.env").read_text(), re.MULTILINE
    )
    assert digest is not None
    assert {"7", f"sha256-{digest[1]}.sig"} <= set(tags)
    components = json.loads((repository / "ebpf-image/image.cdx.json").read_text())["components"]
    assert "answer.bpf.o" in [item["name"].rpartition("/")[2] for item in components]
    assert list((tmp_path / "temporary").glob("**/config.json")) == []
