# SPDX-License-Identifier: Apache-2.0
"""
Write the file of `docker buildx bake` that builds rendered folders: one matrix, and groups of its targets.

Source: buildx, "Bake file reference"; HCL native syntax, "Template Literals" and "Quoted Literals".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HCL_NAME, JSON_NAME = "docker-bake.hcl", "docker-bake.json"
# What a caller can set in the environment, with its default and its purpose.
_VARIABLES = {
    "FLEET": (".", "the directory of this file, seen from where bake runs"),
    "PUSH": ("", "not empty: push the images, with the digests of `buildtool build --push`"),
    "REGISTRY": ("", "registry and path before each name that has none, for example registry.example/plant"),
    # Not SIGNING_KEY: pipelines hold the key's text in such a variable, and an error would print it.
    "SIGNING_KEY_FILE": ("", "the key's file, in place of those below"),
}
_TARGET = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeTarget:
    """
    A rendered project: its *name*, which is also that of its folder, and its *groups*.

    *tag* is the image's name, and *has_registry* is true if that begins with a registry. *platforms* are OCI
    platforms. *epoch* is the time of the image in seconds. *key* is the value of buildx's --secret for the
    signing key, and *secrets* are further ones. Bake must be allowed to read the directories *reads*.
    """

    name: str
    groups: tuple[str, ...]
    tag: str
    has_registry: bool
    platforms: tuple[str, ...]
    epoch: int
    key: str
    secrets: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


def render_hcl(targets: Sequence[BakeTarget]) -> str:
    """Return the HCL of *targets*. The same targets give the same text."""
    lines = [
        "# Written by `buildtool render --bake`. In this directory: docker buildx bake [GROUP|TARGET...]",
    ]
    for name, (default, purpose) in _VARIABLES.items():
        lines += ["", f"# {purpose[0].upper()}{purpose[1:]}.", f'variable "{name}" {{']
        lines += [f"  default = {_hcl(default)}", "}"]
    for name, members in _groups(targets).items():
        lines += ["", f'group "{name}" {{', f"  targets = {_hcl(members)}", "}"]
    lines += ["", f'target "{_TARGET}" {{', "  matrix = {", "    project = ["]
    lines += [f"      {_hcl(_row(target))}," for target in targets]
    lines += ["    ]", "  }"]
    lines += [f"  {key} = {value}" for key, value in _EXPRESSIONS.items()]
    lines += ["  args = {", f"    SOURCE_DATE_EPOCH = {_EPOCH}", "  }", "}"]
    return "\n".join(lines) + "\n"


def render_json(targets: Sequence[BakeTarget]) -> str:
    """Return the JSON of *targets*, which bake reads like the HCL."""
    expressions: dict[str, Any] = {name: _in_json(text) for name, text in _EXPRESSIONS.items()}
    document = {
        "variable": {name: {"default": default} for name, (default, _) in _VARIABLES.items()},
        "group": {name: {"targets": members} for name, members in _groups(targets).items()},
        "target": {
            _TARGET: {
                "matrix": {"project": [_escape(_row(target)) for target in targets]},
                **expressions,
                "args": {"SOURCE_DATE_EPOCH": _in_json(_EPOCH)},
            }
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_EPOCH = "project.epoch"
# Expressions of HCL; in JSON, each is a template of one expression.
_EXPRESSIONS = {
    "name": "project.name",
    "context": '"${FLEET}/${project.name}"',
    "platforms": "project.platforms",
    "tags": (
        '[project.has_registry || REGISTRY == "" ? project.tag'
        ' : "${trimsuffix(REGISTRY, "/")}/${project.tag}"]'
    ),
    # The engine's own store cannot rewrite times. Its builder would push the media types of Docker.
    "output": (
        'PUSH != "" ? ["type=image,push=true,store=false,oci-mediatypes=true,rewrite-timestamp=true"]'
        ' : ["type=docker"]'
    ),
    # Provenance contains the time of the build, so each build would have another digest.
    "attest": '["type=provenance,disabled=true"]',
    "secret": (
        'concat([SIGNING_KEY_FILE != "" ? "id=signing-key,src=${SIGNING_KEY_FILE}" : project.key],'
        " project.secrets)"
    ),
}


def _in_json(expression: str) -> str:
    return "${" + expression + "}"


def _row(target: BakeTarget) -> dict[str, Any]:
    """Return the entry of the matrix, which has the same members for each target."""
    return {
        "name": target.name,
        "tag": target.tag,
        "has_registry": target.has_registry,
        "platforms": list(target.platforms),
        "epoch": str(target.epoch),
        "key": target.key,
        "secrets": list(target.secrets),
    }


def _groups(targets: Sequence[BakeTarget]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {"default": [target.name for target in targets]}
    for target in targets:
        for name in target.groups:
            groups.setdefault(name, []).append(target.name)
    return groups


def _hcl(value: Any) -> str:
    """Return *value* as an expression of HCL, whose quoted strings have the escapes of JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_hcl(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_hcl, value)) + "]"
    return json.dumps(_escape(value), ensure_ascii=False)


def _escape(value: Any) -> Any:
    """Return *value* with escaped templates: HCL would evaluate what follows ${ and %{."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, list):
        return [_escape(each) for each in value]
    if isinstance(value, dict):
        return {key: _escape(each) for key, each in value.items()}
    return value
