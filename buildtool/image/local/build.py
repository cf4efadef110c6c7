# SPDX-License-Identifier: Apache-2.0
"""Build an image without Docker: compile, sign and pack on this machine, then write or push the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from platform import machine
from types import ModuleType

from buildtool.check.model import Finding
from buildtool.check.opened import open_objects, opening_findings
from buildtool.check.static import check_object
from buildtool.compile.headers import Headers
from buildtool.compile.objectcache import ObjectSet, compile_cached
from buildtool.compile.sources import CompileOptions
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.file import DEFAULT_BASE, Config, named_variable
from buildtool.config.project import find_sources, name_objects, plan_units
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import ConfigError, FileAccessError, ToolFailedError, UsageError
from buildtool.core.files import FORCE_REPLACES, check_target, check_writable
from buildtool.core.platforms import Platform, host_platform
from buildtool.core.process import Runner
from buildtool.core.validate import LAYOUT_SCHEME, split_layout
from buildtool.image.context import find_unsent, sent_directories
from buildtool.image.docker.client import connect
from buildtool.image.docker.prepare import BASE_IMAGE
from buildtool.image.docker.store import load_images
from buildtool.image.filecaps import check_capabilities
from buildtool.image.finished import ImageRules, check_finished
from buildtool.image.kerneltypes import verify_types
from buildtool.image.local.assemble import ImageText, PlatformParts, assemble_images
from buildtool.image.local.baseimage import Base, carried_base, load_base
from buildtool.image.metadata import image_selection
from buildtool.image.result import BuiltImage, make_metadata
from buildtool.image.scan import choose_capabilities
from buildtool.objects.agreement import check_agreement
from buildtool.oci.annotations import Annotation, annotate_images
from buildtool.oci.read import BlobSource, open_layout
from buildtool.oci.write import ImageSet, check_layout, write_archive, write_directory
from buildtool.runtime.carried import find_base, find_loader, find_pins_tool, find_probe, find_tini
from buildtool.signing.sign import ReleaseInfo, sign_compiled
from buildtool.signing.signers.signer import Signer
from buildtool.signing.statement import Statement
from buildtool.trust.generate import trust_files
from buildtool.trust.store import POLICY_NAME

log = logging.getLogger(__name__)

Report = Callable[[str], None]
OPEN_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """
    A request to build the project of *config* for *platforms*, created at *epoch*, signed by *key*.

    The image is named *tags*, and is pushed with *push* or written to *output* (fields of buildx's
    --output). *force* allows replacing a file. *labels* and *annotations* are added to those of the build.
    *data* is the directory of loaders, by default the
    installation's. *report* receives warnings. *headers* are those for sources, or None for this machine's.
    *linker* is the bpf-probe of this machine, if an object has several sources.
    """

    config: Config
    platforms: tuple[Platform, ...]
    epoch: int
    key: Signer
    tags: tuple[str, ...]
    cache: Cache
    headers: Headers | None
    push: bool = False
    output: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    data: Path | None = None
    report: Report = log.warning
    linker: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()


def build_local(request: LocalRequest) -> BuiltImage:
    """
    Build the image and deliver it. A failure leaves nothing at the destination.

    Raises: any BuildtoolError.
    """
    deliver = choose_delivery(request)
    images = make_images(request)
    replaced = deliver(images)
    return BuiltImage(
        reference=request.tags[0],
        tags=request.tags,
        digest=f"sha256:{images.top.digest}",
        platforms=tuple(platform.oci for platform in request.platforms),
        key_id=request.key.public.key_id,
        engine="local",
        file=request.output.get("dest", ""),
        replaced=replaced or "",
        metadata=make_metadata(images, request.tags),
    )


def make_images(request: LocalRequest) -> ImageSet:
    """
    Compile, sign and pack, and return the images. Only the cache is written.

    Raises: any BuildtoolError.
    """
    config, public = request.config, request.key.public
    sources = find_sources(config)
    trust = trust_files(
        config, public, [platform.oci for platform in request.platforms], name_objects(config)
    )
    # Find these parts before compiling, so that a missing part is reported at once.
    runtime = {
        platform.arch: (find_loader(platform, request.data).data, find_tini(platform, request.data).data)
        for platform in request.platforms
    }
    tools = {
        platform.arch: find_pins_tool(platform, request.data).data if config.image.tools else None
        for platform in request.platforms
    }
    types = verify_types(config, request.platforms, trust[POLICY_NAME], request.epoch)
    bases = _load_bases(request)
    compiled = _compile(request, sources)
    signed = _sign_objects(request, compiled)
    capabilities = choose_capabilities(config, sources)
    _check_finished(request, signed, trust)
    for statements in signed.values():
        contents = [(name, statement.contents) for name, (_, statement) in statements.items()]
        check_capabilities(
            contents,
            capabilities,
            exactly=not config.image.capabilities,
            selection=image_selection(config),
        )
    parts = [
        PlatformParts(
            platform=platform,
            base=bases[platform.arch],
            loader=runtime[platform.arch][0],
            tini=runtime[platform.arch][1],
            tool=tools[platform.arch],
            objects={name: data for name, (data, _) in signed[platform.arch].items()},
            types=types[platform.arch],
        )
        for platform in request.platforms
    ]
    image = ImageText(
        key_id=public.key_id,
        trust=trust,
        epoch=request.epoch,
        capabilities=capabilities,
        labels=request.labels,
    )
    images = assemble_images(config, parts, image, cache=request.cache)
    return annotate_images(images, request.platforms, request.annotations)


def _check_finished(
    request: LocalRequest,
    signed: Mapping[str, Mapping[str, tuple[bytes, Statement]]],
    trust: Mapping[str, str],
) -> None:
    """Check the objects as they will start, with the loader that runs on this machine if there is one."""
    config = request.config
    rules = ImageRules(
        policy=trust[POLICY_NAME],
        key_id=request.key.public.key_id,
        epoch=request.epoch,
        attach=config.image.attach,
        load=config.image.load,
        set=config.image.set,
        map_entries=config.image.map_entries,
        allow_findings=config.build.allow_findings,
        hands_over=config.loader.hand_over,
    )
    own, loader, probe = host_platform(machine()), None, None
    if own is not None:
        # An installation for other machines has none of these for this one.
        try:
            loader = find_loader(own, request.data).data
            probe = find_probe(own, request.data).path
        except FileAccessError as error:
            log.debug("not for this machine: %s", error.message)
    for platform in request.platforms:
        objects = {name: data for name, (data, _) in signed[platform.arch].items()}
        # libbpf opens objects of its own byte order only.
        can_open = own is not None and own.little_endian == platform.little_endian
        opened = _open(objects, platform, probe) if probe and can_open else ()
        for warning in check_finished(objects, platform, rules, loader=loader, opened=opened):
            request.report(warning)


def _open(objects: Mapping[str, bytes], platform: Platform, probe: Path) -> list[Finding]:
    """Return what the loader's libbpf finds when *probe* lets it open *objects*."""
    try:
        opened = open_objects(probe, [*objects.values()], Runner(), OPEN_SECONDS)
    except ToolFailedError as error:
        log.debug("%s", error.message)
        return []
    findings: list[Finding] = []
    for (name, data), found in zip(objects.items(), opened, strict=True):
        if facts := check_object(f"{platform.arch}/{name}", name, data, now=0).facts:
            findings += opening_findings(facts, found)
    return findings


def _compile(request: LocalRequest, sources: Sequence[str]) -> ObjectSet:
    settings = request.config.compile
    options = CompileOptions(root=request.config.root, headers=request.headers, linker=request.linker)
    with named_variable(request.config, "compile.clang"):
        toolchain = find_toolchain(settings.clang, runner=Runner())
    plans = [(platform, plan_units(request.config, platform)) for platform in request.platforms]
    found = compile_cached(toolchain, plans, options, cache=request.cache)
    if found.warnings:
        request.report(found.warnings)
    _check_inputs(request, sources, found.inputs)
    if len(request.platforms) > 1:
        objects: dict[str, dict[str, bytes]] = {platform.arch: {} for platform in request.platforms}
        for (_, arch), (compiled, data) in found.objects.items():
            objects[arch][compiled.name] = data
        check_agreement(objects, request.config.build.allow_differences)
    return found


def _check_inputs(request: LocalRequest, sources: Sequence[str], inputs: Iterable[str]) -> None:
    """
    Refuse a header of the project that Docker's builder would lack.

    One line of configuration sends such a header. A header outside the project, or behind a symbolic link, is
    only reported, because no setting sends it.

    Raises: ConfigError.
    """
    root, include = request.config.root, request.config.compile.every_include
    unsent = find_unsent(root, sent_directories(root, sources, include), inputs)
    if unsent is not None and unsent.directory:
        raise ConfigError(
            f"{unsent.name}: included, but in no directory that Docker's builder is sent", hint=unsent.remedy
        )
    if unsent is not None:
        request.report(f"{unsent.name}: included, but --engine docker cannot send it to the builder")


def _sign_objects(
    request: LocalRequest, compiled: ObjectSet
) -> dict[str, dict[str, tuple[bytes, Statement]]]:
    """Return the signed objects and their statements, by architecture and name."""
    release = ReleaseInfo.from_config(request.config, created=request.epoch)
    jobs = sorted(compiled.objects)
    items = [compiled.objects[job] for job in jobs]
    signed: dict[str, dict[str, tuple[bytes, Statement]]]
    signed = {platform.arch: {} for platform in request.platforms}
    for (_, arch), item in zip(jobs, sign_compiled(items, request.key, release), strict=True):
        signed[arch][item[1].name] = item
    return signed


def _load_bases(request: LocalRequest) -> dict[str, Base]:
    reference = request.config.images.base
    if reference == DEFAULT_BASE:
        return {
            platform.arch: carried_base(find_base(platform, request.data), BASE_IMAGE, request.cache)
            for platform in request.platforms
        }
    with _open_base(request, reference) as source:
        label = reference if not reference.startswith(LAYOUT_SCHEME) else f"@sha256:{source.top().digest}"
        return {
            platform.arch: load_base(source, label, platform, request.cache) for platform in request.platforms
        }


def _open_base(request: LocalRequest, reference: str) -> AbstractContextManager[BlobSource]:
    if reference.startswith(LAYOUT_SCHEME):
        path, digest = split_layout(reference)
        return open_layout(request.config.root / path, Digest(digest) if digest else None)
    return nullcontext(_registry().open_image(reference, request.cache, request.report))


def _registry() -> ModuleType:
    """
    Return the module that speaks to registries, imported here alone.

    Its HTTP library takes as long to import as all the rest, and most builds neither pull nor push.
    """
    from buildtool.oci import registry

    return registry


def choose_delivery(request: LocalRequest) -> Callable[[ImageSet], str | None]:
    """
    Return a function that delivers images to the destination of *request*.

    The function returns the id of an image that loses its name in the engine, empty or None without one.

    The destination is checked now, before anything is built.

    Raises: UsageError, FileAccessError.
    """
    tags = request.tags
    if request.push:
        for tag in tags:
            _registry().check_registry(tag)
        return lambda images: _registry().push_images(images, *tags)
    fields, kind = dict(request.output), request.output.get("type", "")
    if kind == "docker" and "dest" not in fields:
        connect().close()  # report an engine that does not answer before the work
        return lambda images: load_images(images, *tags)
    if kind != "oci" or not fields.get("dest"):
        raise UsageError(
            f"--output type={kind}: not supported by the local engine",
            hint="use type=oci,dest=image.tar, type=oci,tar=false,dest=DIRECTORY, type=docker, or --push",
        )
    if unknown := sorted(fields.keys() - {"type", "dest", "tar", "name"}):
        raise UsageError(
            f"--output: key {unknown[0]} is not supported by the local engine",
            hint="use type, dest, tar and name, or --engine docker",
        )
    destination, names = Path(fields["dest"]), (fields["name"],) if "name" in fields else tags
    if fields.get("tar") == "false":
        check_layout(destination, replace=request.force)
        check_writable(destination)
        return lambda images: write_directory(destination, images, *names, replace=request.force)
    check_target(destination, replace=request.force, hint=FORCE_REPLACES)
    check_writable(destination)
    return lambda images: write_archive(destination, images, *names, replace=request.force)
