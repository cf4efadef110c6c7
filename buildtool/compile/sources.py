# SPDX-License-Identifier: Apache-2.0
"""Compile sources to stripped objects: in parallel, all or none, with the same bytes on each machine."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.compile import toolchain as tools
from buildtool.compile.headers import Headers
from buildtool.compile.kerneltypes import HEADER_NAME, check_types
from buildtool.compile.link import LinkJob, link_objects
from buildtool.compile.metrictags import check_metric_tags
from buildtool.compile.outside import Outside, place_include
from buildtool.compile.record import (
    CompiledObject,
    SourceInfo,
    ToolchainInfo,
    read_compile_record,
    write_compile_record,
)
from buildtool.compile.strip import strip_debug
from buildtool.compile.toolchain import Toolchain
from buildtool.compile.typeorder import order_types
from buildtool.config.project import Piece, Unit, check_units
from buildtool.core.diagnostics import parse_diagnostics
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    BuildtoolError,
    CompileError,
    FileAccessError,
    ObjectFormatError,
    ToolFailedError,
    UsageError,
    system_reason,
)
from buildtool.core.files import made_directories, make_directory, read_bounded, write_atomic
from buildtool.core.platforms import Platform, oci_platform
from buildtool.core.process import Completed, check_operand, run_parallel
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object, unsigned_digest

MAX_SOURCE_BYTES = 64 * 1024 * 1024
MAX_UNSTRIPPED_BYTES = 512 * 1024 * 1024
STRIP_BATCH = 256
CANNOT_COMPILE = "cannot compile"  # begins the message for sources that clang refused
MAX_SEARCHED = 10_000  # directories, for a header that was not found
_NOT_FOUND = re.compile(r"error: (?:\x1b\[[0-9;]*m)*'([^'\n]+)' file not found")
# libbpf's headers use types that they do not include: those of vmlinux.h, or of these headers of Linux.
_UNKNOWN_TYPE = re.compile(r"(?:unknown type name|incomplete definition of type) '(?:struct )?(\w+)'")
_TYPES = {
    "bool": "<stdbool.h>",
    "pt_regs": "<linux/ptrace.h>",
    "__u8 __u16 __u32 __u64 __s8 __s16 __s32 __s64 __be16 __be32 __be64 __wsum": "<linux/types.h>",
}
MAX_NAMED = 5  # failed sources in the message; clang's diagnostics name all
# The message of clang and llvm-strip for a full file system, perhaps in color, before a stack dump. A
# diagnostic about a source has file and line before "error". Both tools remove the incomplete file, so the
# file system may have room again when buildtool looks.
_TOOL_IS_FULL = re.compile(
    r"^(?:\x1b\[[0-9;]*m|\S*llvm-strip\S*: |LLVM |fatal )*error: .*no space left on device",
    re.IGNORECASE | re.MULTILINE,
)


Output = tuple[Platform, Path, Sequence[Unit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """
    Options of all objects of a run: *root* of the project. The settings of an object are in its unit.

    *headers* are those of Linux and libbpf, or None for this machine's. *jobs* is the number of parallel
    compilers, or 0 for one on each processor. *is_configured* is true if the units and headers are the
    configuration's. *outside* has the places of include directories outside the project that are not where
    their names say, as in a builder. *linker* is the bpf-probe of this machine, which objects of several
    sources need.
    """

    root: Path
    headers: Headers | None
    jobs: int = 0
    color: bool = False
    outside: Outside = field(default_factory=dict)
    is_configured: bool = False
    linker: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileResult:
    """
    The *objects* of a run and clang's *warnings*, unchanged.

    *inputs* has, for each object, the names of the files that clang read, with the system's
    headers. Relative names start from the root.
    """

    objects: tuple[CompiledObject, ...]
    warnings: str
    inputs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One run of clang: *source* as its argument, the *piece* with its settings, and the object *built*."""

    source: str
    piece: Piece
    platform: Platform
    built: Path

    @property
    def depfile(self) -> Path:
        return self.built.with_suffix(".d")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """One object: its *unit*, the *jobs* of its sources, *built* in the scratch directory, *final*."""

    unit: Unit
    platform: Platform
    jobs: tuple[_Job, ...]
    built: Path
    final: Path


def compile_sources(
    toolchain: Toolchain,
    outputs: Sequence[Output],
    options: CompileOptions,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> CompileResult:
    """
    Compile the units of *outputs*, each of which has a platform and a directory of objects.

    If one source fails, no object appears and no compile record changes. *on_step* is called
    after each object.

    Raises: CompileError, with clang's diagnostics; FileAccessError; UsageError; ToolMissingError;
    ToolFailedError.
    """
    for _, _, units in outputs:
        check_units(units)
    planned = [(*output[:2], unit) for output in outputs for unit in output[2]]
    pieces = [piece for _, _, unit in planned for piece in unit.pieces]
    relative = {piece.source: _check_source(piece.source, options.root) for piece in pieces}
    for include in dict.fromkeys(name for piece in pieces for name in piece.include):
        if not (options.root / place_include(check_operand(include), options.root, options.outside)).is_dir():
            is_types = Path(include).parent.name == "vmlinux"
            raise FileAccessError(
                f"{include}: not a directory",
                hint=f"buildtool vmlinux --arch {Path(include).name} makes it"
                if is_types
                else "name a directory of headers; compile.include starts at the directory of buildtool.toml",
            )
    # A scratch directory beside the first output is on its file system, where rename(2) is atomic.
    beside = outputs[0][1]
    with (
        made_directories([(directory / unit.path).parent for _, directory, unit in planned]),
        _scratch(beside) as scratch,
        _full_told(beside, scratch),
    ):
        products = [
            _plan_product(unit, platform, relative, Path(scratch, platform.arch), directory.absolute())
            for platform, directory, unit in planned
        ]
        jobs = [job for product in products for job in product.jobs]
        warnings = _run_clang(toolchain, jobs, options, on_step)
        _strip(toolchain, [job.built for job in jobs], options)
        for job in jobs:
            _order_types(job.built)
        inputs = [_read_inputs(product) for product in products]
        if options.headers is not None:
            options.headers.check(name for files in inputs for name in files)
        for platform, _, _ in outputs:
            read = {
                name
                for product, files in zip(products, inputs, strict=True)
                if product.platform == platform
                for name in files
            }
            check_types(options.root, read, platform)
        link_objects(
            options.linker,
            [_link_job(product) for product in products if product.unit.is_linked],
            parallel=options.jobs or os.cpu_count() or 1,
        )
        for product, files in zip(products, inputs, strict=True):
            _check_metrics(product, files, options)
        objects = [
            _describe(toolchain, product, files, options)
            for product, files in zip(products, inputs, strict=True)
        ]
        _publish(products, objects)
    return CompileResult(objects=tuple(objects), warnings=warnings, inputs=tuple(inputs))


def _plan_product(
    unit: Unit, platform: Platform, relative: Mapping[str, str], scratch: Path, directory: Path
) -> _Product:
    """Return the product of *unit*. clang writes the object of one source, and libbpf that of several."""
    built = scratch / unit.path
    jobs = tuple(
        _Job(
            source=relative[piece.source],
            piece=piece,
            platform=platform,
            built=built if not unit.is_linked else scratch / f"{unit.path}.{number}" / "piece.o",
        )
        for number, piece in enumerate(unit.pieces)
    )
    return _Product(unit=unit, platform=platform, jobs=jobs, built=built, final=directory / unit.path)


def _link_job(product: _Product) -> LinkJob:
    return LinkJob(
        name=product.unit.name,
        arch=product.platform.arch,
        objects=tuple((job.source, job.built) for job in product.jobs),
        output=product.built,
    )


def _scratch(beside: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix=".compile-", dir=beside.absolute())
    except OSError as error:
        raise FileAccessError(f"{beside}: cannot write: {system_reason(error)}") from error


@contextmanager
def _full_told(beside: Path, scratch: str) -> Iterator[None]:
    """Replace a tool's stack dump by a one-line error if the file system of *beside* is full."""
    try:
        yield
    except BuildtoolError as error:
        ours = scratch in error.message and error.message.endswith("no space left on device")
        if ours or _TOOL_IS_FULL.search(error.detail or ""):
            raise FileAccessError(f"{beside}: cannot write: no space left on device") from error
        raise


def _check_source(source: str, root: Path) -> str:
    """Return *source* relative to *root* if it is below *root*, after reading it. Raises: FileAccessError."""
    check_operand(source)
    read_bounded(root / source, MAX_SOURCE_BYTES)
    path = os.path.normpath(source)
    if Path(path).is_absolute():
        inside = os.path.relpath(path, root.absolute())
        return path if inside.startswith("../") else inside
    return path


def _run_clang(
    toolchain: Toolchain, jobs: Sequence[_Job], options: CompileOptions, on_step: Callable[[], None]
) -> str:
    """Run clang for all *jobs* and return its warnings. Raises: one CompileError for all failed sources."""
    for directory in {job.built.parent for job in jobs}:
        make_directory(directory)
    color = ("-fcolor-diagnostics",) if options.color else ()
    commands = [
        tools.compile_command(
            toolchain,
            job.platform,
            source=job.source,
            output=job.built,
            root=options.root,
            headers=options.headers,
            include=_places(job, options),
            flags=(*job.piece.flags, *color),
        )
        for job in jobs
    ]
    done = run_parallel(
        commands,
        jobs=options.jobs or os.cpu_count() or 1,
        cwd=options.root,
        env=tools.clean_environment(),
        on_end=on_step,
    )
    failed = [(job, end) for job, end in zip(jobs, done, strict=True) if end.returncode != 0]
    if failed:
        # A source can be in several objects.
        names = list(dict.fromkeys(f"{job.source} ({job.platform.arch})" for job, _ in failed))
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        message = f"{CANNOT_COMPILE} " + ", ".join(names[:MAX_NAMED]) + more
        said = _said(end for _, end in failed)
        error = CompileError(
            message, hint=_explain_include(said, [job for job, _ in failed], options), detail=said
        )
        error.diagnostics = parse_diagnostics(said, options.root)
        raise error
    return _said(done)


def _explain_include(said: str, jobs: Sequence[_Job], options: CompileOptions) -> str | None:
    """Return what to do about the first header, or type of one, that clang has not found, if there is any."""
    found = _NOT_FOUND.search(said)
    if found is None:
        return _explain_type(said)
    name = found[1]
    if directory := _find_directory(options.root, name):
        # The types of a kernel are for one architecture, whose table has directories of its own.
        own = next((job.platform.arch for job in jobs if Path(directory).name == job.platform.arch), "")
        others = "" if own else "".join(f'"{each}", ' for each in jobs[0].piece.include)
        table = f"[compile.{own}]" if own else "[compile]"
        return f'include = [{others}"{directory}"] in {table}, or --include {directory}, finds {name}'
    if name == HEADER_NAME:
        arch = jobs[0].platform.arch
        return (
            f"buildtool vmlinux --arch {arch} makes it;"
            f' include = ["vmlinux/{arch}"] in [compile.{arch}] finds it'
        )
    if options.headers is None:
        return f"install the package that has {name}, or copy {name} into the project"
    return (
        f"{name} is no header of Linux or libbpf: copy it into a directory of compile.include;"
        " compile.system-headers = true searches this machine's"
    )


def _explain_type(said: str) -> str | None:
    """Return which header has the first type that clang does not know, None for types of the project."""
    found = _UNKNOWN_TYPE.search(said)
    header = next((header for names, header in _TYPES.items() if found and found[1] in names.split()), None)
    if found is None or header is None:
        return None
    return f"#include {header} first: it has {found[1]}; vmlinux.h has it, too"


def _find_directory(root: Path, name: str) -> str | None:
    """Return the directory below *root* from which *name* is found, the nearest one, if there is any."""
    if name.startswith("/") or ".." in Path(name).parts:
        return None
    found = []
    for _, (parent, directories, files) in zip(range(MAX_SEARCHED), os.walk(root), strict=False):
        directories[:] = sorted(each for each in directories if not each.startswith("."))
        if Path(name).name in files and Path(parent, Path(name).name).match(name):
            place = os.path.relpath(Path(parent, Path(name).name), root)
            found.append(place.removesuffix(name).rstrip("/") or ".")
    return min(found, key=lambda place: (place.count("/"), place), default=None)


def _said(ends: Iterable[Completed]) -> str:
    """Return the compilers' output, without repetitions from several architectures."""
    texts = (end.stderr.decode(errors="replace").strip() for end in ends)
    return "\n".join(dict.fromkeys(text for text in texts if text))


def _strip(toolchain: Toolchain, objects: Sequence[Path], options: CompileOptions) -> None:
    """
    Remove DWARF from *objects*, by llvm-strip if it is installed. `strip_debug` gives the same bytes.

    Each process handles many objects: a process for each would add a tenth of the time of
    compilation.
    """
    if not toolchain.strip:
        for path in objects:
            # DWARF may exceed MAX_OBJECT_BYTES, which limits the stripped object only (`_describe`).
            write_atomic(path, strip_debug(read_bounded(path, MAX_UNSTRIPPED_BYTES)))
        return
    jobs = options.jobs or os.cpu_count() or 1
    size = min(STRIP_BATCH, -(-len(objects) // jobs))
    batches = [objects[at : at + size] for at in range(0, len(objects), size)]
    commands = [tools.strip_command(toolchain, batch) for batch in batches]
    for end in run_parallel(commands, jobs=jobs, env=tools.clean_environment()):
        if end.returncode != 0:
            raise ToolFailedError("llvm-strip: failed", detail=end.stderr.decode(errors="replace").strip())


def _order_types(path: Path) -> None:
    """Bring the types in the BTF of object *path* into one order. A larger object is refused later."""
    data = read_bounded(path, MAX_OBJECT_BYTES)
    if len(data) <= MAX_OBJECT_BYTES and (ordered := order_types(data)) != data:
        write_atomic(path, ordered)


def _check_metrics(product: _Product, inputs: Sequence[str], options: CompileOptions) -> None:
    """Refuse an object whose metrics no reader could read. A larger object is refused later."""
    data = read_bounded(product.built, MAX_OBJECT_BYTES)
    if len(data) <= MAX_OBJECT_BYTES:
        sources = [job.source for job in product.jobs]
        own = [name for name in inputs if options.headers is None or options.headers.find(name) is None]
        name = f"{CANNOT_COMPILE} {', '.join(sources)} ({product.platform.arch})"
        check_metric_tags(name, data, dict.fromkeys((*sources, *own)), options.root)


def _describe(
    toolchain: Toolchain, product: _Product, inputs: Sequence[str], options: CompileOptions
) -> CompiledObject:
    sources = [job.source for job in product.jobs]
    data = read_bounded(product.built, MAX_OBJECT_BYTES)
    if len(data) > MAX_OBJECT_BYTES:
        raise CompileError(
            f"{', '.join(sources)}: the object is larger than {MAX_OBJECT_BYTES} bytes",
            hint="divide its programs among several sources",
        )
    flags = recorded_flags(product.platform, product.unit)
    # The carried headers may be below the root, as in a checkout of this tool, and are not the project's.
    headers = options.headers
    own = [name for name in inputs if headers is None or headers.find(name) is None]
    outside = {place: name for job in product.jobs for name, place in _places(job, options) if place != name}
    return CompiledObject(
        path=product.final,
        name=product.unit.name,
        platform=product.platform.oci,
        sha256=Digest(hashlib.sha256(data).hexdigest()),
        toolchain=ToolchainInfo(compiler=toolchain.name, flags=flags),
        source=SourceInfo(path=sources[0], sha256=hash_sources(sources, own, options.root, outside)),
        headers=dict(headers.packages) if headers else {},
        unsigned_sha256=_unsigned_digest(data),
        inputs=tuple(sorted(_hashed_names(sources, own, options.root, outside))),
        root=options.root,
        is_configured=options.is_configured,
        declared=product.unit.declared,
    )


def _unsigned_digest(data: bytes) -> str:
    try:
        return unsigned_digest(parse_object(data))
    except ObjectFormatError:
        return ""  # not signable, as `sign` says


def recorded_flags(platform: Platform, unit: Unit) -> tuple[str, ...]:
    """
    Return the flags of *unit*'s statement, without paths of this machine: each machine writes the same.

    In the statement of a linked object, each source follows its own flags.
    """
    words = [*tools.forced_flags(platform)]
    for piece in unit.pieces:
        words += [word for directory in piece.include for word in ("-I", directory)]
        words += [*piece.flags, *([piece.source] if unit.is_linked else [])]
    return tuple(words)


def split_flags(words: Sequence[str], source: str) -> tuple[Piece, ...]:
    """
    Return the pieces of a unit from the *words* of `recorded_flags` after the forced flags.

    *source* is the source of an object that is not linked. Nothing is checked but the order of the words.

    Raises: UsageError.
    """
    pieces: list[Piece] = []
    include: list[str] = []
    flags: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-I" and rest and not flags:
            include.append(rest.pop(0))
        elif word.startswith("-"):
            flags.append(word)
        else:
            pieces.append(Piece(source=word, include=tuple(include), flags=tuple(flags)))
            include, flags = [], []
    if not pieces:
        return (Piece(source=source, include=tuple(include), flags=tuple(flags)),)
    if include or flags or pieces[0].source != source:
        raise UsageError(
            f"{source}: flags of no source in the record of a linked object",
            hint="compile and sign the object again",
        )
    return tuple(pieces)


def recorded_sources(platform: str, flags: Sequence[str], source: str) -> tuple[str, ...]:
    """
    Return the sources of an object for *platform* by its statement: *source*, and those among its *flags*.

    The flags may be of another version of this tool, which reads none of them.
    """
    target = oci_platform(platform)
    forced = tuple(tools.forced_flags(target)) if target else ()
    if not forced or tuple(flags[: len(forced)]) != forced:
        return (source,)
    try:
        return tuple(piece.source for piece in split_flags(flags[len(forced) :], source))
    except UsageError:
        return (source,)


def _read_inputs(product: _Product) -> tuple[str, ...]:
    names = set[str]()
    for job in product.jobs:
        text = read_bounded(job.depfile, MAX_SOURCE_BYTES).decode(errors="surrogateescape")
        names |= {os.path.normpath(name) for name in parse_depfile(text)}
    return tuple(sorted(names))


def _places(job: _Job, options: CompileOptions) -> list[tuple[str, str]]:
    """Return name and place of each include directory of *job*."""
    return [(name, place_include(name, options.root, options.outside)) for name in job.piece.include]


def hash_sources(
    sources: Sequence[str], inputs: Sequence[str], root: Path, outside: Mapping[str, str] | None = None
) -> Digest:
    """
    Return the digest over *sources* and those of *inputs* that are in the project at *root*, or *outside*.

    The digest is the SHA-256 of the output of `sha256sum FILES`, with files sorted by name. The
    system's headers, which have absolute names, are left out. *outside* has the names of include directories
    outside the project by their places.

    Raises: FileAccessError.
    """
    return hash_files(
        {name: root / file for name, file in _hashed_names(sources, inputs, root, outside).items()}
    )


def hash_files(files: Mapping[str, Path], *, read_digest: Callable[[Path], str] | None = None) -> Digest:
    """
    Return the digest of `hash_sources` over *files*, by name.

    *read_digest* returns the digest of a file, by default after reading it.

    Raises: FileAccessError.
    """
    read = read_digest or _read_digest
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{read(path)}  {name}\n".encode(errors="surrogateescape"))
    return Digest(digest.hexdigest())


def _read_digest(path: Path) -> str:
    return hashlib.sha256(read_bounded(path, MAX_SOURCE_BYTES)).hexdigest()


def _hashed_names(
    sources: Sequence[str], inputs: Sequence[str], root: Path, outside: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the files of *sources* and of *inputs* in the project at *root* or *outside*, by their names."""
    # Text operations instead of Path, because this loop runs for each header of each object.
    top = str(root.resolve()).rstrip("/") + "/"
    names = {source: source for source in sources}
    for name in inputs:
        place = next((each for each in outside or {} if name.startswith(f"{each}/")), None)
        if place is not None:
            names[(outside or {})[place] + name.removeprefix(place)] = name
        elif not name.startswith("/"):
            names[name] = name
        elif name.startswith(top):
            names[name.removeprefix(top)] = name.removeprefix(top)
    return names


def parse_depfile(text: str) -> list[str]:
    """Return the prerequisites, unescaped, of the make rule in *text*, the output of clang -MD."""
    _, _, rest = text.replace("\\\n", " ").partition(": ")
    words = re.findall(r"(?:\\[ #]|\$\$|[^\s])+", rest)
    return [re.sub(r"\\([ #])|\$(\$)", r"\1\2", word) for word in words]


def _publish(products: Sequence[_Product], objects: Sequence[CompiledObject]) -> None:
    """
    Rename objects to their final paths, then write the records.

    fsync is not needed. The record's digest exposes a torn object, and compiling again gives the
    same bytes.
    """
    for product in products:
        try:
            product.built.replace(product.final)
        except OSError as error:
            raise FileAccessError(f"{product.final}: cannot write: {system_reason(error)}") from error
    for directory in dict.fromkeys(product.final.parent for product in products):
        entries = {name: old for name, old in _old_entries(directory).items() if old.path.exists()}
        entries |= {new.path.name: new for new in objects if new.path.parent == directory}
        write_compile_record(directory, list(entries.values()))


def _old_entries(directory: Path) -> dict[str, CompiledObject]:
    try:
        return read_compile_record(directory)
    except FileAccessError:
        return {}  # a damaged record, or one of another version, is replaced
