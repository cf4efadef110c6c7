# SPDX-License-Identifier: Apache-2.0
"""The option --code-quality: a report of lines with errors and warnings, for merge requests of GitLab."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from buildtool.cli.options import OutputPath
from buildtool.cli.output import clean
from buildtool.core.diagnostics import (
    WARNING,
    Diagnostic,
    find_repository,
    locate_message,
    parse_diagnostics,
)
from buildtool.core.errors import BuildtoolError
from buildtool.core.files import check_target, check_writable, write_atomic

_NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes of a name that are not UTF-8, as Python decodes them

code_quality_option = click.option(
    "--code-quality",
    type=OutputPath(path_type=Path),
    help="Write errors and warnings on lines of sources to this file, for GitLab.",
)


class _Collector(logging.Handler):
    """Collects the lines of sources in warnings of the library."""

    def __init__(self, found: list[Diagnostic]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found += parse_diagnostics(record.getMessage(), Path())


@contextmanager
def quality_report(path: Path | None) -> Iterator[list[Diagnostic]]:
    """
    Write to *path*, if it is given, what a command adds to the list, and what it warns of or raises.

    Raises: FileAccessError, before the command does anything.
    """
    found: list[Diagnostic] = []
    if path is None:
        yield found
        return
    check_target(path, replace=True)
    check_writable(path)
    repository = find_repository(Path(), os.environ)
    logger, collector = logging.getLogger("buildtool"), _Collector(found)
    logger.addHandler(collector)
    try:
        yield found
    except BuildtoolError as error:
        own = locate_message(error.message, Path())
        found += error.diagnostics or ([own] if own else [])
        write_atomic(path, format_code_quality(found, repository))
        raise
    finally:
        logger.removeHandler(collector)
    write_atomic(path, format_code_quality(found, repository))


def format_code_quality(diagnostics: Iterable[Diagnostic], repository: Path) -> bytes:
    """
    Return *diagnostics* as a report for GitLab, those on lines of *repository* only.

    JSON is UTF-8, so U+FFFD replaces each byte of a name that is not.

    A fingerprint stays the same when other lines of the file change, so that GitLab tells new entries from
    known ones. https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    """
    entries = []
    seen: dict[str, int] = {}
    for diagnostic in dict.fromkeys(diagnostics):
        found = diagnostic.locate(repository)
        if found is None:
            continue
        name, place = _NO_TEXT.sub("\ufffd", found[0]), found[1]
        message = _NO_TEXT.sub("\ufffd", diagnostic.message)
        text = f"{name}\0{diagnostic.source}\0{message}"
        seen[text] = seen.get(text, 0) + 1
        entries.append(
            {
                "description": clean(message).replace("\n", "; "),
                "check_name": diagnostic.source,
                "fingerprint": hashlib.sha256(f"{text}\0{seen[text]}".encode()).hexdigest(),
                "severity": "minor" if diagnostic.level == WARNING else "major",
                "location": {"path": name, "lines": {"begin": place.line}},
            }
        )
    return json.dumps(entries, indent=1).encode() + b"\n"
