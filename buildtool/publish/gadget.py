# SPDX-License-Identifier: Apache-2.0
"""
Make images of Inspektor Gadget: an index of artifacts, each with an object as it is and a gadget.yaml.

Source: Inspektor Gadget, pkg/oci/{build,oci}.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from buildtool.core.platforms import Platform
from buildtool.core.yamltext import quote_scalar
from buildtool.oci.write import Document, IndexPart, blob_layer

ARTIFACT_TYPE = "application/vnd.gadget.v1+binary"
MEDIA_PROGRAM = "application/vnd.gadget.ebpf.program.v1+binary"
MEDIA_METADATA = "application/vnd.gadget.config.v1+yaml"
# Inspektor Gadget runs on these, and builds its own images for both.
ARCHITECTURES = ("amd64", "arm64")
_OCI = "org.opencontainers.image."
# Members of gadget.yaml, by the annotation with the same text.
_MEMBERS = {
    "title": "name",
    "description": "description",
    "url": "homepageURL",
    "documentation": "documentationURL",
    "source": "sourceURL",
}


def gadget_annotations(name: str, labels: Mapping[str, str], created: str) -> dict[str, str]:
    """Return the annotations of gadget *name*, from the *labels* of the runtime image, *created* then."""
    wanted = {f"{_OCI}{key}": labels.get(f"{_OCI}{key}", "") for key in (*_MEMBERS, "version", "licenses")}
    wanted |= {f"{_OCI}title": name, f"{_OCI}created": created}
    return {key: value for key, value in sorted(wanted.items()) if value}


def gadget_part(
    platform: Platform, data: bytes, *, metadata: bytes | None, annotations: Mapping[str, str]
) -> IndexPart:
    """
    Return the artifact for *platform* of object *data*. *metadata* is the project's gadget.yaml.

    Without a file, gadget.yaml has the texts of the annotations. Inspektor Gadget adds what the object tells.
    """
    text = metadata if metadata is not None else _make_metadata(annotations)
    return IndexPart(
        platform=platform,
        config=Document(media_type=MEDIA_METADATA, data=text),
        layers=(blob_layer(data, MEDIA_PROGRAM),),
        artifact_type=ARTIFACT_TYPE,
        annotations=annotations,
    )


def _make_metadata(annotations: Mapping[str, str]) -> bytes:
    """Return a gadget.yaml. Labels are a stranger's texts, of any characters."""
    members = ((member, annotations.get(f"{_OCI}{key}")) for key, member in _MEMBERS.items())
    return b"".join(f"{member}: {quote_scalar(text)}\n".encode() for member, text in members if text)
