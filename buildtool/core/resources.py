# SPDX-License-Identifier: Apache-2.0
"""Find the files that are installed beside the code: templates and the loader's sources."""

from __future__ import annotations

from pathlib import Path

from buildtool.core.errors import FileAccessError

_PACKAGE = Path(__file__).resolve().parent.parent


def package_directory() -> Path:
    """Return the directory of the package `buildtool`."""
    return _PACKAGE


def resource_path(name: str) -> Path:
    """
    Return the path of *name* (templates, loader, templates/init), in the wheel or in a checkout.

    Raises: FileAccessError.
    """
    for path in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        # The directory beside an installed package holds other packages. A checkout has the project file.
        if path.exists() and (_PACKAGE in path.parents or (_PACKAGE.parent / "pyproject.toml").exists()):
            return path
    raise FileAccessError(f"{name}: not part of this installation", hint="install buildtool again")
