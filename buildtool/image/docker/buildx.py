# SPDX-License-Identifier: Apache-2.0
"""
Run `docker buildx build`: send the Dockerfile through stdin, pass secrets by name, return the digest.

The archive of the Dockerfile is sent as an additional build context, so no file is written into the
project.

No argument contains a secret. A secret is the path of a file, or the name of an environment
variable, which buildx reads.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from buildtool.core.diagnostics import parse_diagnostics
from buildtool.core.errors import (
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_USAGE,
    BuildStepError,
    EngineError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    ToolMissingError,
)
from buildtool.core.process import Completed, Runner
from buildtool.image.dockerfile import Dockerfile
from buildtool.oci.read import open_layout, read_images

# The stage of the template with the archive. A build context of this name replaces it.
ARCHIVE_STAGE = "archive"
INSTALL_BUILDX = "install docker-buildx (Debian) or docker-buildx-plugin"
INSTALL_HINT = f"{INSTALL_BUILDX}; buildtool doctor says what is missing; --engine local needs no Docker"
# A line of buildtool in BuildKit's output: behind the number of its step, or in the summary of the failure.
_STEP_LINE = re.compile(r"^(?:#\d+ )?\d+\.\d+ buildtool: (error|hint): (.*)$", re.MULTILINE)
_STEP_HEADING = "\n > ["  # of the failed step, which BuildKit's last lines repeat
_STEP_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")
_STEP_FAILED = re.compile(r"#(\d+) ERROR: ")
_STEP_OUTPUT = re.compile(r"#(?P<step>\d+) \d+\.\d+ (?P<text>.*)")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EXIT_CODES = (EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED)
# Where docker looks for plugins, beside its settings.
_PLUGINS = tuple(
    f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A build secret *name*, read from file *path* or from environment *variable*."""

    name: str
    path: Path | None = None
    variable: str = ""

    @property
    def option(self) -> str:
        """The value of buildx's --secret."""
        # The value is CSV, so a path with a comma could set other fields unless it is quoted.
        source = f"src={self.path.absolute()}" if self.path else f"env={self.variable}"
        return ",".join(csv_field(field) for field in (f"id={self.name}", source))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxRequest:
    """
    A build of *dockerfile* with directory *context*, for OCI *platforms*.

    *dockerfile* returns the text and the archive. It is called while docker starts, which is slower
    than rendering, and must return the same Dockerfile at each call.

    Only buildx receives *environment*, such as the passphrase that a secret names. *contexts*
    replace stages of the Dockerfile by directories.
    """

    dockerfile: Callable[[], Dockerfile]
    context: Path
    platforms: tuple[str, ...]
    target: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    output: str = ""
    push: bool = False
    builder: str = ""
    no_cache: bool = False
    secrets: tuple[Secret, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def check_buildx(environ: Mapping[str, str], runner: Runner) -> None:
    """
    Check that docker has buildx: without it, docker answers a build with two screens of its own usage.

    Raises: ToolMissingError; EngineError.
    """
    if shutil.which("docker", path=environ.get("PATH")) is None:
        raise ToolMissingError("docker: not found", hint=INSTALL_HINT)
    settings = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/"), ".docker"))
    places = (Path(place, "docker-buildx") for place in (f"{settings}/cli-plugins", *_PLUGINS))
    # docker itself takes a tenth of a second to answer.
    if not any(place.is_file() and os.access(place, os.X_OK) for place in places):
        _ask_for_buildx(runner)


def _ask_for_buildx(runner: Runner) -> None:
    """Ask docker itself for buildx, which may come from another directory. Raises: EngineError."""
    if _fails(["docker", "buildx", "version"], runner):
        raise EngineError("docker: buildx is missing, which BuildKit requires", hint=INSTALL_HINT)


def run_build(request: BuildxRequest, *, runner: Runner) -> dict[str, Any]:
    """
    Run the build with its progress on stderr, and return BuildKit's metadata.

    Raises: ToolMissingError, EngineError.
    """
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        metadata, archive = Path(work, "metadata.json"), Path(work, "archive")
        archive.mkdir()
        request = replace(request, contexts={**request.contexts, ARCHIVE_STAGE: archive})
        argv = [*build_argv(request), "--metadata-file", str(metadata), str(request.context)]
        done = _run(argv, request, runner, archive)
        if done.returncode != 0:
            error = find_step_error(done.stderr)
            if error is None:
                raise explain_failure(request, done.returncode, runner=runner)
            error.diagnostics = parse_diagnostics(failed_output(done.stderr), request.context)
            raise error
        return _read_metadata(metadata)


def failed_output(said: bytes) -> str:
    """
    Return what the failed steps of a build printed, without BuildKit's prefixes. *said* is BuildKit's output.

    A line of a step begins with its number and the time in seconds: `#12 0.345 x.bpf.c:5:1: error: ...`.
    On a terminal, BuildKit prints no such lines.
    """
    lines = _ESCAPES.sub("", said.decode(errors="replace")).splitlines()
    failed = {found[1] for line in lines if (found := _STEP_FAILED.match(line))}
    printed = (_STEP_OUTPUT.match(line) for line in lines)
    return "\n".join(found["text"] for found in printed if found and found["step"] in failed)


def find_step_error(said: bytes) -> BuildStepError | None:
    """
    Return the error of the step that failed, if buildtool itself ran in it and BuildKit shows its message.

    *said* is BuildKit's output. Its last lines repeat what the failed step wrote, each with the time in
    seconds, and then its exit code.
    """
    text = _ESCAPES.sub("", said.decode(errors="replace")).replace("\r", "\n")
    _, _, summary = text.rpartition(_STEP_HEADING)  # other steps may have printed such lines, too
    codes = _STEP_CODE.findall(summary)
    lines = [(kind, line.rstrip()) for kind, line in _STEP_LINE.findall(summary)]
    last = max((at for at, (kind, _) in enumerate(lines) if kind == "error"), default=None)
    if not codes or last is None:
        return None
    message = lines[last][1]
    hint = lines[last + 1][1] if lines[last + 1 :] and lines[last + 1][0] == "hint" else None
    code = int(codes[-1])
    return BuildStepError(message, hint=hint, exit_code=code if code in _EXIT_CODES else EXIT_FAILED)


def build_argv(request: BuildxRequest) -> list[str]:
    """Return the command of *request* without its context."""
    argv = ["docker", "buildx", "build", "--file", "-", "--platform", ",".join(request.platforms)]
    # Provenance contains the time of the build, so each build would have another digest.
    argv += ["--provenance=false"]
    for option, value in (
        ("--target", request.target),
        *(("--tag", tag) for tag in request.tags),
        *(("--label", f"{key}={text}") for key, text in sorted(request.labels.items())),
        *(("--annotation", text) for text in request.annotations),
        *(("--cache-from", text) for text in request.cache_from),
        *(("--cache-to", text) for text in request.cache_to),
        ("--output", request.output),
        ("--builder", request.builder),
    ):
        if value:
            argv += [option, value]
    for secret in request.secrets:
        argv += ["--secret", secret.option]
    for name, text in sorted(request.arguments.items()):
        argv += ["--build-arg", f"{name}={text}"]
    for name, path in sorted(request.contexts.items()):
        argv += ["--build-context", f"{name}={path}"]
    argv += ["--push"] if request.push else []
    return [*argv, "--no-cache"] if request.no_cache else argv


def explain_failure(request: BuildxRequest, code: int, *, runner: Runner) -> EngineError:
    """
    Return the error of a failed build: builder or engine is missing, or the build failed.

    Raises: EngineError, if buildx is missing.
    """
    _ask_for_buildx(runner)  # docker may not start a plugin that is there
    builder = request.builder or os.environ.get("BUILDX_BUILDER", "")
    if builder and _fails(["docker", "buildx", "inspect", builder], runner):
        return EngineError(
            f"buildx has no builder {builder!r}",
            hint="docker buildx ls lists builders; --builder, BUILDTOOL_BUILDER or BUILDX_BUILDER names one",
        )
    if builder and (cause := _find_silence(builder, runner)):
        return EngineError(
            f"builder {builder!r} does not answer: {cause}",
            hint=f"docker buildx inspect --bootstrap {builder} shows its state",
        )
    version = _quiet(["docker", "version", "--format", "{{.Server.Version}}"], runner)
    if version is not None and version.returncode != 0 and not request.builder:
        return unreachable_engine(version.stderr.decode(errors="replace"))
    return EngineError(f"the build failed (exit code {code}), BuildKit's message is above")


def _find_silence(builder: str, runner: Runner) -> str:
    """Return why *builder*, which exists, does not answer, or empty text if it does."""
    done = _quiet(["docker", "buildx", "inspect", builder], runner)
    text = done.stdout.decode(errors="replace") if done else ""
    if causes := re.findall(r"^Error:\s+(\S.*)$", text, re.MULTILINE):
        return _lower_first(causes[0].strip().rstrip("."))
    if re.search(r"^Status:\s+running$", text, re.MULTILINE) or not text:
        return ""
    from buildtool.image.docker.reach import explain_silence

    return explain_silence(text)


def check_base_platforms(request: BuildxRequest, base: str, *, runner: Runner) -> None:
    """
    Check that image *base* has the platforms of *request* in the view of its builder.

    Raises: EngineError, if *base* lacks a platform.
    """
    for platform in request.platforms:
        found = _find_base_platform(request, base, platform, runner)
        # Like BuildKit, compare without the variant, because a base for arm may lack one.
        if found is not None and found.split("/")[:2] != platform.split("/")[:2]:
            raise EngineError(
                f"base image {base} is not for {platform}" + (f" but {found}" if found else ""),
                hint="name a base image that has the platform, or build another --arch",
            )


def _find_base_platform(request: BuildxRequest, base: str, platform: str, runner: Runner) -> str | None:
    """
    Return the platform in the configuration of *base* when *platform* is requested.

    Empty if the base has only other platforms, None if unknown. BuildKit overwrites the platform of the base
    with that of --platform, so the request is in FROM.
    """
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        archive, context = Path(work, "base.tar"), Path(work, "context")
        context.mkdir()
        argv = ["docker", "buildx", "build", "--file", "-", "--provenance=false"]
        argv += ["--output", f"type=oci,dest={archive}"]
        argv += ["--builder", request.builder] if request.builder else []
        text = f"FROM --platform={platform} {base}\nLABEL probe=1\n"
        done = _quiet([*argv, str(context)], runner, text.encode(), env={"DOCKER_DEFAULT_PLATFORM": ""})
        if done is None or done.returncode != 0:
            return "" if done and b"no match for platform" in done.stderr else None
        try:
            with open_layout(archive) as source:
                return read_images(source)[0].platform
        except (FileAccessError, ObjectFormatError):
            return None


def unreachable_engine(message: str) -> EngineError:
    """Return the error for an engine that does not answer, with the last line of docker's *message*."""
    last = next((line for line in reversed(message.splitlines()) if line.strip()), "no message")
    return EngineError(
        f"no Docker engine answers: {_lower_first(last.strip()).rstrip('.')}",
        hint="start the engine, or name one by DOCKER_HOST",
    )


def _run(argv: list[str], request: BuildxRequest, runner: Runner, directory: Path) -> Completed:
    try:
        return runner.run(
            argv,
            stdin=lambda: _put_archive(request.dockerfile(), directory).encode(),
            # Provenance is disabled, so skip the request for it after the build.
            env={**request.environment, "BUILDX_METADATA_PROVENANCE": "disabled"},
            show_stderr=True,
            check=False,
        )
    except ToolMissingError as error:
        raise ToolMissingError("docker: not found", hint=INSTALL_HINT) from error


def _put_archive(dockerfile: Dockerfile, directory: Path) -> str:
    """Write the archive of *dockerfile* into *directory*, and return the text for buildx's stdin."""
    if dockerfile.archive is not None:
        dockerfile.archive.write(directory)
    return dockerfile.text


def _quiet(
    argv: list[str], runner: Runner, stdin: bytes | None = None, env: Mapping[str, str] | None = None
) -> Completed | None:
    try:
        return runner.run(argv, stdin=stdin, env=env, check=False)
    except (ToolMissingError, ToolFailedError):
        return None


def _fails(argv: list[str], runner: Runner) -> bool:
    done = _quiet(argv, runner)
    return done is None or done.returncode != 0


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineError("buildx: cannot read its metadata file") from error
    return data if isinstance(data, dict) else {}


def csv_field(text: str) -> str:
    """Return *text* as a field of CSV, the form of buildx's options."""
    return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n') else text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
