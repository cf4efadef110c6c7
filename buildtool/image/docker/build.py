# SPDX-License-Identifier: Apache-2.0
"""Build a Dockerfile to an image in the engine, a registry or a file."""

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
from buildtool.image.docker.builder import checks_bases, find_builder
from buildtool.image.docker.buildx import BuildxRequest, Secret, check_base_platforms, csv_field, run_build
from buildtool.image.dockerfile import Dockerfile
from buildtool.image.result import BuiltImage
from buildtool.oci.annotations import Annotation
from buildtool.oci.write import check_layout, put_layout
from buildtool.signing.keys import KeyId

log = logging.getLogger(__name__)

# Exporters that write one file, and support rewrite-timestamp.
_ARCHIVES = ("oci", "docker")
_FILES = (*_ARCHIVES, "tar")
# Exporters of files that are no image, and so have neither name nor digest.
_NO_IMAGE = ("local", "tar", "cacheonly")
# Exporters that write to the engine's store if dest is missing.
_STORED = ("docker", "image")
# Exporters that require dest. Without dest, docker loads the image into the engine.
_NEED_PLACE = ("oci", "tar", "local")
# Names of compressed archives, which no exporter of an image writes.
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
# Sets the times of files to SOURCE_DATE_EPOCH, so that the same input gives the same bytes.
_REPRODUCIBLE = "rewrite-timestamp=true"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """
    A request to build *dockerfile* with context *root* for *platforms*, created at *epoch* (seconds).

    The image is named *tags*, and is pushed with *push* or written to buildx's *output*. *force*
    allows replacing a file, and writing into a directory that is not empty. *contexts* replace
    stages of the Dockerfile by directories. *labels* and *annotations* are added to those of the build.
    *cache_from* and *cache_to* are values of buildx's options.
    """

    dockerfile: Callable[[], Dockerfile]
    root: Path
    platforms: tuple[Platform, ...]
    epoch: int
    tags: tuple[str, ...] = ()
    push: bool = False
    output: str = ""
    force: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""
    no_cache: bool = False
    secrets: tuple[Secret, ...] = ()
    contexts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_stored(self) -> bool:
        """Whether the image may get its name in the engine's own store."""
        fields = parse_output(self.output)
        return not self.push and fields.get("type", "docker") in _STORED and "dest" not in fields


def build_image(request: ImageRequest, *, runner: Runner) -> BuiltImage:
    """
    Build the image, or the files of its root. A failure leaves neither a tag nor a file.

    Raises: UsageError, EngineError, ToolMissingError, FileAccessError.
    """
    with _output_file(request, runner) as output:
        metadata = run_build(_buildx(request, output=output), runner=runner)
    fields = parse_output(request.output)
    is_image = fields.get("type") not in _NO_IMAGE
    return BuiltImage(
        reference=request.tags[0] if is_image and request.tags else "",
        tags=request.tags if is_image else (),
        digest=str(metadata.get("containerimage.digest", "")) if is_image else "",
        platforms=tuple(platform.oci for platform in request.platforms),
        key_id=KeyId(""),
        file=fields.get("dest", ""),
        metadata=metadata,
    )


def explain_base(request: ImageRequest, base: str, *, runner: Runner) -> None:
    """
    Check, after a failed build, whether image *base* has the requested platforms.

    Raises: EngineError, if it lacks one.
    """
    check_base_platforms(_buildx(request, output=""), base, runner=runner)


def check_architectures_of_base(request: ImageRequest, base: str, *, runner: Runner) -> None:
    """
    Check that image *base* has the platforms of *request*, if the builder itself does not check that.

    Raises: EngineError.
    """
    builder = find_builder(request.builder, runner)
    if builder is not None and not checks_bases(builder, runner):
        check_base_platforms(_buildx(request, output=""), base, runner=runner)


def report_base(base: str, own: str) -> None:
    """Warn about a *base* without digest, unless it is *own*, the image of `images prepare`."""
    if "@" not in base and base != own:
        log.warning("base image %s has no digest, so it may be another one tomorrow: add @sha256:...", base)


def export_stage(request: ImageRequest, stage: str, directory: Path, *, runner: Runner) -> dict[str, Path]:
    """
    Write the files of *stage* into *directory*. Return their directory for each architecture.

    Raises: EngineError, ToolMissingError.
    """
    buildx = _buildx(request, output=f"type=local,dest={directory}", target=stage)
    run_build(buildx, runner=runner)
    found = {}
    for platform in request.platforms:
        # With several platforms, buildx makes a directory for each.
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
        tags=() if exported else request.tags,
        labels={} if exported else request.labels,
        annotations=() if exported else tuple(item.option for item in request.annotations),
        cache_from=request.cache_from,
        # A second build of the same command would replace what the first one stored.
        cache_to=() if exported else request.cache_to,
        output=output,
        builder=request.builder,
        no_cache=request.no_cache,
        secrets=request.secrets,
        # BuildKit uses it for the times of the image, the signer stage for the time of statements.
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
def _output_file(request: ImageRequest, runner: Runner) -> Iterator[str]:
    """Yield buildx's --output. A file or layout is written beside its destination, and renamed at the end."""
    if request.push:
        builder = find_builder(request.builder, runner)
        push = builder.push_option if builder else "push=true"
        yield f"type=image,{push},store=false,oci-mediatypes=true,{_REPRODUCIBLE}"
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
        yield ",".join(csv_field(f"{key}={value}") for key, value in fields.items())
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
    """Check that *path* is missing or an empty directory, or *force* is true. Raises: FileAccessError."""
    try:
        # A directory is never replaced, because --output . or --output / would then delete all its files.
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
    Return the fields of --output *spec*: those of buildx, or a name.

    A name that ends in .tar is that of an OCI archive, for both engines. Another name is that of a directory
    for the image's files.

    Raises: UsageError.
    """
    if not spec:
        return {}
    if any(letter in spec for letter in '"\n') or spec == "-" or "dest=-" in spec.split(","):
        raise UsageError(f"{spec!r}: cannot write there", hint="for example type=oci,dest=image.tar")
    if "=" not in spec:
        if spec.endswith(_COMPRESSED):
            raise UsageError(
                f"--output {spec}: archives are not compressed", hint="choose a name that ends in .tar"
            )
        return {"type": "oci" if spec.endswith(".tar") else "local", "dest": spec}
    fields = dict(part.partition("=")[::2] for part in spec.split(","))
    if "type" not in fields or not all(fields.values()):
        raise UsageError(f"{spec!r} is not an output", hint="for example --output type=oci,dest=image.tar")
    if fields["type"] in _NEED_PLACE and "dest" not in fields:
        raise UsageError(f"--output {spec}: dest is missing", hint=f"write --output {spec},dest=PLACE")
    return fields
