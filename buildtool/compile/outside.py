# SPDX-License-Identifier: Apache-2.0
"""
Places of include directories outside the project.

An object must not depend on the place. Therefore clang gets the place, and objects have the name.
A builder has the headers of these directories below another directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from buildtool.core.validate import is_inside

# The place of each include directory by its name in the configuration.
Outside = Mapping[str, str]


def place_include(name: str, root: Path, outside: Outside) -> str:
    """
    Return where include directory *name* of the project at *root* is.

    A directory inside the project keeps its name, which is relative to *root*. Others have an absolute place.
    """
    if name in outside:
        return outside[name]
    if is_inside(name):
        return name
    return os.path.abspath(root / name)  # noqa: PTH100 - the name that clang will give its files
