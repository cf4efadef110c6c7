# SPDX-License-Identifier: Apache-2.0
"""
What the sources of a project say of its programs, before anything is compiled.

The Dockerfile is one text, made before any object exists; its labels need to know what the programs will
take. So this reads sections and helper calls from the text. It is not a compiler: what it says is checked
against the objects when the image is built (`buildtool.grant`), and buildtool.toml can say it instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from buildtool.config.file import Config
from buildtool.core.errors import FileAccessError
from buildtool.core.files import read_bounded
from buildtool.objects.capabilities import find_capabilities
from buildtool.objects.helpers import HELPER_NUMBERS

MAX_SOURCE_BYTES = 1024 * 1024
_COMMENTS = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")', re.DOTALL)
_INCLUDES = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
_SECTIONS = re.compile(r'\b(?:SEC|section)\s*\(\s*((?:"[^"\n]*"\s*)+)\)')
_CALLS = re.compile(r"\b(bpf_\w+|BPF_\w+)\s*\(")
_MAPS = re.compile(r"\bBPF_MAP_TYPE_(\w+)")
# libbpf's macros, by the helpers that they call.
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
    Return the capabilities of the image: those of the configuration, else what *sources* are seen to need.

    Raises: FileAccessError.
    """
    return tuple(sorted(set(config.image.capabilities))) or scan_capabilities(config, sources)


def scan_capabilities(config: Config, sources: Iterable[str]) -> tuple[str, ...]:
    """
    Return what the programs of *sources* are seen to need.

    Raises: FileAccessError.
    """
    text = "\n".join(_texts(config.root, sources, config.compile.include))
    called = {_MACROS.get(name, name) for name in _CALLS.findall(text)}
    return find_capabilities(
        ("".join(re.findall(r'"([^"]*)"', strings)) for strings in _SECTIONS.findall(text)),
        helpers=(HELPER_NUMBERS[name] for name in called if name in HELPER_NUMBERS),
        maps=(name.lower() for name in _MAPS.findall(text)),
    )


def _texts(root: Path, sources: Iterable[str], include: Iterable[str]) -> Iterator[str]:
    """Yield sources and the project's headers that they include, without comments, each once."""
    waiting, seen = [PurePosixPath(source) for source in sources], set[PurePosixPath]()
    directories = [PurePosixPath(directory) for directory in include]
    while waiting:
        path = waiting.pop()
        # The kernel's own types: large, and no program is in it.
        if path in seen or path.name == "vmlinux.h":
            continue
        seen.add(path)
        data = read_bounded(root / path, MAX_SOURCE_BYTES)
        if len(data) > MAX_SOURCE_BYTES:
            raise FileAccessError(
                f"{root / path}: larger than {MAX_SOURCE_BYTES} bytes",
                hint='list what the programs need, image.capabilities = ["BPF"], and no source is scanned',
            )
        text = _COMMENTS.sub(lambda found: found[1] or " ", data.decode("utf-8", "replace"))
        yield text
        for name in _INCLUDES.findall(text):
            found = [place / name for place in (path.parent, *directories)]
            waiting += [place for place in found if (root / place).is_file()][:1]
