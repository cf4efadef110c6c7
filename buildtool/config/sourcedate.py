# SPDX-License-Identifier: Apache-2.0
"""Find the time of builds and statements. The same input must give the same bytes."""

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
    Return SOURCE_DATE_EPOCH of *environ*, or the commit time of HEAD in *directory*, or 0.

    The unit is seconds since the epoch.

    Raises: ConfigError, if SOURCE_DATE_EPOCH is not a number.
    """
    text = environ.get(VARIABLE, "")
    if text:
        try:
            if not (text.isascii() and text.isdigit() and len(text) <= 12):
                raise ValueError
            format_time(int(text))
        except ValueError as error:
            raise ConfigError(
                f"{VARIABLE}: {text[:40]!r} is not a number of seconds since 1970",
                hint=f"for example {VARIABLE}=$(git log -1 --format=%ct), which is also the time without it",
            ) from error
        return int(text)
    try:
        argv = ["git", "-C", str(directory), "log", "-1", "--no-show-signature", "--format=%ct"]
        return int((runner or Runner()).run(argv).stdout)
    except (ToolMissingError, ToolFailedError, ValueError):
        # Any fixed time gives the same bytes. Warn, because people take 1970 for a fault.
        log.warning("no git commit and no %s: objects and images are dated 1970-01-01", VARIABLE)
        return 0
