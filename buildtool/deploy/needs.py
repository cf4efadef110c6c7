# SPDX-License-Identifier: Apache-2.0
"""
What a deployment of a finished image needs, from its label, entrypoint and objects. Nothing is guessed.

The image is not verified here, so its texts may be anything: whoever writes them quotes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from buildtool.check.memory import estimate_maps
from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.core.validate import names_registry
from buildtool.deploy.plan import LoadedProgram, Mount, RunPlan, host_name, plan_run
from buildtool.image.filecaps import needed_capabilities
from buildtool.image.inspect import ImageReport, inspect_object
from buildtool.image.metadata import LOADER_PATH
from buildtool.objects.capabilities import label_capabilities
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import parse_object
from buildtool.objects.types import program_type
from buildtool.signing.statement import describe_stated

TRUST_OF_HOST = "/etc/buildtool/trust.host"
# Program types whose hooks are in the network namespace of the loader.
_NETWORK = ("xdp", "sched_cls", "netfilter", "sk_lookup", "flow_dissector")
_CGROUPS = "/sys/fs/cgroup"
_CGROUPS_INSIDE = "/run/cgroup"  # a container sees only its own group in /sys/fs/cgroup
_CPUS = 64  # that memory of per-CPU maps is computed for
_LOADER_BYTES = 64 * 1024 * 1024  # the largest object, while it is loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """
    An image to run by *reference*, called *name*, on *platforms*, with the needs of *plan*.

    *network* names the programs whose hooks are in the host's network namespace. *pins* is the directory in
    the container that they are pinned in, or empty. *memory* is what loader and full maps take, in bytes,
    on 64 processors; *has_workload*: what the workload takes comes on top of it. *release* is the image's
    version, or empty.
    """

    name: str
    reference: str
    platforms: tuple[str, ...]
    plan: RunPlan
    network: tuple[str, ...]
    pins: str
    memory: int
    has_workload: bool
    release: str = ""

    @property
    def status(self) -> list[str]:
        """The command that says whether all that is pinned is there, or nothing without pins."""
        return [LOADER_PATH, "status", "--pin-root", self.pins] if self.pins else []

    @property
    def ids(self) -> tuple[int, int]:
        """The numbers of user and group."""
        uid, _, gid = self.plan.user.partition(":")
        return int(uid), int(gid or uid)


def plan_deployment(
    images: Sequence[ImageReport],
    *,
    reference: str,
    name: str,
    attach: Sequence[str] = (),
    of_root: bool = False,
) -> Deployment:
    """
    Return what *images*, one for each platform, need. *attach* are PROGRAM=TARGET that replace the image's.

    *of_root*: who starts it makes directories of the host for root, so only root may write into these. With
    the capabilities of the programs alone, root has no more rights than another user.

    Raises: UsageError, if a program has no target, or a setting no program; ObjectFormatError.
    """
    image = images[0]
    kept = [text for text in image.entrypoint.attach if not _is_replaced(text, attach)]
    settings = [*attach, *kept]
    _check_settings(attach, list(_programs(image)))
    name = name or host_name(reference)
    image = replace(image, entrypoint=replace(image.entrypoint, attach=tuple(settings)))
    plan = plan_image(image, name)
    if of_root and any(mount.is_made and not mount.is_read_only for mount in plan.mounts):
        plan = plan_image(replace(image, user="0:0"), name)
    for wanted, form in plan.wanted.items():
        raise UsageError(
            f"program {wanted} has no target", hint=f"--attach {wanted}={form}, or {wanted}=none"
        )
    if image.init_permits is False and plan.user.partition(":")[0] != "0":
        raise ObjectFormatError(
            f"{reference}: user {plan.user} gets no capability under no-new-privileges:"
            " tini's file permits none",
            hint="build the image again, without image.file-capabilities = false, or with user root",
        )
    if more := sorted(set(plan.capabilities) - set(_needed(image))):
        plan.notes.append(
            f"{' '.join(more)}: by the image's label, and needed by none of the programs' types"
        )
    if names_registry(reference) and "@" not in reference:
        plan.notes.append("a tag may name another image tomorrow: NAME@sha256:DIGEST does not")
    plan.arguments = [word for text in attach for word in ("--attach", text)]
    network = []
    for program in _programs(image):
        targets = [text.partition("=")[2] for text in settings if _names(text, program.name, program.owner)]
        kind = program_type(program.section)
        if kind in _NETWORK and targets != ["none"]:
            network.append(program.name)
        for target in targets:
            _plan_target(plan, program, kind, target)
    return Deployment(
        name=name,
        reference=reference,
        platforms=tuple(sorted({item.platform for item in images})),
        plan=plan,
        network=tuple(dict.fromkeys(network)),
        pins=image.entrypoint.places.get("--pin-root", ""),
        memory=max(map(_memory, images)),
        has_workload=bool(image.entrypoint.workload),
        release=image.labels.get("org.opencontainers.image.version", ""),
    )


def _plan_target(plan: RunPlan, program: LoadedProgram, kind: str, target: str) -> None:
    """Add what *target* needs to *plan*: the tree of cgroups, or the file of a probe."""
    if target.startswith("/") and program.section.startswith(("uprobe", "uretprobe", "usdt")):
        path = target.partition(":")[0]
        mount = Mount(source=path, target=path, why=f"probe {program.name} is in this file", is_file=True)
    elif target.startswith("/") and kind.startswith(("cgroup", "sock_ops", "lsm")):
        inside = target.startswith(_CGROUPS)
        source = _CGROUPS if inside else target
        place = _CGROUPS_INSIDE if inside else f"{_CGROUPS_INSIDE}{target}"
        owner = f"{program.owner}:" if program.owner else ""
        moved = place + target.removeprefix(source)
        known = [word for word in plan.arguments if not _names(word, program.name, program.owner)]
        plan.arguments = [word for text in known if text != "--attach" for word in ("--attach", text)] + [
            "--attach",
            f"{owner}{program.name}={moved}",
        ]
        mount = Mount(source=source, target=place, why=f"{program.name} attaches to a group of the host")
    else:
        return
    if mount.target not in {known.target for known in plan.mounts}:
        plan.mounts.append(mount)


def _names(setting: str, program: str, owner: str = "") -> bool:
    """Return whether *setting*, PROGRAM=TARGET, is about *program* (OBJECT:PROGRAM, or with its *owner*)."""
    named = setting.partition("=")[0].removesuffix("+")
    mine, _, name = program.rpartition(":")
    other, _, wanted = named.rpartition(":")
    return name == wanted and (not other or other in (mine, owner))


def _is_replaced(setting: str, attach: Iterable[str]) -> bool:
    program = setting.partition("=")[0].removesuffix("+")
    return any(_names(text, program) and not text.partition("=")[0].endswith("+") for text in attach)


def _check_settings(attach: Iterable[str], programs: Sequence[LoadedProgram]) -> None:
    for text in attach:
        if not any(_names(text, program.name, program.owner) for program in programs):
            names = ", ".join(sorted({program.name for program in programs}))
            raise UsageError(
                f"--attach {text}: the image loads no such program", hint=f"it loads: {names or 'none'}"
            )


def plan_image(image: ImageReport, name: str = "") -> RunPlan:
    """
    Return how a container of *image* is started. *name* is for directories of the host; default: the image's.

    Raises: ObjectFormatError.
    """
    return plan_run(
        name=name or host_name(image.reference),
        entrypoint=image.entrypoint,
        programs=_programs(image),
        capabilities=label_capabilities(image.labels) or _needed(image),
        user=image.user,
    )


def _needed(image: ImageReport) -> tuple[str, ...]:
    """Return the capabilities that the programs of *image* need by their types."""
    described = ((name, _contents(name, data)) for name, data in image.objects)
    return needed_capabilities(described, image.entrypoint.selection)


def _programs(image: ImageReport) -> Iterator[LoadedProgram]:
    for name, data in image.objects:
        contents, statement = _contents(name, data), inspect_object(name, data).statement
        targeted = {program.name for program in statement.programs if program.attach} if statement else set()
        for program in contents.programs:
            if image.entrypoint.selection.loads(program.name, program.section, name):
                yield LoadedProgram(
                    name=program.name,
                    section=program.effective_section,
                    owner=PurePosixPath(name).name,
                    has_target=program.name in targeted,
                )


def _contents(name: str, data: bytes) -> ObjectContents:
    try:
        return describe_stated(parse_object(data))
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{name}: {error.message}", hint=error.hint) from error


def _memory(image: ImageReport) -> int:
    """Return the bytes that loader and maps of *image* take on a machine with many processors."""
    maps = 0
    for name, data in image.objects:
        maps += estimate_maps(parse_object(data), _contents(name, data).maps).at(_CPUS)
    return _LOADER_BYTES + maps
