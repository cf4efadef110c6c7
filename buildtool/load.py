# SPDX-License-Identifier: Apache-2.0
"""Run the loader or ebpf-pins on this host. If the installation lacks them, build them from source."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn

from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.config.file import CONFIG_NAME, Config, LoaderConfig, named_variable
from buildtool.config.project import NO_PROJECT_HINT, flat_name, has_project
from buildtool.core.errors import (
    BuildtoolError,
    ConfigError,
    FileAccessError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
    system_reason,
)
from buildtool.core.files import expand_home, make_directory, read_bounded, write_atomic
from buildtool.core.platforms import Platform, this_platform
from buildtool.core.process import SECRET_VARIABLES, Runner
from buildtool.image.docker.build import ImageRequest, export_stage
from buildtool.image.docker.buildx import check_buildx
from buildtool.image.docker.prepare import choose_images
from buildtool.image.dockerfile import RenderRequest, render_dockerfile
from buildtool.image.metadata import loader_options
from buildtool.objects.capabilities import PINS_NAME
from buildtool.objects.elf import MAX_OBJECT_BYTES
from buildtool.runtime import carried as loaders
from buildtool.runtime.link import INSTALL_COMPILER
from buildtool.runtime.provide import find_parts, provide_parts
from buildtool.signing.keys import KeyId
from buildtool.signing.stale import StaleFinder

log = logging.getLogger(__name__)

LOADER_VARIABLE = "BUILDTOOL_LOADER"
_TRUST_HINT = "name a .pub file, a directory of them or a policy by --trust; buildtool keygen makes a key"
MAX_LOADER_BYTES = 64 * 1024 * 1024
PINS_COMMANDS = ("list", "status", "detach", "rollback")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """
    Arguments of the loader (docs/reference/loader.md).

    *image* are options of an image, which come before *settings*: a later setting replaces an earlier one.
    """

    objects: Path
    trust: Path
    attach: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    no_load: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    map_entries: tuple[str, ...] = ()
    settings: Path | None = None
    verify_only: bool = False
    human: bool = False
    workload: tuple[str, ...] = ()
    options: LoaderConfig = field(default_factory=LoaderConfig)


def load_on_host(
    config: Config, request: LoadRequest, *, environ: Mapping[str, str], runner: Runner
) -> NoReturn:
    """
    Replace this process by the loader, which then receives signals and sets the exit code.

    Raises: any BuildtoolError, if the loader is missing and cannot be built.
    """
    loader = choose_program("loader", config, environ=environ, runner=runner)
    _become(loader_argv(loader, request), environ)


def manage_pins(
    config: Config, arguments: Sequence[str], *, human: bool, environ: Mapping[str, str], runner: Runner
) -> NoReturn:
    """
    Replace this process by ebpf-pins with *arguments*, the first of which is one of PINS_COMMANDS.

    Raises: any BuildtoolError, if ebpf-pins is missing and cannot be built.
    """
    program = choose_program("pins", config, environ=environ, runner=runner)
    _become(pins_argv(program, arguments, config.loader, human=human), environ)


def pins_argv(program: Path, arguments: Sequence[str], options: LoaderConfig, *, human: bool) -> list[str]:
    """
    Return the command that starts ebpf-pins, which is *program*, with *arguments*.

    Without a place in *arguments*, the command is for the places that *options* configure.
    """
    named = {argument.partition("=")[0] for argument in arguments}
    argv = [str(program), *arguments]
    if not named & {"--pin-root", "--share", "--help", "--version"}:
        if options.pin_root:
            argv += ["--pin-root", options.pin_root]
        if options.share and arguments[0] != "rollback":  # a shared object has no link of its own
            argv += ["--share", options.share]
    if human and "--log" not in named:
        argv += ["--log", "human"]
    return argv


def _become(argv: list[str], environ: Mapping[str, str]) -> NoReturn:
    log.debug("run: %s", argv)
    try:
        # Remove buildtool's secrets only, because the workload may need a private key of its own.
        ours_left_out = {name: text for name, text in environ.items() if name not in SECRET_VARIABLES}
        os.execve(argv[0], argv, ours_left_out)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        raise ToolFailedError(f"{argv[0]}: cannot start: {system_reason(error)}") from error


def _check_handed_over(request: LoadRequest) -> None:
    """Check that *request* asks nothing of a loader that loads nothing. Raises: UsageError."""
    asked = {
        "--attach or image.attach": request.attach,
        "--load or image.load": request.load,
        "--no-load": request.no_load,
        "image.set or image.map-entries": request.image,
        "--set": request.set,
        "--map-entries": request.map_entries,
        "--settings": request.settings,
    }
    name = next((name for name, value in asked.items() if value), "")
    if name:
        raise UsageError(
            f"{name} has no effect with loader.hand-over: the workload loads and attaches the programs",
            hint="leave it out, or remove loader.hand-over",
        )


def loader_argv(loader: Path, request: LoadRequest) -> list[str]:
    """
    Return the command that starts *loader*.

    Raises: UsageError, ConfigError.
    """
    options = request.options
    if options.hand_over and not request.workload and not request.verify_only:
        raise UsageError(
            "loader.hand-over: the workload loads the objects, and none is named",
            hint="buildtool load -- PROGRAM starts one; or remove loader.hand-over",
        )
    if options.hand_over and not request.verify_only:
        _check_handed_over(request)
    if not request.workload:  # these keys of the configuration require the image's workload
        options = replace(options, seccomp=True, map_fds=True, workload_user="", hand_over=False)
    argv = [str(loader), "--objects", str(request.objects), "--trust", str(request.trust)]
    for attach in request.attach:
        argv += ["--attach", attach]
    argv += [word for program in request.load for word in ("--load", program)]
    argv += [word for program in request.no_load for word in ("--no-load", program)]
    argv += request.image
    settings = str(request.settings or options.settings)
    argv += ["--settings", settings] if settings and not (request.verify_only or options.hand_over) else []
    options = options if options.hand_over else replace(options, settings="")
    argv += [word for text in request.set for word in ("--set", text)]
    argv += [word for text in request.map_entries for word in ("--map-entries", text)]
    if request.verify_only:
        argv.append("--verify-only")
    else:
        argv += loader_options(options, has_workload=bool(request.workload))
    if request.human:
        argv += ["--log", "human"]
    return [*argv, "--", *request.workload] if request.workload else argv


def choose_objects(given: Path | None, config: Config) -> Path:
    """
    Return the object or directory *given*, or the directory of this machine's objects in build/.

    The loader reads no folders. If the directory has some with objects, the result is a directory of links
    beside it, whose names are those of the objects in an image.

    Raises: FileAccessError, UsageError.
    """
    path = given or config.root / "build" / this_platform().arch
    if not path.exists():
        hint = "buildtool compile and buildtool sign make objects" if has_project(config) else NO_PROJECT_HINT
        raise FileAccessError(f"{path}: no such file or directory", hint=None if given else hint)
    inside = sorted(path.rglob(f"*{OBJECT_SUFFIX}")) if path.is_dir() else []
    return _link_flat(path, inside) if any(each.parent != path for each in inside) else path


def _link_flat(path: Path, objects: Sequence[Path]) -> Path:
    """Return a directory beside *path* with links to its *objects*, by their flat names."""
    flat = path.parent / f".{path.name}-flat"
    make_directory(flat)
    try:
        for old in flat.iterdir():
            if old.is_symlink():
                old.unlink()
        for each in objects:
            inside = each.relative_to(path).as_posix()
            (flat / flat_name(inside)).symlink_to(os.path.join("..", path.name, inside))  # noqa: PTH118
    except OSError as error:
        raise FileAccessError(f"{flat}: cannot write: {system_reason(error)}") from error
    return flat


def check_fresh(objects: Path, config: Config) -> None:
    """
    Check that no object of *objects*, a file or a directory, is older than its sources.

    Raises: StaleObjectError; FileAccessError.
    """
    finder = StaleFinder(config=config)
    for path in sorted(objects.rglob(f"*{OBJECT_SUFFIX}")) if objects.is_dir() else [objects]:
        if path.is_file():  # the loader has the words for anything else
            # The record is beside the object, which may be behind a link of `choose_objects`.
            place = Path(os.path.relpath(os.path.realpath(path))) if path.is_symlink() else path
            finder.check(place, read_bounded(path, MAX_OBJECT_BYTES))


def choose_trust(given: Path | None, config: Config) -> Path:
    """
    Return the trust store *given*, or the configured policy or key, or the .pub file of the signing key.

    Raises: UsageError, ConfigError.
    """
    chosen, key = given or config.trust.policy, "trust.policy"
    keys = (chosen,) if chosen else config.trust.keys
    if not chosen:
        key = "trust.keys" if keys else "sign.key"
    if not keys and isinstance(config.sign.key, Path):
        keys = (config.sign.key.with_suffix(".pub"),)
    if not keys and not config.has_file:
        raise UsageError(f"{config.root / CONFIG_NAME}: no such file, and no trust source", hint=_TRUST_HINT)
    if len(keys) != 1:
        hint = "name one by --trust: a .pub file, a directory of .pub files, or a policy"
        raise UsageError(
            "several trust sources are configured" if keys else "no trust source is configured", hint=hint
        )
    if not keys[0].exists():
        with named_variable(config, "" if given else key):
            raise ConfigError(f"{keys[0]}: no such file or directory", hint=_TRUST_HINT)
    return keys[0]


def choose_program(
    kind: Literal["loader", "pins"], config: Config, *, environ: Mapping[str, str], runner: Runner
) -> Path:
    """
    Return the path of the program for images, or of one built from the same source into the cache.

    If BUILDTOOL_LOADER names a loader, the result is that loader, or ebpf-pins beside it.

    Raises: any BuildtoolError.
    """
    named = environ.get(LOADER_VARIABLE)
    if named:
        path = Path(named).absolute()
        path = path if kind == "loader" else path.with_name(PINS_NAME)
        if not (path.is_file() and os.access(path, os.X_OK)):
            shown = named if kind == "loader" else path
            raise ConfigError(
                f"{LOADER_VARIABLE}: {shown}: not a program",
                hint=f"name verify-and-load, with ebpf-pins beside it, or unset {LOADER_VARIABLE}",
            )
        return path
    target = this_platform()
    find = loaders.find_loader if kind == "loader" else loaders.find_pins_tool
    try:
        try:
            carried = find(target, find_parts(environ))
        except FileAccessError as error:
            log.debug("no %s is carried: %s", kind, error.message)
            carried = find(target, provide_parts((target,), environ, report=log.warning, runner=runner))
    except (FileAccessError, ToolMissingError, ToolFailedError) as error:
        log.debug("no %s can be linked here: %s", kind, error.message)
        path = _cache(environ) / f"{kind}-{target.arch}-{loaders.loader_digest()[:16]}"
        return _keep(path, lambda: _make_program(kind, config, target, runner))
    if os.access(carried.path, os.X_OK):
        return carried.path.absolute()
    # Copying an installation may lose the mode of its files.
    return _keep(_cache(environ) / f"{kind}-{target.arch}-{carried.sha256[:16]}", lambda: carried.data)


def _cache(environ: Mapping[str, str]) -> Path:
    """Return the directory for built or copied programs. Raises: UsageError, without a home directory."""
    return Path(environ.get("XDG_CACHE_HOME") or expand_home(Path("~/.cache"))) / "buildtool"


def _keep(path: Path, make: Callable[[], bytes]) -> Path:
    """Return program *path* of the cache. If it is missing, write the result of *make* there."""
    if not _is_own(path):
        make_directory(path.parent)
        write_atomic(path, make(), mode=0o755)
    return path.absolute()


def _is_own(path: Path) -> bool:
    """Return whether *path* is a program that only this user could have written."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return path.is_file() and status.st_uid == os.geteuid() and status.st_mode & 0o122 == 0o100


def _make_program(kind: str, config: Config, target: Platform, runner: Runner) -> bytes:
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        output = Path(work, loaders.part_path(Path(work), kind, target.arch).name)
        try:
            _link_in_builder(config, target, Path(work), runner)
        except BuildtoolError as failed:
            failed.message = f"cannot make the loader: {failed.message}"
            failed.hint = (
                f"install a release, whose wheel carries loaders; or link one here: {INSTALL_COMPILER};"
                f" or let {LOADER_VARIABLE} name one"
            )
            raise
        return read_bounded(output, MAX_LOADER_BYTES)


def _link_in_builder(config: Config, target: Platform, work: Path, runner: Runner) -> None:
    """Export the loader stage of the Dockerfile. This stage reads no file of a project and no key."""
    check_buildx(os.environ, runner)
    image_config = replace(config.image, tools=True)
    request = RenderRequest(
        config=replace(config, images=choose_images(config.images, [target.arch]), image=image_config),
        platforms=(target,),
        sources=("bpf/none.bpf.c",),
        key_id=KeyId("0" * 64),
        trust={"none.pub": "\n"},
    )
    dockerfile = render_dockerfile(request)
    image = ImageRequest(dockerfile=lambda: dockerfile, root=work, platforms=(target,), epoch=0)
    export_stage(image, "loader", work, runner=runner)
