# SPDX-License-Identifier: Apache-2.0
"""Files and pages for CI systems: the vendors' schemas accept them, inputs exist, and their scripts run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.image import read_image
from labs.sig import TEST_KEY
from ruamel.yaml import YAML

from buildtool.signing.keys import load_signing_key_pem

PAGES = TOP / "docs/how-to"
ACTION = TOP / "action.yml"
COMPONENT = TOP / "templates/image.yml"
# A step or a job alone, which pages show without what stands around it.
WORKFLOW = "on: push\njobs:\n  job:\n    runs-on: ubuntu-24.04\n    steps:\n"


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of *language* in *page*."""
    text = (PAGES / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def workflows() -> dict[str, str]:
    """Return the workflows of this tree and of the page, by name."""
    found = {
        str(path.relative_to(TOP)): path.read_text()
        for path in (
            *TOP.glob(".github/workflows/*.yml"),
            *TOP.glob("templates/init/.github/workflows/*.yml"),
        )
    }
    for number, text in enumerate(blocks("ci-github.md", "yaml")):
        whole = text if text.startswith("on:") else WORKFLOW + re.sub("^", " " * 6, text, flags=re.MULTILINE)
        found[f"block {number} of ci-github.md"] = whole
    return found


def read(text: str) -> Any:
    """Read YAML."""
    return YAML(typ="safe", pure=True).load(text)


def check_schema(schema: str, texts: Iterable[str], place: Path, *options: str) -> None:
    """Check *texts* with the *schema* of a vendor, which check-jsonschema carries. *place* is a directory."""
    program = shutil.which("check-jsonschema", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs-tool: check-jsonschema")
    files = []
    for number, text in enumerate(texts):
        files.append(place / f"{schema}-{number}.yml")
        files[-1].write_text(text)
    assert files
    argv = [program, "--builtin-schema", f"vendor.{schema}", *options, *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.tools
def test_schemas_of_the_vendors(tmp_path: Path) -> None:
    """The action, all workflows, the jobs of the page for GitLab, and the pipeline for Buildkite."""
    check_schema("github-actions", [ACTION.read_text()], tmp_path)
    check_schema("github-workflows", workflows().values(), tmp_path)
    check_schema("gitlab-ci", blocks("ci-gitlab.md", "yaml"), tmp_path, "--data-transform", "gitlab-ci")
    check_schema("buildkite", blocks("ci-buildkite.md", "yaml"), tmp_path)


@pytest.mark.tools
def test_a_schema_finds_a_job_with_a_reserved_name(tmp_path: Path) -> None:
    """The check above would find the job called image that the page once had."""
    text = "image:\n  image: python:3.13-slim\n  script: [buildtool build]\n"
    with pytest.raises(AssertionError):
        check_schema("gitlab-ci", [text], tmp_path)


def inputs_of_action() -> Mapping[str, Any]:
    """Return the inputs of the action."""
    found: Mapping[str, Any] = read(ACTION.read_text())["inputs"]
    return found


def test_every_input_and_output_of_the_action_is_documented() -> None:
    """The page has a row for each, in no other words; its examples use no other."""
    page = (PAGES / "ci-github.md").read_text("utf-8")
    for title, names in (
        ("## Inputs", inputs_of_action()),
        ("## Outputs", read(ACTION.read_text())["outputs"]),
    ):
        rows = re.findall(r"^\| (`.*?`) \|", page.partition(title)[2].partition("\n## ")[0], re.MULTILINE)
        assert sorted(re.findall(r"`([^`]+)`", " ".join(rows))) == sorted(names)
    for text in workflows().values():
        steps = [step for job in read(text)["jobs"].values() for step in job["steps"]]
        for step in steps:
            if step.get("uses", "").startswith("OWNER/buildtool@"):
                assert step.get("with", {}).keys() <= inputs_of_action().keys()


def test_every_input_of_the_action_reaches_a_script() -> None:
    """Each input is the variable of a script, and no script names another one."""
    text = ACTION.read_text()
    used = set(re.findall(r"\$\{\{ inputs\.([a-z-]+) \}\}", text)) | {"install"}
    assert used == inputs_of_action().keys()
    assert "BUILDTOOL_SIGNING_KEY" not in " ".join(inputs_of_action())


def test_every_input_of_the_component_is_documented() -> None:
    """The page has a row for each; its example uses no other."""
    spec, job = YAML(typ="safe", pure=True).load_all(
        COMPONENT.read_text().replace("$[[", "${{").replace("]]", "}}")
    )
    page = (PAGES / "ci-gitlab.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("| input |")[2].partition("\n## ")[0], re.MULTILINE)
    names = spec["spec"]["inputs"].keys()
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == names
    assert set(re.findall(r"\$\[\[ inputs\.([a-z-]+) \]\]", COMPONENT.read_text())) == names
    assert len(job) == 1
    example = read(blocks("ci-gitlab.md", "yaml")[0])["include"][0]
    assert example["inputs"].keys() <= names


@pytest.mark.tools
def test_scripts_have_no_mistake_that_shellcheck_knows(tmp_path: Path) -> None:
    """The scripts of the action, of the component, and of the pages."""
    if shutil.which("shellcheck") is None:
        pytest.skip("needs-tool: shellcheck")
    steps = read(ACTION.read_text())["runs"]["steps"]
    scripts = {"bash": [step["run"] for step in steps if "run" in step]}
    _, job = YAML(typ="safe", pure=True).load_all(
        COMPONENT.read_text().replace("$[[", "${{").replace("]]", "}}")
    )
    (body,) = job.values()
    scripts["sh"] = [*body["script"], *jenkins_scripts(), *buildkite_scripts()]
    # SC2153: the variables of inputs are set outside of the script.
    for shell, texts in scripts.items():
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / f"{shell}-{number}")
            files[-1].write_text(f"#!/bin/{shell}\n{text}")
        argv = ["shellcheck", "--exclude", "SC2153", "--shell", shell, *map(str, files)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def jenkins_scripts() -> list[str]:
    """Return the scripts of the Jenkinsfile."""
    (text,) = blocks("ci-jenkins.md", "groovy")
    return re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)


def buildkite_scripts() -> list[str]:
    """Return the commands of the pipeline, as Buildkite gives them to the shell."""
    (text,) = blocks("ci-buildkite.md", "yaml")
    return [step["command"].replace("$$", "$") for step in read(text)["steps"]]


AGENT = """\
#!/bin/sh
# Stands for Buildkite's agent, which needs a server: only its arguments and its input are of interest.
printf '%s\\n' "$*" >> agent.log
[ "$1" = annotate ] && cat >> agent.log
exit 0
"""


@pytest.mark.tools
@pytest.mark.parametrize("system", ["jenkins", "buildkite"])
def test_scripts_of_pages_run(project: Path, tmp_path: Path, system: str) -> None:
    """All lines but those that install buildtool, in order; the image is signed by the secret's key."""
    tools = project / ".buildtool/bin"
    tools.mkdir(parents=True)
    (tools / "buildtool").write_text(f'#!/bin/sh\nexec {sys.executable} -m buildtool "$@"\n')
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/buildkite-agent").write_text(AGENT)
    for program in (tools / "buildtool", tmp_path / "agent/buildkite-agent"):
        program.chmod(0o755)
    key = tmp_path / "secret.pem"
    key.write_text(TEST_KEY.read_text())
    key.chmod(0o400)
    secret = {"SIGNING_KEY": str(key)} if system == "jenkins" else {"BUILDTOOL_SIGNING_KEY": key.read_text()}
    environment = {
        **os.environ,
        **secret,
        "PYTHONPATH": str(TOP),
        "PATH": f"{tmp_path / 'agent'}:{os.environ['PATH']}",
    }
    for text in jenkins_scripts() if system == "jenkins" else buildkite_scripts():
        lines = [line for line in text.splitlines() if "-m venv" not in line and "bin/pip " not in line]
        argv = ["sh", "-euc", "\n".join(lines)]
        done = subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    ((image, _),) = read_image(project / "image.tar").values()
    public = load_signing_key_pem(TEST_KEY.read_bytes(), "the secret", None).public
    variables = (project / "image.env").read_text().splitlines()
    assert f"BUILDTOOL_KEY_ID={public.key_id}" in variables
    assert (
        f"BUILDTOOL_DIGEST_LINUX_{image.platform.partition('/')[2].upper()}=sha256:{image.digest}"
        in variables
    )
    assert "### Signed eBPF image" in (project / "summary.md").read_text()
    if system == "buildkite":
        agent = (project / "agent.log").read_text()
        assert "annotate --style success --context ebpf-image\n### Signed eBPF image" in agent
        assert "meta-data set ebpf-image-digest sha256:" in agent


def test_the_groovy_of_the_page_is_not_read_by_jenkins() -> None:
    """No linter of Jenkinsfiles runs without a server; brackets and quotes are at least balanced."""
    (text,) = blocks("ci-jenkins.md", "groovy")
    outside = re.sub(r"'''.*?'''", "", text, flags=re.DOTALL)
    assert outside.count("{") == outside.count("}")
    assert outside.count("'") % 2 == 0
