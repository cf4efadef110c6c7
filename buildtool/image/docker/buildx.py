# SPDX-License-Identifier: Apache-2.0
"""
`docker buildx build` as a function: the Dockerfile through stdin, secrets by name, the digest back.

The archive that the Dockerfile names is sent as a build context of its own, so
nothing is written into the project and no text of it scrolls by.

Nothing secret is ever in an argument: a secret is the path of a file or the
name of an environment variable, which buildx reads itself.
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

from buildtool.core.errors import EngineError, ToolFailedError, ToolMissingError
from buildtool.core.process import Completed, Runner
from buildtool.image.dockerfile import Dockerfile

# The stage of the template that holds the archive: a build context of this name stands in for it.
ARCHIVE_STAGE = "archive"
INSTALL_HINT = (
    "install docker-buildx (Debian) or docker-buildx-plugin; buildtool doctor says what is missing;"
    " --engine local needs no Docker"
)
# Where docker looks for plugins, beside its settings.
_PLUGINS = tuple(
    f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A build secret *name*, read from file *path* or else from environment *variable*."""

    name: str
    path: Path | None = None
    variable: str = ""

    @property
    def option(self) -> str:
        """The value of buildx's --secret."""
        # The value is CSV: a path with a comma or a quote must be quoted, or it would set other fields.
        source = f"src={self.path.absolute()}" if self.path else f"env={self.variable}"
        return ",".join(_csv(field) for field in (f"id={self.name}", source))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxRequest:
    """
    One build: *dockerfile* with *context* directory, for OCI *platforms*.

    *dockerfile* makes the text and the archive; it is called while docker starts, which takes
    longer than rendering. It must return the same Dockerfile at each call.

    *environment* goes to buildx alone (a passphrase that a secret names);
    *contexts* replace stages of the Dockerfile by directories.
    """

    dockerfile: Callable[[], Dockerfile]
    context: Path
    platforms: tuple[str, ...]
    target: str = ""
    tag: str = ""
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
    if any(Path(place, "docker-buildx").exists() for place in (f"{settings}/cli-plugins", *_PLUGINS)):
        return  # docker itself takes a tenth of a second to say so
    if _fails(["docker", "buildx", "version"], runner):
        raise EngineError("docker: buildx is missing, which BuildKit requires", hint=INSTALL_HINT)


def run_build(request: BuildxRequest, *, runner: Runner) -> dict[str, Any]:
    """
    Run the build with its progress on stderr and return BuildKit's metadata.

    Raises: ToolMissingError; EngineError.
    """
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        metadata, archive = Path(work, "metadata.json"), Path(work, "archive")
        archive.mkdir()
        request = replace(request, contexts={**request.contexts, ARCHIVE_STAGE: archive})
        argv = [*build_argv(request), "--metadata-file", str(metadata), str(request.context)]
        done = _run(argv, request, runner, archive)
        if done.returncode != 0:
            raise explain_failure(request, done.returncode, runner=runner)
        return _read_metadata(metadata)


def build_argv(request: BuildxRequest) -> list[str]:
    """Return the command of *request* without its context."""
    argv = ["docker", "buildx", "build", "--file", "-", "--platform", ",".join(request.platforms)]
    # Provenance makes an index of every image and names the moment: the digest would differ each time.
    argv += ["--provenance=false"]
    for option, value in (
        ("--target", request.target),
        ("--tag", request.tag),
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
    """Find out why a build failed: no BuildKit, no such builder, no engine, or the build itself."""
    if _fails(["docker", "buildx", "version"], runner):
        return EngineError("docker: buildx is missing, which BuildKit requires", hint=INSTALL_HINT)
    builder = request.builder or os.environ.get("BUILDX_BUILDER", "")
    if builder and _fails(["docker", "buildx", "inspect", builder], runner):
        return EngineError(
            f"buildx has no builder {builder!a}",
            hint="docker buildx ls lists builders; --builder, BUILDTOOL_BUILDER or BUILDX_BUILDER names one",
        )
    version = _quiet(["docker", "version", "--format", "{{.Server.Version}}"], runner)
    if version is not None and version.returncode != 0 and not request.builder:
        return unreachable_engine(version.stderr.decode(errors="replace"))
    return EngineError(f"the build failed (exit code {code}), BuildKit's message is above")


def check_base_platforms(request: BuildxRequest, base: str, *, runner: Runner) -> None:
    """
    Check that image *base* is of the platforms of *request*; for the time after a failed build.

    BuildKit's own warning says it, as text. A Dockerfile of nothing but the
    base has no other message, and builds nothing.

    Raises: EngineError.
    """
    probe = f"# check=error=true\nFROM {base}\nLABEL probe=1\n"
    for platform in request.platforms:
        argv = ["docker", "buildx", "build", "--file", "-", "--platform", platform]
        argv += ["--progress", "plain", "--output", "type=cacheonly"]
        argv += ["--builder", request.builder] if request.builder else []
        done = _quiet([*argv, str(request.context)], runner, probe.encode())
        said = done.stderr.decode(errors="replace") if done and done.returncode else ""
        if "InvalidBaseImagePlatform" in said or "no match for platform" in said:
            found = re.search(r'pulled with platform "([^"]+)"', said)
            raise EngineError(
                f"base image {base} is not for {platform}" + (f" but {found[1]}" if found else ""),
                hint="name a base image that has the platform, or build another --arch",
            )


def unreachable_engine(message: str) -> EngineError:
    """Return the error for an engine that gives no answer but docker's *message*."""
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
            # Asking for the provenance again is a round trip for nothing.
            env={**request.environment, "BUILDX_METADATA_PROVENANCE": "disabled"},
            show_stderr=True,
            check=False,
        )
    except ToolMissingError as error:
        raise ToolMissingError("docker: not found", hint=INSTALL_HINT) from error


def _put_archive(dockerfile: Dockerfile, directory: Path) -> str:
    """Write the archive of *dockerfile* into *directory* and return the text, which buildx is waiting for."""
    if dockerfile.archive is not None:
        dockerfile.archive.write(directory)
    return dockerfile.text


def _quiet(argv: list[str], runner: Runner, stdin: bytes | None = None) -> Completed | None:
    try:
        return runner.run(argv, stdin=stdin, check=False)
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


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n') else text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
