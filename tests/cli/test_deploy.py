# SPDX-License-Identifier: Apache-2.0
"""`deploy`: what a finished image needs, as files whose readers find these values and nothing else."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from labs.cli import check_error
from labs.peers import PODMAN, find_helm, unpack
from labs.project import make_local_project
from labs.registry import run_registry

from buildtool.cli.main import run
from buildtool.compile.headers import HEADERS_VARIABLE
from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.core.yamltext import quote_scalar
from buildtool.deploy.compose import write_compose
from buildtool.deploy.helm import chart_files
from buildtool.deploy.kubernetes import Cluster, write_pod
from buildtool.deploy.limits import Limits
from buildtool.deploy.needs import Choices, plan_deployment, plan_image
from buildtool.deploy.quadlet import write_unit
from buildtool.image.inspect import ImageReport, inspect_stored
from buildtool.image.metadata import Entrypoint, parse_entrypoint
from buildtool.oci.read import open_layout
from buildtool.signing.keys import generate_key

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024); __type(key, __u32);
         __type(value, __u64); } counts SEC(".maps");
SEC("xdp") int count_xdp(void *c) { __u32 k = 0; return bpf_map_lookup_elem(&counts, &k) ? 2 : 1; }
SEC("cgroup/connect4") int on_connect(void *c) { return 1; }
SEC("raw_tp/sched_switch") int on_switch(void *c) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
KUBERNETES = ("1.28", "1.32", "1.37")
REFERENCE = ("--reference", "registry.example/plant/agent:1.2.0")
ALL = ("--attach", "count_xdp=eth0", "--attach", "on_connect=/sys/fs/cgroup/agents")
NONE = ("--attach", "count_xdp=none", "--attach", "on_connect=none")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, clang: Path, carried_headers: Path) -> dict[str, Path]:
    """Build images with and without pins, and with a workload; return their archives."""
    assert clang
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HEADERS_VARIABLE, str(carried_headers))
        for name, more in (
            ("plain", ""),
            ("pins", '[loader]\npin-root = "/run/pins"\nstate = "/var/lib/buildtool/state"\n'),
            ("more", '[image]\ncapabilities = ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"]\n'),
            (
                "settable",
                '[load.settable."answer.bpf.o"]\ncounts = { min-entries = 1, max-entries = 1048576 }\n',
            ),
            ("bare", "[image]\nfile-capabilities = false\n"),
            ("workload", '[image]\nworkload = ["/usr/bin/agent", "--serve"]\n'),
        ):
            root = make_local_project(tmp_path_factory.mktemp(name), patch)
            (root / "bpf/answer.bpf.c").write_text(SOURCE)
            config = root / "buildtool.toml"
            config.write_text(config.read_text() + more)
            archive = root.parent / "agent.oci.tar"
            build = ["build", "--engine", "local", "--arch", "amd64", "--arch", "arm64"]
            assert run([*build, "--output", str(archive)]) == 0
            found[name] = archive
    return found


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_CACHE", str(tmp_path / "cache"))


def report(places: dict[str, str]) -> ImageReport:
    """Return a report on an image without objects whose loader has *places*."""
    return ImageReport(
        reference="agent:1",
        digest="",
        platform="linux/amd64",
        labels={},
        entrypoint=Entrypoint(places=places),
        objects=(),
        user="65532:65532",
    )


def deploy(capsys: Capture, kind: str, image: Path, *options: str) -> str:
    """Run `deploy` without an error, and return what it wrote."""
    capsys.readouterr()
    assert run(["deploy", kind, str(image), *REFERENCE, *options]) == 0
    return capsys.readouterr().out


def manifests(text: str) -> list[dict[str, Any]]:
    """Return the manifests of *text*, which are strictly valid for several releases of Kubernetes."""
    found = list(yaml.safe_load_all(text))
    for manifest in found:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)
    return found


def test_daemon_set(images: dict[str, Path], capsys: Capture) -> None:
    """Restricted but for the capabilities; the host's network and groups for the programs that need them."""
    (daemons,) = manifests(deploy(capsys, "kubernetes", images["plain"], *ALL, "--namespace", "agents"))
    assert daemons["metadata"] == {
        "name": "agent",
        "namespace": "agents",
        "labels": {"app.kubernetes.io/name": "agent"},
    }
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == REFERENCE[1]
    assert container["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
    }
    assert (pod["hostNetwork"], pod["automountServiceAccountToken"]) == (True, False)
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert container["args"] == [
        *("--attach", "count_xdp=eth0"),
        *("--attach", "answer.bpf.o:on_connect=/run/cgroup/agents"),
    ]
    assert container["volumeMounts"] == [{"name": "host-0", "mountPath": "/run/cgroup", "readOnly": True}]
    assert pod["volumes"] == [{"name": "host-0", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}}]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    (nodes,) = term["matchExpressions"]
    assert nodes["values"] == ["amd64", "arm64"]
    assert container["resources"]["limits"] == {"memory": "65Mi"}
    assert "livenessProbe" not in container


def test_no_program_on_the_network(images: dict[str, Path], capsys: Capture) -> None:
    """Without a target on an interface there is no host network, in any form."""
    (daemons,) = manifests(deploy(capsys, "kubernetes", images["plain"], *NONE))
    pod = daemons["spec"]["template"]["spec"]
    assert "hostNetwork" not in pod
    assert "volumes" not in pod
    service = yaml.safe_load(deploy(capsys, "compose", images["plain"], *NONE))["services"]["agent"]
    assert service["network_mode"] == "none"
    with_workload = yaml.safe_load(deploy(capsys, "compose", images["workload"], *NONE))["services"]["agent"]
    assert "network_mode" not in with_workload
    assert " --network none " in deploy(capsys, "run", images["plain"], *NONE)


def test_pins_and_state(images: dict[str, Path], capsys: Capture) -> None:
    """A pod's directories of a node belong to root; elsewhere they are made for the image's user."""
    (daemons,) = manifests(deploy(capsys, "kubernetes", images["pins"], *NONE))
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["securityContext"]["runAsUser"], container["securityContext"]["runAsNonRoot"]) == (
        0,
        False,
    )
    paths = [volume["hostPath"] for volume in pod["volumes"]]
    assert paths == [
        {"path": "/sys/fs/bpf/agent", "type": "DirectoryOrCreate"},
        {"path": "/var/lib/agent", "type": "DirectoryOrCreate"},
    ]
    status = ["/usr/bin/verify-and-load", "status", "--pin-root", "/run/pins"]
    assert container["livenessProbe"]["exec"]["command"] == status
    assert container["readinessProbe"]["exec"]["command"] == status
    text = deploy(capsys, "compose", images["pins"], *NONE)
    assert "# once, as root of the host: install -d -m 0700 -o 65532 -g 65532 /sys/fs/bpf/agent\n" in text
    service = yaml.safe_load(text)["services"]["agent"]
    assert service["healthcheck"]["test"] == ["CMD", *status]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [volume["target"] for volume in service["volumes"]] == ["/run/pins", "/var/lib/buildtool/state"]
    assert not any(volume.get("read_only") for volume in service["volumes"])
    (pod,) = manifests(deploy(capsys, "podman", images["pins"], *NONE, "--name", "other"))
    assert (pod["kind"], pod["metadata"]["name"]) == ("Pod", "other")
    assert pod["spec"]["volumes"][0]["hostPath"]["path"] == "/sys/fs/bpf/other"


def test_script(images: dict[str, Path], capsys: Capture) -> None:
    """The script makes directories and starts the container with the options of all other forms."""
    lines = deploy(capsys, "run", images["pins"], *ALL, "--cpus", "0.5", "--cpuset", "0-1").splitlines()
    words = shlex.split(lines[-1])
    assert words[:3] == ["exec", "docker", "run"]
    for option in (["--read-only"], ["--security-opt", "no-new-privileges"], ["--network", "host"]):
        at = words.index(option[0])
        assert words[at : at + len(option)] == option
    assert words[words.index("--cpus") + 1] == "0.5"
    assert words[words.index("--cpuset-cpus") + 1] == "0-1"
    assert lines[0] == "#!/bin/sh"
    assert "install -d -m 0700 -o 65532 -g 65532 /var/lib/agent" in lines


def test_limits(images: dict[str, Path], capsys: Capture) -> None:
    """A workload's memory is not known. What is asked for is written; whole processors are guaranteed."""
    text = deploy(capsys, "kubernetes", images["workload"], *NONE)
    (daemons,) = manifests(text)
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert "limits" not in container["resources"]
    assert "# limits: what the workload takes is not known" in text
    asked = ("--cpus", "2", "--memory", "256m")
    (daemons,) = manifests(deploy(capsys, "kubernetes", images["workload"], *NONE, *asked))
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "256Mi"}
    service = yaml.safe_load(deploy(capsys, "compose", images["workload"], *NONE, *asked, "--cpuset", "2,3"))[
        "services"
    ]["agent"]
    assert (service["cpuset"], service["cpus"], service["mem_limit"]) == ("2,3", 2, "256m")


def test_settings_of_the_loader(images: dict[str, Path], capsys: Capture) -> None:
    """What the signed bounds allow is passed on, and counts for the memory; anything else is an error now."""
    options = (*NONE, "--map-entries", "answer.bpf.o:counts=1048576")
    (daemons,) = manifests(deploy(capsys, "kubernetes", images["settable"], *options))
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--map-entries", "answer.bpf.o:counts=1048576"]
    assert container["resources"]["limits"] == {"memory": "72Mi"}
    for image, setting, message in (
        ("settable", "counts=1048577", "counts"),
        ("settable", "other=1", "other"),
        ("plain", "counts=2", "counts"),
    ):
        command = ["deploy", "run", str(images[image]), *REFERENCE, *NONE, "--map-entries", setting]
        assert run(command) == 2
        check_error(capsys, message)


def test_trust_of_the_host(images: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    """A ConfigMap has the public keys; a mounted directory must hold no private one."""
    keys = images["plain"].parent / "project/keys"
    assert run(["keygen", "other", "--dir", "own"]) == 0
    pod_options = (*NONE, "--trust", "own/other.pub", "--priority-class", "agents")
    config, daemons = manifests(deploy(capsys, "kubernetes", images["plain"], *pod_options))
    assert config["metadata"]["name"] == "agent-trust"
    assert config["data"] == {"other.pub": Path("own/other.pub").read_text()}
    spec = daemons["spec"]["template"]["spec"]
    assert spec["priorityClassName"] == "agents"
    assert spec["volumes"] == [{"name": "trust", "configMap": {"name": "agent-trust"}}]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert mount == {"name": "trust", "mountPath": "/etc/buildtool/trust.host", "readOnly": True}
    for kind in ("compose", "run"):
        assert run(["deploy", kind, str(images["plain"]), *REFERENCE, *NONE, "--trust", "own"]) == 2
        check_error(capsys, "--trust own: other.pem is a private key, which the container would see")
        assert run(["deploy", kind, str(images["plain"]), *REFERENCE, *NONE, "--trust", "own/other.pub"]) == 2
        check_error(capsys, f"--trust own/other.pub: {kind} mounts a directory")
    Path("own/other.pem").unlink()
    service = yaml.safe_load(deploy(capsys, "compose", images["plain"], *NONE, "--trust", "own"))
    (volume,) = service["services"]["agent"]["volumes"]
    assert volume == {
        "type": "bind",
        "source": str(tmp_path / "own"),
        "target": "/etc/buildtool/trust.host",
        "read_only": True,
        "bind": {"create_host_path": False},
    }
    assert keys.exists()


def render_chart(chart: Path, *options: str) -> list[dict[str, Any]]:
    """Return what helm makes of *chart*, strictly valid for several releases of Kubernetes."""
    command = [find_helm(), "template", "first", chart, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return manifests(done.stdout)


def spec_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of DaemonSet *manifest* without what its owner chooses."""
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    for name in ("priorityClassName", "hostNetwork"):
        spec.setdefault(name, None)
    spec["hostNetwork"] = bool(spec["hostNetwork"])
    for container in spec["containers"]:
        container["name"], container["imagePullPolicy"] = "agent", "IfNotPresent"
        for mount in container.get("volumeMounts", []):
            mount.setdefault("readOnly", False)
    return spec


@pytest.mark.parametrize("image", ["plain", "pins", "workload"])
@pytest.mark.parametrize(
    "more", [(), ("--trust", "other.pub"), ("--priority-class", "agents", "--cpus", "2")]
)
def test_chart_gives_the_same_pod(
    image: str, more: tuple[str, ...], images: dict[str, Path], capsys: Capture
) -> None:
    """Helm finds no fault, and makes of the chart's own values what kind kubernetes writes."""
    assert run(["keygen", "other", "--dir", "."]) == 0
    for targets in (ALL, NONE):
        options = (*targets, *more)
        *_, daemons = manifests(deploy(capsys, "kubernetes", images[image], *options))
        deploy(capsys, "helm", images[image], *options, "-o", "chart", "--force")
        done = subprocess.run([find_helm(), "lint", "--strict", "chart"], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
        *_, rendered = render_chart(Path("chart"))
        theirs, ours = spec_of(rendered), spec_of(daemons)
        for volume in (*theirs.get("volumes", []), *ours.get("volumes", [])):
            volume.pop("configMap", None)
        assert theirs == ours


def test_chart_takes_values_of_its_schema_only(images: dict[str, Path], capsys: Capture) -> None:
    """A misspelt or wrong value, and a user who could not write, are errors of helm."""
    deploy(capsys, "helm", images["pins"], *NONE, "-o", "chart", "--explain")
    assert (yaml.safe_load(Path("chart/Chart.yaml").read_text())["version"]) == "1.2.0"
    for options, message in (
        (("--set", "hostnetwork=true"), "hostnetwork"),
        (("--set", "capabilities={all}"), "capabilities"),
        (("--set", "user=65532"), "belong to root of the node"),
        (("--set-string", "image="), "image"),
    ):
        command = [find_helm(), "template", "first", "chart", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert message in done.stderr
    *_, first = render_chart(Path("chart"), "--set-string", "trust.a\\.pub=one")
    *_, second = render_chart(Path("chart"), "--set-string", "trust.a\\.pub=two")
    notes = [
        each["spec"]["template"]["metadata"]["annotations"]["buildtool/trust"] for each in (first, second)
    ]
    assert notes[0] != notes[1]


def test_chart_is_written_whole_or_not_at_all(images: dict[str, Path], capsys: Capture) -> None:
    """Nothing of a chart that exists is replaced without --force."""
    command = ["deploy", "helm", str(images["plain"]), *REFERENCE, *NONE]
    assert run(command) == 2
    check_error(capsys, "a chart is a directory")
    Path("chart").mkdir()
    Path("chart/values.yaml").write_text("mine: 1\n")
    assert run([*command, "-o", "chart"]) == 1
    check_error(capsys, "chart/values.yaml: already exists")
    assert [path.name for path in Path("chart").iterdir()] == ["values.yaml"]
    assert run([*command, "-o", "chart", "--force"]) == 0
    assert "next: helm upgrade --install NAME chart" in capsys.readouterr().err


def start_of_unit(text: str, tmp_path: Path) -> list[str]:
    """Return the command that Quadlet of Debian trixie makes of unit *text*, as systemd splits it."""
    (tmp_path / "agent.container").write_text(text)
    tree = unpack("trixie", PODMAN)
    libraries = next(tree.glob("usr/lib/*/libc.so.6")).parent
    linker = next(libraries.glob("ld-linux*.so*"))
    command = [linker, "--library-path", libraries, tree / "usr/libexec/podman/quadlet", "-dryrun"]
    environment = {"QUADLET_UNIT_DIRS": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
    return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]


def test_unit(images: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    """Quadlet starts podman with the options of the other forms; directories are made first."""
    text = deploy(capsys, "systemd", images["pins"], *ALL, "--cpus", "2", "--cpuset", "2-3")
    words = start_of_unit(text, tmp_path)
    assert words[-5:] == [
        REFERENCE[1],
        *("--attach", "count_xdp=eth0"),
        *("--attach", "answer.bpf.o:on_connect=/run/cgroup/agents"),
    ]
    for option in (
        *(["--security-opt=no-new-privileges"], ["--cap-drop", "all"], ["--cap-add", "cap_net_admin"]),
        *(["--read-only"], ["--user", "65532:65532"], ["--network", "host"], ["--cpuset-cpus=2-3"]),
        *(["-v", "/sys/fs/bpf/agent:/run/pins"], ["-v", "/sys/fs/cgroup:/run/cgroup:ro"]),
        ["--health-cmd", '["/usr/bin/verify-and-load", "status", "--pin-root", "/run/pins"]'],
    ):
        at = words.index(option[-1]) - len(option) + 1
        assert words[at : at + len(option)] == option
    assert "ExecStartPre=/usr/bin/install -d -m 0700 -o 65532 -g 65532 /var/lib/agent\n" in text
    plain = start_of_unit(deploy(capsys, "systemd", images["plain"], *NONE), tmp_path)
    assert plain[plain.index("--network") + 1] == "none"


@pytest.mark.tools
@pytest.mark.network
def test_unit_of_hostile_texts(tmp_path: Path) -> None:
    """Specifiers, variables and quotes of a target stay text; a place that Quadlet would split is refused."""
    text = 'p=%n $HOME ${X} "q" \\x \' ; # \t'
    found = plan_deployment([report({})], reference="agent:1", name="agent")
    found.plan.arguments = ["--attach", text]
    words = start_of_unit(write_unit(found, Limits(), trust="", explains=True), tmp_path)
    assert words[-2:] == ["--attach", text.replace("\t", "\\t")]
    for place in ("/run/a b", "/run/%n", "/run/a\n[Service]", "/run/$X", '/run/"'):
        with pytest.raises(UsageError, match="a unit of systemd cannot name this"):
            write_unit(
                plan_deployment([report({"--pin-root": place})], reference="agent:1", name="agent"),
                Limits(),
                trust="",
                explains=False,
            )


@pytest.mark.parametrize("kind", ["compose", "kubernetes", "podman"])
def test_reasons_are_comments(kind: str, images: dict[str, Path], capsys: Capture) -> None:
    """With --explain the file says the same, and why."""
    short = deploy(capsys, kind, images["pins"], *ALL)
    long = deploy(capsys, kind, images["pins"], *ALL, "--explain")
    assert list(yaml.safe_load_all(short)) == list(yaml.safe_load_all(long))
    assert long.count("# ") > short.count("# ") + 8


def test_file_and_json(images: dict[str, Path], capsys: Capture) -> None:
    """A file is written whole or not at all, and the next command is named."""
    command = ["deploy", "compose", str(images["plain"]), *REFERENCE, *NONE, "-o", "compose.yaml"]
    assert run(command) == 0
    assert "next: docker compose --file compose.yaml up --detach" in capsys.readouterr().err
    assert "services:" in Path("compose.yaml").read_text()
    assert run(command) == 1
    check_error(capsys, "compose.yaml: already exists")
    assert run([*command, "--force"]) == 0
    found = json.loads(deploy(capsys, "run", images["pins"], *ALL, "--json"))
    assert found["hostNetwork"] == ["count_xdp"]
    assert found["capabilities"] == ["BPF", "NET_ADMIN", "PERFMON"]
    assert [mount["target"] for mount in found["mounts"]] == [
        "/run/pins",
        "/var/lib/buildtool/state",
        "/run/cgroup",
    ]


def test_image_in_a_registry(images: dict[str, Path], capsys: Capture) -> None:
    """Its name in the registry is the one that hosts pull."""
    project = images["plain"].parent / "project"
    with run_registry() as address, pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("BUILDTOOL_LOADERS", str(project.parent / "parts"))
        name = f"{address}/agent:7"
        assert run(["build", "--engine", "local", "--push", "--tag", name, "--no-sign-image"]) == 0
        capsys.readouterr()
        assert run(["deploy", "podman", name, *NONE]) == 0
        (pod,) = manifests(capsys.readouterr().out)
        assert pod["spec"]["containers"][0]["image"] == name


@pytest.mark.parametrize("kind", ["run", "compose", "kubernetes", "podman"])
def test_more_capabilities_than_the_programs_need(
    kind: str, images: dict[str, Path], capsys: Capture
) -> None:
    """The label may ask for anything, so each form says what nothing in the image needs."""
    text = deploy(capsys, kind, images["more"], *NONE)
    assert "# SYS_ADMIN: by the image's label, and needed by none of the programs' types\n" in text
    assert "needed by none" not in deploy(capsys, kind, images["plain"], *NONE)
    assert run(["deploy", kind, str(images["more"]), *REFERENCE, *NONE, "-o", "file"]) == 0
    assert "SYS_ADMIN: by the image's label" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["on", "null", "123", "1e3", "0x1f"])
def test_name_that_yaml_takes_for_a_value(name: str, images: dict[str, Path], capsys: Capture) -> None:
    """It stays a name."""
    service = yaml.safe_load(deploy(capsys, "compose", images["plain"], *NONE, "--name", name))
    assert (service["name"], [*service["services"]]) == (name, [name])
    (pod,) = manifests(deploy(capsys, "podman", images["plain"], *NONE, "--name", name))
    assert pod["metadata"]["name"] == pod["spec"]["containers"][0]["name"] == name


@pytest.mark.parametrize("start", [*range(0, 0x3000, 0x400), 0xFC00, 0x1F000, 0x10FC00])
def test_any_text_stays_one_value(start: int) -> None:
    """No text of an image ends its scalar, or is another one to YAML."""
    text = "".join(map(chr, range(start, start + 0x400)))
    line = quote_scalar(text)
    assert line.isascii()
    assert "\n" not in line
    assert yaml.safe_load(f"a: [{line}]") == {"a": [text]}


@pytest.mark.parametrize("text", ["${HOME}", "$(HOME)", "$$", "a # b", "'\"", "\u2028\x85\x1b[31m", "\ud800"])
def test_texts_of_an_image_stay_texts(text: str) -> None:
    """Targets and places are whatever the image says: neither variables nor syntax."""
    found = plan_deployment([report({"--pin-root": f"/run/{text}"})], reference="agent:1", name="agent")
    said = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    service = yaml.safe_load(write_compose(found, Limits(), trust="", explains=True))["services"]["agent"]
    assert service["volumes"][0]["target"] == f"/run/{said}".replace("$", "$$")
    pod = yaml.safe_load(write_pod(found, Limits(), trust={}, explains=True))
    (container,) = pod["spec"]["containers"]
    command = container["livenessProbe"]["exec"]["command"]
    assert command[-1] == f"/run/{said}".replace("$(", "$$(")


def crafted(*options: str, **changes: Any) -> ImageReport:
    """Return an image without objects whose loader has *options*; *changes* are other members."""
    members: dict[str, Any] = {
        "reference": "agent:1",
        "digest": "",
        "platform": "linux/amd64",
        "labels": {},
        "entrypoint": parse_entrypoint(["/usr/bin/verify-and-load", *options]),
        "objects": (),
        "user": "65532:65532",
    }
    return ImageReport(**{**members, **changes})


@pytest.mark.parametrize("options", [(), ("--state", "/run/state")])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "0:0;touch ran #"}, "is no UID:GID in numbers"),
        ({"user": "0:0\nmount"}, "is no UID:GID in numbers"),
        ({"user": "nobody"}, "is no UID:GID in numbers"),
        ({"user": "0:"}, "is no UID:GID in numbers"),
        ({"platform": "linux"}, "an image for 'linux', not for Linux"),
        ({"platform": "windows/amd64"}, "not for Linux"),
        ({"unread": ("a.bpf.o",)}, "a.bpf.o: a link, or too large"),
    ],
)
def test_image_that_no_build_makes(options: tuple[str, ...], changes: dict[str, Any], message: str) -> None:
    """Nothing is written: a shell, an engine or a cluster would read its values as something else."""
    with pytest.raises(ObjectFormatError, match=re.escape(message)):
        plan_deployment([crafted(*options, **changes)], reference="agent:1", name="")


@pytest.mark.tools
@pytest.mark.network
@pytest.mark.parametrize("release", ["1.0.0-a..b", "1.0.0+", "\u0661.0.0", "1.0.0\n", "v1", "{{ 1 }}"])
def test_chart_of_hostile_texts(release: str, tmp_path: Path) -> None:
    """Texts of an image are neither templates nor references to variables, and a version is one of SemVer."""
    labels = {"org.opencontainers.image.version": release}
    image = crafted("--pin-root", "/run/$(X){{ 1 }}", labels=labels, user="0:0")
    found = plan_deployment([image], reference="agent:1", name="agent")
    for path, data in chart_files(found, Limits(), Cluster(), trust={}, explains=True).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (daemon_set,) = render_chart(tmp_path)
    container = daemon_set["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["exec"]["command"][-1] == "/run/$$(X){{ 1 }}"
    assert container["readinessProbe"]["exec"]["command"][-1] == "/run/$$(X){{ 1 }}"


def test_user_that_a_shell_would_read() -> None:
    """The lines for root of the host, which inspect prints too, hold it as one word."""
    plan = plan_image(crafted("--state", "/run/state", user="0;touch ran:$(id)"))
    (line,) = plan.before
    words = shlex.split(line)
    assert words == ["install", "-d", "-m", "0700", "-o", "0;touch ran", "-g", "$(id)", "/var/lib/agent"]
    assert "no UID:GID" in plan.notes[0]


@pytest.mark.parametrize(
    "option", ["--pin-root", "--share", "--state", "--attach-file", "--settings", "--btf"]
)
@pytest.mark.parametrize("place", ["/s:rw,z", "relative", "/a/../etc", "//", "/a/"])
def test_place_that_is_an_option_of_a_mount(option: str, place: str) -> None:
    """Docker would read what follows a colon as options of the mount."""
    with pytest.raises(ObjectFormatError, match="no directory can be mounted at"):
        plan_deployment([crafted(option, place)], reference="agent:1", name="")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("user", {"user": "0:0"}),
        ("entrypoint", {"entrypoint": Entrypoint(places={"--pin-root": "/run/pins"})}),
        ("capabilities", {"labels": {"buildtool.capabilities": "BPF,SYS_ADMIN"}}),
        ("file of tini", {"init_permits": False}),
    ],
)
def test_platforms_that_start_differently(name: str, changes: dict[str, Any]) -> None:
    """One file is for all machines, so it would be wrong for one of them."""
    platforms = [crafted(), crafted(platform="linux/arm64", **changes)]
    for order in (platforms, platforms[::-1]):
        with pytest.raises(ObjectFormatError, match=f"{name} of linux/.* differ"):
            plan_deployment(order, reference="agent:1", name="")


def stored(archive: Path) -> list[ImageReport]:
    """Return the images of *archive*."""
    with open_layout(archive) as source:
        return list(inspect_stored(source))


def test_programs_of_every_platform_count(images: dict[str, Path]) -> None:
    """Any platform may have the only program on the network. One without objects is refused."""
    first, second = stored(images["plain"])
    attach = ("count_xdp=eth0", "on_connect=none")
    found = plan_deployment([first, second], reference="a:1", name="", choices=Choices(attach=tuple(attach)))
    assert found.network == ("count_xdp",)
    for order in ([replace(first, objects=()), second], [second, replace(first, objects=())]):
        with pytest.raises(ObjectFormatError, match="linux/amd64: no objects"):
            plan_deployment(order, reference="a:1", name="", choices=Choices(attach=tuple(attach)))
    name, data = second.objects[0]
    changed = data.replace(b"count_xdp", b"other_xdp")
    other = replace(second, objects=((name, changed),))
    for order in ([first, other], [other, first]):
        with pytest.raises(UsageError, match="program other_xdp has no target"):
            plan_deployment(order, reference="a:1", name="", choices=Choices(attach=tuple(attach)))


@pytest.mark.parametrize("target", ["/", "/root", "/sys/fs/cgroup-other", "/var/run"])
def test_group_that_the_image_chooses(target: str, images: dict[str, Path]) -> None:
    """An image must not choose which directory of the host its container reads; who deploys it may."""
    first, _ = stored(images["plain"])
    chosen = (f"on_connect={target}", "count_xdp=none")
    image = replace(first, entrypoint=replace(first.entrypoint, attach=chosen))
    with pytest.raises(ObjectFormatError, match="is not in /sys/fs/cgroup"):
        plan_deployment([image], reference="a:1", name="")
    found = plan_deployment([image], reference="a:1", name="", choices=Choices(attach=tuple(chosen)))
    assert [mount.source for mount in found.plan.mounts] == [target]


def test_name_with_a_dot(images: dict[str, Path], capsys: Capture) -> None:
    """Compose takes no dot in the name of a project, which registries and services have."""
    text = deploy(capsys, "compose", images["plain"], *NONE, "--name", "Agent.v2")
    assert yaml.safe_load(text)["name"] == "agent-v2"
    assert list(yaml.safe_load(text)["services"]) == ["Agent.v2"]


@pytest.mark.parametrize("place", ["keys/dev.pem", ".hidden/a/b/key", ".key"])
@pytest.mark.parametrize("kind", ["run", "compose"])
def test_private_key_below_a_mounted_directory(
    kind: str, place: str, images: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    """The container sees every file below, whatever the loader reads."""
    key = generate_key()
    (tmp_path / "trust/x").mkdir(parents=True)
    (tmp_path / "trust/dev.pub").write_bytes(key.public.pem)
    secret = tmp_path / "trust" / place
    secret.parent.mkdir(parents=True, exist_ok=True)
    words = ["deploy", kind, str(images["plain"]), *REFERENCE, *NONE, "--trust", "trust"]
    assert run(words) == 0
    secret.write_bytes(key.to_pem(None))
    capsys.readouterr()
    assert run(words) == 2
    check_error(capsys, f"{place} is a private key, which the container would see")


def test_image_whose_user_gets_no_capability(images: dict[str, Path], capsys: Capture) -> None:
    """Its loader would end at each start, so no file is written."""
    capsys.readouterr()
    assert run(["deploy", "compose", str(images["bare"]), *REFERENCE, *NONE]) == 1
    check_error(capsys, "user 65532:65532 gets no capability under no-new-privileges")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("compose",), 2, "a file, which hosts cannot pull"),
        (("compose", *REFERENCE), 2, "program count_xdp has no target"),
        (
            ("compose", *REFERENCE, "--attach", "no=eth0"),
            2,
            "--attach no=eth0: the image loads no such program",
        ),
        (
            ("compose", *REFERENCE, *NONE, "--namespace", "a"),
            2,
            "--namespace is for kubernetes, not for compose",
        ),
        (("run", *REFERENCE, *NONE, "--priority-class", "a"), 2, "--priority-class is for kubernetes"),
        (("kubernetes", *REFERENCE, *NONE, "--cpuset", "1"), 2, "Kubernetes chooses processors itself"),
        (("kubernetes", *REFERENCE, *NONE, "--name", "A_b"), 2, "'A_b' is no name of Kubernetes"),
        (("compose", *REFERENCE, *NONE, "--name", "a\nb: c"), 2, "is no name of a deployment"),
        (("compose", *REFERENCE, *NONE, "--name", "\u017f\u212a"), 2, "is no name of a deployment"),
        (("run", *REFERENCE, *NONE, "--name", "../etc"), 2, "is no name of a deployment"),
        (("run", *REFERENCE, *NONE, "--memory", "0"), 2, "'0' is not an amount of memory"),
        (("run", *REFERENCE, *NONE, "--cpus", "0"), 2, "'0' is not a number of processors"),
        (("run", *REFERENCE, *NONE, "--cpuset", "a"), 2, "'a' does not list processors"),
        (("run", *REFERENCE, *NONE, "--json", "--explain"), 2, "--json cannot be combined with --explain"),
        (("kubernetes", *REFERENCE, *NONE, "--trust", "none.pub"), 2, "none.pub: cannot read: no such file"),
    ],
)
def test_bad_input(
    words: tuple[str, ...], code: int, message: str, images: dict[str, Path], capsys: Capture
) -> None:
    """Each is one line, and nothing is written."""
    capsys.readouterr()
    assert run(["deploy", words[0], str(images["plain"]), *words[1:]]) == code
    check_error(capsys, message)
    assert not capsys.readouterr().out
