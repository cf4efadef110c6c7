# SPDX-License-Identifier: Apache-2.0
"""
Write a deployment as a chart of Helm: templates/chart, and values from what the image needs.

Source: Helm, "Charts" and "Schema files".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from buildtool.core.errors import UsageError
from buildtool.core.resources import resource_path
from buildtool.core.yamltext import quote_scalar, quote_scalars
from buildtool.deploy.kubernetes import Cluster, check_name, choose_resources, hostpath_type
from buildtool.deploy.limits import Limits
from buildtool.deploy.needs import Deployment
from buildtool.deploy.yamltext import YamlText

_NUMBER = "(0|[1-9][0-9]*)"
_MORE = r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_MORE})?(\+{_MORE})?")
_UNKNOWN = "0.0.0"  # of an image whose release is no version of SemVer


def chart_files(
    deployment: Deployment, limits: Limits, cluster: Cluster, *, trust: Mapping[str, str], explains: bool
) -> dict[Path, bytes]:
    """
    Return the files of the chart by their paths in it.

    Raises: UsageError, if the name is none of Kubernetes, or *cluster* has a namespace.
    """
    check_name(deployment, limits)
    if cluster.namespace:
        raise UsageError("--namespace: helm chooses it", hint="helm install --namespace NAME")
    template = resource_path("templates/chart")
    files = {
        path.relative_to(template): path.read_bytes()
        for path in sorted(template.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    files[Path("Chart.yaml")] = _chart(deployment).encode()
    files[Path("values.yaml")] = _values(deployment, limits, cluster, trust, explains=explains).encode()
    return files


def _chart(deployment: Deployment) -> str:
    out = YamlText(explains=False)
    version = deployment.release if _VERSION.fullmatch(deployment.release) else _UNKNOWN
    out.add(0, "apiVersion: v2")
    out.add(0, f"name: {quote_scalar(deployment.name)}")
    out.add(0, 'description: "Verified eBPF programs on every node"')
    out.add(0, "type: application")
    out.add(0, f"version: {quote_scalar(version)}")
    out.add(0, f"appVersion: {quote_scalar(deployment.release or version)}")
    return out.text()


def _values(
    deployment: Deployment, limits: Limits, cluster: Cluster, trust: Mapping[str, str], *, explains: bool
) -> str:
    plan, out = deployment.plan, YamlText(explains=explains)
    for note in plan.notes:
        out.remark(0, note)
    out.remark(0, "From the image: change these together with it.")
    out.add(0, f"image: {quote_scalar(deployment.reference)}")
    machines = sorted({name.split("/")[1] for name in deployment.platforms})
    out.add(0, f"architectures: {quote_scalars(machines)}", "the image has objects and a loader for these")
    out.add(0, f"capabilities: {quote_scalars(plan.capabilities)}", "what the programs need")
    uid, gid = deployment.ids
    out.add(0, f"user: {uid}", "the image's user" if uid else "directories of a node belong to root")
    out.add(0, f"group: {gid}")
    out.add(0, f"status: {quote_scalars(deployment.status)}", "the probes' command; empty without pins")
    out.remark(0, "Targets, and what they need.")
    out.add(0, f"arguments: {quote_scalars(plan.arguments)}")
    why = f"{deployment.network[0]} attaches to interfaces of the node" if deployment.network else ""
    out.add(0, f"hostNetwork: {'true' if deployment.network else 'false'}", why)
    out.add(0, "hostPaths:" if plan.mounts else "hostPaths: []")
    for mount in plan.mounts:
        out.add(1, f"- path: {quote_scalar(mount.source)}", mount.why)
        out.add(2, f"mountPath: {quote_scalar(mount.target)}")
        out.add(2, f"readOnly: {'true' if mount.is_read_only else 'false'}")
        out.add(2, f"type: {hostpath_type(mount)}")
    out.remark(0, "Yours to choose.")
    out.add(0, "trust:" if trust else "trust: {}", "keys or a policy that count instead of the image's")
    for name, text in sorted(trust.items()):
        out.add(1, f"{quote_scalar(name)}: {quote_scalar(text)}")
    out.add(0, "resources:", "full maps count as memory of the pod that made them")
    for kind, values in choose_resources(deployment, limits).items():
        inner = ", ".join(f"{name}: {quote_scalar(value)}" for name, value in values.items())
        out.add(1, f"{kind}: {{{inner}}}")
    out.add(0, 'imagePullPolicy: "IfNotPresent"')
    out.add(0, "imagePullSecrets: []")
    out.add(0, "nodeSelector: {kubernetes.io/os: linux}")
    out.add(0, "tolerations: [{operator: Exists}]", "every node, also one that takes no other pods")
    out.add(0, f"priorityClassName: {quote_scalar(cluster.priority_class)}")
    out.add(0, "podAnnotations: {}")
    out.add(0, "terminationGracePeriodSeconds: 10")
    out.add(0, "updateStrategy:", "one node after the other: a release that fails stops there")
    out.add(1, "type: RollingUpdate")
    out.add(1, "rollingUpdate: {maxUnavailable: 1}")
    return out.text()
