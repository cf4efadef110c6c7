# SPDX-License-Identifier: Apache-2.0
"""Rules about the source as a whole, which no linter of ours knows."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
# Distributions whose module has another name.
MODULES = {"pyelftools": "elftools", "python-pkcs11": "pkcs11"}


def sources() -> list[Path]:
    """Return the modules of the package."""
    found = sorted((TOP / "buildtool").rglob("*.py"))
    assert len(found) > 90
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of what *path* imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_each_imported_library_is_declared() -> None:
    """A library that comes along with another one today may not tomorrow."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["clang"], *extras["pkcs11"]]
    names = {re.split(r"[\[<>=;! ]", line)[0] for line in wanted}
    declared = {MODULES.get(name, name) for name in names}
    found = {name for path in sources() for name in imported(path)} - sys.stdlib_module_names - {"buildtool"}
    assert found >= {"click", "cryptography", "docker", "requests"}
    assert found <= declared
