# SPDX-License-Identifier: Apache-2.0
"""
What a container of an image needs, without which its loader would end: capabilities, mounts, user, targets.

loader/attach/plan.c decides at the start which programs need a target, and loader/attach/probes.c what it
reads of tracefs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from buildtool.image.metadata import TYPES_DIRECTORY, Entrypoint
from buildtool.objects.capabilities import run_options
from buildtool.objects.kernelbtf import TYPES_SUFFIX
from buildtool.objects.types import program_type

_BPFFS, _TRACEFS = "/sys/fs/bpf", "/sys/kernel/tracing"
_METRICS = "/var/lib/node_exporter/textfile"
# By type, the form of the target that the section never names.
_CGROUP = "/PATH/OF/CGROUP"
_WANTED = {
    "xdp": "INTERFACE",
    "sched_cls": "INTERFACE",
    "perf_event": "cpu-clock:FREQUENCY",
    "netfilter": "ipv4:HOOK:PRIORITY",
    "cgroup_skb": _CGROUP,
    "cgroup_sock": _CGROUP,
    "cgroup_sock_addr": _CGROUP,
    "cgroup_sockopt": _CGROUP,
    "cgroup_device": _CGROUP,
    "cgroup_sysctl": _CGROUP,
    "sock_ops": _CGROUP,
    # The workload attaches these.
    "socket_filter": "none",
    "sk_reuseport": "none",
    "sched_act": "none",
    "lwt_in": "none",
    "lwt_out": "none",
    "lwt_xmit": "none",
    "lwt_seg6local": "none",
}
# The same for types whose sections may name the target after a slash.
_WANTED_BARE = {
    "tracing": "FUNCTION",
    "lsm": "HOOK",
    "raw_tracepoint": "NAME",
    "raw_tracepoint_writable": "NAME",
    "tracepoint": "CATEGORY/NAME",
    "kprobe": "FUNCTION",
}
_IN_MAPS = ("/devmap", "/cpumap")  # XDP programs that the workload puts into maps
_FILE_OF_PROBE = re.compile(r"(?:uprobe|uretprobe|usdt)[\w.]*/(/[^:]+):")
_NUMBERS = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
# Directories whose files are no programs and no libraries: devices, sockets, and what the kernel shows.
_NEVER_PROBED = ("/dev", "/proc", "/run", "/sys", "/var/run")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProgram:
    """A program of *section* in object *owner*. *has_target*: the signed statement names its target."""

    name: str
    section: str
    owner: str = ""
    has_target: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """
    A file or directory *source* of the host at *target* in the container, and *why* it is there.

    *is_made*: a directory that belongs to this image, which whoever starts it makes.
    """

    source: str
    target: str
    why: str
    is_read_only: bool = True
    is_made: bool = False
    is_file: bool = False

    @property
    def option(self) -> str:
        """The value of docker's option -v."""
        return f"{self.source}:{self.target}" + (":ro" if self.is_read_only else "")


@dataclass(slots=True, kw_only=True)
class RunPlan:
    """
    A container of an image: its *capabilities*, *mounts* and *user* (UID:GID), and the loader's *arguments*.

    *given_user* is the user if the image's own does not do. *before* holds the shell commands that root of
    the host runs once; *notes* hold sentences for people. *wanted* are the programs without a target, with
    the form of a target. *faults* say what in the image is no user or place: notes for whoever looks at the
    image, and a reason not to deploy it.
    """

    capabilities: tuple[str, ...] = ()
    mounts: list[Mount] = field(default_factory=list)
    user: str = ""
    given_user: str = ""
    arguments: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def options(self) -> list[str]:
        """The options of `docker run`."""
        user = ["--user", self.given_user] if self.given_user else []
        mounts = [word for mount in self.mounts for word in ("-v", mount.option)]
        return [*run_options(self.capabilities), *user, *mounts]

    def command(self, reference: str) -> str:
        """Return the shell command that starts image *reference*."""
        return shlex.join(["docker", "run", "--read-only", *self.options, reference, *self.arguments])


def plan_run(
    *,
    name: str,
    entrypoint: Entrypoint,
    programs: Iterable[LoadedProgram],
    capabilities: Iterable[str],
    user: str,
) -> RunPlan:
    """
    Return what an image needs that starts with *entrypoint* as *user* (UID:GID) and loads *programs*.

    *name* is for directories of the host. A workload that loads the programs itself needs no target.
    """
    loaded = list(programs)
    plan = RunPlan(capabilities=tuple(capabilities), user=user or "0:0")
    if not _NUMBERS.fullmatch(plan.user):
        _add_fault(plan, f"the image's user {plan.user!r} is no UID:GID in numbers")
    _plan_tracefs(plan, loaded)
    _plan_mounts(plan, entrypoint.places, loaded, name)
    if not entrypoint.hands_over and "--attach-file" not in entrypoint.places:
        _plan_targets(plan, loaded, entrypoint.attach)
    return plan


def _add_fault(plan: RunPlan, text: str) -> None:
    plan.faults.append(text)
    plan.notes.append(text)


def plan_probed_file(plan: RunPlan, path: str, program: str) -> None:
    """Mount file *path* of the host, in which *program* is, and say so: the image chooses the file."""
    if not _is_plain(path) or any(path == each or path.startswith(f"{each}/") for each in _NEVER_PROBED):
        return _add_fault(plan, f"program {program}: no program or library is at {path!r}")
    if path not in {mount.target for mount in plan.mounts}:
        plan.mounts.append(Mount(source=path, target=path, why=f"probe {program} is in it", is_file=True))
        plan.notes.append(f"the container reads {path} of the host, because probe {program} is in it")
    return None


def _is_plain(path: str) -> bool:
    """Return whether *path* is absolute, with one spelling, and no option of a mount."""
    parts = path.split("/")[1:]
    return path.startswith("/") and ":" not in path and not {"", ".", ".."} & set(parts)


def _plan_tracefs(plan: RunPlan, programs: Sequence[LoadedProgram]) -> None:
    """Add what tracepoints need to *plan*."""
    found = [item.name for item in programs if program_type(item.section) == "tracepoint"]
    if not found:
        return
    plan.before.append(f"mountpoint -q {_TRACEFS} || mount -t tracefs tracefs {_TRACEFS}")
    plan.mounts.append(Mount(source=_TRACEFS, target=_TRACEFS, why=f"tracepoint program {found[0]} reads it"))
    if plan.user.partition(":")[0] == "0" or "DAC_READ_SEARCH" in plan.capabilities:
        return
    plan.user = plan.given_user = "0:0"
    plan.notes.append(
        f"tracepoint program {found[0]} reads tracefs, which belongs to root, hence --user 0:0;"
        " sections raw_tp and tp_btf need neither"
    )


def _plan_mounts(
    plan: RunPlan, places: Mapping[str, str], programs: Iterable[LoadedProgram], name: str
) -> None:
    """Add the directories of the loader's options to *plan*, and the files that uprobes name."""
    uid, _, gid = plan.user.partition(":")
    owner = f"-o {shlex.quote(uid)} -g {shlex.quote(gid or uid)}"
    install = f"install -d -m 0700 {owner}"

    def add(source: str, target: str, why: str, **more: bool) -> None:
        if not _is_plain(target):
            return _add_fault(plan, f"no directory can be mounted at {target!r}, where the loader looks")
        return plan.mounts.append(Mount(source=source, target=target, why=why, **more))

    if pins := places.get("--pin-root") or places.get("--share"):
        plan.before.append(f"mountpoint -q {_BPFFS} || mount -t bpf bpf {_BPFFS}")
        plan.before.append(f"{install} {_BPFFS}/{name}")
        add(f"{_BPFFS}/{name}", pins, "programs, maps and links stay there", is_read_only=False, is_made=True)
    if state := places.get("--state"):
        plan.before.append(f"{install} /var/lib/{name}")
        why = "the highest version of each object, against a rollback by an image"
        add(f"/var/lib/{name}", state, why, is_read_only=False, is_made=True)
    if metrics := places.get("--metrics-file"):
        plan.before.append(f"install -d {owner} {_METRICS}")
        directory = str(PurePosixPath(metrics).parent)
        add(_METRICS, directory, "node_exporter reads metrics there", is_read_only=False, is_made=True)
    if targets := places.get("--attach-file"):
        plan.before.append(f"install -d /etc/{name} && touch /etc/{name}/attach")
        add(f"/etc/{name}/attach", targets, "a PROGRAM=TARGET on each line", is_file=True)
        plan.notes.append(f"write PROGRAM=TARGET into /etc/{name}/attach, a line for each program")
    if settings := places.get("--settings"):
        plan.before.append(f"install -d /etc/{name} && touch /etc/{name}/settings")
        add(f"/etc/{name}/settings", settings, "set, map-entries, attach and load lines", is_file=True)
        plan.notes.append(f"write set, map-entries, attach or load lines into /etc/{name}/settings")
    if (types := places.get("--btf")) and types != TYPES_DIRECTORY:
        plan.before.append(f"install -d /etc/{name}/btf")
        add(f"/etc/{name}/btf", types, "types of kernels without BTF", is_made=True)
        plan.notes.append(f"a kernel without BTF needs RELEASE{TYPES_SUFFIX} in /etc/{name}/btf")
    files = ((_FILE_OF_PROBE.match(item.section.removeprefix("?")), item.name) for item in programs)
    for path, program in sorted({(found[1], each) for found, each in files if found}):
        plan_probed_file(plan, path, program)


def _plan_targets(plan: RunPlan, programs: Sequence[LoadedProgram], settings: Sequence[str]) -> None:
    """Add --attach for the programs that have no target."""
    names = [item.name for item in programs]
    missing = [item for item in programs if not (item.has_target or _has_setting(item, settings))]
    forms = set()
    for item in missing:
        form = wanted_target(item.section)
        if form is None:
            continue
        owner = f"{item.owner}:" if names.count(item.name) > 1 else ""
        plan.arguments += ["--attach", f"{owner}{item.name}={form}"]
        plan.wanted[f"{owner}{item.name}"] = form
        if form != "none":
            forms.add(form)
    if forms:
        words = " and ".join(sorted(forms))
        plan.notes.append(
            f"replace {words} by a target, or by none to load only;"
            " image.attach in buildtool.toml sets the default"
        )


def _has_setting(program: LoadedProgram, settings: Iterable[str]) -> bool:
    for text in settings:
        owner, _, name = text.partition("=")[0].removesuffix("+").rpartition(":")
        if name == program.name and owner in ("", program.owner):
            return True
    return False


def wanted_target(section: str) -> str | None:
    """Return the form of the target that a program in *section* requires, or None if it requires none."""
    kind = program_type(section)
    # An optional program is loaded only if a target names it.
    if section.startswith("?") or (kind == "xdp" and section.endswith(_IN_MAPS)):
        return None
    if section in ("tc", "classifier"):
        return "INTERFACE:ingress"
    if section.startswith("lsm_cgroup"):
        return _CGROUP
    if section.startswith("usdt"):
        return None if "/" in section else "/PATH:PROVIDER:NAME"
    if section.startswith(("uprobe", "uretprobe")):
        return None if "/" in section else "/PATH:SYMBOL"
    return _WANTED.get(kind) or (None if "/" in section else _WANTED_BARE.get(kind))


def note_platforms(platforms: Iterable[str], machine: str) -> Iterator[str]:
    """Yield a note if none of an image's *platforms* is that of *machine*, both as linux/arm64."""
    found = list(platforms)
    if found and machine not in found:
        yield f"the image is for {', '.join(found)}: run it there, because this machine is {machine}"


def host_name(reference: str) -> str:
    """Return a name for directories of the host, from image *reference*: agent for registry/plant/agent:7."""
    last = reference.partition("@")[0].rpartition("/")[2]
    return last.partition(":")[0] or "agent"
