# SPDX-License-Identifier: Apache-2.0
"""
Write a deployment as a file of Docker Compose.

Source: Compose specification; docs of `docker compose`, interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence

from buildtool.core.yamltext import quote_scalar, quote_scalars
from buildtool.deploy.limits import Limits, format_bytes
from buildtool.deploy.needs import TRUST_OF_HOST, Deployment
from buildtool.deploy.yamltext import YamlText


def write_compose(deployment: Deployment, limits: Limits, *, trust: str, explains: bool) -> str:
    """Return the file. *trust* is a directory of the host with keys or a policy, or empty."""
    plan, out = deployment.plan, YamlText(explains=explains)
    out.remark(0, f"{deployment.name}: docker compose up --detach")
    for line in plan.before:
        out.remark(0, f"once, as root of the host: {line}")
    for note in plan.notes:
        out.remark(0, note)
    out.add(
        0,
        f"name: {quote_scalar(deployment.name.lower().replace('.', '-'))}",
        "the project, whatever the directory is called",
    )
    out.add(0, "services:")
    out.add(1, f"{quote_scalar(deployment.name)}:")
    out.add(2, f"image: {_quote(deployment.reference)}")
    out.add(2, "init: false", "the image starts tini itself")
    out.add(2, "read_only: true", "the loader writes into mounted directories only")
    if plan.given_user:
        out.add(2, f"user: {quote_scalar(plan.given_user)}", "tracefs belongs to root")
    out.add(2, 'cap_drop: ["ALL"]', "nothing but what the programs need")
    out.add(
        2, f"cap_add: {quote_scalars(plan.capabilities)}", "what the programs need; the workload has none"
    )
    out.add(2, 'security_opt: ["no-new-privileges:true"]', "no program in the container gains a capability")
    if deployment.network:
        out.add(2, "network_mode: host", f"{deployment.network[0]} attaches in the host's network namespace")
    elif not deployment.has_workload:
        out.add(2, "network_mode: none", "no program attaches to an interface")
    _add_mounts(out, deployment, trust)
    if plan.arguments:
        out.add(2, f"command: {_quote_list(plan.arguments)}", "targets of the programs")
    if deployment.status:
        out.add(2, "healthcheck:", "all that is pinned is there")
        out.add(3, f"test: {_quote_list(['CMD', *deployment.status])}")
        out.add(3, "interval: 30s")
        out.add(3, "timeout: 5s")
        out.add(3, "retries: 3")
        out.add(3, "start_period: 10s")
    out.add(2, "restart: unless-stopped", "after a reboot and after a failure; a refused object fails again")
    out.add(2, "stop_grace_period: 10s")
    _add_limits(out, deployment, limits)
    return out.text()


def _add_mounts(out: YamlText, deployment: Deployment, trust: str) -> None:
    mounts = [(mount.source, mount.target, mount.is_read_only, mount.why) for mount in deployment.plan.mounts]
    if trust:
        mounts.append((trust, TRUST_OF_HOST, True, "keys of the host count instead of the image's"))
    if not mounts:
        return
    out.add(2, "volumes:")
    for source, target, is_read_only, why in mounts:
        out.add(3, "- type: bind", why)
        out.add(4, f"source: {_quote(source)}")
        out.add(4, f"target: {_quote(target)}")
        if is_read_only:
            out.add(4, "read_only: true")
        out.add(4, "bind: {create_host_path: false}", "a missing one is an error")


def _add_limits(out: YamlText, deployment: Deployment, limits: Limits) -> None:
    if limits.cpuset:
        out.add(2, f"cpuset: {quote_scalar(limits.cpuset)}", "as asked for: --cpuset")
    if limits.cpus:
        out.add(2, f"cpus: {limits.cpus}", "as asked for: --cpus")
    memory = limits.memory or (0 if deployment.has_workload else deployment.memory)
    if memory:
        out.add(2, f"mem_limit: {format_bytes(memory)}", "loader and full maps, which the kernel counts here")
    else:
        out.remark(2, "mem_limit: what the workload takes is not known; --memory sets it")
    out.add(2, "pids_limit: 100", "loader, tini and a workload with few threads")


def _quote(value: str) -> str:
    """Return *value* quoted, without interpolation of variables."""
    return quote_scalar(value.replace("$", "$$"))


def _quote_list(values: Sequence[str]) -> str:
    return quote_scalars(value.replace("$", "$$") for value in values)
