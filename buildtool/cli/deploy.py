# SPDX-License-Identifier: Apache-2.0
"""`buildtool deploy`."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import click

from buildtool.cli.options import OutputPath, checked, complete_files, json_option
from buildtool.cli.output import clean_line, print_json, say
from buildtool.core.cache import open_cache
from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.core.files import made_directories, read_bounded, write_all_atomic, write_atomic
from buildtool.core.validate import LAYOUT_SCHEME, check_attach, check_image, check_load, check_setting
from buildtool.deploy import compose, helm, kubernetes, quadlet
from buildtool.deploy.kubernetes import Cluster
from buildtool.deploy.limits import Limits, format_bytes, parse_cpus, parse_cpuset, parse_memory
from buildtool.deploy.needs import TRUST_OF_HOST, Choices, Deployment, plan_deployment
from buildtool.deploy.plan import Mount
from buildtool.image.inspect import inspect_stored, is_file_name
from buildtool.image.source import find_image_source
from buildtool.signing.keys import is_private
from buildtool.trust.store import MAX_POLICY_BYTES, load_trust, read_store

KINDS = ("run", "compose", "kubernetes", "helm", "podman", "systemd")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_FILES = 1000  # of a directory that is mounted
_PATH = click.Path(path_type=Path)


@click.command("deploy")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("image", metavar="IMAGE|ARCHIVE|LAYOUT", shell_complete=complete_files)
@click.option("--reference", callback=checked(check_image), help="Name by which hosts pull an archive.")
@click.option("--name", default="", help="Name of the deployment and of directories; default: the image's.")
@click.option("--attach", multiple=True, callback=checked(check_attach), help="PROGRAM=TARGET; repeatable.")
@click.option("--set", multiple=True, callback=checked(check_setting), help="OBJECT:NAME=VALUE; repeatable.")
@click.option(
    "--map-entries", multiple=True, callback=checked(check_setting), help="OBJECT:MAP=N; repeatable."
)
@click.option("--load", multiple=True, callback=checked(check_load), help="Optional PROGRAM; repeatable.")
@click.option("--trust", type=_PATH, help="Keys or policy that count instead of the image's.")
@click.option("--cpus", callback=checked(parse_cpus), help="Number of processors, at most and for certain.")
@click.option("--cpuset", callback=checked(parse_cpuset), help="The processors to run on, such as 2-3.")
@click.option("--memory", callback=checked(parse_memory), help="Memory at most, such as 128m.")
@click.option("--namespace", default="", help="Namespace of Kubernetes; default: that of kubectl.")
@click.option("--priority-class", default="", help="PriorityClass of Kubernetes; default: none.")
@click.option("--explain", is_flag=True, help="Write the reason of each line as a comment.")
@click.option(
    "--output",
    "-o",
    type=OutputPath(path_type=Path),
    help="File or, of a chart, directory to write; default: stdout.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def command(*, kind: str, image: str, as_json: bool, **given: Any) -> None:
    """
    Write what runs IMAGE: a script, or a file for Compose, Kubernetes, Helm, podman or systemd.

    Capabilities, mounts, user and network come from the image's label and objects.
    """
    _check_options(kind, image, as_json=as_json, **given)
    with find_image_source(image, open_cache(os.environ)) as source:
        images = list(inspect_stored(source))
    if not any(report.objects for report in images):
        raise ObjectFormatError(
            f"{image}: no objects: not built by buildtool", hint="buildtool build makes an image of a project"
        )
    reference = given["reference"] or image
    deployment = plan_deployment(
        images,
        reference=reference,
        name=given["name"],
        choices=Choices(**{name: given[name] for name in ("attach", "set", "map_entries", "load")}),
        of_root=kind in ("kubernetes", "helm", "podman"),
    )
    if as_json:
        return print_json(_to_json(deployment))
    limits = Limits(cpus=given["cpus"] or "", cpuset=given["cpuset"] or "", memory=given["memory"] or 0)
    if kind == "helm":
        return _write_chart(deployment, limits, given)
    text = _write(kind, deployment, limits, given)
    if given["output"] is None:
        return click.echo(text, nl=False)
    write_atomic(given["output"], text.encode(), replace=given["force"])
    for note in deployment.plan.notes:
        say(clean_line(note))
    written = clean_line(str(given["output"]))
    return say(f"wrote {written}; next: {_NEXT[kind].format(shlex.quote(written))}")


_NEXT = {
    "run": "sh {}",
    "compose": "docker compose --file {} up --detach",
    "helm": "helm upgrade --install NAME {}",
    "kubernetes": "kubectl apply --server-side --filename {}",
    "podman": "podman kube play {}",
    "systemd": "copy it to /etc/containers/systemd/, then systemctl daemon-reload",
}
_OF_KUBERNETES = ("namespace", "priority_class")


def _check_options(kind: str, image: str, *, as_json: bool, **given: Any) -> None:
    """Check that each given option has an effect. Raises: UsageError."""
    if given["name"] and not _NAME.fullmatch(given["name"]):
        raise UsageError(
            f"{given['name']!r} is no name of a deployment",
            hint="small letters, digits, ., - and _: --name agent",
        )
    if (is_file_name(image) or image.startswith(LAYOUT_SCHEME)) and not given["reference"]:
        raise UsageError(
            f"{image}: a file, which hosts cannot pull",
            hint="--reference REGISTRY/NAME:TAG is the image's name there",
        )
    for name in _OF_KUBERNETES:
        if given[name] and kind not in ("kubernetes", "helm"):
            raise UsageError(
                f"--{name.replace('_', '-')} is for kubernetes, not for {kind}", hint="leave it out"
            )
    if kind == "helm" and given["output"] is None and not as_json:
        raise UsageError("a chart is a directory", hint="--output DIR names it")
    if as_json and (given["output"] or given["explain"]):
        option = "--output" if given["output"] else "--explain"
        raise UsageError(
            f"--json cannot be combined with {option}", hint="--json prints what the image needs, of any kind"
        )


def _write(kind: str, deployment: Deployment, limits: Limits, given: dict[str, Any]) -> str:
    explains, trust = given["explain"], given["trust"]
    if trust is not None:
        load_trust((trust,))  # what the loader could not read must not be deployed
    if kind == "compose":
        place = str(_directory(trust, kind)) if trust else ""
        return compose.write_compose(deployment, limits, trust=place, explains=explains)
    if kind == "systemd":
        place = str(_directory(trust, kind)) if trust else ""
        return quadlet.write_unit(deployment, limits, trust=place, explains=explains)
    if kind == "run":
        return _write_run(deployment, limits, trust)
    texts = read_store(trust) if trust else {}
    if kind == "podman":
        return kubernetes.write_pod(deployment, limits, trust=texts, explains=explains)
    cluster = Cluster(namespace=given["namespace"], priority_class=given["priority_class"])
    return kubernetes.write_daemon_set(deployment, limits, cluster, trust=texts, explains=explains)


def _write_chart(deployment: Deployment, limits: Limits, given: dict[str, Any]) -> None:
    """Write the chart into a directory, all files or none."""
    trust: Path | None = given["trust"]
    if trust is not None:
        load_trust((trust,))
    cluster = Cluster(namespace=given["namespace"], priority_class=given["priority_class"])
    texts = read_store(trust) if trust else {}
    files = helm.chart_files(deployment, limits, cluster, trust=texts, explains=given["explain"])
    output: Path = given["output"]
    placed = {output / path: data for path, data in files.items()}
    with made_directories(sorted({path.parent for path in placed})):
        write_all_atomic(placed, replace=given["force"])
    for note in deployment.plan.notes:
        say(clean_line(note))
    written = clean_line(str(output))
    say(f"wrote chart {written}; next: {_NEXT['helm'].format(shlex.quote(written))}")


def _write_run(deployment: Deployment, limits: Limits, trust: Path | None) -> str:
    """Return a shell script that starts a container."""
    plan = deployment.plan
    if trust is not None:
        why = "keys of the host count instead of the image's"
        plan.mounts.append(Mount(source=str(_directory(trust, "run")), target=TRUST_OF_HOST, why=why))
    words = ["docker", "run", "--detach", "--name", deployment.name, "--restart", "unless-stopped"]
    words += ["--read-only", "--security-opt", "no-new-privileges"]
    network = "host" if deployment.network else "" if deployment.has_workload else "none"
    words += ["--network", network] if network else []
    words += ["--cpus", limits.cpus] if limits.cpus else []
    words += ["--cpuset-cpus", limits.cpuset] if limits.cpuset else []
    memory = limits.memory or (0 if deployment.has_workload else deployment.memory)
    words += ["--memory", format_bytes(memory)] if memory else []
    words += [*plan.options, deployment.reference, *plan.arguments]
    comments = [f"# {clean_line(note)}" for note in plan.notes]
    return "\n".join(["#!/bin/sh", "set -eu", *comments, *plan.before, f"exec {shlex.join(words)}"]) + "\n"


def _directory(trust: Path, kind: str) -> Path:
    """Return the absolute path of directory *trust*, which is mounted. Raises: UsageError."""
    if not trust.is_dir():
        raise UsageError(
            f"--trust {trust}: {kind} mounts a directory", hint="put the keys, or policy.json, into one"
        )
    if kind == "run" and ":" in str(trust.absolute()):
        raise UsageError(
            f"--trust {trust}: docker cannot mount a path with a colon",
            hint="rename the directory, or link it",
        )
    # The container sees all that is below, not only what the loader reads.
    for count, file in enumerate(trust.rglob("*")):
        if count >= _MAX_FILES:
            raise UsageError(
                f"--trust {trust}: more than {_MAX_FILES} files",
                hint="copy the public keys (.pub) into a directory of their own",
            )
        if file.is_file() and is_private(read_bounded(file, MAX_POLICY_BYTES)):
            raise UsageError(
                f"--trust {trust}: {file.relative_to(trust)} is a private key, which the container would see",
                hint="copy the public keys (.pub) into a directory of their own",
            )
    return trust.absolute()


def _to_json(deployment: Deployment) -> dict[str, Any]:
    plan = deployment.plan
    return {
        "name": deployment.name,
        "image": deployment.reference,
        "platforms": list(deployment.platforms),
        "capabilities": list(plan.capabilities),
        "user": plan.user,
        "hostNetwork": list(deployment.network),
        "mounts": [
            {"source": mount.source, "target": mount.target, "readOnly": mount.is_read_only, "why": mount.why}
            for mount in plan.mounts
        ],
        "arguments": list(plan.arguments),
        "status": deployment.status,
        "memoryBytes": deployment.memory,
        "hasWorkload": deployment.has_workload,
        "before": list(plan.before),
        "notes": list(plan.notes),
    }
