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
from buildtool.deploy.plan import LoadedProgram, Mount, RunPlan, host_name, plan_probed_file, plan_run
from buildtool.image.filecaps import needed_capabilities
from buildtool.image.inspect import ImageReport, inspect_object
from buildtool.image.metadata import LOADER_PATH
from buildtool.objects.capabilities import label_capabilities
from buildtool.objects.describe import ObjectContents
from buildtool.objects.elf import parse_object
from buildtool.objects.types import program_type
from buildtool.signing.settings import LoadSettings, choose_settings
from buildtool.signing.statement import describe_stated, read_statement

TRUST_OF_HOST = "/etc/buildtool/trust.host"
# Program types whose hooks are in the network namespace of the loader.
_NETWORK = ("xdp", "sched_cls", "netfilter", "sk_lookup", "flow_dissector")
_CGROUPS = "/sys/fs/cgroup"
_CGROUPS_INSIDE = "/run/cgroup"  # a container sees only its own group in /sys/fs/cgroup
_OF_GROUPS = ("cgroup", "sock_ops", "lsm")
_HINT = "buildtool build makes no such image: buildtool inspect shows its parts"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """
    What the loader is told beyond the image: targets, values of constants, sizes of maps, optional programs.

    Texts as of the loader's options --attach, --set, --map-entries and --load.
    """

    attach: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    map_entries: tuple[str, ...] = ()
    load: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The loader's arguments without those for targets."""
        named = (("--set", self.set), ("--map-entries", self.map_entries), ("--load", self.load))
        return [word for option, texts in named for text in texts for word in (option, text)]


def plan_deployment(
    images: Sequence[ImageReport],
    *,
    reference: str,
    name: str,
    choices: Choices = Choices(),
    of_root: bool = False,
) -> Deployment:
    """
    Return what *images*, one for each platform, need. The targets of *choices* replace the image's.

    *of_root*: who starts it makes directories of the host for root, so only root may write into these. With
    the capabilities of the programs alone, root has no more rights than another user.

    Raises: UsageError, if a program has no target, or a setting no program; ObjectFormatError.
    """
    image, attach = _merge(images, reference), choices.attach
    memory = max(_memory(each, choices) for each in images)
    entrypoint = replace(image.entrypoint, load=(*image.entrypoint.load, *choices.load))
    image = replace(image, entrypoint=entrypoint)
    kept = [text for text in image.entrypoint.attach if not _is_replaced(text, attach)]
    settings = [*attach, *kept]
    _check_settings(attach, _programs(image))
    name = name or host_name(reference)
    image = replace(image, entrypoint=replace(image.entrypoint, attach=tuple(settings)))
    plan = plan_image(image, name)
    if of_root and any(mount.is_made and not mount.is_read_only for mount in plan.mounts):
        plan = plan_image(replace(image, user="0:0"), name)
    _check_plan(plan, image, reference)
    if more := sorted(set(plan.capabilities) - set(_needed(image))):
        plan.notes.append(
            f"{' '.join(more)}: by the image's label, and needed by none of the programs' types"
        )
    if names_registry(reference) and "@" not in reference:
        plan.notes.append("a tag may name another image tomorrow: NAME@sha256:DIGEST does not")
    plan.arguments = [word for text in attach for word in ("--attach", text)]
    network = _plan_settings(plan, image, settings)
    plan.arguments += choices.arguments
    plan.faults += _foreign_groups(image, kept)
    _refuse_faults(plan, reference)
    return Deployment(
        name=name,
        reference=reference,
        platforms=tuple(sorted({item.platform for item in images})),
        plan=plan,
        network=tuple(dict.fromkeys(network)),
        pins=image.entrypoint.places.get("--pin-root", ""),
        memory=memory,
        has_workload=bool(image.entrypoint.workload),
        release=image.labels.get("org.opencontainers.image.version", ""),
    )


def _check_plan(plan: RunPlan, image: ImageReport, reference: str) -> None:
    """Check that a container of *image* can start by *plan*. Raises: UsageError, ObjectFormatError."""
    for wanted, form in plan.wanted.items():
        raise UsageError(
            f"program {wanted} has no target", hint=f"--attach {wanted}={form}, or {wanted}=none"
        )
    _refuse_faults(plan, reference)
    if image.init_permits is False and plan.user.partition(":")[0] != "0":
        raise ObjectFormatError(
            f"{reference}: user {plan.user} gets no capability under no-new-privileges:"
            " tini's file permits none",
            hint="build the image again, without image.file-capabilities = false, or with user root",
        )


def _refuse_faults(plan: RunPlan, reference: str) -> None:
    for fault in plan.faults:
        raise ObjectFormatError(f"{reference}: {fault}", hint=_HINT)


def _plan_settings(plan: RunPlan, image: ImageReport, settings: Sequence[str]) -> list[str]:
    """Add what the targets in *settings* need to *plan*. Return the programs on the host's network."""
    network = []
    for program in _programs(image):
        targets = [text.partition("=")[2] for text in settings if _names(text, program.name, program.owner)]
        kind = program_type(program.section)
        if kind in _NETWORK and targets != ["none"]:
            network.append(program.name)
        for target in targets:
            _plan_target(plan, program, kind, target)
    return network


def _foreign_groups(image: ImageReport, kept: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with targets of the image's own: directories of the host that are no groups."""
    for program in _programs(image):
        if not program_type(program.section).startswith(_OF_GROUPS):
            continue
        for text in kept:
            target = text.partition("=")[2]
            is_mine = _names(text, program.name, program.owner)
            if is_mine and target.startswith("/") and not _is_group(target):
                yield f"program {program.name}: target {target!r} is not in {_CGROUPS}"


def _merge(images: Sequence[ImageReport], reference: str) -> ImageReport:
    """
    Return the image with the objects of all platforms: one file is written, whatever machine it starts on.

    Raises: ObjectFormatError, if platforms start differently, or if something of an image is not known.
    """
    first = images[0]
    for image in images:
        system, _, machine = image.platform.partition("/")
        if system != "linux" or not machine:
            raise ObjectFormatError(
                f"{reference}: an image for {image.platform!r}, not for Linux", hint=_HINT
            )
        for name in image.unread:
            raise ObjectFormatError(
                f"{reference}: {image.platform}: {name}: a link, or too large to be an object", hint=_HINT
            )
        if not image.objects and any(other.objects for other in images):
            raise ObjectFormatError(f"{reference}: {image.platform}: no objects", hint=_HINT)
        for what, mine, other in (
            ("entrypoint", image.entrypoint, first.entrypoint),
            ("user", image.user, first.user),
            ("capabilities", label_capabilities(image.labels), label_capabilities(first.labels)),
            ("file of tini", image.init_permits, first.init_permits),
        ):
            if mine != other:
                raise ObjectFormatError(
                    f"{reference}: {what} of {image.platform} and {first.platform} differ",
                    hint="deploy one of them: NAME@sha256:DIGEST names the manifest of a platform",
                )
    return replace(first, objects=tuple(item for image in images for item in image.objects))


def _is_group(target: str) -> bool:
    return target == _CGROUPS or target.startswith(f"{_CGROUPS}/")


def _plan_target(plan: RunPlan, program: LoadedProgram, kind: str, target: str) -> None:
    """Add what *target* needs to *plan*: the tree of cgroups, or the file of a probe."""
    if target.startswith("/") and program.section.startswith(("uprobe", "uretprobe", "usdt")):
        plan_probed_file(plan, target.partition(":")[0], program.name)
    elif target.startswith("/") and kind.startswith(_OF_GROUPS):
        inside = _is_group(target)
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


def _programs(image: ImageReport) -> list[LoadedProgram]:
    """Return the programs that the loader loads, each once, although platforms have their own objects."""
    return list(dict.fromkeys(_loaded(image)))


def _loaded(image: ImageReport) -> Iterator[LoadedProgram]:
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


def _memory(image: ImageReport, choices: Choices) -> int:
    """
    Return the bytes that loader and maps of *image* take on a machine with many processors.

    Raises: UsageError, for a setting of *choices* or of the image that no signed statement allows.
    """
    objects = {PurePosixPath(name).name: data for name, data in image.objects}
    constants = (*image.entrypoint.set, *choices.set)
    entries = (*image.entrypoint.map_entries, *choices.map_entries)
    chosen: dict[str, LoadSettings] = {}
    if constants or entries:
        settable = {name: read_statement(parse_object(data)).settable for name, data in objects.items()}
        chosen = choose_settings(constants, entries, settable)
    total = _LOADER_BYTES
    for name, data in objects.items():
        sizes = chosen[name].entries if chosen else {}
        maps = (
            replace(found, max_entries=sizes.get(found.name, found.max_entries))
            for found in _contents(name, data).maps
        )
        total += estimate_maps(parse_object(data), tuple(maps)).at(_CPUS)
    return total
