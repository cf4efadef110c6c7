# SPDX-License-Identifier: Apache-2.0
"""Write the result of a build for CI pipelines: step outputs and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from buildtool.core.errors import FileAccessError, system_reason
from buildtool.image.result import BuiltImage

OUTPUT_VARIABLE = "GITHUB_OUTPUT"
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def write_ci_outputs(image: BuiltImage, environ: Mapping[str, str]) -> None:
    """
    Append *image* to the files in GITHUB_OUTPUT and GITHUB_STEP_SUMMARY of *environ*, if they are set.

    Raises: FileAccessError.
    """
    if output := environ.get(OUTPUT_VARIABLE):
        _append(Path(output), format_outputs(image))
    if summary := environ.get(SUMMARY_VARIABLE):
        _append(Path(summary), format_summary(image))


def format_outputs(image: BuiltImage) -> str:
    """Return the step's outputs as lines NAME=VALUE, without empty values."""
    values = {"image": image.reference, "digest": image.digest, "key-id": image.key_id}
    return "".join(f"{name}={_drop_control(value)}\n" for name, value in values.items() if value)


def format_summary(image: BuiltImage) -> str:
    """Return a Markdown table that describes *image*."""
    rows = {
        "Image": image.reference or "(no tag)",
        "Digest": image.digest or "(none)",
        "Platforms": ", ".join(image.platforms),
        "Signing key id": image.key_id,
    }
    table = "".join(f"| {name} | `{_cell(value)}` |\n" for name, value in rows.items())
    return f"### Signed eBPF image\n\n| | |\n|---|---|\n{table}\n"


def _drop_control(value: str) -> str:
    """Return *value* without control characters, because a line break would start a second output."""
    return "".join(letter for letter in value if letter.isprintable())


def _cell(value: str) -> str:
    return _drop_control(value).replace("|", "\\|").replace("`", "'")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FileAccessError(f"{path}: cannot write: {system_reason(error)}") from error
