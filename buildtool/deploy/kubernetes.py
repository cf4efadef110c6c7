# SPDX-License-Identifier: Apache-2.0
"""
Write a deployment as manifests of Kubernetes: a DaemonSet, or a Pod for `podman kube play`.

Sources: Kubernetes API reference, DaemonSet v1 apps and Pod v1 core; Pod Security Standards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from buildtool.core.errors import UsageError
from buildtool.core.yamltext import quote_scalar, quote_scalars
from buildtool.deploy.limits import Limits, mebibytes
from buildtool.deploy.needs import TRUST_OF_HOST, Deployment
from buildtool.deploy.plan import Mount
from buildtool.deploy.yamltext import YamlText

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a cluster's owner chooses: *namespace* and *priority_class*, both may be empty."""

    namespace: str = ""
    priority_class: str = ""


@dataclass(slots=True, kw_only=True)
class _Writer:
    deployment: Deployment
    limits: Limits
    out: YamlText
    trust: Mapping[str, str]


def write_daemon_set(
    deployment: Deployment, limits: Limits, cluster: Cluster, *, trust: Mapping[str, str], explains: bool
) -> str:
    """
    Return a DaemonSet, after a ConfigMap of *trust* (name of file to text) if there is one.

    Raises: UsageError, if the name is none of Kubernetes.
    """
    writer = _start(deployment, limits, trust, explains=explains)
    out = writer.out
    _add_remarks(writer, "once, as root of each node")
    _add_trust(writer, cluster.namespace)
    out.add(0, "apiVersion: apps/v1")
    out.add(0, "kind: DaemonSet", "one on every node: programs see what happens on their own node")
    _add_metadata(out, 0, deployment.name, cluster.namespace)
    out.add(0, "spec:")
    out.add(1, "selector:")
    out.add(2, f"matchLabels: {{app.kubernetes.io/name: {quote_scalar(deployment.name)}}}")
    out.add(1, "updateStrategy:", "one node after the other: a release that fails stops there")
    out.add(2, "type: RollingUpdate")
    out.add(2, "rollingUpdate: {maxUnavailable: 1}")
    out.add(1, "minReadySeconds: 5", "a loader that ends at once is no success")
    out.add(1, "template:")
    out.add(2, "metadata:")
    out.add(3, f"labels: {{app.kubernetes.io/name: {quote_scalar(deployment.name)}}}")
    out.add(2, "spec:")
    _add_nodes(writer, 3, cluster)
    _add_pod(writer, 3)
    return out.text()


def write_pod(deployment: Deployment, limits: Limits, *, trust: Mapping[str, str], explains: bool) -> str:
    """Return a Pod for `podman kube play`, after a ConfigMap of *trust*. Raises: UsageError."""
    writer = _start(deployment, limits, trust, explains=explains)
    out = writer.out
    out.remark(0, "podman kube play FILE")
    _add_remarks(writer, "once, as root of the host")
    _add_trust(writer, "")
    out.add(0, "apiVersion: v1")
    out.add(0, "kind: Pod")
    _add_metadata(out, 0, deployment.name, "")
    out.add(0, "spec:")
    out.add(1, "restartPolicy: Always", "after a failure; a refused object fails again")
    _add_pod(writer, 1)
    return out.text()


def check_name(deployment: Deployment, limits: Limits) -> None:
    """Check that Kubernetes takes the name and *limits* of *deployment*. Raises: UsageError."""
    if not _NAME.fullmatch(deployment.name):
        raise UsageError(
            f"{deployment.name!r} is no name of Kubernetes: small letters, digits and -, at most 52",
            hint="--name gives another one",
        )
    if limits.cpuset:
        raise UsageError(
            "--cpuset: Kubernetes chooses processors itself",
            hint="--cpus with a whole number and --memory make a pod of class Guaranteed, which gets its own",
        )


def _start(deployment: Deployment, limits: Limits, trust: Mapping[str, str], *, explains: bool) -> _Writer:
    check_name(deployment, limits)
    return _Writer(deployment=deployment, limits=limits, out=YamlText(explains=explains), trust=trust)


def _add_metadata(out: YamlText, depth: int, name: str, namespace: str) -> None:
    out.add(depth, "metadata:")
    out.add(depth + 1, f"name: {quote_scalar(name)}")
    if namespace:
        out.add(depth + 1, f"namespace: {quote_scalar(namespace)}")
    out.add(depth + 1, f"labels: {{app.kubernetes.io/name: {quote_scalar(name)}}}")


def _add_remarks(writer: _Writer, when: str) -> None:
    for line in writer.deployment.plan.before:
        # Directories are made where they are missing.
        if not line.startswith("install -d -m"):
            writer.out.remark(0, f"{when}: {line}")
    for note in writer.deployment.plan.notes:
        writer.out.remark(0, note)


def _add_trust(writer: _Writer, namespace: str) -> None:
    if not writer.trust:
        return
    out = writer.out
    out.add(0, "apiVersion: v1")
    out.add(0, "kind: ConfigMap", "whose signatures count, instead of the image's own trust store")
    _add_metadata(out, 0, f"{writer.deployment.name}-trust", namespace)
    out.add(0, "data:")
    for name, text in sorted(writer.trust.items()):
        out.add(1, f"{quote_scalar(name)}: {quote_scalar(text)}")
    out.add(0, "---")


def _add_nodes(writer: _Writer, depth: int, cluster: Cluster) -> None:
    """Add on which nodes a pod runs."""
    out = writer.out
    machines = [name.split("/")[1] for name in writer.deployment.platforms]
    out.add(depth, "nodeSelector: {kubernetes.io/os: linux}")
    out.add(depth, "affinity:", "the image has objects and a loader for these processors")
    out.add(depth + 1, "nodeAffinity:")
    out.add(depth + 2, "requiredDuringSchedulingIgnoredDuringExecution:")
    out.add(depth + 3, "nodeSelectorTerms:")
    out.add(depth + 4, "- matchExpressions:")
    values = quote_scalars(sorted(set(machines)))
    out.add(depth + 6, f"- {{key: kubernetes.io/arch, operator: In, values: {values}}}")
    out.add(depth, "tolerations: [{operator: Exists}]", "every node, also one that takes no other pods")
    if cluster.priority_class:
        out.add(depth, f"priorityClassName: {quote_scalar(cluster.priority_class)}", "--priority-class")


def _add_pod(writer: _Writer, depth: int) -> None:
    out, deployment = writer.out, writer.deployment
    out.add(depth, "automountServiceAccountToken: false", "the loader does not talk to the cluster")
    out.add(depth, "enableServiceLinks: false", "no variables about other services")
    if deployment.network:
        out.add(depth, "hostNetwork: true", f"{deployment.network[0]} attaches to interfaces of the node")
    out.add(depth, "terminationGracePeriodSeconds: 10")
    uid, gid = deployment.ids
    out.add(depth, "securityContext:")
    out.add(depth + 1, "seccompProfile: {type: RuntimeDefault}")
    out.add(depth, "containers:")
    out.add(depth + 1, f"- name: {quote_scalar(deployment.name)}")
    inner = depth + 2
    out.add(inner, f"image: {quote_scalar(deployment.reference)}")
    if deployment.plan.arguments:
        out.add(inner, f"args: {_quote_arguments(deployment.plan.arguments)}", "targets of the programs")
    out.add(inner, "terminationMessagePolicy: FallbackToLogsOnError", "the status says what was refused")
    why = "the image's user" if uid else "directories of a node, and tracefs, belong to root"
    out.add(inner, "securityContext:")
    out.add(inner + 1, f"runAsUser: {uid}", why)
    out.add(inner + 1, f"runAsGroup: {gid}")
    out.add(inner + 1, f"runAsNonRoot: {'true' if uid else 'false'}")
    out.add(inner + 1, "privileged: false")
    out.add(inner + 1, "allowPrivilegeEscalation: false", "no program in the container gains a capability")
    out.add(inner + 1, "readOnlyRootFilesystem: true", "the loader writes into mounted directories only")
    out.add(inner + 1, "capabilities:", "what the programs need; the workload has none")
    out.add(inner + 2, 'drop: ["ALL"]')
    out.add(inner + 2, f"add: {quote_scalars(deployment.plan.capabilities)}")
    _add_resources(writer, inner)
    if deployment.status:
        for probe in ("livenessProbe", "readinessProbe"):
            out.add(inner, f"{probe}:", "all that is pinned is there")
            out.add(inner + 1, f"exec: {{command: {_quote_arguments(deployment.status)}}}")
            out.add(inner + 1, "initialDelaySeconds: 5")
            out.add(inner + 1, "periodSeconds: 30")
            out.add(inner + 1, "timeoutSeconds: 5")
    _add_mounts(writer, depth)


def choose_resources(deployment: Deployment, limits: Limits) -> dict[str, dict[str, str]]:
    """Return requests and, where they are known, limits of the pod: by name, in Kubernetes' units."""
    needed = f"{mebibytes(deployment.memory)}Mi"
    memory = f"{mebibytes(limits.memory)}Mi" if limits.memory else ("" if deployment.has_workload else needed)
    found = {"requests": {"cpu": limits.cpus or "10m", "memory": memory or needed}}
    most = {"cpu": limits.cpus, "memory": memory}
    chosen = {name: value for name, value in most.items() if value}
    return found | ({"limits": chosen} if chosen else {})


def _add_resources(writer: _Writer, depth: int) -> None:
    out = writer.out
    out.add(depth, "resources:", "full maps count as memory of the pod that made them")
    found = choose_resources(writer.deployment, writer.limits)
    for kind, values in found.items():
        inner = ", ".join(f"{name}: {quote_scalar(value)}" for name, value in values.items())
        out.add(depth + 1, f"{kind}: {{{inner}}}")
    if "limits" not in found:
        out.remark(depth + 1, "limits: what the workload takes is not known; --memory and --cpus set them")


def hostpath_type(mount: Mount) -> str:
    """Return the type of the hostPath volume of *mount*."""
    return "File" if mount.is_file else "DirectoryOrCreate" if mount.is_made else "Directory"


def _add_mounts(writer: _Writer, depth: int) -> None:
    mounts: list[Mount] = list(writer.deployment.plan.mounts)
    out, inner = writer.out, depth + 2
    if not mounts and not writer.trust:
        return
    out.add(inner, "volumeMounts:")
    for at, mount in enumerate(mounts):
        suffix = ", readOnly: true" if mount.is_read_only else ""
        out.add(
            inner + 1, f"- {{name: host-{at}, mountPath: {quote_scalar(mount.target)}{suffix}}}", mount.why
        )
    if writer.trust:
        why = "keys that count instead of the image's"
        out.add(
            inner + 1, f"- {{name: trust, mountPath: {quote_scalar(TRUST_OF_HOST)}, readOnly: true}}", why
        )
    out.add(depth, "volumes:")
    for at, mount in enumerate(mounts):
        place = f"{{path: {quote_scalar(mount.source)}, type: {hostpath_type(mount)}}}"
        out.add(depth + 1, f"- {{name: host-{at}, hostPath: {place}}}")
    if writer.trust:
        name = quote_scalar(f"{writer.deployment.name}-trust")
        out.add(depth + 1, f"- {{name: trust, configMap: {{name: {name}}}}}")


def _quote_arguments(values: Sequence[str]) -> str:
    """Return *values* quoted, without references to variables: $$(NAME) is the text $(NAME)."""
    return quote_scalars(value.replace("$(", "$$(") for value in values)
