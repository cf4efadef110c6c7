# SPDX-License-Identifier: Apache-2.0
"""The order of things: configuration, key, Dockerfile, image; the only module that knows it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from buildtool.config.file import DEFAULT_BASE, DEFAULT_BUILDER, Config, ImagesConfig
from buildtool.config.project import OBJECT_SUFFIX, find_sources, name_objects
from buildtool.config.sourcedate import source_date
from buildtool.core.cache import open_cache
from buildtool.core.errors import EngineError, SigningKeyError, UsageError
from buildtool.core.platforms import DEBIAN_13, Platform
from buildtool.core.process import KEY_VARIABLE, PASSPHRASE_VARIABLE, Runner
from buildtool.core.validate import LAYOUT_SCHEME, check_tag
from buildtool.image.context import check_outside, check_sent
from buildtool.image.docker.build import (
    ImageRequest,
    build_image,
    explain_base,
    export_stage,
    parse_output,
    report_base,
)
from buildtool.image.docker.buildx import Secret
from buildtool.image.docker.prepare import BASE_IMAGE, BUILDER_IMAGE, find_prepared
from buildtool.image.dockerfile import (
    Dockerfile,
    Form,
    RenderRequest,
    render_dockerfile,
    source_directories,
)
from buildtool.image.engine import LOCAL, choose_engine, why_local
from buildtool.image.folder import check_folder, write_folder
from buildtool.image.local.build import LocalRequest, build_local
from buildtool.image.result import BuiltImage
from buildtool.image.scan import choose_capabilities
from buildtool.runtime.provide import provide_parts
from buildtool.signing.keys import (
    PublicKey,
    SigningKey,
    is_encrypted,
    load_public_key,
    load_signing_key_pem,
    read_key_file,
)
from buildtool.signing.sign import ReleaseInfo, sign_files
from buildtool.signing.signers.file import read_variable
from buildtool.signing.signers.resolve import find_signer
from buildtool.signing.signers.signer import Signer, SignerContext
from buildtool.trust.generate import check_still_valid, trust_files
from buildtool.trust.store import POLICY_NAME

AskPassphrase = Callable[[str], str | None]


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """
    Where the signing key is: in file *path* or in *variable*; *secrets* say it to BuildKit.

    *pem* is its text, with *passphrase* when that is encrypted. A public key
    will do where nothing is signed. Any other *signer* has no text: it signs on
    this machine only.
    """

    pem: bytes = field(repr=False)
    path: Path | None = None
    variable: str = ""
    passphrase: str = field(default="", repr=False)
    signer: Signer | None = None
    secrets: tuple[Secret, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether this is a .pub file."""
        return self.path is not None and self.path.suffix == ".pub"

    @property
    def environment(self) -> dict[str, str]:
        """What BuildKit's client gets beside our environment."""
        key = {self.variable: self.pem.decode("utf-8", "surrogateescape")} if self.variable else {}
        return {**key, PASSPHRASE_VARIABLE: self.passphrase} if self.passphrase else key

    def load_private(self) -> SigningKey:
        """Return the private key. Raises: SigningKeyError."""
        passphrase = self.passphrase.encode() or None
        return load_signing_key_pem(self.pem, str(self.path or self.variable), passphrase)

    def load_signer(self) -> Signer:
        """Return what signs. Raises: SigningKeyError."""
        return self.signer or self.load_private()

    def load_public(self) -> PublicKey:
        """Return the public half. Raises: SigningKeyError, ConfigError."""
        if self.is_public and self.path:
            return load_public_key(self.path)
        return self.load_signer().public


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What `build` was asked for beyond the configuration; see ImageRequest."""

    platforms: tuple[Platform, ...]
    key: Path | str | None = None
    tag: str = ""
    push: bool = False
    output: str = ""
    force: bool = False
    builder: str = ""
    no_cache: bool = False
    sign_on: str = "builder"
    engine: str = "auto"

    @property
    def needs_docker(self) -> bool:
        """Whether only Docker can do what is asked for."""
        return bool(self.builder) or parse_output(self.output).get("type", "oci") != "oci"


def _check_builder_has(platforms: Sequence[Platform]) -> None:
    """Refuse platforms that the builder image has no libraries for."""
    for platform in platforms:
        if platform.arch not in DEBIAN_13:
            raise UsageError(
                f"--arch {platform.arch}: not supported by the Docker builder: Debian 13 lacks it",
                hint="--engine local can; or choose from " + ", ".join(DEBIAN_13),
            )


def find_key(
    option: Path | str | None,
    config: Config,
    environ: Mapping[str, str],
    ask: AskPassphrase = lambda _: None,
) -> KeySource:
    """
    Return the signing key: *option*, else the environment's PEM text, else the configuration's.

    *ask* is called for the passphrase of an encrypted key when the
    environment has none.

    Raises: SigningKeyError, UsageError.
    """
    in_environment = f"env:{KEY_VARIABLE}" if environ.get(KEY_VARIABLE) else None
    chosen = option or in_environment or config.sign.key
    if chosen is None:
        raise UsageError(
            "no signing key",
            hint=f"--key FILE, sign.key in buildtool.toml or {KEY_VARIABLE}; buildtool keygen makes one",
        )
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
    config: Config, platforms: tuple[Platform, ...], key: KeySource, *, inline: bool = False
) -> Dockerfile:
    """
    Return the Dockerfile, after a look at what is sent along with it; no engine is asked.

    The project's sources are in the build context; ours are in the archive or, *inline*, in the text.

    Raises: UsageError, ConfigError, FileAccessError.
    """
    return render_dockerfile(_describe(config, platforms, key, form=Form.INLINE if inline else Form.PROJECT))


def _describe(
    config: Config,
    platforms: tuple[Platform, ...],
    key: KeySource,
    *,
    form: Form,
    epoch: int | None = None,
) -> RenderRequest:
    """Return the request for a Dockerfile, once its sources are found fit to be sent."""
    _check_builder_has(platforms)
    if config.images.base.startswith(LAYOUT_SCHEME):
        raise UsageError("images.base: an OCI layout requires --engine local")
    public = key.load_public()
    sources = find_sources(config)
    objects = name_objects(sources).values()
    trust = trust_files(config, public, [platform.oci for platform in platforms], objects)
    check_still_valid(config, public, trust[POLICY_NAME], int(time.time()))
    request = RenderRequest(
        config=config,
        platforms=platforms,
        sources=sources,
        key_id=public.key_id,
        trust=trust,
        capabilities=choose_capabilities(config, sources),
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
    force: bool = False,
    environ: Mapping[str, str],
    runner: Runner,
) -> None:
    """
    Write the Dockerfile and its archive into *directory*, where plain buildx builds the image of `build`.

    In the project's own directory the Dockerfile reads the sources there; elsewhere the archive holds them.

    Raises: UsageError, ConfigError, FileAccessError.
    """
    check_folder(directory, force=force)
    if directory.resolve() == config.root.resolve():
        request = _describe(config, platforms, key, form=Form.PROJECT)
    else:
        # The folder is a fixed copy of the sources, so its Dockerfile can name their time.
        epoch = source_date(environ, config.root, runner)
        request = _describe(config, platforms, key, form=Form.FOLDER, epoch=epoch)
    check_outside(config.root, source_directories(request), directory)
    write_folder(directory, render_dockerfile(request), force=force)


def build(
    config: Config,
    options: BuildOptions,
    *,
    environ: Mapping[str, str],
    ask: AskPassphrase = lambda _: None,
    runner: Runner,
) -> BuiltImage:
    """
    Build the signed image and return what it is called.

    Raises: every BuildtoolError.
    """
    tag = _choose_tag(config, options)
    key = find_key(options.key, config, environ, ask)
    if key.is_public:
        raise SigningKeyError(
            f"{key.path}: a public key cannot sign", hint="build takes the .pem file; render takes either"
        )
    only_local = why_local(config.images.base, options.platforms)
    engine = choose_engine(
        options.engine, environ, needs_docker=options.needs_docker, only_local=only_local, runner=runner
    )
    if engine == LOCAL:
        return _build_locally(config, options, tag, key, environ, runner)
    return _build_with_docker(config, options, tag, key, environ, runner)


def _build_with_docker(
    config: Config,
    options: BuildOptions,
    tag: str,
    key: KeySource,
    environ: Mapping[str, str],
    runner: Runner,
) -> BuiltImage:
    if key.signer is not None and options.sign_on != "host":
        raise UsageError(
            f"signer {key.signer.public.name}: cannot sign in a builder",
            hint="add --sign-on host, or set build.sign-on",
        )

    # Both are asked for by buildx's standard input, that is while buildx connects to the engine.
    @cache
    def images() -> ImagesConfig:
        return _choose_images(config, options, environ)

    @cache
    def dockerfile() -> Dockerfile:
        return make_dockerfile(replace(config, images=images()), options.platforms, key)

    request = ImageRequest(
        dockerfile=dockerfile,
        root=config.root,
        platforms=options.platforms,
        epoch=source_date(environ, config.root, runner),
        tag=tag,
        push=options.push,
        output=options.output,
        force=options.force,
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
        if error.hint is None:
            explain_base(request, images().base, runner=runner)
        # Another builder would not see what is prepared.
        own = not (options.builder or environ.get("BUILDX_BUILDER"))
        if error.hint is None and own and images().builder == DEFAULT_BUILDER:
            error.hint = "where images cannot be pulled, `buildtool images prepare` makes them"
        raise
    report_base(images().base, prepared_images().base)
    return replace(built, key_id=key.load_public().key_id)


def _build_locally(
    config: Config,
    options: BuildOptions,
    tag: str,
    key: KeySource,
    environ: Mapping[str, str],
    runner: Runner,
) -> BuiltImage:
    if options.builder:
        raise UsageError(
            "--builder requires --engine docker", hint="leave --builder out, or add --engine docker"
        )
    output, force = parse_output(options.output), options.force
    if not output and not options.push:
        # The name is ours, and so is what has it.
        name = f"{config.project.name.rpartition('/')[2]}-{config.project.release}.oci.tar"
        output, force = {"type": "oci", "dest": str(config.root / name)}, True
    request = LocalRequest(
        config=config,
        platforms=options.platforms,
        epoch=source_date(environ, config.root, runner),
        key=key.load_signer(),
        tag=tag,
        cache=open_cache(environ, reads=not options.no_cache),
        push=options.push,
        output=output,
        force=force,
        data=provide_parts(options.platforms, environ, report=log.warning, runner=runner),
    )
    return build_local(request)


def _build_signed_on_host(config: Config, request: ImageRequest, key: Signer, runner: Runner) -> BuiltImage:
    """Compile in the builder, sign here, assemble in the builder: the key reaches no builder at all."""
    release = ReleaseInfo(
        project=config.project.name,
        version=config.project.version,
        release=config.project.release,
        created=request.epoch,
        not_after=config.sign.not_after,
    )
    request = replace(request, secrets=(), environment={})
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        unsigned = export_stage(request, "objects-unsigned", Path(work, "unsigned"), runner=runner)
        contexts = {}
        for platform in request.platforms:
            objects = sorted(unsigned[platform.arch].glob("*" + OBJECT_SUFFIX))
            signed = Path(work, "signed", platform.arch)
            for file in sign_files(objects, key, release, platform=platform, output=signed):
                _set_time(file.path, request.epoch)
            contexts[f"signed-{platform.arch}"] = signed
        return build_image(replace(request, contexts=contexts), runner=runner)


def _set_time(path: Path, epoch: int) -> None:
    """
    Give *path* the time *epoch*, with nanoseconds of its contents.

    BuildKit takes a file of a known size and time for the one it has: signed
    anew in the same second, an object would be the old one. Layers keep whole
    seconds, so the image stays the same for the same contents.
    """
    digest = hashlib.sha256(path.read_bytes()).digest()
    time = epoch * 10**9 + int.from_bytes(digest[:8], "big") % 10**9
    before = path.stat()
    os.utime(path, ns=(time, time))
    if path.stat().st_mtime_ns != time:  # a file system with coarser times: the real one is safe
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _choose_images(config: Config, options: BuildOptions, environ: Mapping[str, str]) -> ImagesConfig:
    """Return the configured images, or the prepared ones if none are named and the engine has them."""
    named = (config.images.builder, config.images.base) != (DEFAULT_BUILDER, DEFAULT_BASE)
    # Another builder than the engine's own does not see the engine's images.
    if named or options.builder or environ.get("BUILDX_BUILDER"):
        return config.images
    found = find_prepared(architectures=[platform.arch for platform in options.platforms])
    return ImagesConfig(builder=found.builder, base=found.base) if found else config.images


def prepared_images() -> ImagesConfig:
    """Return the names that `images prepare` gives its images, whether the engine has them or not."""
    return ImagesConfig(builder=BUILDER_IMAGE, base=BASE_IMAGE)


def _choose_tag(config: Config, options: BuildOptions) -> str:
    tag = options.tag or config.build.tag
    if options.push and options.output:
        raise UsageError("--push cannot be combined with --output")
    parse_output(options.output)
    if tag:
        return check_tag(tag)
    if options.push:
        raise UsageError(
            "--push requires an image name", hint="add --tag REGISTRY/NAME:TAG, or set build.tag"
        )
    return check_tag(f"{config.project.name.lower()}:{config.project.release}")
