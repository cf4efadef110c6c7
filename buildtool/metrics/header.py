# SPDX-License-Identifier: Apache-2.0
"""The header by which programs declare metrics: `#include <buildtool/metrics.bpf.h>`."""

from __future__ import annotations

from buildtool.core.files import read_bounded
from buildtool.core.resources import package_directory

_MAX_HEADER_BYTES = 65536
HEADER_NAME = "buildtool/metrics.bpf.h"


def header_text() -> str:
    """
    Return the text of the header.

    Raises: FileAccessError.
    """
    return read_bounded(package_directory() / "metrics/metrics.bpf.h", _MAX_HEADER_BYTES).decode()
