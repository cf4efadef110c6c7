# SPDX-License-Identifier: Apache-2.0
"""The one time that builds and statements carry, so that the same input gives the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from buildtool.core.errors import ConfigError, ToolFailedError, ToolMissingError
from buildtool.core.process import Runner
from buildtool.core.strictjson import format_time

log = logging.getLogger(__name__)

VARIABLE = "SOURCE_DATE_EPOCH"


def source_date(environ: Mapping[str, str], directory: Path, runner: Runner | None = None) -> int:
    """
    Return SOURCE_DATE_EPOCH of *environ*, else when HEAD of *directory* was committed, else 0.

    Raises: ConfigError.
    """
    text = environ.get(VARIABLE, "")
    if text:
        try:
            if not (text.isascii() and text.isdigit() and len(text) <= 12):
                raise ValueError
            format_time(int(text))
        except ValueError as error:
            raise ConfigError(f"{VARIABLE}: {text[:40]!a} is not a number of seconds since 1970") from error
        return int(text)
    try:
        argv = ["git", "-C", str(directory), "log", "-1", "--no-show-signature", "--format=%ct"]
        return int((runner or Runner()).run(argv).stdout)
    except (ToolMissingError, ToolFailedError, ValueError):
        # No git, no repository or no commit: any fixed time will do, but people take 1970 for a fault.
        log.warning("no git commit and no %s: objects and images are dated 1970-01-01", VARIABLE)
        return 0
