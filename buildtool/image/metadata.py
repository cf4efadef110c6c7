# SPDX-License-Identifier: Apache-2.0
"""Make labels, entrypoint and loader options of a project's images, for both engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from buildtool.config.file import Config, LoaderConfig
from buildtool.core import validate
from buildtool.core.errors import ConfigError, UsageError
from buildtool.objects.optional import Selection
from buildtool.signing.keys import KeyId

OBJECTS_DIRECTORY = "/usr/lib/buildtool/objects"
TYPES_DIRECTORY = "/usr/lib/buildtool/btf"
TRUST_DIRECTORY = "/etc/buildtool/trust"
LOADER_PATH = "/usr/bin/verify-and-load"
PINS_PATH = "/usr/bin/ebpf-pins"
TINI_PATH = "/sbin/tini"
LABEL_PREFIX = "buildtool."
_SET_BY_BUILD = f"labels of {LABEL_PREFIX}* are set by the build"
_OTHER_PREFIX = "use another prefix, for example org.example.NAME"
_PLACES = (
    "--pin-root",
    "--share",
    "--state",
    "--metrics-file",
    "--attach-file",
    "--settings",
    "--btf",
)


def image_labels(
    config: Config, key_id: KeyId, base: str, capabilities: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """
    Return the sorted labels of an image on *base*, with the key's *key_id* and the objects' *capabilities*.

    Raises: ConfigError, UsageError.
    """
    project = config.project
    name, _, digest = base.partition("@")
    labels = {
        "org.opencontainers.image.title": project.name,
        "org.opencontainers.image.version": project.release,
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": digest,
        LABEL_PREFIX + "key-id": key_id,
        LABEL_PREFIX + "object-version": str(project.version),
        LABEL_PREFIX + "objects": OBJECTS_DIRECTORY,
        LABEL_PREFIX + "capabilities": ",".join(sorted(capabilities)),
    }
    for key in config.image.labels:
        if key.startswith(LABEL_PREFIX):
            raise ConfigError(f"image.labels: {key}: {_SET_BY_BUILD}", hint=_OTHER_PREFIX)
    labels |= dict(config.image.labels)
    return sorted((validate.check_label_key(key), value) for key, value in labels.items() if value)


def check_given_labels(labels: Mapping[str, str]) -> None:
    """Check that none of *labels*, which --label adds, is set by the build. Raises: UsageError."""
    for key in labels:
        if key.startswith(LABEL_PREFIX):
            raise UsageError(f"--label {key}: {_SET_BY_BUILD}", hint=_OTHER_PREFIX)


def image_entrypoint(config: Config) -> list[str]:
    """
    Return the argument list that a container of the image starts with.

    Raises: UsageError, ConfigError.
    """
    # -g: tini passes signals to the whole group, so that a workload's children end too.
    argv = [TINI_PATH, "-g", "--", LOADER_PATH]
    for key in ("attach", "load", "set", "map_entries"):
        if config.loader.hand_over and getattr(config.image, key):
            raise _loads_itself(f"image.{key.replace('_', '-')}")
    for attach in config.image.attach:
        # Not --attach: what docker run adds replaces these.
        argv += ["--image-attach", validate.check_attach(attach)]
    for program in config.image.load:
        argv += ["--image-load", validate.check_load(program)]
    # Before --settings and what docker run adds, which replace these.
    for setting in config.image.set:
        argv += ["--set", validate.check_setting(setting)]
    for setting in config.image.map_entries:
        argv += ["--map-entries", validate.check_setting(setting)]
    if config.image.capabilities:
        argv += ["--capabilities", ",".join(sorted(set(config.image.capabilities)))]
    argv += loader_options(config.loader, has_workload=bool(config.image.workload))
    if config.load.btf and config.loader.btf:
        raise ConfigError(
            "load.btf and loader.btf exclude each other", hint="remove loader.btf: the image holds the types"
        )
    argv += ["--btf", TYPES_DIRECTORY] if config.load.btf else []
    for word in config.image.workload:
        # Not after `--`: what docker run adds are options of the loader, or `--` and another workload.
        argv += ["--image-workload", validate.check_word(word)]
    return argv


@dataclass(frozen=True)
class Entrypoint:
    """What an image's loader attaches and starts without further options, and the *places* of its options."""

    attach: tuple[str, ...] = ()  # PROGRAM=TARGET
    workload: tuple[str, ...] = ()  # program and arguments
    places: Mapping[str, str] = field(default_factory=dict)  # such as --pin-root, with its path
    hands_over: bool = False  # the workload loads and attaches the programs
    load: tuple[str, ...] = ()  # optional programs: [OBJECT:]PROGRAM
    set: tuple[str, ...] = ()  # constants: [OBJECT:]NAME=VALUE
    map_entries: tuple[str, ...] = ()  # sizes of maps: [OBJECT:]MAP=N

    @property
    def selection(self) -> Selection:
        """Which programs the loader loads."""
        return Selection(load=self.load, attach=self.attach, everything=self.hands_over)


def parse_entrypoint(words: Sequence[str]) -> Entrypoint:
    """Return what the loader's options in an image's entrypoint *words* set. Other programs set nothing."""
    argv = list(words[words.index(LOADER_PATH) + 1 :]) if LOADER_PATH in words else []
    attach, workload, load, places, hands_over = [], [], [], {}, False
    constants, entries = [], []
    while argv:
        name = argv.pop(0)
        if name == "--":  # images of older releases
            workload, argv = argv, []
        elif name in ("--image-attach", "--attach") and argv:
            attach.append(argv.pop(0))
        elif name in ("--image-load", "--load") and argv:
            load.append(argv.pop(0))
        elif name == "--set" and argv:
            constants.append(argv.pop(0))
        elif name == "--map-entries" and argv:
            entries.append(argv.pop(0))
        elif name == "--image-workload" and argv:
            workload.append(argv.pop(0))
        elif name in _PLACES and argv:
            places[name] = argv.pop(0)
        hands_over = hands_over or name == "--hand-over"
    return Entrypoint(
        attach=tuple(attach),
        workload=tuple(workload),
        places=places,
        hands_over=hands_over,
        load=tuple(load),
        set=tuple(constants),
        map_entries=tuple(entries),
    )


def image_selection(config: Config) -> Selection:
    """Return which programs the loader of the image of *config* loads."""
    image = config.image
    return Selection(load=image.load, attach=image.attach, everything=config.loader.hand_over)


def _key_of_loading(loader: LoaderConfig) -> str | None:
    """Return a key that is set and has an effect only if the loader loads the programs, or None."""
    keys = {
        "pin-root": loader.pin_root,
        "share": loader.share,
        "attach-file": loader.attach_file,
        "settings": loader.settings,
        "wait-interface": loader.wait_interface is not None,
        "replace": loader.replace,
        "health-command": loader.health_command,
        "health-wait": loader.health_wait is not None,
        "reload": loader.reload,
        "map-fds": not loader.map_fds,
        "seccomp": not loader.seccomp,
    }
    return next((key for key, is_set in keys.items() if is_set), None)


def _loads_itself(key: str) -> ConfigError:
    return ConfigError(
        f"{key} has no effect with loader.hand-over: the workload loads and attaches the programs itself",
        hint=f"remove {key}, or loader.hand-over",
    )


def loader_options(loader: LoaderConfig, *, has_workload: bool) -> list[str]:
    """
    Return the loader's options for configuration *loader*. An unset key adds no option.

    Raises: ConfigError, if a key requires a workload, or has no effect.
    """
    of_workloads = {
        "seccomp": not loader.seccomp,
        "map-fds": not loader.map_fds,
        "workload-user": bool(loader.workload_user),
        "hand-over": loader.hand_over,
    }
    for key, is_set in of_workloads.items():
        if is_set and not has_workload:
            raise ConfigError(f"loader.{key} requires a workload", hint="set image.workload")
    if loader.hand_over and (useless := _key_of_loading(loader)):
        raise _loads_itself(f"loader.{useless}")
    if not loader.seccomp and not loader.workload_user and (loader.pin_root or loader.share):
        key = "pin-root" if loader.pin_root else "share"
        raise ConfigError(
            f"loader.seccomp: false: a workload of the loader's user could open what loader.{key} pins",
            hint="set loader.workload-user, or leave loader.seccomp out",
        )
    values = {
        "--state": loader.state,
        "--pin-root": loader.pin_root,
        "--share": loader.share,
        "--attach-file": loader.attach_file,
        "--settings": loader.settings,
        "--btf": loader.btf,
        "--wait-interface": loader.wait_interface,
        "--health-command": loader.health_command,
        "--health-wait": loader.health_wait,
        "--metrics-file": loader.metrics_file,
        "--workload-user": loader.workload_user,
    }
    switches = {
        "--hand-over": loader.hand_over,
        "--replace": loader.replace,
        "--reload": loader.reload,
        "--no-map-fds": not loader.map_fds,
        "--no-seccomp": not loader.seccomp,
    }
    argv = [word for name, value in values.items() if value not in ("", None) for word in (name, str(value))]
    return argv + [name for name, is_on in switches.items() if is_on]
