# SPDX-License-Identifier: Apache-2.0
"""
Read `buildtool.toml` and the BUILDTOOL_* environment (docs/reference/configuration.md).

Each field below declares its key (the field's name with - for _), its parser, its default and its
environment variable. Options of the command line override the result of this module.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from buildtool.config.compiling import (
    CompileArch,
    CompileGenerate,
    CompileObject,
    CompileProgram,
    CompileRule,
    as_tables,
    parse_architectures,
)
from buildtool.config.settable import SettableRules, parse_settable
from buildtool.config.values import (
    RUNTIME_FORMAT,
    EnvironmentText,
    as_formats,
    as_integer,
    as_labels,
    as_path,
    as_paths,
    as_signer,
    as_switch,
    as_text,
    as_texts,
    as_time,
    check_attach_point,
    check_clock,
    check_engine,
    check_place,
    check_program,
    check_program_type,
    check_sbom,
    declare,
    expect_list,
    parse_helper,
    parse_minimum_versions,
)
from buildtool.core import validate
from buildtool.core.errors import BuildtoolError, ConfigError, FileAccessError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.flags import check_flag
from buildtool.core.platforms import PLATFORMS, find_platform
from buildtool.core.strictjson import MAX_INTEGER
from buildtool.objects.capabilities import check_capability
from buildtool.objects.types import Declaration

CONFIG_NAME = "buildtool.toml"
MAX_CONFIG_BYTES = 64 * 1024
_INIT_HINT = "buildtool init makes a project with one; --config names another file"
_TOML_HINT = 'for example: key = "text", key = 7, key = ["a", "b"]'
# Texts of tomllib, which differ between versions of Python, with our words for them.
_TOML_PROBLEMS = (
    ("Illegal character '\\n'", "a string without its closing quote"),
    ("Unterminated string", "a string without its closing quote"),
    ("Illegal character", "a control character"),
    ("Found invalid character", "a control character"),
    ("Unescaped", "a backslash that escapes nothing"),
    ("Invalid hex value", "a backslash that escapes nothing"),
    ("Escaped character", "a backslash that escapes nothing"),
    ("Invalid date", "no such date or time"),
    ("Invalid value", "not a value, text needs quotes"),
    ("Unclosed array", "an array without its ]"),
    ("Unclosed inline table", "an inline table without its }"),
    ("Expected ']", "a table header without its ]"),
    ("Expected '='", "a key without ="),
    ("Expected newline", "more text after the value"),
    ("Expected \"'", "a string without its closing quote"),
    ("Expected '\"", "a string without its closing quote"),
    ("Invalid initial character", "not a key"),
    ("Invalid statement", "neither a key nor a table nor a comment"),
    ("Cannot overwrite", "duplicate key"),
    ("Duplicate", "duplicate key"),
    ("Cannot", "duplicate table"),
)
MAX_SECONDS = 86_400  # the loader's limit
DEFAULT_BUILDER = "debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f"
DEFAULT_BASE = (
    "gcr.io/distroless/static-debian13"
    "@sha256:9197324ba51d9cd071af8505989365c006adf9d6d2067eada25aef00abbb5278"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """[project]: *name*, *version* (an increasing integer against rollback), *release* (text for readers)."""

    name: str = declare(as_text(validate.check_project_name), "", "BUILDTOOL_PROJECT")
    version: int = declare(as_integer(0, MAX_INTEGER), 1, "BUILDTOOL_OBJECT_VERSION")
    release: str = declare(as_text(validate.check_release), "0.0.0", "BUILDTOOL_RELEASE")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """
    [compile]: *sources* and *exclude* (patterns), *include* (directories), *flags*, *clang* (empty: newest).

    *system_headers* allows the headers of the machine that compiles. *rule*, *object*, *program* and
    *generate* are arrays of tables, and *arch* has the table of each architecture that has one.
    """

    sources: tuple[str, ...] = declare(as_texts(validate.check_path_pattern), ("bpf/*.bpf.c",))
    exclude: tuple[str, ...] = declare(as_texts(validate.check_path_pattern), ())
    include: tuple[str, ...] = declare(as_texts(validate.check_include), ())
    flags: tuple[str, ...] = declare(as_texts(check_flag), ())
    clang: str = declare(as_text(check_program), "", "BUILDTOOL_CLANG")
    system_headers: bool = declare(as_switch, default=False)
    rule: tuple[CompileRule, ...] = declare(as_tables(CompileRule, ("match",)), ())
    object: tuple[CompileObject, ...] = declare(
        as_tables(CompileObject, ("name",), either=("source", "sources")), ()
    )
    program: tuple[CompileProgram, ...] = declare(as_tables(CompileProgram, ("section", "loaded-as")), ())
    generate: tuple[CompileGenerate, ...] = declare(as_tables(CompileGenerate, ("output", "command")), ())
    arch: Mapping[str, CompileArch] = declare(parse_architectures, {})

    @property
    def declared(self) -> tuple[Declaration, ...]:
        """The types of sections that libbpf does not know."""
        return tuple(Declaration(item.section, item.loaded_as) for item in self.program)

    @property
    def every_include(self) -> tuple[str, ...]:
        """All directories of headers, of any architecture, rule and object, each once."""
        settings = (*self.arch.values(), *self.rule, *self.object)
        return tuple(dict.fromkeys([*self.include, *(name for each in settings for name in each.include)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignConfig:
    """[sign]: *key* (a file or a signer's reference), *not_after* (seconds since the epoch)."""

    key: Path | str | None = declare(as_signer, None, "BUILDTOOL_KEY")
    not_after: int | None = declare(as_time, None, "BUILDTOOL_NOT_AFTER")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """
    [publish]: *sign* a pushed image, with *key* (a file or a signer's reference) or with sign.key.

    A signed image gets a bill of materials in format *sbom* (or none), and *provenance*. *formats* are those
    of the images that a build writes or pushes. *gadget* is the gadget.yaml of images for Inspektor Gadget.
    """

    sign: bool = declare(as_switch, default=True, env="BUILDTOOL_PUBLISH_SIGN")
    key: Path | str | None = declare(as_signer, None, "BUILDTOOL_PUBLISH_KEY")
    sbom: str = declare(as_text(check_sbom), "cyclonedx", "BUILDTOOL_PUBLISH_SBOM")
    provenance: bool = declare(as_switch, default=True, env="BUILDTOOL_PUBLISH_PROVENANCE")
    formats: tuple[str, ...] = declare(as_formats, (RUNTIME_FORMAT,), "BUILDTOOL_PUBLISH_FORMATS")
    gadget: Path | None = declare(as_path, None)

    @property
    def other_formats(self) -> tuple[str, ...]:
        """The formats beside the runtime image."""
        return tuple(name for name in self.formats if name != RUNTIME_FORMAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustConfig:
    """
    [trust]: public *keys* (empty: the public half of the signing key) and rules, or the file of a *policy*.

    The rules have the names of spec/trust-policy.md. A rule that is None, or the empty default,
    does not appear in the policy.
    """

    keys: tuple[Path, ...] = declare(as_paths, (), "BUILDTOOL_TRUST")
    policy: Path | None = declare(as_path, None, "BUILDTOOL_POLICY")
    revoked: tuple[Path, ...] = declare(as_paths, ())
    threshold: int = declare(as_integer(1, 16), 1)
    project: str = declare(as_text(validate.check_project_name), "")
    platforms: tuple[str, ...] | None = declare(as_texts(lambda text: find_platform(text).oci), None)
    minimum_versions: Mapping[str, int] = declare(lambda value, _: parse_minimum_versions(value), {})
    program_types: tuple[str, ...] | None = declare(as_texts(check_program_type), None)
    attach_points: tuple[str, ...] | None = declare(as_texts(check_attach_point), None)
    denied_helpers: tuple[int, ...] | None = declare(
        lambda value, _: tuple(map(parse_helper, expect_list(value))), None
    )
    denied_kfuncs: tuple[str, ...] | None = declare(as_texts(validate.check_program_name), None)
    max_object_bytes: int | None = declare(as_integer(1, 64 * 1024 * 1024), None)
    allow_rollback: bool = declare(as_switch, default=False)
    clock: str = declare(as_text(check_clock), "required")
    earliest: int | None = declare(as_time, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """
    [build]: names of *arch*, image *tag*, *sign_on* (builder or host), *engine* (auto, docker or local).

    *allow_differences* names parts that may differ between architectures (`buildtool.objects.agreement`).
    *allow_findings* names rules of `check` that do not end a build, for objects that another loader loads.
    """

    arch: tuple[str, ...] = declare(as_texts(lambda text: find_platform(text).arch), (), "BUILDTOOL_ARCH")
    tag: str = declare(as_text(validate.check_tag), "", "BUILDTOOL_TAG")
    sign_on: str = declare(as_text(check_place), "builder", "BUILDTOOL_SIGN_ON")
    engine: str = declare(as_text(check_engine), "auto", "BUILDTOOL_ENGINE")
    allow_differences: tuple[str, ...] = declare(as_texts(validate.check_difference), ())
    allow_findings: tuple[str, ...] = declare(as_texts(validate.check_rule_number), ())


def _check_image_setting(value: str) -> str:
    """Return *value* if it is a setting that a Dockerfile can contain. Raises: UsageError."""
    return validate.check_text(validate.check_setting(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """
    [image]: *user*, *labels*, *attach* (PROGRAM=TARGET), *load* (programs), *workload*, *healthcheck*.

    *set* and *map_entries* are settings (OBJECT:NAME=VALUE) within the bounds of load.settable.

    *capabilities* (empty: those that the programs require) go to the image's label. With
    *file_capabilities* and a user other than root, they also go to the loader's file. *tools* adds
    ebpf-pins, which lists, detaches and rolls back pins.
    """

    user: str = declare(as_text(validate.check_user), "65532:65532", "BUILDTOOL_USER")
    labels: Mapping[str, str] = declare(as_labels, {})
    attach: tuple[str, ...] = declare(as_texts(validate.check_attach), ())
    load: tuple[str, ...] = declare(as_texts(validate.check_load), ())
    set: tuple[str, ...] = declare(as_texts(_check_image_setting), ())
    map_entries: tuple[str, ...] = declare(as_texts(_check_image_setting), ())
    workload: tuple[str, ...] = declare(as_texts(validate.check_word), ())
    healthcheck: tuple[str, ...] = declare(as_texts(validate.check_word), ())
    capabilities: tuple[str, ...] = declare(as_texts(check_capability), ())
    file_capabilities: bool = declare(as_switch, default=True)
    tools: bool = declare(as_switch, default=False)

    @property
    def grants_capabilities(self) -> bool:
        """True if the loader's file carries capabilities. root does not require file capabilities."""
        return self.file_capabilities and validate.check_user(self.user).partition(":")[0] != "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderConfig:
    """[loader]: options of the loader (docs/reference/loader.md)."""

    state: str = declare(as_text(validate.check_container_path), "")
    pin_root: str = declare(as_text(validate.check_container_path), "")
    share: str = declare(as_text(validate.check_container_path), "")
    attach_file: str = declare(as_text(validate.check_container_path), "")
    settings: str = declare(as_text(validate.check_container_path), "")
    btf: str = declare(as_text(validate.check_container_path), "")
    wait_interface: int | None = declare(as_integer(0, MAX_SECONDS), None)
    replace: bool = declare(as_switch, default=False)
    health_command: str = declare(as_text(validate.check_command), "")
    health_wait: int | None = declare(as_integer(0, MAX_SECONDS), None)
    reload: bool = declare(as_switch, default=False)
    map_fds: bool = declare(as_switch, default=True)
    seccomp: bool = declare(as_switch, default=True)
    workload_user: str = declare(as_text(validate.check_user), "")
    hand_over: bool = declare(as_switch, default=False)
    metrics_file: str = declare(as_text(validate.check_container_path), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """
    [load]: what the loading machine may set in the objects (*settable*), as the statements say.

    *btf* is a directory with signed types of kernels, ARCH/RELEASE.btf.o, which the image holds.
    """

    settable: SettableRules = declare(parse_settable, {})
    btf: str = declare(as_text(validate.check_relative_path), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """[images]: the references of the *builder* and *base* images."""

    builder: str = declare(as_text(validate.check_image), DEFAULT_BUILDER, "BUILDTOOL_BUILDER_IMAGE")
    base: str = declare(as_text(validate.check_base), DEFAULT_BASE, "BUILDTOOL_BASE_IMAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    The contents of `buildtool.toml`. Relative paths start from *root*, its directory.

    *has_file* tells whether the file exists. *variables* has the environment variable of each key
    that one set.
    """

    root: Path
    has_file: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    project: ProjectConfig
    compile: CompileConfig = field(default_factory=CompileConfig)
    sign: SignConfig = field(default_factory=SignConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)


_TABLES: dict[str, type] = {
    "project": ProjectConfig,
    "compile": CompileConfig,
    "sign": SignConfig,
    "publish": PublishConfig,
    "trust": TrustConfig,
    "build": BuildConfig,
    "image": ImageConfig,
    "load": LoadConfig,
    "loader": LoaderConfig,
    "images": ImagesConfig,
}


def load_config(
    path: Path = Path(CONFIG_NAME),
    *,
    environ: Mapping[str, str] | None = None,
    required: bool = False,
) -> Config:
    """
    Return the configuration of file *path*, overridden by the variables of *environ*.

    A missing file results in the defaults, unless the file is *required*. A project without a
    name is called after its directory.

    Raises: ConfigError, with file and line or the variable; FileAccessError.
    """
    root = path.parent
    text = _read(path, required=required)
    source = _Source(path=path, text=text or "")
    document = source.parse()
    source.check_keys(document, (), list(_TABLES))
    tables = {
        name: _read_table(source, name, kind, document.get(name, {}), environ or {})
        for name, kind in _TABLES.items()
    }
    variables = {key: name for name, key in environment_variables().items() if (environ or {}).get(name)}
    config = Config(root=root, has_file=text is not None, variables=variables, **tables)
    if config.trust.keys and config.trust.threshold > len(config.trust.keys):
        raise source.error(
            ("trust", "threshold"),
            f"trust.threshold: {config.trust.threshold} signatures of {len(config.trust.keys)} keys",
            hint="lower trust.threshold, or add public keys to trust.keys",
        )
    if config.project.name:
        return config
    return replace(config, project=replace(config.project, name=default_project_name(root)))


def environment_variables() -> dict[str, str]:
    """Return each environment variable of the configuration with its key (table.name)."""
    return {
        item.metadata["env"]: f"{name}.{_toml_key(item)}"
        for name, kind in _TABLES.items()
        for item in fields(kind)
        if item.metadata["env"]
    }


@contextmanager
def named_variable(config: Config, key: str) -> Iterator[None]:
    """Let errors of the block begin with the environment variable, if one set *key* of *config*."""
    try:
        yield
    except BuildtoolError as error:
        variable = config.variables.get(key)
        if variable and not error.message.startswith(variable):
            error.message = f"{variable}: {error.message}"
        raise


def default_project_name(root: Path) -> str:
    """Return the name of directory *root*, with - for characters that a project name must not contain."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).lstrip(".-")
    return name[: validate.MAX_NAME_BYTES] or "project"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The *text* of configuration file *path*, for errors with lines."""

    path: Path
    text: str

    def parse(self) -> dict[str, Any]:
        """Return the parsed text. Raises: ConfigError, with file and line."""
        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConfigError:
        """Return the error for tomllib's *error*."""
        if isinstance(error, RecursionError):
            return ConfigError(f"{self.path}: not valid TOML: nested too deep", hint=_TOML_HINT)
        message, _, position = str(error).partition(" (at ")
        found = re.match(r"line (\d+), column (\d+)", position)
        line = int(found[1]) if found else self.text.count("\n") + 1
        if table := re.fullmatch(r"Cannot declare \((.*)\) twice", message):
            name = ".".join(re.findall(r"'([^']*)'", table[1]))
            return ConfigError(
                f"{self.path}:{line}: duplicate table [{name}]", hint="move its keys into the first one"
            )
        column = f"column {found[2]}: " if found else ""
        problem = next((text for begin, text in _TOML_PROBLEMS if message.startswith(begin)), "a mistake")
        return ConfigError(f"{self.path}:{line}: not valid TOML: {column}{problem}", hint=_TOML_HINT)

    def error(self, key: tuple[str, ...], message: str, hint: str | None = None) -> ConfigError:
        """Return the error *message* about *key*, with file and line."""
        return ConfigError(f"{self.path}:{self.line_of(key)}: {message}", hint=hint)

    def check_keys(self, table: dict[str, Any], where: tuple[str, ...], known: list[str]) -> None:
        """Check that all keys of *table* are *known*. Raises: ConfigError."""
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                guess = f" (did you mean {close[0]}?)" if close else ""
                name = repr(".".join((*where, key)))[1:-1]
                table_name = f"[{'.'.join(where)}]" if where else "the file"
                raise self.error(
                    (*where, key),
                    f"unknown key {name}{guess}",
                    hint=f"{table_name} has {'the keys' if where else 'the tables'} {', '.join(known)}",
                )

    def line_of(self, key: tuple[str, ...]) -> int:
        """
        Return the first line of the statement that sets *key*.

        tomllib returns no positions. A statement is a table header, or one key with its value, and
        is valid TOML by itself. Therefore the text is cut into the shortest runs of lines that parse.
        """
        lines = self.text.splitlines()
        table: tuple[str, ...] = ()
        start = 0
        for end in range(1, len(lines) + 1):
            try:
                statement = tomllib.loads("\n".join(lines[start:end]))
            except (tomllib.TOMLDecodeError, RecursionError):
                continue
            if lines[start].lstrip().startswith("["):
                table = _only_path(statement)
                if table[: len(key)] == key:
                    return start + 1
            elif key[: len(table)] == table and _contains(statement, key[len(table) :]):
                return start + 1
            start = end
        return 1


def _only_path(header: Any) -> tuple[str, ...]:
    """Return the names in a parsed table header, which has one name at each level."""
    while isinstance(header, list):
        header = header[0]
    for name, value in header.items():
        return (name, *_only_path(value))
    return ()


def _contains(value: Any, key: tuple[str, ...]) -> bool:
    """Return whether nested tables *value* contain the path *key*. An empty *key* requires any contents."""
    for name in key:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return bool(value) or bool(key)


def _read(path: Path, *, required: bool) -> str | None:
    """Return the text of *path*; None without the file, unless it is *required*."""
    if not required and not path.exists():
        return None
    try:
        data = read_bounded(path, MAX_CONFIG_BYTES)
    except FileAccessError as error:
        raise ConfigError(error.message, hint=error.hint or _INIT_HINT) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path}: larger than {MAX_CONFIG_BYTES} bytes", hint=f"name a {CONFIG_NAME} by --config"
        )
    try:
        return data.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8", hint="save the file as UTF-8") from error


def _read_table(source: _Source, name: str, kind: type, table: Any, environ: Mapping[str, str]) -> Any:
    """Return *table* as dataclass *kind*, overridden by the environment. Raises: ConfigError."""
    if not isinstance(table, dict):
        raise source.error((name,), f"{name} must be a table", hint=f"write [{name}] above its keys")
    keys = {_toml_key(item): item for item in fields(kind)}
    values: dict[str, Any] = {}
    if kind is CompileConfig:
        # Each architecture is a key, and none is called arch.
        arch = keys.pop("arch")
        tables = {key: value for key, value in table.items() if key in PLATFORMS}
        source.check_keys(table, (name,), [*keys, *PLATFORMS])
        table = {key: value for key, value in table.items() if key not in PLATFORMS}
        try:
            values["arch"] = arch.metadata["parse"](tables, source.path.parent)
        except UsageError as error:
            key = error.message.partition(":")[0]
            raise source.error((name, key), f"{name}.{error.message}", hint=error.hint) from error
    source.check_keys(table, (name,), list(keys))
    for key, value in table.items():
        try:
            values[keys[key].name] = keys[key].metadata["parse"](value, source.path.parent)
        except UsageError as error:
            raise source.error((name, key), f"{name}.{key}: {error.message}", hint=error.hint) from error
    for item in keys.values():
        variable = item.metadata["env"]
        if environ.get(variable):
            values[item.name] = _read_variable(item, variable, environ[variable])
    return kind(**values)


def _read_variable(item: Field[Any], variable: str, text: str) -> Any:
    try:
        return item.metadata["parse"](EnvironmentText(text), Path())
    except UsageError as error:
        raise ConfigError(f"{variable}: {error.message}", hint=error.hint) from error


def _toml_key(item: Field[Any]) -> str:
    return item.name.replace("_", "-")
