# SPDX-License-Identifier: Apache-2.0
"""The image stage: a Dockerfile to an image in the engine, a registry or a file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.buildx import BuildxRequest, Secret, check_base, run_build
from buildtool.errors import EngineError, FileAccessError, UsageError
from buildtool.model import BuiltImage, KeyId
from buildtool.platforms import Platform
from buildtool.process import Runner

log = logging.getLogger(__name__)

# Exporters that write one file, and set times to SOURCE_DATE_EPOCH when asked to.
_ARCHIVES = ("oci", "docker")
_FILES = (*_ARCHIVES, "tar")
# The archive is the image's reproducible form: same input, same bytes.
_REPRODUCIBLE = "rewrite-timestamp=true"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """
    What to build: *dockerfile* in *root* for *platforms*, created at *epoch*.

    Where it goes: *tag*, pushed with *push*, or buildx's *output*; *force*
    replaces a file there. *contexts* stand in for stages.
    """

    dockerfile: Callable[[], str]
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
    Build the runtime image; a failure leaves no tag and no file.

    Raises: UsageError, EngineError, ToolMissingError, FileAccessError.
    """
    with _output_file(request) as output:
        metadata = run_build(_buildx(request, output=output), runner=runner)
    return BuiltImage(
        reference=request.tag,
        digest=str(metadata.get("containerimage.digest", "")),
        platforms=tuple(platform.oci for platform in request.platforms),
        key_id=KeyId(""),
    )


def explain_base(request: ImageRequest, base: str, *, runner: Runner) -> None:
    """
    After a failed build: say so if image *base* was of the wrong architecture.

    Raises: EngineError.
    """
    check_base(_buildx(request, output=""), base, runner=runner)


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


@contextmanager
def _output_file(request: ImageRequest) -> Iterator[str]:
    """Give buildx's output; a file is written beside its place and moved there when all is done."""
    if request.push:
        yield f"type=image,push=true,store=false,{_REPRODUCIBLE}"
        return
    fields = parse_output(request.output)
    if fields.get("type") not in _FILES or "dest" not in fields:
        yield request.output or "type=docker"
        return
    destination = Path(fields["dest"])
    if destination.exists() and not request.force:
        raise FileAccessError(f"{destination}: already exists", hint="--force replaces it")
    if fields["type"] in _ARCHIVES:
        fields.setdefault("rewrite-timestamp", "true")
    try:
        work = tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.absolute().parent)
    except OSError as error:
        raise FileAccessError(f"{destination}: cannot write: {(error.strerror or '').lower()}") from error
    with work as directory:
        fields["dest"] = str(Path(directory, "output"))
        yield ",".join(f"{key}={value}" for key, value in fields.items())
        try:
            Path(fields["dest"]).replace(destination)
        except FileNotFoundError as error:
            raise EngineError(f"buildx wrote no {destination}") from error
        except OSError as error:
            raise FileAccessError(f"{destination}: cannot write: {(error.strerror or '').lower()}") from error


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
    return fields
