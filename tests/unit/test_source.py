# SPDX-License-Identifier: Apache-2.0
"""Rules about the whole source that no linter checks."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from labs import TOP

from buildtool.core.resources import package_directory

# Distributions whose module has another name.
MODULES = {
    "cyclonedx-python-lib": "cyclonedx",
    "packageurl-python": "packageurl",
    "prometheus-client": "prometheus_client",
    "pyelftools": "elftools",
    "python-pkcs11": "pkcs11",
}


def sources() -> list[Path]:
    """Return the modules of the package."""
    found = sorted(package_directory().rglob("*.py"))
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


# Names that several modules share on purpose, as a protocol: the caller names the module.
SHARED = {
    "command": "the command of each module of cli/, which main imports by name",
    "open_signer": "what each module of signing/signers/ has for find_signer",
    "from_bytes": "the reader of a format, beside its to_bytes",
    "to_bytes": "the writer of a format, beside its from_bytes",
}


def public_names(path: Path) -> Iterator[str]:
    """Yield the public functions and classes of module *path*."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name


def test_one_name_has_one_meaning() -> None:
    """Two public functions or classes of one name are taken for each other by who reads a call."""
    places: dict[str, list[str]] = {}
    for path in sources():
        for name in public_names(path):
            places.setdefault(name, []).append(path.relative_to(package_directory().parent).as_posix())
    several = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in several.items() if name not in SHARED} == {}
    assert several.keys() == SHARED.keys()


def test_the_systems_reason_is_written_one_way() -> None:
    """All modules use system_reason, because an OSError may have no text."""
    found = {
        path.relative_to(package_directory().parent).as_posix()
        for path in sources()
        if ".strerror" in path.read_text()
    }
    assert found == {"buildtool/core/errors.py", "buildtool/image/docker/client.py"}
