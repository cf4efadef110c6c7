# SPDX-License-Identifier: Apache-2.0
"""Find eBPF sources by their contents, and the headers that a file includes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from buildtool.adopt.tree import Tree, folder_of, join

_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)
_SECTION = re.compile(r'\b(?:SEC|__section|BPF_SEC)\s*\(\s*["A-Z]|\bsection\s*\(\s*"(?:\.?maps|license)"')
_PROGRAM_HEADER = re.compile(
    r"bpf_helpers\.h|vmlinux\w*\.h|bpf_core_read\.h|bpf_tracing\.h|bpf_helper_defs\.h"
)
# Headers that only programs of user space include.
_USER_HEADER = re.compile(
    r"(?:bpf/)?(?:libbpf|bpf)\.h|xdp/libxdp\.h|stdio\.h|unistd\.h|pthread\.h|argp\.h|getopt\.h|signal\.h|"
    r"[\w./-]+\.skel\.h|fcntl\.h|sys/(?:mman|epoll|ioctl|wait)\.h"
)
_MAIN = re.compile(r"^\s*(?:int|void)\s+main\s*\(", re.MULTILINE)
_DIRECTIVE = re.compile(
    r"^[ \t]*#[ \t]*(include(?:_next)?|ifndef|ifdef|if|elif|else|endif|define)\b[ \t]*"
    r'(?:([<"])([^>"\n]+)[>"])?([^\n]*)',
    re.MULTILINE,
)
_TESTS = re.compile(r"(?:^|/)(?:self)?tests?/|/testdata/|^testdata/|(?:^|/)(?:test|rusttestdata|e2e)[^/]*/")
_WINDOWS = re.compile(r"(?:^|/)windows/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """An #include: *name*, *line*, whether in *quotes*, and *conditional* if an #if encloses the line."""

    name: str
    line: int
    quotes: bool
    conditional: bool


def find_includes(tree: Tree, name: str) -> tuple[Include, ...]:
    """Return the #include lines of file *name*. Those of macros are left out."""
    text, depth, guards, line, at, first = tree.read(name), 0, 0, 1, 0, True
    found = []
    for match in _DIRECTIVE.finditer(text):
        line, at = line + text.count("\n", at, match.start()), match.start()
        word, bracket, header, rest = match.groups()
        if word.startswith("if"):
            # #ifndef NAME, #define NAME around a whole header is no condition.
            guard = rest.strip()
            is_guard = first and word == "ifndef" and re.search(rf"#\s*define\s+{re.escape(guard)}\b", text)
            guards, depth = guards + bool(is_guard), depth + 1
        elif word == "endif":
            depth = max(depth - 1, 0)
        elif word.startswith("include") and header:
            found.append(Include(name=header, line=line, quotes=bracket == '"', conditional=depth > guards))
        first = first and word.startswith("include")
    return tuple(found)


def find_programs(tree: Tree, named: Collection[str]) -> list[str]:
    """
    Return the eBPF sources of the project, sorted: C files with programs or maps, and those that are *named*.

    A file that another source includes is none. A C file that only includes such files is their source.
    """
    own = [
        name
        for name in sorted(tree.files)
        if name.endswith(".c") and not tree.is_foreign(name) and not _WINDOWS.search(name)
    ]
    parts = {name for name in own if name in named or _has_programs(tree, name)}
    included: dict[str, set[str]] = {}
    for name in own:
        for include in find_includes(tree, name):
            if include.name.endswith(".c"):
                target = join(folder_of(name), include.name)
                inside = target if target in tree.files else _only_named(tree, include.name)
                if inside:
                    included.setdefault(inside, set()).add(name)
    above = {owner for name in parts for owner in included.get(name, ()) if not _is_user(tree, owner)}
    kernel = parts | above
    return sorted(name for name in kernel if not _owners(name, included) & kernel)


def _owners(name: str, included: Mapping[str, set[str]]) -> set[str]:
    """Return the files that include *name*. A test that includes a source does not make it a part."""
    owners = included.get(name, set()) - {name}
    return owners if is_test(name) else {owner for owner in owners if not is_test(owner)}


def is_test(name: str) -> bool:
    """Return whether source *name* is in a folder of tests."""
    return _TESTS.search(name) is not None


def _only_named(tree: Tree, name: str) -> str:
    found = [each for each in tree.named(name.rpartition("/")[2]) if each.endswith(f"/{name.lstrip('./')}")]
    return found[0] if len(found) == 1 else ""


def _has_programs(tree: Tree, name: str) -> bool:
    text = tree.read(name)
    if "SEC" not in text and "section" not in text:
        return False
    return bool(_SECTION.search(without_comments(text))) and not _is_user(tree, name)


def _is_user(tree: Tree, name: str) -> bool:
    includes = {include.name for include in find_includes(tree, name)}
    if any(_PROGRAM_HEADER.search(each) for each in includes):
        return bool(includes & {"stdio.h", "unistd.h"}) and _MAIN.search(tree.read(name)) is not None
    if any(_USER_HEADER.fullmatch(each) for each in includes):
        return True
    return _MAIN.search(without_comments(tree.read(name))) is not None


def without_comments(text: str) -> str:
    """Return C code *text* with a blank in place of each comment."""
    return _COMMENT.sub(lambda found: found[0] if found[0].startswith('"') else " ", text)
