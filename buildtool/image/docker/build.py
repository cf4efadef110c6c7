# SPDX-License-Identifier: Apache-2.0
"""The image stage: a Dockerfile to an image in the engine, a registry or a file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.core.errors import EngineError, FileAccessError, UsageError, system_reason
from buildtool.core.files import (
    FORCE_REPLACES,
    cannot_write,
    check_makeable,
    check_target,
    check_writable,
    hidden_prefix,
)
from buildtool.core.platforms import Platform
from buildtool.core.process import Runner
from buildtool.image.docker.buildx import BuildxRequest, Secret, check_base_platforms, run_build
from buildtool.image.dockerfile import Dockerfile
from buildtool.image.result import BuiltImage
from buildtool.oci.write import check_layout, put_layout
from buildtool.signing.keys import KeyId

log = logging.getLogger(__name__)

# Exporters that write one file, and set times to SOURCE_DATE_EPOCH when asked to.
_ARCHIVES = ("oci", "docker")
_FILES = (*_ARCHIVES, "tar")
# Exporters of files that are no image: these have no name and no digest.
_NO_IMAGE = ("local", "tar", "cacheonly")
# Without a place these have none; docker without one is the engine's store.
_NEED_PLACE = ("oci", "tar", "local")
# The archive is the image's reproducible form: same input, same bytes.
_REPRODUCIBLE = "rewrite-timestamp=true"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """
    What to build: *dockerfile* in *root* for *platforms*, created at *epoch*.

    Where it goes: *tag*, pushed with *push*, or buildx's *output*; *force*
    replaces a file there, and writes into a directory that is not empty.
    *contexts* stand in for stages.
    """

    dockerfile: Callable[[], Dockerfile]
    root: Path
    platforms: tuple[Platform, ...]
    epoch: int
    tag: str = ""
    push: bool = False
    output: str = ""
    force: bool = False
    builder: str = ""
    no_cache: bool = False
    secrets: tuple[Secret, ...] = ()
    contexts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def build_image(request: ImageRequest, *, runner: Runner) -> BuiltImage:
    """
    Build the runtime image, or the files of its root; a failure leaves no tag and no file.

    Raises: UsageError, EngineError, ToolMissingError, FileAccessError.
    """
    with _output_file(request) as output:
        metadata = run_build(_buildx(request, output=output), runner=runner)
    fields = parse_output(request.output)
    is_image = fields.get("type") not in _NO_IMAGE
    return BuiltImage(
        reference=request.tag if is_image else "",
        digest=str(metadata.get("containerimage.digest", "")) if is_image else "",
        platforms=tuple(platform.oci for platform in request.platforms),
        key_id=KeyId(""),
        file=fields.get("dest", ""),
    )


def explain_base(request: ImageRequest, base: str, *, runner: Runner) -> None:
    """
    After a failed build: say so if image *base* was of the wrong architecture.

    Raises: EngineError.
    """
    check_base_platforms(_buildx(request, output=""), base, runner=runner)


def report_base(base: str, own: str) -> None:
    """Warn of a *base* that is named by a tag alone, if it is not *own*, which this tool has made."""
    if "@" not in base and base != own:
        log.warning("base image %s has no digest, so it may be another one tomorrow: add @sha256:...", base)


def export_stage(request: ImageRequest, stage: str, directory: Path, *, runner: Runner) -> dict[str, Path]:
    """
    Write the files of *stage* below *directory* and return where they are, for each architecture.

    Raises: EngineError, ToolMissingError.
    """
    buildx = _buildx(request, output=f"type=local,dest={directory}", target=stage)
    run_build(buildx, runner=runner)
    found = {}
    for platform in request.platforms:
        # buildx makes a directory for each platform when there are several.
        own = directory / platform.oci.replace("/", "_")
        found[platform.arch] = own if own.is_dir() else directory
    return found


def _buildx(request: ImageRequest, *, output: str, target: str = "") -> BuildxRequest:
    exported = bool(target)
    return BuildxRequest(
        dockerfile=request.dockerfile,
        context=request.root,
        platforms=tuple(platform.oci for platform in request.platforms),
        target=target,
        tag="" if exported else request.tag,
        output=output,
        builder=request.builder,
        no_cache=request.no_cache,
        secrets=request.secrets,
        # BuildKit takes it for the image's times, the signer stage for the statement's.
        arguments={"SOURCE_DATE_EPOCH": str(request.epoch)},
        contexts=request.contexts,
        environment=request.environment,
    )


def check_output(output: str, *, force: bool) -> None:
    """
    Check, before anything is built, that *output* can be written; *force* replaces a file there.

    Raises: UsageError, FileAccessError.
    """
    fields = parse_output(output)
    destination = Path(fields.get("dest", ""))
    if fields.get("type") == "local":
        _check_directory(destination, force=force)
        check_makeable(destination)
    elif fields.get("type") in _FILES and "dest" in fields:
        if fields.get("tar") == "false":
            check_layout(destination, replace=force)
        else:
            check_target(destination, replace=force, hint=FORCE_REPLACES)
        check_writable(destination)


@contextmanager
def _output_file(request: ImageRequest) -> Iterator[str]:
    """Give buildx's output; a file or layout is written beside its place and moved there when all is done."""
    if request.push:
        yield f"type=image,push=true,store=false,{_REPRODUCIBLE}"
        return
    check_output(request.output, force=request.force)
    fields = parse_output(request.output)
    if fields.get("type") not in _FILES or "dest" not in fields:
        yield request.output or "type=docker"
        return
    destination, is_layout = Path(fields["dest"]), fields.get("tar") == "false"
    if fields["type"] in _ARCHIVES:
        fields.setdefault("rewrite-timestamp", "true")
    try:
        work = tempfile.TemporaryDirectory(
            prefix=hidden_prefix(destination), dir=destination.absolute().parent
        )
    except OSError as error:
        raise cannot_write(destination, error) from error
    with work as directory:
        fields["dest"] = str(Path(directory, "output"))
        yield ",".join(f"{key}={value}" for key, value in fields.items())
        new = Path(fields["dest"])
        if not new.exists():
            raise EngineError(f"buildx wrote no {destination}")
        try:
            if is_layout:
                put_layout(new, destination, Path(directory, "old"))
            else:
                new.replace(destination)
        except OSError as error:
            raise FileAccessError(f"{destination}: cannot write: {system_reason(error)}") from error


def _check_directory(path: Path, *, force: bool) -> None:
    """Check that files may go to directory *path*: it is missing or empty, or *force* says so."""
    try:
        # Never replaced: --output . or / would be one word from losing all that is there.
        if any(path.iterdir()) and not force:
            raise FileAccessError(
                f"{path}: already exists and is not empty",
                hint="--force writes into it, over files of the same names",
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error


def parse_output(spec: str) -> dict[str, str]:
    """
    Return the fields of buildx's --output *spec*: type=oci,dest=image.tar or a directory.

    Raises: UsageError.
    """
    if not spec:
        return {}
    if any(letter in spec for letter in '"\n') or spec == "-" or "dest=-" in spec.split(","):
        raise UsageError(f"{spec!a}: cannot write there", hint="for example type=oci,dest=image.tar")
    if "=" not in spec:
        return {"type": "local", "dest": spec}
    fields = dict(part.partition("=")[::2] for part in spec.split(","))
    if "type" not in fields or not all(fields.values()):
        raise UsageError(f"{spec!a} is not an output", hint="for example --output type=oci,dest=image.tar")
    if fields["type"] in _NEED_PLACE and "dest" not in fields:
        raise UsageError(f"--output {spec}: dest is missing", hint=f"write --output {spec},dest=PLACE")
    return fields
