# SPDX-License-Identifier: Apache-2.0
"""
Which of the carried headers a Dockerfile brings along: those that the sources of a project can reach.

All of them are 8 MB, and few projects read a tenth. A directive that names its header by a macro brings all:
only a compiler could say what it reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from buildtool.compile.headers import COMMON, LIST_NAME, Headers
from buildtool.config.file import Config
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.image.embedded import EmbeddedFile

# Where the modules in the builder look for them.
PLACE = PurePosixPath("buildtool/data/headers")
_MAX_SOURCE_BYTES = 64 * 1024 * 1024
# Directives and __has_include, in comments and in branches that are not taken as well.
_DIRECTIVE = rb"(?:#|%:|\?\?=)[ \t]*(?:include(?:_next)?|import)\b[ \t]*(?:/\*.*?\*/[ \t]*)?"
_OPERATOR = rb"__has_include(?:_next)?[ \t]*\([ \t]*"
_NAMED = re.compile(rb'(?:%b|%b)(?:<([^>\n]+)>|"([^"\n]+)")' % (_DIRECTIVE, _OPERATOR))
_BY_MACRO = re.compile(rb"(?:%b|%b)[A-Za-z_]" % (_DIRECTIVE, _OPERATOR))


def choose_headers(
    config: Config, sources: Iterable[str], platforms: Sequence[Platform], headers: Headers
) -> tuple[EmbeddedFile, ...]:
    """
    Return the files of *headers* that *sources* can reach on one of *platforms*, and a list of these alone.

    Raises: FileAccessError.
    """
    places = [*(platform.arch for platform in platforms), COMMON]
    names = _reach(config, sources, places, headers)
    files = {name: headers.read(name) for name in names}
    files[LIST_NAME] = headers.list_document(names)
    return tuple(
        EmbeddedFile(directory=str((PLACE / name).parent), name=PurePosixPath(name).name, text=data.decode())
        for name, data in sorted(files.items())
    )


def _reach(config: Config, sources: Iterable[str], places: Sequence[str], headers: Headers) -> list[str]:
    """Return the names of the headers, sorted."""
    waiting = [(False, os.path.normpath(source)) for source in sources]
    seen = set[tuple[bool, str]]()
    while waiting:
        carried, path = waiting.pop()
        if (carried, path) in seen:
            continue
        seen.add((carried, path))
        text = headers.read(path) if carried else read_bounded(config.root / path, _MAX_SOURCE_BYTES)
        text = text.replace(b"\\\n", b"")
        if not carried and _BY_MACRO.search(text):
            return sorted(name for name in headers.files if name.partition("/")[0] in places)
        beside = (str(PurePosixPath(path).parent),)
        for found in _NAMED.findall(text):
            name = os.fsdecode(found[0] or found[1])
            # A carried header may include one that the project has in its place.
            own = _join(config.compile.include if carried else (*beside, *config.compile.include), name)
            waiting += [(False, each) for each in own if (config.root / each).is_file()]
            theirs = _join((*beside, *places) if carried else places, name)
            waiting += [(True, each) for each in theirs if each in headers.files]
    return sorted(path for carried, path in seen if carried)


def _join(places: Iterable[str], name: str) -> list[str]:
    return [os.path.normpath(f"{place}/{name}") for place in places]
