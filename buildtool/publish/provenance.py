# SPDX-License-Identifier: Apache-2.0
"""
Say how an image and its objects were made: the predicate of SLSA provenance v1.

docs/reference/provenance.md describes the build type and its parameters. What is said comes from the image
and, at a build, from the project. The same image and project give the same bytes: no time, no machine.

Source: SLSA, provenance v1; in-toto, resource descriptor v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from buildtool import __version__
from buildtool.core.digests import Digest
from buildtool.publish.inventory import Inventory, ListedObject, ListedPackage, base_of, object_version
from buildtool.publish.named import BUILD_TYPE, CONFIG, PROJECT, Source
from buildtool.publish.sbom import package_url

BUILDER = "urn:buildtool:builder"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """
    What only the build knows: the *engine*, the *source*, and the digest of the project's *config*.

    A source is None outside git, or if the project has sources that are not committed.
    """

    engine: str
    source: Source | None = None
    config: Digest | None = None


def make_predicate(inventory: Inventory, facts: BuildFacts | None) -> dict[str, Any]:
    """Return the provenance of the image of *inventory*, with the *facts* of its build if they are known."""
    labels = inventory.labels
    parameters: dict[str, Any] = {
        "project": inventory.title,
        "release": inventory.release,
        "version": object_version(labels),
        "platforms": [platform.platform for platform in inventory.platforms],
        "capabilities": labels.get("buildtool.capabilities", ""),
    }
    internal = {"engine": facts.engine} if facts else {}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {name: value for name, value in parameters.items() if value},
            "internalParameters": internal,
            "resolvedDependencies": list(_dependencies(inventory, facts)),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"buildtool": __version__}},
            "byproducts": list(_byproducts(inventory)),
        },
    }


def subjects(inventory: Inventory) -> list[dict[str, Any]]:
    """Return what the provenance is about: the image, and each object by its file's digest."""
    found = [{"name": inventory.name, "digest": {"sha256": inventory.digest}}]
    found += [
        {"name": f"{platform.platform}/{item.name}", "digest": {"sha256": item.sha256}}
        for platform in inventory.platforms
        for item in platform.objects
    ]
    return found


def _dependencies(inventory: Inventory, facts: BuildFacts | None) -> Iterator[dict[str, Any]]:
    """Yield the inputs, each once: the project, the sources, the compilers, the base and the packages."""
    if facts and facts.source:
        place = {"annotations": {"directory": facts.source.directory}} if facts.source.directory else {}
        yield {"name": PROJECT, "digest": {"gitCommit": facts.source.commit}} | place
    if facts and facts.config:
        yield {"name": CONFIG, "digest": {"sha256": facts.config}}
    name, digest = base_of(inventory.labels)
    if name:
        yield {"name": name} | ({"digest": {"sha256": digest.removeprefix("sha256:")}} if digest else {})
    seen: set[str] = set()
    for item in _objects(inventory):
        statement = item.statement
        if statement and statement.source and statement.source.path not in seen:
            seen.add(statement.source.path)
            yield {"name": statement.source.path, "digest": {"sha256": statement.source.sha256}}
        if statement and statement.toolchain and statement.toolchain.compiler not in seen:
            seen.add(statement.toolchain.compiler)
            yield {"name": statement.toolchain.compiler}
    for package in sorted(_packages(inventory)):
        uri = package_url(package).to_string()
        yield {"uri": uri} | ({"digest": {"sha256": package.sha256}} if package.sha256 else {})


def _packages(inventory: Inventory) -> set[ListedPackage]:
    return {
        package
        for platform in inventory.platforms
        for packages in (platform.packages, *(program.packages for program in platform.programs))
        for package in packages
    }


def _objects(inventory: Inventory) -> Iterator[ListedObject]:
    for platform in inventory.platforms:
        yield from platform.objects


def _byproducts(inventory: Inventory) -> Iterator[dict[str, Any]]:
    """Yield the manifest of each platform, and how each object was compiled."""
    for platform in inventory.platforms:
        yield {"name": platform.platform, "digest": {"sha256": platform.digest}}
        for item in platform.objects:
            statement = item.statement
            if statement is None:
                continue
            annotations: dict[str, Any] = {"subject": f"sha256:{statement.digest}"}
            if statement.source:
                annotations["source"] = statement.source.path
            if statement.toolchain:
                annotations["compiler"] = statement.toolchain.compiler
                annotations["flags"] = list(statement.toolchain.flags)
            yield {
                "name": f"{platform.platform}/{item.name}",
                "digest": {"sha256": item.sha256},
                "annotations": annotations,
            }
