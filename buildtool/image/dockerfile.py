# SPDX-License-Identifier: Apache-2.0
"""
Render the Dockerfile and the archive of sources, deterministically and without an engine.

Two checks keep configuration values from changing the Dockerfile's syntax. The values were validated
when they were read. The template can print only values that passed one of the five filters below,
which check again and never escape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import groupby
from typing import Any

import jinja2

from buildtool.compile.plan import encode_plan, outside_names
from buildtool.config.file import Config
from buildtool.config.project import Unit, make_units
from buildtool.config.settable import encode_settable
from buildtool.core import validate
from buildtool.core.errors import BuildtoolError, UsageError
from buildtool.core.platforms import Platform
from buildtool.core.resources import resource_path
from buildtool.core.strictjson import format_time
from buildtool.image.archive import ARCHIVE_EPOCH, SourceArchive, pack_own_sources, pack_project
from buildtool.image.context import sent_directories
from buildtool.image.embedded import (
    VENDORED,
    VENDORED_NAME,
    EmbeddedFile,
    loader_sources,
    pack_vendored,
    probe_sources,
    python_sources,
)
from buildtool.image.kerneltypes import TypesByArch, types_entries
from buildtool.image.metadata import image_entrypoint, image_labels
from buildtool.objects.capabilities import PINS_NAME
from buildtool.oci.tarwriter import TarEntry
from buildtool.runtime.carried import LIBBPF_FROM, LIBBPF_NAME, LINKED_FROM, LOADER_NAME, PROBE_NAME
from buildtool.runtime.debian import BUILDER_PACKAGES, CROSS_PACKAGES, LIBGCC_DEV
from buildtool.signing.keys import KeyId

# The Debian release of the default builder image, which determines the names of packages.
_SUITE = "trixie"

# The longest line in the template's output.
_LINE_LENGTH = 104

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


_SETTABLE_NAME = "settable.json"
_LIBBPF = f"/{LIBBPF_NAME}"


class Form(Enum):
    """The places of buildtool's sources and the project's sources for a Dockerfile."""

    INLINE = "ours in its text, the project's in the build context"
    PROJECT = "ours in an archive, the project's in the build context"
    FOLDER = "both in an archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """
    The input of a Dockerfile.

    *sources* are paths inside the project. *trust* holds the files of the trust store, text by
    name. *key_id* names the only key that may sign. *capabilities* are the image's.

    *form* selects the places of sources. *epoch* is the time in the Dockerfile's instructions for
    building it, in seconds.
    *headers* are those of Linux and libbpf for sources, and those of include directories outside the project.
    *plan* has the objects by architecture, and *types* the signed types of kernels, if the image holds any.
    """

    config: Config
    platforms: tuple[Platform, ...]
    sources: tuple[str, ...]
    key_id: KeyId
    trust: Mapping[str, str]
    capabilities: tuple[str, ...] = ()
    headers: tuple[EmbeddedFile, ...] = ()
    plan: Mapping[str, tuple[Unit, ...]] = field(default_factory=dict)
    types: TypesByArch = field(default_factory=dict)
    form: Form = Form.PROJECT
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """The *text* of a Dockerfile, and its *archive* (None if the text contains buildtool's sources)."""

    text: str
    archive: SourceArchive | None = None


class _Checked(str):
    """Text that passed a filter."""

    __slots__ = ()


def render_dockerfile(request: RenderRequest) -> Dockerfile:
    """
    Return the Dockerfile of *request*. The same request and sources give the same bytes.

    Raises: ConfigError or UsageError, for a value that a Dockerfile must not contain; FileAccessError.
    """
    archive = _pack(request)
    return Dockerfile(text=load_template().render(_context(request, archive)), archive=archive)


def _pack(request: RenderRequest) -> SourceArchive | None:
    if request.form is Form.FOLDER:
        directories = source_directories(request)
        root, more = request.config.root, _types_entries(request)
        return pack_project(root, directories, request.sources, _more_sources(request), more)
    if request.form is Form.PROJECT:
        return pack_own_sources(_more_sources(request), _types_entries(request))
    if request.types:
        raise UsageError(
            "load.btf: the text of a Dockerfile cannot hold the types",
            hint="buildtool render -o DIR writes an archive beside the Dockerfile",
        )
    return None


def _types_entries(request: RenderRequest) -> tuple[TarEntry, ...]:
    return tuple(
        entry
        for arch, files in request.types.items()
        for entry in types_entries(files, ARCHIVE_EPOCH, f"types/{arch}")
    )


def _more_sources(request: RenderRequest) -> tuple[EmbeddedFile, ...]:
    """Return the files that only some projects need: headers, and the linker's sources."""
    return (*request.headers, *(probe_sources() if _links(request) else ()))


def _links(request: RenderRequest) -> bool:
    """Return whether an object has several sources, so that the builder needs bpf-probe, which links them."""
    return any(unit.is_linked for units in request.plan.values() for unit in units)


@lru_cache(maxsize=1)
def load_template() -> jinja2.Template:
    """
    Return the compiled template, which is cached.

    Raises: FileAccessError.
    """
    environment = jinja2.Environment(  # noqa: S701 - not HTML; the filters below take its place
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(text=_text, mount=_mount, json=_json, argv=_argv, heredoc=_heredoc)
    return environment.from_string(resource_path("templates/Dockerfile.j2").read_text("utf-8"))


def is_prepared(builder: str) -> bool:
    """
    Return whether image *builder* already contains all packages.

    An image named debian gets its packages by apt-get. Any other image must come from
    `images prepare`, perhaps by a site's own registry.
    """
    repository = builder.partition("@")[0].rpartition("/")[2]
    return repository.partition(":")[0] != "debian"


def _context(request: RenderRequest, archive: SourceArchive | None) -> dict[str, Any]:
    config = request.config
    if not _KEY_ID.fullmatch(request.key_id):
        raise UsageError(f"{request.key_id!r} is not a key id")
    return {
        "builder": validate.check_image(config.images.builder),
        "base": validate.check_image(config.images.base),
        "prepared": is_prepared(config.images.builder),
        "project": validate.check_project_name(config.project.name),
        "release": validate.check_release(config.project.release),
        "platforms": request.platforms,
        "key_id": request.key_id,
        "epoch": request.epoch,
        "archive": archive,
        "alone": request.form is Form.FOLDER,
        "sources": _embedded_sources(request) if archive is None else [],
        "vendored": _vendored_sources() if archive is None else None,
        "vendored_name": VENDORED_NAME,
        "trust": _check_files(
            EmbeddedFile(directory="", name=name, text=text) for name, text in request.trust.items()
        ),
        "plans": _check_files(_plan_files(request)),
        "settable": bool(config.load.settable),
        "types": bool(request.types),
        "mounts": source_directories(request),
        "apt_install": _apt_install(request.platforms, native=_links(request)),
        "linker": _linker_argvs() if _links(request) else [],
        "compile": {p.arch: _compile_argv(request, p) for p in request.platforms},
        "sign": {p.arch: _sign_argv(request, p) for p in request.platforms},
        "link": {p.arch: _link_argvs(config, p) for p in request.platforms},
        "programs": [f"/{name}" for name in _program_names(config).values()],
        "grants": config.image.grants_capabilities,
        "grant": {p.arch: _grant_argv(request, p) for p in request.platforms},
        "agree": _agree_argv(request) if len(request.platforms) > 1 else None,
        "labels": image_labels(config, request.key_id, config.images.base, request.capabilities),
        "user": validate.check_user(config.image.user),
        "healthcheck": [validate.check_word(word) for word in config.image.healthcheck],
        "entrypoint": image_entrypoint(config),
    }


def source_directories(request: RenderRequest) -> list[str]:
    """
    Return `sent_directories` of *request*.

    Raises: UsageError.
    """
    return sent_directories(request.config.root, request.sources, request.config.compile.every_include)


def _compile_argv(request: RenderRequest, platform: Platform) -> list[str]:
    argv = ["python3", "-m", "buildtool", "compile", "--plan", "/plan.json"]
    argv += ["--system-headers"] if request.config.compile.system_headers else []
    argv += ["--linker", f"/{PROBE_NAME}"] if _links(request) else []
    return [*argv, "--arch", platform.arch, "--output", "/objects"]


def _units(request: RenderRequest, platform: Platform) -> tuple[Unit, ...]:
    """Return the objects of *platform*, by default one of each source with the settings of [compile]."""
    settings = request.config.compile
    return request.plan.get(platform.arch) or make_units(request.sources, settings.include, settings.flags)


def _plan_files(request: RenderRequest) -> list[EmbeddedFile]:
    """Return the plan of each architecture, a file called ARCH.json, and what the signers let be set."""
    outside = outside_names(request.config.compile.every_include)
    settable = request.config.load.settable
    text = encode_settable(settable)
    files = [EmbeddedFile(directory="", name=_SETTABLE_NAME, text=text)] if settable else []
    return files + [
        EmbeddedFile(
            directory="", name=f"{platform.arch}.json", text=encode_plan(_units(request, platform), outside)
        )
        for platform in request.platforms
    ]


def _sign_argv(request: RenderRequest, platform: Platform) -> list[str]:
    project = request.config.project
    objects = [f"/objects/{unit.path}" for unit in _units(request, platform)]
    argv = ["python3", "-m", "buildtool", "sign", *objects]
    argv += ["--key", "/run/secrets/signing-key", "--expect-key-id", request.key_id]
    argv += ["--passphrase-file", "/run/secrets/signing-key-passphrase"]
    argv += ["--output", "/signed", "--arch", platform.arch]
    argv += ["--project", validate.check_project_name(project.name), "--object-version", str(project.version)]
    argv += ["--release", validate.check_release(project.release)]
    if request.config.load.settable:
        argv += ["--settable", f"/{_SETTABLE_NAME}"]
    not_after = request.config.sign.not_after
    return argv if not_after is None else [*argv, "--not-after", format_time(not_after)]


def _program_names(config: Config) -> dict[str, str]:
    """Return the names of the image's static programs, by kind."""
    return {"loader": LOADER_NAME} | ({"pins": PINS_NAME} if config.image.tools else {})


def _link_argvs(config: Config, platform: Platform) -> list[list[str]]:
    programs = _program_names(config).items()
    start = ["clang", f"--target={platform.triple}"]
    link = [*start, platform.static_option, _LIBBPF]
    return [_libbpf_argv(start), *([*link, *LINKED_FROM[kind], "-o", f"/{name}"] for kind, name in programs)]


def _libbpf_argv(start: Sequence[str]) -> list[str]:
    return [*start, *LIBBPF_FROM, "-o", _LIBBPF]


def _linker_argvs() -> list[list[str]]:
    """Return the commands that make bpf-probe for the builder's architecture, which is not known here."""
    program = ["clang", "-static", _LIBBPF, *LINKED_FROM["probe"], "-o", f"/{PROBE_NAME}"]
    return [_libbpf_argv(["clang"]), program]


def _agree_argv(request: RenderRequest) -> list[str]:
    allowed = [
        f"--allow={validate.check_difference(item)}" for item in request.config.build.allow_differences
    ]
    return ["python3", "-m", "buildtool", "agree", "/objects", *allowed]


def _grant_argv(request: RenderRequest, platform: Platform) -> list[str]:
    image, build = request.config.image, request.config.build
    programs = [f"/loader/{name}" for name in _program_names(request.config).values()]
    argv = ["python3", "-m", "buildtool", "grant", *programs, "/init/tini", "--objects", "/objects"]
    argv += [word for name in request.capabilities for word in ("--capability", name)]
    argv += [] if image.capabilities else ["--exactly"]
    argv += [] if image.grants_capabilities else ["--no-attribute"]
    argv += ["--trust", "/trust", "--arch", platform.arch, "--key-id", request.key_id]
    argv += [word for text in image.attach for word in ("--attach", validate.check_attach(text))]
    argv += [word for text in image.load for word in ("--load", validate.check_load(text))]
    argv += [word for text in image.set for word in ("--set", validate.check_setting(text))]
    argv += [word for text in image.map_entries for word in ("--map-entries", validate.check_setting(text))]
    argv += ["--hand-over"] if request.config.loader.hand_over else []
    numbers = map(validate.check_rule_number, build.allow_findings)
    argv += [word for number in numbers for word in ("--allow-finding", number)]
    return [*argv, "--output", "/"]


def _apt_install(platforms: Iterable[Platform], *, native: bool) -> list[str]:
    """Return the command for the toolchain's packages. *native* adds the builder's own libraries."""
    per_platform = (*CROSS_PACKAGES, LIBGCC_DEV[_SUITE])
    packages = [*BUILDER_PACKAGES, *(f"{name}:{p.debian}" for p in platforms for name in per_platform)]
    packages += per_platform if native else ()
    return ["apt-get", "install", "--update", "--yes", "--no-install-recommends", *packages]


def _embedded_sources(request: RenderRequest) -> list[tuple[str, list[EmbeddedFile]]]:
    files = (*loader_sources(), *python_sources(), *_more_sources(request))
    return _by_directory([file for file in files if not file.directory.startswith(VENDORED)])


def _vendored_sources() -> EmbeddedFile:
    files = [file for file in loader_sources() if file.directory.startswith(VENDORED)]
    return EmbeddedFile(directory="", name=f"{VENDORED_NAME}.base64", text=pack_vendored(files))


def _by_directory(files: Sequence[EmbeddedFile]) -> list[tuple[str, list[EmbeddedFile]]]:
    ordered = sorted(_check_files(files), key=lambda file: (file.directory, file.name))
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda file: file.directory)]


def _check_files(files: Iterable[EmbeddedFile]) -> list[EmbeddedFile]:
    checked = list(files)
    for file in checked:
        if not _FILE_NAME.fullmatch(file.name):
            raise UsageError(f"{file.name!r}: not a file name that can stand in a Dockerfile")
    return checked


# The filters of the template. Each returns text that is safe in its place in the template.


def _text(value: object) -> _Checked:
    """Return one word for use outside quotes, without spaces and characters special to BuildKit's parser."""
    word = validate.check_word(str(value))
    if word.startswith("#") or any(letter.isspace() for letter in word):
        raise UsageError(f"{word!r}: not a single word")
    return _Checked(word)


def _mount(path: str) -> _Checked:
    """Return a directory as a value of --mount, where a comma would begin another option."""
    if "," in path:
        raise UsageError(f"{path!r}: a comma in the name of a source directory", hint="rename the directory")
    return _text(path)


def _json(value: str | Sequence[str]) -> _Checked:
    """Return a quoted string or an exec-form array. $ and quotes are refused, not escaped."""
    for word in [value] if isinstance(value, str) else value:
        validate.check_text(word)
    return _Checked(json.dumps(value, ensure_ascii=False))


def _argv(words: Sequence[str]) -> _Checked:
    """Return an exec-form array of *words*, broken into lines of at most _LINE_LENGTH."""
    lines, start = [], 0
    for at in range(1, len(words) + 1):
        if at == len(words) or len(json.dumps(words[start : at + 1], ensure_ascii=False)) > _LINE_LENGTH:
            lines.append(_json(words[start:at])[1:-1])
            start = at
    return _Checked("[" + ", \\\n     ".join(lines) + "]")


def _heredoc(file: EmbeddedFile) -> _Checked:
    """Return the lines of *file* for a quoted heredoc, which expands nothing and ends at the file's name."""
    lines = file.text.split("\n")
    if file.name in lines or any(letter in file.text for letter in "\r\0"):
        raise UsageError(f"{file.name}: cannot be written as a heredoc")
    return _Checked("\n".join(lines[:-1] if lines[-1] == "" else lines))


def _finalize(value: object) -> _Checked:
    """Refuse a value that passed no filter, so that the template cannot omit one."""
    if not isinstance(value, _Checked):
        raise UnfilteredError(f"template prints {value!r} without a filter")
    return value


class UnfilteredError(BuildtoolError):
    """The template is wrong: it prints a value without a filter."""
