# SPDX-License-Identifier: Apache-2.0
"""
The log of a step of GitHub Actions: annotations on lines, and no commands of others.

buildtool itself prints annotations, rather than a problem matcher: a matcher reads each line of a log for
itself. It cannot place a file of a project in a directory of the repository, strip the prefixes of BuildKit,
drop what BuildKit prints twice or what compilers for several architectures print, or name the hint.

The runner obeys each line of a step's output that begins with `::`, and each `##[` in it (its
ActionCommand.cs). Compilers print lines of sources, and messages name files, so a pull request could write
commands. From start to end of a command, `stop-commands` with a random word prevents that.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from buildtool.cli.output import clean
from buildtool.core.diagnostics import ERROR, WARNING, Diagnostic, find_repository, parse_diagnostics

MAX_SHOWN = 10  # annotations of each level that GitHub shows for a step


@dataclass(slots=True, kw_only=True)
class StepLog:
    """
    The log of this step. Until `resume`, the runner obeys no line of it.

    *repository* is the directory that paths in annotations start from.
    """

    repository: Path
    word: str = field(default_factory=lambda: secrets.token_hex(16))
    shown: dict[str, int] = field(default_factory=dict)

    def stop(self) -> None:
        """Let the runner ignore commands from here on."""
        _print(f"::stop-commands::{self.word}")

    def resume(self) -> None:
        """Let the runner obey commands again, after all output so far."""
        sys.stdout.flush()
        _print(f"::{self.word}::")

    def annotate(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Print annotations of *diagnostics*, of each level as many as GitHub shows."""
        lines = [
            format_command(diagnostic, self.repository)
            for diagnostic in dict.fromkeys(diagnostics)
            if self._count(diagnostic.level) <= MAX_SHOWN
        ]
        if lines:
            self.resume()
            _print("\n".join(lines))
            self.stop()

    def _count(self, level: str) -> int:
        self.shown[level] = self.shown.get(level, 0) + 1
        return self.shown[level]


class _Warnings(logging.Handler):
    """Prints warnings of the library as annotations in *log*."""

    def __init__(self, log: StepLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Print an annotation for each line of a source in *record*, or one for all of it."""
        text = record.getMessage()
        own = Diagnostic(level=WARNING, message=text, source="buildtool")
        self._log.annotate(parse_diagnostics(text, Path()) or [own])


@contextmanager
def opened_log(environ: Mapping[str, str]) -> Iterator[StepLog]:
    """Yield the log of the step of GitHub Actions that this process runs in."""
    log = StepLog(repository=find_repository(Path(), environ))
    handler = _Warnings(log)
    logging.getLogger("buildtool").addHandler(handler)
    log.stop()
    try:
        yield log
    finally:
        logging.getLogger("buildtool").removeHandler(handler)
        log.resume()


def annotate(diagnostics: Iterable[Diagnostic]) -> None:
    """Print *diagnostics* as annotations if this command runs in a step of GitHub Actions."""
    context = click.get_current_context(silent=True)
    log = context.find_object(StepLog) if context else None
    if log is not None:
        log.annotate(diagnostics)


def format_command(diagnostic: Diagnostic, repository: Path) -> str:
    """Return the workflow command of *diagnostic*, whose file is named relative to *repository*."""
    level = WARNING if diagnostic.level == WARNING else ERROR
    properties = {}
    if found := diagnostic.locate(repository):
        name, place = found
        properties = {"file": name, "line": str(place.line)}
        properties |= {"col": str(place.column)} if place.column else {}
    properties["title"] = diagnostic.source
    named = ",".join(f"{key}={_escape_property(value)}" for key, value in properties.items())
    return f"::{level} {named}::{_escape(diagnostic.message)}"


def _escape(text: str) -> str:
    """Return *text* as the data of a command: a line break would begin another command."""
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")


def _print(text: str) -> None:
    click.echo(text, err=True)
