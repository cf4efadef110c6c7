# SPDX-License-Identifier: Apache-2.0
"""Build images and render Dockerfiles: the order of configuration, key, Dockerfile, engine and image."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath

from buildtool.compile.headers import Headers
from buildtool.compile.plan import outside_names
from buildtool.compile.sources import CANNOT_COMPILE
from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.config.file import (
    DEFAULT_BUILDER,
    Config,
    ImagesConfig,
    named_variable,
)
from buildtool.config.project import (
    check_settable_names,
    find_sources,
    links_objects,
    name_objects,
    plan_units,
)
from buildtool.config.sourcedate import source_date
from buildtool.core.cache import open_cache
from buildtool.core.errors import (
    BuildStepError,
    BuildtoolError,
    EngineError,
    FileAccessError,
    SigningKeyError,
    UsageError,
)
from buildtool.core.files import (
    cannot_write,
    check_target,
    check_writable,
    hidden_prefix,
    read_bounded,
    write_atomic,
)
from buildtool.core.platforms import DEBIAN_13, Platform
from buildtool.core.process import KEY_VARIABLE, PASSPHRASE_VARIABLE, Runner
from buildtool.core.validate import LAYOUT_SCHEME, check_names_registry, check_tag
from buildtool.image.context import UnsentFile, check_outside, check_sent, find_unsent, sent_directories
from buildtool.image.docker.build import (
    ImageRequest,
    build_image,
    check_architectures_of_base,
    check_output,
    explain_base,
    export_stage,
    parse_output,
    report_base,
)
from buildtool.image.docker.buildx import Secret, check_buildx
from buildtool.image.docker.prepare import BASE_IMAGE, BUILDER_IMAGE, choose_images
from buildtool.image.docker.store import find_image_id, find_replaced
from buildtool.image.dockerfile import (
    Dockerfile,
    Form,
    RenderRequest,
    render_dockerfile,
    source_directories,
)
from buildtool.image.engine import LOCAL, choose_engine, why_local
from buildtool.image.folder import check_folder, write_folder
from buildtool.image.kerneltypes import verify_types
from buildtool.image.metadata import check_given_labels
from buildtool.image.result import BuiltImage
from buildtool.image.scan import choose_capabilities, scan_files
from buildtool.image.sentheaders import choose_headers
from buildtool.oci.annotations import Annotation, check_annotations
from buildtool.oci.read import open_layout
from buildtool.oci.write import full_name, put_all
from buildtool.runtime.headers import provide_headers
from buildtool.runtime.probe import find_object_linker
from buildtool.runtime.provide import provide_parts
from buildtool.signing.keys import (
    PublicKey,
    SigningKey,
    is_encrypted,
    load_public_key,
    load_signing_key_pem,
    missing_key,
    read_key_file,
)
from buildtool.signing.sign import ReleaseInfo, check_times, sign_files
from buildtool.signing.signers.file import read_variable
from buildtool.signing.signers.resolve import find_signer
from buildtool.signing.signers.signer import Signer, SignerContext
from buildtool.trust.generate import trust_files
from buildtool.trust.store import POLICY_NAME

AskPassphrase = Callable[[str], str | None]


log = logging.getLogger(__name__)
_MAX_METADATA_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """
    The source of the signing key: file *path* or *variable*, and *secrets* for BuildKit.

    *pem* is the key's text, with *passphrase* if it is encrypted. A public key suffices if nothing
    is signed. Another *signer* has no text, and signs on this machine only.
    """

    pem: bytes = field(repr=False)
    path: Path | None = None
    variable: str = ""
    passphrase: str = field(default="", repr=False)
    signer: Signer | None = None
    secrets: tuple[Secret, ...] = ()

    @property
    def is_public(self) -> bool:
        """True if the source is a .pub file."""
        return self.path is not None and self.path.suffix == ".pub"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that BuildKit's client receives in addition to the environment."""
        key = {self.variable: self.pem.decode("utf-8", "surrogateescape")} if self.variable else {}
        return {**key, PASSPHRASE_VARIABLE: self.passphrase} if self.passphrase else key

    def load_private(self) -> SigningKey:
        """Return the private key. Raises: SigningKeyError."""
        passphrase = self.passphrase.encode() or None
        return load_signing_key_pem(self.pem, str(self.path or self.variable), passphrase)

    def load_signer(self) -> Signer:
        """Return the signer. Raises: SigningKeyError."""
        return self.signer or self.load_private()

    def load_public(self) -> PublicKey:
        """Return the public half. Raises: SigningKeyError, ConfigError."""
        if self.is_public and self.path:
            return load_public_key(self.path)
        return self.load_signer().public


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of `build` that override the configuration (see `ImageRequest`)."""

    platforms: tuple[Platform, ...]
    key: Path | str | None = None
    tags: tuple[str, ...] = ()
    push: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    metadata_file: Path | None = None
    sign_image: bool = True
    sbom: str = "none"
    provenance: bool = False
    output: str = ""
    force: bool = False
    builder: str = ""
    no_cache: bool = False
    sign_on: str = "builder"
    engine: str = "auto"

    @property
    def needs_docker(self) -> bool:
        """True if only Docker supports these options."""
        is_docker = parse_output(self.output).get("type", "oci") != "oci"
        return bool(self.builder or self.cache_from or self.cache_to) or is_docker


def _check_builder_has(platforms: Sequence[Platform]) -> None:
    """Check that the builder image has libraries for *platforms*. Raises: UsageError."""
    for platform in platforms:
        if platform.arch not in DEBIAN_13:
            raise UsageError(
                f"--arch {platform.arch}: not supported by the Docker builder: Debian 13 lacks it",
                hint="build with --engine local, or choose from " + ", ".join(DEBIAN_13),
            )


def find_key(
    option: Path | str | None,
    config: Config,
    environ: Mapping[str, str],
    ask: AskPassphrase = lambda _: None,
) -> KeySource:
    """
    Return the signing key: *option*, or the PEM text in the environment, or the configured key.

    If the key is encrypted and the environment has no passphrase, *ask* is called for it.

    Raises: SigningKeyError, UsageError.
    """
    in_environment = f"env:{KEY_VARIABLE}" if KEY_VARIABLE in environ else None
    if chosen := option or in_environment:
        return _open_key(chosen, environ, ask)
    if config.sign.key is None:
        raise missing_key(config)
    with named_variable(config, "sign.key"):
        return _open_key(config.sign.key, environ, ask)


def _open_key(chosen: Path | str, environ: Mapping[str, str], ask: AskPassphrase) -> KeySource:
    if isinstance(chosen, Path) and chosen.suffix == ".pub":
        return KeySource(pem=b"", path=chosen)

    def find_passphrase(origin: str) -> str:
        return environ.get(PASSPHRASE_VARIABLE) or ask(origin) or ""

    if isinstance(chosen, str) and not chosen.startswith("env:"):
        context = SignerContext(
            environ=environ, passphrase=lambda origin: find_passphrase(origin).encode() or None
        )
        return KeySource(pem=b"", signer=find_signer(chosen, context))
    path = chosen if isinstance(chosen, Path) else None
    variable = "" if isinstance(chosen, Path) else chosen.removeprefix("env:")
    pem = read_key_file(path) if path else read_variable(variable, environ)
    secrets = [Secret(name="signing-key", path=path, variable=variable)]
    passphrase = ""
    if is_encrypted(pem):
        passphrase = find_passphrase(str(chosen))
        secrets.append(Secret(name="signing-key-passphrase", variable=PASSPHRASE_VARIABLE))
    return KeySource(pem=pem, path=path, variable=variable, passphrase=passphrase, secrets=tuple(secrets))


def make_dockerfile(
    config: Config,
    platforms: tuple[Platform, ...],
    key: KeySource,
    *,
    inline: bool = False,
    environ: Mapping[str, str],
    runner: Runner,
) -> Dockerfile:
    """
    Return the Dockerfile, after checking the directories of sources. No engine is used.

    The build context contains the project's sources. buildtool's are in the archive, or with
    *inline* in the text.

    Raises: UsageError, ConfigError, FileAccessError; what fetching headers raises.
    """
    if inline:
        _warn_unsent(config)
    headers = _find_headers(config, environ, runner)
    form = Form.INLINE if inline else Form.PROJECT
    return render_dockerfile(_describe(config, platforms, key, headers, form=form))


def _find_headers(config: Config, environ: Mapping[str, str], runner: Runner) -> Headers | None:
    """Return the headers for sources, or None if the configuration takes those of the compiler's machine."""
    if config.compile.system_headers:
        return None
    return provide_headers(environ, report=log.warning, runner=runner)


def _find_unsent(config: Config) -> UnsentFile | None:
    """Return a header that the sources appear to include and that the builder is not sent, or None."""
    sources = find_sources(config)
    directories = sent_directories(config.root, sources, config.compile.every_include)
    outside = [PurePosixPath(os.path.normpath(name)) for name in outside_names(config.compile.every_include)]
    names = [PurePosixPath(os.path.normpath(name)) for name in scan_files(config, sources)]
    inside = [str(name) for name in names if not any(name.is_relative_to(each) for each in outside)]
    return find_unsent(config.root, directories, inside)


def _warn_unsent(config: Config) -> None:
    """Warn of a header that is not sent to the builder. Another tool that builds has no hint about it."""
    unsent = _find_unsent(config)
    if unsent is not None:
        log.warning("%s: included, but not sent to the builder: %s", unsent.name, unsent.remedy)


def _describe(
    config: Config,
    platforms: tuple[Platform, ...],
    key: KeySource,
    headers: Headers | None,
    *,
    form: Form,
    epoch: int | None = None,
) -> RenderRequest:
    """Return the request for a Dockerfile, after checking its sources. Raises: UsageError, ConfigError."""
    _check_builder_has(platforms)
    check_times(config.sign.not_after, created=epoch or 0, now=int(time.time()))
    if config.images.base.startswith(LAYOUT_SCHEME):
        raise UsageError(
            "images.base: an OCI layout requires --engine local",
            hint="build with --engine local, or name an image of a registry as images.base",
        )
    public = key.load_public()
    sources = find_sources(config)
    objects = name_objects(config)
    check_settable_names(config, objects)
    trust = trust_files(config, public, [platform.oci for platform in platforms], objects)
    request = RenderRequest(
        config=config,
        platforms=platforms,
        sources=sources,
        key_id=public.key_id,
        trust=trust,
        capabilities=choose_capabilities(config, sources),
        headers=choose_headers(config, sources, platforms, headers),
        plan={platform.arch: plan_units(config, platform) for platform in platforms},
        types=verify_types(config, platforms, trust[POLICY_NAME], epoch or 0) if config.load.btf else {},
        form=form,
        epoch=epoch,
    )
    check_sent(config.root, source_directories(request), sources, key.path)
    return request


def render_folder(
    config: Config,
    platforms: tuple[Platform, ...],
    key: KeySource,
    directory: Path,
    *,
    epoch: int,
    force: bool = False,
    environ: Mapping[str, str],
    runner: Runner,
) -> tuple[Path, ...]:
    """
    Write the Dockerfile and its archive into *directory*, from which plain buildx builds the same image.

    A Dockerfile beside a copy of the sources names their time *epoch*, in seconds.

    Return both files. In the project's directory, the Dockerfile reads the sources there. Otherwise the
    archive contains them.

    Raises: UsageError, ConfigError, FileAccessError.
    """
    check_folder(directory, force=force)
    headers = _find_headers(config, environ, runner)
    if directory.resolve() == config.root.resolve():
        request = _describe(config, platforms, key, headers, form=Form.PROJECT)
    else:
        request = _describe(config, platforms, key, headers, form=Form.FOLDER, epoch=epoch)
    check_outside(config.root, source_directories(request), directory)
    _warn_unsent(config)
    return write_folder(directory, render_dockerfile(request), force=force)


def build(
    config: Config,
    options: BuildOptions,
    *,
    environ: Mapping[str, str],
    ask: AskPassphrase = lambda _: None,
    runner: Runner,
) -> BuiltImage:
    """
    Build the signed image, and return its name and digest.

    Raises: any BuildtoolError.
    """
    tags = _choose_tags(config, options)
    check_given_labels(options.labels)
    check_annotations(options.annotations, options.platforms)
    if options.metadata_file is not None:
        _check_metadata_file(options.metadata_file, options)
    find_sources(config)  # a directory without a project lacks a key, too
    key = find_key(options.key, config, environ, ask)
    if key.is_public:
        raise SigningKeyError(
            f"{key.path}: a public key cannot sign",
            hint="name the .pem file; render accepts a .pub file as well",
        )
    epoch = source_date(environ, config.root, runner)
    check_times(config.sign.not_after, created=epoch, now=int(time.time()))
    only_local = why_local(config.images.base, options.platforms)
    engine = choose_engine(
        options.engine, environ, needs_docker=options.needs_docker, only_local=only_local, runner=runner
    )
    publisher = _find_publisher(config, options, key, environ, ask)
    build_by = _build_locally if engine == LOCAL else _build_with_docker

    def build_runtime(options: BuildOptions) -> BuiltImage:
        return build_by(config, options, tags, key, epoch, environ, runner)

    metadata = _read_gadget(config)
    _check_tags(config, options, tags[0])
    if _writes_formats(config, options):
        built = _build_formats(config, options, tags[0], build_runtime, metadata)
    else:
        built = build_runtime(options)
    if publisher is not None:
        built = _sign_pushed(built, publisher, config, options, environ=environ, runner=runner)
    if options.push and config.publish.other_formats:
        built = _push_formats(built, publisher, config, environ, metadata)
    if options.metadata_file is not None:
        text = json.dumps(built.metadata, indent=2, sort_keys=True) + "\n"
        write_atomic(options.metadata_file, text.encode())
    return built


def _check_metadata_file(path: Path, options: BuildOptions) -> None:
    """
    Check that *path* can be written, and replaces neither the output nor, without --force, another file.

    Raises: UsageError, FileAccessError.
    """
    check_target(path, replace=True)
    check_writable(path)
    output = parse_output(options.output).get("dest")
    if output and path.resolve() == Path(output).resolve():
        raise UsageError(f"{path}: --metadata-file and --output are one file", hint="name another one")
    if options.force or not path.exists():
        return
    try:
        is_metadata = isinstance(json.loads(read_bounded(path, _MAX_METADATA_BYTES)), dict)
    except (ValueError, RecursionError, FileAccessError):
        is_metadata = False
    if not is_metadata:
        raise FileAccessError(
            f"{path}: already exists, and is no metadata of a build", hint="name another file, or add --force"
        )


def _read_gadget(config: Config) -> bytes | None:
    """Return the gadget.yaml of *config*, before anything is built. Raises: ConfigError, FileAccessError."""
    if not config.publish.other_formats:
        return None
    from buildtool.publish.formats import read_metadata

    return read_metadata(config.publish.gadget)


def _check_tags(config: Config, options: BuildOptions, tag: str) -> None:
    """Check the tags of images of other formats, before anything is built. Raises: UsageError."""
    if not (options.push and config.publish.other_formats):
        return
    from buildtool.publish.formats import format_reference, format_suffix

    for kind in config.publish.other_formats:
        for name in name_objects(config):
            format_reference(tag, format_suffix(kind, name))


def _writes_formats(config: Config, options: BuildOptions) -> bool:
    """Return whether files for other formats stand beside that of the runtime image."""
    if not (config.publish.other_formats and options.output):
        return False
    kind = parse_output(options.output)["type"]
    if kind != "oci":
        formats = " and ".join(config.publish.other_formats)
        log.warning("publish.formats: no %s images: --output of type %s holds none", formats, kind)
    return kind == "oci"


def _build_formats(
    config: Config,
    options: BuildOptions,
    tag: str,
    build_runtime: Callable[[BuildOptions], BuiltImage],
    metadata: bytes | None,
) -> BuiltImage:
    """
    Build the image into a file, and write those of other formats beside it: all of them, or none.

    Raises: any BuildtoolError.
    """
    from buildtool.publish.formats import format_place, format_suffix, make_formats, write_format

    fields, formats = parse_output(options.output), config.publish.other_formats
    destination, is_layout = Path(fields["dest"]), fields.get("tar") == "false"
    name = full_name(fields.get("name", tag))
    suffixes = [format_suffix(kind, each) for kind in formats for each in name_objects(config)]
    for path in (destination, *(format_place(destination, suffix) for suffix in suffixes)):
        check_output(_write_output({**fields, "dest": str(path)}), force=options.force)
    try:
        work = tempfile.TemporaryDirectory(
            prefix=hidden_prefix(destination), dir=destination.absolute().parent
        )
    except OSError as error:
        raise cannot_write(destination, error) from error
    with work as directory:
        # Relative like the destination: a comma in the name of a directory above cannot stand in --output.
        runtime = destination.parent / Path(directory).name / "runtime.tar"
        built = build_runtime(replace(options, output=_write_output({**fields, "dest": str(runtime)})))
        with open_layout(runtime, name=str(destination)) as source:
            made = make_formats(source, formats, metadata=metadata, report=log.warning)
        places, others = {runtime: destination}, []
        for image in made:
            new, path = runtime.with_name(image.suffix), format_place(destination, image.suffix)
            written = write_format(image, new, f"{name}{image.suffix}", is_layout=is_layout)
            others.append(replace(written, file=str(path)))
            places[new] = path
        put_all(places, runtime.parent)
    return replace(built, file=str(destination), others=tuple(others))


def _write_output(fields: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in fields.items())


def _push_formats(
    built: BuiltImage,
    signer: Signer | None,
    config: Config,
    environ: Mapping[str, str],
    metadata: bytes | None,
) -> BuiltImage:
    """
    Push and sign the images of other formats, made from the image that was pushed.

    Raises: RegistryError, ObjectFormatError, SigningKeyError; errors of *signer*.
    """
    from buildtool.publish.formats import push_formats

    reference = f"{full_name(built.reference)}@{built.digest}"
    formats = config.publish.other_formats
    try:
        others = push_formats(
            reference, formats, signer, open_cache(environ), metadata=metadata, report=log.warning
        )
    except BuildtoolError as error:
        error.message = f"{built.reference}: pushed, but not as {' and '.join(formats)}: {error.message}"
        error.hint = error.hint or f"buildtool publish {reference} makes these images"
        raise
    return replace(built, others=others)


def _find_publisher(
    config: Config,
    options: BuildOptions,
    key: KeySource,
    environ: Mapping[str, str],
    ask: AskPassphrase,
) -> Signer | None:
    """
    Return who signs the pushed image, the signer of the objects unless [publish] names another, or None.

    Raises: UsageError, SigningKeyError, ConfigError.
    """
    if not (options.push and options.sign_image):
        return None
    if config.publish.key is None:
        return key.load_signer()
    return find_key(config.publish.key, config, environ, ask).load_signer()


def _sign_pushed(
    built: BuiltImage,
    signer: Signer,
    config: Config,
    options: BuildOptions,
    *,
    environ: Mapping[str, str],
    runner: Runner,
) -> BuiltImage:
    """
    Sign the image that was pushed, by its digest: its tag may name another one by now.

    Raises: RegistryError, ToolMissingError, SigningKeyError; errors of *signer*.
    """
    # Imported here, because the HTTP library takes as long to import as all the rest.
    from buildtool.publish.attest import attest_image
    from buildtool.publish.revision import find_facts
    from buildtool.publish.sign import sign_image

    # Tags of one repository name the same image, which is signed once.
    names = {full_name(tag).rpartition(":")[0]: tag for tag in reversed(built.tags)}
    waiting = [f"{full_name(names[repository])}@{built.digest}" for repository in reversed(names)]
    sbom = "" if options.sbom == "none" else options.sbom
    try:
        facts = find_facts(config, built.engine, runner) if options.provenance else None
        while waiting:
            sign_image(waiting[0], signer)
            if sbom or options.provenance:
                cache = open_cache(environ)
                attest_image(waiting[0], signer, cache, sbom=sbom, provenance=options.provenance, facts=facts)
            waiting.pop(0)
    except BuildtoolError as error:
        name = names[waiting[0].partition("@")[0].rpartition(":")[0]]
        error.message = f"{name}: pushed, but not signed: {error.message}"
        finish = "; ".join(_publish_command(reference, options, sbom) for reference in waiting)
        error.hint = f"{finish} signs it" + (f"; {error.hint}" if error.hint else "")
        raise
    return replace(built, signed=True)


def _publish_command(reference: str, options: BuildOptions, sbom: str) -> str:
    """Return the command that attaches to the pushed image *reference* what the build would have attached."""
    argv = ["buildtool", "publish", reference]
    argv += ["--sbom", sbom] if sbom else []
    argv += ["--provenance"] if options.provenance else []
    argv += ["--key", str(options.key)] if options.key is not None else []
    return shlex.join(argv)


def _build_with_docker(
    config: Config,
    options: BuildOptions,
    tags: tuple[str, ...],
    key: KeySource,
    epoch: int,
    environ: Mapping[str, str],
    runner: Runner,
) -> BuiltImage:
    if key.signer is not None and options.sign_on != "host":
        raise UsageError(
            f"signer {key.signer.public.name}: cannot sign in a builder",
            hint="add --sign-on host, or set build.sign-on",
        )

    check_buildx(environ, runner)
    check_output(options.output, force=options.force)

    # The function for buildx's standard input calls all three, while buildx connects to the engine.
    @cache
    def images() -> ImagesConfig:
        return _choose_images(config, options, environ)

    @cache
    def previous() -> dict[str, str]:
        return {tag: find_image_id(tag) for tag in tags} if request.is_stored else {}

    @cache
    def dockerfile() -> Dockerfile:
        previous()
        # Prepared images have all platforms, so only a configured base is checked.
        if images() is config.images:
            check_architectures_of_base(request, config.images.base, runner=runner)
        chosen = replace(config, images=images())
        return make_dockerfile(chosen, options.platforms, key, environ=environ, runner=runner)

    request = ImageRequest(
        dockerfile=dockerfile,
        root=config.root,
        platforms=options.platforms,
        epoch=epoch,
        tags=tags,
        push=options.push,
        output=options.output,
        force=options.force,
        labels=options.labels,
        annotations=options.annotations,
        cache_from=options.cache_from,
        cache_to=options.cache_to,
        builder=options.builder,
        no_cache=options.no_cache,
        secrets=key.secrets,
        environment=key.environment,
    )
    try:
        if options.sign_on == "host":
            built = _build_signed_on_host(config, request, key.load_signer(), runner)
        else:
            built = build_image(request, runner=runner)
    except EngineError as error:
        # Another builder has no access to the engine's prepared images.
        own = not (options.builder or environ.get("BUILDX_BUILDER"))
        _explain_failure(error, config, request, images(), pulls=own, runner=runner)
        raise
    report_base(images().base, prepared_images().base)
    others = {tag: old for tag, old in previous().items() if old != built.digest}
    return replace(built, key_id=key.load_public().key_id, replaced=find_replaced(others))


def _explain_failure(
    error: EngineError,
    config: Config,
    request: ImageRequest,
    images: ImagesConfig,
    *,
    pulls: bool,
    runner: Runner,
) -> None:
    """
    Give *error*, of a build of *request*, the hint that helps. *pulls*: the engine may pull *images*.

    Raises: EngineError, if the base image lacks a platform.
    """
    if isinstance(error, BuildStepError):
        if error.message.startswith(CANNOT_COMPILE) and (unsent := _find_unsent(config)) is not None:
            error.hint = f"{unsent.name} is included, but not sent to the builder: {unsent.remedy}"
    elif error.hint is None:
        explain_base(request, images.base, runner=runner)
        if not pulls:
            error.hint = (
                "a builder elsewhere has none of this machine's images: `buildtool images prepare --push"
                " REGISTRY/NAME` puts them into a registry, and prints the lines of [images] for them"
            )
        elif images.builder == DEFAULT_BUILDER:
            error.hint = "where images cannot be pulled, `buildtool images prepare` makes them"


def _build_locally(
    config: Config,
    options: BuildOptions,
    tags: tuple[str, ...],
    key: KeySource,
    epoch: int,
    environ: Mapping[str, str],
    runner: Runner,
) -> BuiltImage:
    # Imported here because compiler, layers and registries are half of all imports, and Docker needs none.
    from buildtool.image.local.build import LocalRequest, build_local, choose_delivery
    from buildtool.oci.read import find_archive_digest

    if options.builder:
        raise UsageError(
            "--builder requires --engine docker", hint="leave --builder out, or add --engine docker"
        )
    for name, given in (("--cache-from", options.cache_from), ("--cache-to", options.cache_to)):
        if given:
            raise UsageError(
                f"{name} requires --engine docker: the local engine has a cache of its own",
                hint=f"leave {name} out and keep the directory of BUILDTOOL_CACHE between builds",
            )
    output, force, earlier = parse_output(options.output), options.force, None
    if not output and not options.push:
        place = config.root / f"{config.project.name.rpartition('/')[2]}-{config.project.release}.oci.tar"
        earlier = None if force else find_archive_digest(place)
        output, force = {"type": "oci", "dest": str(place)}, force or earlier is not None
    linker = None
    if links_objects(config):
        linker = find_object_linker(environ, report=log.warning, runner=runner)
    request = LocalRequest(
        config=config,
        platforms=options.platforms,
        epoch=epoch,
        key=key.load_signer(),
        tags=tags,
        labels=options.labels,
        annotations=options.annotations,
        cache=open_cache(environ, reads=not options.no_cache),
        push=options.push,
        output=output,
        force=force,
        headers=_find_headers(config, environ, runner),
        linker=linker,
    )
    # Before parts are linked, which takes minutes: what would be wrong in the end.
    choose_delivery(request)
    objects = name_objects(config)
    check_settable_names(config, objects)
    trust_files(config, request.key.public, [platform.oci for platform in options.platforms], objects)
    data = provide_parts(options.platforms, environ, report=log.warning, runner=runner)
    built = build_local(replace(request, data=data))
    if earlier and earlier != built.digest:
        log.warning("%s: replaced the archive of an earlier build, %s", built.file, earlier[:19])
    return built


def _build_signed_on_host(config: Config, request: ImageRequest, key: Signer, runner: Runner) -> BuiltImage:
    """Compile in the builder, sign on this machine, assemble in the builder. No builder receives the key."""
    release = ReleaseInfo.from_config(config, created=request.epoch)
    request = replace(request, secrets=(), environment={})
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        unsigned = export_stage(request, "objects-unsigned", Path(work, "unsigned"), runner=runner)
        contexts = {}
        for platform in request.platforms:
            objects = sorted(unsigned[platform.arch].rglob("*" + OBJECT_SUFFIX))
            signed = Path(work, "signed", platform.arch)
            for file in sign_files(objects, key, release, platform=platform, output=signed):
                _set_time(file.path, request.epoch)
            contexts[f"signed-{platform.arch}"] = signed
        return build_image(replace(request, contexts=contexts), runner=runner)


def _set_time(path: Path, epoch: int) -> None:
    """
    Set the time of *path* to *epoch* plus nanoseconds that depend on the file's contents.

    BuildKit does not send a file again whose size and time are unchanged, so it would use the old
    object after a second signature. Layers store whole seconds, so the same contents give the same
    image.
    """
    digest = hashlib.sha256(path.read_bytes()).digest()
    time = epoch * 10**9 + int.from_bytes(digest[:8], "big") % 10**9
    before = path.stat()
    os.utime(path, ns=(time, time))
    if path.stat().st_mtime_ns != time:  # the file system stores coarser times: restore the real time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _choose_images(config: Config, options: BuildOptions, environ: Mapping[str, str]) -> ImagesConfig:
    """Return the configured images, or the prepared ones if none are named and the engine has them."""
    # Only the engine's own builder has access to the engine's images.
    if options.builder or environ.get("BUILDX_BUILDER"):
        return config.images
    return choose_images(config.images, [platform.arch for platform in options.platforms])


def prepared_images() -> ImagesConfig:
    """Return the names of the images of `images prepare`, which the engine may lack."""
    return ImagesConfig(builder=BUILDER_IMAGE, base=BASE_IMAGE)


def _choose_tags(config: Config, options: BuildOptions) -> tuple[str, ...]:
    """Return the image's names, each once. Raises: UsageError."""
    tags = tuple(dict.fromkeys(filter(None, options.tags or (config.build.tag,))))
    if options.push and options.output:
        raise UsageError(
            "--push cannot be combined with --output",
            hint="leave one out: --push names the registry by --tag",
        )
    parse_output(options.output)
    if tags:
        # Docker would push to Docker Hub, which nobody named.
        for tag in tags if options.push else ():
            check_names_registry(tag)
        return tuple(map(check_tag, tags))
    if options.push:
        raise UsageError(
            "--push requires an image name", hint="add --tag REGISTRY/NAME:TAG, or set build.tag"
        )
    return (check_tag(f"{config.project.name.lower()}:{config.project.release}"),)
