# SPDX-License-Identifier: Apache-2.0
"""Runs the loader or ebpf-pins on this host; makes them from their source when none is carried."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn

from buildtool.config.file import (
    DEFAULT_BASE,
    DEFAULT_BUILDER,
    Config,
    ImagesConfig,
    LoaderConfig,
    named_variable,
)
from buildtool.config.project import NO_PROJECT_HINT, has_project
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
from buildtool.core.platforms import PLATFORMS, Platform, host_platform
from buildtool.core.process import SECRET_VARIABLES, Runner
from buildtool.image.docker.build import ImageRequest, export_stage
from buildtool.image.docker.buildx import check_buildx
from buildtool.image.docker.prepare import find_prepared
from buildtool.image.dockerfile import RenderRequest, render_dockerfile
from buildtool.image.metadata import loader_options
from buildtool.runtime import carried as loaders
from buildtool.runtime.link import INSTALL_COMPILER
from buildtool.runtime.provide import find_parts, provide_parts
from buildtool.signing.keys import KeyId

log = logging.getLogger(__name__)

LOADER_VARIABLE = "BUILDTOOL_LOADER"
_TRUST_HINT = "name a .pub file, a directory of them or a policy by --trust; buildtool keygen makes a key"
MAX_LOADER_BYTES = 64 * 1024 * 1024
PINS_COMMANDS = ("list", "status", "detach", "rollback")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What the loader is started with; its own --help explains each."""

    objects: Path
    trust: Path
    attach: tuple[str, ...] = ()
    verify_only: bool = False
    human: bool = False
    workload: tuple[str, ...] = ()
    options: LoaderConfig = field(default_factory=LoaderConfig)


def load_on_host(
    config: Config, request: LoadRequest, *, environ: Mapping[str, str], runner: Runner
) -> NoReturn:
    """
    Become the loader: this process is replaced, so signals reach it and its exit code is ours.

    Raises: every BuildtoolError, when there is no loader and none can be made.
    """
    loader = choose_program("loader", config, environ=environ, runner=runner)
    _become(loader_argv(loader, request), environ)


def manage_pins(
    config: Config, arguments: Sequence[str], *, environ: Mapping[str, str], runner: Runner
) -> NoReturn:
    """
    Become ebpf-pins with *arguments*, the first of which is one of PINS_COMMANDS.

    Raises: every BuildtoolError, when there is no ebpf-pins and none can be made.
    """
    program = choose_program("pins", config, environ=environ, runner=runner)
    _become([str(program), *arguments], environ)


def _become(argv: list[str], environ: Mapping[str, str]) -> NoReturn:
    log.debug("run: %s", argv)
    try:
        # The workload may need a private key of its own, but never ours.
        ours_left_out = {name: text for name, text in environ.items() if name not in SECRET_VARIABLES}
        os.execve(argv[0], argv, ours_left_out)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        raise ToolFailedError(f"{argv[0]}: cannot start: {system_reason(error)}") from error


def loader_argv(loader: Path, request: LoadRequest) -> list[str]:
    """Return the arguments that *loader* is started with."""
    options = request.options
    if not request.workload:  # the configuration's own is in the image, and so is what these are about
        options = replace(options, seccomp=False, map_fds=True)
    argv = [str(loader), "--objects", str(request.objects), "--trust", str(request.trust)]
    for attach in request.attach:
        argv += ["--attach", attach]
    if request.verify_only:
        argv.append("--verify-only")
    else:
        argv += loader_options(options, has_workload=bool(request.workload))
    if request.human:
        argv += ["--log", "human"]
    return [*argv, "--", *request.workload] if request.workload else argv


def choose_objects(given: Path | None, config: Config) -> Path:
    """
    Return the object or directory *given*, else this machine's objects in build/.

    Raises: FileAccessError, UsageError.
    """
    path = given or config.root / "build" / _this_platform().arch
    if not path.exists():
        hint = "buildtool compile and buildtool sign make objects" if has_project(config) else NO_PROJECT_HINT
        raise FileAccessError(f"{path}: no such file or directory", hint=None if given else hint)
    return path


def choose_trust(given: Path | None, config: Config) -> Path:
    """
    Return the trust store *given*, else the configured policy or key, else the key beside the signing key.

    Raises: UsageError, ConfigError.
    """
    chosen, key = given or config.trust.policy, "trust.policy"
    keys = (chosen,) if chosen else config.trust.keys
    if not chosen:
        key = "trust.keys" if keys else "sign.key"
    if not keys and isinstance(config.sign.key, Path):
        keys = (config.sign.key.with_suffix(".pub"),)
    if len(keys) != 1:
        hint = "--trust takes a .pub file, a directory of them or a policy"
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
    Return the program that images get, or one made of the same source, which is kept in the cache.

    BUILDTOOL_LOADER names another loader; ebpf-pins is then beside it.

    Raises: every BuildtoolError.
    """
    named = environ.get(LOADER_VARIABLE)
    if named:
        path = Path(named).absolute()
        path = path if kind == "loader" else path.with_name(loaders.PINS_NAME)
        if not (path.is_file() and os.access(path, os.X_OK)):
            shown = named if kind == "loader" else path
            raise ConfigError(
                f"{LOADER_VARIABLE}: {shown}: not a program",
                hint=f"name verify-and-load, with ebpf-pins beside it, or unset {LOADER_VARIABLE}",
            )
        return path
    target = _this_platform()
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
    # A copy of the installation may have lost the mode of its files.
    return _keep(_cache(environ) / f"{kind}-{target.arch}-{carried.sha256[:16]}", lambda: carried.data)


def _cache(environ: Mapping[str, str]) -> Path:
    """Return the directory of programs that were made or copied; only they need a home directory."""
    return Path(environ.get("XDG_CACHE_HOME") or expand_home(Path("~/.cache"))) / "buildtool"


def _keep(path: Path, make: Callable[[], bytes]) -> Path:
    """Return program *path* of the cache; what *make* returns is put there if it is missing."""
    if not _is_own(path):
        make_directory(path.parent)
        write_atomic(path, make(), mode=0o755)
    return path.absolute()


def _is_own(path: Path) -> bool:
    """Say whether *path* is a program that nobody but this user could have put there."""
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
    """Export the loader stage of the Dockerfile. It reads no file of a project and no key."""
    check_buildx(os.environ, runner)
    image_config = replace(config.image, tools=True)
    request = RenderRequest(
        config=replace(config, images=_choose_images(config.images, target), image=image_config),
        platforms=(target,),
        sources=("bpf/none.bpf.c",),
        key_id=KeyId("0" * 64),
        trust={"none.pub": "\n"},
    )
    dockerfile = render_dockerfile(request)
    image = ImageRequest(dockerfile=lambda: dockerfile, root=work, platforms=(target,), epoch=0)
    export_stage(image, "loader", work, runner=runner)


def _choose_images(images: ImagesConfig, target: Platform) -> ImagesConfig:
    if (images.builder, images.base) != (DEFAULT_BUILDER, DEFAULT_BASE):
        return images
    found = find_prepared(architectures=[target.arch])
    return ImagesConfig(builder=found.builder, base=found.base) if found else images


def _this_platform() -> Platform:
    found = host_platform(platform.machine())
    if found is None:
        raise UsageError(
            f"{platform.machine()}: this machine's architecture is not supported",
            hint="load runs on " + ", ".join(PLATFORMS),
        )
    return found
