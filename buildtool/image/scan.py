# SPDX-License-Identifier: Apache-2.0
"""
Estimate the capabilities of a project's programs from their sources, before anything is compiled.

The Dockerfile's labels contain the capabilities, and the Dockerfile is rendered before any object exists.
Therefore this module reads sections and helper calls from the text. The estimate is compared with the
objects when the image is built (`buildtool.cli.grant`). buildtool.toml can replace it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from buildtool.config.file import Config
from buildtool.core.files import read_bounded
from buildtool.image.metadata import image_selection
from buildtool.objects.capabilities import find_capabilities
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import UNKNOWN_PROGRAM, find_declaration, program_type

# As in the compiler. The rest of a larger file isn't scanned, because `grant` reads the objects anyway.
MAX_SOURCE_BYTES = 64 * 1024 * 1024
_COMMENTS = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")', re.DOTALL)
_INCLUDES = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
_SECTIONS = re.compile(r'\b(?:SEC|section)\s*\(\s*((?:"[^"\n]*"\s*)+)\)')
# A section before a function: SEC("xdp") int f(…), or a macro of libbpf: SEC("lsm/x") int BPF_PROG(f, …).
_PROGRAMS = re.compile(
    r'\b(?:SEC|section)\s*\(\s*(?P<strings>(?:"[^"\n]*"\s*)+)\)[^;={(]*?'
    r"\b(?P<word>\w+)\s*\(\s*(?P<argument>\w*)"
)
_ATTRIBUTES = re.compile(r"__attribute__\s*\(\(\s*\w+\s*\)\)")
_CALLS = re.compile(r"\b(bpf_\w+|BPF_\w+)\s*\(")
# A header of all kernel types, of any name, lists every map type and uses none.
_KERNEL_TYPES = re.compile(r"\benum\s+bpf_map_type\s*\{")
_MAPS = re.compile(r"\bBPF_MAP_TYPE_(\w+)")
# libbpf's macros with the helpers that they call.
_MACROS = {
    "bpf_printk": "bpf_trace_printk",
    "bpf_core_read": "bpf_probe_read_kernel",
    "bpf_core_read_str": "bpf_probe_read_kernel_str",
    "BPF_CORE_READ": "bpf_probe_read_kernel",
    "BPF_CORE_READ_INTO": "bpf_probe_read_kernel",
    "BPF_CORE_READ_STR_INTO": "bpf_probe_read_kernel_str",
    "BPF_PROBE_READ": "bpf_probe_read_kernel",
    "BPF_SNPRINTF": "bpf_snprintf",
}


def choose_capabilities(config: Config, sources: Iterable[str]) -> tuple[str, ...]:
    """
    Return the sorted capabilities of the image: those of the configuration, or those that *sources* require.

    Raises: FileAccessError.
    """
    return tuple(sorted(set(config.image.capabilities))) or scan_capabilities(config, sources)


def scan_capabilities(config: Config, sources: Iterable[str]) -> tuple[str, ...]:
    """
    Return the sorted capabilities that the programs in *sources* appear to require.

    Raises: FileAccessError.
    """
    text = "\n".join(text for _, text in _read_all(config, sources))
    called = {_MACROS.get(name, name) for name in _CALLS.findall(text)}
    selection = image_selection(config)
    sections = ["".join(re.findall(r'"([^"]*)"', strings)) for strings in _SECTIONS.findall(text)]
    optional = [section for name, section in _find_programs(text) if selection.loads(name, section)]
    loaded = [*(section for section in sections if not section.startswith("?")), *optional]
    return find_capabilities(
        [_loaded_as(section, config) for section in loaded],
        helpers=(HELPER_NUMBERS[name] for name in called if name in HELPER_NUMBERS),
        maps=(name.lower() for name in _MAPS.findall(text)),
    )


def _find_programs(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and section of each function with a section in the source *text*."""
    for found in _PROGRAMS.finditer(_ATTRIBUTES.sub(" ", text)):
        section = "".join(re.findall(r'"([^"]*)"', found["strings"]))
        name = found["argument"] if found["word"].startswith("BPF_") else found["word"]
        if name:
            yield name, section


def scan_programs(config: Config, sources: Iterable[str]) -> list[tuple[str, str]]:
    """
    Return name and section of each program that *sources* appear to define.

    Raises: FileAccessError.
    """
    found = (
        (name, _loaded_as(section, config))
        for _, text in _read_all(config, sources)
        for name, section in _find_programs(text)
    )
    return [(name, section) for name, section in found if program_type(section) != UNKNOWN_PROGRAM]


def _loaded_as(section: str, config: Config) -> str:
    """Return the section name that decides how programs of *section* are loaded, with its `?`."""
    declared = find_declaration(section, config.compile.declared)
    return f"{section[: section.startswith('?')]}{declared}" if declared else section


def scan_files(config: Config, sources: Iterable[str]) -> list[str]:
    """
    Return *sources* and the headers that they include in quotes, in every branch of #if.

    Raises: FileAccessError.
    """
    return [str(path) for path, _ in _read_all(config, sources)]


def _read_all(config: Config, sources: Iterable[str]) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield path and text, without comments, of each source and each header that it includes in quotes."""
    root, waiting, seen = config.root, [PurePosixPath(source) for source in sources], set[PurePosixPath]()
    directories = [PurePosixPath(directory) for directory in config.compile.every_include]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        text = "" if path.name == "vmlinux.h" else _read_text(root / path)
        yield path, text
        for name in _INCLUDES.findall(text):
            found = [place / name for place in (path.parent, *directories)]
            waiting += [place for place in found if (root / place).is_file()][:1]


def _read_text(path: Path) -> str:
    text = read_bounded(path, MAX_SOURCE_BYTES).decode("utf-8", "replace")
    if path.suffix == ".h" and _KERNEL_TYPES.search(text):
        return ""
    return _COMMENTS.sub(lambda found: found[1] or " ", text)
