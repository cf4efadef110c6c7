# SPDX-License-Identifier: Apache-2.0
"""
What the image's attach settings mean for its compiled programs: which program, which kind of target.

loader/attach/plan.c decides when the container starts. What needs no kernel to decide is decided here,
when the image is built: a start must not be the first to say that a program does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from buildtool.core.errors import ConfigError
from buildtool.objects.describe import MapInfo, ProgramInfo
from buildtool.objects.elf import parse_object, read_link_tables
from buildtool.signing.statement import describe_stated
from buildtool.trust.store import TrustStore
from buildtool.trust.verify import allows_point

NOWHERE = "none"
MAX_INTERFACE_BYTES = 15  # IFNAMSIZ - 1
_SHOWN_PROGRAMS = 8
_CGROUP_TYPES = "cgroup_skb cgroup_sock cgroup_sock_addr cgroup_sockopt cgroup_device cgroup_sysctl sock_ops"
_NETNS_TYPES = frozenset(("sk_lookup", "flow_dissector"))
_SOCKMAP_TYPES = frozenset(("sk_msg", "sk_skb"))
# Their sections name the target; a section without one leaves it to the attach setting.
_NAMED_TYPES = "tracing lsm raw_tracepoint raw_tracepoint_writable tracepoint kprobe perf_event netfilter"
_REPLACES = "ext"
_REPLACE_HINT = "write PROGRAM=OBJECT:PROGRAM, where the latter has the function"
_IN_MAPS = ("/devmap", "/cpumap")  # XDP programs that the workload puts into maps
_NETFILTER = re.compile(r"ipv[46]:(prerouting|input|forward|output|postrouting):-?\d+")
_EVENT = re.compile(r"cpu-clock:\d+|task-clock:\d+|\w+:\w+:\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachableObject:
    """An object as the loader sees it: its file's *name*, *programs*, *maps*, *struct_ops* maps."""

    name: str
    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    struct_ops: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of *key* as written: *text*; *owner* is an object's name or empty; *program*, *target*."""

    text: str
    owner: str
    program: str
    target: str = ""
    key: str = "image.attach"

    def wrong(self, problem: str, hint: str) -> ConfigError:
        """Make the error that this setting has *problem*."""
        return ConfigError(f"{self.key}: {self.text}: {problem}", hint=hint)


def read_attachable(objects: Mapping[str, bytes]) -> list[AttachableObject]:
    """
    Return what can be attached of *objects*.

    Raises: ObjectFormatError.
    """
    found = []
    for name, data in objects.items():
        obj = parse_object(data)
        contents = describe_stated(obj)
        sections = {
            number
            for number, item in enumerate(obj.sections)
            if item.name.lstrip(b"?").startswith(b".struct_ops")
        }
        symbols = read_link_tables(obj).symbols
        struct_ops = [item.name for item in symbols if item.section in sections and not item.is_local]
        found.append(
            AttachableObject(
                name=name, programs=contents.programs, maps=contents.maps, struct_ops=tuple(struct_ops)
            )
        )
    return found


def check_attach_settings(
    settings: Sequence[str], objects: Sequence[AttachableObject], trust: TrustStore
) -> None:
    """
    Check that each of *settings* means one program of *objects*, and a target that the program can have.

    Raises: ConfigError.
    """
    for text in settings:
        setting = _parse(text)
        owner, program = _find(setting, objects)
        # Loading without attaching suits every program, and every map.
        if setting.target == NOWHERE:
            if program is not None and program.type == _REPLACES:
                raise setting.wrong("the kernel loads the program for a target only", _REPLACE_HINT)
            continue
        if program is None:
            raise setting.wrong(
                "a struct_ops map has no target", f"write {setting.program}=none, or leave it out"
            )
        _check_target(setting, owner, program, trust, objects)


def check_load_settings(settings: Sequence[str], objects: Sequence[AttachableObject]) -> None:
    """
    Check that each of *settings* ([OBJECT:]PROGRAM) means one optional program or map of *objects*.

    Raises: ConfigError.
    """
    for text in settings:
        owner, colon, name = text.rpartition(":")
        setting = Setting(text=text, owner=owner if colon else "", program=name, key="image.load")
        _, program = _find(setting, objects)
        if program is not None and not program.is_optional:
            raise setting.wrong("the program is not optional, so it is always loaded", "remove this setting")


def _parse(text: str) -> Setting:
    left, _, target = text.partition("=")
    owner, colon, program = left.rpartition(":")
    return Setting(text=text, owner=owner if colon else "", program=program, target=target)


def _find(
    setting: Setting, objects: Sequence[AttachableObject]
) -> tuple[AttachableObject, ProgramInfo | None]:
    """Return the one object and program that *setting* means; no program: a struct_ops map."""
    found: list[tuple[AttachableObject, ProgramInfo | None]] = []
    for item in objects:
        if setting.owner in ("", item.name):
            found += [(item, program) for program in item.programs if program.name == setting.program]
            found += [(item, None) for name in item.struct_ops if name == setting.program]
    if not found:
        where = f"{setting.owner} has no" if setting.owner else "no object has a"
        hint = f"programs of the objects: {_list_programs(objects)}"
        raise setting.wrong(f"{where} program {setting.program}", hint)
    if len(found) > 1:
        owners = ", ".join(item.name for item, _ in found)
        raise setting.wrong(
            f"{owners} have a program {setting.program}", f"write {found[0][0].name}:{setting.text}"
        )
    return found[0]


def _list_programs(objects: Iterable[AttachableObject]) -> str:
    names = [f"{program.name} ({item.name})" for item in objects for program in item.programs]
    if not names:
        return "none; remove the setting"
    more = f" and {len(names) - _SHOWN_PROGRAMS} more" if len(names) > _SHOWN_PROGRAMS else ""
    return f"{', '.join(names[:_SHOWN_PROGRAMS])}{more}"


def _check_target(
    setting: Setting,
    owner: AttachableObject,
    program: ProgramInfo,
    trust: TrustStore,
    objects: Sequence[AttachableObject],
) -> None:
    section = program.loaded_as
    hint = f"write {setting.program}="
    if program.type == "xdp" and not section.endswith(_IN_MAPS):
        _check_interface(setting)
        if (mode := setting.target.partition(":")[2]) not in ("", "driver", "generic"):
            raise setting.wrong(
                f"{mode!r} is not a mode of XDP", f"{hint}INTERFACE:driver or INTERFACE:generic"
            )
    elif program.type == "sched_cls":
        _check_interface(setting)
        _check_direction(setting, section)
    elif (
        program.type in _CGROUP_TYPES.split()
        or program.type in _NETNS_TYPES
        or section.startswith("lsm_cgroup")
    ):
        if not setting.target.startswith("/"):
            place = "network namespace" if program.type in _NETNS_TYPES else "cgroup"
            raise setting.wrong(f"{setting.target} is not the path of a {place}", f"{hint}/PATH")
    elif program.type in _SOCKMAP_TYPES:
        _check_sockmap(setting, owner, section)
    elif program.type == _REPLACES:
        _check_replaced(setting, objects)
    elif program.type in _NAMED_TYPES.split():
        _check_named(setting, owner, section, trust)
    else:
        raise setting.wrong(
            f"section {section} has no place that the loader attaches to", f"{hint}none to load it only"
        )


def _check_interface(setting: Setting) -> None:
    name = setting.target.partition(":")[0]
    if not name or "/" in name or (len(name) > MAX_INTERFACE_BYTES and "*" not in name):
        raise setting.wrong(f"{name!r} is not the name of an interface", f"write {setting.program}=eth0")


def _check_direction(setting: Setting, section: str) -> None:
    name, colon, given = setting.target.partition(":")
    named = section.rpartition("/")[2] if "/" in section else ""
    if colon and given not in ("ingress", "egress"):
        raise setting.wrong(f"{given!r} is not a direction", "write INTERFACE:ingress or INTERFACE:egress")
    if not (given or named):
        raise setting.wrong(
            f"section {section} names no direction",
            f"write {setting.program}={name}:ingress or {setting.program}={name}:egress",
        )
    if given and named and given != named:
        raise setting.wrong(
            f"section {section} has the other direction",
            f"write {setting.program}={name}, or change the section",
        )


def _check_replaced(setting: Setting, objects: Sequence[AttachableObject]) -> None:
    """Check that the target is a program of another object that replaces no function itself."""
    owner, _, name = setting.target.rpartition(":")
    found = [item for item in objects if item.name == owner]
    if not any(program.name == name for item in found for program in item.programs):
        raise setting.wrong(f"{setting.target} is no program of the objects", _REPLACE_HINT)
    if any(program.type == _REPLACES for item in found for program in item.programs):
        raise setting.wrong(
            f"{owner} has programs of freplace itself", "move the target to an object of its own"
        )


def _check_sockmap(setting: Setting, owner: AttachableObject, section: str) -> None:
    if section == "sk_skb":
        raise setting.wrong("section sk_skb names no hook", 'write SEC("sk_skb/verdict")')
    sockmaps = [item.name for item in owner.maps if item.type in ("sockmap", "sockhash")]
    if setting.target not in sockmaps:
        listed = f"its sockmaps are {', '.join(sockmaps)}" if sockmaps else "declare one of type sockmap"
        raise setting.wrong(f"{owner.name} has no sockmap {setting.target}", listed)


def _check_named(setting: Setting, owner: AttachableObject, section: str, trust: TrustStore) -> None:
    """Check the target of a section like fentry, netfilter or perf_event."""
    hint, kind = f"write {setting.program}=", section.partition("/")[0]
    if kind == "netfilter":
        if not _NETFILTER.fullmatch(setting.target):
            raise setting.wrong(f"{setting.target} is not a hook of netfilter", f"{hint}ipv4:prerouting:0")
    elif kind == "perf_event":
        if not _EVENT.fullmatch(setting.target):
            raise setting.wrong(f"{setting.target} is not a perf event", f"{hint}cpu-clock:FREQUENCY")
    elif "/" in section:
        if kind.removesuffix(".s") != "iter":
            raise setting.wrong(f"section {section} names its target already", "remove this setting")
        if setting.target not in [item.name for item in owner.maps]:
            maps = ", ".join(item.name for item in owner.maps) or "none"
            raise setting.wrong(f"{owner.name} has no map {setting.target}", f"its maps: {maps}")
    elif not allows_point(trust, f"{section}/{setting.target}"):
        point = f"{section}/{setting.target}"
        raise setting.wrong(
            f"trust.attach-points lacks {point}: the image would refuse it",
            f"add {point} to trust.attach-points",
        )


def describe_settings(settings: Iterable[str]) -> Iterator[str]:
    """Yield a line for people of each of *settings*: PROGRAM to TARGET."""
    for text in settings:
        program, _, target = text.partition("=")
        yield f"{program} nowhere" if target == NOWHERE else f"{program} to {target}"
