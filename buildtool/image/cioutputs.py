# SPDX-License-Identifier: Apache-2.0
"""
Write the result of a build for CI systems.

GitHub Actions reads outputs of a step and a summary in Markdown from the files that it names; GitLab reads
variables from a file in the form of dotenv.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildtool.core.errors import FileAccessError, system_reason
from buildtool.image.result import BuiltImage

if TYPE_CHECKING:
    from buildtool.image.overview import PlatformOverview

OUTPUT_VARIABLE = "GITHUB_OUTPUT"
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
# Outputs that are no variables for GitLab, which limits the file to 5 KiB, and values to one line.
_NO_VARIABLES = ("digests", "metadata", "tags")
MAX_LISTED = 200  # rows of the summary, which GitHub cuts off at 1 MiB

_NO_NAME = re.compile("[^A-Z0-9_]")
# Text that means nothing else in a code span of Markdown, in a table too.
_PLAIN = re.compile(r"[A-Za-z0-9_ .,:;/@+=()-]+")


def wants_overview(environ: Mapping[str, str]) -> bool:
    """Return whether *environ* names a file that `write_ci_outputs` writes."""
    return bool(environ.get(OUTPUT_VARIABLE) or environ.get(SUMMARY_VARIABLE))


def write_ci_outputs(
    image: BuiltImage, platforms: Sequence[PlatformOverview], environ: Mapping[str, str]
) -> None:
    """
    Append *image* to the files in GITHUB_OUTPUT and GITHUB_STEP_SUMMARY of *environ*, if they are set.

    *platforms* is what it holds, or empty if that is unknown.

    Raises: FileAccessError.
    """
    if output := environ.get(OUTPUT_VARIABLE):
        append_text(Path(output), format_outputs(image, platforms))
    if summary := environ.get(SUMMARY_VARIABLE):
        append_text(Path(summary), format_summary(image, platforms))


def format_outputs(image: BuiltImage, platforms: Sequence[PlatformOverview]) -> str:
    """Return the step's outputs, without empty values."""
    return "".join(_output(name, value) for name, value in _values(image, platforms).items() if value)


def format_dotenv(image: BuiltImage, platforms: Sequence[PlatformOverview]) -> bytes:
    """
    Return variables for GitLab: BUILDTOOL_IMAGE, BUILDTOOL_DIGEST, BUILDTOOL_DIGEST_LINUX_ARM64 and so on.

    The form of dotenv reports has neither quotes nor line breaks, so no value has a control character. In
    names, an underscore replaces what no name of a variable has.
    """
    values = {name: value for name, value in _values(image, platforms).items() if name not in _NO_VARIABLES}
    values |= {f"digest-{each.platform}": each.digest for each in platforms}
    lines = (
        f"BUILDTOOL_{_NO_NAME.sub('_', name.upper())}={_drop_control(value)}\n"
        for name, value in values.items()
        if value
    )
    return "".join(lines).encode()


def _values(image: BuiltImage, platforms: Sequence[PlatformOverview]) -> dict[str, str]:
    digests = {each.platform: each.digest for each in platforms}
    return {
        "image": image.reference,
        "tags": "\n".join(image.tags) if image.reference else "",
        "digest": image.digest,
        "digests": json.dumps(digests, sort_keys=True) if digests else "",
        "file": image.file,
        "key-id": image.key_id,
        "metadata": json.dumps(_metadata(image, platforms), sort_keys=True) if image.digest else "",
    }


def _metadata(image: BuiltImage, platforms: Sequence[PlatformOverview]) -> dict[str, Any]:
    """Return buildx's metadata of *image*, and what else is known of it."""
    return {
        **image.metadata,
        "engine": image.engine,
        "keyId": image.key_id,
        "signed": image.signed,
        "platforms": [
            {
                "platform": each.platform,
                "digest": each.digest,
                "size": each.size,
                "objects": [
                    {
                        "name": item.name,
                        "size": item.size,
                        "programs": item.programs,
                        "signers": item.signers,
                        "oldestKernel": item.oldest,
                    }
                    for item in each.objects
                ],
            }
            for each in platforms
        ],
    }


def _output(name: str, value: str) -> str:
    """Return the lines that set output *name*. No *value* can end early, and none can set another output."""
    if "\n" not in value and "\r" not in value:
        return f"{name}={_drop_control(value)}\n"
    word = f"end_{secrets.token_hex(16)}"
    return f"{name}<<{word}\n{_drop_control(value, keep=chr(10))}\n{word}\n"


def format_summary(image: BuiltImage, platforms: Sequence[PlatformOverview]) -> str:
    """Return Markdown that describes *image*: names, digests, sizes, programs, kernels and signatures."""
    rows = {
        "Image": ", ".join(image.tags) or image.reference or "(no tag)",
        "Digest": image.digest or "(none)",
        "File": image.file,
        "Platforms": ", ".join(image.platforms),
        "Signing key id": image.key_id,
    }
    table = [f"| {name} | {format_code(value)} |" for name, value in rows.items() if value]
    signed = "image and objects" if image.signed else "objects"
    lines = ["### Signed eBPF image", "", "| | |", "|---|---|", *table, f"| Signed | {signed} |"]
    if any(each.size for each in platforms):
        lines += ["", "| Platform | Size | Digest |", "|---|---:|---|"]
        lines += [
            f"| {format_code(each.platform)} | {_size(each.size)} | {format_code(each.digest)} |"
            for each in platforms
        ]
    objects = list(_object_rows(platforms))
    if objects:
        lines += ["", "| Object | Programs | Linux | Bytes | Signed by |", "|---|---|---|---:|---|"]
        lines += objects[:MAX_LISTED]
        if len(objects) > MAX_LISTED:
            lines += ["", f"{len(objects) - MAX_LISTED} more objects: `buildtool inspect` lists them."]
    return "\n".join(lines) + "\n\n"


def _object_rows(platforms: Sequence[PlatformOverview]) -> Iterator[str]:
    for each in platforms:
        for item in each.objects:
            name = item.name if len(platforms) == 1 else f"{each.platform} {item.name}"
            programs = ", ".join(format_code(program) for program in item.programs) or "none"
            release = f"{item.oldest} or newer" if item.oldest else "any"
            signers = ", ".join(format_code(signer[:16]) for signer in item.signers) or "nobody"
            yield f"| {format_code(name)} | {programs} | {release} | {item.size} | {signers} |"


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} bytes"


def _drop_control(value: str, keep: str = "") -> str:
    """Return *value* without control characters, because a line break would start a second output."""
    return "".join(letter for letter in value if letter.isprintable() or letter in keep)


def format_code(value: str) -> str:
    """
    Return *value* as code in Markdown, also in a table: no character of it is Markdown, HTML or a link.

    Control characters and line breaks are dropped.
    """
    text = _drop_control(value)
    if _PLAIN.fullmatch(text):
        return f"`{text}`"
    # Readers of Markdown disagree on backslashes and backticks in a code span of a table.
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in text)}</code>"


def append_text(path: Path, text: str) -> None:
    """Append *text* to the file *path*, which others write to as well. Raises: FileAccessError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error
