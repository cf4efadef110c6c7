# SPDX-License-Identifier: Apache-2.0
"""
Read what a statement of provenance is about, without the libraries that write documents.

Source: in-toto, Statement v1; SLSA, provenance v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from buildtool.core.digests import Digest
from buildtool.core.strictjson import parse_json_object

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:buildtool:image:v1"
PROJECT, CONFIG = "project", "buildtool.toml"  # names of dependencies


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A git *commit*, and the *directory* of the project in its repository, empty if it is the top."""

    commit: str
    directory: str = ""


def read_named(statement: bytes, predicate_type: str) -> frozenset[str]:
    """Return the SHA-256 digests, in hex, that *statement* is about if it has *predicate_type*, else none."""
    value = _parse(statement)
    subject = value.get("subject") if value.get("predicateType") == predicate_type else None
    found: Sequence[Any] = subject if isinstance(subject, list) else ()
    digests = (each.get("digest") for each in found if isinstance(each, dict))
    values = (digest.get("sha256") for digest in digests if isinstance(digest, dict))
    return frozenset(each for each in values if isinstance(each, str))


def is_of_build(statement: bytes) -> bool:
    """Return whether *statement* is buildtool's own provenance, which names all objects."""
    predicate = _parse(statement).get("predicate")
    definition = predicate.get("buildDefinition") if isinstance(predicate, dict) else None
    return isinstance(definition, dict) and definition.get("buildType") == BUILD_TYPE


def read_source(statement: bytes) -> tuple[Source | None, Digest | None]:
    """Return the source and the digest of the configuration that buildtool's provenance *statement* names."""
    if not is_of_build(statement):
        return None, None
    found = _parse(statement)["predicate"]["buildDefinition"].get("resolvedDependencies")
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    named = {item["name"]: item for item in items if isinstance(item.get("name"), str)}
    project, config = named.get(PROJECT, {}), named.get(CONFIG, {})
    commit = _member(project, "digest", "gitCommit")
    source = Source(commit=commit, directory=_member(project, "annotations", "directory")) if commit else None
    digest = _member(config, "digest", "sha256")
    return source, Digest(digest) if digest else None


def _member(item: dict[str, Any], outer: str, inner: str) -> str:
    """Return text *inner* of object *outer* of *item*, or an empty one."""
    value = item.get(outer)
    text = value.get(inner) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""


def _parse(statement: bytes) -> dict[str, Any]:
    try:
        return parse_json_object(statement)
    except ValueError:
        return {}
