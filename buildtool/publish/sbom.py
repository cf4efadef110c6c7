# SPDX-License-Identifier: Apache-2.0
"""
Write the contents of an image as a bill of materials: CycloneDX 1.6 or SPDX 2.3.

The same inventory gives the same bytes: identifiers come from digests, and the time is the image's.

Sources: CycloneDX 1.6 JSON; SPDX 2.3 JSON; purl-spec, types deb, github and oci.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from buildtool import __version__
from buildtool.core.errors import ToolMissingError
from buildtool.publish.inventory import Inventory, ListedObject, ListedPackage, ListedPlatform, ListedProgram

CYCLONEDX, SPDX = "cyclonedx", "spdx"
FORMATS = (CYCLONEDX, SPDX)
MEDIA_TYPES = {CYCLONEDX: "application/vnd.cyclonedx+json", SPDX: "application/spdx+json"}
PREDICATES = {CYCLONEDX: "https://cyclonedx.org/bom", SPDX: "https://spdx.dev/Document"}
# The time of an image without one.
_EPOCH = "1970-01-01T00:00:00Z"


def write_sbom(inventory: Inventory, kind: str) -> bytes:
    """
    Return the bill of materials of *inventory* in format *kind*: cyclonedx or spdx.

    Raises: ToolMissingError, for spdx without its library.
    """
    text = _cyclonedx(inventory) if kind == CYCLONEDX else _spdx(inventory)
    return json.dumps(text, indent=1, sort_keys=True).encode() + b"\n"


def _created(inventory: Inventory) -> datetime:
    text = inventory.platforms[0].created or _EPOCH
    try:
        found = datetime.fromisoformat(text).replace(microsecond=0)
    except ValueError:
        found = datetime.fromisoformat(_EPOCH)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _properties(pairs: Iterable[tuple[str, str]]) -> list[Property]:
    return [Property(name=f"buildtool:{name}", value=value) for name, value in pairs if value]


def _cyclonedx(inventory: Inventory) -> Any:
    image = Component(
        type=ComponentType.CONTAINER,
        name=inventory.title,
        version=inventory.release or None,
        bom_ref=f"sha256:{inventory.digest}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=inventory.digest)],
        properties=_properties([("image", inventory.name)]),
    )
    # A serial number that depends on the image alone.
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"oci:sha256:{inventory.digest}"))
    bom.metadata.timestamp = _created(inventory)
    bom.metadata.component = image
    bom.metadata.tools.components.add(
        Component(type=ComponentType.APPLICATION, name="buildtool", version=__version__)
    )
    parts: list[Component] = []
    needs: dict[Component, list[Component]] = {}
    for platform in inventory.platforms:
        parts += [_object_component(platform, each) for each in platform.objects]
        for program in platform.programs:
            part, libraries = _program_component(platform, program)
            parts += [part, *libraries]
            needs[part] = libraries
        parts += [_package_component(platform, package, "base") for package in platform.packages]
    needs[image] = parts
    # Not by register_dependency, which searches all parts for each part.
    for part in (*parts, image):
        inner = [Dependency(ref=each.bom_ref) for each in needs.get(part, ())]
        bom.dependencies.add(Dependency(ref=part.bom_ref, dependencies=inner))
    bom.components.update(parts)
    return json.loads(JsonV1Dot6(bom).output_as_string())


def _object_component(platform: ListedPlatform, item: ListedObject) -> Component:
    statement = item.statement
    pairs = [("platform", platform.platform)]
    licenses = []
    if statement:
        pairs += [
            ("subject-sha256", statement.digest),
            ("object-version", str(statement.version)),
            *(("program", f"{program.name} {program.section}") for program in statement.programs),
        ]
        licenses = [DisjunctiveLicense(name=statement.license)] if statement.license else []
    if statement and statement.source:
        pairs += [("source", statement.source.path), ("source-sha256", statement.source.sha256)]
    if statement and statement.toolchain:
        pairs += [("compiler", statement.toolchain.compiler), ("flags", " ".join(statement.toolchain.flags))]
    return Component(
        type=ComponentType.FILE,
        name=item.name,
        version=(statement.release if statement else "") or None,
        bom_ref=f"{platform.platform}/{item.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.sha256)],
        licenses=licenses,
        properties=_properties(pairs),
    )


def _program_component(platform: ListedPlatform, program: ListedProgram) -> tuple[Component, list[Component]]:
    pairs = [("platform", platform.platform), ("path", program.path), ("compiler", program.compiler)]
    part = Component(
        type=ComponentType.APPLICATION,
        name=program.path.rpartition("/")[2],
        bom_ref=f"{platform.platform}{program.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=program.sha256)],
        properties=_properties(pairs),
    )
    place = program.path.rpartition("/")[2]
    return part, [_package_component(platform, package, place) for package in program.packages]


def _package_component(platform: ListedPlatform, package: ListedPackage, place: str) -> Component:
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)] if package.sha256 else []
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=f"{platform.platform}/{place}/{package.name}/{package.architecture}",
        purl=package_url(package),
        hashes=hashes,
        properties=_properties([("platform", platform.platform), ("part-of", place)]),
    )


def package_url(package: ListedPackage) -> PackageURL:
    """Return the purl of a Debian package, or of a vendored library's release on GitHub."""
    if package.vendored:
        return PackageURL(
            type="github", namespace=package.name, name=package.name, version=f"v{package.version}"
        )
    qualifiers = {"arch": package.architecture} if package.architecture else None
    return PackageURL(
        type="deb", namespace="debian", name=package.name, version=package.version, qualifiers=qualifiers
    )


def _spdx(inventory: Inventory) -> Any:
    try:
        spdx = import_module("spdx_tools.spdx.model")
        writer: Any = import_module("spdx_tools.spdx.jsonschema.document_converter")
    except ImportError as error:
        raise ToolMissingError(
            "spdx-tools: not installed", hint="pip install 'ebpf-buildtool[spdx]', or take --format cyclonedx"
        ) from error
    return _Spdx(spdx, inventory).convert(writer)


class _Spdx:
    """Makes an SPDX document with the types of module *spdx*."""

    def __init__(self, spdx: Any, inventory: Inventory) -> None:
        self._spdx = spdx
        self._inventory = inventory
        self._packages: list[Any] = []
        self._relations: list[Any] = []

    def convert(self, writer: Any) -> Any:
        """Return the document as JSON values, by the library's *writer*."""
        inventory, spdx = self._inventory, self._spdx
        info = spdx.CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id="SPDXRef-DOCUMENT",
            name=inventory.title,
            document_namespace=f"urn:buildtool:sbom:sha256:{inventory.digest}",
            creators=[spdx.Actor(spdx.ActorType.TOOL, f"buildtool-{__version__}")],
            created=_created(inventory).replace(tzinfo=None),
        )
        image = self._add(
            "image", inventory.title, inventory.release, sha256=inventory.digest, license_text=""
        )
        self._relate("SPDXRef-DOCUMENT", "DESCRIBES", image)
        for platform in inventory.platforms:
            self._add_platform(platform, image)
        document = spdx.Document(creation_info=info, packages=self._packages, relationships=self._relations)
        return writer.DocumentConverter().convert(document)

    def _add_platform(self, platform: ListedPlatform, image: str) -> None:
        for item in platform.objects:
            statement = item.statement
            comment = [platform.platform]
            if statement and statement.source:
                comment.append(f"source {statement.source.path} sha256:{statement.source.sha256}")
            if statement and statement.toolchain:
                comment.append(f"{statement.toolchain.compiler} {' '.join(statement.toolchain.flags)}")
            self._contain(
                image,
                f"{platform.platform}/{item.name}",
                item.name,
                statement.release if statement else "",
                sha256=item.sha256,
                license_text=statement.license if statement else "",
                comment="; ".join(comment),
            )
        for program in platform.programs:
            name = program.path.rpartition("/")[2]
            owner = self._contain(
                image,
                f"{platform.platform}/{name}",
                name,
                "",
                sha256=program.sha256,
                comment=platform.platform,
            )
            for package in program.packages:
                self._contain_package(owner, platform, package, name, "STATIC_LINK")
        for package in platform.packages:
            self._contain_package(image, platform, package, "base", "CONTAINS")

    def _contain_package(
        self, owner: str, platform: ListedPlatform, package: ListedPackage, place: str, relation: str
    ) -> None:
        reference = self._spdx.ExternalPackageRef(
            self._spdx.ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", package_url(package).to_string()
        )
        name = self._add(
            f"{platform.platform}/{place}/{package.name}/{package.architecture}",
            package.name,
            package.version,
            sha256=package.sha256,
            license_text="",
            comment=platform.platform,
            references=[reference],
        )
        self._relate(owner, relation, name)

    def _contain(
        self,
        owner: str,
        key: str,
        name: str,
        version: str,
        *,
        sha256: str,
        license_text: str = "",
        comment: str = "",
    ) -> str:
        made = self._add(key, name, version, sha256=sha256, license_text=license_text, comment=comment)
        self._relate(owner, "CONTAINS", made)
        return made

    def _add(
        self,
        key: str,
        name: str,
        version: str,
        *,
        sha256: str,
        license_text: str,
        comment: str = "",
        references: Iterable[Any] = (),
    ) -> str:
        spdx = self._spdx
        sums = [spdx.Checksum(spdx.ChecksumAlgorithm.SHA256, sha256)] if sha256 else []
        made = "SPDXRef-" + "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in key)
        self._packages.append(
            spdx.Package(
                spdx_id=made,
                name=name,
                version=version or None,
                download_location=spdx.SpdxNoAssertion(),
                files_analyzed=False,
                checksums=sums,
                external_references=list(references),
                # The kernel's words for a licence are no SPDX expression.
                license_comment=f"the object says {license_text!r}" if license_text else None,
                comment=comment or None,
            )
        )
        return made

    def _relate(self, one: str, relation: str, other: str) -> None:
        kind = getattr(self._spdx.RelationshipType, relation)
        self._relations.append(self._spdx.Relationship(one, kind, other))
