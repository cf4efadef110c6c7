# SPDX-License-Identifier: Apache-2.0
"""
Write a deployment as a unit of systemd that podman starts: a .container file of Quadlet.

Sources: podman-systemd.unit(5); systemd.syntax(7), quoting; systemd.service(5), command lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from buildtool.core.errors import UsageError
from buildtool.deploy.limits import Limits, format_bytes
from buildtool.deploy.needs import TRUST_OF_HOST, Deployment
from buildtool.deploy.plan import Mount
from buildtool.deploy.yamltext import YamlText

_PLAIN = re.compile(r"[\w@./:+=,-]+", re.ASCII)
_MADE = "install -d "  # a command of the plan that needs no shell


def write_unit(deployment: Deployment, limits: Limits, *, trust: str, explains: bool) -> str:
    """
    Return the unit. *trust* is a directory of the host with keys or a policy, or empty.

    Raises: UsageError, if a path has characters that Quadlet cannot pass on.
    """
    plan, out = deployment.plan, YamlText(explains=explains)
    out.remark(0, f"/etc/containers/systemd/{deployment.name}.container")
    made = [line for line in plan.before if line.startswith(_MADE) and "&&" not in line]
    for line in plan.before:
        if line not in made:
            out.remark(0, f"once, as root of the host: {line}")
    for note in plan.notes:
        out.remark(0, note)
    out.add(0, "[Unit]")
    out.add(0, f"Description=Verified eBPF programs of {_plain(deployment.reference)}")
    out.add(0, "")
    out.add(0, "[Container]")
    out.add(0, f"Image={_plain(deployment.reference)}")
    out.add(0, f"ContainerName={deployment.name}")
    out.add(0, "ReadOnly=true", "the loader writes into mounted directories only")
    out.add(0, "DropCapability=all", "nothing but what the programs need")
    out.add(0, f"AddCapability={' '.join(f'CAP_{name}' for name in plan.capabilities)}")
    out.add(0, "NoNewPrivileges=true", "no program in the container gains a capability")
    uid, gid = deployment.ids
    out.add(0, f"User={uid}")
    out.add(0, f"Group={gid}")
    if deployment.network:
        out.add(0, "Network=host", f"{deployment.network[0]} attaches in the host's network namespace")
    elif not deployment.has_workload:
        out.add(0, "Network=none", "no program attaches to an interface")
    _add_mounts(out, deployment, trust)
    if plan.arguments:
        out.add(0, f"Exec={_quote_words(plan.arguments)}", "targets of the programs")
    if deployment.status:
        command = json.dumps(deployment.status).replace("%", "%%").replace("$", "$$")
        out.add(0, f"HealthCmd={command}", "all that is pinned is there; otherwise systemd starts it again")
        out.add(0, "HealthOnFailure=kill")
    _add_limits(out, deployment, limits)
    out.add(0, "")
    out.add(0, "[Service]")
    for line in made:
        out.add(0, f"ExecStartPre=/usr/bin/{_plain_words(line)}", "a directory for the user of the container")
    out.add(0, "Restart=always", "after a failure; a refused object fails again")
    out.add(0, "RestartSec=5")
    out.add(0, "")
    out.add(0, "[Install]")
    out.add(0, "WantedBy=multi-user.target")
    return out.text()


def _add_mounts(out: YamlText, deployment: Deployment, trust: str) -> None:
    mounts = list(deployment.plan.mounts)
    if trust:
        mounts.append(Mount(source=trust, target=TRUST_OF_HOST, why="keys that count instead of the image's"))
    for mount in mounts:
        out.add(0, f"Volume={_plain(mount.option)}", mount.why)


def _add_limits(out: YamlText, deployment: Deployment, limits: Limits) -> None:
    memory = limits.memory or (0 if deployment.has_workload else deployment.memory)
    words = [f"--memory={format_bytes(memory)}"] if memory else []
    words += [f"--cpus={limits.cpus}"] if limits.cpus else []
    words += [f"--cpuset-cpus={limits.cpuset}"] if limits.cpuset else []
    if words:
        out.add(0, f"PodmanArgs={' '.join(words)}", "loader and full maps, and what was asked for")
    if not memory:
        out.remark(0, "PodmanArgs=--memory=…: what the workload takes is not known; --memory sets it")


def _plain(text: str) -> str:
    """Return *text*, in which systemd and Quadlet see no syntax. Raises: UsageError."""
    if not _PLAIN.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r}: a unit of systemd cannot name this", hint="use kind run, compose or podman"
        )
    return text


def _plain_words(line: str) -> str:
    return " ".join(map(_plain, line.split(" ")))


def _quote_words(words: Sequence[str]) -> str:
    """Return *words* as a command line of systemd, without specifiers and variables."""
    return " ".join(f'"{"".join(map(_quote_letter, word))}"' for word in words)


def _quote_letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter in "%$":
        return letter * 2
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
