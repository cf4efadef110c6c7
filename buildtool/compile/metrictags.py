# SPDX-License-Identifier: Apache-2.0
"""
Refuse objects whose metric tags are wrong (spec/metrics.md), and name the line of C.

BTF has no lines of declarations, and DWARF is removed. A search of the sources finds the line: macros write
the metric's name as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from buildtool.core.errors import CompileError, FileAccessError, MetricTagError, ObjectFormatError
from buildtool.core.files import read_bounded
from buildtool.metrics.declared import read_object_metrics
from buildtool.objects.elf import parse_object

_MAX_SOURCE_BYTES = 64 * 1024 * 1024
_DECLARES = re.compile(r"METRIC|metric:|metric-label:|btf_decl_tag")


def check_metric_tags(name: str, data: bytes, inputs: Iterable[str], root: Path) -> None:
    """
    Check the metrics that object *data* declares. *inputs* are its sources and headers, relative to *root*.

    *name* is for errors without a line.

    Raises: CompileError.
    """
    try:
        read_object_metrics(parse_object(data))
    except MetricTagError as error:
        place = _find_line(error.word, inputs, root) or name
        raise CompileError(f"{place}: {error.message}", hint=error.hint) from error
    except ObjectFormatError as error:
        raise CompileError(f"{name}: {error.message}", hint=error.hint) from error


def _find_line(word: str, inputs: Iterable[str], root: Path) -> str | None:
    """Return FILE:LINE of the declaration with *word*, or of the first line with it, or None."""
    if not word:
        return None
    wanted = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    other = None
    for name in inputs:
        try:
            text = read_bounded(root / name, _MAX_SOURCE_BYTES).decode("utf-8", "replace")
        except FileAccessError:
            continue
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            if wanted.search(line):
                # A declaration may be broken into lines after the macro's name.
                if any(_DECLARES.search(each) for each in lines[max(0, number - 3) : number]):
                    return f"{name}:{number}"
                other = other or f"{name}:{number}"
    return other
