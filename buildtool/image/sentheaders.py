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
from buildtool.compile.plan import OUTSIDE_PLACE, outside_names
from buildtool.config.file import Config
from buildtool.core.errors import ConfigError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform
from buildtool.image.context import has_private_key
from buildtool.image.embedded import EmbeddedFile

# Where the modules in the builder look for them.
PLACE = PurePosixPath("buildtool/data/headers")
_MAX_SOURCE_BYTES = 64 * 1024 * 1024
_MAX_OUTSIDE = 2000
# Directives and __has_include, in comments and in branches that are not taken as well.
_DIRECTIVE = rb"(?:#|%:|\?\?=)[ \t]*(?:include(?:_next)?|import)\b[ \t]*(?:/\*.*?\*/[ \t]*)?"
_OPERATOR = rb"__has_include(?:_next)?[ \t]*\([ \t]*"
_NAMED = re.compile(rb'(?:%b|%b)(?:<([^>\n]+)>|"([^"\n]+)")' % (_DIRECTIVE, _OPERATOR))
_BY_MACRO = re.compile(rb"(?:%b|%b)[A-Za-z_]" % (_DIRECTIVE, _OPERATOR))


def choose_headers(
    config: Config, sources: Iterable[str], platforms: Sequence[Platform], headers: Headers | None
) -> tuple[EmbeddedFile, ...]:
    """
    Return the headers that *sources* can reach on one of *platforms* and that are not in the project.

    These are files of *headers*, with a list of these alone, and files of include directories outside the
    project.

    Raises: FileAccessError; ConfigError, for a header outside the project that is not text in UTF-8.
    """
    places = [*(platform.arch for platform in platforms), COMMON]
    names, own = _reach(config, sources, places, headers)
    files = {} if headers is None else {str(PLACE / name): headers.read(name) for name in names}
    if headers is not None:
        files[str(PLACE / LIST_NAME)] = headers.list_document(names)
    for number, directory in enumerate(outside_names(config.compile.every_include)):
        top = PurePosixPath(os.path.normpath(directory))
        for path in map(PurePosixPath, own):
            if path.is_relative_to(top):
                name = f"buildtool/{OUTSIDE_PLACE}/{number}/{path.relative_to(top)}"
                files[name] = read_bounded(config.root / path, _MAX_SOURCE_BYTES)
                if has_private_key(files[name]):
                    raise ConfigError(
                        f"{path}: a private key in a header, which is sent to the builder",
                        hint="move the key to keys/, and name no directory with keys in compile.include",
                    )
    return tuple(_embed(PurePosixPath(name), data) for name, data in sorted(files.items()))


def _embed(path: PurePosixPath, data: bytes) -> EmbeddedFile:
    try:
        return EmbeddedFile(directory=str(path.parent), name=path.name, text=data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path.name}: a header outside the project that is not UTF-8",
            hint="save it as UTF-8, copy it into the project, or use --engine local",
        ) from error


def _reach(
    config: Config, sources: Iterable[str], places: Sequence[str], headers: Headers | None
) -> tuple[list[str], list[str]]:
    """Return the names of the carried headers, sorted, and all other files that the sources can reach."""
    carried_files = {} if headers is None else headers.files
    include = config.compile.every_include
    waiting = [(False, os.path.normpath(source)) for source in sources]
    seen = set[tuple[bool, str]]()
    while waiting:
        carried, path = waiting.pop()
        if (carried, path) in seen:
            continue
        seen.add((carried, path))
        text = (
            headers.read(path) if carried and headers else read_bounded(config.root / path, _MAX_SOURCE_BYTES)
        )
        text = text.replace(b"\\\n", b"")
        if not carried and _BY_MACRO.search(text):
            own = [path for is_carried, path in seen if not is_carried]
            return sorted(name for name in carried_files if name.partition("/")[0] in places), [
                *own,
                *_all_headers(config),
            ]
        beside = (str(PurePosixPath(path).parent),)
        for found in _NAMED.findall(text):
            name = os.fsdecode(found[0] or found[1])
            # A carried header may include one that the project has in its place.
            own = _join(include if carried else (*beside, *include), name)
            waiting += [(False, each) for each in own if (config.root / each).is_file()]
            theirs = _join((*beside, *places) if carried else places, name)
            waiting += [(True, each) for each in theirs if each in carried_files]
    return sorted(path for carried, path in seen if carried), [path for carried, path in seen if not carried]


def _all_headers(config: Config) -> list[str]:
    """Return the headers in the include directories outside the project, for a name that a macro gives."""
    found = []
    for directory in outside_names(config.compile.every_include):
        for path in sorted((config.root / directory).rglob("*.h")):
            relative = path.relative_to(config.root / directory).as_posix()
            found.append(os.path.normpath(f"{directory}/{relative}"))
        if len(found) > _MAX_OUTSIDE:
            raise ConfigError(
                f"{directory}: more than {_MAX_OUTSIDE} headers, and a source includes one by a macro",
                hint="name a directory with fewer headers in compile.include, or use --engine local",
            )
    return found


def _join(places: Iterable[str], name: str) -> list[str]:
    return [os.path.normpath(f"{place}/{name}") for place in places]
